/* SPDX-License-Identifier: Apache-2.0 */
/* An orderly replacement costs no flow: the worker that stops hands its successor the record of every flow that can live on, with
 * the plain side's socket; the streams between nodes are opened anew by the client ends and join by their ids.
 *
 * Order: the supervisor starts the successor (PREPARE says `predecessor`), which serves new connections but reads neither devices nor
 * UDP listeners' sockets yet; when it serves, both get a channel to each other (PEER, role tunnel, their own index), and the old one
 * STOP. The old one then stops reading devices, UDP listeners and plain sides, sends a HANDOVER_FLOW per flow, HANDOVER_END, asks
 * the client ends of what it handed over to move (CAPSULE_HERMES_MOVE, GOAWAY), and drains the rest. The successor holds far ends as
 * PARKED (plain side read and queued), client ends as RESUMING (they join the far end by its id at once).
 *
 * Kinds: "udp-listener" (client address, listener, head, tunnel id and counts, what is kept), "udp" (far end: connected socket),
 * "ip" (far end: addresses; client end: device and network), "tcp" (a resumable byte stream: accepted or dialled socket, offsets, what
 * is kept). A record is msgpack, read as strictly as a message; one that the successor cannot use ends that flow only. */
#ifndef HERMES_TUNNEL_HANDOVER_H
#define HERMES_TUNNEL_HANDOVER_H

#include "workers/tunnel/tunnel.h"

struct handover;
/* The successor's side is expected (PREPARE said so): devices and UDP listeners wait until handover_done(). */
void handover_expect(struct tunnel *tunnel);
bool handover_awaited(const struct tunnel *tunnel);
/* A channel to the other worker of the own index. Takes over fd. */
void handover_peer(struct tunnel *tunnel, int fd);
/* STOP came: hands over what can be. True: it was begun (else there is no successor). */
bool handover_begin(struct tunnel *tunnel);

#endif
