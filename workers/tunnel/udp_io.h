/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of datagrams in and out of UDP sockets: recvmmsg with UDP_GRO, sendmmsg with UDP_SEGMENT (GSO), both probed. */
#ifndef HERMES_TUNNEL_UDP_IO_H
#define HERMES_TUNNEL_UDP_IO_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "workers/tunnel/resolve_address.h"

#define UDP_BATCH 32u                 /* messages per system call */
#define UDP_PAYLOAD_MAX 65527u        /* RFC 9298 5 */
#define UDP_SEGMENTS_MAX 64u          /* per message (the kernel's UDP_MAX_SEGMENTS) */
#define UDP_RUN_MAX 128u              /* datagrams in one run: the most that any kernel gives or takes at once */

/* Don't-fragment, ECN not-ECT, GRO on, buffers of 1 MiB, IP_PKTINFO where asked (wildcard listeners answer from the address
 * that they were asked at), IP_RECVORIGDSTADDR where asked (transparent), IP_RECVERR for connected ones. With
 * UDP_FRAGMENTS what is longer than the path takes leaves in fragments (towards programs, as if their target had sent it). 0 or
 * -errno. */
enum { UDP_PKTINFO = 1, UDP_ORIGINAL = 2, UDP_CONNECTED = 4, UDP_FRAGMENTS = 8 };
int udp_setup(int fd, int family, unsigned flags);

/* Datagrams from one peer in one piece of memory: length bytes, each `segment` long, the last may be shorter. segment 0 with
 * length 0: one empty datagram. data lives until the next call of udp_receive(). */
struct udp_received {
	const uint8_t *data;
	uint32_t length, segment;
	const struct sockaddr_storage *from;  /* NULL: connected */
	const struct sockaddr_storage *to;    /* local address by UDP_PKTINFO or UDP_ORIGINAL (with port); NULL: not known */
	uint32_t lost;                        /* what the socket had no room for until this came, ever; wraps */
};
/* Returns how many were received (at most max, itself at most UDP_BATCH; fewer does not mean that no more wait), 0 when
 * none waits, or -errno (a pending ICMP error of a connected socket: -ECONNREFUSED etc.). */
int udp_receive(int fd, struct udp_received *out, unsigned max);

/* How many datagrams the socket had no room for since it was last asked; counted from the first that this process read. Zero
 * is a new one. */
struct udp_losses { bool known; uint32_t seen; };
uint32_t udp_losses(struct udp_losses *losses, const struct udp_received *in, int n);

/* Outgoing. A queue of this turn's datagrams as pieces of memory that others own; equal-sized neighbours to the same peer
 * leave as one GSO message. */
struct udp_sender;
struct udp_sender *udp_sender_new(void);    /* one per worker */
void udp_sender_free(struct udp_sender *sender);
/* Adds one datagram (segment 0; n may be 0: an empty one) or a run of them, at most UDP_RUN_MAX. to NULL: connected; from NULL:
 * the socket's own. Pieces must live until udp_flush(). False: the batch is full, flush first. */
bool udp_add(struct udp_sender *sender, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
             const struct iovec *pieces, unsigned n, uint32_t segment);
/* The next udp_add() (of at most CAPSULE_PIECES pieces) might be refused: who flushes now is never refused. */
bool udp_full(const struct udp_sender *sender);
/* Sends. *sent: datagrams (runs count each) that the kernel took; *too_long: those dropped because they exceed the path's
 * MTU (EMSGSIZE). Returns 0, -EAGAIN (the socket's buffer is full: udp_keep() what is left, wait until it is writable), or
 * -errno of a connected peer's ICMP error. Empties the queue; *taken: how many udp_add() calls were sent whole. */
int udp_flush(struct udp_sender *sender, int fd, unsigned *taken, unsigned *sent, unsigned *too_long);

/* After -EAGAIN, before anything else is added: a copy of what was not sent; NULL: nothing. free() is enough. */
struct udp_kept;
struct udp_kept *udp_keep(struct udp_sender *sender);
/* Tries again, the sender being empty: *kept becomes what is left after that, NULL: nothing. Returns as udp_flush(). */
int udp_flush_kept(struct udp_sender *sender, struct udp_kept **kept, int fd, unsigned *sent, unsigned *too_long);

/* After a call on a connected socket failed with `error` (positive errno): empties its error queue; returns the ICMP error
 * found there, else `error`, or 0 where it says no more than that a datagram was too long. */
int udp_error(int fd, int error);

#endif
