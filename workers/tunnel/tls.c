#include "workers/tunnel/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define VERIFY_DEPTH 8
/* AES-128 first: as strong as the link needs, and a third cheaper per byte than AES-256. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define URI_PREFIX "hermes://"

/* Whom nobody here believes any more is what the configuration in force says, also in handshakes that began before. */
static const struct config *in_force;

struct tls {
	const struct config *config;
	const struct tls_file *files;   /* while contexts are made */
	size_t n_files;
	SSL_CTX **listeners, **clusters;
	char *error;
	size_t error_size;
	const char *where;              /* "listener apps", for errors */
	const char *where_name;
};

/* --- certificates ---------------------------------------------------------------------------------------------------- */

static bool complain(struct tls *tls, const char *path, const char *what)
{
	char reason[160] = "";
	unsigned long code = ERR_peek_last_error();
	if (code)
		ERR_error_string_n(code, reason, sizeof(reason));
	snprintf(tls->error, tls->error_size, "%s %s: %s: %s%s%s", tls->where, tls->where_name, path ? path : "(none)", what,
	         code ? ": " : "", reason);
	ERR_clear_error();
	return false;
}

static BIO *file_open(struct tls *tls, const char *kind, const char *path)
{
	for (size_t i = 0; path && i < tls->n_files; i++)
		if (strcmp(tls->files[i].path, path) == 0 && strcmp(tls->files[i].kind, kind) == 0)
			return BIO_new_mem_buf(tls->files[i].data, (int)tls->files[i].length);
	complain(tls, path, "the file was not handed over");
	return NULL;
}

static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
	(void)buffer, (void)size, (void)writing, (void)arg;
	return -1;   /* a daemon has nobody to ask */
}

static bool use_certificate(struct tls *tls, SSL_CTX *ctx, const char *path)
{
	BIO *bio = file_open(tls, "certificate", path);
	if (!bio)
		return false;
	X509 *x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
	bool ok = x && SSL_CTX_use_certificate(ctx, x) == 1;
	X509_free(x);
	while (ok && (x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL))) {
		ok = SSL_CTX_add1_chain_cert(ctx, x) == 1;
		X509_free(x);
	}
	BIO_free(bio);
	if (!ok)
		return complain(tls, path, "not a certificate in PEM");
	ERR_clear_error();
	return true;
}

static bool use_key(struct tls *tls, SSL_CTX *ctx, const char *path)
{
	BIO *bio = file_open(tls, "key", path);
	if (!bio)
		return false;
	EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	bool read = key != NULL, fits = read && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
	EVP_PKEY_free(key);
	if (!read)
		return complain(tls, path, "not a private key in PEM without passphrase");
	return fits || complain(tls, path, "the key does not fit the certificate");
}

static bool trust(struct tls *tls, SSL_CTX *ctx, const struct config_strs *authorities, const char *crl)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	for (size_t i = 0; i < authorities->n; i++) {
		BIO *bio = file_open(tls, "authority", authorities->v[i]);
		if (!bio)
			return false;
		unsigned n = 0;
		for (X509 *x; (x = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL)); n++) {
			X509_STORE_add_cert(store, x);
			SSL_CTX_add_client_CA(ctx, x);
			X509_free(x);
		}
		BIO_free(bio);
		if (n == 0)
			return complain(tls, authorities->v[i], "no certificate in PEM");
		ERR_clear_error();
	}
	if (!crl)
		return true;
	BIO *bio = file_open(tls, "crl", crl);
	X509_CRL *list = bio ? PEM_read_bio_X509_CRL(bio, NULL, no_passphrase, NULL) : NULL;
	BIO_free(bio);
	if (!list)
		return bio ? complain(tls, crl, "not a revocation list in PEM") : false;
	X509_STORE_add_crl(store, list);
	X509_CRL_free(list);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return true;
}

/* --- contexts -------------------------------------------------------------------------------------------------------- */

static SSL_CTX *context_new(const SSL_METHOD *method, bool only_1_3)
{
	SSL_CTX *ctx = SSL_CTX_new(method);
	if (!ctx)
		abort();
	SSL_CTX_set_min_proto_version(ctx, only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
	SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_ciphersuites(ctx, SUITES);
	SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH);
	/* No resumption: every connection proves its certificate, so that a revocation holds at once. */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

static const unsigned char alpn_http[] = "\x02h2\x08http/1.1";

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *in,
                       unsigned in_length, void *arg)
{
	(void)ssl;
	unsigned char *chosen;
	unsigned offered = arg ? 3 : sizeof(alpn_http) - 1;   /* arg: between nodes, HTTP/2 only */
	if (SSL_select_next_proto(&chosen, out_length, alpn_http, offered, in, in_length) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static const char *pick(const char *own, const char *identity)
{
	return own ? own : identity;
}

static int verify_client(int ok, X509_STORE_CTX *store);
static int verify_server(int ok, X509_STORE_CTX *store);

static SSL_CTX *listener_context(struct tls *tls, const struct config_listener *l)
{
	const struct config_identity *identity = &tls->config->identity;
	bool overlay = l->accept == CONFIG_OVERLAY;
	tls->where = "listener";
	tls->where_name = l->name;
	SSL_CTX *ctx = context_new(TLS_server_method(), overlay || l->tls.min_version == CONFIG_TLS_1_3);
	const struct config_strs *authorities = l->tls.authorities.n || !overlay ? &l->tls.authorities : &identity->authorities;
	bool ok = use_certificate(tls, ctx, pick(l->tls.certificate, identity->certificate)) &&
	          use_key(tls, ctx, pick(l->tls.key, identity->key)) &&
	          trust(tls, ctx, authorities, pick(l->tls.crl, overlay ? identity->crl : NULL));
	if (overlay || authorities->n)
		SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | (overlay || l->tls.require ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
		                   verify_client);
	if (overlay || l->accept == CONFIG_HTTP)
		SSL_CTX_set_alpn_select_cb(ctx, select_alpn, overlay ? ctx : NULL);
	if (ok)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static SSL_CTX *cluster_context(struct tls *tls, const struct config_cluster *c)
{
	const struct config_identity *identity = &tls->config->identity;
	tls->where = "cluster";
	tls->where_name = c->name;
	SSL_CTX *ctx = context_new(TLS_client_method(), c->tls.min_version == CONFIG_TLS_1_3 || !c->tls.no_identity);
	const char *certificate = pick(c->tls.certificate, c->tls.no_identity ? NULL : identity->certificate);
	const char *key = pick(c->tls.key, c->tls.no_identity ? NULL : identity->key);
	const struct config_strs *authorities = c->tls.authorities.n ? &c->tls.authorities : &identity->authorities;
	bool ok = (!certificate || (use_certificate(tls, ctx, certificate) && use_key(tls, ctx, key))) &&
	          trust(tls, ctx, authorities, pick(c->tls.crl, identity->crl));
	if (ok && authorities->n == 0)
		ok = complain(tls, NULL, "no authorities to verify the peer with");
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, verify_server);
	if (c->carry == CONFIG_H2)
		SSL_CTX_set_alpn_protos(ctx, alpn_http, 3);
	else if (c->carry == CONFIG_H1)
		SSL_CTX_set_alpn_protos(ctx, alpn_http + 3, 9);
	if (ok)
		return ctx;
	SSL_CTX_free(ctx);
	return NULL;
}

static bool listener_has_tls(const struct config_listener *l)
{
	return !l->tls.off && (l->tls.enabled || l->accept == CONFIG_OVERLAY);
}

struct tls *tls_new(const struct config *config, const struct tls_file *files, size_t n, char *error, size_t error_size)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	if (!tls)
		abort();
	*tls = (struct tls){.config = config, .files = files, .n_files = n, .error = error, .error_size = error_size};
	tls->listeners = calloc(config->n_listeners + 1, sizeof(SSL_CTX *));
	tls->clusters = calloc(config->n_clusters + 1, sizeof(SSL_CTX *));
	bool ok = tls->listeners && tls->clusters;
	for (size_t i = 0; ok && i < config->n_listeners; i++)
		if (listener_has_tls(&config->listeners[i]))
			ok = (tls->listeners[i] = listener_context(tls, &config->listeners[i])) != NULL;
	for (size_t i = 0; ok && i < config->n_clusters; i++)
		if (config->clusters[i].tls.enabled)
			ok = (tls->clusters[i] = cluster_context(tls, &config->clusters[i])) != NULL;
	tls->files = NULL;
	tls->n_files = 0;
	if (ok)
		return tls;
	tls_free(tls);
	return NULL;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	for (size_t i = 0; tls->listeners && i < tls->config->n_listeners; i++)
		SSL_CTX_free(tls->listeners[i]);
	for (size_t i = 0; tls->clusters && i < tls->config->n_clusters; i++)
		SSL_CTX_free(tls->clusters[i]);
	free(tls->listeners);
	free(tls->clusters);
	free(tls);
}

/* --- connections ----------------------------------------------------------------------------------------------------- */

SSL *tls_accept(struct tls *tls, const struct config_listener *listener)
{
	size_t i = (size_t)(listener - tls->config->listeners);
	if (i >= tls->config->n_listeners || !tls->listeners[i])
		return NULL;
	SSL *ssl = SSL_new(tls->listeners[i]);
	if (!ssl)
		abort();   /* out of memory: NULL would mean plain text */
	SSL_set_accept_state(ssl);
	return ssl;
}

static bool certificate_uri(X509 *x, char *out, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	bool found = false;
	for (int i = 0; names && !found && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != GEN_URI)
			continue;
		int length = ASN1_STRING_length(name->d.ia5);
		const char *text = (const char *)ASN1_STRING_get0_data(name->d.ia5);
		if (strncmp(text, URI_PREFIX, sizeof(URI_PREFIX) - 1) == 0 && (size_t)length < size &&
		    memchr(text, '\0', (size_t)length) == NULL) {
			memcpy(out, text, (size_t)length);
			out[length] = '\0';
			found = true;
		}
	}
	GENERAL_NAMES_free(names);
	return found;
}

/* hermes://DOMAIN/node/NAME into its two names; changes uri. */
static bool split_uri(char *uri, char **name, char **domain)
{
	char *host = uri + sizeof(URI_PREFIX) - 1, *path = strchr(host, '/');
	if (!path || strncmp(path, "/node/", 6) != 0 || !path[6] || strchr(path + 6, '/'))
		return false;
	*path = '\0';
	*name = path + 6;
	*domain = host;
	return true;
}

bool tls_revoked(const struct config *config, const char *name, const char *domain)
{
	if (!config->domain || strcasecmp(config->domain, domain) != 0)
		return false;
	for (size_t i = 0; i < config->identity.revoked.n; i++)
		if (strcasecmp(config->identity.revoked.v[i], name) == 0)
			return true;
	return false;
}

void tls_in_force(const struct config *config)
{
	in_force = config;
}

/* NAME@TIME: certificates of that node that begin before (Unix time): the name has been given to another machine since. */
static bool superseded(X509 *x, const char *name, const char *domain)
{
	const struct config_strs *revoked = &in_force->identity.revoked;
	size_t length = strlen(name);
	if (!in_force->domain || strcasecmp(in_force->domain, domain) != 0)
		return false;
	for (size_t i = 0; i < revoked->n; i++) {
		const char *entry = revoked->v[i];
		time_t from = strncasecmp(entry, name, length) == 0 && entry[length] == '@' ? (time_t)strtoll(entry + length + 1, NULL, 10) : 0;
		time_t last = from - 1;                   /* X509_cmp_time() takes the same second for earlier */
		if (from && X509_cmp_time(X509_get0_notBefore(x), &last) < 0)
			return true;
	}
	return false;
}

/* A client's: who is revoked whole, connection.c refuses, and says who it is. */
static int verify_client(int ok, X509_STORE_CTX *store)
{
	X509 *x = X509_STORE_CTX_get_current_cert(store);
	char uri[512], *name, *domain;
	if (!ok || X509_STORE_CTX_get_error_depth(store) > 0 || !in_force || !certificate_uri(x, uri, sizeof(uri)) ||
	    !split_uri(uri, &name, &domain) || !superseded(x, name, domain))
		return ok;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REVOKED);
	return 0;
}

/* wanted: hermes://DOMAIN/node/NAME, or several names with commas between, or * for any node of the domain. */
static bool is_wanted(const char *wanted, const char *uri)
{
	const char *names = strrchr(wanted, '/') + 1, *name;
	size_t before = (size_t)(names - wanted), length = strlen(uri) > before ? strlen(uri) - before : 0;
	if (!length || strncasecmp(uri, wanted, before) != 0)
		return false;
	name = uri + before;
	if (strpbrk(name, ",/"))
		return false;
	if (strcmp(names, "*") == 0)
		return true;
	for (size_t n; *names; names += n + (names[n] == ',')) {
		n = strcspn(names, ",");
		if (n == length && strncasecmp(names, name, n) == 0)
			return true;
	}
	return false;
}

/* The server's certificate: a revoked node is not believed; and where a cluster's server_name is a node's URI, that very name (one of
 * those names) must stand in it. */
static int verify_server(int ok, X509_STORE_CTX *store)
{
	if (!ok || X509_STORE_CTX_get_error_depth(store) > 0)
		return ok;
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const char *wanted = SSL_get_app_data(ssl);
	char uri[512], *name, *domain;
	X509 *x = X509_STORE_CTX_get_current_cert(store);
	bool node = certificate_uri(x, uri, sizeof(uri));
	int error = wanted && !(node && is_wanted(wanted, uri)) ? X509_V_ERR_HOSTNAME_MISMATCH : X509_V_OK;
	if (node && in_force && split_uri(uri, &name, &domain) &&
	    (tls_revoked(in_force, name, domain) || superseded(x, name, domain)))
		error = X509_V_ERR_CERT_REVOKED;
	if (error == X509_V_OK)
		return 1;
	X509_STORE_CTX_set_error(store, error);
	return 0;
}

const char *tls_host(const struct config_cluster *cluster, const char *own)
{
	const char *name = cluster->tls.server_name;
	if (name && strncmp(name, URI_PREFIX, sizeof(URI_PREFIX) - 1) != 0)
		return name;
	return own ? own : "localhost";
}

SSL *tls_connect(struct tls *tls, const struct config_cluster *cluster, const char *host)
{
	size_t i = (size_t)(cluster - tls->config->clusters);
	if (i >= tls->config->n_clusters || !tls->clusters[i])
		return NULL;
	SSL *ssl = SSL_new(tls->clusters[i]);
	if (!ssl)
		return NULL;
	const char *name = cluster->tls.server_name ? cluster->tls.server_name : host;
	SSL_set_connect_state(ssl);
	if (strncmp(name, URI_PREFIX, sizeof(URI_PREFIX) - 1) == 0) {
		SSL_set_app_data(ssl, cluster->tls.server_name);
		return ssl;
	}
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (X509_VERIFY_PARAM_set1_ip_asc(param, name) != 1) {
		SSL_set_tlsext_host_name(ssl, name);
		SSL_set1_host(ssl, name);
	}
	return ssl;
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

static bool first_dns(X509 *x, char *name, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	bool found = false;
	for (int i = 0; names && !found && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		if (n->type != GEN_DNS)
			continue;
		int length = ASN1_STRING_length(n->d.ia5);
		const char *text = (const char *)ASN1_STRING_get0_data(n->d.ia5);
		if (length <= 0 || (size_t)length >= size || memchr(text, '\0', (size_t)length))
			continue;
		memcpy(name, text, (size_t)length);
		name[length] = '\0';
		found = true;
	}
	GENERAL_NAMES_free(names);
	return found;
}

bool tls_peer(SSL *ssl, char *name, size_t name_size, char *domain, size_t domain_size)
{
	X509 *x = SSL_get0_peer_certificate(ssl);
	char uri[512], *node, *of;
	if (!x || SSL_get_verify_result(ssl) != X509_V_OK)
		return false;
	domain[0] = '\0';
	if (!certificate_uri(x, uri, sizeof(uri)))
		return first_dns(x, name, name_size);
	return split_uri(uri, &node, &of) && snprintf(name, name_size, "%s", node) < (int)name_size &&
	       snprintf(domain, domain_size, "%s", of) < (int)domain_size;
}

char *tls_own_node(SSL *ssl, const struct config *config)
{
	X509 *x = SSL_get0_peer_certificate(ssl);
	char uri[512], *name, *domain;
	if (!x || !config->domain || !certificate_uri(x, uri, sizeof(uri)) || !split_uri(uri, &name, &domain) ||
	    strcasecmp(domain, config->domain) != 0)
		return NULL;
	return strdup(name);
}

bool tls_user(SSL *ssl, char *name, size_t size)
{
	X509 *x = SSL_get0_peer_certificate(ssl);
	if (!x || SSL_get_verify_result(ssl) != X509_V_OK)
		return false;
	int length = X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, name, (int)size);
	return length > 0 && strlen(name) == (size_t)length;
}

const char *tls_error(SSL *ssl, char *out, size_t size)
{
	long verify = SSL_get_verify_result(ssl);
	unsigned long code = ERR_peek_last_error();
	if (verify != X509_V_OK)
		snprintf(out, size, "certificate: %s", X509_verify_cert_error_string(verify));
	else if (code)
		snprintf(out, size, "TLS: %s", ERR_reason_error_string(code) ? ERR_reason_error_string(code) : "unknown error");
	else
		snprintf(out, size, "TLS: connection closed");
	ERR_clear_error();
	return out;
}
