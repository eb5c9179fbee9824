/* SPDX-License-Identifier: Apache-2.0 */
/* What config-sync must not forget about its controllers, whenever it or the machine ends: in notes of the store, each written (and
 * synced) before what it says matters. */
#ifndef HERMES_CONFIG_SYNC_CONTROL_MEMORY_H
#define HERMES_CONFIG_SYNC_CONTROL_MEMORY_H

#include "store/store.h"

#define MEMORY_KNOWN 3            /* versions whose digests are known: in force, confirmed, one more */

struct control_known { uint64_t number, version; char digest[65]; };

struct control_memory {
	uint64_t last;                /* the highest number that was accepted, refused or rolled back: none up to it is taken again */
	uint64_t armed;               /* the store's version that is rolled back unless a controller is reached; 0: none */
	uint64_t refused;             /* the number refused or rolled back last; 0: none */
	char refused_state[16];       /* "rejected", "rolled back" */
	char refused_error[300];
	struct control_known known[MEMORY_KNOWN];   /* newest first */
};

/* What is damaged counts as not there. */
void control_memory_load(struct store *store, struct control_memory *memory);
/* All return 0 or negative; memory holds what is new in any case. */
int control_memory_last(struct store *store, struct control_memory *memory, uint64_t last);
int control_memory_arm(struct store *store, struct control_memory *memory, uint64_t version);
/* Also raises last. state NULL: nothing is refused any more. */
int control_memory_refuse(struct store *store, struct control_memory *memory, uint64_t number, const char *state, const char *error);
int control_memory_know(struct store *store, struct control_memory *memory, uint64_t number, uint64_t version, const char *digest);
/* NULL: not known. */
const struct control_known *control_memory_find(const struct control_memory *memory, uint64_t number);

#endif
