/* SPDX-License-Identifier: Apache-2.0 */
/* Where the packets of a tunnel may go: what its cluster advertises, limited by the request's target and protocol (RFC 9484 4.6). */
#ifndef HERMES_TUNNEL_IP_SCOPE_H
#define HERMES_TUNNEL_IP_SCOPE_H

#include "workers/tunnel/ip_packet.h"
#include "workers/tunnel/ip_capsule.h"

struct ip_scope;

/* advertise empty: everything in the families of `pool`. targets NULL: all; else what lies in one of them. protocol -1: all.
 * NULL: nothing is left. */
struct ip_scope *ip_scope_new(const struct config_prefixes *advertise, const struct config_prefixes *pool,
                              const struct config_prefixes *targets, int protocol);
void ip_scope_free(struct ip_scope *scope);
/* far: the address at the far side, a packet's destination or, on its way back, its source. ICMP passes whatever the protocol. */
bool ip_scope_allows(struct ip_scope *scope, const struct in6_addr *far, uint8_t protocol);
const struct config_prefixes *ip_scope_prefixes(const struct ip_scope *scope);
/* As a ROUTE_ADVERTISEMENT's value, malloc'd. */
uint8_t *ip_scope_routes(const struct ip_scope *scope, size_t *length);

#endif
