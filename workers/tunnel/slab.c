#include "workers/tunnel/slab.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define POOL_SLABS 48u        /* slabs kept beyond those in use: what tunnels keep to be sent again comes and goes by so many */
#define POOL_NODES 4096u      /* chunk nodes kept */
#define SHARE_MAX 1024u       /* of the free budget, one reader's part is at least so small */
#define ALIGN8(n) (((n) + 7u) & ~7u)

static struct {
	struct slab *free[POOL_SLABS];
	unsigned n_free;
	struct slab *current;         /* we hold one reference */
	struct chunk *nodes;
	unsigned n_nodes;
	uint64_t in_use, budget;
} pool = {.budget = 256u << 20};

void slab_budget(uint64_t bytes)
{
	pool.budget = bytes < 4 * SLAB_SIZE ? 4 * SLAB_SIZE : bytes;
}

bool slab_spent(void)
{
	return pool.in_use > pool.budget && !(pool.current && pool.current->refs == 1);
}

bool slab_tight(void)
{
	return pool.in_use > pool.budget / 8;
}

uint64_t slab_in_use(void)
{
	return pool.in_use;
}

/* Dynamic thresholds (Choudhury and Hahne, 1998): each of n stalled readers holds at most budget / (share + n). */
size_t slab_allowance(void)
{
	uint64_t share = pool.budget / SLAB_SIZE < SHARE_MAX ? pool.budget / SLAB_SIZE : SHARE_MAX;
	uint64_t left = pool.in_use < pool.budget ? (pool.budget - pool.in_use) / share : 0;
	return left < SLAB_SIZE ? (size_t)left : SLAB_SIZE;
}

static struct slab *slab_alloc(uint32_t size)
{
	struct slab *slab = malloc(sizeof(*slab) + size);
	if (!slab)
		abort();   /* bounded by the budget: the machine is out of memory */
	*slab = (struct slab){.refs = 1, .size = size};
	pool.in_use += size;
	return slab;
}

struct slab *slab_get(void)
{
	if (pool.n_free == 0)
		return slab_alloc(SLAB_SIZE);
	struct slab *slab = pool.free[--pool.n_free];
	pool.in_use += slab->size;
	slab->refs = 1;
	slab->used = 0;
	return slab;
}

void slab_unref(struct slab *slab)
{
	assert(slab->refs > 0);
	if (--slab->refs > 0)
		return;
	pool.in_use -= slab->size;
	if (slab->size == SLAB_SIZE && pool.n_free < POOL_SLABS)
		pool.free[pool.n_free++] = slab;
	else
		free(slab);
}

struct slab *slab_current(uint32_t want)
{
	assert(want <= SLAB_SIZE);
	struct slab *slab = pool.current;
	if (slab && slab->refs == 1)
		slab->used = 0;
	if (slab && slab->size - slab->used >= want)
		return slab;
	if (slab)
		slab_unref(slab);
	return pool.current = slab_get();
}

struct chunk *chunk_new(struct slab *slab, uint8_t *data, uint32_t length, uint32_t headroom)
{
	struct chunk *chunk = pool.nodes;
	if (chunk) {
		pool.nodes = chunk->next;
		pool.n_nodes--;
	} else if (!(chunk = malloc(sizeof(*chunk)))) {
		abort();
	}
	slab->refs++;
	*chunk = (struct chunk){.slab = slab, .data = data, .length = length, .headroom = headroom};
	return chunk;
}

void chunk_free(struct chunk *chunk)
{
	slab_unref(chunk->slab);
	if (pool.n_nodes >= POOL_NODES) {
		free(chunk);
		return;
	}
	chunk->next = pool.nodes;
	pool.nodes = chunk;
	pool.n_nodes++;
}

void chunks_copy(struct chunks *to, const void *data, size_t length)
{
	const uint8_t *from = data;
	while (length > 0) {
		uint32_t n = length < STRIPE_PAYLOAD ? (uint32_t)length : STRIPE_PAYLOAD;
		struct slab *slab = slab_current(STRIPE_HEADROOM + n);
		uint8_t *at = slab->data + slab->used + STRIPE_HEADROOM;
		memcpy(at, from, n);
		chunks_append(to, chunk_new(slab, at, n, STRIPE_HEADROOM));
		slab->used += ALIGN8(STRIPE_HEADROOM + n);
		if (slab->used > slab->size)
			slab->used = slab->size;
		from += n;
		length -= n;
	}
}

void chunks_append(struct chunks *queue, struct chunk *chunk)
{
	chunk->next = NULL;
	if (queue->tail)
		*queue->tail = chunk;
	else
		queue->head = chunk;
	queue->tail = &chunk->next;
	queue->bytes += chunk->length;
}

void chunks_prepend(struct chunks *queue, struct chunk *chunk)
{
	chunk->next = queue->head;
	if (!queue->head)
		queue->tail = &chunk->next;
	queue->head = chunk;
	queue->bytes += chunk->length;
}

struct chunk *chunks_pop(struct chunks *queue)
{
	struct chunk *chunk = queue->head;
	if (!chunk)
		return NULL;
	queue->head = chunk->next;
	if (!queue->head)
		queue->tail = NULL;
	queue->bytes -= chunk->length;
	chunk->next = NULL;
	return chunk;
}

void chunks_move(struct chunks *to, struct chunks *from)
{
	if (!from->head)
		return;
	if (to->tail)
		*to->tail = from->head;
	else
		to->head = from->head;
	to->tail = from->tail;
	to->bytes += from->bytes;
	*from = (struct chunks){0};
}

void chunks_split(struct chunks *to, struct chunks *from, size_t bytes)
{
	while (bytes > 0 && from->head) {
		struct chunk *head = from->head;
		if (head->length <= bytes) {
			bytes -= head->length;
			chunks_append(to, chunks_pop(from));
			continue;
		}
		chunks_append(to, chunk_new(head->slab, head->data, (uint32_t)bytes, head->headroom));
		head->data += bytes;
		head->length -= (uint32_t)bytes;
		head->headroom = 0;
		from->bytes -= bytes;
		return;
	}
}

void chunks_share(struct chunks *to, struct chunks *from)
{
	for (struct chunk *c = from->head; c; c = c->next) {
		c->headroom = 0;
		chunks_append(to, chunk_new(c->slab, c->data, c->length, 0));
	}
}

void chunks_drop(struct chunks *queue, size_t bytes)
{
	while (bytes > 0 && queue->head) {
		struct chunk *head = queue->head;
		if (head->length > bytes) {
			head->data += bytes;
			head->length -= (uint32_t)bytes;
			head->headroom = 0;
			queue->bytes -= bytes;
			return;
		}
		bytes -= head->length;
		chunk_free(chunks_pop(queue));
	}
}

void chunks_clear(struct chunks *queue)
{
	while (queue->head)
		chunk_free(chunks_pop(queue));
}

void chunks_settle(struct chunks *queue)
{
	size_t pinned = 0;
	for (struct chunk *c = queue->head; c; c = c->next)
		pinned += c->slab->size / (c->slab->refs ? c->slab->refs : 1);
	if (queue->bytes == 0 || queue->bytes > 64 * 1024 || queue->bytes * 4 > pinned)
		return;
	struct slab *slab = slab_alloc((uint32_t)queue->bytes + STRIPE_HEADROOM);
	uint8_t *at = slab->data + STRIPE_HEADROOM;
	uint32_t total = (uint32_t)queue->bytes;
	for (struct chunk *c; (c = chunks_pop(queue)); chunk_free(c)) {
		memcpy(at, c->data, c->length);
		at += c->length;
	}
	chunks_append(queue, chunk_new(slab, slab->data + STRIPE_HEADROOM, total, STRIPE_HEADROOM));
	slab_unref(slab);
}
