/* SPDX-License-Identifier: Apache-2.0 */
/* What two Hermes ends of a tunnel agree on (tunnel_header.h). An end of a UDP or IP tunnel is where a leg ends the capsule stream;
 * that of a TCP tunnel where no further hop carries it by HTTP/2. */
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

/* --- TCP tunnels --------------------------------------------------------------------------------------------------------- */

static bool is_stream(const struct flow *flow)
{
	return flow->connect && !flow->protocol;
}

/* BOTH: plain bytes all the way. */
static enum going_role stream_role(const struct flow *flow)
{
	bool by_hop = flow->in && flow->in->ops->carries && flow->asked_tunnel.stream, on = flow->out->ops->carries;
	if (by_hop)
		return on ? GOING_RELAY : flow->out->ops->raw ? GOING_FAR : GOING_BOTH;
	return on && !flow->origin->inner ? GOING_CLIENT : GOING_BOTH;
}

/* Early bytes are kept from here on, those that waited already among them. */
static void offer_stream(struct flow *flow)
{
	tunnel_header_get(flow->request, &flow->asked_tunnel);
	enum going_role role = stream_role(flow);
	flow->offered = role == GOING_CLIENT && flow->generation->config->resume_timeout > 0;
	if (role != GOING_RELAY)
		head_remove(flow->request, TUNNEL_HEADER);
	if (!flow->offered)
		return;
	if (flow->replay.bytes != flow->up.bytes && flow->up.held.bytes == flow->up.bytes) {
		chunks_clear(&flow->replay);
		chunks_share(&flow->replay, &flow->up.held);
	}
	flow->offered = flow->replay.bytes == flow->up.bytes;
	if (flow->offered)
		tunnel_header_set(flow->request, &(struct tunnel_header){.present = true, .stream = true});
}

/* What came so far is plain, and so is what comes before the mark. */
static void agree_stream_far(struct flow *flow, struct head *response)
{
	struct tunnel_header told = {.present = true, .stream = true, .has_id = true};
	head_remove(response, TUNNEL_HEADER);
	if (flow->generation->config->resume_timeout == 0 || flow->asked_tunnel.has_id || flow->up.ended)
		return;
	struct going *g = going_new(flow, GOING_FAR);
	going_name(g);
	if (!g->has_id) {
		flow->going = NULL;
		return going_free(g);
	}
	g->stream = true;
	g->reader = (struct stream_reader){.received = flow->up.bytes, .early = true};
	memcpy(g->reader.mark, g->id, sizeof(g->reader.mark));
	memcpy(told.id, g->id, sizeof(told.id));
	tunnel_header_set(response, &told);
}

static void agree_stream_client(struct flow *flow, struct head *response)
{
	struct tunnel_header told;
	tunnel_header_get(response, &told);
	head_remove(response, TUNNEL_HEADER);
	if (!flow->offered || !told.stream || !told.has_id)
		return;
	struct going *g = going_new(flow, GOING_CLIENT);
	g->stream = g->has_id = true;
	memcpy(g->id, told.id, sizeof(g->id));
	stream_open_client(g);
}

static void agree_stream(struct flow *flow, struct head *response)
{
	switch (stream_role(flow)) {
	case GOING_FAR:
		return agree_stream_far(flow, response);
	case GOING_CLIENT:
		return agree_stream_client(flow, response);
	case GOING_RELAY:
		if (head_get(response, TUNNEL_HEADER))
			going_new(flow, GOING_RELAY)->stream = true;
		return;
	case GOING_BOTH:
		head_remove(response, TUNNEL_HEADER);
	}
}

/* --- UDP and IP tunnels --------------------------------------------------------------------------------------------------- */

void flow_tunnel_offer(struct flow *flow)
{
	if (is_stream(flow))
		return offer_stream(flow);
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
	if (is_stream(flow))
		return agree_stream(flow, response);
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
