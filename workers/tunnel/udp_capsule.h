/* SPDX-License-Identifier: Apache-2.0 */
/* A CONNECT-UDP tunnel's datagrams to capsules and back (RFC 9298 5, and CONTEXT_SEGMENTS of capsule.h): for every leg that ends
 * such a stream. */
#ifndef HERMES_TUNNEL_UDP_CAPSULE_H
#define HERMES_TUNNEL_UDP_CAPSULE_H

#include "workers/tunnel/capsule.h"
#include "workers/tunnel/udp_io.h"

/* Appends a run of datagrams (udp_received's data, length and segment). segments: the far end takes CONTEXT_SEGMENTS. */
void udp_capsule_put(struct chunks *to, bool segments, const uint8_t *data, uint32_t length, uint32_t segment);
/* What a DATAGRAM capsule holds goes to sender, which must not be full (udp_full()); unknown contexts are left out (RFC 9298
 * 4). segments: this end takes CONTEXT_SEGMENTS. Returns NULL, or why the stream is malformed (RFC 9298 5). */
const char *udp_capsule_add(struct udp_sender *sender, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
                            bool segments, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length);

#endif
