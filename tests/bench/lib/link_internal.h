/* What link.c and link_h2.c share. */
#ifndef HERMES_BENCH_LINK_INTERNAL_H
#define HERMES_BENCH_LINK_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include "tests/bench/lib/link.h"

enum link_state { CONNECTING, HANDSHAKE, CONNECT_SENT, UP };

struct link {
	struct link_target target;
	int fd;
	enum link_state state;
	bool writing;                 /* EPOLLOUT asked for */
	bool dead;                    /* reset or failed */
	SSL *ssl;
	BIO *in, *out;                /* in: bytes from the socket; out: bytes for it */
	nghttp2_session *h2;
	struct tunnel *single;        /* all kinds but H2 */
	struct tunnel **waiting;      /* H2: until the handshake is done */
	size_t n_waiting;
	unsigned tunnels;
	uint8_t *pending;             /* TLS bytes that the socket did not take */
	size_t pending_length, pending_sent;
	char head[4096];              /* H1: the answer's head so far */
	size_t head_length;
};

/* The next bytes that a tunnel has to send, at most size; 0: none now. */
size_t tunnel_take(struct tunnel *t, uint8_t *out, size_t size);
bool tunnel_empty(const struct tunnel *t);
void tunnel_closed(struct tunnel *t, bool clean);
void h2_start(struct link *l);
void h2_tunnel(struct link *l, struct tunnel *t);

#endif
