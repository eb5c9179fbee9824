/* TLS between slabs: OpenSSL on a BIO that reads from a window of received ciphertext and writes into a slab. */
#ifndef HERMES_TUNNEL_TRANSPORT_TLS_H
#define HERMES_TUNNEL_TRANSPORT_TLS_H

#include <openssl/ssl.h>

#include "workers/tunnel/leg.h"

struct tls_window {
	const uint8_t *in;            /* received, not yet read by OpenSSL; the caller's memory */
	size_t in_length;
	struct slab *out;             /* sealed, not yet sent; NULL when empty */
	uint32_t out_from;
};

/* Puts the BIO under ssl; window must outlive it. */
void tls_window_attach(struct tls_window *window, SSL *ssl);
void tls_window_clear(struct tls_window *window);
/* data stays valid until tls_window_fed(). */
void tls_window_feed(struct tls_window *window, const uint8_t *data, size_t length);
void tls_window_fed(struct tls_window *window);
size_t tls_window_pending(const struct tls_window *window);
const uint8_t *tls_window_peek(const struct tls_window *window, size_t *length);
void tls_window_consume(struct tls_window *window, size_t length);

/* Seals as much of `plain` as fits one slab, in full records where there is enough. The window must be empty of output.
 * False: the connection is broken. */
bool tls_seal(SSL *ssl, struct tls_window *window, struct chunks *plain);

enum tls_opened { TLS_OPENED_MORE, TLS_OPENED_END, TLS_OPENED_ERROR };
/* Opens everything that the window holds and appends the plaintext. striped: a chunk per record, with headroom. */
enum tls_opened tls_open(SSL *ssl, bool striped, struct chunks *plain);

/* Which error a failure on ssl is. */
enum flow_error tls_failure(SSL *ssl);

#endif
