/* SPDX-License-Identifier: Apache-2.0 */
/* Rollouts: which nodes first, what lets them go on, what stops them, and what whoever leads next makes of the record. */
#include "tests/unit/domain_world.h"
#include "workers/controller/rollout.h"
#include "workers/controller/rollout_plan.h"

#include <errno.h>

#define DOCUMENT(level, rollout) \
	"domain: x\ndefaults: {log: {level: " level "}}\n" \
	"nodes: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}, {name: f}, {name: g}, {name: h}]\n" \
	"rollout: {" rollout "}\n"
#define QUICK "wait: 0s, timeout: 1s"

static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

static json_t *record(void)
{
	return get("rollout", "");
}

static bool is_state(const char *state)
{
	return !strcmp(text(record(), "state"), state);
}

static void expect_state(const char *state)
{
	for (int i = 0; i < 100 && !is_state(state); i++)
		run_ms(20);
	if (!is_state(state))
		json_dumpf(record(), stderr, 0);
	assert_true(is_state(state));
}

/* How many nodes are to run the version. */
static size_t moved(json_int_t version)
{
	size_t n = 0;

	for (size_t i = 0; i < 8; i++)
		n += get("want/", names[i]) && number(get("want/", names[i]), "version") == version;
	return n;
}

static void expect_moved(json_int_t version, size_t n)
{
	for (int i = 0; i < 100 && moved(version) != n; i++)
		run_ms(20);
	assert_int_equal(moved(version), n);
}

static void accept_all(json_int_t version)
{
	for (size_t i = 0; i < 8; i++)
		if (get("want/", names[i]) && number(get("want/", names[i]), "version") == version)
			accept_wanted(names[i], NULL);
}

/* All eight run version 1. */
static void begin(void)
{
	for (size_t i = 0; i < 8; i++)
		come(names[i]);
	apply(DOCUMENT("info", QUICK));
	expect_moved(1, 8);
	accept_all(1);
	expect_state("done");
}

static void test_stages(void **state)
{
	(void)state;
	begin();
	assert_int_equal(apply(DOCUMENT("warn", "canary: [d], steps: [50%, 100%], " QUICK)), 2);
	expect_moved(2, 1);
	assert_int_equal(number(get("want/", "d"), "version"), 2);
	run_ms(100);
	assert_int_equal(moved(2), 1);
	accept_wanted("d", NULL);
	expect_moved(2, 4);
	assert_int_equal(moved(1), 4);
	accept_wanted("a", NULL);
	accept_wanted("b", NULL);
	run_ms(150);
	assert_int_equal(moved(2), 4);           /* c has not answered */
	accept_wanted("c", NULL);
	expect_moved(2, 8);
	assert_true(is_state("running"));
	accept_all(2);
	expect_state("done");
	json_t *shown = rollout_json(world.controller.domain);
	assert_int_equal(number(json_object_get(shown, "progress"), "accepted"), 8);
	assert_true(json_is_real(json_object_get(shown, "ended")));
	json_decref(shown);
}

static void test_canary_refuses(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [c], " QUICK));
	expect_moved(2, 1);
	refuse_wanted("c", "controller:1:1: no such device");
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node c refused it: controller:1:1: no such device");
	expect_moved(2, 0);                      /* it has again what it had */
	assert_string_equal(text(get("want/", "c"), "text"), "log:\n  level: info\n");
	assert_int_equal(moved(1), 8);
	/* the next document begins from what everybody runs */
	assert_int_equal(apply(DOCUMENT("error", QUICK)), 3);
	expect_moved(3, 8);
	accept_all(3);
	expect_state("done");
	assert_int_equal(number(record(), "from"), 1);
}

static void test_stay(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: 2, on_stop: stay, " QUICK));
	expect_moved(2, 2);
	accept_wanted("a", NULL);
	refuse_wanted("b", "no");
	expect_state("stopped");
	run_ms(100);
	assert_int_equal(moved(2), 2);
	/* a document after that, which concerns d alone: others keep what they have, a and b version 2 */
	apply("domain: x\ndefaults: {log: {level: info}}\n"
	      "nodes: [{name: a, config: {log: {level: warn}}}, {name: b, config: {log: {level: warn}}}, {name: c}, "
	      "{name: d, config: {log: {level: debug}}}, {name: e}, {name: f}, {name: g}, {name: h}]\n"
	      "rollout: {canary: [d], wait: 1h}\n");
	expect_moved(3, 1);
	assert_int_equal(json_array_size(json_object_get(record(), "nodes")), 1);
	struct rollout_view view;
	rollout_view_init(&view, record());
	assert_int_equal(rollout_version_of(&view, "d"), 3);
	assert_int_equal(rollout_version_of(&view, "a"), 3);
	rollout_view_free(&view);
}

static void test_health(void **state)
{
	(void)state;
	begin();
	accept_wanted("a", json_pack("{s:[{s:s, s:i}]}", "workers", "name", "tunnel/0", "restarts", 3));
	apply(DOCUMENT("warn", "canary: [a], wait: 1h, health: {restarts: 1}"));
	expect_moved(2, 1);
	accept_wanted("a", json_pack("{s:[{s:s, s:i}]}", "workers", "name", "tunnel/0", "restarts", 4));
	run_ms(100);
	assert_true(is_state("running"));
	assert_true(number(record(), "settled") > 0);
	accept_wanted("a", json_pack("{s:[{s:s, s:i}]}", "workers", "name", "tunnel/0", "restarts", 5));
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "workers of node a were restarted 2 times");
}

static void test_probes_and_readiness(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a], wait: 1h, health: {probe_loss: 10%}"));
	expect_moved(2, 1);
	accept_wanted("a", json_pack("{s:b}", "ready", 0));
	run_ms(100);
	assert_int_equal(number(record(), "settled"), 0);     /* it may still become so */
	accept_wanted("a", json_pack("{s:[{s:s, s:i, s:i}]}", "probes", "name", "p", "sent", 10, "lost", 1));
	run_ms(100);
	assert_true(is_state("running"));
	assert_true(number(record(), "settled") > 0);
	accept_wanted("a", json_pack("{s:b}", "ready", 0));
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node a is not ready");
	accept_all(1);
	apply(DOCUMENT("error", "canary: [b], wait: 1h, health: {probe_loss: 10%}"));
	expect_moved(3, 1);
	accept_wanted("b", json_pack("{s:[{s:s, s:i, s:i}]}", "probes", "name", "p", "sent", 10, "lost", 2));
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node b loses 2 of 10 probes (p)");
}

static void test_timeout(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a], " QUICK));
	expect_moved(2, 1);
	run_ms(1500);                            /* it is there and says nothing */
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node a has not answered in time");
}

static void test_away(void **state)
{
	(void)state;
	begin();
	go("c");
	apply(DOCUMENT("warn", "canary: [a], steps: [50%, 100%], " QUICK));
	accept_wanted("a", NULL);
	expect_moved(2, 4);                      /* c among them, away from the beginning: nobody waits for it */
	assert_non_null(strstr(text(get("want/", "c"), "text"), "warn"));
	accept_wanted("b", NULL);
	accept_wanted("d", NULL);
	expect_moved(2, 8);
	/* one that falls silent is waited for, then it counts as away */
	go("h");
	for (size_t i = 4; i < 7; i++)
		accept_wanted(names[i], NULL);
	run_ms(100);
	assert_true(is_state("running"));
	run_ms(1500);
	expect_state("done");
}

static void test_canary_silent(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a], " QUICK));
	expect_moved(2, 1);
	go("a");
	run_ms(1500);
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node a has fallen silent");
}

static void on_act(void *arg, int error)
{
	*(int *)arg = error;
}

static int act(const char *action)
{
	int error = 1;

	rollout_act(world.controller.domain, action, on_act, &error);
	run_ms(50);
	return error;
}

/* What was confirmed by no controller yet may go back by itself; and silence after all was well is no good sign. */
static void test_unconfirmed(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a], wait: 1h"));
	expect_moved(2, 1);
	accept_wanted("a", json_pack("{s:b}", "confirmed", 0));
	run_ms(150);
	assert_int_equal(number(record(), "settled"), 0);
	accept_wanted("a", json_pack("{s:b}", "confirmed", 1));
	run_ms(150);
	assert_true(number(record(), "settled") > 0);
	go("a");
	tell("a");
	expect_state("stopped");
	assert_string_equal(text(record(), "reason"), "node a has fallen silent");
}

/* A document that comes in the middle of another's rollout: those that it leaves, or gives up again, have what they had. */
static void test_superseded(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a, b], wait: 1h"));
	expect_moved(2, 2);
	accept_wanted("a", NULL);
	accept_wanted("b", NULL);
	apply(DOCUMENT("error", "canary: [b, c], wait: 1h"));
	expect_moved(3, 2);
	assert_int_equal(moved(2), 1);
	assert_int_equal(moved(1), 5);
	assert_string_equal(text(get("want/", "a"), "text"), "log:\n  level: warn\n");
	accept_wanted("b", NULL);
	refuse_wanted("c", "no");
	expect_state("stopped");
	expect_moved(3, 0);
	assert_int_equal(moved(2), 2);
	assert_int_equal(moved(1), 6);
	assert_string_equal(text(get("want/", "b"), "text"), "log:\n  level: warn\n");
	assert_string_equal(text(get("want/", "c"), "text"), "log:\n  level: info\n");
	/* and a further one, for all */
	apply(DOCUMENT("debug", QUICK));
	expect_moved(4, 8);
	json_t *in_use = rollout_in_use(record());
	assert_int_equal(json_array_size(in_use), 3);
	json_decref(in_use);
}

static void test_operators(void **state)
{
	(void)state;
	begin();
	assert_int_equal(act("pause"), -EPERM);
	assert_int_equal(act("dance"), -EINVAL);
	apply(DOCUMENT("warn", "canary: [a], steps: [50%, 100%], wait: 0s, timeout: 1h"));
	expect_moved(2, 1);
	assert_int_equal(act("pause"), 0);
	accept_wanted("a", NULL);
	run_ms(100);
	assert_int_equal(moved(2), 1);
	assert_int_equal(act("resume"), 0);
	expect_moved(2, 4);
	assert_int_equal(act("promote"), 0);
	expect_moved(2, 8);
	assert_int_equal(act("abort"), 0);
	expect_moved(2, 0);
	assert_int_equal(moved(1), 8);
	assert_true(is_state("aborted"));
	assert_int_equal(act("resume"), -EPERM);
}

/* The record is all there is: whoever begins anew goes on. */
static void test_another_controller(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [a], steps: [50%, 100%], wait: 0s, timeout: 1s"));
	expect_moved(2, 1);
	run_ms(900);
	domain_stop(world.controller.domain);
	world.changed = NULL;
	json_t *before = json_deep_copy(record());
	struct domain *dead = world.controller.domain;
	world.controller.domain = NULL;
	go("a");                                 /* nobody was heard of yet: that says nothing */
	domain_start(&world.controller);
	assert_true(domain_is_fresh(world.controller.domain));
	run_ms(200);
	assert_true(json_equal(before, record()));
	accept_wanted("a", NULL);
	expect_moved(2, 4);
	accept_all(2);
	expect_moved(2, 8);
	accept_all(2);
	expect_state("done");
	json_decref(before);
	/* watchers of the dead one are kv's as long as it lives; they only ask it to do what it no longer does */
	struct kv *kv = world.controller.kv;
	domain_stop(world.controller.domain);
	kv_free(kv);
	domain_free(dead);
	const char *why;
	world.controller.kv = kv_local(world.base, world.folder, world_state, NULL, &why);
	run_ms(10);
	assert_true(is_state("done"));           /* and over a restart */
	assert_int_equal(moved(2), 8);
}

static void test_back_to_an_old_one(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", QUICK));
	expect_moved(2, 8);
	accept_all(2);
	expect_state("done");
	assert_int_equal(apply(DOCUMENT("info", QUICK)), 3);
	expect_moved(3, 8);
	assert_string_equal(text(get("want/", "a"), "text"), "log:\n  level: info\n");
}

/* Once more, after what was in the way is gone. */
static void test_resumed(void **state)
{
	(void)state;
	begin();
	apply(DOCUMENT("warn", "canary: [c], " QUICK));
	expect_moved(2, 1);
	json_int_t refused = number(get("want/", "c"), "number");
	refuse_wanted("c", "port taken");
	expect_state("stopped");
	expect_moved(2, 0);
	accept_wanted("c", NULL);
	assert_int_equal(act("resume"), 0);
	expect_moved(2, 1);
	assert_true(number(get("want/", "c"), "number") > refused);
	accept_wanted("c", NULL);
	expect_moved(2, 8);
	accept_all(2);
	expect_state("done");
}

/* A reason of hostile length, cut within a character. */
static void test_long_reason(void **state)
{
	char reason[1400] = "";
	(void)state;

	begin();
	apply(DOCUMENT("warn", "canary: [a], " QUICK));
	expect_moved(2, 1);
	for (int i = 0; i < 500; i++)
		strcat(reason, i % 2 ? "\xc3\xa4" : "\xe2\x82\xac");
	refuse_wanted("a", reason);
	expect_state("stopped");
	assert_true(strlen(text(record(), "reason")) > 300);
}

/* --- the plan alone ----------------------------------------------------------------------------------------------- */

static bool is_there(void *arg, const char *node)
{
	return strcmp(node, arg);
}

static void test_plan(void **state)
{
	static const char document[] = "domain: x\nrollout: {canary: 1, steps: [30%, 4, 100%]}\n";
	struct config_report report = {0};
	struct document *d = document_parse("d", document, strlen(document), NULL, &report);
	json_t *affected = json_pack("[s, s, s, s, s]", "a", "b", "c", "d", "e");
	json_t *plan = rollout_plan(NULL, d, 7, affected, false, is_there, (void *)"a", "me", NULL);
	json_t *stages = json_object_get(plan, "stages");
	(void)state;

	assert_int_equal(json_array_size(stages), 4);
	assert_int_equal(number(json_array_get(stages, 0), "nodes"), 1);
	assert_int_equal(number(json_array_get(stages, 1), "nodes"), 2);
	assert_int_equal(number(json_array_get(stages, 2), "nodes"), 4);
	assert_int_equal(number(json_array_get(stages, 3), "nodes"), 5);
	assert_string_equal(text(json_array_get(stages, 1), "name"), "30%");
	/* a is away: b is the canary */
	assert_string_equal(json_string_value(json_array_get(json_object_get(plan, "nodes"), 0)), "b");
	assert_string_equal(json_string_value(json_array_get(json_object_get(plan, "nodes"), 1)), "a");
	json_decref(plan);
	plan = rollout_plan(NULL, d, 7, affected, true, is_there, (void *)"", "me", NULL);
	assert_int_equal(json_array_size(json_object_get(plan, "stages")), 1);
	assert_int_equal(number(plan, "moved"), 5);
	json_decref(plan);
	json_decref(affected);
	document_free(d);
	config_report_free(&report);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_begin, world_end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_WORLD(test_stages), IN_WORLD(test_canary_refuses), IN_WORLD(test_stay), IN_WORLD(test_health),
		IN_WORLD(test_probes_and_readiness), IN_WORLD(test_timeout), IN_WORLD(test_away), IN_WORLD(test_canary_silent),
		IN_WORLD(test_unconfirmed), IN_WORLD(test_superseded), IN_WORLD(test_operators), IN_WORLD(test_another_controller), IN_WORLD(test_back_to_an_old_one), IN_WORLD(test_long_reason), IN_WORLD(test_resumed),
		cmocka_unit_test(test_plan),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
