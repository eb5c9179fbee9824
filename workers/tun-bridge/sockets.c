/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/sockets.h"
#include "store/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t length_of(const union address *a)
{
	return a->any.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

static bool read_address(const char *text, union address *out)
{
	struct config_address parsed = {0};
	const char *why;
	bool ok = false;
	*out = (union address){0};
	if (!text || config_address_parse(text, true, NULL, &parsed, &why))
		return false;
	if (parsed.host && inet_pton(AF_INET, parsed.host, &out->v4.sin_addr) == 1) {
		uint32_t host = ntohl(out->v4.sin_addr.s_addr);
		out->v4.sin_family = AF_INET;
		out->v4.sin_port = htons(parsed.port);
		ok = host >> 24 != 0 && host >> 24 != 127 && host >> 28 < 14;
	} else if (parsed.host && inet_pton(AF_INET6, parsed.host, &out->v6.sin6_addr) == 1) {
		const struct in6_addr *a = &out->v6.sin6_addr;
		out->v6.sin6_family = AF_INET6;
		out->v6.sin6_port = htons(parsed.port);
		ok = !IN6_IS_ADDR_UNSPECIFIED(a) && !IN6_IS_ADDR_LOOPBACK(a) && !IN6_IS_ADDR_MULTICAST(a) &&
		     !IN6_IS_ADDR_LINKLOCAL(a) && !IN6_IS_ADDR_V4MAPPED(a);
	}
	ok = ok && parsed.port;
	config_address_clear(&parsed);
	return ok;
}

static int new_socket(int family)
{
	return socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Only an address of our own can be bound without IP_TRANSPARENT. */
static bool own(const union address *address)
{
	union address probe = *address;
	int fd = new_socket(address->any.sa_family);
	if (address->any.sa_family == AF_INET)
		probe.v4.sin_port = 0;
	else
		probe.v6.sin6_port = 0;
	bool bound = fd < 0 || bind(fd, &probe.any, length_of(&probe)) == 0;
	if (fd >= 0)
		close(fd);
	return bound;
}

int socket_foreign(const char *text, const char **why)
{
	union address address;
	const int one = 1;
	*why = "not a foreign address";
	if (!read_address(text, &address) || own(&address))
		return -1;
	bool v4 = address.any.sa_family == AF_INET;
	int fd = new_socket(address.any.sa_family);
	if (fd >= 0 && setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, &one, sizeof(one)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 && bind(fd, &address.any, length_of(&address)) == 0)
		return fd;
	*why = strerror(errno);
	if (fd >= 0)
		close(fd);
	return -1;
}
