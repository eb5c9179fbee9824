/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 between the tunnel workers of one node, over a socket pair that the supervisor made (WORKER_LINK): a flow whose far
 * end belongs to another worker (a TUN device with its tunnels and pools, a tunnel that goes on) takes one hop more inside the
 * node. The flow was decided by the worker that took it in; the owner only carries out. */
#ifndef HERMES_TUNNEL_WORKER_LINK_H
#define HERMES_TUNNEL_WORKER_LINK_H

#include "workers/tunnel/ask.h"
#include "workers/tunnel/own_origin.h"
#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

struct worker_links;
/* One per worker, to the process' end. */
struct worker_links *worker_links_new(struct tunnel *tunnel);
/* From the supervisor; owns fd. client: we open streams on it. */
void worker_links_take(struct worker_links *links, unsigned index, bool client, int fd);
/* The worker is to stop: nothing new comes by links; who needs one asks for one to the next worker. */
void worker_links_drain(struct worker_links *links);

/* Whether the flow's way out by cluster ends at another worker: whose device it is, or who holds the tunnel that it names. */
bool worker_link_owner(const struct flow *flow, const struct config_cluster *cluster, unsigned *index);

/* Opens the flow's way out through the worker `index`, which does what cluster (a name) says; the request's headers tell it who
 * asks. Ends, never inside this call, in opened() or failed(). cancel: no up-call any more. */
struct worker_link_wait;
struct worker_link_wait *worker_link_open(struct worker_links *links, unsigned index, const char *cluster, struct flow *flow,
                                          void (*opened)(void *arg, struct leg *leg),
                                          void (*failed)(void *arg, enum flow_error error, const char *detail), void *arg);
void worker_link_cancel(struct worker_link_wait *wait);

/* For a flow of the predecessor that another worker had asked for: who, and what its decision counts. */
struct own_origin *worker_link_origin(struct worker_links *links, const char *listener, const char *source, const char *peer);
struct stats_set *worker_link_stats(struct worker_links *links);

/* At the owner: a request that came by a link (origin->inner). Takes off the fields that tell who asks and what was decided;
 * *origin and *user (malloc'd) are the caller's. NULL: it does not say. */
struct decision *worker_link_decision(struct worker_links *links, const struct origin *link, struct head *request,
                                      struct own_origin **origin, char **user);

#endif
