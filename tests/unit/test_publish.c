/* SPDX-License-Identifier: Apache-2.0 */
/* Documents become versions, versions what nodes are to run; and nothing is written that has not changed. */
#include "tests/unit/domain_world.h"
#include "store/digest.h"
#include "workers/controller/overrides.h"


static const char first[] = "domain: x\nnodes:\n- {name: a, address: \"10.0.0.1:1\", config: {log: {level: info}}}\n"
	"- {name: b, address: \"10.0.0.2:1\"}\n- {name: c, config: {routes: [{cluster: k}]}}\n"
	"clusters: [{name: k, carry: h2, endpoints: [{node: a}, {node: b}]}]\n";
static const char second[] = "domain: x\nnodes:\n- {name: a, address: \"10.0.0.1:1\", config: {log: {level: warn}}}\n"
	"- {name: c, config: {routes: [{cluster: k}]}}\n- {name: d}\n"
	"clusters: [{name: k, carry: h2, endpoints: [{node: a}]}]\n";

static void test_first(void **state)
{
	uint8_t digest[32];
	char hex[65], expected[300];
	(void)state;

	assert_int_equal(apply(first), 1);
	json_t *want = get("want/", "a");
	assert_string_equal(text(want, "text"), "log:\n  level: info\n");
	assert_int_equal(number(want, "version"), 1);
	assert_string_equal(text(want, "reason"), "as asked");
	assert_string_equal(text(want, "author"), "test");
	digest_sha256(text(want, "text"), strlen(text(want, "text")), digest);
	digest_hex(digest, hex);
	assert_string_equal(text(want, "digest"), hex);
	snprintf(expected, sizeof(expected), "signed hermes-config-1|x|a|%lld|%s|", (long long)number(want, "number"), hex);
	assert_string_equal(text(want, "signature"), expected);
	assert_true(number(get("want/", "a"), "number") != number(get("want/", "b"), "number"));
	assert_in_range(number(get("number", ""), "last") / 1000, time(NULL) - 3600, time(NULL) + 3600);   /* beyond those of a lost store */
	assert_string_equal(text(get("document/", "0000000001"), "text"), first);
}

static void test_only_what_changes(void **state)
{
	(void)state;
	apply(first);
	json_int_t a = number(get("want/", "a"), "number"), b = number(get("want/", "b"), "number"), c = number(get("want/", "c"), "number");
	assert_int_equal(apply(second), 2);
	assert_true(number(get("want/", "a"), "number") > a);
	assert_true(number(get("want/", "c"), "number") > c);
	assert_int_equal(number(get("want/", "a"), "version"), 2);
	/* gone from the document: nothing, which b had already */
	assert_string_equal(text(get("want/", "b"), "text"), "{}\n");
	assert_int_equal(number(get("want/", "b"), "number"), b);
	assert_non_null(get("want/", "d"));
	/* the same again: nothing at all */
	unsigned asked = world.asked;
	assert_int_equal(apply(second), 3);
	assert_int_equal(world.asked, asked);
	assert_string_equal(text(get("rollout", ""), "state"), "done");
}

static void test_dry_run(void **state)
{
	(void)state;
	apply(first);
	struct answered a = propose_as((struct proposal_request){.text = second, .dry_run = true});
	json_t *nodes = json_object_get(a.body, "nodes");
	assert_int_equal(a.status, 200);
	assert_true(json_is_null(json_object_get(a.body, "version")));
	assert_int_equal(json_array_size(nodes), 3);
	assert_string_equal(text(json_array_get(nodes, 0), "name"), "a");
	assert_string_equal(text(json_array_get(nodes, 0), "change"), "changed");
	assert_string_equal(text(json_array_get(nodes, 0), "diff"), "--- now\n+++ then\n@@ -1,2 +1,2 @@\n log:\n-  level: info\n+  level: warn\n");
	assert_string_equal(text(json_array_get(nodes, 2), "change"), "new");
	json_decref(a.body);
	assert_null(get("document/", "0000000002"));
	assert_int_equal(number(get("want/", "a"), "version"), 1);
}

static void test_refused(void **state)
{
	(void)state;
	apply(first);
	struct answered a = propose_as((struct proposal_request){.text = "domain: x\nnodes: [{name: a, config: {log: {level: loud}}}]\n"});
	assert_int_equal(a.status, 422);
	assert_string_equal(json_string_value(json_array_get(json_object_get(json_object_get(a.body, "error"), "details"), 0)),
	                    "document:2:41: node a: log.level: \"loud\" is not known; expected debug, info, warn or error");
	json_decref(a.body);
	a = propose_as((struct proposal_request){.text = second, .comment = "\xff"});
	assert_int_equal(a.status, 422);
	json_decref(a.body);
	a = propose_as((struct proposal_request){.text = "domain: \"\xc3\"\n"});
	assert_int_equal(a.status, 422);
	json_decref(a.body);
	a = propose_as((struct proposal_request){.text = second, .has_base = true, .base = 7});
	assert_int_equal(a.status, 409);
	json_decref(a.body);
	a = propose_as((struct proposal_request){.text = second, .has_base = true, .base = 1});
	assert_int_equal(a.status, 200);
	json_decref(a.body);
}

static void on_set(void *arg, int error)
{
	assert_int_equal(error, 0);
	++*(int *)arg;
}

static void test_maintenance(void **state)
{
	int done = 0;
	(void)state;

	apply(first);
	overrides_set(world.controller.kv, "a", "drained", NULL, json_true(), on_set, &done);
	run_ms(50);
	assert_null(strstr(text(get("want/", "c"), "text"), "10.0.0.1"));
	assert_non_null(strstr(text(get("want/", "c"), "text"), "10.0.0.2"));
	assert_string_equal(text(get("want/", "c"), "reason"), "maintenance of a");
	assert_string_equal(text(get("want/", "c"), "author"), "controller");
	assert_int_equal(number(get("want/", "c"), "version"), 1);
	overrides_set(world.controller.kv, "a", "tunnel_workers", NULL, json_integer(4), on_set, &done);
	overrides_set(world.controller.kv, "a", "roles", "telemetry", json_false(), on_set, &done);
	run_ms(50);
	assert_non_null(strstr(text(get("want/", "a"), "text"), "tunnel_workers: 4"));
	assert_non_null(strstr(text(get("want/", "a"), "text"), "telemetry: off"));
	overrides_set(world.controller.kv, "a", "drained", NULL, NULL, on_set, &done);
	overrides_set(world.controller.kv, "a", "tunnel_workers", NULL, NULL, on_set, &done);
	run_ms(50);
	assert_non_null(strstr(text(get("want/", "c"), "text"), "10.0.0.1"));
	assert_int_equal(done, 5);
	/* revoked: all nodes are told */
	put("node/", "b", json_pack("{s:s, s:b}", "name", "b", "revoked", 1));
	run_ms(50);
	assert_null(strstr(text(get("want/", "c"), "text"), "10.0.0.2"));
	assert_non_null(strstr(text(get("want/", "a"), "text"), "revoked:\n    - b\n"));
}

/* Whoever has led meanwhile has reserved numbers: ours are not used any more. */
static void test_numbers_of_others(void **state)
{
	(void)state;
	apply(first);
	put("number", "", json_pack("{s:i}", "last", 5000));
	apply(second);
	assert_true(number(get("want/", "a"), "number") > 5000);
	assert_int_equal(number(get("number", ""), "last"), 6000);
}

static json_int_t others;

static void another_leads(void)
{
	others = number(get("number", ""), "last") + 5000;
	put("number", "", json_pack("{s:I}", "last", others));
}

/* Somebody else took numbers while ours were being signed: they may be handed out already, and ours would never be taken. */
static void expect_later_numbers(const char *document, int version)
{
	world.while_signing = another_leads;
	apply(document);
	for (int i = 0; i < 100 && number(get("want/", "a"), "number") <= others; i++)
		run_ms(20);
	assert_null(world.while_signing);
	assert_true(number(get("want/", "a"), "number") > others);
	assert_int_equal(number(get("want/", "a"), "version"), version);
}

static void test_numbers_of_others_meanwhile(void **state)
{
	static const char only_a[] = "domain: x\nnodes:\n- {name: a, address: \"10.0.0.1:1\", config: {log: {level: error}}}\n"
	                             "- {name: c, config: {routes: [{cluster: k}]}}\n- {name: d}\n"
	                             "clusters: [{name: k, carry: h2, endpoints: [{node: a}]}]\n";
	(void)state;
	apply(first);
	expect_later_numbers(second, 2);          /* several nodes: numbers are taken anew before it is written */
	expect_later_numbers(only_a, 3);          /* one: not before */
}

static void test_no_keeper(void **state)
{
	(void)state;
	world.no_keeper = true;
	apply(first);
	assert_null(get("want/", "a"));
	world.no_keeper = false;
	for (int i = 0; i < 100 && !(get("want/", "a") && get("want/", "b") && get("want/", "c")); i++)
		run_ms(50);
	assert_non_null(get("want/", "a"));
	assert_non_null(get("want/", "b"));
	assert_non_null(get("want/", "c"));
}

static void test_many(void **state)
{
	char *document = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&document, &size);
	(void)state;

	fprintf(out, "domain: x\nnodes:\n");
	for (int i = 0; i < 1300; i++)
		fprintf(out, "- {name: n%d, config: {node: {max_hops: %d}}}\n", i, 1 + i % 200);
	fclose(out);
	apply(document);
	for (int i = 0; i < 200 && kv_count(world.controller.kv, "want/") < 1300; i++)
		run_ms(50);
	assert_int_equal(kv_count(world.controller.kv, "want/"), 1300);
	assert_int_equal(world.asked, 1300);              /* numbers that run out meanwhile are no reason to sign again */
	free(document);
}

/* The controller ends while a document is on trial. */
static void test_stopped(void **state)
{
	struct answered a = {0}, b = {0};
	(void)state;

	apply(first);
	struct proposal_request r = {.text = second, .length = strlen(second), .author = "test"};
	struct proposal *one = proposal_start(world.controller.domain, &r, on_answer, &a);
	struct proposal *two = proposal_start(world.controller.domain, &r, on_answer, &b);
	assert_non_null(one);
	assert_non_null(two);
	proposal_forget(one);
	domain_stop(world.controller.domain);
	domain_free(world.controller.domain);
	assert_int_equal(a.status, 0);
	assert_int_equal(b.status, 503);
	json_decref(b.body);
	world.controller.domain = NULL;
}

static void test_history(void **state)
{
	struct config_report report = {0};
	(void)state;

	apply(first);
	apply(second);
	json_t *list = versions_list(world.controller.kv, 0);
	assert_int_equal(json_array_size(list), 2);
	assert_int_equal(number(json_array_get(list, 0), "version"), 2);
	assert_int_equal(number(json_array_get(list, 1), "bytes"), strlen(first));
	assert_string_equal(text(json_array_get(list, 1), "comment"), "as asked");
	json_decref(list);
	struct version *v = versions_open(world.controller.domain->versions, 1, &report);
	assert_int_equal(v->document->n_nodes, 3);
	version_release(v);
	assert_null(versions_open(world.controller.domain->versions, 9, &report));
	config_report_free(&report);
}

/* The oldest go, but for those that a rollout still refers to. */
static void test_old_ones_go(void **state)
{
	char key[24];
	(void)state;

	for (int i = 1; i <= 205; i++) {
		snprintf(key, sizeof(key), "%010d", i);
		put("document/", key, json_pack("{s:i, s:s}", "version", i, "text", first));
	}
	put("document-head", "", json_pack("{s:i}", "version", 205));
	put("rollout", "", json_pack("{s:i, s:i, s:{s:i}, s:s, s:[s], s:i}", "version", 205, "from", 204, "before", "a", 2, "state",
	                             "stopped", "nodes", "a", "moved", 0));
	assert_int_equal(apply(second), 206);
	assert_int_equal(kv_count(world.controller.kv, "document/"), 201);
	assert_null(get("document/", "0000000001"));
	assert_non_null(get("document/", "0000000002"));
	assert_null(get("document/", "0000000006"));
	assert_non_null(get("document/", "0000000007"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_first, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_only_what_changes, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_dry_run, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_refused, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_maintenance, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_numbers_of_others, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_numbers_of_others_meanwhile, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_no_keeper, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_many, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_stopped, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_history, world_begin, world_end),
		cmocka_unit_test_setup_teardown(test_old_ones_go, world_begin, world_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
