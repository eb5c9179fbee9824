/* SPDX-License-Identifier: Apache-2.0 */
/* The relay of a SOCKS 5 UDP ASSOCIATE (RFC 1928 6 and 7): a socket beside the TCP connection, and a CONNECT-UDP
 * flow for each target that its client names. Names stay names: the far end looks them up. */
#ifndef HERMES_TUNNEL_SOCKS5_UDP_H
#define HERMES_TUNNEL_SOCKS5_UDP_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

#define SOCKS5_TARGETS_MAX 1024u      /* of one association, at a time; limits.flows of the listener counts beside it */

struct socks5_udp;

/* A socket on the address that the client's connection (tcp) has here; origin (of the connection) outlives it.
 * *bound: where the client is to send. NULL: none could be made, *why says so (static). */
struct socks5_udp *socks5_udp_new(struct tunnel *tunnel, const struct origin *origin, int tcp,
                                  struct sockaddr_storage *bound, const char **why);
/* Its flows end. NULL is fine. */
void socks5_udp_free(struct socks5_udp *relay);

#endif
