/* The endpoint table: router writes it, tunnel workers map it read-only and pick endpoints from it. */
#ifndef HERMES_IPC_ENDPOINTS_H
#define HERMES_IPC_ENDPOINTS_H

#include <stdbool.h>
#include <stdint.h>

struct config;

/* One endpoint of one cluster. Both sides derive the index from the same configuration generation. */
struct endpoint_slot {
	uint32_t weight;       /* 0: none goes there; configured weight x 1, later by measured quality */
	uint32_t down;         /* bit set of tunnel workers (index & 31) that reported it down; 0: healthy */
	uint32_t drained;      /* 1: the operator drains it */
	uint32_t reserved;
};

/* Writer: memfd for all endpoints of `config`, filled with its weights; sealed against growing and shrinking and against
 * new writable mappings (F_SEAL_FUTURE_WRITE), so that whoever receives it can only read. */
struct endpoint_table;
struct endpoint_table *endpoint_table_new(const struct config *config);
int endpoint_table_fd(const struct endpoint_table *table);
/* Reader: maps the received table after checking that its size fits `config`. Does not close fd. NULL: does not fit. */
struct endpoint_table *endpoint_table_map(int fd, const struct config *config);
void endpoint_table_free(struct endpoint_table *table);
/* The slot of endpoint number `endpoint` of cluster number `cluster` (positions in the configuration). */
struct endpoint_slot *endpoint_table_slot(struct endpoint_table *table, unsigned cluster, unsigned endpoint);

#endif
