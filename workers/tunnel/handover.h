/* SPDX-License-Identifier: Apache-2.0 */
/* An orderly replacement costs no flow: the worker that stops hands its successor the record of every flow that can live on, with
 * the plain side's socket; the streams between nodes are opened anew by the client ends and join by their ids.
 *
 * Order: the supervisor starts the successor (PREPARE says `predecessor`), which serves new connections but reads neither devices nor
 * UDP listeners' sockets yet; when it serves, both get a channel to each other (PEER, role tunnel, their own index), and the old one
 * STOP. The old one then accepts and reads devices and UDP listeners no more, tells its connections (GOAWAY), and takes one flow
 * after the other: it reads neither its plain side nor its stream from that moment on, sends its record, and resets the stream.
 * What it had not counted then the other end sends again (flow_resume.h), so nothing is lost, and nothing comes twice. Then
 * HANDOVER_END, and the rest drains. The successor holds far ends as PARKED (plain side read and queued) and client ends as
 * RESUMING (they open a stream at once). A stream that names a tunnel which has not come yet waits in the successor until
 * HANDOVER_END; the old one refuses those that still come to it, so that they are tried again by a new connection.
 *
 * On the wire (HANDOVER_FLOW): what a flow still holds comes before it, in pieces of kinds "kept" (sent and not acknowledged), "up",
 * "down" (capsules that the far leg has not taken), "in-queue", "out-queue" (datagrams that are no capsules yet; datagram_queue.h),
 * "in-waiting", "out-waiting" (packets from a device whose inner flow is being asked about), "in-written", "out-written" (the same
 * towards it); then "flow" with the record (HANDOVER_RECORD) and the socket. "begin": a UDP listener's flow whose tunnel was not
 * open yet; it begins anew. A flow whose record or pieces do not fit ends, and no other.
 *
 * What goes over: UDP listeners' flows (also captured ones), networks of devices, far ends of UDP and IP tunnels, and those of
 * which both ends are here; TCP tunnels between Hermes ends, with the accepted (accept tcp, socks5, transparent, CONNECT by
 * HTTP/1.1) or dialled connection. TCP tunnels that are being opened at that moment follow within the drain, as soon as they are.
 * Not: SOCKS5 UDP (it ends with its TCP connection), connections under TLS and streams of programs' HTTP/2 connections, plain TCP
 * without a Hermes far end, HTTP requests, tunnels whose other end cannot go on: they drain. Far ends of IP tunnels that cannot go
 * over end at once, since the successor has the device. */
#ifndef HERMES_TUNNEL_HANDOVER_H
#define HERMES_TUNNEL_HANDOVER_H

#include "workers/tunnel/tunnel.h"

struct flow;
struct handover;

/* PREPARE said that there is a predecessor: devices and UDP listeners wait until it has handed over, or does not (2 s without a
 * word once its channel is there, 20 s until that comes). done(arg): they are to be read from now on. */
void handover_expect(struct tunnel *tunnel, void (*done)(void *arg), void *arg);
/* handover_hold.c. Devices and UDP listeners are not to be read yet. */
bool handover_awaited(const struct tunnel *tunnel);
/* A channel to the other worker of the own index. Takes over fd. */
void handover_peer(struct tunnel *tunnel, int fd);
/* STOP came: hands over what can be, once its own predecessor has handed over to it; then calls done(arg), in a later turn. False:
 * there is no successor. */
bool handover_begin(struct tunnel *tunnel, void (*done)(void *arg), void *arg);
/* Something is still to be sent: the process must not end. */
bool handover_running(const struct tunnel *tunnel);
/* Forgets the channels. Workers end without; NULL is fine. */
void handover_free(struct tunnel *tunnel);

/* handover_hold.c, for flows that begin. A stream that names a tunnel of this worker which is not here, or leads to a device: true,
 * it waits for the predecessor (flow_released() follows), or was refused since a successor has it. */
bool handover_hold(struct flow *flow);
/* all: also those whose tunnel has not come. */
void handover_release(struct tunnel *tunnel, bool all);

#endif
