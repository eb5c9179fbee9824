/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/source_text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

void source_text(const struct sockaddr_storage *source, char *text, size_t size, uint16_t *port)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)source;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)source;
	*port = 0;
	if (source->ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, text, (socklen_t)size);
		*port = ntohs(v4->sin_port);
	} else if (source->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
		inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], text, (socklen_t)size);
		*port = ntohs(v6->sin6_port);
	} else if (source->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &v6->sin6_addr, text, (socklen_t)size);
		*port = ntohs(v6->sin6_port);
	} else {
		snprintf(text, size, "unix");
	}
}

void address_port_text(const struct sockaddr_storage *address, char text[ADDRESS_PORT_TEXT])
{
	char host[INET6_ADDRSTRLEN];
	uint16_t port;
	source_text(address, host, sizeof(host), &port);
	snprintf(text, ADDRESS_PORT_TEXT, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}
