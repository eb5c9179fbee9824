#include "supervisor/pool.h"
#include "ipc/json.h"
#include "ipc/log.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control.h"
#include "supervisor/files.h"
#include "supervisor/folders.h"
#include "supervisor/introduce.h"
#include "supervisor/listeners.h"
#include "supervisor/supervisor.h"
#include "supervisor/tun_queues.h"
#include "store/config.h"

#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define STEADY_MS 30000        /* alive that long: earlier failures are forgotten */
#define BACKOFF_MS 500         /* the second replacement; doubles ... */
#define BACKOFF_MAX_MS 10000   /* ... up to this */
#define BOOT_FAILURES 3        /* while booting, a worker that fails so often is hopeless */
#define TUNNELS_DEFAULT_MAX 8
#define HELPER_STOP_MS 1000    /* for workers that have no flows to drain */

TAILQ_HEAD(children, child);

struct pool {
	struct supervisor *supervisor;
	struct slots slots;
	struct children children;     /* also those that drain or are dead and not reaped */
	bool stopping;
	unsigned drain_ms;
};

static void restart_cb(evutil_socket_t fd, short what, void *arg);

/* --- places --------------------------------------------------------------------------------------------------------- */

struct pool *pool_new(struct supervisor *s)
{
	struct pool *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->supervisor = s;
	TAILQ_INIT(&p->slots);
	TAILQ_INIT(&p->children);
	return p;
}

static void slot_free(struct pool *p, struct slot *slot)
{
	TAILQ_REMOVE(&p->slots, slot, link);
	event_free(slot->restart);
	free(slot);
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	for (struct child *c; (c = TAILQ_FIRST(&p->children));) {
		TAILQ_REMOVE(&p->children, c, link);
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
		child_free(c);
	}
	for (struct slot *slot; (slot = TAILQ_FIRST(&p->slots));)
		slot_free(p, slot);
	free(p);
}

/* Of most roles two at a time would be one too many: who writes a store, makes devices, or listens alone. */
static bool must_wait(const struct slot *slot)
{
	const struct child *c;
	if (slot->role == IPC_TUNNEL || slot->role == IPC_POLICY || slot->role == IPC_ROUTER)
		return false;
	TAILQ_FOREACH(c, &slot->supervisor->pool->children, link)
		if (c->slot == slot)
			return true;
	return false;
}

/* When the one before has not ended, its end brings us here again. */
static void fill(struct slot *slot)
{
	struct pool *p = slot->supervisor->pool;
	if (slot->child || slot->gone || p->stopping || must_wait(slot))
		return;
	int error = folders_make_role(slot->supervisor, slot->role);
	if (error)
		log_error("folder not made", "worker=%s error=%s", slot->name, log_value(strerror(-error)));
	slot->child = child_start(slot->supervisor, slot);
	if (slot->child) {
		TAILQ_INSERT_TAIL(&p->children, slot->child, link);
		return;
	}
	snprintf(slot->last_end, sizeof(slot->last_end), "could not be started");
	slot->failures++;
	struct timeval later = {.tv_sec = 1};
	event_add(slot->restart, &later);
	if (slot->failures >= BOOT_FAILURES)
		supervisor_worker_hopeless(slot->supervisor, slot->name, slot->last_end);
}

static void restart_cb(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	fill(arg);
}

static void add_slot(struct pool *p, enum ipc_role role, unsigned index)
{
	struct slot *slot = calloc(1, sizeof(*slot));
	if (!slot)
		return;
	*slot = (struct slot){.supervisor = p->supervisor, .role = role, .index = index};
	slot->restart = evtimer_new(p->supervisor->base, restart_cb, slot);
	if (!slot->restart) {
		free(slot);
		return;
	}
	if (role == IPC_TUNNEL)
		snprintf(slot->name, sizeof(slot->name), "tunnel-%u", index);
	else
		snprintf(slot->name, sizeof(slot->name), "%s", ipc_role_name(role));
	TAILQ_INSERT_TAIL(&p->slots, slot, link);
	fill(slot);
}

static struct slot *find_slot(struct pool *p, enum ipc_role role, unsigned index)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (slot->role == role && slot->index == index)
			return slot;
	return NULL;
}

/* Filled, or emptied: what it had to do is over with the configuration in force. */
static void set_slot(struct pool *p, enum ipc_role role, unsigned index, bool filled)
{
	struct slot *slot = find_slot(p, role, index);
	const struct config *config = p->supervisor->in_force.config;
	if (!slot) {
		if (filled)
			add_slot(p, role, index);
		return;
	}
	if (slot->gone != filled)
		return;
	slot->gone = !filled;
	if (filled) {
		fill(slot);
		return;
	}
	struct child *c = slot->child;
	event_del(slot->restart);
	slot->child = NULL;
	if (c)
		child_stop(c, role != IPC_TUNNEL ? HELPER_STOP_MS : config ? config->drain_timeout : 0);
}

void pool_start_role(struct pool *p, enum ipc_role role)
{
	set_slot(p, role, 0, true);
}

unsigned pool_tunnel_count(const struct config *config)
{
	cpu_set_t cpus;
	if (config->tunnel_workers)
		return config->tunnel_workers < POOL_TUNNELS_MAX ? config->tunnel_workers : POOL_TUNNELS_MAX;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : CPU_COUNT(&cpus);
	return n < 1 ? 1 : n > TUNNELS_DEFAULT_MAX ? TUNNELS_DEFAULT_MAX : (unsigned)n;
}

static bool wanted(const struct config *config, enum ipc_role role)
{
	switch (role) {
	case IPC_TELEMETRY: return !config->telemetry_off;
	case IPC_TUN_BRIDGE: return !config->tun_bridge_off;
	case IPC_CONTROLLER: return config->controller.enabled;
	case IPC_KEEPER: return config->controller.enabled || config->control.n_endpoints;
	default: return true;
	}
}

void pool_set_roles(struct pool *p, const struct config *config)
{
	static const enum ipc_role roles[] = {IPC_TELEMETRY, IPC_ROUTER, IPC_POLICY, IPC_TUN_BRIDGE, IPC_KEEPER, IPC_CONTROLLER};
	unsigned tunnels = pool_tunnel_count(config);
	for (size_t i = 0; i < sizeof(roles) / sizeof(*roles); i++)
		set_slot(p, roles[i], 0, wanted(config, roles[i]));
	for (unsigned i = 0; i < POOL_TUNNELS_MAX; i++)
		set_slot(p, IPC_TUNNEL, i, i < tunnels);
}

struct slots *pool_slots(struct pool *p)
{
	return &p->slots;
}

struct slot *pool_find_name(struct pool *p, const char *name)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->gone && strcmp(slot->name, name) == 0)
			return slot;
	return NULL;
}

struct child *pool_find_pid(struct pool *p, pid_t pid)
{
	struct child *c;
	TAILQ_FOREACH(c, &p->children, link)
		if (c->pid == pid && c->state != CHILD_DEAD)
			return c;
	return NULL;
}

struct child *pool_find(struct pool *p, enum ipc_role role, unsigned index)
{
	struct slot *slot = find_slot(p, role, index);
	struct child *c = slot ? slot->child : NULL;
	return c && c->state != CHILD_STARTING && c->state != CHILD_DEAD ? c : NULL;
}

bool pool_all(struct pool *p, enum child_state state)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->gone && (!slot->child || slot->child->state != state))
			return false;
	return true;
}

void pool_send_all(struct pool *p, enum ipc_type type, const void *message, int fd)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, &p->slots, link) {
		struct child *c = slot->child;
		if (c && (c->state == CHILD_READY || c->state == CHILD_PREPARING || c->state == CHILD_SERVING))
			child_send(c, type, message, fd);
	}
}

void pool_each_child(struct pool *p, void (*visit)(struct child *, void *), void *arg)
{
	struct child *c, *next;
	for (c = TAILQ_FIRST(&p->children); c; c = next) {
		next = TAILQ_NEXT(c, link);
		visit(c, arg);
	}
}

/* --- a new worker joins ---------------------------------------------------------------------------------------------- */

/* Hands over what is in force. */
static void attach(struct child *c)
{
	struct supervisor *s = c->supervisor;
	const struct generation *g = &s->in_force;
	files_send(s->files, c, g->number, false);
	listeners_send(s->listeners, c, g->number, false);
	tun_queues_send(s->tun_queues, c, g->number);
	child_set_state(c, CHILD_PREPARING);
	const struct ipc_config_prepare m = {.generation = g->number, .tunnels = pool_tunnel_count(g->config)};
	child_send(c, IPC_MSG_CONFIG_PREPARE, &m, g->memfd);
}

void pool_attach_all(struct pool *p)
{
	struct slot *slot;
	if (!p->supervisor->in_force.number || change_preparing(p->supervisor->change))
		return;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (slot->child && slot->child->state == CHILD_READY)
			attach(slot->child);
}

void pool_child_ready(struct child *c)
{
	struct pool *p = c->supervisor->pool;
	introduce(c);
	pool_attach_all(p);
	change_progress(c->supervisor->change);
}

void pool_child_prepared(struct child *c, uint64_t generation, const char *error)
{
	if (error) {
		log_error("worker refused the configuration in force", "worker=%s generation=%llu error=%s", c->slot->name,
		          (unsigned long long)generation, log_value(error));
		child_kill(c, "it refused the configuration in force");
		return;
	}
	if (generation != c->supervisor->in_force.number)
		return;
	/* a device that was gone has been made again */
	if (c->slot->role == IPC_TUN_BRIDGE)
		tun_queues_commit(c->supervisor->tun_queues, c->supervisor->in_force.config, generation);
	child_send(c, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){.generation = generation}, -1);
	if (c->state != CHILD_PREPARING)
		return;
	c->generation = generation;
	child_set_state(c, CHILD_SERVING);
	change_progress(c->supervisor->change);
	control_progress(c->supervisor->control);
}

/* --- a worker falls -------------------------------------------------------------------------------------------------- */

/* ms until the next try after so many failures in a row: at once, 0.5 s, 1, 2, 4, 8, 10. */
static uint64_t backoff(unsigned failures)
{
	if (failures <= 1)
		return 0;
	uint64_t delay = failures - 2 < 8 ? (uint64_t)BACKOFF_MS << (failures - 2) : BACKOFF_MAX_MS;
	return delay < BACKOFF_MAX_MS ? delay : BACKOFF_MAX_MS;
}

void pool_child_lost(struct child *c)
{
	struct slot *slot = c->slot;
	struct pool *p = c->supervisor->pool;
	if (slot->child != c)
		return;
	slot->child = NULL;
	slot->restarts++;
	slot->failures = clock_ms() - c->started >= STEADY_MS ? 1 : slot->failures + 1;
	change_child_lost(c->supervisor->change, c);
	if (p->stopping || slot->gone)
		return;
	uint64_t delay = backoff(slot->failures);
	log_warn("worker lost", "worker=%s worker_pid=%d reason=%s restart_in_ms=%llu", slot->name, (int)c->pid,
	         log_value(*c->end ? c->end : "it ended"), (unsigned long long)delay);
	struct timeval later = {.tv_sec = (time_t)(delay / 1000), .tv_usec = (suseconds_t)(delay % 1000) * 1000};
	event_add(slot->restart, &later);
	if (slot->failures >= BOOT_FAILURES)
		supervisor_worker_hopeless(c->supervisor, slot->name, c->end);
}

void pool_replace(struct slot *slot, const char *why)
{
	struct supervisor *s = slot->supervisor;
	struct child *old = slot->child;
	struct timeval now = {0};
	if (!old)
		return;
	log_info("worker replaced", "worker=%s worker_pid=%d reason=%s", slot->name, (int)old->pid, log_value(why));
	snprintf(old->end, sizeof(old->end), "%s", why);
	slot->child = NULL;
	slot->restarts++;
	slot->replaced = clock_ms();
	unsigned drain = slot->role == IPC_TUNNEL && s->in_force.config ? s->in_force.config->drain_timeout : 0;
	child_stop(old, drain);
	change_child_lost(s->change, old);
	/* Others have nothing to drain, and two of them would be one too many: filled when the old one has ended. */
	if (slot->role == IPC_TUNNEL)
		event_add(slot->restart, &now);
}

static void describe_status(int status, char *text, size_t size)
{
	if (WIFSIGNALED(status))
		snprintf(text, size, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
		         WCOREDUMP(status) ? ", core dumped" : "");
	else
		snprintf(text, size, "exit status %d", WEXITSTATUS(status));
}

static void reaped(struct pool *p, struct child *c, int status)
{
	struct slot *slot = c->slot;
	char how[96];
	describe_status(status, how, sizeof(how));
	bool stopped = c->state == CHILD_STOPPING;
	if (!stopped && c->state != CHILD_DEAD)
		child_kill(c, how);
	snprintf(slot->last_end, sizeof(slot->last_end), "%s%s%s", how, *c->end && strcmp(c->end, how) ? ": " : "",
	         strcmp(c->end, how) ? c->end : "");
	log_event(stopped ? LOG_INFO_ : LOG_WARN_, "worker ended", "worker=%s worker_pid=%d status=%s lived_ms=%llu",
	          slot->name, (int)c->pid, log_value(how), (unsigned long long)(clock_ms() - c->started));
	TAILQ_REMOVE(&p->children, c, link);
	child_free(c);
}

/* Tunnels first, then those they ask, telemetry last: it writes the records of the flows that end now. */
static void stop_step(struct pool *p)
{
	bool tunnels = false, others = false;
	struct child *c;
	TAILQ_FOREACH(c, &p->children, link) {
		tunnels |= c->slot->role == IPC_TUNNEL;
		others |= c->slot->role != IPC_TUNNEL && c->slot->role != IPC_TELEMETRY;
	}
	TAILQ_FOREACH(c, &p->children, link) {
		enum ipc_role role = c->slot->role;
		bool turn = role == IPC_TUNNEL || (!tunnels && (role != IPC_TELEMETRY || !others));
		if (turn && c->state != CHILD_STOPPING && c->state != CHILD_DEAD)
			child_stop(c, role == IPC_TUNNEL ? p->drain_ms : HELPER_STOP_MS);
	}
	if (TAILQ_EMPTY(&p->children))
		supervisor_workers_gone(p->supervisor);
}

void pool_stop(struct pool *p, unsigned drain_ms)
{
	struct slot *slot;
	struct child *c;
	bool again = p->stopping;
	p->stopping = true;
	p->drain_ms = drain_ms;
	TAILQ_FOREACH(slot, &p->slots, link)
		event_del(slot->restart);
	if (again)
		TAILQ_FOREACH(c, &p->children, link)
			child_kill(c, "");
	stop_step(p);
}

static void reap_one(struct pool *p, struct child *c)
{
	int status;
	struct slot *slot = c->slot;
	pid_t pid = waitpid(c->pid, &status, WNOHANG | WUNTRACED);
	if (pid != c->pid)
		return;
	if (WIFSTOPPED(status)) {
		child_kill(c, "it was stopped by a signal");
		return;
	}
	reaped(p, c, status);
	if (!slot->child && !slot->gone && !event_pending(slot->restart, EV_TIMEOUT, NULL))
		fill(slot);
}

void pool_reap(struct pool *p)
{
	struct child *c, *next;
	for (c = TAILQ_FIRST(&p->children); c; c = next) {
		next = TAILQ_NEXT(c, link);
		reap_one(p, c);
	}
	if (p->stopping)
		stop_step(p);
}

/* --- for people ------------------------------------------------------------------------------------------------------ */

static void slot_json(const struct slot *slot, struct json *j)
{
	const struct child *c = slot->child;
	uint64_t now = clock_ms();
	json_object(j, NULL);
	json_str(j, "name", slot->name);
	json_str(j, "role", ipc_role_name(slot->role));
	json_uint(j, "index", slot->index);
	json_str(j, "state", c ? child_state_name(c->state) : "waiting");
	json_uint(j, "pid", c ? (uint64_t)c->pid : 0);
	json_double(j, "uptime_seconds", c ? (double)(now - c->started) / 1000.0 : 0);
	json_uint(j, "generation", c ? c->generation : 0);
	json_uint(j, "restarts", slot->restarts);
	json_uint(j, "rss_bytes", c ? c->rss : 0);
	json_uint(j, "silent_ms", c ? now - c->pong_at : 0);
	json_str(j, "last_end", *slot->last_end ? slot->last_end : NULL);
	json_end(j);
}

void pool_json(struct pool *p, struct json *j, const char *key)
{
	struct slot *slot;
	json_array(j, key);
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->gone)
			slot_json(slot, j);
	json_end(j);
}
