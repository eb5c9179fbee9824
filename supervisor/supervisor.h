/* hermesd: what its modules share, and its life from start to stop. */
#ifndef HERMES_SUPERVISOR_SUPERVISOR_H
#define HERMES_SUPERVISOR_SUPERVISOR_H

#include "supervisor/privileges.h"
#include "supervisor/spawn.h"

struct event_base;
struct config;
struct pool;
struct listeners;
struct tun_queues;
struct files;
struct change;
struct replace;
struct restart;
struct drains;
struct fdstore;
struct control;
struct explain;
struct inquiries;
struct wanted;
struct dialer;
struct watch;
struct notify;

/* state, before: descriptors of the state that is taken over and of the program that wrote it; -1: a start of one's own. failed: the
 * image that was to take over did not, for that reason, and the one before is back. */
struct options {
	const char *config, *state_dir, *runtime_dir;
	int state, before;
	const char *failed;
};

enum supervisor_state { SUPERVISOR_BOOTING, SUPERVISOR_RUNNING, SUPERVISOR_STOPPING };

/* The configuration in force: number 0, config NULL and memfd -1 before there is one. */
struct generation {
	uint64_t number;
	char digest[65];
	int memfd;
	struct config *config;
	int64_t since;             /* Unix seconds when committed */
};

struct supervisor {
	const struct options *options;
	struct event_base *base;
	enum supervisor_state state;
	int exit_status;
	uint64_t started_ms;       /* clock_ms() */
	struct privileges privileges;
	struct spawner spawner;
	struct generation in_force;
	char program[4096];        /* where ours lies on disk: what a restart executes */
	int executable;            /* O_PATH: the one that runs */
	char *stale;               /* why the configuration file is not what is in force, or NULL */
	struct pool *pool;
	struct listeners *listeners;
	struct tun_queues *tun_queues;
	struct files *files;
	struct change *change;
	struct replace *replace;
	struct restart *restart;
	struct drains *drains;
	struct fdstore *fdstore;
	struct control *control;
	struct explain *explain;
	struct inquiries *inquiries;
	struct wanted *wanted;
	struct dialer *dialer;
	struct watch *watch;
	struct notify *notify;
};

const char *supervisor_state_name(enum supervisor_state state);
/* Running, and every worker serves. */
bool supervisor_ready(const struct supervisor *s);
/* Runs until stopped. Returns the exit status. */
int supervisor_run(const struct options *options);
/* Orderly stop; a second call does not wait any longer. */
void supervisor_stop(struct supervisor *s);
/* Reads the configuration file and log files again. done may be NULL; see change.h. */
struct change_result;
void supervisor_reload(struct supervisor *s, const char *author, void (*done)(void *, const struct change_result *),
                       void *arg);
/* keeper has written keys or certificates: what is in force is renewed with them. */
void supervisor_keys_changed(struct supervisor *s, const char *why);
/* This image runs what another one began. */
void supervisor_taken_over(struct supervisor *s);
/* From the modules: a generation is in force; a worker cannot be brought up (only matters while booting); all workers
 * have ended (only matters while stopping). */
void supervisor_committed(struct supervisor *s);
void supervisor_worker_hopeless(struct supervisor *s, const char *name, const char *why);
void supervisor_workers_gone(struct supervisor *s);

#endif
