/* Where a configuration lives: memory that is only given back as a whole. Internal to store/. */
#ifndef HERMES_STORE_CONFIG_ARENA_H
#define HERMES_STORE_CONFIG_ARENA_H

#include <stddef.h>

struct config_arena;

/* limit: bytes that it gives out at most (0: no limit). NULL: out of memory. */
struct config_arena *config_arena_new(size_t limit);
void config_arena_free(struct config_arena *arena);
/* Zeroed; NULL when out of memory or over the limit. count * size is checked. */
void *config_arena_alloc(struct config_arena *arena, size_t count, size_t size);
/* A copy with a NUL added. */
char *config_arena_text(struct config_arena *arena, const char *text, size_t length);
char *config_arena_format(struct config_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Whether any allocation ever failed: checked once, at the end. */
int config_arena_failed(const struct config_arena *arena);

/* One pointer that rides along (the look-up index of config_index.c). */
void **config_arena_slot(struct config_arena *arena);

#endif
