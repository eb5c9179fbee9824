/* SPDX-License-Identifier: Apache-2.0 */
/* Objectives: when another way is taken, which, and how often at most. */
#include "tests/unit/domain_world.h"
#include "workers/controller/objectives.h"

/* --- the decision alone ------------------------------------------------------------------------------------------- */

static struct domain_way ways[] = {{.cluster = (char *)"a"}, {.cluster = (char *)"b"}, {.cluster = (char *)"c"}};
static struct domain_objective o = {.name = (char *)"o", .limit = 100, .loss = {true, 100}, .for_ = 3000, .hold = 10000, .margin = 20,
                                    .ways = ways, .n_ways = 3};

static struct way_measure ms(uint32_t rtt, uint32_t loss)
{
	return (struct way_measure){.known = true, .rtt_us = rtt * 1000, .loss = loss};
}

static struct objective_choice decide(struct way_measure a, struct way_measure b, struct way_measure c, size_t present,
                                      struct objective_memory *memory, int64_t now)
{
	struct way_measure m[] = {a, b, c};

	return objective_decide(&o, m, present, NULL, memory, now);
}

/* What is taken once the present one, a, has been bad for long. */
static size_t taken(struct way_measure a, struct way_measure b, struct way_measure c)
{
	struct objective_memory memory = {.violated_since = 1};

	return decide(a, b, c, 0, &memory, 100000).way;
}

static void test_for(void **state)
{
	struct objective_memory memory = {0};
	const struct way_measure bad = ms(150, 0), good = ms(50, 0), none = {0};
	(void)state;

	assert_false(decide(good, good, none, 0, &memory, 1000).changed);
	assert_false(decide(bad, good, none, 0, &memory, 2000).changed);
	assert_false(decide(bad, good, none, 0, &memory, 4999).changed);
	assert_false(decide(good, good, none, 0, &memory, 4999).changed);     /* once kept, it begins anew */
	assert_false(decide(bad, good, none, 0, &memory, 5000).changed);
	assert_false(decide(none, good, none, 0, &memory, 7000).changed);     /* not measured: nothing is known */
	struct objective_choice c = decide(bad, good, none, 0, &memory, 8000);
	assert_true(c.changed);
	assert_int_equal(c.way, 1);
	assert_string_equal(c.reason, "a takes 150.0 ms and loses 0%; b takes 50.0 ms and loses 0%");
}

static void test_best(void **state)
{
	const struct way_measure none = {0};
	(void)state;

	assert_int_equal(taken(ms(150, 0), ms(90, 0), ms(40, 0)), 2);
	assert_int_equal(taken(ms(150, 0), ms(90, 0), ms(40, 200)), 1);       /* loses more than 1 % */
	assert_int_equal(taken(ms(50, 200), ms(90, 50), none), 1);            /* loss alone is a reason */
	assert_int_equal(taken(ms(150, 0), none, none), 0);
	/* none keeps it: only one that is better by the margin */
	assert_int_equal(taken(ms(150, 0), ms(130, 0), ms(140, 0)), 0);
	assert_int_equal(taken(ms(150, 0), ms(124, 0), ms(140, 0)), 1);
	assert_int_equal(taken(ms(150, 0), ms(110, 500), none), 0);           /* 5 % is worse than 150 ms */
	/* a dead one is worse than any, and never taken */
	assert_int_equal(taken(ms(0, 10000), ms(900, 900), none), 1);
	assert_int_equal(taken(ms(0, 10000), ms(0, 10000), none), 0);
}

static void test_hold(void **state)
{
	json_t *moves = json_pack("[I]", (json_int_t)1000000);
	struct objective_memory memory = {.violated_since = 1};
	struct way_measure m[] = {ms(150, 0), ms(50, 0), {0}};
	(void)state;

	assert_int_equal(objective_hold(&o, NULL, 1000000), 10000);
	assert_false(objective_decide(&o, m, 0, moves, &memory, 1009999).changed);
	assert_true(objective_decide(&o, m, 0, moves, &memory, 1010000).changed);
	/* twice as long with each further move of the last hour, up to 64 times */
	for (int i = 0; i < 9; i++)
		json_array_append_new(moves, json_integer(1000000 + i));
	assert_int_equal(objective_hold(&o, moves, 1000100), 640000);
	assert_int_equal(objective_hold(&o, moves, 1000000 + 3600 * 1000 + 100), 10000);
	json_decref(moves);
}

/* --- with nodes --------------------------------------------------------------------------------------------------- */

static const char document[] =
	"domain: x\n"
	"nodes: [{name: n}, {name: m, config: {routes: [{cluster: eu}]}}]\n"
	"users: [{name: alice, nodes: [n]}]\n"
	"clusters: [{name: eu, carry: h1, endpoints: [\"10.0.0.1:1\"]}, {name: us, carry: h1, endpoints: [\"10.0.0.2:1\"]}]\n"
	"objectives: [{name: o, user: alice, service: \"VIDEO:443\", limit: 100ms, for: 300ms, hold: 1h, ways: [{cluster: eu}, {cluster: us}]}]\n";

static void measured(int eu_ms, int us_ms)
{
	accept_wanted("n", json_pack("{s:[{s:s, s:i, s:i, s:i}, {s:s, s:i, s:i, s:i}]}", "probes",
	                             "name", "objective.o.eu", "sent", 10, "lost", 0, "rtt_us", eu_ms * 1000,
	                             "name", "objective.o.us", "sent", 10, "lost", 0, "rtt_us", us_ms * 1000));
}

static bool goes_by(const char *cluster)
{
	char line[64];

	snprintf(line, sizeof(line), "VIDEO:\n        cluster: %s\n", cluster);
	return strstr(text(get("want/", "n"), "text"), line);
}

static void test_steered(void **state)
{
	json_t *shown;
	(void)state;

	come("n");
	apply(document);
	assert_true(goes_by("eu"));
	json_int_t m = number(get("want/", "m"), "number");
	measured(50, 40);
	run_ms(1500);
	assert_null(get("steer/", "o"));
	shown = objectives_json(world.controller.domain, "o");
	assert_string_equal(text(shown, "state"), "met");
	assert_string_equal(text(shown, "choice"), "eu");
	json_decref(shown);
	measured(150, 40);
	for (int i = 0; i < 100 && !goes_by("us"); i++)
		run_ms(50);
	assert_true(goes_by("us"));
	assert_string_equal(text(get("want/", "n"), "reason"), "objective o");
	assert_int_equal(number(get("want/", "m"), "number"), m);
	assert_string_equal(text(get("steer/", "o"), "from"), "eu");
	assert_string_equal(text(get("steer/", "o"), "reason"), "eu takes 150.0 ms and loses 0%; us takes 40.0 ms and loses 0%");
	/* it stays for an hour, whatever comes */
	measured(10, 150);
	run_ms(1500);
	assert_true(goes_by("us"));
	shown = objectives_json(world.controller.domain, "o");
	assert_string_equal(text(shown, "state"), "violated");
	assert_int_equal(json_array_size(json_object_get(shown, "history")), 1);
	json_decref(shown);
	shown = objectives_json(world.controller.domain, NULL);
	assert_int_equal(json_array_size(json_object_get(shown, "objectives")), 1);
	json_decref(shown);
	assert_null(objectives_json(world.controller.domain, "other"));
}

/* Who does not report is not believed. */
static void test_away(void **state)
{
	(void)state;
	come("n");
	apply(document);
	measured(150, 40);
	go("n");
	run_ms(1500);
	assert_null(get("steer/", "o"));
	json_t *shown = objectives_json(world.controller.domain, "o");
	assert_string_equal(text(shown, "state"), "unknown");
	json_decref(shown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_for), cmocka_unit_test(test_best), cmocka_unit_test(test_hold),
		cmocka_unit_test_setup_teardown(test_steered, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_away, world_begin, world_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
