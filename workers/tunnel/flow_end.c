/* The other half of a flow's life: what goes wrong, and the record. */
#include <stdio.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/records.h"

static void release_questions(struct flow *flow)
{
	if (flow->auth)
		auth_cancel(flow->auth);
	if (flow->query)
		ask_cancel(flow->query);
	if (flow->attempt)
		attempt_cancel(flow->attempt);
	flow->auth = NULL;
	flow->query = NULL;
	flow->attempt = NULL;
}

/* --- the record ------------------------------------------------------------------------------------------------------ */

static uint64_t span(uint64_t from, uint64_t to)
{
	return from && to > from ? to - from : 0;
}

static void write_record(struct flow *flow, const char *event, uint64_t now)
{
	const struct origin *o = flow->origin;
	const struct decision *d = flow->decision;
	struct ipc_strs policies = {d ? (const char **)d->policies.v : NULL, d ? d->policies.n : 0};
	struct ipc_flow_record record = {
		.event = event, .time = (int64_t)wall_us(), .id = flow->id, .listener = o->listener->name,
		.carry_in = o->carry, .source = o->source_text, .peer = o->peer, .user = flow->user,
		.method = flow->method, .protocol = flow->protocol, .authority = flow->authority, .path = flow->path,
		.status = flow->status, .route = d ? d->route : NULL, .policies = policies, .cluster = d ? d->cluster : NULL,
		.endpoint = flow->used.endpoint[0] ? flow->used.endpoint : NULL,
		.next_hop = flow->used.address[0] ? flow->used.address : NULL,
		.bytes_in = flow->up.bytes, .bytes_out = flow->down.bytes, .attempts = flow->attempts,
		.ask = span(flow->asked, flow->decided), .connect = span(flow->opening, flow->opened),
		.first = span(flow->began, flow->first), .total = span(flow->began, now),
		.result = fields_error_token(flow->error), .detail = flow->detail[0] ? flow->detail : NULL};
	records_add(flow->tunnel->records, &record);
}

void flow_record_start(struct flow *flow)
{
	const struct config_telemetry *t = &flow->generation->config->telemetry;
	if (flow->probe)
		return;
	for (size_t i = 0; i < t->n_access_log; i++)
		if (t->access_log[i].start)
			return write_record(flow, "start", now_us());
}

static void count_end(struct flow *flow, uint64_t now)
{
	struct stats_set *listener = flow->origin->listener->stats;
	stats_add(listener, STATS_LISTENER_FLOWS_OPEN, -1);
	stats_add(listener, STATS_LISTENER_BYTES_IN, (int64_t)flow->up.bytes);
	stats_add(listener, STATS_LISTENER_BYTES_OUT, (int64_t)flow->down.bytes);
	stats_observe(listener, STATS_LISTENER_DURATION, now - flow->began);
	if (!flow->decision || !flow->decision->cluster_stats)
		return;
	stats_add(flow->decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, -1);
	stats_add(flow->decision->cluster_stats, STATS_CLUSTER_BYTES_OUT, (int64_t)flow->up.bytes);
	stats_add(flow->decision->cluster_stats, STATS_CLUSTER_BYTES_IN, (int64_t)flow->down.bytes);
	if (!flow->decision->route_stats)
		return;
	stats_add(flow->decision->route_stats, STATS_ROUTE_BYTES_OUT, (int64_t)flow->up.bytes);
	stats_add(flow->decision->route_stats, STATS_ROUTE_BYTES_IN, (int64_t)flow->down.bytes);
	stats_observe(flow->decision->route_stats, STATS_ROUTE_DURATION, now - flow->began);
}

void flow_end(struct flow *flow, enum flow_error in, enum flow_error out)
{
	if (flow->state == FLOW_STATE_ENDED)
		return;
	uint64_t now = now_us();
	if (flow->going && going_end(flow))
		in = FLOW_NONE;
	flow_set_state(flow, FLOW_STATE_ENDED);
	release_questions(flow);
	count_end(flow, now);
	if (flow->generation->config->telemetry.n_access_log > 0 && !flow->origin->inner && !flow->probe)   /* probes are many */
		write_record(flow, "end", now);
	struct leg *in_leg = flow->in, *out_leg = flow->out;
	flow->in = flow->out = NULL;
	if (in_leg)
		in_leg->ops->close(in_leg, in);
	if (out_leg)
		out_leg->ops->close(out_leg, out);
}

void flow_vanish(struct flow *flow)
{
	struct leg *in = flow->in, *out = flow->out;
	if (flow->state == FLOW_STATE_ENDED)
		return;
	flow->in = flow->out = NULL;
	if (flow->going)
		going_end(flow);
	flow_set_state(flow, FLOW_STATE_ENDED);
	release_questions(flow);
	stats_add(flow->origin->listener->stats, STATS_LISTENER_FLOWS_OPEN, -1);
	if (flow->decision && flow->decision->cluster_stats)
		stats_add(flow->decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, -1);
	if (in)
		in->ops->close(in, FLOW_CANCELLED);
	if (out)
		out->ops->close(out, FLOW_CANCELLED);
}

/* --- errors ---------------------------------------------------------------------------------------------------------- */

static void count_failure(struct flow *flow, enum flow_error error)
{
	static const enum stats_metric metric[] = {
#define E(ID, status, token, retry, metric_) [FLOW_##ID] = STATS_CLUSTER_FAIL_##metric_,
		FLOW_ERRORS(E)
#undef E
	};
	if (flow->decision && flow->decision->cluster_stats && error != FLOW_NONE)
		stats_add(flow->decision->cluster_stats, metric[error], 1);
}

void flow_answer(struct flow *flow, unsigned status, enum flow_error error, const char *detail)
{
	char body[512] = "";
	const struct config *config = flow->generation->config;
	flow->error = error;
	flow->status = status ? status : fields_error_status(error);
	snprintf(flow->detail, sizeof(flow->detail), "%s", detail ? detail : "");
	release_questions(flow);
	bool with_body = flow->method && strcmp(flow->method, "HEAD") != 0 && flow->status != 204;
	struct head *head = fields_error_response(error, flow->status, config->node_name, detail, with_body, body,
	                                          sizeof(body));
	if (flow->status == 407)
		head_add(head, "proxy-authenticate", "Basic realm=\"hermes\"");
	static const enum stats_metric classes[] = {[4] = STATS_LISTENER_STATUS_4XX, [5] = STATS_LISTENER_STATUS_5XX};
	if (flow->status >= 400 && flow->status < 600)
		stats_add(flow->origin->listener->stats, classes[flow->status / 100], 1);
	if (flow->out)
		flow->out->ops->close(flow->out, FLOW_CANCELLED);
	flow->out = NULL;
	flow->resume_at = 0;
	chunks_clear(&flow->replay);
	chunks_clear(&flow->up.held);
	flow_set_state(flow, FLOW_STATE_STREAMING);
	flow->head_sent = true;
	flow->up.ended = flow->up.finished = true;
	bool end = body[0] == '\0';
	flow->down.ended = flow->down.finished = end;
	flow->in->ops->head(flow->in, head, end);
	head_free(head);
	if (end)
		return flow_end(flow, FLOW_NONE, FLOW_NONE);
	chunks_copy(&flow->down.held, body, strlen(body));
	flow->down.bytes += flow->down.held.bytes;
	flow->down.ended = true;
	flow_pump(flow, false);         /* ends the flow; where the leg refuses (what was pipelined waits before it), later */
}

void flow_fail(struct flow *flow, enum flow_error error, const char *detail)
{
	count_failure(flow, error);
	if (flow->state == FLOW_STATE_ENDED || flow_retry(flow, error, 0))
		return;
	if (!flow->head_sent)
		return flow_answer(flow, 0, error, detail);
	flow->error = error;
	snprintf(flow->detail, sizeof(flow->detail), "%s", detail ? detail : "");
	flow_end(flow, error, error);
}
