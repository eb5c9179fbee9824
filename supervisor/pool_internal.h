/* What the pool's own files share. */
#ifndef HERMES_SUPERVISOR_POOL_INTERNAL_H
#define HERMES_SUPERVISOR_POOL_INTERNAL_H

#include "supervisor/pool.h"

#define HELPER_STOP_MS 1000    /* for workers that have no flows to drain */

struct pool {
	struct supervisor *supervisor;
	struct slots slots;
	struct children children;     /* also those that drain or are dead and not reaped */
	bool stopping;
	unsigned drain_ms;
};

struct slot *pool_find_slot(struct pool *pool, enum ipc_role role, unsigned index);
/* An empty one, or NULL. */
struct slot *pool_add_slot(struct pool *pool, enum ipc_role role, unsigned index);

/* pool_stop.c: the next who are to be stopped; all have ended: supervisor_workers_gone(). */
void pool_stop_step(struct pool *pool);

#endif
