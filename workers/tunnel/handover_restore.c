/* SPDX-License-Identifier: Apache-2.0 */
/* A record becomes a flow again: parked, resuming, or, where both its ends are here, as it was. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/tunnel/device.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/handover_flow.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/leg_tcp.h"
#include "workers/tunnel/leg_udp.h"
#include "workers/tunnel/listener_internal.h"
#include "workers/tunnel/udp_flows.h"
#include "workers/tunnel/worker_link.h"

/* --- whether it fits ----------------------------------------------------------------------------------------------- */

static bool is(const char *text, const char *name)
{
	return text && strcmp(text, name) == 0;
}

static bool going_fits(const struct tunnel *tunnel, const struct parcel *p)
{
	const struct ipc_handover_record *r = &p->record;
	size_t kept = p->pieces[PARCEL_KEPT].length;
	unsigned own = tunnel->worker ? worker_index(tunnel->worker) : 0;
	if (r->tunnel.length != TUNNEL_ID || (r->role == GOING_FAR && r->tunnel.data[0] != (uint8_t)own))
		return false;
	return kept <= r->given && r->unsent <= kept && r->acked <= r->given + r->gave_end;
}

/* NULL: it does. */
static const char *judge(const struct tunnel *tunnel, const struct parcel *p)
{
	const struct ipc_handover_record *r = &p->record;
	bool in = r->role == GOING_CLIENT || r->role == GOING_BOTH, out = r->role == GOING_FAR || r->role == GOING_BOTH;
	if ((!in && !out) || (in != (r->in_kind != NULL)) || (out != (r->out_kind != NULL)))
		return "its ends do not fit its role";
	if (!r->method || !r->authority || !r->cluster || !r->listener || !r->carry || (!r->stream && (!r->protocol || !r->path)))
		return "it is not complete";
	if (r->stream != (is(r->in_kind, "tcp") || is(r->out_kind, "tcp")) || (r->stream && r->role == GOING_BOTH))
		return "its ends do not fit its kind";
	if (r->role != GOING_BOTH && !going_fits(tunnel, p))
		return "its counts do not fit";
	return NULL;
}

/* --- the flow ------------------------------------------------------------------------------------------------------ */

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static const char *carry_of(const char *text)
{
	static const char *const known[] = {"h1", "h2", "h3", "tcp", "udp", "tun", "socks5"};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(known[i], text) == 0)
			return known[i];
	return "h2";
}

static struct own_origin *origin_of(struct tunnel *tunnel, const struct ipc_handover_record *r)
{
	struct sockaddr_storage source = {0};
	if (r->inner)
		return worker_link_origin(tunnel->links, r->listener, r->source_text ? r->source_text : "", r->peer);
	struct bound *b = listeners_find(tunnel->listeners, r->listener);
	if (!b)
		return NULL;
	if (r->source.length == sizeof(source))
		memcpy(&source, r->source.data, sizeof(source));
	struct origin origin = {.listener = &b->base, .source = &source, .source_port = (uint16_t)r->source_port, .peer = r->peer,
	                        .proven_user = r->proven_user, .carry = carry_of(r->carry), .hold = bound_hold};
	if (r->source_text)
		strncpy(origin.source_text, r->source_text, sizeof(origin.source_text) - 1);
	return own_origin_new(&origin);
}

static struct decision *decision_of(struct tunnel *tunnel, const struct ipc_handover_record *r)
{
	struct ipc_decision m = {
		.cluster = r->cluster, .route = r->inner ? NULL : r->route, .policies = r->policies, .add_headers = r->add_headers,
		.remove_headers = r->remove_headers, .retry_on = r->retry_on, .retry_attempts = r->retry_attempts,
		.per_try_timeout = r->per_try_timeout, .request_timeout = r->request_timeout, .idle_timeout = r->idle_timeout,
		.move = r->move, .valid_ms = UINT32_MAX};
	struct decision *d = decision_of_message(tunnel, &m);
	d->valid_until = r->valid_until;
	if (r->inner)
		d->cluster_stats = worker_link_stats(tunnel->links);
	return d;
}

static struct head *head_of(const struct ipc_handover_record *r, const struct ipc_pairs *fields)
{
	struct head *head = head_new();
	head->method = head_string(head, r->method, -1);
	head->scheme = r->scheme && *r->scheme ? head_string(head, r->scheme, -1) : NULL;
	head->authority = head_string(head, r->authority, -1);
	head->path = r->path ? head_string(head, r->path, -1) : NULL;
	head->protocol = r->protocol ? head_string(head, r->protocol, -1) : NULL;
	for (size_t i = 0; i < fields->n; i++)
		head_add(head, fields->v[i].name, fields->v[i].value);
	return head;
}

static void take_past(struct flow *flow, const struct ipc_handover_record *r)
{
	struct endpoint_used *used = &flow->used;
	flow->began = r->began;
	flow->last = r->last;
	flow->status = r->status;
	flow->attempts = r->attempts;
	flow->up.bytes = r->bytes_in;
	flow->down.bytes = r->bytes_out;
	used->number = (int)r->endpoint_number;
	strncpy(used->endpoint, r->endpoint ? r->endpoint : "", sizeof(used->endpoint) - 1);
	strncpy(used->address, r->address ? r->address : "", sizeof(used->address) - 1);
}

/* Open, without legs, and in nobody's list yet. */
static struct flow *make(struct tunnel *tunnel, const struct ipc_handover_record *r)
{
	struct flow *flow = calloc(1, sizeof(*flow));
	if (!flow)
		abort();
	*flow = (struct flow){.tunnel = tunnel, .id = r->id, .generation = generation_ref(tunnel->current), .connect = true,
	                      .tunnel_open = true, .head_sent = true, .by_password = r->by_password, .user = copy(r->user),
	                      .method = copy(r->method), .protocol = copy(r->protocol), .authority = copy(r->authority),
	                      .path = copy(r->path), .asked_under = r->generation, .decided_under = r->generation};
	flow->used.number = -1;
	take_past(flow, r);
	flow->decision = decision_of(tunnel, r);
	flow->join = (struct join){.segments = r->segments};
	if (r->headers.n > 0 || r->scheme) {
		struct head *head = head_of(r, &r->headers);
		flow->asked_head = asked_new(head);
		head_free(head);
	}
	event_assign(&flow->timer, tunnel->base, -1, 0, flow_on_timer, flow);
	flow->state = FLOW_STATE_STREAMING;
	return flow;
}

/* Among those that live. */
static void enlist(struct flow *flow)
{
	struct tunnel *tunnel = flow->tunnel;
	flow->next = tunnel->flows;
	if (flow->next)
		flow->next->prev = flow;
	tunnel->flows = flow;
	tunnel->n_flows++;
	uint64_t mask = ~0ull << 40;
	if ((flow->id & mask) == (tunnel->flow_id & mask) && flow->id > tunnel->flow_id)
		tunnel->flow_id = flow->id;
	stats_add(flow->origin->listener->stats, STATS_LISTENER_FLOWS_OPEN, 1);
	if (flow->decision->cluster_stats)
		stats_add(flow->decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, 1);
	stats_add(tunnel->self, STATS_WORKER_TAKEN_OVER, 1);
}

/* Of one that never lived. */
static void discard(struct flow *flow)
{
	own_origin_free(flow->own);
	decision_unref(flow->decision);
	generation_unref(flow->generation);
	head_free(flow->request);
	free(flow->asked_head);
	free(flow->user), free(flow->method), free(flow->protocol), free(flow->authority), free(flow->path);
	free(flow);
}

/* --- its legs ------------------------------------------------------------------------------------------------------ */

static bool far_origin(struct flow *flow, const struct ipc_handover_record *r)
{
	if (flow->origin)              /* the in leg's */
		return true;
	flow->own = origin_of(flow->tunnel, r);
	flow->origin = flow->own ? own_origin_get(flow->own) : NULL;
	return flow->origin;
}

static bool in_leg(struct flow *flow, struct parcel *p)
{
	const struct ipc_handover_record *r = &p->record;
	struct tunnel *tunnel = flow->tunnel;
	if (is(r->in_kind, "tun")) {
		struct ip_network *network = devices_network(tunnel->devices, r->device, r->network);
		flow->in = network ? ip_network_restore(network, p) : NULL;
		flow->origin = flow->in ? ip_network_origin(flow->in) : NULL;
	} else if (is(r->in_kind, "udp") || is(r->in_kind, "transparent")) {
		struct udp_listener *listener = listeners_udp(tunnel->listeners, r->listener);
		flow->in = listener ? udp_listener_restore(listener, p) : NULL;
		flow->origin = flow->in ? udp_flow_origin(flow->in) : NULL;
	}
	if (is(r->in_kind, "tcp") && far_origin(flow, r))
		flow->in = tcp_leg_restore(tunnel, flow, p, false, r->gave_end);
	if (flow->in)
		flow->in->flow = flow;
	return flow->in;
}

static bool out_leg(struct flow *flow, struct parcel *p)
{
	const struct ipc_handover_record *r = &p->record;
	struct tunnel *tunnel = flow->tunnel;
	if (!far_origin(flow, r))
		return false;
	if (is(r->out_kind, "tcp")) {
		flow->out = tcp_leg_restore(tunnel, flow, p, true, r->gave_end);
	} else if (is(r->out_kind, "udp")) {
		flow->out = udp_leg_restore(tunnel, flow, flow->decision->cluster_stats, p);
	} else if (is(r->out_kind, "ip")) {
		const struct config_cluster *cluster = config_cluster(tunnel->current->config, r->cluster);
		flow->request = head_of(r, &r->exit_headers);
		flow->out = cluster ? ip_exit_restore(tunnel, cluster, flow, p) : NULL;
		head_free(flow->request);
		flow->request = NULL;
	}
	flow->out_ready = flow->out != NULL;
	return flow->out;
}

/* Nobody heard of the flow: the leg goes as it came. */
static void drop_leg(struct leg **leg)
{
	if (*leg)
		(*leg)->ops->close(*leg, FLOW_CANCELLED);
	*leg = NULL;
}

/* --- what was counted ---------------------------------------------------------------------------------------------- */

static void last_of(struct chunks *to, const struct chunks *from, size_t bytes)
{
	size_t before = from->bytes - bytes;
	for (const struct chunk *c = from->head; c; c = c->next) {
		size_t skip = before < c->length ? before : c->length;
		before -= skip;
		if (skip < c->length)
			chunks_append(to, chunk_new(c->slab, c->data + skip, c->length - (uint32_t)skip, 0));
	}
}

static void take_counts(struct flow *flow, const struct parcel *p)
{
	const struct ipc_handover_record *r = &p->record;
	struct going *g = going_new(flow, (enum going_role)r->role);
	parcel_get_chunks(p, PARCEL_UP, &flow->up.held);
	parcel_get_chunks(p, PARCEL_DOWN, &flow->down.held);
	if (g->role == GOING_BOTH)
		return;
	memcpy(g->id, r->tunnel.data, sizeof(g->id));
	g->has_id = true;
	g->stream = r->stream;
	g->gave_end = r->gave_end;
	g->given = r->given;
	g->acked = r->acked;
	g->unsent = (size_t)r->unsent;
	parcel_get_chunks(p, PARCEL_KEPT, &g->kept);
	struct side *to = going_to_peer(g), *from = to == &flow->up ? &flow->down : &flow->up;
	chunks_clear(&to->held);
	if (!g->stream) {
		g->from.base = g->told = r->received;
		last_of(&to->held, &g->kept, g->unsent);
		return;
	}
	g->reader = (struct stream_reader){.received = r->received, .ended = r->ended};
	stream_reader_restart(&g->reader, g->told = going_has(g));
	from->ended = r->ended;        /* behind what is held */
}

static void go_on(struct flow *flow)
{
	struct going *g = flow->going;
	if (g->role == GOING_FAR)
		going_restored(flow);
	flow_tunnel_joined(flow);
	if (flow->state != FLOW_STATE_ENDED && g->role != GOING_CLIENT)
		flow_pump(flow, true);
	if (flow->state != FLOW_STATE_ENDED && g->role != GOING_FAR)
		flow_pump(flow, false);
	if (flow->state != FLOW_STATE_ENDED && g->role == GOING_CLIENT)
		way_restored(flow);
	if (flow->state != FLOW_STATE_ENDED && g->role == GOING_BOTH)
		flow_decide_anew(flow);
	if (flow->state != FLOW_STATE_ENDED)
		flow_arm(flow);
}

/* --- all of it ----------------------------------------------------------------------------------------------------- */

static bool there_is(const struct tunnel *tunnel, const struct parcel *p)
{
	struct going *g = NULL;
	if (p->record.role == GOING_FAR)
		HASH_FIND(hh, tunnel->going, p->record.tunnel.data, TUNNEL_ID, g);
	return g;
}

static const char *restore(struct tunnel *tunnel, struct parcel *p)
{
	const char *why = judge(tunnel, p);
	if (why)
		return why;
	if (there_is(tunnel, p))
		return "it is there already";
	struct flow *flow = make(tunnel, &p->record);
	bool in = p->record.role != GOING_FAR, out = p->record.role != GOING_CLIENT;
	if ((in && !in_leg(flow, p)) || (out && !out_leg(flow, p))) {
		drop_leg(&flow->in);
		discard(flow);
		return "what it came in on or leaves by is not here";
	}
	enlist(flow);
	flow_enter(flow);
	take_counts(flow, p);
	go_on(flow);
	flow_leave(flow);
	return NULL;
}

const char *handover_restore(struct tunnel *tunnel, struct parcel *p)
{
	const char *why = tunnel->current ? restore(tunnel, p) : "there is no configuration";
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	return why;
}

const char *handover_begin_again(struct tunnel *tunnel, const struct parcel *p)
{
	struct udp_listener *listener = listeners_udp(tunnel->listeners, p->record.listener);
	return listener && udp_listener_begin(listener, p) ? NULL : "its listener is not here";
}
