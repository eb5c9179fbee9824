#include "supervisor/introduce.h"
#include "ipc/log.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <string.h>
#include <unistd.h>

/* Everybody hands telemetry its counters; the others are a question's way round, and health. */
static const unsigned talks_to[IPC_ROLE_COUNT] = {
	[IPC_TUNNEL] = IPC_BIT(IPC_POLICY) | IPC_BIT(IPC_ROUTER) | IPC_TELE,
	[IPC_POLICY] = IPC_BIT(IPC_ROUTER) | IPC_TELE,
	[IPC_ROUTER] = IPC_TELE,
	[IPC_TUN_BRIDGE] = IPC_TELE,
	[IPC_CONFIG_SYNC] = IPC_TELE | IPC_KEEP,
	[IPC_CONTROLLER] = IPC_KEEP,
};

bool introduce_talk(enum ipc_role a, enum ipc_role b)
{
	return talks_to[a] & IPC_BIT(b) || talks_to[b] & IPC_BIT(a);
}

static void introduce_two(struct child *a, struct child *b)
{
	int pair[2];
	int error = ipc_pair(pair);
	if (error) {
		log_error("introduction failed", "worker=%s peer=%s error=%s", a->slot->name, b->slot->name,
		          log_value(strerror(-error)));
		return;
	}
	child_send(a, IPC_MSG_PEER, &(struct ipc_peer){.role = b->slot->role, .index = b->slot->index}, pair[0]);
	child_send(b, IPC_MSG_PEER, &(struct ipc_peer){.role = a->slot->role, .index = a->slot->index}, pair[1]);
	close(pair[0]);
	close(pair[1]);
}

void introduce(struct child *child)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(child->supervisor->pool), link) {
		struct child *other = slot->child;
		if (!other || other == child || other->state == CHILD_STARTING || other->state == CHILD_DEAD)
			continue;
		if (introduce_talk(child->slot->role, slot->role))
			introduce_two(child, other);
	}
}
