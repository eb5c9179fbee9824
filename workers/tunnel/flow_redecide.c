/* SPDX-License-Identifier: Apache-2.0 */
/* After a change of configuration living flows are decided anew (DESIGN.md section 3): those now denied end; byte flows
 * stay on their way to their end, unless the route that they now meet says `move: true` and leads elsewhere. */
#include "workers/tunnel/flow_redecide.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/generation.h"

#define BATCH 256u                /* flows per turn of the loop: living ones are served in between */
#define AGAIN_MS 5000             /* when nobody could decide: those who asked stay meanwhile */

struct redecide {
	struct tunnel *tunnel;
	struct event *walk, *again;
	struct flow *cursor;          /* the next one to look at */
};

/* --- what was asked -------------------------------------------------------------------------------------------------- */

/* The request as it was asked about, packed: the scheme, then name and value of each field, all NUL-terminated. A few
 * hundred bytes instead of a head and its arena, since an idle tunnel keeps it to its end. */
struct asked {
	uint32_t n;
	char text[];
};

static char *put(char *at, const char *text, size_t length)
{
	at = mempcpy(at, text, length);
	*at++ = '\0';
	return at;
}

struct asked *asked_new(const struct head *request)
{
	size_t scheme = request->scheme ? strlen(request->scheme) : 0, size = scheme + 1;
	for (unsigned i = 0; i < request->n; i++)
		size += request->fields[i].name_length + request->fields[i].value_length + 2u;
	struct asked *asked = malloc(sizeof(*asked) + size);
	if (!asked)
		abort();
	asked->n = request->n;
	char *at = put(asked->text, request->scheme ? request->scheme : "", scheme);
	for (unsigned i = 0; i < request->n; i++) {
		at = put(at, request->fields[i].name, request->fields[i].name_length);
		at = put(at, request->fields[i].value, request->fields[i].value_length);
	}
	return asked;
}

struct head *flow_asked(const struct flow *flow)
{
	const char *at = flow->asked_head->text;
	struct head *head = head_new();
	head->method = head_string(head, flow->method, -1);
	head->scheme = *at ? head_string(head, at, -1) : NULL;
	head->authority = flow->authority ? head_string(head, flow->authority, -1) : NULL;
	head->path = flow->path ? head_string(head, flow->path, -1) : NULL;
	head->protocol = flow->protocol ? head_string(head, flow->protocol, -1) : NULL;
	at += strlen(at) + 1;
	for (uint32_t i = 0; i < flow->asked_head->n; i++) {
		const char *value = at + strlen(at) + 1;
		head_add(head, at, value);
		at = value + strlen(value) + 1;
	}
	return head;
}

/* --- what the answer means ------------------------------------------------------------------------------------------- */

static void end(struct flow *flow, enum flow_error error, const char *detail)
{
	log_info("flow ended", "id=%llu user=%s authority=%s reason=%s", (unsigned long long)flow->id, log_value(flow->user),
	         log_value(flow->authority), log_value(detail));
	if (!flow->head_sent)
		return flow_answer(flow, 0, error, detail);
	flow->error = error;
	snprintf(flow->detail, sizeof(flow->detail), "%s", detail ? detail : "");
	flow_end(flow, error, error);
}

static void end_denied(struct flow *flow, const char *detail)
{
	stats_add(flow->tunnel->self, STATS_WORKER_DENIED, 1);
	end(flow, FLOW_DENIED, detail);
}

static bool has_endpoint(const struct config_cluster *cluster, const char *endpoint)
{
	for (size_t i = 0; i < cluster->n_endpoints; i++)
		if (strncmp(cluster->endpoints[i].address.text, endpoint, sizeof(((struct endpoint_used *)0)->endpoint) - 1) == 0)
			return true;
	return cluster->target;
}

/* The decision names another cluster, or the endpoint in use is no longer one of it. */
bool flow_leads_elsewhere(const struct flow *flow, const struct decision *decision)
{
	const struct config_cluster *cluster = config_cluster(flow->tunnel->current->config, decision->cluster);
	if (strcmp(decision->cluster, flow->decision->cluster) != 0)
		return true;
	return cluster && flow->used.endpoint[0] && !has_endpoint(cluster, flow->used.endpoint);
}

/* The new decision replaces the old one where that changes nothing under way: its times hold from now on, and the old
 * configuration can go. */
static void adopt(struct flow *flow, struct decision *decision)
{
	if (flow->state != FLOW_STATE_STREAMING || strcmp(decision->cluster, flow->decision->cluster) != 0)
		return decision_unref(decision);
	decision_unref(flow->decision);
	flow->decision = decision;
	generation_unref(flow->generation);
	flow->generation = generation_ref(flow->tunnel->current);
	flow_arm(flow);
}

static void wait_and_ask_again(struct redecide *r)
{
	static const struct timeval later = {.tv_sec = AGAIN_MS / 1000};
	if (!event_pending(r->again, EV_TIMEOUT, NULL))
		event_add(r->again, &later);
}

static void use(struct flow *flow, struct decision *decision)
{
	bool undecided = !decision || decision->status >= 500 || (!decision->status && !decision->cluster);
	if (undecided) {
		decision_unref(decision);
		return wait_and_ask_again(flow->tunnel->redecide);
	}
	flow->decided_under = flow->asked_under;
	if (decision->status == 403) {
		end_denied(flow, decision->detail);
	} else if (decision->status && flow->state == FLOW_STATE_RESUMING) {
		end(flow, FLOW_TERMINATED, "nothing leads there any more");
	} else if (!decision->status && flow->going && way_decided(flow, decision, flow_leads_elsewhere(flow, decision))) {
		return;
	} else if (!decision->status && decision->move && flow->tunnel_open && flow_leads_elsewhere(flow, decision)) {
		end(flow, FLOW_TERMINATED, "the route leads elsewhere now");
	} else if (!decision->status) {
		return adopt(flow, decision);
	}
	decision_unref(decision);
}

static void on_decided(void *arg, struct decision *decision)
{
	struct flow *flow = arg;
	flow_enter(flow);
	flow->query = NULL;
	use(flow, decision);
	flow_leave(flow);
}

/* --- one flow -------------------------------------------------------------------------------------------------------- */

static bool still_a_user(const struct flow *flow)
{
	const struct config *config = flow->tunnel->current->config;
	for (size_t i = 0; i < config->n_users; i++)
		if (flow->user && strcmp(config->users[i].name, flow->user) == 0)
			return true;
	return !flow->by_password;
}

void flow_decide_anew(struct flow *flow)
{
	struct tunnel *tunnel = flow->tunnel;
	if (flow->decided_under == tunnel->current->number || flow->query || !flow->asked_head || !flow->decision ||
	    flow->decision->status || flow->state == FLOW_STATE_PARKED)
		return;
	flow_enter(flow);
	flow->asked_under = tunnel->current->number;
	if (!flow_may_speak(flow)) {
		end_denied(flow, "this node may not speak for the user");
	} else if (!still_a_user(flow)) {
		end_denied(flow, "the user is no longer known");
	} else {
		struct head *head = flow_asked(flow);
		struct decision *decision = ask_decision(tunnel->ask, flow->origin, flow->user, head, &flow->query, on_decided, flow);
		head_free(head);
		if (decision)
			use(flow, decision);
	}
	flow_leave(flow);
}

/* --- all of them ----------------------------------------------------------------------------------------------------- */

static void on_walk(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval now = {0};
	struct redecide *r = arg;
	(void)fd, (void)what;
	for (unsigned i = 0; i < BATCH && r->cursor; i++) {
		struct flow *flow = r->cursor;
		r->cursor = flow->next;
		flow_decide_anew(flow);
	}
	if (r->cursor)
		event_add(r->walk, &now);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	redecide_commit(arg);
}

void redecide_commit(struct redecide *r)
{
	static const struct timeval now = {0};
	r->cursor = r->tunnel->flows;
	if (r->cursor)
		event_add(r->walk, &now);
}

void redecide_forget(struct redecide *r, const struct flow *flow)
{
	if (r && r->cursor == flow)
		r->cursor = flow->next;
}

struct redecide *redecide_new(struct tunnel *tunnel)
{
	struct redecide *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	r->tunnel = tunnel;
	r->walk = event_new(tunnel->base, -1, 0, on_walk, r);
	r->again = event_new(tunnel->base, -1, 0, on_again, r);
	if (!r->walk || !r->again)
		abort();
	return r;
}
