/* A SOCKS 5 connection up to its CONNECT, which becomes a flow's in leg, or as long as its UDP ASSOCIATE lasts. */
#ifndef HERMES_TUNNEL_SOCKS5_SESSION_H
#define HERMES_TUNNEL_SOCKS5_SESSION_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/transport.h"
#include "workers/tunnel/tunnel.h"

/* Takes over the transport (fd: its socket); sets origin->proven_user. gone(arg): the connection is no more. */
void socks5_session_new(struct tunnel *tunnel, struct transport *transport, int fd, struct origin *origin,
                        void (*gone)(void *arg), void *arg);

#endif
