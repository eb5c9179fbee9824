#include "supervisor/pool_internal.h"
#include "ipc/log.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control.h"
#include "supervisor/drains.h"
#include "supervisor/files.h"
#include "supervisor/folders.h"
#include "supervisor/introduce.h"
#include "supervisor/listeners.h"
#include "supervisor/replace.h"
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

/* Of who writes files two at a time would be one too many. */
static bool must_wait(const struct slot *slot)
{
	const struct child *c;
	if (!(IPC_BIT(slot->role) & (IPC_SYNC | IPC_CTL | IPC_KEEP)))
		return false;
	TAILQ_FOREACH(c, &slot->supervisor->pool->children, link)
		if (c->slot == slot)
			return true;
	return false;
}

/* fresh: the program as it is on disk now, which an upgrade may just have brought; else the one that was found good. After some
 * failures of that, every other try is with what is on disk. */
static struct child *start(struct slot *slot, bool fresh, char *error, size_t size)
{
	struct pool *p = slot->supervisor->pool;
	bool other = slot->failures >= BOOT_FAILURES && slot->failures % 2;
	struct child *c = child_start(slot->supervisor, slot, fresh || other, error, size);
	if (c)
		TAILQ_INSERT_TAIL(&p->children, c, link);
	return c;
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
	char why[160] = "";
	slot->child = start(slot, slot->fresh, why, sizeof(why));
	slot->fresh = false;
	if (slot->child)
		return;
	snprintf(slot->last_end, sizeof(slot->last_end), "could not be started: %s", why);
	replace_not_started(slot->supervisor->replace, slot, slot->last_end);
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

struct slot *pool_add_slot(struct pool *p, enum ipc_role role, unsigned index)
{
	struct slot *slot = calloc(1, sizeof(*slot));
	if (!slot)
		return NULL;
	*slot = (struct slot){.supervisor = p->supervisor, .role = role, .index = index};
	slot->restart = evtimer_new(p->supervisor->base, restart_cb, slot);
	if (!slot->restart) {
		free(slot);
		return NULL;
	}
	if (role == IPC_TUNNEL)
		snprintf(slot->name, sizeof(slot->name), "tunnel-%u", index);
	else
		snprintf(slot->name, sizeof(slot->name), "%s", ipc_role_name(role));
	TAILQ_INSERT_TAIL(&p->slots, slot, link);
	return slot;
}

struct slot *pool_find_slot(struct pool *p, enum ipc_role role, unsigned index)
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
	struct slot *slot = pool_find_slot(p, role, index);
	const struct config *config = p->supervisor->in_force.config;
	if (!slot) {
		slot = filled ? pool_add_slot(p, role, index) : NULL;
		if (slot)
			fill(slot);
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

struct children *pool_children(struct pool *p)
{
	return &p->children;
}

struct child *pool_find_seat(struct pool *p, unsigned seat)
{
	struct child *c;
	TAILQ_FOREACH(c, &p->children, link)
		if (c->slot->role == IPC_TUNNEL && c->seat == seat && c->state != CHILD_DEAD)
			return c;
	return NULL;
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
	struct slot *slot = pool_find_slot(p, role, index);
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
	struct child *c, *next;
	for (c = TAILQ_FIRST(&p->children); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state == CHILD_READY || c->state == CHILD_PREPARING || c->state == CHILD_SERVING)
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
	c->predecessor = c->slot->successor == c;
	const struct ipc_config_prepare m = {
		.generation = g->number, .tunnels = pool_tunnel_count(g->config), .predecessor = c->predecessor,
	};
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
	bool successor = c->slot->successor == c;
	/* of whom others ask or whom they tell, the old one stays theirs until the new one serves */
	if (!successor || c->slot->role == IPC_TUNNEL)
		introduce(c);
	if (successor)
		attach(c);
	pool_attach_all(p);
	change_progress(c->supervisor->change);
}

void pool_serves(struct child *c)
{
	child_set_state(c, CHILD_SERVING);
	spawn_keep(&c->supervisor->spawner, c->slot->role, &c->executable);
	replace_served(c->supervisor->replace, c);
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
	if (c->slot->role == IPC_ROUTER)
		drains_send(c->supervisor->drains, c);
	c->generation = generation;
	pool_serves(c);
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
	if (slot->successor == c) {
		slot->successor = NULL;
		replace_lost(c->supervisor->replace, c);
		return;
	}
	if (slot->child != c)
		return;
	slot->child = slot->successor;
	slot->successor = NULL;
	slot->restarts++;
	slot->falls++;
	change_child_lost(c->supervisor->change, c);
	if (p->stopping || slot->gone)
		return;
	if (slot->child) {
		log_warn("worker lost", "worker=%s worker_pid=%d reason=%s effect=%s", slot->name, (int)c->pid,
		         log_value(*c->end ? c->end : "it ended"), log_value("its successor is being started already"));
		return;
	}
	slot->failures = clock_ms() - c->started >= STEADY_MS ? 1 : slot->failures + 1;
	replace_lost(c->supervisor->replace, c);
	uint64_t delay = backoff(slot->failures);
	log_warn("worker lost", "worker=%s worker_pid=%d reason=%s restart_in_ms=%llu", slot->name, (int)c->pid,
	         log_value(*c->end ? c->end : "it ended"), (unsigned long long)delay);
	struct timeval later = {.tv_sec = (time_t)(delay / 1000), .tv_usec = (suseconds_t)(delay % 1000) * 1000};
	event_add(slot->restart, &later);
	if (slot->failures >= BOOT_FAILURES)
		supervisor_worker_hopeless(c->supervisor, slot->name, c->end);
}

int pool_start_successor(struct slot *slot, char *error, size_t size)
{
	slot->successor = start(slot, true, error, size);
	return slot->successor ? 0 : -1;
}

void pool_refill(struct slot *slot)
{
	struct child *old = slot->child;
	slot->fresh = true;
	slot->child = NULL;
	event_del(slot->restart);
	if (old) {
		slot->restarts++;
		snprintf(old->end, sizeof(old->end), "replaced");
		child_stop(old, HELPER_STOP_MS);
	}
	fill(slot);
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
	pid_t pid = c->pid;
	TAILQ_REMOVE(&p->children, c, link);
	if (slot->child == c)              /* stopped: nobody had to notice that it is lost */
		slot->child = NULL;
	child_free(c);
	replace_reaped(p->supervisor->replace, pid, slot->last_end);
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
		pool_stop_step(p);
}
