/* Raw TCP (or TLS) byte streams as legs. */
#ifndef HERMES_TUNNEL_LEG_TCP_H
#define HERMES_TUNNEL_LEG_TCP_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/transport.h"
#include "workers/tunnel/tunnel.h"

/* A dialled connection (ready): takes over the transport. It answers the flow's CONNECT with 200 and moves bytes. gone(arg)
 * (may be NULL): the leg is no more. */
struct leg *tcp_leg_new(struct tunnel *tunnel, struct transport *transport, struct flow *flow,
                        void (*gone)(void *arg), void *arg);

/* An accepted connection of a `tcp` listener, or one whose SOCKS or CONNECT preface was read: begins a flow with
 * `request` (taken over). first: bytes that came already (may be NULL). answer(arg, response or NULL, error): how the preface is answered when the
 * response head or failure comes (SOCKS reply); NULL: nothing is written. */
void tcp_leg_accept(struct tunnel *tunnel, struct transport *transport, const struct origin *origin, struct head *request,
                    struct chunks *first, void (*answer)(void *arg, const struct head *response), void (*gone)(void *arg),
                    void *arg);

/* A connection of the predecessor's, for its flow: out leg (dialled) or in leg. Takes over parcel->fd, also where it fails. NULL: it is no
 * connection. ended: its peer's end was told. */
struct parcel;
struct leg *tcp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct parcel *parcel, bool dialled, bool ended);

#endif
