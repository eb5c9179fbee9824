/* SPDX-License-Identifier: Apache-2.0 */
/* Captured traffic (accept: transparent): what was sent to others comes here by nftables rules that tun-bridge made,
 * and answers have to come from those others' addresses. */
#ifndef HERMES_TUNNEL_TRANSPARENT_H
#define HERMES_TUNNEL_TRANSPARENT_H

#include "workers/tunnel/source_text.h"
#include "workers/tunnel/udp_flows.h"

/* An IPv4-mapped address becomes the IPv4 one. */
void transparent_unmap(struct sockaddr_storage *address);

/* Where a captured connection was going: the accepted socket's own address. False: it was not captured, but made to the
 * listener itself (port: of the listener), which would lead in circles. */
bool transparent_target(int fd, uint16_t port, char target[ADDRESS_PORT_TEXT]);

/* The flow's answers leave from address: a socket that tun-bridge binds to it. Sets it now, or later. */
void transparent_answer_by(struct tunnel *tunnel, struct udp_flow *flow, const struct sockaddr_storage *address);
/* From the supervisor; takes over fd. */
void transparent_socket_made(struct tunnel *tunnel, const struct ipc_socket_made *made, int fd);
/* No listener captures any more: the sockets go as soon as no flow uses them. */
void transparent_forget(void);

#endif
