/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of a TCP connection as a capsule stream between two Hermes ends (tunnel_header.h says when):
 *
 *   CAPSULE_HERMES_STREAM  value: the next bytes of the sender's direction, any number
 *   CAPSULE_HERMES_END     value: varint, the number of bytes before it: the direction ends here (FIN). Counts as one byte more.
 *   CAPSULE_HERMES_ACK     value: varint, how many bytes of the other direction were received since the tunnel began, its end too
 *   CAPSULE_HERMES_MOVE    empty, to the client end: open anew
 *
 * Bytes are numbered from 0 on without capsule headers. All of it is made and opened in place: a header lies in the headroom of
 * what it heads, and goes again without a copy.
 *
 * The request direction may begin before the two ends have agreed: these bytes are plain. The client end puts the tunnel's id
 * (16 bytes, random, made by the far end and told to no program) behind them once it has the answer; capsules follow. */
#ifndef HERMES_TUNNEL_CAPSULE_STREAM_H
#define HERMES_TUNNEL_CAPSULE_STREAM_H

#include "workers/tunnel/capsule.h"

#define STREAM_MARK 16u               /* bytes */

/* Reads one direction. Zero, with received as far as the direction was read before, begins with a capsule. */
struct stream_reader {
	uint64_t received;            /* bytes passed on since the tunnel began */
	uint64_t skip;                /* of what comes first: bytes that came before already, by another way */
	uint64_t ack;                 /* the last CAPSULE_HERMES_ACK's value */
	bool acked, move;             /* an ACK, a MOVE came: whoever looked resets it */
	bool ended;                   /* the direction's end came */
	bool early;                   /* what comes is plain, to the mark */
	uint8_t mark[STREAM_MARK], marked;
	uint64_t type, left;          /* of the capsule under way */
	uint8_t header[CAPSULE_HEADER_MAX], header_length;
	bool in_value;
	uint8_t value[VARINT_MAX], value_length;
};
/* Leaves in chunks the bytes of the stream. false: malformed (what was read up to there stays in chunks). */
bool stream_read(struct stream_reader *reader, struct chunks *chunks);
/* It goes on by another way, which begins with a capsule whose first byte has the number `from` (at most received). */
void stream_reader_restart(struct stream_reader *reader, uint64_t from);
/* As acknowledged: bytes and end. */
static inline uint64_t stream_received(const struct stream_reader *r) { return r->received + r->ended; }

/* Makes one capsule of all of chunks (fewer than 2^30 bytes), in the headroom of the first where it has STRIPE_CAPSULE. */
void stream_frame(struct chunks *chunks);
void stream_put_end(struct chunks *to, uint64_t bytes);

#endif
