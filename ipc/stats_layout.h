/* How a region of counters lies in memory. Read by telemetry from workers that may be a release older or newer: fields
 * and metrics are only appended (a metric after its scope's last), and what a region says of itself is checked. */
#ifndef HERMES_IPC_STATS_LAYOUT_H
#define HERMES_IPC_STATS_LAYOUT_H

#include "ipc/stats.h"

#define STATS_MAGIC 0x5453524du           /* "MRST" */
#define STATS_VERSION 1u
#define STATS_NAME 64                     /* with its NUL */
#define STATS_SLOTS 128                   /* of a set; each scope uses the first so many */
#define STATS_SETS_MAX 65536u
#define STATS_SCOPES_MAX 8
#define STATS_HISTOGRAM_SLOTS (STATS_BUCKETS + 1)   /* buckets, then the sum */

struct stats_header {
	uint32_t magic, version;
	uint32_t set_size;                /* bytes from one set to the next */
	uint32_t room;                    /* sets that fit */
	uint32_t used;                    /* sets that are there; only grows */
	uint32_t slots[STATS_SCOPES_MAX]; /* that the writer knows, by scope */
	uint32_t reserved[3];
};

struct stats_set {
	uint32_t scope, reserved;
	char name[STATS_NAME];
	uint64_t slots[STATS_SLOTS];
};

_Static_assert(sizeof(struct stats_header) % sizeof(uint64_t) == 0, "sets follow the header, aligned");
_Static_assert(STATS_SCOPE_COUNT <= STATS_SCOPES_MAX, "room in the header");

/* A metric's first slot in its set, and how many slots a scope has. */
unsigned stats_slot(enum stats_metric metric);
unsigned stats_scope_slots(enum stats_scope scope);

#endif
