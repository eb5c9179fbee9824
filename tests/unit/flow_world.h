/* What test_flow.c and fuzz_flow.c stand on: legs, questions, attempts and a clock of the test's own around real flows. Every
 * leg checks that the flow keeps to the contract of leg.h: bytes in order, head first, one end, one close, nothing after it,
 * and never more taken than given. Included once; the includer defines CHECK(condition). */
#ifndef HERMES_TESTS_FLOW_WORLD_H
#define HERMES_TESTS_FLOW_WORLD_H

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/records.h"

#define LEGS 64

struct world_leg {
	struct leg leg;
	bool in, refuse, at_once;     /* at_once: answers 200 inside ops->head(), as a dialled TCP leg does */
	bool headed, finished, gone;  /* headed: the final head came (in) or the request (out) */
	bool gave_head, gave_end;
	bool own;                     /* in: the answer is Hermes' own, its body is not counted */
	bool trailers;
	unsigned status, informational, closes;
	enum flow_error error;        /* of close */
	size_t given, taken, got;
	char proxy_status[256], body[256];
};

struct ask_query { struct flow *flow; void (*done)(void *arg, struct decision *decision); bool open; };
struct auth_query { void *arg; void (*done)(void *arg, bool ok); bool open; };
struct attempt { struct flow *flow; bool open; };

static struct {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct config_log access_log;
	struct listener listener;
	struct origin origin;
	uint64_t now;
	struct world_leg legs[LEGS];
	unsigned n_legs;
	struct ask_query query;
	struct auth_query auth;
	struct attempt attempt;
	unsigned asked, attempts, records, reports_bad;
	struct decision *at_once;     /* what ask_decision() returns; a reference of the world's */
	struct endpoint_used used;
	char result[64], detail[256];
	uint64_t bytes_in, bytes_out;
} world;

/* --- the clock, and what flows ask of others -------------------------------------------------------------------------- */

uint64_t now_us(void) { return world.now; }
uint64_t wall_us(void) { return world.now; }
unsigned worker_index(const struct worker *worker) { (void)worker; return 0; }
unsigned worker_tunnels(const struct worker *worker) { (void)worker; return 1; }
struct ipc_channel *worker_supervisor(struct worker *worker) { (void)worker; return NULL; }

void decision_unref(struct decision *decision)
{
	if (decision && --decision->refs == 0)
		free(decision);
}

struct decision *ask_decision(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                              struct ask_query **query, void (*done)(void *arg, struct decision *decision), void *arg)
{
	(void)ask, (void)origin, (void)user;
	CHECK(request && !world.query.open);
	world.asked++;
	*query = NULL;
	if (world.at_once) {
		world.at_once->refs++;
		return world.at_once;
	}
	world.query = (struct ask_query){arg, done, true};
	*query = &world.query;
	return NULL;
}

void ask_cancel(struct ask_query *query)
{
	CHECK(query == &world.query && query->open);
	query->open = false;
}

struct auth_query *auth_check(struct auth *auth, const char *name, const char *password, bool *now,
                              void (*done)(void *arg, bool ok), void *arg)
{
	(void)auth;
	CHECK(!world.auth.open);
	*now = strcmp(name, "known") == 0;
	if (*now || strcmp(password, "wrong") == 0)
		return NULL;
	world.auth = (struct auth_query){arg, done, true};
	return &world.auth;
}

void auth_cancel(struct auth_query *query)
{
	CHECK(query == &world.auth && query->open);
	query->open = false;
}

int auth_basic(const char *value, char *name, size_t name_size, char *password, size_t password_size)
{
	if (sscanf(value, "Basic %60[^:]:%60s", name, password) == 2)
		return 0;
	(void)name_size, (void)password_size;
	return -1;
}

struct attempt *cluster_open(struct clusters *clusters, const struct cluster_request *request)
{
	(void)clusters;
	CHECK(!world.attempt.open && request->flow && request->target);
	world.attempts++;
	world.attempt = (struct attempt){request->flow, true};
	return &world.attempt;
}

void attempt_cancel(struct attempt *attempt)
{
	CHECK(attempt == &world.attempt && attempt->open);
	attempt->open = false;
}

void cluster_used(struct clusters *clusters, struct endpoint_used *used) { (void)clusters; *used = world.used; }

void cluster_report(struct clusters *clusters, const char *cluster, int endpoint, bool ok)
{
	(void)clusters, (void)cluster, (void)endpoint;
	world.reports_bad += !ok;
}

void records_add(struct records *records, const struct ipc_flow_record *record)
{
	(void)records;
	world.records++;
	world.bytes_in = record->bytes_in;
	world.bytes_out = record->bytes_out;
	snprintf(world.result, sizeof(world.result), "%s", record->result);
	snprintf(world.detail, sizeof(world.detail), "%s", record->detail ? record->detail : "");
}

/* --- legs ------------------------------------------------------------------------------------------------------------- */

#define PERIOD 65536u
/* What a leg gives, by its place in the leg's bytes; repeats after PERIOD. */
static const uint8_t *bytes_at(size_t offset)
{
	static uint8_t pattern[2 * PERIOD];
	if (!pattern[0])
		for (size_t i = 0; i < sizeof(pattern); i++)
			pattern[i] = (uint8_t)(i * 31 + (i >> 8) + 7);
	return pattern + offset % PERIOD;
}

static void world_head(struct leg *base, const struct head *head, bool end)
{
	struct world_leg *l = (struct world_leg *)base;
	CHECK(!l->gone && !l->headed && !l->finished);
	if (!l->in) {
		CHECK(head->method && head->authority && head->status == 0);
		l->headed = true;
		l->finished = end;
		if (!l->at_once)
			return;
		struct head *response = head_new();
		response->status = 200;
		l->gave_head = true;
		flow_head(l->leg.flow, &l->leg, response, false);
		return;
	}
	CHECK(head->status >= 100 && head->status < 600);
	if (head->status < 200) {
		CHECK(!end);
		l->informational++;
		return;
	}
	l->headed = true;
	l->finished = end;
	l->status = head->status;
	const char *proxy_status = head_get(head, "proxy-status");
	l->own = proxy_status && !head_get(head, "x-far");
	snprintf(l->proxy_status, sizeof(l->proxy_status), "%s", proxy_status ? proxy_status : "");
}

static bool world_send(struct leg *base, struct chunks *chunks)
{
	struct world_leg *l = (struct world_leg *)base;
	CHECK(!l->gone && l->headed && !l->finished && chunks->bytes > 0);
	if (l->refuse)
		return false;
	for (struct chunk *c; (c = chunks_pop(chunks)); chunk_free(c)) {
		CHECK(c->length <= PERIOD && (l->own || memcmp(c->data, bytes_at(l->got), c->length) == 0));
		if (l->got + c->length < sizeof(l->body))
			memcpy(l->body + l->got, c->data, c->length);
		l->got += c->length;
	}
	return true;
}

static void world_finish(struct leg *base, const struct head *trailers)
{
	struct world_leg *l = (struct world_leg *)base;
	CHECK(!l->gone && l->headed && !l->finished);
	l->finished = true;
	l->trailers = trailers != NULL;
}

static void world_taken(struct leg *base, size_t bytes)
{
	struct world_leg *l = (struct world_leg *)base;
	CHECK(!l->gone && bytes > 0);
	l->taken += bytes;
	CHECK(l->taken <= l->given);
}

static void world_close(struct leg *base, enum flow_error error)
{
	struct world_leg *l = (struct world_leg *)base;
	CHECK(!l->gone);
	l->closes++;
	l->error = error;
	l->gone = true;
	l->leg.flow = NULL;
}

static const struct leg_ops world_ops = {
	.kind = "h2", .head = world_head, .send = world_send, .finish = world_finish, .taken = world_taken,
	.close = world_close,
};

static struct world_leg *leg_make(bool in)
{
	CHECK(world.n_legs < LEGS);
	struct world_leg *l = &world.legs[world.n_legs++];
	*l = (struct world_leg){.leg = {.ops = &world_ops}, .in = in};
	return l;
}

/* --- what the world does to a flow ------------------------------------------------------------------------------------ */

static void check_leg(const struct world_leg *l)
{
	const struct flow *flow = l->leg.flow;
	if (l->gone || !flow)
		return;
	const struct side *side = l->in ? &flow->up : &flow->down;
	CHECK(l->given - l->taken == side->untaken);
}

static void check_all(void)
{
	for (unsigned i = 0; i < world.n_legs; i++)
		check_leg(&world.legs[i]);
}

static struct head *request_head(const char *method)
{
	struct head *head = head_new();
	head->method = method;
	head->authority = "video:80";
	if (strcmp(method, "CONNECT") != 0) {
		head->scheme = "http";
		head->path = "/";
	}
	return head;
}

static struct world_leg *begin(struct head *request, bool end)
{
	struct world_leg *l = leg_make(true);
	l->gave_end = end;
	flow_new(&world.tunnel, &world.origin, &l->leg, request, end);
	check_all();
	return l;
}

static struct decision *decision_new(void)
{
	struct decision *d = calloc(1, sizeof(*d));
	*d = (struct decision){.refs = 1, .cluster = (char *)"c", .route = (char *)"r", .retry = {.attempts = 1}};
	d->cluster_stats = stats_set(world.tunnel.stats, STATS_CLUSTER, "c");
	d->route_stats = stats_set(world.tunnel.stats, STATS_ROUTE, "r");
	return d;
}

/* Takes over the decision. */
static void decide(struct decision *decision)
{
	CHECK(world.query.open);
	world.query.open = false;
	world.query.done(world.query.flow, decision);
	check_all();
}

static void prove_now(bool ok)
{
	CHECK(world.auth.open);
	world.auth.open = false;
	world.auth.done(world.auth.arg, ok);
	check_all();
}

static struct world_leg *open_out(bool at_once, bool refuse)
{
	CHECK(world.attempt.open);
	world.attempt.open = false;
	struct world_leg *l = leg_make(false);
	l->at_once = at_once;
	l->refuse = refuse;
	l->leg.flow = world.attempt.flow;
	flow_opened(world.attempt.flow, &l->leg);
	check_all();
	return l;
}

static void open_fails(enum flow_error error, const char *detail)
{
	CHECK(world.attempt.open);
	world.attempt.open = false;
	flow_open_failed(world.attempt.flow, error, detail);
	check_all();
}

static void respond(struct world_leg *l, unsigned status, bool end)
{
	struct head *head = head_new();
	head->status = status;
	head_add(head, "x-far", "yes");
	if (status >= 200) {
		l->gave_head = true;
		l->gave_end = end;
	}
	flow_head(l->leg.flow, &l->leg, head, end);
	check_all();
}

static void give(struct world_leg *l, size_t bytes)
{
	struct chunks chunks = {0};
	for (size_t n; bytes > 0; bytes -= n, l->given += n) {
		n = bytes < PERIOD ? bytes : PERIOD;
		chunks_copy(&chunks, bytes_at(l->given), n);
	}
	flow_data(l->leg.flow, &l->leg, &chunks);
	CHECK(!chunks.head);
	check_all();
}

static void give_end(struct world_leg *l, bool with_trailers)
{
	struct head *trailers = with_trailers ? head_new() : NULL;
	if (trailers)
		head_add(trailers, "checksum", "42");
	l->gave_end = true;
	flow_finish(l->leg.flow, &l->leg, trailers);
	check_all();
}

static void take_again(struct world_leg *l)
{
	l->refuse = false;
	flow_writable(l->leg.flow, &l->leg);
	check_all();
}

static void break_leg(struct world_leg *l, enum flow_error error)
{
	struct flow *flow = l->leg.flow;
	l->gone = true;
	l->leg.flow = NULL;
	flow_broken(flow, &l->leg, error, "it broke");
	check_all();
}

/* Time passes, and the flow's timer goes off if it is set. */
static void pass_time(struct world_leg *in, uint64_t ms)
{
	world.now += ms * 1000;
	struct flow *flow = in->leg.flow;
	if (!flow || !event_pending(&flow->timer, EV_TIMEOUT, NULL))
		return;
	event_del(&flow->timer);
	flow_on_timer(-1, 0, flow);
	check_all();
}

/* --- set-up ----------------------------------------------------------------------------------------------------------- */

static void world_begin(void)
{
	struct event_base *base = world.base ? world.base : event_base_new();
	struct stats *stats = world.tunnel.stats ? world.tunnel.stats : stats_new(16);
	memset(&world, 0, sizeof(world));
	world.base = base;
	world.now = 1000000;
	world.config = (struct config){.node_name = (char *)"node", .max_hops = 8, .replay_bytes = 64 * 1024};
	world.config.telemetry.access_log = &world.access_log;
	world.config.telemetry.n_access_log = 1;
	world.generation = (struct generation){.number = 1, .refs = 1000000, .config = &world.config};
	world.tunnel = (struct tunnel){.base = base, .stats = stats, .current = &world.generation};
	world.listener_config = (struct config_listener){.name = (char *)"l", .accept = CONFIG_HTTP};
	world.listener = (struct listener){.name = "l", .config = &world.listener_config, .stats = stats_set(stats, STATS_LISTENER, "l")};
	world.origin = (struct origin){.listener = &world.listener, .source_text = "127.0.0.1", .carry = "h2"};
	world.used = (struct endpoint_used){.endpoint = "e", .address = "192.0.2.1:80"};
}

/* Every leg has ended just once, every question is withdrawn, and no payload is held. */
static void world_end(void)
{
	for (unsigned i = 0; i < world.n_legs; i++) {
		CHECK(world.legs[i].gone && world.legs[i].closes <= 1);
		CHECK(!world.legs[i].leg.flow);
	}
	CHECK(!world.query.open && !world.auth.open && !world.attempt.open);
	CHECK(world.tunnel.n_flows == 0 && !world.tunnel.flows);
	CHECK(slab_in_use() <= SLAB_SIZE);
	decision_unref(world.at_once);
	world.at_once = NULL;
}

#endif
