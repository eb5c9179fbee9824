#include "workers/tunnel/transport_tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#define RECORD 16384u                 /* RFC 8446 5.1 */
#define RECORD_OVERHEAD 64u           /* header, tag, content type, with room to spare */
#define GATHER_MIN (8u * 1024)        /* shorter runs are copied together into one record */

/* --- the BIO --------------------------------------------------------------------------------------------------------- */

static int window_read(BIO *bio, char *to, int length)
{
	struct tls_window *window = BIO_get_data(bio);
	BIO_clear_retry_flags(bio);
	if (window->in_length == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	size_t n = (size_t)length < window->in_length ? (size_t)length : window->in_length;
	memcpy(to, window->in, n);
	window->in += n;
	window->in_length -= n;
	return (int)n;
}

static int window_write(BIO *bio, const char *from, int length)
{
	struct tls_window *window = BIO_get_data(bio);
	BIO_clear_retry_flags(bio);
	if (!window->out)
		window->out = slab_get();
	struct slab *out = window->out;
	size_t room = out->size - out->used;
	if (room == 0) {
		BIO_set_retry_write(bio);
		return -1;
	}
	size_t n = (size_t)length < room ? (size_t)length : room;
	memcpy(out->data + out->used, from, n);
	out->used += (uint32_t)n;
	return (int)n;
}

static long window_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio, (void)number, (void)pointer;
	return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP ? 1 : 0;
}

static BIO_METHOD *window_method(void)
{
	static BIO_METHOD *method;
	if (method)
		return method;
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "hermes window");
	if (!method)
		abort();
	BIO_meth_set_read(method, window_read);
	BIO_meth_set_write(method, window_write);
	BIO_meth_set_ctrl(method, window_ctrl);
	return method;
}

void tls_window_attach(struct tls_window *window, SSL *ssl)
{
	BIO *bio = BIO_new(window_method());
	if (!bio)
		abort();
	BIO_set_data(bio, window);
	BIO_set_init(bio, 1);
	SSL_set_bio(ssl, bio, bio);
}

void tls_window_clear(struct tls_window *window)
{
	if (window->out)
		slab_unref(window->out);
	*window = (struct tls_window){0};
}

void tls_window_feed(struct tls_window *window, const uint8_t *data, size_t length)
{
	window->in = data;
	window->in_length = length;
}

void tls_window_fed(struct tls_window *window)
{
	window->in = NULL;
	window->in_length = 0;
}

size_t tls_window_pending(const struct tls_window *window)
{
	return window->out ? window->out->used - window->out_from : 0;
}

const uint8_t *tls_window_peek(const struct tls_window *window, size_t *length)
{
	*length = window->out->used - window->out_from;
	return window->out->data + window->out_from;
}

void tls_window_consume(struct tls_window *window, size_t length)
{
	window->out_from += (uint32_t)length;
	if (window->out_from < window->out->used)
		return;
	slab_unref(window->out);
	window->out = NULL;
	window->out_from = 0;
}

/* --- sealing --------------------------------------------------------------------------------------------------------- */

/* Bytes from the queue's head on that lie side by side in memory, up to limit. */
static size_t contiguous(const struct chunks *plain, size_t limit)
{
	size_t run = 0;
	const uint8_t *end = plain->head->data;
	for (const struct chunk *c = plain->head; c && c->data == end && run < limit; c = c->next) {
		run += c->length;
		end = c->data + c->length;
	}
	return run < limit ? run : limit;
}

/* Copies up to one record's worth of short pieces together; stops before a run that is worth sending by itself. */
static size_t gather(const struct chunks *plain, uint8_t *to)
{
	size_t n = 0;
	for (const struct chunk *c = plain->head; c && n < RECORD; c = c->next) {
		if (n > 0 && c->length >= GATHER_MIN && n + c->length > RECORD)
			break;
		size_t piece = c->length < RECORD - n ? c->length : RECORD - n;
		memcpy(to + n, c->data, piece);
		n += piece;
	}
	return n;
}

bool tls_seal(SSL *ssl, struct tls_window *window, struct chunks *plain)
{
	static uint8_t gathered[RECORD];
	while (plain->head) {
		size_t room = window->out ? window->out->size - window->out->used : SLAB_SIZE;
		size_t limit = room / (RECORD + RECORD_OVERHEAD) * RECORD;
		if (limit == 0)
			return true;
		const uint8_t *from = plain->head->data;
		size_t n = contiguous(plain, limit);
		if (n < GATHER_MIN && plain->bytes > n) {
			n = gather(plain, gathered);
			from = gathered;
		} else if (n > RECORD) {
			n -= n % RECORD;   /* the rest goes with what follows */
		}
		ERR_clear_error();
		int done = SSL_write(ssl, from, (int)n);
		if (done <= 0)
			return false;
		chunks_drop(plain, (size_t)done);
	}
	return true;
}

/* --- opening --------------------------------------------------------------------------------------------------------- */

static enum tls_opened open_result(SSL *ssl, int done)
{
	switch (SSL_get_error(ssl, done)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return TLS_OPENED_MORE;
	case SSL_ERROR_ZERO_RETURN:
		return TLS_OPENED_END;
	default:
		return TLS_OPENED_ERROR;
	}
}

/* One contiguous run of records into the current slab. */
static enum tls_opened open_run(SSL *ssl, uint32_t headroom, uint32_t max_records, struct chunks *plain, bool *full)
{
	struct slab *slab = slab_current(headroom + RECORD);
	uint8_t *start = slab->data + slab->used + headroom;
	uint32_t room = slab->size - slab->used - headroom, fill = 0;
	enum tls_opened result = TLS_OPENED_MORE;
	*full = true;
	while (room - fill >= RECORD && max_records-- > 0) {
		ERR_clear_error();
		int done = SSL_read(ssl, start + fill, (int)(room - fill));
		if (done <= 0) {
			*full = false;
			result = open_result(ssl, done);
			break;
		}
		fill += (uint32_t)done;
	}
	if (fill > 0) {
		chunks_append(plain, chunk_new(slab, start, fill, headroom));
		slab->used += (headroom + fill + 7) & ~7u;
		if (slab->used > slab->size)
			slab->used = slab->size;
	}
	return result;
}

enum tls_opened tls_open(SSL *ssl, bool striped, struct chunks *plain)
{
	bool full = true;
	enum tls_opened result = TLS_OPENED_MORE;
	while (full)
		result = open_run(ssl, striped ? STRIPE_HEADROOM : 0, striped ? 1 : UINT32_MAX, plain, &full);
	return result;
}

enum flow_error tls_failure(SSL *ssl)
{
	unsigned long code = ERR_peek_last_error();
	int reason = ERR_GET_REASON(code);
	if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED || SSL_get_verify_result(ssl) != X509_V_OK)
		return FLOW_TLS_CERTIFICATE;
	if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
		return FLOW_TLS_ALERT;
	return FLOW_TLS_PROTOCOL;
}
