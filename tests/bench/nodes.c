/* SPDX-License-Identifier: Apache-2.0 */
/* Simulated nodes: each has a certificate of its own and one TLS and HTTP/2 connection to the controller's node, on which it does what
 * config-sync does: a long poll for its configuration and, when one has come, a report that it is in force; reports in between, too.
 * What it leaves out: it applies nothing, and checks the digest but not the signature.
 *
 *   nodes HOST PORT CA-KEY CA-CERTIFICATE DOMAIN N REPORT-MS
 *
 * Writes a JSON object per line: {"up": N} when all wait for the first time, then {"version": V, "got": [ns...], "accepted": [ns...]} when
 * all have a version and their reports of it were answered; CLOCK_MONOTONIC. */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "store/digest.h"
#include "workers/keeper/pki.h"

#define WAIT_S 60
#define STARTS_AT_ONCE 25             /* handshakes at the same time: the start is not what is measured */

enum kind { NOTHING, POLL, REPORT };

struct stream { enum kind kind; char *body; size_t length, size, sent; uint64_t version; };

struct sim {
	char name[32];
	SSL *ssl;
	int fd;
	struct event *readable, *writable;
	nghttp2_session *h2;
	bool up, polling;
	uint64_t number, version, waits_since;
	char digest[65];
	uint64_t got, accepted;       /* of `version`, ns */
};

static struct {
	struct event_base *base;
	SSL_CTX *tls;
	const char *host, *domain;
	char *ca_key, *ca;
	EVP_PKEY *key;                /* one for all: only the certificates differ */
	char *key_text;
	unsigned short port;
	unsigned n, started, up, report_ms;
	struct sim *sims;
	uint64_t printed;             /* the last version that was told */
	bool told_up;
} world;

static _Noreturn void die(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* --- what is told ----------------------------------------------------------------------------------------------------- */

static void tell_list(const char *name, size_t offset)
{
	printf("\"%s\": [", name);
	for (unsigned i = 0; i < world.n; i++)
		printf("%s%" PRIu64, i ? "," : "", *(uint64_t *)((char *)&world.sims[i] + offset));
	printf("]");
}

static void tell(void)
{
	uint64_t version = world.sims[0].version;
	for (unsigned i = 0; i < world.n; i++)
		if (world.sims[i].version != version || !world.sims[i].accepted)
			return;
	if (version == world.printed)
		return;
	world.printed = version;
	printf("{\"version\": %" PRIu64 ", ", version);
	tell_list("got", offsetof(struct sim, got));
	printf(", ");
	tell_list("accepted", offsetof(struct sim, accepted));
	printf("}\n");
	fflush(stdout);
}

/* --- requests --------------------------------------------------------------------------------------------------------- */

static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *out, size_t size, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
	struct stream *s = source->ptr;
	size_t n = s->length - s->sent < size ? s->length - s->sent : size;
	(void)h2, (void)id, (void)arg;
	memcpy(out, s->body + s->sent, n);
	s->sent += n;
	if (s->sent == s->length)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

#define FIELD(n, v) {(uint8_t *)(uintptr_t)n, (uint8_t *)(uintptr_t)v, strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}

static void request(struct sim *sim, enum kind kind, const char *method, const char *path, char *body, uint64_t version)
{
	char authority[300];
	struct stream *s = calloc(1, sizeof(*s));
	snprintf(authority, sizeof(authority), "controller.%s", world.domain);
	nghttp2_nv fields[] = {FIELD(":method", method), FIELD(":scheme", "https"), FIELD(":authority", authority), FIELD(":path", path),
	                       FIELD("content-type", "application/json")};
	nghttp2_data_provider provider = {.source.ptr = s, .read_callback = read_body};
	*s = (struct stream){.kind = kind, .body = body, .length = body ? strlen(body) : 0, .version = version};
	if (nghttp2_submit_request(sim->h2, NULL, fields, body ? 5 : 4, body ? &provider : NULL, s) < 0)
		die("%s: no request", sim->name);
}

static void poll_config(struct sim *sim)
{
	char path[80];
	snprintf(path, sizeof(path), "/v1/config?have=%" PRIu64 "&wait=%d", sim->number, WAIT_S);
	sim->polling = true;
	request(sim, POLL, "GET", path, NULL, 0);
}

static void report(struct sim *sim)
{
	json_t *json = json_pack(
		"{s:I, s:I, s:s, s:s, s:n, s:I, s:s, s:i, s:b, s:[{s:s, s:s, s:i, s:i}], s:[{s:s, s:s, s:i, s:i, s:i, s:i}], s:[], "
		"s:{s:i, s:i, s:i}, s:{s:f, s:i}}",
		"number", (json_int_t)sim->number, "version", (json_int_t)sim->version, "digest", sim->digest, "state", "accepted", "refused",
		"generation", (json_int_t)sim->version, "hermes", "0.1.0", "uptime_seconds", 1, "ready", 1, "workers", "name", "tunnel-0",
		"state", "ready", "restarts", 0, "rss_bytes", 20 << 20, "probes", "name", "p", "cluster", "c", "rtt_us", 1000, "lost", 0,
		"sent", 10, "age_ms", 10, "clusters", "traffic", "flows", 1, "bytes_in", 2, "bytes_out", 3, "load", "cpu_seconds", 0.1,
		"rss_bytes", 60 << 20);
	request(sim, REPORT, "POST", "/v1/report", json_dumps(json, JSON_COMPACT), sim->version);
	json_decref(json);
}

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static void take_config(struct sim *sim, const char *body, size_t length)
{
	json_t *json = json_loadb(body, length, 0, NULL);
	const char *text = json_string_value(json_object_get(json, "text")), *digest = json_string_value(json_object_get(json, "digest"));
	uint8_t sum[32];
	if (!text || !digest)
		die("%s: what is no configuration: %.200s", sim->name, body);
	digest_sha256(text, strlen(text), sum);
	digest_hex(sum, sim->digest);
	if (strcmp(sim->digest, digest))
		die("%s: the digest does not fit", sim->name);
	uint64_t version = (uint64_t)json_integer_value(json_object_get(json, "version"));
	sim->number = (uint64_t)json_integer_value(json_object_get(json, "number"));
	if (version != sim->version) {
		sim->version = version;
		sim->got = now();
		sim->accepted = 0;
	}
	json_decref(json);
	report(sim);
}

static void ended(struct sim *sim, struct stream *s, bool well)
{
	if (s->kind == POLL) {
		sim->polling = false;
		if (s->size)
			take_config(sim, s->body, s->length);
		poll_config(sim);
	} else if (well && s->version == sim->version && s->version && !sim->accepted) {
		sim->accepted = now();
		tell();
	}
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t length, void *arg)
{
	struct stream *s = nghttp2_session_get_stream_user_data(h2, id);
	(void)flags, (void)arg;
	if (!s || s->kind != POLL)
		return 0;
	s->body = realloc(s->body, s->length + length + 1);
	memcpy(s->body + s->length, data, length);
	s->length += length;
	s->body[s->length] = '\0';
	s->size = s->length;
	return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t n, const uint8_t *value, size_t v,
                     uint8_t flags, void *arg)
{
	struct sim *sim = arg;
	(void)h2, (void)frame, (void)flags;
	if (n == 7 && !memcmp(name, ":status", 7) && value[0] != '2')
		die("%s: status %.*s", sim->name, (int)v, (const char *)value);
	return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
	struct stream *s = nghttp2_session_get_stream_user_data(h2, id);
	struct sim *sim = arg;
	if (code)
		die("%s: stream reset: %u", sim->name, code);
	if (s) {
		ended(sim, s, true);
		free(s->body);
		free(s);
	}
	return 0;
}

/* --- connections ------------------------------------------------------------------------------------------------------ */

static void start_next(void);

static ssize_t write_some(nghttp2_session *h2, const uint8_t *data, size_t length, int flags, void *arg)
{
	struct sim *sim = arg;
	(void)h2, (void)flags;
	int n = SSL_write(sim->ssl, data, (int)length);
	if (n > 0)
		return n;
	int error = SSL_get_error(sim->ssl, n);
	if (error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ)
		die("%s: cannot write", sim->name);
	event_add(sim->writable, NULL);
	return NGHTTP2_ERR_WOULDBLOCK;
}

static void begin_http(struct sim *sim)
{
	const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
	nghttp2_session_callbacks *callbacks;
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_send_callback(callbacks, write_some);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	nghttp2_session_client_new(&sim->h2, callbacks, sim);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(sim->h2, NGHTTP2_FLAG_NONE, settings, 1);
	poll_config(sim);
	report(sim);
	sim->up = true;
	world.up++;
	start_next();
}

static void handshake(struct sim *sim)
{
	int n = SSL_connect(sim->ssl);
	if (n == 1) {
		begin_http(sim);
		return;
	}
	int error = SSL_get_error(sim->ssl, n);
	if (error == SSL_ERROR_WANT_WRITE)
		event_add(sim->writable, NULL);
	else if (error != SSL_ERROR_WANT_READ)
		die("%s: handshake: %s", sim->name, ERR_error_string(ERR_get_error(), NULL));
}

static void read_all(struct sim *sim)
{
	uint8_t data[16384];
	int n;
	while ((n = SSL_read(sim->ssl, data, sizeof(data))) > 0)
		if (nghttp2_session_mem_recv(sim->h2, data, (size_t)n) != n)
			die("%s: not HTTP/2", sim->name);
	int error = SSL_get_error(sim->ssl, n);
	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
		die("%s: the connection has ended", sim->name);
}

static void on_io(evutil_socket_t fd, short what, void *arg)
{
	struct sim *sim = arg;
	(void)fd;
	if (!sim->up)
		handshake(sim);
	else if (what & EV_READ)
		read_all(sim);
	if (sim->up && nghttp2_session_send(sim->h2))
		die("%s: cannot send", sim->name);
}

static void give_certificate(struct sim *sim)
{
	char why[PKI_WHY], serial[PKI_SERIAL_TEXT], *text = NULL, *request_text = NULL;
	const struct pki_subject subject = {.domain = world.domain, .node = sim->name, .seconds = 86400};
	if (pki_make_request(world.key_text, sim->name, &request_text, why) ||
	    pki_certify(world.ca_key, world.ca, &subject, request_text, &text, serial, why))
		die("certificate: %s", why);
	BIO *bio = BIO_new_mem_buf(text, -1);
	X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	if (!certificate || !SSL_use_certificate(sim->ssl, certificate) || !SSL_use_PrivateKey(sim->ssl, world.key))
		die("certificate not taken");
	X509_free(certificate);
	BIO_free(bio);
	free(text);
	free(request_text);
}

static void start(struct sim *sim)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(world.port)};
	int one = 1;
	char name[300];
	inet_pton(AF_INET, world.host, &to.sin_addr);
	sim->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(sim->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (sim->fd < 0 || (connect(sim->fd, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS))
		die("connect: %s", strerror(errno));
	sim->ssl = SSL_new(world.tls);
	give_certificate(sim);
	snprintf(name, sizeof(name), "controller.%s", world.domain);
	SSL_set_tlsext_host_name(sim->ssl, name);
	SSL_set1_host(sim->ssl, name);
	SSL_set_fd(sim->ssl, sim->fd);
	sim->readable = event_new(world.base, sim->fd, EV_READ | EV_PERSIST, on_io, sim);
	sim->writable = event_new(world.base, sim->fd, EV_WRITE, on_io, sim);
	event_add(sim->readable, NULL);
	event_add(sim->writable, NULL);
}

static void start_next(void)
{
	while (world.started < world.n && world.started - world.up < STARTS_AT_ONCE)
		start(&world.sims[world.started++]);
	if (world.up == world.n && !world.told_up) {
		world.told_up = true;
		printf("{\"up\": %u}\n", world.up);
		fflush(stdout);
	}
}

/* Reports go out one after the other, not all at once. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	static unsigned next;
	unsigned n = world.n * 10 / world.report_ms + 1;
	(void)fd, (void)what, (void)arg;
	for (unsigned i = 0; i < n; i++, next = (next + 1) % world.n)
		if (world.sims[next].up) {
			report(&world.sims[next]);
			nghttp2_session_send(world.sims[next].h2);
		}
}

/* --- start ------------------------------------------------------------------------------------------------------------ */

static char *read_file(const char *path)
{
	char *text = calloc(1, 65536);
	FILE *f = fopen(path, "re");
	if (!f || !fread(text, 1, 65535, f))
		die("%s: %s", path, strerror(errno));
	fclose(f);
	return text;
}

static void set_up(char **argv)
{
	static const unsigned char alpn[] = "\2h2";
	char why[PKI_WHY];
	world.host = argv[1];
	world.port = (unsigned short)atoi(argv[2]);
	world.ca_key = read_file(argv[3]);
	world.ca = read_file(argv[4]);
	world.domain = argv[5];
	world.n = (unsigned)atoi(argv[6]);
	world.report_ms = (unsigned)atoi(argv[7]);
	if (!world.n || !world.report_ms || pki_make_key(&world.key_text, why))
		die("usage: nodes HOST PORT CA-KEY CA-CERTIFICATE DOMAIN N REPORT-MS");
	BIO *bio = BIO_new_mem_buf(world.key_text, -1);
	world.key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
	BIO_free(bio);
	world.tls = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_alpn_protos(world.tls, alpn, sizeof(alpn) - 1);
	SSL_CTX_set_verify(world.tls, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(world.tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	if (!SSL_CTX_load_verify_locations(world.tls, argv[4], NULL))
		die("%s: no authority", argv[4]);
	world.sims = calloc(world.n, sizeof(*world.sims));
	for (unsigned i = 0; i < world.n; i++)
		snprintf(world.sims[i].name, sizeof(world.sims[i].name), "n%04u", i);
}

int main(int argc, char **argv)
{
	const struct rlimit files = {65536, 65536};
	const struct timeval every = {.tv_usec = 10000};
	if (argc != 8)
		die("usage: nodes HOST PORT CA-KEY CA-CERTIFICATE DOMAIN N REPORT-MS");
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_NOFILE, &files);
	world.base = event_base_new();
	set_up(argv);
	struct event *tick = event_new(world.base, -1, EV_PERSIST, on_tick, NULL);
	event_add(tick, &every);
	start_next();
	return event_base_dispatch(world.base) < 0;
}
