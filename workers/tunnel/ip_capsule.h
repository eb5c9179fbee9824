/* SPDX-License-Identifier: Apache-2.0 */
/* ADDRESS_ASSIGN, ADDRESS_REQUEST and ROUTE_ADVERTISEMENT (RFC 9484 4.7) to structs and back. */
#ifndef HERMES_TUNNEL_IP_CAPSULE_H
#define HERMES_TUNNEL_IP_CAPSULE_H

#include "store/config.h"

#define IP_CAPSULE_ENTRIES 1024u      /* more than these in one capsule: refused */
#define IP_CAPSULE_MAX (64u * 1024)   /* bytes of value */

struct ip_assigned { uint64_t request; struct config_prefix prefix; };   /* request 0: unasked */
struct ip_route { struct in6_addr from, to; uint8_t protocol; };        /* inclusive; mapped for IPv4; protocol 0: all */

/* NULL, or the reason why the stream must be aborted ("address bits past the prefix", "routes overlap", ...; static).
 * out has room for max entries; *n: how many. For a request: ids must not be 0, at least one entry. An IPv6 address that is an
 * IPv4-mapped one is refused, as in packets. */
const char *ip_addresses_get(const uint8_t *value, size_t length, bool request, struct ip_assigned *out, unsigned max,
                             unsigned *n);
const char *ip_routes_get(const uint8_t *value, size_t length, struct ip_route *out, unsigned max, unsigned *n);
/* Bytes written; out has room for n * 34 + 16. */
size_t ip_addresses_put(uint8_t *out, const struct ip_assigned *v, unsigned n);
/* Sorts by version, protocol, address and merges what touches, as 4.7.3 wants. The caller names no protocol inside a range
 * that it gives for all (our routes all have the protocol of the request's scope). */
size_t ip_routes_put(uint8_t *out, struct ip_route *v, unsigned n);

struct ip_route ip_route_of(const struct config_prefix *prefix, uint8_t protocol);
/* Whether a packet of protocol to address may take the route. ICMP always may (RFC 9484 4.7.3). */
bool ip_route_has(const struct ip_route *route, uint8_t protocol, const struct in6_addr *address);

#endif
