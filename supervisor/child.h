/* One worker process: its state, its channel, and where its messages go. */
#ifndef HERMES_SUPERVISOR_CHILD_H
#define HERMES_SUPERVISOR_CHILD_H

#include "ipc/channel.h"

#include <sys/queue.h>
#include <sys/types.h>

struct supervisor;
struct slot;

enum child_state {
	CHILD_STARTING,    /* executed; READY has not come */
	CHILD_READY,       /* loop running, introduced; no configuration yet */
	CHILD_PREPARING,   /* a replacement that was sent the configuration in force */
	CHILD_SERVING,     /* configuration committed */
	CHILD_STOPPING,    /* told to stop; no part of anything any more */
	CHILD_DEAD,        /* killed, or its channel ended: waits to be reaped */
};

struct child {
	struct supervisor *supervisor;
	struct slot *slot;            /* the place it fills or filled */
	pid_t pid;
	struct ipc_channel *channel;  /* NULL once dead */
	enum child_state state;
	uint64_t started, since;      /* clock_ms() of fork, of the last change of state */
	uint64_t generation;          /* committed to */
	uint64_t prepared;            /* said PREPARED for */
	uint64_t deadline;            /* clock_ms() when it is killed unless its state changed; 0: never */
	uint64_t ping, pong_at;       /* last number sent; when the last answer came */
	uint64_t cpu_at_pong;         /* its CPU time then, ms */
	uint64_t rss;                 /* bytes, as last looked at */
	char end[128];                /* why it was ended, for the log */
	unsigned seat;                /* a tunnel worker's number for policy and router: two of the same place never share one */
	int executable;               /* the program, until it serves and the program is kept; -1: it was kept before */
	bool predecessor;             /* was told of one in PREPARE, and waits for the channel to it */
	uint64_t stop_at;             /* clock_ms() when it is told to stop: others may still wait for its answers; 0: was told */
	TAILQ_ENTRY(child) link;
};
TAILQ_HEAD(children, child);

/* Starts a process for the slot; fresh: of the program as it is on disk now. NULL when it could not be started (logged). */
struct child *child_start(struct supervisor *s, struct slot *slot, bool fresh, char *error, size_t size);
/* One that another image of the supervisor started. NULL: out of memory. Or it is dead, since its channel is. */
struct state_child;
void child_save(const struct child *child, struct state_child *out);
struct child *child_adopt(struct supervisor *s, struct slot *slot, const struct state_child *from);
/* After its end was reaped. */
void child_free(struct child *child);
void child_set_state(struct child *child, enum child_state state);
const char *child_state_name(enum child_state state);
/* STOP; killed when it has not ended a second after drain_ms. */
void child_stop(struct child *child, unsigned drain_ms);
/* The same after so many ms; no part of anything from now on. */
void child_retire(struct child *child, unsigned linger_ms);
/* Its release, as it said; "" before. */
const char *child_version(const struct child *child);
/* SIGKILL; the slot is told (pool_child_lost). why: for the log. */
void child_kill(struct child *child, const char *why);
/* Sends; a worker that does not read its channel any more is killed. False when not sent. */
bool child_send(struct child *child, enum ipc_type type, const void *message, int fd);

#endif
