#ifndef HERMES_TUNNEL_RESOLVE_ADDRESS_H
#define HERMES_TUNNEL_RESOLVE_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>

/* An IPv4 or IPv6 address with its port: what a name resolves to. A fifth of a sockaddr_storage, and every dial has two lists. */
union resolve_address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

#endif
