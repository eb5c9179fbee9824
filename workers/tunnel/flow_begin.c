/* The first half of a flow's life: who asks, whether and where it may go, the way out, and another try. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/handover.h"
#include "workers/tunnel/probe.h"
#include "workers/tunnel/worker_link.h"

#define BACKOFF_US 25000u         /* before the first retry; doubles, with jitter */
#define IDLE_GRACE_US 2000000u
#define FREE_RETRIES 2u           /* of what is safe to try again without being asked: a pooled connection that had just died */

/* --- who ------------------------------------------------------------------------------------------------------------- */

static const char *added_user(const struct config_listener *listener)
{
	for (size_t i = 0; i < listener->add_headers.n; i++)
		if (strcmp(listener->add_headers.v[i].name, "user") == 0)
			return listener->add_headers.v[i].value;
	return NULL;
}

static bool may_speak_for(const struct config_peer *rule, const char *user)
{
	if (!rule || rule->any_user || rule->users.n == 0)
		return true;
	for (size_t i = 0; i < rule->users.n; i++)
		if (strcmp(rule->users.v[i], user) == 0)
			return true;
	return false;
}

bool flow_may_speak(const struct flow *flow)
{
	const struct origin *o = flow->origin;
	return !o->peer_refused && (o->listener->config->accept != CONFIG_OVERLAY || !flow->user ||
	                            may_speak_for(o->peer_rule, flow->user));
}

static void set_user(struct flow *flow, const char *user)
{
	free(flow->user);
	flow->user = user ? strdup(user) : NULL;
}

static void decide(struct flow *flow);

/* The user is known: what the listener and the identity add goes into the head, and the question is asked. */
static void identified(struct flow *flow)
{
	const struct config_listener *listener = flow->origin->listener->config;
	if (listener->require_user && !flow->user)
		return flow_answer(flow, 407, FLOW_DENIED, "this listener asks who you are");
	fields_apply(flow->request, &listener->add_headers, &listener->remove_headers);
	if (flow->user)
		head_set(flow->request, "user", flow->user);
	if (!probe_begin(flow))
		decide(flow);
}

static void on_proved(void *arg, bool ok)
{
	struct flow *flow = arg;
	flow_enter(flow);
	flow->auth = NULL;
	if (ok)
		identified(flow);
	else
		flow_answer(flow, 407, FLOW_DENIED, "wrong user name or password");
	flow_leave(flow);
}

/* Proxy-Authorization at a listener for programs (RFC 9110 11.7.1). True: it is being proved, or was refused. */
static bool prove(struct flow *flow, const char *credentials)
{
	char name[256], password[256];
	bool ok = false;
	if (auth_basic(credentials, name, sizeof(name), password, sizeof(password)) < 0) {
		flow_answer(flow, 407, FLOW_DENIED, "Proxy-Authorization is not Basic");
		return true;
	}
	set_user(flow, name);
	flow->by_password = true;
	flow_set_state(flow, FLOW_STATE_PROVING);
	flow->auth = auth_check(flow->tunnel->auth, name, password, &ok, on_proved, flow);
	explicit_bzero(password, sizeof(password));
	if (!flow->auth && !ok) {
		flow_answer(flow, 407, FLOW_DENIED, "wrong user name or password");
		return true;
	}
	return flow->auth != NULL;
}

/* Another worker of this node asks, which has decided: here it is only carried out. */
static void begin_inner(struct flow *flow)
{
	char *user = NULL;
	flow->decision = worker_link_decision(flow->tunnel->links, flow->origin, flow->request, &flow->own, &user);
	if (!flow->decision)
		return flow_answer(flow, 400, FLOW_REQUEST, "another worker does not say who asks");
	flow->origin = own_origin_get(flow->own);
	flow->user = user;
	flow->asked = flow->decided = now_us();
	flow->asked_under = flow->decided_under = flow->tunnel->current->number;
	if (!handover_hold(flow) && !flow_join(flow))
		flow_attempt(flow);
}

void flow_begin(struct flow *flow)
{
	if (flow->origin->inner)
		return begin_inner(flow);
	const struct config *config = flow->generation->config;
	const struct config_listener *listener = flow->origin->listener->config;
	const struct config_peer *rule = flow->origin->peer_rule;
	char *credentials = NULL;
	if (listener->accept == CONFIG_HTTP && config->n_users > 0 && head_get(flow->request, "proxy-authorization"))
		credentials = strdup(head_get(flow->request, "proxy-authorization"));
	fields_clean_request(flow->request, config, listener, rule);
	bool own;
	if (fields_hops(flow->request, config, &own) >= config->max_hops) {
		flow_answer(flow, 508, FLOW_LOOP, "too many hops");
	} else if (listener->accept == CONFIG_OVERLAY) {
		const char *user = head_get(flow->request, "user");
		set_user(flow, user);
		if (!flow_may_speak(flow))
			flow_answer(flow, 403, FLOW_DENIED, flow->origin->peer_refused ? "this node may not connect" :
			                                   "this node may not speak for the user");
		else
			identified(flow);
	} else if (flow->origin->proven_user) {
		set_user(flow, flow->origin->proven_user);
		flow->by_password = listener->accept == CONFIG_SOCKS5;
		identified(flow);
	} else if (!credentials || !prove(flow, credentials)) {
		if (!credentials)
			set_user(flow, added_user(listener));
		identified(flow);
	}
	if (credentials)
		explicit_bzero(credentials, strlen(credentials));
	free(credentials);
}

/* --- where ----------------------------------------------------------------------------------------------------------- */

static enum flow_error error_of(const char *token)
{
	for (int e = FLOW_NONE + 1; token && e < FLOW_ERROR_COUNT; e++)
		if (strcmp(fields_error_token((enum flow_error)e), token) == 0)
			return (enum flow_error)e;
	return FLOW_DENIED;
}

static void go_out(struct flow *flow);

static void take_decision(struct flow *flow, struct decision *decision)
{
	flow->query = NULL;
	flow->decision = decision;
	flow->decided = now_us();
	if (flow->probe && probe_decided(flow))
		return;
	decision = flow->decision;
	if (!decision)
		return flow_answer(flow, 503, FLOW_INTERNAL, "nobody decided in time");
	if (decision->status)
		return flow_answer(flow, decision->status, error_of(decision->error), decision->detail);
	if (!handover_hold(flow) && !flow_join(flow))
		go_out(flow);
}

/* Decided: to the cluster. */
static void go_out(struct flow *flow)
{
	const struct decision *decision = flow->decision;
	if (decision->route_stats)
		stats_add(decision->route_stats, STATS_ROUTE_FLOWS, 1);
	if (!decision->cluster_stats)
		return flow_answer(flow, 503, FLOW_INTERNAL, "the decision names no cluster");
	flow_record_start(flow);
	stats_add(decision->cluster_stats, STATS_CLUSTER_FLOWS, 1);
	stats_add(decision->cluster_stats, STATS_CLUSTER_FLOWS_OPEN, 1);
	flow->decided_under = flow->asked_under;
	flow->asked_head = asked_new(flow->request);
	fields_apply(flow->request, &decision->add_headers, &decision->remove_headers);
	if (flow->origin->peer && !strcmp(decision->cluster, CONFIG_CONTROLLER) &&
	    !strcmp(flow->origin->listener->name, CONFIG_CONTROLLER))
		head_set(flow->request, FIELDS_PEER, flow->origin->peer);
	fields_forward(flow->request, flow->generation->config, flow->origin->carry,
	               flow->origin->listener->config->accept != CONFIG_OVERLAY, flow->origin->source_text,
	               flow->origin->source_port);
	flow_attempt(flow);
}

void flow_released(struct flow *flow)
{
	flow_enter(flow);
	if (!flow_join(flow)) {
		if (flow->origin->inner)
			flow_attempt(flow);
		else
			go_out(flow);
	}
	flow_leave(flow);
}

/* An answer from a generation that is no longer in force may name a cluster that is gone: it is asked anew. */
static void on_decided(void *arg, struct decision *decision)
{
	struct flow *flow = arg;
	flow_enter(flow);
	if (decision && flow->asked_under != flow->tunnel->current->number) {
		decision_unref(decision);
		flow->query = NULL;
		decide(flow);
	} else {
		take_decision(flow, decision);
	}
	flow_leave(flow);
}

static void decide(struct flow *flow)
{
	generation_unref(flow->generation);
	flow->generation = generation_ref(flow->tunnel->current);
	flow_set_state(flow, FLOW_STATE_ASKING);
	flow->asked = now_us();
	flow->asked_under = flow->tunnel->current->number;
	struct decision *decision = ask_decision(flow->tunnel->ask, flow->origin, flow->user, flow->request, &flow->query,
	                                         on_decided, flow);
	if (decision)
		take_decision(flow, decision);
}

/* --- the way out ----------------------------------------------------------------------------------------------------- */

static const char *hash_key(struct flow *flow, const struct decision *decision)
{
	const struct config_cluster *cluster = config_cluster(flow->tunnel->current->config, decision->cluster);
	if (!cluster || cluster->balance != CONFIG_HASH)
		return NULL;
	const char *value = cluster->hash_header ? head_get(flow->request, cluster->hash_header) : NULL;
	return value ? value : flow->origin->source_text;
}

/* A tunnel that goes on does so where it was, if it can, and by every other way in between. */
static const char *former(const struct flow *flow, const struct decision *decision, unsigned tried)
{
	bool same = flow->going && flow->decision && strcmp(flow->decision->cluster, decision->cluster) == 0;
	return same && tried % 2 == 0 ? flow->used.endpoint : NULL;
}

struct attempt *flow_open(struct flow *flow, const struct decision *decision, unsigned tried)
{
	struct cluster_request request = {
		.flow = flow, .cluster = decision->cluster, .target = flow->request->authority, .scheme = flow->request->scheme,
		.tunnel = flow->connect && !flow->request->protocol, .hash_key = hash_key(flow, decision),
		.tried = tried, .tried_endpoints = flow->tried_endpoints, .prefer = former(flow, decision, tried)};
	return cluster_open(flow->tunnel->clusters, &request);
}

void flow_attempt(struct flow *flow)
{
	const struct decision *decision = flow->decision;
	unsigned tried = flow->attempts;
	flow_set_state(flow, FLOW_STATE_OPENING);
	flow->opening = now_us();
	flow->attempts++;
	flow->try_deadline = decision->retry.per_try_timeout ?
	                     flow->opening + (uint64_t)decision->retry.per_try_timeout * 1000 : 0;
	flow_arm(flow);
	flow->attempt = flow_open(flow, decision, tried);
}

/* Which endpoint it was, also where it could not be reached: the next attempt goes to another. */
static void take_used(struct flow *flow)
{
	cluster_used(flow->tunnel->clusters, &flow->used);
	if (flow->used.number >= 0 && flow->used.number < 64)
		flow->tried_endpoints |= 1ull << flow->used.number;
}

void flow_opened(struct flow *flow, struct leg *leg)
{
	flow_enter(flow);
	if (flow->going) {
		way_opened(flow, leg);
		return flow_leave(flow);
	}
	flow->attempt = NULL;
	flow->out = leg;
	flow->opened = now_us();
	take_used(flow);
	flow_set_state(flow, FLOW_STATE_WAITING);
	flow->out_ready = true;
	bool end = flow->request_end_first && !flow->connect;
	flow->up.finished = end;
	flow_tunnel_offer(flow);
	leg->ops->head(leg, flow->request, end);
	if (flow->state != FLOW_STATE_ENDED && flow->out)
		flow_pump(flow, true);
	flow_leave(flow);
}

void flow_open_failed(struct flow *flow, enum flow_error error, const char *detail)
{
	flow_enter(flow);
	flow->attempt = NULL;
	if (flow->going) {
		way_failed(flow, detail);
		return flow_leave(flow);
	}
	take_used(flow);
	flow_fail(flow, error, detail);
	flow_leave(flow);
}

/* --- another try ----------------------------------------------------------------------------------------------------- */

static unsigned class_of(enum flow_error error, unsigned status)
{
	static const unsigned classes[] = {
#define E(ID, s, token, retry, metric) [FLOW_##ID] = retry,
		FLOW_ERRORS(E)
#undef E
	};
	if (error == FLOW_NONE)
		return status >= 502 && status <= 504 ? CONFIG_RETRY_GATEWAY : 0;
	return classes[error];
}

static bool idempotent(const struct flow *flow)
{
	static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};   /* RFC 9110 9.2.2 */
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
		if (strcmp(flow->method, methods[i]) == 0)
			return true;
	return false;
}

/* Not counted as an attempt: the next hop never looked at it, or a pooled connection turned out dead. */
static bool free_retry(struct flow *flow, enum flow_error error)
{
	if (flow->free_retries >= FREE_RETRIES)
		return false;
	bool safe = error == FLOW_REFUSED_STREAM ||
	            (error == FLOW_TERMINATED && flow->used.reused && (idempotent(flow) || flow->connect));
	flow->free_retries += safe;
	return safe;
}

static uint64_t backoff(const struct flow *flow)
{
	unsigned shift = flow->attempts > 6 ? 6 : flow->attempts - 1;
	uint64_t base = (uint64_t)BACKOFF_US << shift;
	return base / 2 + (now_us() * 2654435761u >> 7) % base;
}

bool flow_retry(struct flow *flow, enum flow_error error, unsigned status)
{
	unsigned class = class_of(error, status);
	if (!class || !flow->decision || flow->head_sent || !flow->replayable || !flow->request)
		return false;
	bool at_once = free_retry(flow, error);
	if (!at_once && (!(flow->decision->retry.on & class) || flow->attempts >= flow->decision->retry.attempts))
		return false;
	if (status || error == FLOW_TERMINATED || error == FLOW_RESPONSE_TIMEOUT)
		cluster_report(flow->tunnel->clusters, flow->decision->cluster, flow->used.number, false);
	stats_add(flow->decision->cluster_stats, STATS_CLUSTER_RETRIES, 1);
	if (flow->attempt)              /* per_try_timeout ended it before it was connected */
		attempt_cancel(flow->attempt);
	flow->attempt = NULL;
	if (flow->out)
		flow->out->ops->close(flow->out, FLOW_CANCELLED);
	flow->out = NULL;
	flow->out_ready = false;
	flow->up.finished = false;
	/* Everything again, from the first byte; what was credited before is not credited twice (side.untaken). */
	chunks_clear(&flow->up.held);
	chunks_share(&flow->up.held, &flow->replay);
	struct side *down = &flow->down;
	chunks_clear(&down->held);
	head_free(down->trailers);
	*down = (struct side){0};
	flow_set_state(flow, FLOW_STATE_BACKING_OFF);
	flow->attempts -= at_once;
	flow->resume_at = now_us() + (at_once ? 0 : backoff(flow));
	flow->try_deadline = 0;
	flow_arm(flow);
	return true;
}

/* --- time ------------------------------------------------------------------------------------------------------------ */

static uint64_t earliest(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : a < b ? a : b;
}

static uint64_t request_deadline(const struct flow *flow)
{
	uint32_t ms = flow->decision ? flow->decision->timeout.request : 0;
	return ms && !flow->tunnel_open ? flow->began + (uint64_t)ms * 1000 : 0;
}

/* UDP flows are ended by the leg that began them, and only then by whoever else is on their way. An IP tunnel is a link: it
 * stays while its client end wants it, and holds an address meanwhile. */
static uint64_t idle_deadline(const struct flow *flow)
{
	uint32_t ms = flow->decision ? flow->decision->timeout.idle : 0;
	if (flow->tunnel_open && flow->protocol && strcmp(flow->protocol, "connect-ip") == 0)
		return 0;
	uint64_t grace = flow->tunnel_open && flow->protocol && strcmp(flow->protocol, "connect-udp") == 0 &&
	                 !(flow->in && flow->in->ops->idle) ? IDLE_GRACE_US : 0;
	return ms ? flow->last + (uint64_t)ms * 1000 + grace : 0;
}

void flow_arm(struct flow *flow)
{
	uint64_t at = earliest(earliest(flow->head_sent ? 0 : flow->try_deadline, flow->resume_at),
	                       earliest(request_deadline(flow), idle_deadline(flow)));
	if (!at)
		return;
	uint64_t now = now_us(), wait = at > now ? at - now : 0;
	struct timeval delay = {.tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000)};
	event_add(&flow->timer, &delay);
}

static bool passed(uint64_t deadline, uint64_t now)
{
	return deadline && now >= deadline;
}

void flow_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct flow *flow = arg;
	uint64_t now = now_us();
	(void)fd, (void)what;
	flow_enter(flow);
	if (passed(flow->resume_at, now)) {
		flow->resume_at = 0;
		flow_attempt(flow);
	} else if (!flow->head_sent && passed(flow->try_deadline, now)) {
		flow->try_deadline = 0;
		flow_fail(flow, FLOW_RESPONSE_TIMEOUT, "no response within per_try_timeout");
	} else if (passed(request_deadline(flow), now)) {
		flow->replayable = false;
		flow_fail(flow, FLOW_RESPONSE_TIMEOUT, "not done within the request timeout");
	} else if (passed(idle_deadline(flow), now) && flow->tunnel_open && flow->in && flow->in->ops->idle &&
	           !flow->up.ended) {
		flow->last = now;
		flow->in->ops->idle(flow->in);
		if (flow->state != FLOW_STATE_ENDED)
			flow_arm(flow);
	} else if (passed(idle_deadline(flow), now)) {
		flow->replayable = false;
		flow_fail(flow, flow->head_sent ? FLOW_READ_TIMEOUT : FLOW_RESPONSE_TIMEOUT, "nothing moved within the idle timeout");
	} else {
		flow_arm(flow);
	}
	flow_leave(flow);
}
