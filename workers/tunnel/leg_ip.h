/* SPDX-License-Identifier: Apache-2.0 */
/* IP packets through a TUN device as legs (RFC 9484): the client end of a tunnel (one per entry of a device's `networks`) and
 * its far end (a cluster that carries ip). Both implement leg_ops.joined. */
#ifndef HERMES_TUNNEL_LEG_IP_H
#define HERMES_TUNNEL_LEG_IP_H

#include "workers/tunnel/device.h"
#include "workers/tunnel/flow.h"

/* The client end: begins a flow for the network (CONNECT-IP to its prefix, or CONNECT-UDP where over_udp says so) and keeps it:
 * a flow that ends is begun again, with back-off. Its packets come from device by the network's prefix. */
struct ip_network;
struct ip_network *ip_network_new(struct tunnel *tunnel, struct device *device, const struct config_tunnel *config,
                                  const struct config_network *network);
/* The configuration in force changed; the entry is still there (the same prefix), with these settings. */
void ip_network_use(struct ip_network *network, const struct config_tunnel *config, const struct config_network *settings);
void ip_network_free(struct ip_network *network);

/* The far end, for an attempt of cluster `config` (carry ip): assigns addresses from its pool, advertises its routes, checks sources.
 * NULL: error and *detail are set (the device is not there, the pool is exhausted). */
struct leg *ip_exit_new(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow, enum flow_error *error,
                        const char **detail);

#endif
