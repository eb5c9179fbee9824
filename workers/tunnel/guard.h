/* Which addresses `endpoints: target` may dial. */
#ifndef HERMES_TUNNEL_GUARD_H
#define HERMES_TUNNEL_GUARD_H

#include <sys/socket.h>

#include "store/config.h"

/* Splits a request's authority into host and port: names (no empty labels, a trailing dot is dropped), strict dotted quads,
 * [IPv6]; numeric spellings that resolvers take for addresses (2130706433, 0x7f.1, 0177.0.0.1) are refused. default_port 0:
 * the port is required. Returns 0, or -EINVAL with *why. host: at least 256 bytes. */
int guard_split(const char *authority, uint16_t default_port, char *host, size_t host_size, uint16_t *port, const char **why);

/* Whether the cluster may dial the (resolved) address. IPv4-mapped, 6to4, NAT64 and Teredo forms are judged by the IPv4 address
 * inside as well. Returns NULL (yes) or the reason ("loopback address"). */
const char *guard_refuses(const struct config_cluster *cluster, const struct sockaddr *address);

#endif
