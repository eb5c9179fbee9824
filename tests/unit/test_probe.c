/* SPDX-License-Identifier: Apache-2.0 */
/* Probes at one node: what it asks about, what it says of itself, what it passes on, and to whom it says nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CHECK(condition) assert_true(condition)
#pragma GCC diagnostic ignored "-Wunused-function"   /* not all of the world is needed here */
#include "tests/unit/flow_world.h"
#include "workers/tunnel/probe.h"

static struct head *answered;     /* the last final head that an in leg got */
static struct leg_ops ops;

static void on_head(struct leg *leg, const struct head *head, bool end)
{
	head_free(answered);
	answered = head_clone(head);
	world_ops.head(leg, head, end);
}

static int setup(void **state)
{
	static struct config_endpoint endpoints[2] = {{.address = {.text = (char *)"192.0.2.1:8443"}}, {.address = {.text = (char *)"192.0.2.2:8443"}}};
	static struct config_cluster clusters[3];
	(void)state;
	world_begin();
	ops = world_ops;
	ops.head = on_head;
	clusters[0] = (struct config_cluster){.name = (char *)"on", .carry = CONFIG_H2, .endpoints = endpoints, .n_endpoints = 2};
	clusters[1] = (struct config_cluster){.name = (char *)"out", .carry = CONFIG_CARRY_UDP, .target = true};
	clusters[2] = (struct config_cluster){.name = (char *)"web", .carry = CONFIG_CARRY_TCP, .endpoints = endpoints, .n_endpoints = 1};
	world.config.clusters = clusters;
	world.config.n_clusters = 3;
	world.config.domain = (char *)"example.net";
	world.listener_config.accept = CONFIG_OVERLAY;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_end();
	head_free(answered);
	answered = NULL;
	return 0;
}

static struct head *options(const char *forwards, const char *probe)
{
	struct head *head = head_new();
	head->method = "OPTIONS";
	head->scheme = "https";
	head->authority = "localhost";
	head->path = "*";
	head_add(head, "user", "alice");
	if (forwards)
		head_add(head, "max-forwards", forwards);
	if (probe)
		head_add(head, PROBE_HEADER, probe);
	return head;
}

#define UDP "method=\"CONNECT\", protocol=\"connect-udp\", scheme=\"https\", authority=\"dev:6363\", path=\"/x/\""

static struct world_leg *ask(struct head *head)
{
	struct world_leg *l = leg_make(true);
	l->leg.ops = &ops;
	l->gave_end = true;
	flow_new(&world.tunnel, &world.origin, &l->leg, head, true);
	check_all();
	return l;
}

static struct decision *to(const char *cluster)
{
	struct decision *d = decision_new();
	d->cluster = (char *)(uintptr_t)cluster;
	return d;
}

static struct hop hop(void)
{
	struct hop found;
	assert_non_null(answered);
	assert_int_equal(answered->status, 200);
	assert_true(hop_read(answered, &found));
	assert_string_equal(found.node, "node");
	assert_string_equal(found.domain, "example.net");
	return found;
}

/* The question is that of the real request: its method, target, fields, and none of the probe's own. */
static void asks_about_the_real_thing(void **state)
{
	(void)state;
	ask(options("0", UDP));
	const struct head *asked = world.query.flow->request;
	assert_string_equal(asked->method, "CONNECT");
	assert_string_equal(asked->protocol, "connect-udp");
	assert_string_equal(asked->authority, "dev:6363");
	assert_string_equal(asked->path, "/x/");
	assert_string_equal(head_get(asked, "user"), "alice");
	assert_null(head_get(asked, PROBE_HEADER));
	assert_null(head_get(asked, "max-forwards"));
	decide(to("on"));
	struct hop h = hop();
	assert_string_equal(h.cluster, "on");
	assert_string_equal(h.carry, "h2");
	assert_string_equal(h.route, "r");
	assert_string_equal(h.endpoint, "192.0.2.1:8443 192.0.2.2:8443");
	assert_false(h.end);
	assert_int_equal(world.attempts, 0);
}

static void passes_it_on(void **state)
{
	(void)state;
	ask(options("3", UDP));
	decide(to("on"));
	assert_null(answered);
	const struct head *sent = world.attempt.flow->request;
	assert_string_equal(sent->method, "OPTIONS");
	assert_null(sent->protocol);
	assert_string_equal(sent->path, "*");
	assert_string_equal(sent->authority, "localhost");
	assert_string_equal(head_get(sent, "max-forwards"), "2");
	assert_string_equal(head_get(sent, PROBE_HEADER), UDP);
	assert_string_equal(head_get(sent, "user"), "alice");
	assert_non_null(head_get(sent, "via"));
	struct world_leg *out = open_out(false, false);
	assert_true(out->finished);
	respond(out, 200, true);
	assert_int_equal(answered->status, 200);
	assert_null(head_get(answered, HOP_HEADER));
}

/* However far it might go: where the way leaves the overlay it ends. */
static void ends_where_the_overlay_does(void **state)
{
	(void)state;
	ask(options("9", UDP));
	decide(to("out"));
	struct hop h = hop();
	assert_true(h.end);
	assert_string_equal(h.carry, "udp");
	assert_string_equal(h.endpoint, "dev:6363");
	ask(options("0", "method=\"CONNECT\", authority=\"a:1\""));
	decide(to("web"));
	assert_true(hop().end && hop().status == 0);
}

static void says_what_cannot_be_carried(void **state)
{
	(void)state;
	ask(options("5", UDP));
	decide(to("web"));
	struct hop h = hop();
	assert_int_equal(h.status, 503);
	assert_string_equal(h.cluster, "web");
	assert_string_equal(h.detail, "the cluster carries neither UDP nor IP");
	assert_true(h.end);
}

static void says_what_is_refused(void **state)
{
	(void)state;
	struct decision *d = decision_new();
	ask(options("5", UDP));
	d->status = 403;
	d->error = (char *)"http_request_denied";
	d->detail = (char *)"policy \"x\\y\" denies";
	decide(d);
	struct hop h = hop();
	assert_int_equal(h.status, 403);
	assert_string_equal(h.error, "http_request_denied");
	assert_string_equal(h.detail, "policy \"x\\y\" denies");
	assert_string_equal(h.cluster, "");
	assert_true(h.end);
}

static void nobody_decides(void **state)
{
	(void)state;
	ask(options("0", UDP));
	decide(NULL);
	assert_int_equal(answered->status, 503);
}

/* What is no probe is no probe's: passed on or answered by the book (RFC 9110 7.6.2). */
static void others(void **state)
{
	static const char *const no_probes[] = {NULL, "", "method=1", "protocol=\"x\"", "method", "method=\"\"", "method=\"GET\", path=x y"};
	(void)state;
	for (size_t i = 0; i < sizeof(no_probes) / sizeof(*no_probes); i++) {
		ask(options("0", no_probes[i]));
		assert_int_equal(answered->status, 200);
		assert_null(head_get(answered, HOP_HEADER));
	}
	assert_int_equal(world.asked, 0);
	ask(options("7", NULL));
	assert_string_equal(world.query.flow->request->method, "OPTIONS");
	assert_string_equal(head_get(world.query.flow->request, "max-forwards"), "6");
	decide(NULL);
	ask(options("x", NULL));                  /* none: not ours to mend */
	assert_string_equal(head_get(world.query.flow->request, "max-forwards"), "x");
	decide(NULL);
	struct head *get = options("0", UDP);
	get->method = "GET";
	ask(get);
	assert_string_equal(head_get(world.query.flow->request, "max-forwards"), "0");
	decide(NULL);
}

static void programs_are_told_nothing(void **state)
{
	(void)state;
	world.listener_config.accept = CONFIG_HTTP;
	ask(options("0", UDP));
	assert_int_equal(answered->status, 200);
	assert_null(head_get(answered, HOP_HEADER));
	ask(options("1", UDP));
	assert_string_equal(world.query.flow->request->method, "OPTIONS");
	assert_null(head_get(world.query.flow->request, PROBE_HEADER));   /* nor do they make others speak */
	decide(NULL);
	struct head *trace = options("0", NULL);
	trace->method = "TRACE";
	ask(trace);
	assert_int_equal(answered->status, 405);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(asks_about_the_real_thing), T(passes_it_on), T(ends_where_the_overlay_does), T(says_what_cannot_be_carried), T(says_what_is_refused), T(nobody_decides),
		T(others), T(programs_are_told_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
