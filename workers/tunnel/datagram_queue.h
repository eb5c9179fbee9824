/* SPDX-License-Identifier: Apache-2.0 */
/* Where datagrams are dropped, and nowhere else (DESIGN.md section 3): what came from a socket or a device and has not become
 * capsules yet. At most `bytes` (1 MiB), at most `age` old (2 s); the oldest goes first, counted by reason. */
#ifndef HERMES_TUNNEL_DATAGRAM_QUEUE_H
#define HERMES_TUNNEL_DATAGRAM_QUEUE_H

#include <sys/queue.h>

#include "ipc/stats.h"
#include "workers/tunnel/slab.h"

struct datagram_entry;
struct datagram_queue {
	STAILQ_HEAD(, datagram_entry) entries;
	size_t bytes, limit;
	uint64_t age;                 /* µs */
	struct stats_set *stats;      /* where drops are counted; NULL: nowhere */
	enum stats_metric full, old;  /* as what: STATS_LISTENER_DROP_... unless the owner sets others after init */
};
void datagram_queue_init(struct datagram_queue *queue, size_t limit, uint64_t age, struct stats_set *stats);
void datagram_queue_clear(struct datagram_queue *queue);
/* A run that its owner drops (segment 0: one datagram), for reasons of its own: counted in datagrams. stats may be NULL. */
void datagram_count_drop(struct stats_set *stats, enum stats_metric reason, uint32_t segment, size_t length);
/* Copies: a run of datagrams (udp: segment size; ip: the virtio header in prefix). */
void datagram_queue_add(struct datagram_queue *queue, uint32_t segment, const void *prefix, size_t prefix_length,
                        const void *data, size_t length);
/* The same of what came at `since` (µs) already; behind what is there. */
void datagram_queue_add_since(struct datagram_queue *queue, uint64_t since, uint32_t segment, const void *prefix,
                              size_t prefix_length, const void *data, size_t length);
/* The oldest that is not too old; NULL: empty. data lives until datagram_queue_pop(). */
struct datagram_entry { STAILQ_ENTRY(datagram_entry) link; uint64_t since; uint32_t segment, prefix_length, length; uint8_t data[]; };
const struct datagram_entry *datagram_queue_first(struct datagram_queue *queue);   /* data: prefix, then payload */
void datagram_queue_pop(struct datagram_queue *queue);

#endif
