/* HTTP/2 connections (RFC 9113) over a transport, on nghttp2; a stream is a leg. */
#ifndef HERMES_TUNNEL_H2_H
#define HERMES_TUNNEL_H2_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/transport.h"
#include "workers/tunnel/tunnel.h"

struct h2;

/* Server side: takes over the transport and, inside origin, nothing: origin outlives it by gone(). first: bytes read already
 * (may be NULL). gone(arg): the connection is no more, its memory goes after the call. */
struct h2 *h2_server_new(struct tunnel *tunnel, struct transport *transport, const struct origin *origin,
                         struct chunks *first, void (*gone)(void *arg), void *arg);

struct h2_pool_callbacks {
	void (*ready)(void *arg);     /* transport up, SETTINGS received: h2_open() may be called */
	void (*room)(void *arg);      /* a stream ended: there may be room again */
	/* No further stream is taken (GOAWAY, error, peer gone); called once; streams that live go on. */
	void (*closing)(void *arg);
	void (*gone)(void *arg, enum flow_error error, const char *detail);   /* memory goes after this call */
};
/* Client side for a pool; takes over the transport (connecting). */
struct h2 *h2_client_new(struct tunnel *tunnel, struct transport *transport, uint32_t max_streams,
                         const struct h2_pool_callbacks *callbacks, void *arg);
/* What :authority says where the request's own is a target that the next hop is asked to reach (UDP and IP proxying); copied.
 * Without it: "localhost". */
void h2_client_authority(struct h2 *h2, const char *authority);
/* Streams that can be opened now; 0 before ready and while closing. */
unsigned h2_room(const struct h2 *h2);
unsigned h2_streams(const struct h2 *h2);
/* Whether the peer announced SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3). */
bool h2_extended_connect(const struct h2 *h2);
/* A new stream for the flow; flow_opened() is the caller's to call with it. NULL: no room. */
struct leg *h2_open(struct h2 *h2, struct flow *flow);
/* GOAWAY; ends when its streams have. now: at once. */
void h2_drain(struct h2 *h2, bool now);
/* The first of a server's two GOAWAYs went out: what the client sent meanwhile is still taken. */
bool h2_noticed(const struct h2 *h2);

#endif
