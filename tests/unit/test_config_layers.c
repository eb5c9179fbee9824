/* Documents laid over each other: what prevails, whose line an error names, the merged text and where each value came from. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/config.h"
#include "store/config_arena.h"
#include "store/yaml_merge.h"

#define LAYERS(a, b) ((const struct config_layer[]){{"local", a, strlen(a)}, {"controller 7", b, strlen(b)}})

static char *merged(const char *a, const char *b, bool origins)
{
	struct config_report report = {0};
	char *text = config_merged(LAYERS(a, b), 2, origins, &report);

	if (!text)
		fail_msg("%s", report.n_errors ? report.errors[0] : "no error");
	config_report_free(&report);
	return text;
}

static void check(const char *a, const char *b, const char *expected)
{
	char *text = merged(a, b, false);

	assert_string_equal(text, expected);
	free(text);
}

static void test_precedence(void **state)
{
	(void)state;
	check("a: 1\nb: {c: 2, d: {e: 3}}\nl: [1]\n", "l: [2, 3]\nb: {c: 9, d: {f: 4}, g: 5}\nh: 6\na: [7]\n",
	      "a: 1\nb:\n  c: 2\n  d:\n    e: 3\n    f: 4\n  g: 5\nl:\n  - 1\nh: 6\n");
	/* null says nothing */
	check("a: ~\nroutes:\nb: {c: null}\n", "routes: [{name: x}]\na: 1\nb: {c: 2}\n", "a: 1\nroutes:\n  - name: x\nb:\n  c: 2\n");
	check("a: ~\n", "b: 1\n", "a: null\nb: 1\n");
	/* a value of another kind */
	check("tls: off\n", "tls: {server_name: x}\n", "tls: off\n");
	check("tls: {require: true}\n", "tls: off\n", "tls:\n  require: true\n");
}

static void test_named_lists(void **state)
{
	(void)state;
	check("clusters: [{name: b, carry: h1}, {name: a, endpoints: [x]}]\n",
	      "clusters: [{name: c}, {name: a, carry: h2, endpoints: [y, z]}, {name: b, carry: tcp}]\n",
	      "clusters:\n  - name: b\n    carry: h1\n  - name: a\n    endpoints:\n      - x\n    carry: h2\n  - name: c\n");
	/* members without a name stay for themselves */
	check("routes: [{cluster: x}, {name: r, cluster: y}]\n", "routes: [{cluster: z}, {name: r, match: {user: u}}]\n",
	      "routes:\n  - cluster: x\n  - name: r\n    cluster: y\n    match:\n      user: u\n  - cluster: z\n");
	/* only at the top */
	check("address_spaces: [{name: s, users: [{name: u, a: 1}]}]\n", "address_spaces: [{name: s, users: [{name: v}]}]\n",
	      "address_spaces:\n  - name: s\n    users:\n      - name: u\n        a: 1\n");
	/* rules and the like are whole */
	check("policies: [{name: p, rules: [1]}]\n", "policies: [{name: p, rules: [2], default: allow}]\n",
	      "policies:\n  - name: p\n    rules:\n      - 1\n    default: allow\n");
}

static void test_origins(void **state)
{
	char *text = merged("node: {name: n}\nclusters: [{name: a, carry: h1}]\nempty: []\n",
	                    "node: {max_hops: 3}\nclusters: [{name: a, endpoints: ['x:1']}]\n", true);

	(void)state;
	assert_string_equal(text, "node:\n  name: n  # local\n  max_hops: 3  # controller 7\n"
	                          "clusters:\n  - name: a  # local\n    carry: h1  # local\n    endpoints:\n"
	                          "      - x:1  # controller 7\nempty: []  # local\n");
	free(text);
}

static void test_errors(void **state)
{
	static const struct { const char *a, *b, *error; } all[] = {
		{"node: {name: n}\n", "nodes: 1\nnode: {}\n", "controller 7:1:1: nodes: unknown key"},
		{"node: {name: n, mx: 1}\n", "{}", "local:1:17: node.mx: unknown key"},
		{"node: {name: n}\n", "clusters: [\n", "controller 7:2:1: the document is not YAML"},
		{"node: {name: n\n", "{}", "local:"},
		{"node: {name: n}\n", "[]", "controller 7:1:1: not a map"},
		{"node: {name: n}\n", "", "controller 7:1:1: the document is empty"},
		{"node: {name: n}\nclusters: [{name: a, carry: h1, endpoints: ['x:1']}]\n",
		 "\n\nclusters: [{name: a, endpoint: 1}]\n", "controller 7:3:22: clusters[0].endpoint: unknown key"},
		{"node: {name: n}\nroutes: [{cluster: web}]\n", "node: {max_hops: 2}\n",
		 "local:2:20: routes[0].cluster: there is no cluster"},
		{"node: {name: n}\n", "\nroutes: [{cluster: web}]\n", "controller 7:2:20: routes[0].cluster: there is no cluster"},
		{"log: {level: info}\n", "{}", "local:1:1: node: missing"},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct config_report report = {0};
		assert_null(config_parse_layers(LAYERS(all[i].a, all[i].b), 2, &report));
		assert_true(report.n_errors > 0);
		if (strncmp(report.errors[0], all[i].error, strlen(all[i].error)))
			fail_msg("%s\nis not: %s", report.errors[0], all[i].error);
		config_report_free(&report);
	}
}

static void test_model(void **state)
{
	struct config_report report = {0};
	struct config *c = config_parse_layers(LAYERS(
		"node: {name: n}\nclusters: [{name: web, carry: h1, endpoints: ['a:80']}]\n"
		"identity: {certificate: c, key: k, authorities: [ca]}\n",
		"node: {name: other, max_hops: 4}\nclusters: [{name: web, carry: h2, endpoints: ['b:80'], max_streams: 7}]\n"
		"routes: [{cluster: web}]\nidentity: {revoked: [eve]}\n"), 2, &report);

	(void)state;
	assert_non_null(c);
	assert_string_equal(c->node_name, "n");
	assert_int_equal(c->max_hops, 4);
	assert_int_equal(c->clusters[0].carry, CONFIG_H1);
	assert_string_equal(c->clusters[0].endpoints[0].address.host, "a");
	assert_int_equal(c->clusters[0].max_streams, 7);
	assert_string_equal(c->identity.revoked.v[0], "eve");
	assert_int_equal(c->n_routes, 1);
	config_free(c);
	config_report_free(&report);
}

/* What is written reads as it was. */
static void test_written(void **state)
{
	static const char *const all[] = {
		"a: ''\n", "a: 'true'\n", "a: true\n", "a: '12'\n", "a: 12\n", "a: ~\n", "a: '*'\n", "'a b': \"x\\ty\\n\\u2028\\ufeff\\x7f\"\n",
		"- - 1\n  - []\n- {}\n- {a: [{b: c}]}\n", "plain\n", "[]\n", "a: '# no: comment'\n", "'': x\n", "a: x:1\n", "'x:': 'y: z'\n",
		"a: \"\\x20\\x20 \"\n", "a: 'zażółć'\n", "'%x': '---'\n", "a: |\n  two\n  lines\n", "a: one\n  folded\n",
	};
	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct config_arena *arena = config_arena_new(0);
		struct yaml_fault fault = {0};
		struct yaml_node *root = yaml_parse(all[i], strlen(all[i]), arena, &fault);
		assert_non_null(root);
		char *text = yaml_write(root, false);
		struct yaml_node *again = yaml_parse(text, strlen(text), arena, &fault);
		if (!again)
			fail_msg("%s is not readable: %s", text, fault.text);
		char *twice = yaml_write(again, false), *json = yaml_write_json(root), *json_twice = yaml_write_json(again);
		assert_string_equal(text, twice);
		assert_string_equal(json, json_twice);
		again = yaml_parse(json, strlen(json), arena, &fault);
		if (!again)
			fail_msg("%s is not readable: %s", json, fault.text);
		free(text);
		free(twice);
		free(json);
		free(json_twice);
		config_arena_free(arena);
	}
}

static void test_making(void **state)
{
	struct config_arena *arena = config_arena_new(0);
	struct yaml_node *map = yaml_map(arena), *list = yaml_list(arena);

	(void)state;
	yaml_set(arena, map, "a", yaml_scalar(arena, "1", false));
	yaml_set(arena, map, "l", list);
	yaml_add(list, yaml_scalar(arena, "1", true));
	yaml_add(list, yaml_copy(arena, map->first->value));
	yaml_set(arena, map, "a", yaml_scalar(arena, "2", false));
	char *text = yaml_write(map, false), *json = yaml_write_json(map);
	assert_string_equal(text, "a: 2\nl:\n  - \"1\"\n  - 1\n");
	assert_string_equal(json, "{\"a\": 2, \"l\": [\"1\", 1]}");
	free(text);
	free(json);
	config_arena_free(arena);
}

/* 20,000 members each, by name: no square of it. */
static void test_many(void **state)
{
	char *text[2];
	size_t size;
	struct config_report report = {0};

	(void)state;
	for (unsigned l = 0; l < 2; l++) {
		FILE *f = open_memstream(&text[l], &size);
		fprintf(f, "clusters:\n");
		for (unsigned i = 0; i < 20000; i++)
			fprintf(f, "- {name: c%u}\n", i + l * 10000);
		fclose(f);
	}
	char *out = config_merged(LAYERS(text[0], text[1]), 2, false, &report);
	assert_non_null(out);
	assert_non_null(strstr(out, "name: c29999\n"));
	unsigned n = 0;
	for (const char *at = out; (at = strstr(at, "- name")); at++)
		n++;
	assert_int_equal(n, 30000);
	free(out);
	free(text[0]);
	free(text[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_precedence), cmocka_unit_test(test_named_lists), cmocka_unit_test(test_origins),
		cmocka_unit_test(test_errors), cmocka_unit_test(test_model), cmocka_unit_test(test_written), cmocka_unit_test(test_making),
		cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
