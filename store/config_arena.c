/* SPDX-License-Identifier: Apache-2.0 */
#include "store/config_arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)64 * 1024)
#define ALIGN sizeof(max_align_t)

struct chunk {
	struct chunk *next;
	size_t used, size;
	max_align_t memory[];
};

struct config_arena {
	struct chunk *chunks;
	size_t given, limit;
	int failed;
	void *slot;
};

struct config_arena *config_arena_new(size_t limit)
{
	struct config_arena *arena = calloc(1, sizeof(*arena));

	if (arena)
		arena->limit = limit ? limit : SIZE_MAX / 4;
	return arena;
}

void config_arena_free(struct config_arena *arena)
{
	if (!arena)
		return;
	for (struct chunk *c = arena->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(arena);
}

static struct chunk *chunk_for(struct config_arena *arena, size_t need)
{
	struct chunk *c = arena->chunks;

	if (c && c->size - c->used >= need)
		return c;
	size_t size = need > CHUNK ? need : CHUNK;
	c = calloc(1, sizeof(*c) + size);
	if (!c)
		return NULL;
	c->size = size;
	c->next = arena->chunks;
	arena->chunks = c;
	return c;
}

void *config_arena_alloc(struct config_arena *arena, size_t count, size_t size)
{
	size_t need, room = arena->limit - arena->given;
	struct chunk *c = NULL;

	if (!__builtin_mul_overflow(count, size, &need) && need <= room && need < SIZE_MAX / 4) {
		need = (need + ALIGN - 1) / ALIGN * ALIGN;
		c = chunk_for(arena, need ? need : ALIGN);
	}
	if (!c) {
		arena->failed = 1;
		return NULL;
	}
	void *p = (char *)c->memory + c->used;
	c->used += need;
	arena->given += need < room ? need : room;
	return p;
}

char *config_arena_text(struct config_arena *arena, const char *text, size_t length)
{
	char *copy = config_arena_alloc(arena, length + 1, 1);

	if (copy && length)
		memcpy(copy, text, length);
	return copy;
}

char *config_arena_format(struct config_arena *arena, const char *format, ...)
{
	char *text = NULL, *copy;
	va_list ap;

	va_start(ap, format);
	int n = vasprintf(&text, format, ap);
	va_end(ap);
	if (n < 0) {
		arena->failed = 1;
		return NULL;
	}
	copy = config_arena_text(arena, text, (size_t)n);
	free(text);
	return copy;
}

int config_arena_failed(const struct config_arena *arena)
{
	return arena->failed;
}

void **config_arena_slot(struct config_arena *arena)
{
	return &arena->slot;
}
