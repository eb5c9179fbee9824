/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses that far ends of tunnels give to clients (ADDRESS_ASSIGN), one table per device, shared by the clusters that use it.
 *
 * An address belongs to one client: told by the user, or, where one program's tunnels lead here several times (one per network, or
 * a second one before the first is closed), by the random word in IP_CLIENT_HEADER. Tunnels of one client may hold an address
 * together; what comes back goes to the one whose scope fits best, the youngest of equals. An address that nobody holds any more
 * is remembered, and given to the same client again while nobody else needs it. */
#ifndef HERMES_TUNNEL_IP_POOL_H
#define HERMES_TUNNEL_IP_POOL_H

#include "workers/tunnel/device.h"

#define IP_CLIENT_HEADER "hermes-tunnel-client"

struct ip_pool;
struct ip_hold;

/* Whom packets to its addresses go to; embedded in far ends. */
struct ip_holder {
	void (*packet)(struct ip_holder *holder, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
	               const struct ip_packet *ip);
	const struct config_prefixes *scope;  /* what the tunnel is for: sources of packets to it */
	const char *user, *client;            /* either may be NULL */
	struct ip_hold *holds;
	unsigned n;
};

/* The device's pool. It lives as long as the device. */
struct ip_pool *ip_pool_of(struct device *device);
void ip_pool_free(struct ip_pool *pool);

/* An address inside `ranges` for the holder: `wanted`, or any of that family where it is all-zero (mapped for IPv4). False: there is
 * none, or it is another's. The same one again is no change. */
bool ip_pool_assign(struct ip_pool *pool, const struct config_prefixes *ranges, const struct in6_addr *wanted,
                    struct ip_holder *holder, struct in6_addr *out);
/* Whether the holder may send from it. */
bool ip_pool_holds(const struct ip_holder *holder, const struct in6_addr *address);
/* Its addresses, in the order of their assignment; returns how many were written. */
unsigned ip_pool_held(const struct ip_holder *holder, struct in6_addr *out, unsigned max);
/* It lets go of all. */
void ip_pool_release(struct ip_holder *holder);

#endif
