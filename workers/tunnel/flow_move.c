/* SPDX-License-Identifier: Apache-2.0 */
/* The client end of a tunnel seeks another way: because the one it had broke (RESUMING), or because it leads elsewhere now: then
 * the new one is open before the old one closes. The same far end (`joined`) goes on where it was; with another one new
 * capsules take the new way, while what the old one still gives is delivered. */
#include <stdio.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/masque.h"

#define WAY_US 10000000u              /* for a way to open */
#define DRAIN_US 2000000u             /* for what is under way on the old one */
#define RESTORED_MS 10000u            /* from another worker, where nothing else says how long */
#define BACKOFF_US 50000u             /* doubles, with jitter */
#define BACKOFF_RESUMING 4u           /* times doubled at most: users wait */
#define BACKOFF_MOVING 9u

static void move(struct flow *flow);

const struct decision *way_decision(const struct flow *flow)
{
	return flow->going && flow->going->decision ? flow->going->decision : flow->decision;
}

static void say(const struct flow *flow, const char *event, const char *why)
{
	const struct going *g = flow->going;
	log_info(event, "id=%llu user=%s authority=%s cluster=%s endpoint=%s detail=%s", (unsigned long long)flow->id,
	         log_value(flow->user), log_value(flow->authority), log_value(way_decision(flow)->cluster),
	         log_value(g->used.endpoint), log_value(why));
}

/* --- opening ---------------------------------------------------------------------------------------------------------- */

/* Whatever is being opened is not wanted any more. */
static void drop_next(struct flow *flow)
{
	struct going *g = flow->going;
	struct leg *next = g->next;
	if (flow->attempt)
		attempt_cancel(flow->attempt);
	flow->attempt = NULL;
	g->next = NULL;
	g->way_until = 0;
	if (next)
		next->ops->close(next, FLOW_CANCELLED);
	head_free(flow->request);
	flow->request = NULL;
}

static void forget_decision(struct going *g)
{
	decision_unref(g->decision);
	g->decision = NULL;
}

/* Takes over the reference. */
static void want(struct going *g, struct decision *decision)
{
	decision_unref(g->decision);
	g->decision = decision;
}

/* The request as it left first, but for what the decision says now. */
static struct head *request(const struct flow *flow, const struct decision *decision)
{
	const struct origin *o = flow->origin;
	struct head *head = flow_asked(flow);
	fields_apply(head, &decision->add_headers, &decision->remove_headers);
	fields_forward(head, flow->tunnel->current->config, o->carry, o->listener->config->accept != CONFIG_OVERLAY,
	               o->source_text, o->source_port);
	return head;
}

static void open_way(struct flow *flow)
{
	struct going *g = flow->going;
	if (flow->attempt || g->next)
		return;
	g->retry_at = 0;
	flow->request = request(flow, g->decision);
	g->way_until = now_us() + WAY_US;
	going_arm(g);
	flow->attempt = flow_open(flow, g->decision, g->tries);
}

void way_opened(struct flow *flow, struct leg *leg)
{
	struct going *g = flow->going;
	struct tunnel_header told = {.present = true, .segments = !g->stream, .stream = g->stream,
	                             .has_id = g->has_id && g->role == GOING_CLIENT};
	cluster_used(flow->tunnel->clusters, &g->used);
	flow->attempt = NULL;
	g->next = leg;
	memcpy(told.id, g->id, sizeof(told.id));
	if (told.has_id)
		told.received = going_has(g);
	if (leg->ops->joined)
		head_remove(flow->request, TUNNEL_HEADER);
	else
		tunnel_header_set(flow->request, &told);
	leg->ops->head(leg, flow->request, false);
}

/* --- when it does not open -------------------------------------------------------------------------------------------- */

static uint64_t backoff(const struct going *g, unsigned most)
{
	uint64_t base = (uint64_t)BACKOFF_US << (g->tries < most ? g->tries : most);
	return base / 2 + (now_us() * 2654435761u >> 7) % base;
}

static void give_up(struct flow *flow, const char *why)
{
	say(flow, "tunnel lost", why);
	stats_add(flow->tunnel->self, STATS_WORKER_TUNNELS_LOST, 1);
	flow->error = FLOW_TERMINATED;
	snprintf(flow->detail, sizeof(flow->detail), "%s", why);
	flow_end(flow, FLOW_TERMINATED, FLOW_TERMINATED);
}

/* The first attempt of a broken way follows at once, since it often was only a connection. */
void way_failed(struct flow *flow, const char *detail)
{
	struct going *g = flow->going;
	bool resuming = flow->state == FLOW_STATE_RESUMING;
	cluster_used(flow->tunnel->clusters, &g->used);
	if (!resuming && g->tries == 0)
		say(flow, "tunnel not moved", detail);
	drop_next(flow);
	if (resuming)
		forget_decision(g);
	g->retry_at = now_us() + backoff(g, resuming ? BACKOFF_RESUMING : BACKOFF_MOVING);
	g->tries++;
	going_arm(g);
}

/* --- when it does ------------------------------------------------------------------------------------------------------ */

/* Counters that say where the flow is. */
static void adopt(struct flow *flow)
{
	struct going *g = flow->going;
	if (flow->decision->cluster_stats != g->decision->cluster_stats) {
		stats_add(flow->decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, -1);
		stats_add(g->decision->cluster_stats, STATS_CLUSTER_FLOWS, 1);
		stats_add(g->decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, 1);
	}
	decision_unref(flow->decision);
	flow->decision = g->decision;
	g->decision = NULL;
	generation_unref(flow->generation);
	flow->generation = generation_ref(flow->tunnel->current);
	flow->used = g->used;
	flow->tried_endpoints = 0;
	head_free(flow->request);
	flow->request = NULL;
	g->tries = 0;
	g->until = g->way_until = g->retry_at = 0;
}

/* The same far end: it says again what came not, and is told again what it has not. */
static void go_on(struct flow *flow, struct leg *former, const struct tunnel_header *told)
{
	struct going *g = flow->going;
	uint64_t received = going_has(g);
	g->told = received;
	flow->down.untaken = 0;
	if (g->stream) {
		stream_reader_restart(&g->reader, told->from);
		going_replay(g, told->received);
	} else {
		chunks_clear(&g->from.partial);
		g->from = (struct source){.base = told->from, .skip = received > told->from ? received - told->from : 0};
		g->given -= going_replay(g, told->received) - told->received;   /* what is not kept any more is not counted */
	}
	flow->join = (struct join){.segments = told->segments};
	if (former)
		former->ops->close(former, FLOW_CANCELLED);
}

/* Large segments that nobody can take any more. */
static void drop_segments(struct flow *flow)
{
	struct going *g = flow->going;
	size_t untaken = flow->up.untaken;
	chunks_clear(&flow->up.held);
	chunks_clear(&g->kept);
	g->given = g->unsent = 0;
	flow->up.untaken = 0;
	if (untaken)
		flow->in->ops->taken(flow->in, untaken);
}

/* Another far end. What the former was given is not given to this one as well. */
static void begin_anew(struct flow *flow, struct leg *former, const struct tunnel_header *told)
{
	struct going *g = flow->going;
	if (former) {
		g->old = former;
		g->old_from = g->from;
		g->old_untaken = flow->down.untaken;
		g->drained_at = now_us() + DRAIN_US;
	} else {
		chunks_clear(&g->from.partial);
	}
	g->from = (struct source){0};
	flow->down.untaken = 0;
	going_begin_anew(g, told->has_id && g->role == GOING_CLIENT && flow->tunnel->current->config->resume_timeout > 0);
	memcpy(g->id, told->id, sizeof(g->id));
	if (flow->join.segments && !told->segments)
		drop_segments(flow);
	flow->join = (struct join){.fresh = true, .segments = told->segments};
	if (former)
		former->ops->finish(former, NULL);
}

/* The other way does not lead to the far end that holds the byte stream, which has no other. */
static void way_strange(struct flow *flow, const char *why)
{
	struct going *g = flow->going;
	if (flow->state == FLOW_STATE_RESUMING || g->must_move)
		return give_up(flow, why);
	say(flow, "tunnel not moved", why);
	drop_next(flow);
	forget_decision(g);
	g->retry_at = 0;
}

static void change_over(struct flow *flow, const struct head *response)
{
	struct going *g = flow->going;
	struct leg *former = flow->out;
	struct tunnel_header told;
	tunnel_header_get(response, &told);
	bool plain = g->next->ops->joined != NULL, resuming = flow->state == FLOW_STATE_RESUMING;
	bool joined = !plain && g->role == GOING_CLIENT && g->has_id && told.joined && told.has_id &&
	              memcmp(told.id, g->id, sizeof(g->id)) == 0;
	if (joined && (told.received < g->acked || !going_plausible(g, told.received) || (g->stream && told.from > going_has(g))))
		return give_up(flow, "the far end does not say what it can have received");
	if (g->stream && !joined)
		return way_strange(flow, "it does not lead to the same far end");
	say(flow, resuming ? "tunnel resumed" : "tunnel moved", joined ? "the same far end" : "another far end");
	flow->out = g->next;
	g->next = NULL;
	flow->out_ready = true;
	flow_set_state(flow, FLOW_STATE_STREAMING);
	g->resumed += resuming;
	g->moved += !resuming;
	stats_add(flow->tunnel->self, resuming ? STATS_WORKER_TUNNELS_RESUMED : STATS_WORKER_TUNNELS_MOVED, 1);
	if (joined) {
		go_on(flow, former, &told);
	} else {
		g->role = plain ? GOING_BOTH : GOING_CLIENT;
		if (plain)
			told = (struct tunnel_header){.segments = true};
		begin_anew(flow, former, &told);
	}
	adopt(flow);
	flow_tunnel_joined(flow);
	flow_arm(flow);
	going_arm(g);
	flow_pump(flow, true);
	if (flow->state != FLOW_STATE_ENDED)
		flow_pump(flow, false);
}

void way_head(struct flow *flow, struct leg *leg, const struct head *response)
{
	struct going *g = flow->going;
	char why[64];
	if (leg != g->next || response->status < 200)
		return;
	if (response->status < 300)
		return change_over(flow, response);
	snprintf(why, sizeof(why), "the next hop answered %u", response->status);
	if (g->stream && response->status >= 400 && response->status < 500)
		return way_strange(flow, why);
	if (flow->state == FLOW_STATE_RESUMING && response->status >= 400 && response->status < 500)
		return give_up(flow, why);
	way_failed(flow, why);
}

/* --- reasons ------------------------------------------------------------------------------------------------------------ */

/* By the configuration in force, which may have to be asked about first. */
static void resume(struct flow *flow)
{
	struct going *g = flow->going;
	if (flow->decided_under != flow->tunnel->current->number)
		return flow_decide_anew(flow);     /* way_decided() follows */
	flow->decision->refs++;
	want(g, flow->decision);
	open_way(flow);
}

bool way_broken(struct flow *flow, const char *why)
{
	struct going *g = flow->going;
	uint32_t ms = flow->generation->config->resume_timeout;
	if (stream_over(flow))
		return true;
	if (g->role != GOING_CLIENT || !g->has_id || flow->state != FLOW_STATE_STREAMING || !flow->in || ms == 0 ||
	    (!g->stream && (flow->up.ended || flow->down.ended || g->from.through)))
		return false;
	flow->down.untaken = 0;
	if (g->stream)
		stream_reader_restart(&g->reader, going_has(g));
	else
		source_rewind(&g->from);
	chunks_settle(&g->kept);
	flow_set_state(flow, FLOW_STATE_RESUMING);
	g->until = now_us() + (uint64_t)ms * 1000;
	g->tries = 0;
	say(flow, "tunnel resuming", why);
	if (!flow->attempt && !g->next)
		resume(flow);
	going_arm(g);
	return true;
}

void way_restored(struct flow *flow)
{
	struct going *g = flow->going;
	uint32_t ms = flow->tunnel->current->config->resume_timeout;
	flow_set_state(flow, FLOW_STATE_RESUMING);
	g->until = now_us() + (uint64_t)(ms ? ms : RESTORED_MS) * 1000;
	resume(flow);
	if (flow->state != FLOW_STATE_ENDED)
		going_arm(g);
}

/* g->decision says where. One old way at a time: the next move waits until it has drained. */
static void move(struct flow *flow)
{
	struct going *g = flow->going;
	if (!g->old)
		return open_way(flow);
	g->retry_at = g->drained_at + 1;
	going_arm(g);
}

void way_asked(struct flow *flow)
{
	struct going *g = flow->going;
	if (g->decision || flow->query || flow->state != FLOW_STATE_STREAMING)
		return;
	flow->decision->refs++;
	want(g, flow->decision);
	g->must_move = false;
	g->tries = 0;
	move(flow);
}

bool way_decided(struct flow *flow, struct decision *decision, bool elsewhere)
{
	struct going *g = flow->going;
	if (g->stream)                 /* its far end stays; by another way only where the route says so */
		elsewhere = elsewhere && decision->move && g->role != GOING_FAR;
	if (g->role == GOING_FAR || g->role == GOING_RELAY) {
		if (!elsewhere)
			return false;
		if (g->stream)
			g->until = now_us() + WAY_US, going_arm(g);
		decision_unref(decision);
		going_ask_to_move(flow);
		return true;
	}
	if (flow->state != FLOW_STATE_RESUMING && !elsewhere) {
		if (g->decision && !g->next)       /* a move that has not come about is taken back */
			drop_next(flow), forget_decision(g), g->retry_at = 0;
		return false;
	}
	if (flow->attempt || g->next)
		drop_next(flow);
	want(g, decision);
	g->must_move = true;
	g->tries = 0;
	if (flow->state == FLOW_STATE_RESUMING)
		open_way(flow);
	else
		move(flow);
	return true;
}

void way_on_timer(struct flow *flow, uint64_t now)
{
	struct going *g = flow->going;
	if (g->drained_at && now >= g->drained_at)
		way_drained(flow);
	if (g->until && now >= g->until) {
		g->until = 0;
		if (g->forsaken)
			return flow_end(flow, FLOW_NONE, FLOW_CANCELLED);
		if (g->stream && flow->state == FLOW_STATE_PARKED && g->gave_end && flow->up.finished)
			return flow_end(flow, FLOW_NONE, FLOW_NONE);   /* its client end lacks nothing, or it would have come */
		if (g->stream && g->role == GOING_RELAY)
			return give_up(flow, "the route leads elsewhere now");
		if (flow->state == FLOW_STATE_PARKED || flow->state == FLOW_STATE_RESUMING)
			return give_up(flow, flow->state == FLOW_STATE_PARKED ? "the client end did not come back in time" :
			                     "no way opened in time");
	}
	if (g->way_until && now >= g->way_until && (flow->attempt || g->next))
		way_failed(flow, "it did not open in time");
	if (!g->retry_at || now < g->retry_at)
		return;
	g->retry_at = 0;
	if (flow->state == FLOW_STATE_RESUMING)
		resume(flow);
	else if (g->decision && flow->state == FLOW_STATE_STREAMING)
		move(flow);
}

/* --- legs that are neither in nor out ------------------------------------------------------------------------------------ */

void way_drained(struct flow *flow)
{
	struct going *g = flow->going;
	struct leg *old = g->old;
	g->old = NULL;
	g->old_untaken = 0;
	g->drained_at = 0;
	chunks_clear(&g->old_from.partial);
	if (old)
		old->ops->close(old, FLOW_CANCELLED);
}

void way_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	struct going *g = flow->going;
	size_t bytes = chunks->bytes;
	if (leg != g->old || flow->down.finished) {
		leg->ops->taken(leg, bytes);
		return chunks_clear(chunks);
	}
	flow->last = now_us();
	flow->down.bytes += bytes;
	g->old_untaken += bytes;
	size_t credited = source_take(&g->old_from, chunks);
	g->old_untaken -= credited;
	if (credited)
		leg->ops->taken(leg, credited);
	chunks_move(&flow->down.held, chunks);
	flow_pump(flow, false);
}

void way_finish(struct flow *flow, struct leg *leg)
{
	struct going *g = flow->going;
	if (leg == g->next)
		return way_failed(flow, "the next hop ended it");
	g->old = NULL;
	way_drained(flow);
	leg->ops->close(leg, FLOW_NONE);
	if (g->retry_at && g->decision) {
		g->retry_at = now_us();
		going_arm(g);
	}
}

void way_gone(struct flow *flow, struct leg *leg, const char *why)
{
	struct going *g = flow->going;
	if (leg == g->next) {
		g->next = NULL;
		way_failed(flow, why);
	} else if (leg == g->old) {
		g->old = NULL;
		way_drained(flow);
	}
}
