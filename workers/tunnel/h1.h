/* HTTP/1.1 connections (RFC 9112) over a transport; the exchange under way is a leg. */
#ifndef HERMES_TUNNEL_H1_H
#define HERMES_TUNNEL_H1_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/transport.h"
#include "workers/tunnel/tunnel.h"

struct h1_server;
struct h1_client;

/* Server side: one request after another; pipelined requests wait. Takes over the transport; first: bytes read already.
 * gone(arg): the connection is no more. */
struct h1_server *h1_server_new(struct tunnel *tunnel, struct transport *transport, const struct origin *origin,
                                struct chunks *first, void (*gone)(void *arg), void *arg);
/* Finish the exchange under way, or the first where none has come yet (Connection: close), then close; idle: close at once. */
void h1_server_drain(struct h1_server *server);
/* No request has come yet. */
bool h1_server_fresh(const struct h1_server *server);

struct h1_pool_callbacks {
	void (*ready)(void *arg);     /* transport up */
	void (*idle)(void *arg);      /* the exchange ended and the connection can serve again */
	void (*gone)(void *arg, enum flow_error error, const char *detail);   /* memory goes after this call */
};
struct h1_client *h1_client_new(struct tunnel *tunnel, struct transport *transport,
                                const struct h1_pool_callbacks *callbacks, void *arg);
/* What Host says where the request's authority is a target that the next hop is asked to reach (UDP and IP proxying); copied.
 * Without it: "localhost". */
void h1_client_authority(struct h1_client *client, const char *authority);
/* Only while idle (or just ready). */
struct leg *h1_client_open(struct h1_client *client, struct flow *flow);
void h1_client_close(struct h1_client *client);   /* idle connections: closed at once; busy: when their exchange ends */

#endif
