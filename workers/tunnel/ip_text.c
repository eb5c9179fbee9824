/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_text.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

const char *ip_text(const struct in6_addr *address, char *out)
{
	bool v4 = ip_is_v4(address);
	if (!inet_ntop(v4 ? AF_INET : AF_INET6, address->s6_addr + (v4 ? 12 : 0), out, IP_TEXT))
		out[0] = '\0';
	return out;
}

const char *ip_prefix_text(const struct config_prefix *prefix, char *out)
{
	bool v4 = ip_prefix_is_v4(prefix);
	if (!inet_ntop(v4 ? AF_INET : AF_INET6, prefix->address.s6_addr + (v4 ? 12 : 0), out, IP_TEXT))
		out[0] = '\0';
	size_t length = strlen(out);
	snprintf(out + length, IP_TEXT - length, "/%u", prefix->bits - (v4 ? 96u : 0u));
	return out;
}

struct config_prefix ip_host_prefix(const struct in6_addr *address)
{
	return (struct config_prefix){*address, 128};
}
