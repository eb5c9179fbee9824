#include "supervisor/change.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/files.h"
#include "supervisor/listeners.h"
#include "supervisor/pool.h"
#include "supervisor/replace.h"
#include "supervisor/supervisor.h"
#include "supervisor/tun_queues.h"

#include <event2/event.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PHASE_LIMIT_S 10
#define QUEUE_MAX 16

enum phase {
	PHASE_IDLE,
	PHASE_SYNC,        /* waits for config-sync to be there */
	PHASE_COMPILING,   /* CONFIG_SUBMIT sent */
	PHASE_WAITING,     /* waits until every worker serves what is in force (at boot: is ready) */
	PHASE_PREPARING,   /* CONFIG_PREPARE sent to all */
	PHASE_STORING,     /* CONFIG_STORE sent: from here on it is the store that decides */
	PHASE_RESOLVING,   /* config-sync fell while storing: its successor is asked what is in force */
};

static const char *const phase_names[] = {
	[PHASE_IDLE] = "idle",           [PHASE_SYNC] = "waiting for config-sync", [PHASE_COMPILING] = "compiling",
	[PHASE_WAITING] = "waiting for workers", [PHASE_PREPARING] = "preparing",  [PHASE_STORING] = "storing",
	[PHASE_RESOLVING] = "asking the store",
};

struct request {
	char *action, *name, *source, *author;
	uint64_t version;
	bool boot;
	int fd;
	change_done *done;
	void *arg;
	STAILQ_ENTRY(request) link;
};

struct change {
	struct supervisor *supervisor;
	STAILQ_HEAD(, request) queue;
	unsigned queued;
	struct request *request;       /* the one under way */
	enum phase phase;
	uint64_t id;                   /* of the last CONFIG_SUBMIT or CONFIG_STORE */
	bool stored;                   /* it is in force in the store already: nothing to store */
	struct generation next;
	struct change_result result;
	struct event *limit;
};

static void limit_cb(evutil_socket_t fd, short what, void *arg);
static void start_next(struct change *ch);

struct change *change_new(struct supervisor *s)
{
	struct change *ch = calloc(1, sizeof(*ch));
	if (!ch)
		return NULL;
	ch->supervisor = s;
	ch->next.memfd = -1;
	STAILQ_INIT(&ch->queue);
	ch->limit = evtimer_new(s->base, limit_cb, ch);
	if (!ch->limit) {
		free(ch);
		return NULL;
	}
	return ch;
}

static void request_free(struct request *r)
{
	if (!r)
		return;
	if (r->fd >= 0)
		close(r->fd);
	free(r->action);
	free(r->name);
	free(r->source);
	free(r->author);
	free(r);
}

static void generation_clear(struct generation *g)
{
	config_free(g->config);
	if (g->memfd >= 0)
		close(g->memfd);
	*g = (struct generation){.memfd = -1};
}

void change_free(struct change *ch)
{
	if (!ch)
		return;
	for (struct request *r; (r = STAILQ_FIRST(&ch->queue));) {
		STAILQ_REMOVE_HEAD(&ch->queue, link);
		request_free(r);
	}
	request_free(ch->request);
	generation_clear(&ch->next);
	lines_clear(&ch->result.errors);
	lines_clear(&ch->result.warnings);
	event_free(ch->limit);
	free(ch);
}

static struct child *config_sync(const struct change *ch)
{
	return pool_find(ch->supervisor->pool, IPC_CONFIG_SYNC, 0);
}

static void set_phase(struct change *ch, enum phase phase)
{
	struct timeval limit = {.tv_sec = PHASE_LIMIT_S};
	log_debug("configuration change", "phase=%s was=%s", log_value(phase_names[phase]), log_value(phase_names[ch->phase]));
	ch->phase = phase;
	if (phase == PHASE_IDLE)
		event_del(ch->limit);
	else
		event_add(ch->limit, &limit);
}

bool change_preparing(const struct change *ch)
{
	return ch->phase >= PHASE_PREPARING;
}

/* --- ends ----------------------------------------------------------------------------------------------------------- */

static void finish(struct change *ch, bool ok)
{
	struct request *r = ch->request;
	struct change_result result = ch->result;
	result.ok = ok;
	ch->request = NULL;
	ch->result = (struct change_result){0};
	generation_clear(&ch->next);
	set_phase(ch, PHASE_IDLE);
	pool_attach_all(ch->supervisor->pool);
	if (r->done)
		r->done(r->arg, &result);
	lines_clear(&result.errors);
	lines_clear(&result.warnings);
	request_free(r);
	start_next(ch);
	replace_progress(ch->supervisor->replace);
}

/* Refused: nothing has changed, and the history says why. */
static void fail(struct change *ch, const char *why)
{
	struct supervisor *s = ch->supervisor;
	uint64_t generation = ch->next.number;
	enum phase phase = ch->phase;
	if (why)
		lines_add(&ch->result.errors, why);
	log_error("configuration refused", "generation=%llu phase=%s error=%s", (unsigned long long)generation,
	          log_value(phase_names[phase]), log_value(lines_first(&ch->result.errors)));
	ch->phase = PHASE_WAITING;      /* a worker that falls while it is told must not bring us here again */
	if (phase >= PHASE_PREPARING)
		pool_send_all(s->pool, IPC_MSG_CONFIG_ABORT, &(struct ipc_config_abort){.generation = generation}, -1);
	files_abort(s->files);
	listeners_abort(s->listeners);
	tun_queues_abort(s->tun_queues);
	struct child *sync = config_sync(ch);
	if (sync && generation && !ch->stored) {
		struct ipc_config_store m = {.id = ++ch->id, .generation = generation, .refused = lines_first(&ch->result.errors)};
		if (!*m.refused)
			m.refused = "refused";
		child_send(sync, IPC_MSG_CONFIG_STORE, &m, -1);
	}
	finish(ch, false);
}

static void failf(struct change *ch, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void failf(struct change *ch, const char *format, ...)
{
	char why[512];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	fail(ch, why);
}

/* A level that an operator set by hand lasts until the configuration's own changes. */
static void apply_log_level(struct supervisor *s, const char *before)
{
	const char *level = s->in_force.config->log_level;
	if (!level || (before && strcmp(before, level) == 0) || log_set_level(level))
		return;
	pool_send_all(s->pool, IPC_MSG_LOG_LEVEL, &(struct ipc_log_level){.level = level}, -1);
}

static void commit_workers(struct supervisor *s)
{
	uint64_t generation = s->in_force.number;
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(s->pool), link) {
		struct child *c = slot->child;
		if (!c || (c->state != CHILD_READY && c->state != CHILD_SERVING) || c->prepared != generation)
			continue;
		if (!child_send(c, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){.generation = generation}, -1))
			continue;
		c->generation = generation;
		if (c->state == CHILD_READY)
			pool_serves(c);
	}
}

static void commit(struct change *ch)
{
	struct supervisor *s = ch->supervisor;
	struct generation old = s->in_force;
	s->in_force = ch->next;
	s->in_force.since = time(NULL);
	ch->next = (struct generation){.memfd = -1};
	files_commit(s->files);
	listeners_commit(s->listeners);
	tun_queues_commit(s->tun_queues, s->in_force.config, s->in_force.number);
	ch->result.generation = s->in_force.number;
	log_info("configuration in force", "generation=%llu digest=%.12s source=%s author=%s",
	         (unsigned long long)s->in_force.number, s->in_force.digest, ch->request->source,
	         log_value(ch->request->author));
	commit_workers(s);
	apply_log_level(s, old.config ? old.config->log_level : NULL);
	pool_set_roles(s->pool, s->in_force.config);
	generation_clear(&old);
	supervisor_committed(s);
	finish(ch, true);
}

/* --- phases --------------------------------------------------------------------------------------------------------- */

static void submit(struct change *ch, struct child *sync)
{
	const struct request *r = ch->request;
	struct ipc_config_submit m = {
		.id = ++ch->id, .action = r->action, .name = r->name, .source = r->source, .author = r->author,
		.version = r->version, .boot = r->boot,
	};
	set_phase(ch, PHASE_COMPILING);
	child_send(sync, IPC_MSG_CONFIG_SUBMIT, &m, r->fd);
}

static void store(struct change *ch)
{
	struct child *sync = config_sync(ch);
	struct ipc_config_store m = {.id = ++ch->id, .generation = ch->next.number};
	if (ch->stored) {
		commit(ch);
		return;
	}
	set_phase(ch, PHASE_STORING);
	if (!sync || !child_send(sync, IPC_MSG_CONFIG_STORE, &m, -1))
		set_phase(ch, PHASE_RESOLVING);
}

static bool all_prepared(const struct change *ch)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(ch->supervisor->pool), link)
		if (!slot->gone && (!slot->child || slot->child->prepared != ch->next.number))
			return false;
	return true;
}

static void prepare(struct change *ch)
{
	struct supervisor *s = ch->supervisor;
	struct slot *slot;
	uint64_t generation = ch->next.number;
	const struct ipc_config_prepare m = {.generation = generation, .tunnels = pool_tunnel_count(ch->next.config)};
	char error[512];
	if (files_prepare(s->files, ch->next.config, error, sizeof(error)) ||
	    listeners_prepare(s->listeners, ch->next.config, pool_tunnel_count(ch->next.config), error, sizeof(error))) {
		fail(ch, error);
		return;
	}
	set_phase(ch, PHASE_PREPARING);
	TAILQ_FOREACH(slot, pool_slots(s->pool), link) {
		struct child *c = slot->child;
		if (!c)
			continue;
		c->prepared = 0;
		if (!s->in_force.number && slot->role == IPC_TUN_BRIDGE)
			tun_queues_send(s->tun_queues, c, generation);       /* what systemd kept */
		files_send(s->files, c, generation, true);
		listeners_send(s->listeners, c, generation, true);
		child_send(c, IPC_MSG_CONFIG_PREPARE, &m, ch->next.memfd);
		if (ch->phase != PHASE_PREPARING)
			return;        /* a worker fell while it was told, and the change with it */
	}
}

/* Runs again whenever what it waits for may have come. */
void change_progress(struct change *ch)
{
	struct supervisor *s = ch->supervisor;
	struct child *sync = config_sync(ch);
	switch (ch->phase) {
	case PHASE_SYNC:
		if (sync)
			submit(ch, sync);
		break;
	case PHASE_WAITING:
		if (pool_all(s->pool, s->in_force.number ? CHILD_SERVING : CHILD_READY))
			prepare(ch);
		break;
	case PHASE_RESOLVING:
		if (sync && !ch->stored) {
			struct ipc_config_submit m = {.id = ++ch->id, .action = "load", .source = "file"};
			child_send(sync, IPC_MSG_CONFIG_SUBMIT, &m, -1);
		}
		break;
	default: break;
	}
}

static void renew(struct change *ch)
{
	const struct generation *g = &ch->supervisor->in_force;
	ch->next = *g;
	ch->stored = true;
	ch->next.config = g->memfd >= 0 ? config_from_memfd(g->memfd) : NULL;
	ch->next.memfd = g->memfd >= 0 ? fcntl(g->memfd, F_DUPFD_CLOEXEC, 0) : -1;
	set_phase(ch, PHASE_WAITING);
	if (ch->next.config && ch->next.memfd >= 0)
		change_progress(ch);
	else
		fail(ch, "there is nothing in force to renew");
}

static void start_next(struct change *ch)
{
	struct request *r = STAILQ_FIRST(&ch->queue);
	if (ch->request || !r || replace_busy(ch->supervisor->replace))
		return;
	STAILQ_REMOVE_HEAD(&ch->queue, link);
	ch->queued--;
	ch->request = r;
	ch->stored = false;
	if (strcmp(r->action, "renew") == 0) {
		renew(ch);
		return;
	}
	set_phase(ch, PHASE_SYNC);
	change_progress(ch);
}

bool change_idle(const struct change *ch)
{
	return !ch->request && STAILQ_EMPTY(&ch->queue);
}

void change_resume(struct change *ch)
{
	start_next(ch);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

void change_submit(struct change *ch, const struct change_request *request, int fd, change_done *done, void *arg)
{
	struct request *r = ch->queued < QUEUE_MAX ? calloc(1, sizeof(*r)) : NULL;
	if (!r) {
		struct change_result full = {0};
		lines_add(&full.errors, "too many changes are waiting: try again when they are through");
		if (done)
			done(arg, &full);
		lines_clear(&full.errors);
		if (fd >= 0)
			close(fd);
		return;
	}
	*r = (struct request){
		.action = copy(request->action), .name = copy(request->name), .source = copy(request->source),
		.author = copy(request->author), .version = request->version, .boot = request->boot, .fd = fd,
		.done = done, .arg = arg,
	};
	STAILQ_INSERT_TAIL(&ch->queue, r, link);
	ch->queued++;
	start_next(ch);
}

void change_forget(struct change *ch, const void *arg)
{
	struct request *r;
	STAILQ_FOREACH(r, &ch->queue, link)
		if (r->arg == arg)
			r->done = NULL;
	if (ch->request && ch->request->arg == arg)
		ch->request->done = NULL;
}

/* --- answers -------------------------------------------------------------------------------------------------------- */

/* The answer to "load" after config-sync fell while storing: did our generation get there? */
static void resolved(struct change *ch, const struct ipc_config_compiled *m)
{
	if (m->generation == ch->next.number)
		commit(ch);
	else
		fail(ch, "config-sync ended while it stored the configuration, and did not get to it");
}

static void take_compiled(struct change *ch, const struct ipc_config_compiled *m, int *fd)
{
	struct supervisor *s = ch->supervisor;
	ch->next = (struct generation){.number = m->generation, .memfd = *fd, .config = config_from_memfd(*fd)};
	*fd = -1;
	snprintf(ch->next.digest, sizeof(ch->next.digest), "%s", m->digest ? m->digest : "");
	ch->stored = m->unchanged || strcmp(ch->request->action, "load") == 0;
	if (!ch->next.config || !m->generation) {
		fail(ch, "config-sync handed over a configuration that cannot be read");
		return;
	}
	if (!s->in_force.number)
		pool_set_roles(s->pool, ch->next.config);
	set_phase(ch, PHASE_WAITING);
	change_progress(ch);
}

void change_compiled(struct change *ch, struct child *child, const struct ipc_config_compiled *m, int *fd)
{
	if (child->slot->child != child || m->id != ch->id || !ch->request)
		return;
	if (ch->phase == PHASE_RESOLVING) {
		resolved(ch, m);
		return;
	}
	if (ch->phase != PHASE_COMPILING)
		return;
	lines_add_all(&ch->result.errors, &m->errors);
	lines_add_all(&ch->result.warnings, &m->warnings);
	ch->result.unchanged = m->unchanged;
	ch->result.generation = m->generation;
	bool check = strcmp(ch->request->action, "check") == 0;
	if (*fd >= 0 && !check && (!m->unchanged || !ch->supervisor->in_force.number))
		take_compiled(ch, m, fd);
	else if (m->errors.n)
		check ? finish(ch, false) : fail(ch, NULL);
	else if (check || (m->unchanged && ch->supervisor->in_force.number))
		finish(ch, true);
	else
		fail(ch, "config-sync answered without a configuration");
}

void change_prepared(struct change *ch, struct child *child, uint64_t generation, const char *error)
{
	if (ch->phase != PHASE_PREPARING || generation != ch->next.number || child->slot->child != child)
		return;
	if (error)
		failf(ch, "%s: %s", child->slot->name, error);
	else if (all_prepared(ch))
		store(ch);
}

void change_stored(struct change *ch, struct child *child, const struct ipc_config_stored *m)
{
	(void)child;
	if (ch->phase != PHASE_STORING || m->id != ch->id)
		return;
	if (m->error)
		failf(ch, "the store did not take it: %s", m->error);
	else
		commit(ch);
}

void change_child_lost(struct change *ch, const struct child *child)
{
	bool sync = child->slot->role == IPC_CONFIG_SYNC;
	if (ch->phase == PHASE_PREPARING)
		failf(ch, "%s ended while it prepared the configuration", child->slot->name);
	else if (ch->phase == PHASE_COMPILING && sync)
		fail(ch, "config-sync ended while it compiled the configuration");
	else if (ch->phase == PHASE_STORING && sync)
		set_phase(ch, PHASE_RESOLVING);
}

/* Whom are we waiting for? */
static const char *laggard(const struct change *ch)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(ch->supervisor->pool), link) {
		const struct child *c = slot->child;
		if (slot->gone)
			continue;
		if (!c || (ch->phase == PHASE_PREPARING ? c->prepared != ch->next.number : c->state < CHILD_READY))
			return slot->name;
	}
	return "a worker";
}

static void limit_cb(evutil_socket_t fd, short what, void *arg)
{
	struct change *ch = arg;
	struct child *sync = config_sync(ch);
	(void)fd;
	(void)what;
	switch (ch->phase) {
	case PHASE_IDLE: break;
	case PHASE_SYNC: fail(ch, "config-sync is not there: try again, and see `hermes-admin workers list`"); break;
	case PHASE_COMPILING: fail(ch, "config-sync did not answer within 10 s"); break;
	case PHASE_WAITING: failf(ch, "%s was not ready within 10 s", laggard(ch)); break;
	case PHASE_PREPARING: failf(ch, "%s did not prepare it within 10 s", laggard(ch)); break;
	case PHASE_STORING:
		/* It may or may not be on disk: the successor will know. Meanwhile the workers stay prepared. */
		set_phase(ch, PHASE_RESOLVING);
		if (sync)
			child_kill(sync, "it did not store a configuration within 10 s");
		break;
	case PHASE_RESOLVING: set_phase(ch, PHASE_RESOLVING); break;
	}
}
