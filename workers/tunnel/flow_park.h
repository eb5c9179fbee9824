/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HERMES_TUNNEL_FLOW_PARK_H
#define HERMES_TUNNEL_FLOW_PARK_H

struct tunnel;

/* Far ends of tunnels whose client ends are away: a worker that is to stop does not wait for them. */
void flows_end_parked(struct tunnel *tunnel);

#endif
