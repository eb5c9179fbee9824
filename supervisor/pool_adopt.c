/* The workers go over from one image of the supervisor to the next: the processes know nothing of it. */
#include "ipc/log.h"
#include "supervisor/child.h"
#include "supervisor/pool_internal.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>

/* Nobody is between two states, and nothing waits to be sent. */
bool pool_quiet(const struct pool *p)
{
	const struct child *c;
	const struct slot *slot;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->gone && (!slot->child || slot->child->state != CHILD_SERVING))
			return false;
	TAILQ_FOREACH(c, &p->children, link)
		if (c->state < CHILD_SERVING || (c->channel && ipc_backlog(c->channel)))
			return false;
	return true;
}

static int save_slot(const struct slot *slot, struct state *st)
{
	struct state_slot *x = STATE_ADD(st, slots);
	if (!x)
		return -ENOMEM;
	*x = (struct state_slot){
		.role = slot->role, .index = slot->index, .failures = slot->failures, .restarts = slot->restarts,
		.incarnations = slot->incarnations, .gone = slot->gone, .last_end = slot->last_end,
	};
	return 0;
}

int pool_save(const struct pool *p, struct state *st)
{
	const struct slot *slot;
	const struct child *c;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (save_slot(slot, st))
			return -ENOMEM;
	TAILQ_FOREACH(c, &p->children, link) {
		struct state_child *x = STATE_ADD(st, children);
		if (!x)
			return -ENOMEM;
		child_save(c, x);
	}
	return 0;
}

/* --- adopting -------------------------------------------------------------------------------------------------------- */

static int adopt_child(struct pool *p, const struct state_child *x)
{
	struct slot *slot = pool_find_slot(p, (enum ipc_role)x->role, x->index);
	struct child *c = slot ? child_adopt(p->supervisor, slot, x) : NULL;
	if (!c)
		return slot ? -ENOMEM : -EINVAL;
	TAILQ_INSERT_TAIL(&p->children, c, link);
	if (x->current && !slot->child && c->state != CHILD_DEAD && c->state != CHILD_STOPPING)
		slot->child = c;
	return 0;
}

int pool_adopt(struct pool *p, const struct state *st)
{
	struct slot *slot;
	int error = 0;
	for (size_t i = 0; i < st->n_slots && !error; i++) {
		const struct state_slot *x = &st->slots[i];
		slot = pool_add_slot(p, (enum ipc_role)x->role, x->index);
		if (!slot)
			return -ENOMEM;
		slot->failures = x->failures;
		slot->restarts = x->restarts;
		slot->incarnations = x->incarnations;
		slot->gone = x->gone;
		snprintf(slot->last_end, sizeof(slot->last_end), "%s", x->last_end ? x->last_end : "");
	}
	for (size_t i = 0; i < st->n_children && !error; i++)
		error = adopt_child(p, &st->children[i]);
	if (error)
		return error;
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->child && !slot->gone)
			event_active(slot->restart, EV_TIMEOUT, 0);
	return 0;
}
