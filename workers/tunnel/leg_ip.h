/* SPDX-License-Identifier: Apache-2.0 */
/* IP packets through a TUN device as legs (RFC 9484): the client end of a tunnel (one per entry of a device's `networks`) and
 * its far end (a cluster that carries ip). Both implement leg_ops.joined. */
#ifndef HERMES_TUNNEL_LEG_IP_H
#define HERMES_TUNNEL_LEG_IP_H

#include "workers/tunnel/device.h"
#include "workers/tunnel/flow.h"

struct json;
struct parcel;

/* The client end: begins a flow for the network (CONNECT-IP to its prefix, or CONNECT-UDP where over_udp says so) and keeps it:
 * a flow that ends is begun again, with back-off. Its packets come from device by the network's prefix. */
struct ip_network;
struct ip_network *ip_network_new(struct tunnel *tunnel, struct device *device, const struct config_tunnel *config,
                                  const struct config_network *network);
/* The configuration in force changed; the entry is still there (the same prefix), with these settings. */
void ip_network_use(struct ip_network *network, const struct config_tunnel *config, const struct config_network *settings);
/* Its flow ends in peace; what still comes by it is written to the device. */
void ip_network_free(struct ip_network *network);
/* Once the predecessor has handed over, or none did: a network that has no flow yet begins one. */
void ip_network_start(struct ip_network *network);
/* The predecessor's flow for it (leg_ops.hand_over): its leg; the caller makes the flow, and tells the leg by ops->joined() that it is
 * open. NULL: the parcel does not fit, or there is a flow already. */
struct leg *ip_network_restore(struct ip_network *network, const struct parcel *parcel);
const struct origin *ip_network_origin(const struct leg *leg);
/* Addresses that its far end assigned; returns how many were written. */
unsigned ip_network_assigned(const struct ip_network *network, struct config_prefix *out, unsigned max);
void ip_network_json(const struct ip_network *network, struct json *json);

/* The far end, for an attempt of cluster `config` (carry ip): assigns addresses from its pool, advertises its routes, checks
 * sources. A CONNECT-UDP request brings IP packets as datagrams: its addresses are learned from their sources, inside the pool.
 * NULL: error and *detail are set (the device is not here, nothing lies in the request's scope). */
struct leg *ip_exit_new(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow, enum flow_error *error,
                        const char **detail);
/* A far end of the predecessor, for a flow whose request is the one that it came with. NULL: what it was for is not here. */
struct leg *ip_exit_restore(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow,
                            const struct parcel *parcel);
/* A successor has the device now: those that did not go over end, so that who is behind them comes again. */
void ip_exits_leave(struct device *device);
/* The configuration in force changed; and the device is gone. */
void ip_exits_use(struct device *device);
void ip_exits_end(struct device *device);
void ip_exits_json(const struct device *device, struct json *json);

#define IP_LINGER_MS 500u
#define IP_ADDRESSES 16u              /* per tunnel */

#endif
