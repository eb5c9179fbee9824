/* All workers: the places they fill, and who fills them when somebody falls. */
#ifndef HERMES_SUPERVISOR_POOL_H
#define HERMES_SUPERVISOR_POOL_H

#include "supervisor/child.h"

#define POOL_TUNNELS_MAX 64

struct event;
struct json;

/* A place for one worker. */
struct slot {
	struct supervisor *supervisor;
	enum ipc_role role;
	unsigned index;
	char name[24];            /* "router", "tunnel-0" */
	struct child *child;      /* who fills it; NULL between two */
	struct child *successor;  /* who is being started to replace it, while it serves; else NULL */
	bool fresh;               /* the next to be started is of the program as it is on disk now */
	unsigned incarnations;    /* how many were started */
	unsigned failures;        /* in a row, each within 30 s of its start */
	unsigned restarts;        /* in all */
	unsigned falls;           /* of these, because it fell; since hermesd was executed */
	char last_end[240];       /* how the last one ended */
	uint64_t replaced;        /* clock_ms() when it was last replaced for its size */
	struct event *restart;    /* back-off */
	bool gone;                /* its number is not needed any more: not filled again */
	TAILQ_ENTRY(slot) link;
};
TAILQ_HEAD(slots, slot);

struct pool;
struct pool *pool_new(struct supervisor *s);
void pool_free(struct pool *pool);

/* Starts one role's worker; or those that the configuration wants, and ends those that it does not (tunnel workers are drained). */
struct config;
void pool_start_role(struct pool *pool, enum ipc_role role);
void pool_set_roles(struct pool *pool, const struct config *config);
/* Tunnel workers, as many as the configuration says: by default one per CPU, at most 8. */
unsigned pool_tunnel_count(const struct config *config);

struct slots *pool_slots(struct pool *pool);
/* Everybody, also those that drain, or are dead and not reaped. */
struct children *pool_children(struct pool *pool);
/* The live tunnel worker with that seat (child.h). */
struct child *pool_find_seat(struct pool *pool, unsigned seat);
/* The live worker of a role, or NULL. */
struct child *pool_find(struct pool *pool, enum ipc_role role, unsigned index);
/* The live worker with that process id: for answers that come later. */
struct child *pool_find_pid(struct pool *pool, pid_t pid);
struct slot *pool_find_name(struct pool *pool, const char *name);
/* Whether every place is filled by a worker in that state. */
bool pool_all(struct pool *pool, enum child_state state);
/* To every worker that is ready or serving. */
void pool_send_all(struct pool *pool, enum ipc_type type, const void *message, int fd);

/* For replace.c. The successor of who serves, of the program as it is on disk now: 0 or -1 with the reason. */
int pool_start_successor(struct slot *slot, char *error, size_t size);
/* The slot is filled anew, likewise, once who fills it has ended. */
void pool_refill(struct slot *slot);
/* From change.c: the configuration that it has is committed. */
void pool_serves(struct child *child);
/* Sends the configuration in force to workers that have none yet, unless a change is under way. */
void pool_attach_all(struct pool *pool);
/* Stops all, tunnels first, telemetry last; then supervisor_workers_gone(). Called again: without waiting. */
void pool_stop(struct pool *pool, unsigned drain_ms);

/* For a restart in place (state.h): whether nothing is under way; what there is; and back. 0 or -errno. */
struct state;
bool pool_quiet(const struct pool *pool);
int pool_save(const struct pool *pool, struct state *state);
int pool_adopt(struct pool *pool, const struct state *state);

/* From child.c */
void pool_child_ready(struct child *child);
void pool_child_prepared(struct child *child, uint64_t generation, const char *error);
void pool_child_lost(struct child *child);
/* SIGCHLD */
void pool_reap(struct pool *pool);
/* Every child, also those that drain (watch). */
void pool_each_child(struct pool *pool, void (*visit)(struct child *child, void *arg), void *arg);

void pool_json(struct pool *pool, struct json *json, const char *key);

#endif
