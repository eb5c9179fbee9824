/* SPDX-License-Identifier: Apache-2.0 */
/* UDP sockets that programs send to (accept: udp, accept: transparent): one socket per tunnel worker, a table of
 * flows by client address and port in user space (udp_flows.h); each entry is the in leg of a CONNECT-UDP flow. */
#ifndef HERMES_TUNNEL_UDP_LISTENER_H
#define HERMES_TUNNEL_UDP_LISTENER_H

#include "workers/tunnel/listener.h"

struct udp_listener;

/* Takes over fd (bound). listener outlives it and every origin that it makes (held(arg, +1 or -1) is called as flows
 * begin and end). */
struct udp_listener *udp_listener_new(struct tunnel *tunnel, struct listener *listener, int fd,
                                      void (*held)(void *arg, int change), void *arg);
/* Reads from now on, or no more for the time being. A new one does not while the worker awaits its predecessor's flows. */
void udp_listener_read(struct udp_listener *listener, bool read);
/* A flow of the predecessor: its in leg, joined; the caller makes the flow. NULL: the parcel does not fit, or there is one. */
struct parcel;
struct leg *udp_listener_restore(struct udp_listener *listener, const struct parcel *parcel);
/* One whose tunnel was not open yet begins here. False: the parcel does not fit. */
bool udp_listener_begin(struct udp_listener *listener, const struct parcel *parcel);
int udp_listener_fd(const struct udp_listener *listener);
/* Reads no more. What its flows have taken is still delivered and they end their side; answers leave until they have
 * ended. */
void udp_listener_close(struct udp_listener *listener);

#endif
