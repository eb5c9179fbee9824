#include "workers/tunnel/flow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/probe.h"

#define INFORMATIONAL_MAX 100u    /* 1xx responses that are passed on, over all attempts */

const char *flow_state_name(enum flow_state state)
{
	static const char *const names[] = {
#define S(ID) [FLOW_STATE_##ID] = #ID,
		FLOW_STATES(S)
#undef S
	};
	return names[state];
}

void flow_set_state(struct flow *flow, enum flow_state state)
{
	if (flow->state == state || flow->state == FLOW_STATE_ENDED)
		return;
	log_debug("flow", "id=%llu from=%s to=%s", (unsigned long long)flow->id, flow_state_name(flow->state),
	          flow_state_name(state));
	flow->state = state;
}

const struct head *flow_request(const struct flow *flow)
{
	return flow->request;
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

static void flow_free(struct flow *flow)
{
	struct tunnel *tunnel = flow->tunnel;
	if (flow->prev)
		flow->prev->next = flow->next;
	else
		tunnel->flows = flow->next;
	if (flow->next)
		flow->next->prev = flow->prev;
	tunnel->n_flows--;
	redecide_forget(tunnel->redecide, flow);
	event_del(&flow->timer);
	struct side *sides[] = {&flow->up, &flow->down};
	for (int i = 0; i < 2; i++) {
		chunks_clear(&sides[i]->held);
		head_free(sides[i]->trailers);
	}
	chunks_clear(&flow->replay);
	head_free(flow->request);
	going_free(flow->going);
	own_origin_free(flow->own);
	decision_unref(flow->decision);
	generation_unref(flow->generation);
	probe_free(flow->probe);
	free(flow->asked_head);
	free(flow->user), free(flow->method), free(flow->protocol), free(flow->authority), free(flow->path);
	free(flow);
}

void flow_enter(struct flow *flow)
{
	flow->busy++;
}

void flow_leave(struct flow *flow)
{
	if (--flow->busy == 0 && flow->state == FLOW_STATE_ENDED)
		flow_free(flow);
}

static char *copy(const char *text)
{
	return text ? strndup(text, 1024) : NULL;
}

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	struct flow *flow = calloc(1, sizeof(*flow));
	if (!flow)
		abort();
	*flow = (struct flow){.tunnel = tunnel, .origin = origin, .in = leg, .request = request, .id = ++tunnel->flow_id,
	                      .generation = generation_ref(tunnel->current), .began = now_us(), .request_end_first = end,
	                      .connect = head_is_connect(request), .replayable = true, .next = tunnel->flows};
	flow->last = flow->began;
	flow->method = copy(request->method), flow->protocol = copy(request->protocol);
	flow->authority = copy(request->authority), flow->path = copy(request->path);
	if (flow->next)
		flow->next->prev = flow;
	tunnel->flows = flow;
	tunnel->n_flows++;
	leg->flow = flow;
	flow->up.ended = end;
	event_assign(&flow->timer, tunnel->base, -1, 0, flow_on_timer, flow);
	stats_add(origin->listener->stats, STATS_LISTENER_FLOWS, 1);
	stats_add(origin->listener->stats, STATS_LISTENER_FLOWS_OPEN, 1);
	flow_enter(flow);
	flow_begin(flow);
	flow_leave(flow);
	return flow;
}

/* --- moving ---------------------------------------------------------------------------------------------------------- */

/* The end of an exchange: both ways of a tunnel, or the response of a request (what is left of its body is not wanted). */
static void check_end(struct flow *flow)
{
	if (flow->state == FLOW_STATE_ENDED || !flow->down.finished)
		return;
	if (flow->up.finished)
		flow_end(flow, FLOW_NONE, FLOW_NONE);
	else if (!flow->tunnel_open)
		flow_end(flow, FLOW_NONE, FLOW_CANCELLED);
}

void flow_pump(struct flow *flow, bool up)
{
	struct side *side = up ? &flow->up : &flow->down;
	struct leg *near = up ? flow->in : flow->out, *far = up ? flow->out : flow->in;
	if (!far || !(up ? flow->out_ready : flow->head_sent) || side->finished)
		return;
	if (side->held.head) {
		if (up && flow_offer_waits(flow, false))
			return;
		if (!far->ops->send(far, &side->held))
			return chunks_settle(&side->held);
		size_t taken = going_credits(flow, up) ? side->untaken : 0;
		side->untaken -= taken;
		if (near && taken)
			near->ops->taken(near, taken);
		if (flow->going)
			going_sent(flow, up);
	}
	if (!side->ended || flow->state == FLOW_STATE_ENDED || (up && flow_offer_waits(flow, true)))
		return;
	side->finished = true;
	far->ops->finish(far, side->trailers);
	check_end(flow);
	if (flow->going)
		stream_check(flow);
}

static void keep_for_replay(struct flow *flow, struct chunks *chunks)
{
	if ((!flow->replayable && !flow->offered) || flow->head_sent)
		return;
	if ((flow->replay.bytes + chunks->bytes > flow->generation->config->replay_bytes && !flow->offered) || flow->tunnel_open) {
		flow->replayable = false;
		return chunks_clear(&flow->replay);
	}
	chunks_share(&flow->replay, chunks);
	chunks_settle(&flow->replay);
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	bool up = leg == flow->in;
	struct side *side = up ? &flow->up : &flow->down;
	if (way_is(flow, leg)) {
		flow_enter(flow);
		way_data(flow, leg, chunks);
		return flow_leave(flow);
	}
	/* an answer of our own is under way: nobody wants the rest */
	if ((side->finished || side->ended) && !going_listens(flow, up)) {
		leg->ops->taken(leg, chunks->bytes);
		return chunks_clear(chunks);
	}
	flow_enter(flow);
	flow->last = now_us();
	side->bytes += chunks->bytes;
	side->untaken += chunks->bytes;
	if (up && !flow->head_sent)
		keep_for_replay(flow, chunks);
	if (flow->going)
		going_data(flow, up, chunks);
	chunks_move(&side->held, chunks);
	flow_pump(flow, up);
	if (flow->going && flow->state != FLOW_STATE_ENDED)
		going_received(flow);
	flow_leave(flow);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	bool up = leg == flow->in;
	struct side *side = up ? &flow->up : &flow->down;
	if ((side->ended && !going_listens(flow, up)) || way_is(flow, leg)) {
		head_free(trailers);
		flow_enter(flow);
		if (way_is(flow, leg))
			way_finish(flow, leg);
		return flow_leave(flow);
	}
	flow_enter(flow);
	if (flow->going && going_finish(flow, up)) {
		head_free(trailers);
		return flow_leave(flow);
	}
	side->ended = true;
	side->trailers = trailers;
	if (up && trailers)             /* somebody behind us may merge them into the head (RFC 9110 6.5.1) */
		fields_clean_request(trailers, flow->generation->config, flow->origin->listener->config, flow->origin->peer_rule);
	flow_pump(flow, up);
	/* Nobody is there to be told: it need not be waited for. */
	if (flow->state == FLOW_STATE_PARKED || flow->state == FLOW_STATE_RESUMING)
		flow_end(flow, FLOW_NONE, FLOW_NONE);
	flow_leave(flow);
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	flow_enter(flow);
	if (!way_is(flow, leg))
		flow_pump(flow, leg == flow->out);
	flow_leave(flow);
}

/* --- heads ----------------------------------------------------------------------------------------------------------- */

static void count_status(struct flow *flow, unsigned status)
{
	static const enum stats_metric metric[] = {
		[1] = STATS_LISTENER_STATUS_1XX, [2] = STATS_LISTENER_STATUS_2XX, [3] = STATS_LISTENER_STATUS_3XX,
		[4] = STATS_LISTENER_STATUS_4XX, [5] = STATS_LISTENER_STATUS_5XX};
	if (status >= 100 && status < 600)
		stats_add(flow->origin->listener->stats, metric[status / 100], 1);
}

/* From here on nothing can be tried again. */
static void forget_request(struct flow *flow)
{
	flow->replayable = false;
	chunks_clear(&flow->replay);
	head_free(flow->request);
	flow->request = NULL;
}

static void pass_final(struct flow *flow, struct head *response, bool end)
{
	bool open = flow->connect && response->status < 300;
	flow->status = response->status;
	flow->tunnel_open = open;
	flow->first = now_us();
	cluster_report(flow->tunnel->clusters, flow->decision->cluster, flow->used.number, response->status < 500);
	stats_observe(flow->decision->cluster_stats, STATS_CLUSTER_FIRST_BYTE, flow->first - flow->opened);
	fields_response(response, flow->generation->config, flow->out->ops->kind);
	flow_set_state(flow, FLOW_STATE_STREAMING);
	flow->head_sent = true;
	if (open)
		flow_tunnel_agree(flow, response);
	forget_request(flow);
	if (!open && end)
		flow->down.ended = true;
	if (flow->connect && !open)
		flow->up.ended = flow->up.finished = true;   /* no tunnel: what the client sends has nowhere to go */
	flow->in->ops->head(flow->in, response, end && !open);
	if (flow->down.ended)
		flow->down.finished = true;
	flow_arm(flow);
	if (open)
		flow_tunnel_joined(flow);
	check_end(flow);
}

/* They are not subject to flow control: an endless row of them would pile up before a client that does not read. */
static void pass_informational(struct flow *flow, const struct head *response)
{
	if (++flow->informational > INFORMATIONAL_MAX)
		flow_fail(flow, FLOW_RESPONSE, "too many 1xx responses");
	else
		flow->in->ops->head(flow->in, response, false);
}

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	flow_enter(flow);
	flow->last = now_us();
	if (way_is(flow, leg)) {
		way_head(flow, leg, response);
		head_free(response);
		return flow_leave(flow);
	}
	count_status(flow, response->status);
	if (response->status < 200)
		pass_informational(flow, response);
	else if (!flow_retry(flow, FLOW_NONE, response->status)) {
		pass_final(flow, response, end);
		if (flow->state != FLOW_STATE_ENDED)
			flow_pump(flow, false);
		if (flow->state != FLOW_STATE_ENDED)
			flow_pump(flow, true);
	}
	head_free(response);
	flow_leave(flow);
}

/* --- ends ------------------------------------------------------------------------------------------------------------ */

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	flow_enter(flow);
	if (way_is(flow, leg)) {
		way_gone(flow, leg, detail);
	} else if (leg == flow->in) {
		flow->in = NULL;
		if (flow->going && (going_park(flow, detail) || going_forsake(flow, detail)))
			return flow_leave(flow);
		if (!flow->error)
			flow->error = FLOW_CANCELLED;
		if (!flow->detail[0])
			snprintf(flow->detail, sizeof(flow->detail), "client: %s", detail);
		flow_end(flow, FLOW_NONE, FLOW_CANCELLED);
	} else {
		flow->out = NULL;
		flow->out_ready = false;
		/* The response is whole: the client gets it, however the rest went. */
		if (flow->down.ended && !flow->tunnel_open)
			flow_pump(flow, false);
		else if (!flow->going || !way_broken(flow, detail))
			flow_fail(flow, error, detail);
	}
	flow_leave(flow);
}
