/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HERMES_TUNNEL_FLOW_DRAIN_H
#define HERMES_TUNNEL_FLOW_DRAIN_H

struct tunnel;

/* The worker is to stop. Client ends of tunnels that can go on are asked to open them anew, which leads to its successor, before the
 * drain is over; far ends whose client ends are away do not wait for them. */
void flows_drain(struct tunnel *tunnel);

#endif
