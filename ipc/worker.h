/* A worker's start and its channel to the supervisor: the same checklist for every role.
 *
 *   int main(int argc, char **argv) {
 *       struct worker *w = worker_start(IPC_ROUTER, argc, argv, &callbacks, arg);   // fd 3: the supervisor
 *       ... own set-up: nothing that needs a file may come later than worker_ready() ...
 *       return worker_run(w);      // sandbox on, READY sent, loop until STOP or the supervisor is gone
 *   }
 */
#ifndef HERMES_IPC_WORKER_H
#define HERMES_IPC_WORKER_H

#include "ipc/channel.h"
#include "ipc/stats.h"

#define WORKER_SUPERVISOR_FD 3

struct worker;
struct config;

struct worker_callbacks {
	/* Prepare `config` as `generation`: takes over config (config_free). On refusal returns -1 with a reason for
	 * people in error; nothing may have changed then. */
	int (*prepare)(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size);
	void (*commit)(void *arg, uint64_t generation);
	void (*abort)(void *arg, uint64_t generation);
	/* A channel to another worker: fd is the callee's. */
	void (*peer)(void *arg, enum ipc_role role, unsigned index, int fd);
	/* Any other message from the supervisor (LISTENER, FILE, DIALED, ADMIN_REQUEST, ...). */
	void (*message)(void *arg, enum ipc_type type, const union ipc_any *message, int *fd);
	/* Finish within drain_ms; call worker_exit() when done. NULL: exits at once. */
	void (*stop)(void *arg, unsigned drain_ms);
};

/* argv: --index N. Opens log, checks fd 3, ignores SIGPIPE, makes the event base (epoll, changelist), the stats region
 * (where stats_sets > 0) and the channel. Never returns NULL: fatal() instead. The role and index of a PEER are checked
 * before the callback sees it; PREPARE, COMMIT, ABORT, PING, STOP and LOG_LEVEL are answered by worker.c itself. */
struct worker *worker_start(enum ipc_role role, int argc, char **argv, unsigned stats_sets,
                            const struct worker_callbacks *callbacks, void *arg);
struct event_base *worker_base(struct worker *worker);
struct ipc_channel *worker_supervisor(struct worker *worker);
struct stats *worker_stats(struct worker *worker);
unsigned worker_index(const struct worker *worker);
/* How many tunnel workers the node has under the configuration in force; within the commit callback already under the new one.
 * At least 1. */
unsigned worker_tunnels(const struct worker *worker);
/* Within the prepare callback: this is an orderly replacement, and a channel from the one before will come (PREPARE.predecessor). */
bool worker_predecessor(const struct worker *worker);
/* Enters the sandbox of its role (ipc/sandbox.h), sends READY, runs the loop. Returns the exit status. The worker, its base
 * and its counters stay until the process ends, so that a role may free in peace what hangs on them. */
int worker_run(struct worker *worker);
void worker_exit(struct worker *worker);

/* Sends the stats region over a channel to telemetry: a role calls it where its peer callback makes that channel. Returns
 * as ipc_send() does; 0 where the worker has no region. */
int worker_send_stats(struct worker *worker, struct ipc_channel *telemetry);

/* Answers an ADMIN_REQUEST: json (may be NULL) goes as a memfd where it is too large. */
void worker_reply(struct worker *worker, uint64_t id, unsigned status, const char *json, const char *error);

#endif
