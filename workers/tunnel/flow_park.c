/* SPDX-License-Identifier: Apache-2.0 */
/* The far end of a tunnel: it waits while its client end is away, and joins the stream that names it to what lives on. */
#include <openssl/rand.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/worker_link.h"

#define RESTORED_MS 10000u            /* from another worker, where nothing else says how long */
#define UNHEARD_MS 10000u             /* whose client end may never have heard that there is a tunnel */
#define PARKED_MAX 4096u              /* per worker: each holds a socket or an address */

/* --- parked ------------------------------------------------------------------------------------------------------------ */

void going_name(struct going *g)
{
	struct tunnel *tunnel = g->flow->tunnel;
	if (RAND_bytes(g->id, sizeof(g->id)) != 1)
		return;                    /* it just cannot go on */
	g->id[0] = (uint8_t)worker_index(tunnel->worker);
	g->has_id = true;
	HASH_ADD(hh, tunnel->going, id, sizeof(g->id), g);
}

/* What comes next begins with a capsule. */
static void rewind_source(struct going *g)
{
	if (g->stream)
		stream_reader_restart(&g->reader, stream_received(&g->reader));
	else
		source_rewind(&g->from);
}

/* There is nothing to come back to. */
static bool over(const struct flow *flow)
{
	return !flow->going->stream && (flow->up.ended || flow->down.ended || flow->going->from.through);
}

bool going_keep_origin(struct flow *flow)
{
	if (!flow->own && !(flow->own = own_origin_new(flow->origin)))
		return false;
	flow->origin = own_origin_get(flow->own);
	return true;
}

bool going_park(struct flow *flow, const char *why)
{
	struct going *g = flow->going;
	struct tunnel *tunnel = flow->tunnel;
	uint32_t ms = flow->generation->config->resume_timeout;
	if (stream_settled(g) && going_keep_origin(flow))
		return stream_over(flow);
	if (g->role != GOING_FAR || !g->has_id || flow->state != FLOW_STATE_STREAMING || over(flow) ||
	    flow->origin->peer_refused || ms == 0 || (tunnel->draining && !tunnel->handing) || tunnel->n_parked >= PARKED_MAX)
		return false;
	if (!going_keep_origin(flow))
		return false;
	flow->up.untaken = 0;
	if (g->stream && g->reader.early && ms > UNHEARD_MS)
		ms = UNHEARD_MS;
	rewind_source(g);
	chunks_settle(&g->kept);
	flow_set_state(flow, FLOW_STATE_PARKED);
	tunnel->n_parked++;
	g->until = now_us() + (uint64_t)ms * 1000;
	going_arm(g);
	log_info("tunnel parked", "id=%llu peer=%s user=%s authority=%s reason=%s", (unsigned long long)flow->id,
	         log_value(flow->origin->peer), log_value(flow->user), log_value(flow->authority), log_value(why));
	return true;
}

void going_restored(struct flow *flow)
{
	struct going *g = flow->going;
	struct tunnel *tunnel = flow->tunnel;
	uint32_t ms = tunnel->current->config->resume_timeout;
	HASH_ADD(hh, tunnel->going, id, sizeof(g->id), g);
	flow_set_state(flow, FLOW_STATE_PARKED);
	tunnel->n_parked++;
	g->until = now_us() + (uint64_t)(ms ? ms : RESTORED_MS) * 1000;
	going_arm(g);
}

/* --- joined ------------------------------------------------------------------------------------------------------------ */

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

/* A byte stream has only the one far end, to which its user may come by other nodes than before, that may speak for him. */
static bool same_peer(const struct flow *flow, const struct flow *joiner)
{
	return same(flow->origin->peer, joiner->origin->peer) || (flow->going->stream && flow->user && joiner->origin->peer);
}

static bool may_join(const struct flow *flow, const struct flow *joiner, const struct tunnel_header *asked)
{
	bool lives = flow->state == FLOW_STATE_PARKED || flow->state == FLOW_STATE_STREAMING;
	return lives && flow != joiner && flow->out && !over(flow) && flow->going->stream == asked->stream &&
	       same_peer(flow, joiner) && same(flow->user, joiner->user) &&
	       same(flow->protocol, joiner->protocol) && same(flow->authority, joiner->authority) &&
	       !flow_leads_elsewhere(flow, joiner->decision) && going_plausible(flow->going, asked->received);
}

/* The living flow is the joiner's from now on: its leg, who asked, by which decision. */
static void take_over(struct flow *flow, struct flow *joiner)
{
	struct decision *decision = joiner->decision;
	bool inner = flow->origin->inner;
	stats_add(flow->origin->listener->stats, STATS_LISTENER_FLOWS_OPEN, -1);
	own_origin_free(flow->own);
	flow->own = joiner->own;
	flow->origin = joiner->origin;
	flow->in = joiner->in;
	flow->in->flow = flow;
	joiner->own = NULL;
	joiner->in = NULL;
	if (flow->origin->inner || inner)
		return;                    /* another worker decided one of the two */
	joiner->decision = flow->decision;
	flow->decision = decision;
	struct generation *generation = flow->generation;
	flow->generation = joiner->generation;
	joiner->generation = generation;
	flow->decided_under = joiner->asked_under;
}

static void answer(struct flow *flow, const struct tunnel_header *told)
{
	struct head *head = told->stream ? head_new() : masque_response();
	head->status = 200;
	tunnel_header_set(head, told);
	fields_response(head, flow->generation->config, flow->out->ops->kind);
	flow->in->ops->head(flow->in, head, false);
	head_free(head);
}

static void join(struct flow *flow, struct flow *joiner, const struct tunnel_header *asked)
{
	struct going *g = flow->going;
	struct leg *former = flow->in;
	struct chunks early = {0};
	chunks_move(&early, &joiner->up.held);
	if (flow->state == FLOW_STATE_PARKED)
		flow->tunnel->n_parked--;
	take_over(flow, joiner);
	flow_set_state(joiner, FLOW_STATE_ENDED);
	if (former)
		former->ops->close(former, FLOW_TERMINATED);
	flow->up.untaken = 0;
	rewind_source(g);
	g->told = going_has(g);
	g->until = g->ack_at = 0;
	g->resumed++;
	stats_add(flow->tunnel->self, STATS_WORKER_TUNNELS_RESUMED, 1);
	flow->join = (struct join){.segments = asked->segments};
	struct tunnel_header told = {.present = true, .segments = !g->stream, .stream = g->stream, .has_id = true,
	                             .joined = true, .received = g->told};
	memcpy(told.id, g->id, sizeof(g->id));
	/* It may have acknowledged more by the former way since it asked. */
	uint64_t received = asked->received > g->acked ? asked->received : g->acked;
	told.from = going_replay(g, received);
	flow_set_state(flow, FLOW_STATE_STREAMING);
	flow->last = now_us();
	log_info("tunnel joined", "id=%llu peer=%s user=%s authority=%s again=%zu lost=%llu", (unsigned long long)flow->id,
	         log_value(flow->origin->peer), log_value(flow->user), log_value(flow->authority), g->kept.bytes,
	         (unsigned long long)(told.from - received));
	answer(flow, &told);
	flow_tunnel_joined(flow);
	flow_arm(flow);
	flow_pump(flow, false);
	if (early.head && flow->in)
		flow_data(flow, flow->in, &early);
	chunks_clear(&early);
}

/* A byte stream never begins anew where it was to go on: who would end it here answers 410. */
static bool refuse(struct flow *joiner)
{
	const struct config_cluster *cluster = config_cluster(joiner->tunnel->current->config, joiner->decision->cluster);
	unsigned index;
	if (!cluster || cluster->carry != CONFIG_CARRY_TCP || worker_link_owner(joiner, cluster, &index))
		return false;
	flow_answer(joiner, 410, FLOW_NOT_FOUND, "no such tunnel goes on here");
	return true;
}

bool flow_join(struct flow *joiner)
{
	struct tunnel_header asked;
	struct going *g;
	if (!joiner->connect || !joiner->request || (joiner->request->protocol && !masque_is(joiner->request)))
		return false;
	tunnel_header_get(joiner->request, &asked);
	bool stream = asked.stream && !joiner->request->protocol;
	if (!asked.has_id || stream != asked.stream)
		return false;
	HASH_FIND(hh, joiner->tunnel->going, asked.id, sizeof(asked.id), g);
	if (!g || !may_join(g->flow, joiner, &asked))
		return stream && refuse(joiner);
	struct flow *flow = g->flow;
	flow_enter(flow);
	join(flow, joiner, &asked);
	flow_leave(flow);
	return true;
}
