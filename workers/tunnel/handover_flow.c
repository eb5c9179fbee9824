/* SPDX-License-Identifier: Apache-2.0 */
/* A living flow becomes a record: who began it, by which decision, what its two ends have counted. Its plain legs add theirs. */
#include "workers/tunnel/handover_flow.h"

#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/masque.h"

#define RECORD_MAX (48u * 1024)       /* bytes, before the legs add theirs */

/* --- what is known of it ------------------------------------------------------------------------------------------- */

static struct ipc_strs strs_of(const struct config_strs *from)
{
	return (struct ipc_strs){(const char **)from->v, from->n};
}

static struct ipc_pairs pairs_of(struct parcel *parcel, const struct config_pairs *from)
{
	struct ipc_pair *v = parcel_alloc(parcel, (from->n + 1) * sizeof(*v));
	for (size_t i = 0; i < from->n; i++)
		v[i] = (struct ipc_pair){from->v[i].name, from->v[i].value};
	return (struct ipc_pairs){v, from->n};
}

static void put_origin(const struct flow *flow, struct parcel *parcel)
{
	const struct origin *o = flow->origin;
	struct ipc_handover_record *r = &parcel->record;
	r->listener = o->listener->name;
	r->carry = o->carry;
	if (o->source)
		r->source = (struct ipc_bytes){(const uint8_t *)o->source, sizeof(*o->source)};
	r->source_text = o->source_text;
	r->source_port = o->source_port;
	r->peer = o->peer;
	r->proven_user = o->proven_user;
	r->inner = o->inner;
}

static void put_request(const struct flow *flow, struct parcel *parcel)
{
	struct ipc_handover_record *r = &parcel->record;
	r->user = flow->user;
	r->by_password = flow->by_password;
	r->method = flow->method;
	r->protocol = flow->protocol;
	r->authority = flow->authority;
	r->path = flow->path;
	if (!flow->asked_head)
		return;
	struct head *head = flow_asked(flow);
	struct ipc_pair *v = parcel_alloc(parcel, (head->n + 1) * sizeof(*v));
	for (unsigned i = 0; i < head->n; i++)
		v[i] = (struct ipc_pair){parcel_text(parcel, head->fields[i].name), parcel_text(parcel, head->fields[i].value)};
	r->headers = (struct ipc_pairs){v, head->n};
	r->scheme = parcel_text(parcel, head->scheme ? head->scheme : "");
	head_free(head);
}

static void put_decision(const struct flow *flow, struct parcel *parcel)
{
	const struct decision *d = flow->decision;
	struct ipc_handover_record *r = &parcel->record;
	r->generation = flow->going->decision ? 0 : flow->decided_under;   /* 0: it was about to move, and is decided anew */
	r->cluster = d->cluster;
	r->route = d->route;
	r->policies = strs_of(&d->policies);
	r->add_headers = pairs_of(parcel, &d->add_headers);
	r->remove_headers = strs_of(&d->remove_headers);
	r->retry_on = d->retry.on;
	r->retry_attempts = d->retry.attempts;
	r->per_try_timeout = d->retry.per_try_timeout;
	r->request_timeout = d->timeout.request;
	r->idle_timeout = d->timeout.idle;
	r->move = d->move;
	r->valid_until = d->valid_until;
	r->endpoint = flow->used.endpoint;
	r->address = flow->used.address;
	r->endpoint_number = flow->used.number;
}

static void put_past(const struct flow *flow, struct parcel *parcel)
{
	struct ipc_handover_record *r = &parcel->record;
	r->id = flow->id;
	r->began = flow->began;
	r->last = flow->last;
	r->status = flow->status;
	r->attempts = flow->attempts;
	r->bytes_in = flow->up.bytes;
	r->bytes_out = flow->down.bytes;
}

/* After the legs gave what they had begun. */
static void put_counts(const struct flow *flow, struct parcel *parcel)
{
	const struct going *g = flow->going;
	struct ipc_handover_record *r = &parcel->record;
	r->role = (uint32_t)g->role;
	r->segments = flow->join.segments;
	if (g->role == GOING_BOTH) {
		parcel_put_chunks(parcel, PARCEL_UP, &flow->up.held);
		parcel_put_chunks(parcel, PARCEL_DOWN, &flow->down.held);
		return;
	}
	r->tunnel = (struct ipc_bytes){g->id, sizeof(g->id)};
	r->stream = g->stream;
	r->gave_end = g->gave_end;
	r->ended = g->reader.ended;
	r->received = g->stream ? g->reader.received : source_received(&g->from);
	r->given = g->given;
	r->unsent = g->unsent;
	r->acked = g->acked;
	parcel_put_chunks(parcel, PARCEL_KEPT, &g->kept);
	if (g->role == GOING_CLIENT)
		parcel_put_chunks(parcel, PARCEL_DOWN, &flow->down.held);
	else
		parcel_put_chunks(parcel, PARCEL_UP, &flow->up.held);
}

/* --- whether it can ------------------------------------------------------------------------------------------------ */

/* What a TCP tunnel's two ends still have to say to each other. */
static bool stream_goes_on(const struct going *g)
{
	return !g->forsaken && !g->over && !g->reader.early && !stream_settled(g);
}

/* An end of a tunnel that both ends can go on with, or both ends. */
static bool goes_on(const struct flow *flow)
{
	const struct going *g = flow->going;
	bool moves = flow->state == FLOW_STATE_STREAMING;
	if (!g || !flow->decision || (!g->stream && (flow->up.ended || flow->down.ended || g->from.through)))
		return false;
	if (g->stream && !stream_goes_on(g))
		return false;
	switch (g->role) {
	case GOING_CLIENT:
		return g->has_id && flow->in && (moves || flow->state == FLOW_STATE_RESUMING);
	case GOING_FAR:
		return g->has_id && flow->out && (moves || flow->state == FLOW_STATE_PARKED);
	case GOING_BOTH:
		return moves && flow->in && flow->out;
	case GOING_RELAY:
		break;
	}
	return false;
}

static bool plain_legs_go(struct flow *flow, struct parcel *parcel)
{
	enum going_role role = flow->going->role;
	struct leg *in = role == GOING_FAR ? NULL : flow->in, *out = role == GOING_CLIENT ? NULL : flow->out;
	if ((in && !in->ops->hand_over) || (out && !out->ops->hand_over))
		return false;
	if (out && !out->ops->hand_over(out, parcel))
		return false;
	if (flow->state == FLOW_STATE_ENDED || !in || in->ops->hand_over(in, parcel))
		return true;
	if (out && flow->state != FLOW_STATE_ENDED)       /* the one is gone, and the other cannot: rare, and it comes again */
		flow_end(flow, FLOW_TERMINATED, FLOW_TERMINATED);
	return false;
}

static bool record_fits(const struct parcel *parcel)
{
	static uint8_t scratch[RECORD_MAX];
	return ipc_encode(IPC_MSG_HANDOVER_RECORD, &parcel->record, scratch, sizeof(scratch)) > 0;
}

static enum handover_what pack_open(struct flow *flow, struct parcel *parcel)
{
	put_origin(flow, parcel);
	put_request(flow, parcel);
	put_decision(flow, parcel);
	if (!record_fits(parcel))
		return HANDOVER_LEAVE;
	if (!plain_legs_go(flow, parcel))
		return flow->state == FLOW_STATE_ENDED ? HANDOVER_ENDED : HANDOVER_LEAVE;
	if (flow->state == FLOW_STATE_ENDED)
		return HANDOVER_ENDED;
	put_past(flow, parcel);
	put_counts(flow, parcel);
	return HANDOVER_FLOW;
}

/* A stream from a node that can go on, whose answer it has not got. */
static bool may_be_refused(const struct flow *flow)
{
	struct tunnel_header asked;
	if (!flow->in || flow->in->ops->joined || !flow->request || !flow->connect || flow->offered)
		return false;
	tunnel_header_get(flow->request, &asked);
	return asked.present;
}

enum handover_what handover_pack(struct flow *flow, struct parcel *parcel)
{
	if (flow->state == FLOW_STATE_ENDED)
		return HANDOVER_ENDED;
	if (goes_on(flow)) {
		if (flow->going->old)
			way_drained(flow);
		return pack_open(flow, parcel);
	}
	if (flow->head_sent || flow->going)
		return HANDOVER_LEAVE;
	if (flow->in && flow->in->ops->joined && flow->in->ops->hand_over && flow->in->ops->hand_over(flow->in, parcel))
		return HANDOVER_BEGIN;
	return may_be_refused(flow) ? HANDOVER_REFUSE : HANDOVER_LEAVE;
}
