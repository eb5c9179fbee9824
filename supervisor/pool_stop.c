/* The end of all workers. */
#include "supervisor/pool_internal.h"
#include "supervisor/supervisor.h"

#include <event2/event.h>

/* Tunnels first, then those they ask, telemetry last: it writes the records of the flows that end now. */
void pool_stop_step(struct pool *p)
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
		if (turn && (c->state != CHILD_STOPPING || c->stop_at) && c->state != CHILD_DEAD)
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
	pool_stop_step(p);
}
