/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/keeper/keeper.h"
#include "workers/keeper/pki_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define AUTHORITY_SECONDS (20ull * 365 * PKI_DAY)
#define SERIAL_BYTES 16
#define AUTHORITIES_MAX 64
#define URI_PREFIX "hermes://"

/* --- making ---------------------------------------------------------------------------------------------------------- */

static bool extend(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	X509V3_set_ctx_nodb(&ctx);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	bool ok = extension && X509_add_ext(x, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

/* Random: it tells nothing, and two authorities of one domain (a controller and its replacement) do not clash. */
static bool set_serial(X509 *x, char text[static PKI_SERIAL_TEXT])
{
	uint8_t bytes[SERIAL_BYTES];
	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] = (bytes[0] & 0x7f) | 0x40;      /* positive, and always of the same length */
	BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)) != NULL;
	BN_free(number);
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	return ok;
}

static bool set_times(X509 *x, uint64_t seconds, const X509 *issuer)
{
	time_t now = time(NULL), end = now + (time_t)seconds;
	if (!ASN1_TIME_adj(X509_getm_notBefore(x), now - KEEPER_SKEW, 0, 0) || !ASN1_TIME_adj(X509_getm_notAfter(x), end, 0, 0))
		return false;
	return !issuer || ASN1_TIME_compare(X509_get0_notAfter(x), X509_get0_notAfter(issuer)) <= 0 ||
	       X509_set1_notAfter(x, X509_get0_notAfter(issuer)) == 1;
}

static bool set_subject(X509 *x, const char *name)
{
	/* RFC 5280's upper bound on a common name is 64: what is longer stands in the other names */
	return X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)name,
	                                  strlen(name) > 64 ? 64 : -1, -1, 0) == 1;
}

/* Ed25519 takes no digest. */
static bool sign(X509 *x, EVP_PKEY *key)
{
	return X509_sign(x, key, EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256()) > 0;
}

static X509 *authority(EVP_PKEY *key, const char *domain)
{
	char serial[PKI_SERIAL_TEXT], name[64], uri[300];
	X509 *x = X509_new();
	snprintf(name, sizeof(name), "Hermes %.50s", domain);
	snprintf(uri, sizeof(uri), "URI:" URI_PREFIX "%s", domain);
	bool ok = x && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x, serial) && set_subject(x, name) &&
	          X509_set_issuer_name(x, X509_get_subject_name(x)) == 1 && set_times(x, AUTHORITY_SECONDS, NULL) &&
	          X509_set_pubkey(x, key) == 1 && extend(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	          extend(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") && extend(x, x, NID_subject_key_identifier, "hash") &&
	          extend(x, x, NID_subject_alt_name, uri) && sign(x, key);
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

int pki_make_authority(const char *domain, char **key_text, char **certificate, char why[static PKI_WHY])
{
	const char *fault = pki_domain_fault(domain);
	*certificate = NULL;
	*key_text = NULL;
	if (fault) {
		snprintf(why, PKI_WHY, "%s", fault);
		return -1;
	}
	if (pki_make_key(key_text, why))
		return -1;
	EVP_PKEY *key = pki_read_key(*key_text);
	X509 *x = key ? authority(key, domain) : NULL;
	*certificate = x ? pki_write_certificate(x) : NULL;
	X509_free(x);
	EVP_PKEY_free(key);
	if (*certificate)
		return 0;
	pki_wipe(*key_text);
	*key_text = NULL;
	return pki_failed(why, "no authority could be made");
}

static X509 *node_certificate(EVP_PKEY *ca_key, X509 *ca, const struct pki_subject *s, EVP_PKEY *key, char *serial)
{
	char names[1024];
	X509 *x = X509_new();
	int n = snprintf(names, sizeof(names), "URI:" URI_PREFIX "%s/node/%s,DNS:%s,DNS:%s.%s%s%s", s->domain, s->node, s->node, s->node,
	                 s->domain, s->controller ? ",DNS:controller." : "", s->controller ? s->domain : "");
	bool ok = x && n > 0 && (size_t)n < sizeof(names) && X509_set_version(x, X509_VERSION_3) == 1 && set_serial(x, serial) &&
	          set_subject(x, s->node) && X509_set_issuer_name(x, X509_get_subject_name(ca)) == 1 &&
	          set_times(x, s->seconds, ca) && X509_set_pubkey(x, key) == 1 &&
	          extend(x, ca, NID_basic_constraints, "critical,CA:FALSE") &&
	          extend(x, ca, NID_key_usage, "critical,digitalSignature") &&
	          extend(x, ca, NID_ext_key_usage, "serverAuth,clientAuth") && extend(x, ca, NID_subject_alt_name, names) &&
	          extend(x, ca, NID_subject_key_identifier, "hash") && extend(x, ca, NID_authority_key_identifier, "keyid") &&
	          sign(x, ca_key);
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

static const char *subject_fault(const struct pki_subject *s)
{
	const char *fault = pki_name_fault(s->node);
	if (!fault)
		fault = pki_domain_fault(s->domain);
	return fault ? fault : s->seconds == 0 || s->seconds > AUTHORITY_SECONDS ? "a certificate's life is out of bounds" : NULL;
}

int pki_certify(const char *ca_key_text, const char *ca_text, const struct pki_subject *subject, const char *request,
                char **certificate, char serial[static PKI_SERIAL_TEXT], char why[static PKI_WHY])
{
	const char *fault = subject_fault(subject);
	*certificate = NULL;
	if (fault) {
		snprintf(why, PKI_WHY, "%s", fault);
		return -1;
	}
	X509_REQ *r = pki_read_request(request, why);
	if (!r)
		return -1;
	EVP_PKEY *ca_key = pki_read_key(ca_key_text);
	X509 *ca = pki_read_certificate(ca_text);
	X509 *x = ca_key && ca && X509_check_private_key(ca, ca_key) == 1 ?
	          node_certificate(ca_key, ca, subject, X509_REQ_get0_pubkey(r), serial) : NULL;
	*certificate = x ? pki_write_certificate(x) : NULL;
	X509_free(x);
	X509_free(ca);
	EVP_PKEY_free(ca_key);
	X509_REQ_free(r);
	return *certificate ? 0 : pki_failed(why, "no certificate could be made with ca.key and ca.crt");
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

bool pki_matches(const char *key_text, const char *certificate)
{
	EVP_PKEY *key = pki_read_key(key_text);
	X509 *x = pki_read_certificate(certificate);
	bool ok = key && x && X509_check_private_key(x, key) == 1;
	X509_free(x);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return ok;
}

static X509_STORE *store_of(const char *authorities)
{
	BIO *bio = authorities ? BIO_new_mem_buf(authorities, -1) : NULL;
	X509_STORE *store = bio ? X509_STORE_new() : NULL;
	X509 *x;
	for (int i = 0; store && i < AUTHORITIES_MAX && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)); i++) {
		X509_STORE_add_cert(store, x);
		X509_free(x);
	}
	BIO_free(bio);
	ERR_clear_error();
	return store;
}

/* The certificate's URI of ours. malloc'd; NULL: none. */
static char *own_uri(X509 *x)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	char *uri = NULL;
	for (int i = 0; names && !uri && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const char *text = name->type == GEN_URI ? (const char *)ASN1_STRING_get0_data(name->d.ia5) : "";
		size_t length = name->type == GEN_URI ? (size_t)ASN1_STRING_length(name->d.ia5) : 0;
		if (length > strlen(URI_PREFIX) && !memchr(text, '\0', length) && !strncmp(text, URI_PREFIX, strlen(URI_PREFIX)))
			uri = strndup(text, length);
	}
	GENERAL_NAMES_free(names);
	return uri;
}

static bool names_node(X509 *x, const char *domain, const char *node)
{
	char wanted[512], *uri = own_uri(x);
	snprintf(wanted, sizeof(wanted), URI_PREFIX "%s/node/%s", domain, node);
	bool found = uri && strcasecmp(uri, wanted) == 0;
	free(uri);
	return found;
}

int pki_authority_domain(const char *certificate, char **domain, char why[static PKI_WHY])
{
	X509 *x = pki_read_certificate(certificate);
	char *uri = x ? own_uri(x) : NULL;
	bool ok = uri && !pki_domain_fault(uri + strlen(URI_PREFIX));
	*domain = ok ? strdup(uri + strlen(URI_PREFIX)) : NULL;
	free(uri);
	X509_free(x);
	return *domain ? 0 : pki_failed(why, "the authority's certificate names no domain");
}

int pki_check_certificate(const char *certificate, const char *authorities, const char *domain, const char *node,
                          char why[static PKI_WHY])
{
	X509 *x = pki_read_certificate(certificate);
	X509_STORE *store = store_of(authorities);
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int result = -1;
	if (!x || !store || !ctx || X509_STORE_CTX_init(ctx, store, x, NULL) != 1)
		pki_failed(why, "not a certificate in PEM");
	else if (X509_verify_cert(ctx) != 1)
		snprintf(why, PKI_WHY, "the certificate is not believed: %s",
		         X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
	else if (!names_node(x, domain, node))
		snprintf(why, PKI_WHY, "the certificate is not for node %s of %s", node, domain);
	else
		result = 0;
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	X509_free(x);
	ERR_clear_error();
	return result;
}

int pki_fingerprint(const char *certificate, char out[static PKI_FINGERPRINT_TEXT], char why[static PKI_WHY])
{
	uint8_t digest[32];
	char text[48];
	unsigned n = 0;
	X509 *x = pki_read_certificate(certificate);
	bool ok = x && X509_digest(x, EVP_sha256(), digest, &n) == 1 && n == sizeof(digest);
	X509_free(x);
	if (!ok)
		return pki_failed(why, "not a certificate in PEM");
	EVP_EncodeBlock((unsigned char *)text, digest, sizeof(digest));
	text[PKI_FINGERPRINT_TEXT - 1] = '\0';       /* one '=' of padding */
	for (char *p = text; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	memcpy(out, text, PKI_FINGERPRINT_TEXT);
	return 0;
}

int pki_find_authority(const char *authorities, const char *fingerprint, char **certificate, char why[static PKI_WHY])
{
	BIO *bio = BIO_new_mem_buf(authorities, -1);
	X509 *x;
	*certificate = NULL;
	for (int i = 0; bio && !*certificate && i < AUTHORITIES_MAX && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL)); i++) {
		char found[PKI_FINGERPRINT_TEXT], *text = pki_write_certificate(x), ignored[PKI_WHY];
		X509_free(x);
		if (text && !pki_fingerprint(text, found, ignored) && !strcmp(found, fingerprint))
			*certificate = text;
		else
			free(text);
	}
	BIO_free(bio);
	ERR_clear_error();
	if (*certificate)
		return 0;
	snprintf(why, PKI_WHY, "none of the authorities has the fingerprint of the token");
	return -1;
}

int64_t pki_ends(const char *certificate)
{
	X509 *x = pki_read_certificate(certificate);
	struct tm tm = {0};
	bool ok = x && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1;
	X509_free(x);
	ERR_clear_error();
	return ok ? (int64_t)timegm(&tm) : 0;
}
