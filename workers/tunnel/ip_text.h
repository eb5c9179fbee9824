/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and prefixes as people write them: IPv4 without its mapping. */
#ifndef HERMES_TUNNEL_IP_TEXT_H
#define HERMES_TUNNEL_IP_TEXT_H

#include "store/config.h"

#define IP_TEXT 52u                   /* an IPv6 address, "/128", NUL */

/* Both return out, which has room for IP_TEXT bytes. */
const char *ip_text(const struct in6_addr *address, char *out);
const char *ip_prefix_text(const struct config_prefix *prefix, char *out);

static inline bool ip_is_v4(const struct in6_addr *address) { return IN6_IS_ADDR_V4MAPPED(address); }
struct config_prefix ip_host_prefix(const struct in6_addr *address);
/* In just one of the two families: a prefix shorter than 96 bits is IPv6's. */
static inline bool ip_prefix_is_v4(const struct config_prefix *prefix)
{
	return prefix->bits >= 96 && IN6_IS_ADDR_V4MAPPED(&prefix->address);
}

#endif
