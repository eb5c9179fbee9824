/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections between nodes whose path is down for seconds at a time. The kernel doubles its waits between retransmissions, so
 * that after an outage as long a time again is lost, in which nothing moves; between nodes data goes on within a tenth of a second.
 *
 * While retransmissions go unanswered, TCP_USER_TIMEOUT is held a little ahead of the time that they have taken: the kernel then
 * sends again by that time at the latest (it clamps its timer to what is left), and is told to wait on before it gives up.
 * A connection on which nothing is acknowledged for too long is given up: its tunnels go on by another one. */
#ifndef HERMES_TUNNEL_HOP_WATCH_H
#define HERMES_TUNNEL_HOP_WATCH_H

#define HOP_LOST_MS 15000u
#define HOP_LOST_DATAGRAMS_MS 10000u  /* they have a queue to wait in, not a program that waits */

struct event_base;
struct hop_watch;

/* fd stays the caller's and lives as long. lost(arg), once, nothing was acknowledged for so long; never inside a call. NULL: the
 * socket is none of TCP. */
struct hop_watch *hop_watch_new(struct event_base *base, int fd, unsigned lost_ms, void (*lost)(void *arg), void *arg);
/* Bytes were written, or it is being connected: from now on it is looked at, until all are acknowledged. */
void hop_watch_wrote(struct hop_watch *watch);
void hop_watch_free(struct hop_watch *watch);

#endif
