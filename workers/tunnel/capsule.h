/* SPDX-License-Identifier: Apache-2.0 */
/* The Capsule Protocol (RFC 9297 3) over chunks: reading byte by byte, writing into slabs, and where one capsule ends.
 *
 * Between the legs of a datagram flow (CONNECT-UDP, CONNECT-IP) passes its capsule stream, as bytes. What ends it (a UDP
 * socket, a TUN device) reads and writes capsules with this; what carries it (HTTP) and the flow never look inside, but
 * for capsule_cursor. Varints may be longer than needed (RFC 9000 16). */
#ifndef HERMES_TUNNEL_CAPSULE_H
#define HERMES_TUNNEL_CAPSULE_H

#include "workers/tunnel/slab.h"

enum {
	CAPSULE_DATAGRAM = 0x00,              /* RFC 9297 3.5 */
	CAPSULE_ADDRESS_ASSIGN = 0x01,        /* RFC 9484 4.7 */
	CAPSULE_ADDRESS_REQUEST = 0x02,
	CAPSULE_ROUTE_ADVERTISEMENT = 0x03,
	/* Hermes' own, between its ends (workers/tunnel/tunnel_header.h); others skip them. */
	CAPSULE_HERMES_ACK = 0x28484d01,      /* value: varint, bytes of whole capsules received since the tunnel began */
	CAPSULE_HERMES_MOVE = 0x28484d02,     /* empty: the sender's configuration leads elsewhere now; open anew */
	CAPSULE_HERMES_STREAM = 0x28484d03,   /* capsule_stream.h: bytes of a TCP connection, and */
	CAPSULE_HERMES_END = 0x28484d04,      /* the end of a direction */
};

/* Context ids of datagrams (RFC 9298 4, RFC 9484 6). SEGMENTS only where tunnel_header.h negotiated it:
 *   UDP: segment size (uint16_t, big endian, > 0), then at most 128 datagrams of that size one after
 *        another, the last may be shorter;
 *   IP:  a virtio_net_hdr of 10 bytes (little endian), then one packet of at most 65,535 bytes that it describes. */
enum { CONTEXT_PAYLOAD = 0, CONTEXT_SEGMENTS = 2 };

#define VARINT_MAX 8u                     /* bytes */
#define CAPSULE_HEADER_MAX (2 * VARINT_MAX)
#define CAPSULE_DATAGRAM_MAX 65545u       /* bytes after the context id that we take: 65,535 and a virtio header */

/* Bytes used (1, 2, 4, 8), or 0: more are needed. */
unsigned varint_get(const uint8_t *data, size_t length, uint64_t *value);
/* Shortest form; returns bytes written (at most VARINT_MAX). value < 2^62. */
unsigned varint_put(uint8_t *out, uint64_t value);

/* --- reading -------------------------------------------------------------------------------------------------------- */

/* A piece of memory that belongs to a received chunk. */
struct capsule_piece { const uint8_t *data; uint32_t length; };
#define CAPSULE_PIECES 16u

/* Called for what the stream holds; pointers live for the call. Return false: the stream is malformed for the callee, and
 * capsule_read() stops with CAPSULE_ABORT. */
struct capsule_callbacks {
	/* A DATAGRAM, whole: context id, and its payload after the id in n pieces (n may be 0: empty payload). */
	bool (*datagram)(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length);
	/* Another capsule of a type that wants() names, whole and contiguous. */
	bool (*capsule)(void *arg, uint64_t type, const uint8_t *value, size_t length);
};
enum capsule_result { CAPSULE_OK, CAPSULE_ABORT, CAPSULE_TOO_LONG };

/* Keeps a half capsule between calls (references to its chunks, no copy; header bytes aside). Zero is a new stream. */
struct capsule_reader {
	const struct capsule_callbacks *callbacks;
	void *arg;
	uint64_t control_max;                 /* longest capsule() value that is kept; longer ones: CAPSULE_TOO_LONG */
	uint64_t type, left;                  /* of the capsule under way, and bytes still to come */
	uint8_t header[CAPSULE_HEADER_MAX];
	uint8_t header_length;
	enum { CAPSULE_IN_HEADER, CAPSULE_IN_DATAGRAM, CAPSULE_IN_CONTROL, CAPSULE_IN_SKIPPED } state;
	bool paused;                          /* see capsule_read() */
	struct chunks held;                   /* of the capsule under way */
	struct chunks *consumed;              /* NULL, or: gets the chunks that pieces point into, for the caller to clear */
};
/* Takes all of chunks (empty after), but where a callback sets `paused`: then it stops behind that capsule and leaves the
 * rest. Callbacks must not free the reader. A DATAGRAM longer than CAPSULE_DATAGRAM_MAX is CAPSULE_TOO_LONG (RFC 9298 5).
 * Types other than DATAGRAM and 1 to 3 are skipped, however long, without being kept (RFC 9297 3.2); so are 1 to 3 where
 * there is no callback for them. */
enum capsule_result capsule_read(struct capsule_reader *reader, struct chunks *chunks);
/* The stream may end here; false: inside a capsule (malformed, RFC 9297 3.3). */
bool capsule_read_end(const struct capsule_reader *reader);
/* Drops a half capsule: what comes next begins one. */
void capsule_reader_reset(struct capsule_reader *reader);

/* --- writing -------------------------------------------------------------------------------------------------------- */

/* Appends a DATAGRAM capsule, copied into the worker's current slab in stripes with headroom for frame headers (as all
 * readers do). prefix: bytes between context id and payload (segment size, virtio header), may be NULL. Capsules that follow
 * one another share chunks: a batch costs as few chunks, and so DATA frames, as fit. */
void capsule_put_datagram(struct chunks *to, uint64_t context, const void *prefix, size_t prefix_length,
                          const void *payload, size_t length);
void capsule_put(struct chunks *to, uint64_t type, const void *value, size_t length);

/* --- following ------------------------------------------------------------------------------------------------------- */

/* Where a passing stream stands, without keeping anything of it. Zero is a new stream. */
struct capsule_cursor {
	uint64_t offset;                      /* bytes seen */
	uint64_t boundary;                    /* offset of the last capsule's end (0: none yet) */
	uint64_t type, left;
	uint64_t own;                         /* bytes up to boundary that were capsules of Hermes' own: not counted between its ends */
	uint64_t ack;                         /* the last CAPSULE_HERMES_ACK's value */
	bool move;                            /* a CAPSULE_HERMES_MOVE came */
	uint8_t header[CAPSULE_HEADER_MAX];
	uint8_t header_length, value_length;
	bool in_value;
	uint8_t value[VARINT_MAX];
};
void capsule_follow(struct capsule_cursor *cursor, const struct chunks *chunks);
static inline bool capsule_at_boundary(const struct capsule_cursor *cursor) { return cursor->offset == cursor->boundary; }

#endif
