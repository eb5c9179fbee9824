/* A stream socket, plain or under TLS: what TCP legs and HTTP connections sit on.
 *
 * Reads and writes move up to 256 KiB a call. TLS works on a memory BIO of our own between two slabs, never on the socket.
 * Edge-triggered; writes are gathered and flushed once per loop turn. */
#ifndef HERMES_TUNNEL_TRANSPORT_H
#define HERMES_TUNNEL_TRANSPORT_H

#include <openssl/ssl.h>
#include <sys/socket.h>

#include "workers/tunnel/leg.h"

struct event_base;
struct transport;

struct transport_callbacks {
	/* Connected, handshake done (plain accepted sockets: never called). */
	void (*ready)(void *arg);
	/* Bytes came; takes over the chunks. Not striped: each chunk is one contiguous run of up to 256 KiB. */
	void (*received)(void *arg, struct chunks *chunks);
	/* The peer sends no more (FIN, close_notify). Writing may go on. */
	void (*ended)(void *arg);
	/* After transport_send() refused: there is room again. */
	void (*writable)(void *arg);
	/* After transport_want(), before each write while there is room: add what there is (by transport_send, forced).
	 * Returns whether more remains than it added. May be NULL. */
	bool (*fill)(void *arg);
	/* Dead: nothing moves any more. The callee frees the transport. detail: for people, static or short-lived. */
	void (*broken)(void *arg, enum flow_error error, const char *detail);
};

enum transport_start { TRANSPORT_ACCEPTED, TRANSPORT_CONNECTING };

/* Takes over fd (non-blocking) and ssl (NULL: plain; its handshake begins by itself, as its own state says: server or
 * client). Callbacks never run inside this call. */
struct transport *transport_new(struct event_base *base, int fd, SSL *ssl, enum transport_start start,
                                const struct transport_callbacks *callbacks, void *arg);
/* The callbacks change when a connection turns into another thing (HTTP/1.1 CONNECT into a tunnel). */
void transport_set_callbacks(struct transport *transport, const struct transport_callbacks *callbacks, void *arg);
/* Raw byte streams: payload arrives in stripes with room for a frame header each. */
void transport_set_striped(struct transport *transport, bool striped);
/* Takes all (queue empty after) and returns true, or refuses because more than 256 KiB wait already. force: control data
 * of a connection that must not be lost; never refused. */
bool transport_send(struct transport *transport, struct chunks *chunks, bool force);
/* The owner has something to write: fill() is called soon. */
void transport_want(struct transport *transport);
size_t transport_pending(const struct transport *transport);
/* After what waits is written: FIN (TLS: close_notify, then FIN). */
void transport_finish(struct transport *transport);
void transport_pause(struct transport *transport, bool pause);
/* Puts bytes back that the former owner read too far: they come again, first. */
void transport_unread(struct transport *transport, struct chunks *chunks);
/* Closes at once. Safe inside callbacks. reset: RST instead of FIN. */
void transport_free(struct transport *transport, bool reset);
/* Writes what waits (until the peer takes nothing for 10 s, at most 2 minutes), then closes; no further callback. */
void transport_linger(struct transport *transport);
/* Whether any that lingers has something left to write. */
bool transport_unsent(void);

/* The connection goes on in another process: nothing is read and written any more. Leaves in out what was to be written, in `in` what
 * was read too far (transport_unread()). Returns the descriptor, which stays the transport's: transport_free() closes it without a
 * word to the peer. -1: it cannot (TLS, not open, broken), and nothing has changed. */
int transport_hand_over(struct transport *transport, struct chunks *out, struct chunks *in);
/* The peer's end was told by whoever had the connection before. */
void transport_was_ended(struct transport *transport);

/* A connection between nodes: it survives short outages of its path, and is broken where nothing is acknowledged for ms
 * (hop_watch.h). */
void transport_watch(struct transport *transport, unsigned ms);
SSL *transport_ssl(const struct transport *transport);
/* Whole connection times out without progress of any kind for ms (0: never): broken(READ_TIMEOUT). */
void transport_set_timeout(struct transport *transport, unsigned ms);

#endif
