/* Payload lies in counted slabs; what moves between legs are chunks that point into them.
 *
 * A slab is 256 KiB. A reader fills the worker's current slab; each chunk holds a reference. A slab whose chunks are all
 * gone is refilled while it is still warm in the cache, so that a flow that keeps up uses one slab over and over. Slabs
 * and chunk nodes are pooled: no malloc on the path of a known flow. One pool per process (a worker is one thread). */
#ifndef HERMES_TUNNEL_SLAB_H
#define HERMES_TUNNEL_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLAB_SIZE (256u * 1024)
/* A full TLS record less an HTTP/2 frame header: DATA frames of this size fill records exactly. */
#define STRIPE_HEADROOM 9u
#define STRIPE_PAYLOAD 16375u
#define STRIPE (STRIPE_HEADROOM + STRIPE_PAYLOAD)
/* More headroom before the first stripe that is read from a socket: for the header of a capsule around all of them. */
#define STRIPE_CAPSULE 8u

struct slab {
	uint32_t refs, used, size;
	uint32_t reserved;
	uint8_t data[];
};

/* `headroom` bytes before data belong to the chunk and may be overwritten by its holder (frame header, chunk size). */
struct chunk {
	struct chunk *next;
	struct slab *slab;
	uint8_t *data;
	uint32_t length, headroom;
};

/* A queue of chunks. Zero is empty. */
struct chunks {
	struct chunk *head, **tail;   /* tail NULL when empty */
	size_t bytes;
};

/* Takes a reference of slab for the chunk. */
struct chunk *chunk_new(struct slab *slab, uint8_t *data, uint32_t length, uint32_t headroom);
void chunk_free(struct chunk *chunk);
/* A chunk with a copy of data (any length; several chunks of at most STRIPE_PAYLOAD are appended), with headroom. */
void chunks_copy(struct chunks *to, const void *data, size_t length);
void chunks_append(struct chunks *queue, struct chunk *chunk);
void chunks_prepend(struct chunks *queue, struct chunk *chunk);
struct chunk *chunks_pop(struct chunks *queue);
/* Moves all of `from` behind what is in `to`. */
void chunks_move(struct chunks *to, struct chunks *from);
/* Moves the first `bytes` bytes (at most all), splitting a chunk where needed (the rest has no headroom). */
void chunks_split(struct chunks *to, struct chunks *from, size_t bytes);
/* Appends to `to` further references to the same bytes; neither may use its headroom after. */
void chunks_share(struct chunks *to, struct chunks *from);
void chunks_drop(struct chunks *queue, size_t bytes);
void chunks_clear(struct chunks *queue);
/* For a queue that has to wait: few bytes that pin large slabs are copied into memory of their own size. */
void chunks_settle(struct chunks *queue);

/* The reader's slab: room of at least `want` (<= SLAB_SIZE) bytes at slab->data + slab->used; the reader advances used by
 * what it wrote. The slab stays the pool's: chunks take their own references. Never NULL. */
struct slab *slab_current(uint32_t want);
/* For output buffers: a slab of one's own (refs 1). */
struct slab *slab_get(void);
void slab_unref(struct slab *slab);

/* Budget of all slabs in bytes: while it is spent, readers wait. */
void slab_budget(uint64_t bytes);
bool slab_spent(void);
/* More than an eighth is in use: nobody should ask for more than it has. */
bool slab_tight(void);
uint64_t slab_in_use(void);
/* How many bytes a reader may have given away and not seen taken before it pauses: 256 KiB while memory is free, less the
 * more is in use, so that any number of peers that take nothing share the budget and never spend it. */
size_t slab_allowance(void);

#endif
