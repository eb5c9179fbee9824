/* Decisions: asked of policy and router once, kept in a cache by just those fields that the configuration can examine. */
#ifndef HERMES_TUNNEL_ASK_H
#define HERMES_TUNNEL_ASK_H

#include <netinet/in.h>

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

/* Counted; read-only. status 0: go to cluster. */
struct decision {
	unsigned refs;
	unsigned status;
	char *error, *detail, *route, *cluster;
	struct config_pairs add_headers;
	struct config_strs remove_headers, policies;
	struct config_retry retry;
	struct config_timeout timeout;
	bool move;
	uint64_t valid_until;         /* now_us() until which it holds for whoever keeps it; UINT64_MAX: as long as its generation */
	struct stats_set *route_stats, *cluster_stats;
};
void decision_unref(struct decision *decision);
/* A copy of what a message says. */
struct decision *decision_of_message(struct tunnel *tunnel, const struct ipc_decision *message);

struct ask;
struct ask_query;

struct ask *ask_new(struct tunnel *tunnel);
void ask_free(struct ask *ask);
/* The generation in force changed: what is cached is forgotten. What is open is answered to those who asked, and not kept:
 * who asks from now on asks anew. */
void ask_commit(struct ask *ask);
/* From router's channel. */
void ask_answered(struct ask *ask, const struct ipc_decision *message);

/* A cached decision is returned at once (a reference of the caller's). Otherwise NULL, and done(arg, decision, or NULL when
 * nobody answered in time) is called later, never inside the call; *query can be cancelled until then. */
struct decision *ask_decision(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                              struct ask_query **query, void (*done)(void *arg, struct decision *decision), void *arg);
/* The same about a packet that travels inside the tunnel that `request` began: policies that govern packets decide, no route is
 * looked for (status 0 has no cluster). port: the destination's, 0: none. */
struct ask_inner { uint8_t protocol; uint16_t port; struct in6_addr source, destination; };
struct decision *ask_inner(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                           const struct ask_inner *inner, struct ask_query **query,
                           void (*done)(void *arg, struct decision *decision), void *arg);
void ask_cancel(struct ask_query *query);

#endif
