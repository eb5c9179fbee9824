#include "supervisor/replace.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/introduce.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAINING_MAX 2         /* predecessors of one tunnel worker */
#define HANDOVER_MS 3000       /* a tunnel worker drains so long at least: its flows are to go over */
#define LINGER_MS 1000         /* what was asked of a worker before its successor was introduced is answered by then */

struct job {
	struct slot *slot;
	char *why;
	replace_done *done;
	void *arg;
	pid_t lost;               /* the new one, which failed: its end says more */
	STAILQ_ENTRY(job) link;
};

struct replace {
	struct supervisor *supervisor;
	STAILQ_HEAD(, job) queue;
	struct job *current;
	struct event *next;       /* one after the other, not one inside the other */
};

static void next_cb(evutil_socket_t fd, short what, void *arg);

struct replace *replace_new(struct supervisor *s)
{
	struct replace *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->supervisor = s;
	STAILQ_INIT(&r->queue);
	r->next = evtimer_new(s->base, next_cb, r);
	if (r->next)
		return r;
	free(r);
	return NULL;
}

static void job_free(struct job *job)
{
	if (job)
		free(job->why);
	free(job);
}

void replace_free(struct replace *r)
{
	if (!r)
		return;
	for (struct job *job; (job = STAILQ_FIRST(&r->queue));) {
		STAILQ_REMOVE_HEAD(&r->queue, link);
		job_free(job);
	}
	job_free(r->current);
	event_free(r->next);
	free(r);
}

bool replace_busy(const struct replace *r)
{
	return r->current != NULL;
}

bool replace_pending(const struct replace *r, const struct slot *slot)
{
	const struct job *job;
	STAILQ_FOREACH(job, &r->queue, link)
		if (!slot || job->slot == slot)
			return true;
	return r->current && (!slot || r->current->slot == slot);
}

/* --- ends ----------------------------------------------------------------------------------------------------------- */

static void end(struct replace *r, const char *error)
{
	struct job *job = r->current;
	r->current = NULL;
	if (error)
		log_error("worker not replaced", "worker=%s reason=%s", job->slot->name, log_value(error));
	else
		log_info("worker replaced", "worker=%s reason=%s", job->slot->name, log_value(job->why));
	if (job->done)
		job->done(job->arg, job->slot->name, error);
	job_free(job);
	change_resume(r->supervisor->change);
	replace_progress(r);
}

void replace_cancel(struct replace *r, const char *why)
{
	for (struct job *job; (job = STAILQ_FIRST(&r->queue));) {
		STAILQ_REMOVE_HEAD(&r->queue, link);
		if (job->done)
			job->done(job->arg, job->slot->name, why);
		job_free(job);
	}
	if (r->current)
		end(r, why);
}

void replace_forget(struct replace *r, const void *arg)
{
	struct job *job;
	STAILQ_FOREACH(job, &r->queue, link)
		if (job->arg == arg)
			job->done = NULL;
	if (r->current && r->current->arg == arg)
		r->current->done = NULL;
}

/* --- begins --------------------------------------------------------------------------------------------------------- */

/* config-sync, controller, keeper: two at a time would write the same files. */
static bool alone(enum ipc_role role)
{
	return IPC_BIT(role) & (IPC_SYNC | IPC_CTL | IPC_KEEP);
}

static void begin_alone(struct replace *r, struct slot *slot)
{
	char why[160] = "";
	if (spawn_check(&r->supervisor->spawner, slot->role, why, sizeof(why)))
		end(r, why);
	else
		pool_refill(slot);
}

static void begin(struct replace *r)
{
	struct slot *slot = r->current->slot;
	char why[160] = "";
	if (slot->gone)
		end(r, NULL);             /* the configuration took its place away */
	else if (!slot->child || alone(slot->role))
		begin_alone(r, slot);
	else if (pool_start_successor(slot, why, sizeof(why)))
		end(r, why);
}

static unsigned draining(const struct replace *r, const struct slot *slot)
{
	unsigned n = 0;
	const struct child *c;
	TAILQ_FOREACH(c, pool_children(r->supervisor->pool), link)
		n += c->slot == slot && slot->child != c && slot->role == IPC_TUNNEL;
	return n;
}

static bool can_begin(const struct replace *r, const struct slot *slot)
{
	const struct child *c = slot->child;
	return slot->gone || ((!c || c->state == CHILD_SERVING) && draining(r, slot) < DRAINING_MAX);
}

static void next_cb(evutil_socket_t fd, short what, void *arg)
{
	struct replace *r = arg;
	struct job *job = STAILQ_FIRST(&r->queue);
	(void)fd;
	(void)what;
	if (r->current || !job || !change_idle(r->supervisor->change) || !can_begin(r, job->slot))
		return;
	STAILQ_REMOVE_HEAD(&r->queue, link);
	r->current = job;
	log_info("worker is being replaced", "worker=%s reason=%s", job->slot->name, log_value(job->why));
	begin(r);
}

void replace_progress(struct replace *r)
{
	static const struct timeval now = {0};
	if (!r->current && !STAILQ_EMPTY(&r->queue))
		event_add(r->next, &now);
}

void replace_submit(struct replace *r, struct slot *slot, const char *why, replace_done *done, void *arg)
{
	struct job *job = calloc(1, sizeof(*job));
	if (!job) {
		if (done)
			done(arg, slot->name, "out of memory");
		return;
	}
	*job = (struct job){.slot = slot, .why = strdup(why), .done = done, .arg = arg};
	STAILQ_INSERT_TAIL(&r->queue, job, link);
	replace_progress(r);
}

/* --- the new one serves, or does not --------------------------------------------------------------------------------- */

/* Policies wait for their authorizers as long as they say. */
static unsigned linger(const struct replace *r, enum ipc_role role)
{
	const struct config *config = r->supervisor->in_force.config;
	unsigned ms = LINGER_MS;
	for (size_t i = 0; role == IPC_POLICY && config && i < config->n_policies; i++)
		if (config->policies[i].authorizer.address && config->policies[i].authorizer.timeout + LINGER_MS > ms)
			ms = config->policies[i].authorizer.timeout + LINGER_MS;
	return ms;
}

/* Both get an end of a channel, over which flows go from the old one to the new. With nobody there any more the channel ends at
 * once, which says as much. */
static void join(struct child *new, struct child *old)
{
	const struct ipc_peer m = {.role = IPC_TUNNEL, .index = new->slot->index};
	int pair[2];
	int error = ipc_pair(pair);
	if (error) {
		log_error("handover impossible", "worker=%s error=%s", new->slot->name, log_value(strerror(-error)));
		child_kill(new, "no channel for its predecessor");
		return;
	}
	child_send(new, IPC_MSG_PEER, &m, pair[0]);
	if (old)
		child_send(old, IPC_MSG_PEER, &m, pair[1]);
	close(pair[0]);
	close(pair[1]);
}

static void take_place(struct replace *r, struct child *new)
{
	struct slot *slot = new->slot;
	struct child *old = slot->child;
	const struct config *config = r->supervisor->in_force.config;
	slot->child = new;
	slot->successor = NULL;
	slot->restarts++;
	snprintf(old->end, sizeof(old->end), "%s", r->current ? r->current->why : "replaced");
	if (slot->role == IPC_TUNNEL) {
		join(new, old);
		child_stop(old, config && config->drain_timeout > HANDOVER_MS ? config->drain_timeout : HANDOVER_MS);
	} else {
		introduce(new);
		child_retire(old, linger(r, slot->role));
	}
}

void replace_served(struct replace *r, struct child *c)
{
	struct slot *slot = c->slot;
	if (slot->successor == c)
		take_place(r, c);
	else if (c->predecessor && slot->role == IPC_TUNNEL)
		join(c, NULL);            /* the old one fell meanwhile */
	else if (c->predecessor)
		introduce(c);
	if (r->current && r->current->slot == slot)
		end(r, NULL);
	else
		replace_progress(r);
}

void replace_lost(struct replace *r, const struct child *c)
{
	if (r->current && r->current->slot == c->slot)
		r->current->lost = c->pid;
}

void replace_reaped(struct replace *r, pid_t pid, const char *how)
{
	char why[512];
	if (!r->current || r->current->lost != pid) {
		replace_progress(r);
		return;
	}
	snprintf(why, sizeof(why), "the new one ended before it served (%s): the one before goes on", how);
	end(r, why);
}

void replace_not_started(struct replace *r, const struct slot *slot, const char *why)
{
	if (r->current && r->current->slot == slot)
		end(r, why);
}
