/* SPDX-License-Identifier: Apache-2.0 */
/* What two Hermes ends of a UDP or IP tunnel agree on (tunnel_header.h). An end is where a leg ends the capsule stream. */
#include <string.h>

#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/masque.h"

static bool ends(const struct leg *leg)
{
	return leg && leg->ops->joined;
}

static enum going_role role_of(const struct flow *flow)
{
	if (ends(flow->in))
		return ends(flow->out) ? GOING_BOTH : GOING_CLIENT;
	return ends(flow->out) ? GOING_FAR : GOING_RELAY;
}

void flow_tunnel_offer(struct flow *flow)
{
	if (!masque_is(flow->request))
		return;
	if (role_of(flow) == GOING_CLIENT)
		tunnel_header_set(flow->request, &(struct tunnel_header){.present = true, .segments = true});
	else
		tunnel_header_get(flow->request, &flow->asked_tunnel);
}

/* The far end says what it can; an id only where it is prepared to wait. */
static void agree_far(struct flow *flow, struct head *response)
{
	struct tunnel_header told = {.present = true, .segments = true};
	flow->join = (struct join){.fresh = true, .segments = flow->asked_tunnel.segments};
	head_remove(response, TUNNEL_HEADER);
	if (!flow->asked_tunnel.present)
		return;
	struct going *g = going_new(flow, GOING_FAR);
	if (flow->generation->config->resume_timeout > 0)
		going_name(g);
	told.has_id = g->has_id;
	memcpy(told.id, g->id, sizeof(told.id));
	tunnel_header_set(response, &told);
}

static void agree_client(struct flow *flow, const struct head *response)
{
	struct tunnel_header told;
	tunnel_header_get(response, &told);
	struct going *g = going_new(flow, GOING_CLIENT);
	g->has_id = told.has_id && flow->generation->config->resume_timeout > 0;
	memcpy(g->id, told.id, sizeof(g->id));
	flow->join = (struct join){.fresh = true, .segments = told.segments};
}

void flow_tunnel_agree(struct flow *flow, struct head *response)
{
	if (!flow->request->protocol || !masque_is(flow->request))
		return;
	switch (role_of(flow)) {
	case GOING_FAR:
		return agree_far(flow, response);
	case GOING_CLIENT:
		return agree_client(flow, response);
	case GOING_BOTH:
		flow->join = (struct join){.fresh = true, .segments = true};
		going_new(flow, GOING_BOTH);
		return;
	case GOING_RELAY:
		if (flow->asked_tunnel.present && head_get(response, TUNNEL_HEADER))
			going_new(flow, GOING_RELAY);
	}
}

void flow_tunnel_joined(struct flow *flow)
{
	if (flow->state != FLOW_STATE_ENDED && ends(flow->out))
		flow->out->ops->joined(flow->out, &flow->join);
	if (flow->state != FLOW_STATE_ENDED && ends(flow->in))
		flow->in->ops->joined(flow->in, &flow->join);
}
