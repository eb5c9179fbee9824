/* The router's part of an answer: address space, routes, and what to say where neither names a way. */
#ifndef HERMES_ROUTER_ANSWER_H
#define HERMES_ROUTER_ANSWER_H

#include "ipc/messages.h"
#include "store/trace.h"
#include "workers/router/route.h"
#include "workers/router/space.h"

/* One generation. */
struct routing {
	struct config *config;
	struct route_index *routes;
	struct space_index *spaces;
	struct endpoint_table *endpoints;
};
/* Takes config over, also when it fails (NULL: out of memory). */
struct routing *routing_new(struct config *config);
void routing_free(struct routing *routing);

/* Room that an answer needs, to be used again and again; pointers in the decision live until the next use. */
struct answer_room {
	struct match_header *headers; size_t n_headers;   /* of the question, and behind them what policies added */
	struct ipc_pair *added; size_t n_added;
	char route[256];
};
void answer_room_free(struct answer_room *room);

/* Fills *out from what policy passed on. trace: NULL, or what policy already told, and then what we add. A denial goes
 * through unchanged, and so does what policy says about a packet inside a tunnel: the tunnel was routed when it began. Returns 0 or -ENOMEM. */
int answer(const struct routing *routing, uint64_t generation, const struct ipc_assessed *assessed,
           struct answer_room *room, struct trace *trace, struct ipc_decision *out);

#endif
