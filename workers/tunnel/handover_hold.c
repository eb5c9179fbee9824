/* SPDX-License-Identifier: Apache-2.0 */
/* Streams that come while flows are on their way from one worker to the next. */
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/handover.h"
#include "workers/tunnel/masque.h"

bool handover_awaited(const struct tunnel *tunnel)
{
	return tunnel->awaiting;
}

/* A tunnel of ours that is to go on; or packets for a device whose addresses are still to come. */
static bool concerns(const struct flow *flow, const struct tunnel_header *asked)
{
	uint8_t own = flow->tunnel->worker ? (uint8_t)worker_index(flow->tunnel->worker) : 0;
	return (asked->has_id && asked->id[0] == own) || masque_is_ip(flow->request);
}

bool handover_hold(struct flow *flow)
{
	const struct tunnel *tunnel = flow->tunnel;
	struct tunnel_header asked;
	if ((!tunnel->awaiting && !tunnel->handed) || !flow->request || !masque_is(flow->request) || flow->in->ops->joined)
		return false;
	tunnel_header_get(flow->request, &asked);
	if (tunnel->handed && asked.present) {       /* whoever offers to go on comes again, and then to the successor */
		flow_end(flow, FLOW_REFUSED_STREAM, FLOW_NONE);
		return true;
	}
	flow->held = tunnel->awaiting && concerns(flow, &asked);
	return flow->held;
}

void handover_release(struct tunnel *tunnel)
{
	for (struct flow *flow = tunnel->flows, *next; flow; flow = next) {
		flow_enter(flow);              /* it stays until the next one is known */
		bool held = flow->held && flow->state != FLOW_STATE_ENDED;
		flow->held = false;
		if (held)
			flow_released(flow);
		next = flow->next;
		flow_leave(flow);
	}
}
