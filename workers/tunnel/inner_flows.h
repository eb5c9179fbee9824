/* SPDX-License-Identifier: Apache-2.0 */
/* Policy for packets: each inner flow (protocol, addresses, ports) is asked about once and remembered, where the configuration
 * in force examines packets at all (config->examines.ip). One table per IP leg, bounded; entries go when idle or full.
 *
 * A flow is asked about as its first packet travels: "tcp to port 80" allows the connection, and with it what comes back. Packets
 * of both directions are therefore checked with one table. ICMP echo: the identifier stands for the ports. An ICMP error
 * about a flow that may pass passes. Fragments but the first share the first one's verdict for 5 s; where none was seen, they
 * are denied if a policy looks at ports, else judged without.
 *
 * A verdict holds as long as its decision and its generation do; then the flow is asked about anew, its packets pending
 * meanwhile. What nobody answers is denied, and asked again after a second. Idle flows are forgotten after 3 minutes, those of
 * TCP and SCTP after 2 hours; at most node.cache_entries / 8, and not less than 1,024, are remembered, the least recently used go
 * first. At most 256 are asked about at a time: others are pending without being asked, until one of these is answered. */
#ifndef HERMES_TUNNEL_INNER_FLOWS_H
#define HERMES_TUNNEL_INNER_FLOWS_H

#include "workers/tunnel/ask.h"
#include "workers/tunnel/ip_packet.h"

enum inner_verdict { INNER_ALLOW, INNER_DENY, INNER_PENDING };

struct inner_flows;
/* origin (with its listener, as policies see it: the device's name, or the tunnel's own listener) must outlive the table; user
 * and request are copied, and what the listener adds and removes is. user NULL: whom the listener's headers name, or nobody. ready(arg): an answer came; those that were PENDING are to be tried again. It is never called inside
 * inner_flows_check(), and may itself call that and inner_flows_free(). */
struct inner_flows *inner_flows_new(struct tunnel *tunnel, const struct origin *origin, const char *user,
                                    const struct head *request, void (*ready)(void *arg), void *arg);
void inner_flows_free(struct inner_flows *flows);
/* INNER_ALLOW at once where nothing examines packets. PENDING: the caller queues the packet (bounded) until ready(). */
enum inner_verdict inner_flows_check(struct inner_flows *flows, const struct ip_packet *packet);

#endif
