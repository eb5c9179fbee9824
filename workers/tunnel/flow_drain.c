/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels whose client ends are asked to open them anew, because the worker stops or the route leads elsewhere. */
#include "workers/tunnel/flow_drain.h"

#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/flow_resume.h"

void going_ask_to_move(struct flow *flow)
{
	struct going *g = flow->going;
	struct side *side = &flow->down;
	if (side->ended)
		return;
	log_info("tunnel to be moved", "id=%llu user=%s authority=%s detail=\"by its client end\"", (unsigned long long)flow->id,
	         log_value(flow->user), log_value(flow->authority));
	if (g->role == GOING_RELAY && !capsule_at_boundary(&g->from.cursor)) {
		g->move_due = true;
		return;
	}
	capsule_put(&side->held, CAPSULE_HERMES_MOVE, NULL, 0);
	flow_pump(flow, false);
}

/* A node's question to its controller, which waits for a new configuration, or for a controller that is away: the drain does not
 * wait with it. */
static bool control_poll(const struct flow *flow)
{
	const char *listener = flow->origin->listener->name;
	bool asks = flow->method && !strcmp(flow->method, "GET") && !flow->head_sent;
	return asks && (!strcmp(listener, CONFIG_CONTROL) || (!strcmp(listener, CONFIG_CONTROLLER) && flow->state == FLOW_STATE_WAITING));
}

static bool to_be_told(const struct flow *flow)
{
	const struct going *g = flow->going;
	return (g->role == GOING_FAR || g->role == GOING_RELAY) && flow->state == FLOW_STATE_STREAMING;
}

static void drain(struct flow *flow)
{
	const struct going *g = flow->going;
	if (control_poll(flow))
		return flow_answer(flow, 204, FLOW_NONE, NULL);   /* nothing new: it asks again, our successor */
	if (!g || (flow->tunnel->handed && g->role == GOING_FAR && g->stream))
		return;                    /* handed: it goes to the successor yet, or to its end */
	if (flow->state == FLOW_STATE_PARKED)
		flow_end(flow, FLOW_TERMINATED, FLOW_TERMINATED);
	else if (to_be_told(flow))
		going_ask_to_move(flow);
}

void flows_drain(struct tunnel *tunnel)
{
	for (struct flow *flow = tunnel->flows, *next; flow; flow = next) {
		next = flow->next;
		flow_enter(flow);
		drain(flow);
		flow_leave(flow);
	}
}
