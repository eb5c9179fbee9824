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

/* How `child` is called towards `other`. */
static struct ipc_peer name(const struct child *child, const struct child *other)
{
	bool seat = child->slot->role == IPC_TUNNEL && (other->slot->role == IPC_POLICY || other->slot->role == IPC_ROUTER);
	return (struct ipc_peer){.role = child->slot->role, .index = seat ? child->seat : child->slot->index};
}

static void introduce_two(struct child *a, struct child *b)
{
	const struct ipc_peer of_a = name(a, b), of_b = name(b, a);
	int pair[2];
	int error = ipc_pair(pair);
	if (error) {
		log_error("introduction failed", "worker=%s peer=%s error=%s", a->slot->name, b->slot->name,
		          log_value(strerror(-error)));
		return;
	}
	child_send(a, IPC_MSG_PEER, &of_b, pair[0]);
	child_send(b, IPC_MSG_PEER, &of_a, pair[1]);
	close(pair[0]);
	close(pair[1]);
}

/* Tunnel workers that drain go on asking; a successor of who is asked is introduced when it serves. */
static bool takes_part(const struct child *c)
{
	if (c->slot->role == IPC_TUNNEL)
		return c->state != CHILD_STARTING && c->state != CHILD_DEAD;
	return c->slot->child == c && c->state != CHILD_STARTING && c->state != CHILD_DEAD;
}

void introduce(struct child *child)
{
	struct child *other, *next;
	for (other = TAILQ_FIRST(pool_children(child->supervisor->pool)); other; other = next) {
		next = TAILQ_NEXT(other, link);
		if (other->slot != child->slot && takes_part(other) && introduce_talk(child->slot->role, other->slot->role))
			introduce_two(child, other);
	}
}
