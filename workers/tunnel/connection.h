/* An accepted connection until it is known what it speaks: TLS, whom the certificate names, HTTP/1.1 or HTTP/2 or SOCKS. */
#ifndef HERMES_TUNNEL_CONNECTION_H
#define HERMES_TUNNEL_CONNECTION_H

#include <sys/socket.h>

#include "workers/tunnel/listener_internal.h"

/* Takes over fd. */
void connection_accept(struct bound *bound, int fd, const struct sockaddr_storage *source);
/* The listeners have their new settings: peers are admitted anew. One that no longer is may not begin anything. */
void connections_commit(void);
/* All HTTP connections: finish what they do, take nothing new. */
void connections_drain(void);
/* Whether some have not said yet what they want: they just came, and their first request is on its way. */
bool connections_fresh(void);

#endif
