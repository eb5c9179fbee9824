/* SPDX-License-Identifier: Apache-2.0 */
/* A UDP socket towards a target as a leg: it ends a CONNECT-UDP tunnel (RFC 9298 3.1). Its sibling for UDP listeners is
 * udp_listener.h. Implements leg_ops.joined: capsules both ways. */
#ifndef HERMES_TUNNEL_LEG_UDP_H
#define HERMES_TUNNEL_LEG_UDP_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

/* Takes over fd (connected, non-blocking, set up). It answers the flow's request with 200 (masque_response) and moves
 * datagrams. After finish() it goes on handing up what comes for UDP_LINGER_MS without traffic, then ends its side. ICMP
 * unreachable ends the flow (FLOW_CONNECT_REFUSED, FLOW_UNROUTABLE). stats (STATS_CLUSTER, or NULL): what it drops. gone(arg)
 * (may be NULL): the leg is no more. */
#define UDP_LINGER_MS 500u
struct leg *udp_leg_new(struct tunnel *tunnel, int fd, struct flow *flow, struct stats_set *stats, void (*gone)(void *arg),
                        void *arg);

/* The same for a flow of the predecessor: parcel->fd (owned, also where it fails) is the socket. NULL: the parcel does not fit. The
 * caller tells it by ops->joined() that the tunnel is open. */
struct parcel;
struct leg *udp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct stats_set *stats, struct parcel *parcel);

#endif
