/* SPDX-License-Identifier: Apache-2.0 */
/* What two Hermes ends of a UDP or IP tunnel agree on (tunnel_header.h). An end is where a leg ends the capsule stream. */
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/masque.h"

static bool client_end(const struct flow *flow)
{
	return flow->in && flow->in->ops->joined && !(flow->out && flow->out->ops->joined);
}

static bool far_end(const struct flow *flow)
{
	return flow->out && flow->out->ops->joined && !(flow->in && flow->in->ops->joined);
}

void flow_tunnel_offer(struct flow *flow)
{
	if (!masque_is(flow->request))
		return;
	if (client_end(flow))
		tunnel_header_set(flow->request, &(struct tunnel_header){.present = true, .segments = true});
	else if (far_end(flow))
		tunnel_header_get(flow->request, &flow->asked_tunnel);
}

void flow_tunnel_agree(struct flow *flow, struct head *response)
{
	struct tunnel_header told;
	if (far_end(flow)) {
		flow->join = (struct join){.fresh = true, .segments = flow->asked_tunnel.present && flow->asked_tunnel.segments};
		if (flow->asked_tunnel.present)
			tunnel_header_set(response, &(struct tunnel_header){.present = true, .segments = true});
	} else if (client_end(flow)) {
		tunnel_header_get(response, &told);
		flow->join = (struct join){.fresh = true, .segments = told.present && told.segments};
	} else {
		flow->join = (struct join){.fresh = true, .segments = true};   /* both ends are ours */
	}
}

void flow_tunnel_joined(struct flow *flow)
{
	if (flow->state != FLOW_STATE_ENDED && flow->out && flow->out->ops->joined)
		flow->out->ops->joined(flow->out, &flow->join);
	if (flow->state != FLOW_STATE_ENDED && flow->in && flow->in->ops->joined)
		flow->in->ops->joined(flow->in, &flow->join);
}
