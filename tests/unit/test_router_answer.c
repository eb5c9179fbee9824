/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ipc/endpoints.h"
#include "ipc/json.h"
#include "store/generations.h"
#include "workers/router/answer.h"
#include "workers/router/health.h"

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

static struct config_endpoint ends[] = { { .address = { .text = "e1:1" }, .weight = 1 },
	{ .address = { .text = "e2:1" }, .weight = 2 } };
static struct config_cluster clusters[] = { { .name = "any", .target = true, .carry = CONFIG_CARRY_TCP },
	{ .name = "c", .carry = CONFIG_H2, .endpoints = ends, .n_endpoints = 2 } };
static struct config config = { .clusters = clusters, .n_clusters = 2 };

static bool down(struct endpoint_table *t, unsigned endpoint, uint32_t bits, bool drained)
{
	return endpoint_table_slot(t, 1, endpoint)->down == bits && endpoint_table_slot(t, 1, endpoint)->drained == drained;
}

static void health_reaches_the_table(void **state)
{
	struct health *h = health_new();
	struct endpoint_table *t = endpoint_table_new(&config);

	(void)state;
	assert_int_equal(health_report(h, "c", "e2:1", 3, false, "refused"), 0);
	assert_int_equal(health_report(h, "c", "e2:1", 33, false, "refused"), 0);
	health_apply_one(h, &config, t, "c", "e2:1");
	assert_true(down(t, 1, 1u << 3 | 1u << 1, false) && down(t, 0, 0, false));
	assert_int_equal(health_drain(h, "c", "e2:1", true), 0);
	health_forget_tunnel(h, 3);
	health_report(h, "c", "e2:1", 1, true, NULL);      /* another than 33, though they share a bit */
	health_apply(h, &config, t);
	assert_true(down(t, 1, 1u << 1, true));
	health_report(h, "c", "e2:1", 33, true, NULL);
	health_apply(h, &config, t);
	assert_true(down(t, 1, 0, true));
	health_drain(h, "c", "e2:1", false);
	health_apply(h, &config, t);
	assert_true(down(t, 1, 0, false));
	endpoint_table_free(t);
	health_free(h);
}

static void draining_survives_what_health_does_not(void **state)
{
	struct config other = { 0 };
	const struct config *kept[] = { &other, NULL };
	struct health *h = health_new();
	struct endpoint_table *t = endpoint_table_new(&config);

	(void)state;
	health_report(h, "c", "e1:1", 0, false, NULL);
	health_report(h, "c", "e2:1", 0, false, NULL);
	health_drain(h, "c", "e1:1", true);
	health_sweep(h, kept, 2);
	health_apply(h, &config, t);
	assert_true(down(t, 0, 0, true) && down(t, 1, 0, false));
	endpoint_table_free(t);
	health_free(h);
}

static void listed(void **state)
{
	struct health *h = health_new();
	struct json json = JSON_INIT;

	(void)state;
	health_report(h, "c", "e1:1", 0, false, "no \"route\"");
	health_list(h, &config, NULL, &json);
	assert_string_equal(json.data,
		"{\"cluster\":\"any\",\"carry\":\"tcp\",\"endpoint\":\"target\",\"weight\":0,\"health\":\"unknown\",\"drained\":false,"
		"\"down_at\":0,\"reason\":null},"
		"{\"cluster\":\"c\",\"carry\":\"h2\",\"endpoint\":\"e1:1\",\"weight\":1,\"health\":\"down\",\"drained\":false,"
		"\"down_at\":1,\"reason\":\"no \\\"route\\\"\"},"
		"{\"cluster\":\"c\",\"carry\":\"h2\",\"endpoint\":\"e2:1\",\"weight\":2,\"health\":\"up\",\"drained\":false,"
		"\"down_at\":0,\"reason\":null}");
	json_free(&json);
	health_free(h);
}

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static struct config_pair own_header = { "X-Tier", "route" };
static struct config_space_entry entry = { .name = "video", .key = "VIDEO", .cluster = "c",
	.retry = { .on = 3, .attempts = 2, .per_try_timeout = 7 } };
static struct config_space space = { .name = "gold", .users = { .v = (char *[]){ "alice" }, .n = 1 }, .names = &entry,
	.n_names = 1 };
static struct config_route routes[] = { { .name = "routes[0]", .cluster = "any", .move = true,
	.match = { .authorities = { .v = (char *[]){ "video" }, .n = 1 } }, .add_headers = { &own_header, 1 },
	.timeout = { .request = 5, .idle = 6 } } };

struct fixture {
	struct config config;
	struct routing routing;
	struct answer_room room;
	struct ipc_decision d;
};

static struct fixture *setup(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->config = (struct config){ .spaces = &space, .n_spaces = 1, .routes = routes, .n_routes = 1, .clusters = clusters,
		.n_clusters = 2 };
	f->routing = (struct routing){ .config = &f->config, .routes = route_index_new(&f->config),
		.spaces = space_index_new(&f->config) };
	return f;
}

static void teardown(struct fixture *f)
{
	route_index_free(f->routing.routes);
	space_index_free(f->routing.spaces);
	answer_room_free(&f->room);
	free(f);
}

static void the_space_wins_over_routes(void **state)
{
	struct fixture *f = setup();
	struct ipc_assessed a = { .id = 9, .user = "alice", .authority = "video:80", .valid_ms = 77 };
	struct trace trace;

	(void)state;
	trace_reset(&trace);
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, &trace, &f->d), 0);
	assert_int_equal(f->d.status, 0);
	assert_string_equal(f->d.route, "space gold: VIDEO");
	assert_string_equal(f->d.cluster, "c");
	assert_true(f->d.id == 9 && f->d.generation == 4 && f->d.valid_ms == 77);
	assert_true(f->d.retry_on == 3 && f->d.retry_attempts == 2 && f->d.per_try_timeout == 7);
	assert_true(trace.n == 1 && strstr(trace.v[0], "gold"));
	teardown(f);
}

/* What comes in by an implied listener has its implied route, whatever a space calls by that name. */
static void implied_listeners_have_no_space(void **state)
{
	struct fixture *f = setup();
	struct ipc_assessed a = { .user = "alice", .authority = "video:80", .listener = CONFIG_CONTROLLER };

	(void)state;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_string_equal(f->d.route, "routes[0]");
	a.listener = "apps";
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_string_equal(f->d.route, "space gold: VIDEO");
	teardown(f);
}

static void routes_else(void **state)
{
	struct fixture *f = setup();
	struct ipc_pair added[] = { { "x-tier", "policy" }, { "x-other", "1" } };
	struct ipc_assessed a = { .user = "bob", .authority = "video", .add_headers = { added, 2 } };

	(void)state;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_string_equal(f->d.route, "routes[0]");
	assert_true(f->d.move && f->d.request_timeout == 5 && f->d.idle_timeout == 6);
	assert_int_equal(f->d.add_headers.n, 2);
	assert_string_equal(f->d.add_headers.v[0].name, "x-other");
	assert_string_equal(f->d.add_headers.v[1].value, "route");
	a.authority = "nowhere";
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_int_equal(f->d.status, 404);
	assert_string_equal(f->d.error, "destination_not_found");
	assert_string_equal(f->d.detail, "no route matches");
	assert_null(f->d.cluster);
	teardown(f);
}

static void denials_pass_through(void **state)
{
	struct fixture *f = setup();
	struct ipc_assessed a = { .authority = "video", .status = 403, .error = "http_request_denied", .detail = "why" };

	(void)state;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_int_equal(f->d.status, 403);
	assert_string_equal(f->d.detail, "why");
	assert_null(f->d.cluster);
	teardown(f);
}

/* A packet goes where its tunnel goes: no route is looked for, though one matches, and none is missed. */
static void packets_need_no_route(void **state)
{
	struct fixture *f = setup();
	struct ipc_assessed a = { .authority = "video", .user = "alice", .inner = true, .ip_protocol = 6, .valid_ms = 700 };

	(void)state;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_true(f->d.status == 0 && !f->d.route && !f->d.cluster && f->d.valid_ms == 700);
	a.authority = "nowhere";
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_int_equal(f->d.status, 0);
	a.inner = false;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_int_equal(f->d.status, 404);
	a.inner = true, a.status = 403;
	assert_int_equal(answer(&f->routing, 4, &a, &f->room, NULL, &f->d), 0);
	assert_int_equal(f->d.status, 403);
	teardown(f);
}

/* --- generations -------------------------------------------------------------------------------------------------------- */

static unsigned released;

static void release(void *object)
{
	(void)object;
	released++;
}

static void generations(void **state)
{
	struct generations g = { .release = release };
	int one, two, three;
	uint64_t used;

	(void)state;
	assert_null(generations_find(&g, 1, &used));
	generations_prepare(&g, 1, &one);
	assert_ptr_equal(generations_find(&g, 1, &used), &one);
	generations_commit(&g, 2);                       /* not prepared: nothing */
	generations_commit(&g, 1);
	generations_prepare(&g, 2, &two);
	generations_abort(&g, 7);
	assert_ptr_equal(generations_find(&g, 2, &used), &two);
	generations_commit(&g, 2);
	assert_ptr_equal(generations_find(&g, 1, &used), &one);
	assert_ptr_equal(generations_find(&g, 9, &used), &two);
	assert_int_equal(used, 2);
	assert_int_equal(released, 0);
	generations_prepare(&g, 3, &three);
	generations_abort(&g, 3);
	assert_int_equal(released, 1);
	generations_prepare(&g, 4, &three);
	generations_commit(&g, 4);
	assert_int_equal(released, 2);
	assert_ptr_equal(generations_find(&g, 1, &used), &three);
	generations_clear(&g);
	assert_int_equal(released, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(health_reaches_the_table), cmocka_unit_test(draining_survives_what_health_does_not),
		cmocka_unit_test(listed), cmocka_unit_test(the_space_wins_over_routes), cmocka_unit_test(implied_listeners_have_no_space), cmocka_unit_test(routes_else),
		cmocka_unit_test(denials_pass_through), cmocka_unit_test(packets_need_no_route),
		cmocka_unit_test(generations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
