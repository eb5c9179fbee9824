/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that come while flows are on their way from one worker to the next. */
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/handover.h"
#include "workers/tunnel/masque.h"

#define LATE_MS 200                   /* for a record that comes behind the others */

bool handover_awaited(const struct tunnel *tunnel)
{
	return tunnel->awaiting;
}

static bool is_here(const struct tunnel *tunnel, const struct tunnel_header *asked)
{
	struct going *g = NULL;
	if (asked->has_id)
		HASH_FIND(hh, tunnel->going, asked->id, sizeof(asked->id), g);
	return g;
}

/* A tunnel of ours that is to go on; or packets for a device whose addresses are still to come. */
static bool concerns(const struct flow *flow, const struct tunnel_header *asked)
{
	const struct tunnel *tunnel = flow->tunnel;
	uint8_t own = tunnel->worker ? (uint8_t)worker_index(tunnel->worker) : 0;
	return (asked->has_id && asked->id[0] == own) || (tunnel->awaiting && masque_is_ip(flow->request));
}

bool handover_hold(struct flow *flow)
{
	static const struct timeval soon = {.tv_usec = LATE_MS * 1000};
	struct tunnel *tunnel = flow->tunnel;
	struct tunnel_header asked;
	if ((!tunnel->awaiting && !tunnel->late && !tunnel->handed) || !flow->request || !flow->connect || flow->in->ops->joined || flow->offered)
		return false;
	tunnel_header_get(flow->request, &asked);
	if (is_here(tunnel, &asked))
		return false;
	if (tunnel->handed && asked.present) {       /* whoever offers to go on comes again, and then to the successor */
		flow_end(flow, FLOW_REFUSED_STREAM, FLOW_NONE);
		return true;
	}
	flow->held = concerns(flow, &asked);
	tunnel->n_held += flow->held;
	if (flow->held && !tunnel->awaiting && !event_pending(tunnel->late, EV_TIMEOUT, NULL))
		event_add(tunnel->late, &soon);
	return flow->held;
}

static bool may_go(const struct flow *flow)
{
	struct tunnel_header asked;
	tunnel_header_get(flow->request, &asked);
	return !concerns(flow, &asked) || is_here(flow->tunnel, &asked);
}

void handover_release(struct tunnel *tunnel, bool all)
{
	if (tunnel->n_held == 0)
		return;
	tunnel->n_held = 0;
	for (struct flow *flow = tunnel->flows, *next; flow; flow = next) {
		flow_enter(flow);              /* it stays until the next one is known */
		bool held = flow->held && flow->state != FLOW_STATE_ENDED;
		flow->held = held && !all && !may_go(flow);
		tunnel->n_held += flow->held;
		if (held && !flow->held)
			flow_released(flow);
		next = flow->next;
		flow_leave(flow);
	}
}
