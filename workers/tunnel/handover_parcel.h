/* SPDX-License-Identifier: Apache-2.0 */
/* One flow on its way from a worker to its successor. The flow and its plain legs write it (leg_ops.hand_over), and read it. */
#ifndef HERMES_TUNNEL_HANDOVER_PARCEL_H
#define HERMES_TUNNEL_HANDOVER_PARCEL_H

#include "ipc/codec.h"
#include "workers/tunnel/datagram_queue.h"
#include "workers/tunnel/slab.h"

#define PARCEL_MAX (64u * 1024 * 1024)   /* bytes in pieces, of one flow */

struct parcel_bytes { uint8_t *data; size_t length, room; };

/* P(ID, kind): what goes as bytes of any length. */
#define PARCEL_PIECES(P)                                                                                              \
	P(KEPT, "kept") P(UP, "up") P(DOWN, "down") P(IN_QUEUE, "in-queue") P(OUT_QUEUE, "out-queue")                 \
	P(IN_WAITING, "in-waiting") P(OUT_WAITING, "out-waiting") P(IN_WRITTEN, "in-written") P(OUT_WRITTEN, "out-written")
enum parcel_piece {
#define P(ID, kind) PARCEL_##ID,
	PARCEL_PIECES(P)
#undef P
	PARCEL_PIECE_COUNT
};

struct parcel {
	struct ipc_handover_record record;    /* its texts are others', or the parcel's own (parcel_text()) */
	struct parcel_bytes pieces[PARCEL_PIECE_COUNT];
	int fd;                               /* the plain side's; -1: none. When sending: borrowed */
	bool overflow;                        /* more than PARCEL_MAX came */
	struct parcel_text *texts;
};

void parcel_init(struct parcel *parcel);
/* Frees everything; closes no descriptor. */
void parcel_clear(struct parcel *parcel);

void parcel_put(struct parcel *parcel, enum parcel_piece piece, const void *data, size_t length);
void parcel_put_chunks(struct parcel *parcel, enum parcel_piece piece, const struct chunks *chunks);
void parcel_get_chunks(const struct parcel *parcel, enum parcel_piece piece, struct chunks *chunks);
/* One packet in the form of a queue's entry: with what stands before it (prefix) and when it came. */
void parcel_put_entry(struct parcel *parcel, enum parcel_piece piece, uint64_t since, uint32_t segment, const void *prefix,
                      size_t prefix_length, const void *data, size_t length);
void parcel_put_queue(struct parcel *parcel, enum parcel_piece piece, const struct datagram_queue *queue);
/* Goes through the entries; each lives as long as the parcel. False: they do not fit their form (those before were told). */
bool parcel_each_entry(const struct parcel *parcel, enum parcel_piece piece,
                       void (*each)(void *arg, const struct datagram_entry *entry, const uint8_t *data), void *arg);
bool parcel_get_queue(const struct parcel *parcel, enum parcel_piece piece, struct datagram_queue *queue);
/* A copy that lives as long as the parcel. text NULL: NULL. */
const char *parcel_text(struct parcel *parcel, const char *text);
/* Memory that lives as long as the parcel. */
void *parcel_alloc(struct parcel *parcel, size_t size);

/* Sends all of it. 0, or what ipc_send() says: then some pieces may be under way, and mean nothing without the rest. */
struct ipc_channel;
int parcel_send(struct parcel *parcel, struct ipc_channel *channel, const char *kind);
/* A message came. True: the parcel is whole (its record decoded into arena) or bad (*why); else it was a piece of it. */
bool parcel_take(struct parcel *parcel, const struct ipc_handover_flow *message, struct ipc_arena *arena, const char **why);

#endif
