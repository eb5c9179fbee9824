/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 between the tunnel workers of one node, over a socket pair that the supervisor made (WORKER_LINK): a flow whose far
 * end belongs to another worker (a TUN device with its tunnels and pools, a tunnel that goes on) takes one hop more inside the
 * node. The flow was decided by the worker that took it in; the owner only carries out. */
#ifndef HERMES_TUNNEL_WORKER_LINK_H
#define HERMES_TUNNEL_WORKER_LINK_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

struct worker_links;
struct worker_links *worker_links_new(struct tunnel *tunnel);
void worker_links_free(struct worker_links *links);
/* From the supervisor; owns fd. client: we open streams on it. */
void worker_links_take(struct worker_links *links, unsigned index, bool client, int fd);

/* Opens the flow's way out through the worker `index`, which does what cluster (a name) says; the request's headers tell it who
 * asks. Ends, never inside this call, in flow_opened() or flow_open_failed(). cancel: no up-call any more. */
struct worker_link_wait;
struct worker_link_wait *worker_link_open(struct worker_links *links, unsigned index, const char *cluster, struct flow *flow,
                                          void (*opened)(void *arg, struct leg *leg),
                                          void (*failed)(void *arg, enum flow_error error, const char *detail), void *arg);
void worker_link_cancel(struct worker_link_wait *wait);

#endif
