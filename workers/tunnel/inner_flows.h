/* SPDX-License-Identifier: Apache-2.0 */
/* Policy for packets: each inner flow (protocol, addresses, ports) is asked about once and remembered, where the configuration
 * in force examines packets at all (config->examines.ip). One table per IP leg, bounded; entries go when idle or full. */
#ifndef HERMES_TUNNEL_INNER_FLOWS_H
#define HERMES_TUNNEL_INNER_FLOWS_H

#include "workers/tunnel/ask.h"
#include "workers/tunnel/ip_packet.h"

enum inner_verdict { INNER_ALLOW, INNER_DENY, INNER_PENDING };

struct inner_flows;
/* listener: what policies call `listener` (the device's name, or the tunnel's own listener). ready(arg): an answer came; those that
 * were PENDING are to be tried again. */
struct inner_flows *inner_flows_new(struct tunnel *tunnel, const struct origin *origin, const char *user,
                                    const struct head *request, void (*ready)(void *arg), void *arg);
void inner_flows_free(struct inner_flows *flows);
/* INNER_ALLOW at once where nothing examines packets. PENDING: the caller queues the packet (bounded) until ready(). */
enum inner_verdict inner_flows_check(struct inner_flows *flows, const struct ip_packet *packet);

#endif
