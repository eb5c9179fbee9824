/* A flow: the joint of two legs. It asks for a decision, opens the way out, moves heads and bytes, retries, and writes the
 * record at its end. It knows nothing of the kinds of its legs. */
#ifndef HERMES_TUNNEL_FLOW_H
#define HERMES_TUNNEL_FLOW_H

#include "workers/tunnel/leg.h"

struct tunnel;
struct listener;

/* Who is at the other end of the connection that a flow came in on; owned by that connection, outlives its flows. */
struct origin {
	struct listener *listener;
	struct sockaddr_storage *source;
	char source_text[64];         /* address without port */
	uint16_t source_port;
	const char *peer;             /* node that the client certificate names, NULL: none */
	const char *proven_user;      /* by certificate or Proxy-Authorization, NULL: none */
	const void *peer_rule;        /* struct config_peer that admits the peer, of the configuration in force */
	bool peer_refused;            /* a change of configuration no longer admits the peer */
	const char *carry;            /* "h1", "h2", "tcp", "socks5": for the record */
	/* Keeps the listener beyond the connection: change is 1 or -1. NULL: it lives to the process' end, or cannot be kept. */
	void (*hold)(struct listener *listener, int change);
	bool inner;                   /* another tunnel worker of this node: who asks stands in the request (worker_link.h) */
};

/* A request came in on `leg` (leg->flow is set). Takes over request. end: no body follows. May close the leg before it
 * returns. Never NULL. */
struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end);

/* From the cluster: the way out is open; leg is ready for ops->head(). Or it could not be opened. */
void flow_opened(struct flow *flow, struct leg *leg);
void flow_open_failed(struct flow *flow, enum flow_error error, const char *detail);

/* From the legs. Each may end the flow and with it, by ops->close(), the calling leg: a leg checks after. */
void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end);     /* out leg; takes over response */
void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks);               /* takes over the chunks */
void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers);             /* takes over trailers */
void flow_writable(struct flow *flow, struct leg *leg);
/* The leg is gone (it frees itself after this call; no ops->close() follows). */
void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail);

/* The request as it leaves (out legs may look at it while open). */
const struct head *flow_request(const struct flow *flow);

#endif
