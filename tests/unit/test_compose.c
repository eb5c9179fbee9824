/* SPDX-License-Identifier: Apache-2.0 */
/* A domain's document becomes each node's configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/controller/compose.h"
#include "workers/controller/kv.h"

static struct config_report report;

static int clean(void **state)
{
	(void)state;
	config_report_free(&report);
	return 0;
}

static struct document *parse(const char *text)
{
	struct document *d = document_parse("d", text, strlen(text), NULL, &report);

	for (size_t i = 0; !d && i < report.n_errors; i++)
		fprintf(stderr, "%s\n", report.errors[i]);
	assert_non_null(d);
	return d;
}

static char *compose(const struct document *d, const char *node, const struct compose_inputs *in)
{
	static const struct compose_inputs none;
	struct compose *c = compose_new(d, in ? in : &none, &report);
	char *text = c ? compose_node(c, (size_t)document_node(d, node), &report) : NULL;

	for (size_t i = 0; !text && i < report.n_errors; i++)
		fprintf(stderr, "%s\n", report.errors[i]);
	assert_non_null(text);
	compose_free(c);
	return text;
}

/* The node's configuration is exactly that. */
static void check(const char *document, const char *node, const struct compose_inputs *in, const char *expected)
{
	struct document *d = parse(document);
	char *text = compose(d, node, in);

	assert_string_equal(text, expected);
	free(text);
	document_free(d);
}

/* The first error, of parsing or of composing all. */
static void refused(const char *document, const char *expected)
{
	static const struct compose_inputs none;
	struct document *d = document_parse("d", document, strlen(document), "x", &report);
	struct compose *c = d ? compose_new(d, &none, &report) : NULL;

	if (c)
		assert_false(compose_check(c, &report));
	assert_true(report.n_errors > 0);
	assert_string_equal(report.errors[0], expected);
	compose_free(c);
	document_free(d);
	config_report_free(&report);
}

#define LISTENER "listeners: [{name: in, address: \"127.0.0.1:1\", accept: http}]"

static void test_layers(void **state)
{
	(void)state;
	check("domain: x\n"
	      "defaults: {log: {level: warn}, " LISTENER ", node: {memory: 1GiB, max_hops: 5}}\n"
	      "groups:\n"
	      "- {name: a, config: {node: {max_hops: 6}, log: {level: info}}}\n"
	      "- {name: b, config: {node: {max_hops: 7}, listeners: [{name: in, require_user: true}, {name: b, address: \":2\", accept: socks5}]}}\n"
	      "nodes:\n"
	      "- {name: n, groups: [a, b], config: {log: {level: error}}}\n",
	      "n", NULL,
	      "node:\n  max_hops: 7\n  memory: 1GiB\n"
	      "listeners:\n  - name: in\n    require_user: true\n    address: \"127.0.0.1:1\"\n    accept: http\n"
	      "  - name: b\n    address: \":2\"\n    accept: socks5\n"
	      "log:\n  level: error\n");
	/* the order of groups says which prevails */
	check("domain: x\ngroups: [{name: a, config: {log: {level: info}}}, {name: b, config: {log: {level: warn}}}]\n"
	      "nodes: [{name: n, groups: [b, a]}, {name: m, groups: [a, b]}]\n", "n", NULL, "log:\n  level: info\n");
	check("domain: x\nnodes: [{name: n}]\n", "n", NULL, "{}\n");
}

#define CLUSTERS \
	"clusters:\n" \
	"- {name: a, carry: h2, endpoints: [{node: m}]}\n" \
	"- {name: b, carry: h2, endpoints: [{node: m, weight: 2}, {node: o}]}\n" \
	"- {name: c, carry: h1, endpoints: [\"10.0.0.1:80\"]}\n"
#define NODES "nodes:\n- {name: m, address: \"10.0.0.2:8443\"}\n- {name: o, address: \"10.0.0.3:8443\"}\n"

#define CLUSTER_B(endpoints) \
	"clusters:\n  - name: b\n    carry: h2\n    endpoints:\n" endpoints \
	"    tls:\n      server_name: \"hermes://x/node/m,o\"\nroutes:\n  - name: r\n    cluster: b\n"

static const char by_route[] = "domain: x\n" CLUSTERS NODES "- {name: n, config: {routes: [{name: r, cluster: b}]}}\n";

static void test_clusters(void **state)
{
	struct compose_inputs in = {0};
	(void)state;

	/* only what it refers to; nodes by their addresses, and their certificates asked for */
	check(by_route, "n", NULL,
	      CLUSTER_B("      - address: 10.0.0.2:8443\n        weight: 2\n      - address: 10.0.0.3:8443\n"));
	check(by_route, "m", NULL, "{}\n");
	/* drained and revoked ones are left out, the name stays */
	in.overrides = json_pack("{s:{s:b}}", "m", "drained", 1);
	check(by_route, "n", &in, CLUSTER_B("      - address: 10.0.0.3:8443\n"));
	/* but rather a drained one than none */
	json_object_set_new(in.overrides, "o", json_pack("{s:b}", "drained", 1));
	check(by_route, "n", &in,
	      CLUSTER_B("      - address: 10.0.0.2:8443\n        weight: 2\n      - address: 10.0.0.3:8443\n"));
	json_decref(in.overrides);
	in = (struct compose_inputs){.revoked = json_pack("{s:b, s:b}", "o", 1, "m", 1)};
	check(by_route, "n", &in,
	      "identity:\n  revoked:\n    - m\n    - o\n"
	      "clusters:\n  - name: b\n    carry: h2\n    endpoints:\n      - 127.0.0.1:9\nroutes:\n  - name: r\n    cluster: b\n");
	json_decref(in.revoked);
}

static void test_own_cluster(void **state)
{
	(void)state;
	/* laid over the domain's of that name; endpoints of its own may be nodes too */
	check("domain: x\n" CLUSTERS NODES
	      "- {name: n, config: {clusters: [{name: c, carry: tcp, connect_timeout: 1s}, {name: d, carry: h2, tls: {identity: false}, endpoints: [{node: m}]}]}}\n",
	      "n", NULL,
	      "clusters:\n  - name: c\n    carry: tcp\n    connect_timeout: 1s\n    endpoints:\n      - \"10.0.0.1:80\"\n"
	      "  - name: d\n    carry: h2\n    tls:\n      identity: false\n      server_name: hermes://x/node/m\n"
	      "    endpoints:\n      - address: 10.0.0.2:8443\n");
	/* what says its name itself keeps it */
	check("domain: x\n" NODES "- {name: n, config: {clusters: [{name: d, carry: h2, tls: {server_name: m.x}, endpoints: [{node: m}]}]}}\n",
	      "n", NULL, "clusters:\n  - name: d\n    carry: h2\n    tls:\n      server_name: m.x\n    endpoints:\n      - address: 10.0.0.2:8443\n");
}

#define PASSWORD "$6$salt$0123456789abcdef"

static const char users[] =
	"domain: x\n" CLUSTERS NODES
	"- {name: n, groups: [g]}\n- {name: p}\n"
	"groups: [{name: g}]\n"
	"users:\n"
	"- {name: alice, nodes: [n, p], password: " PASSWORD ", address_space: {names: {WEB: {cluster: c}}, prefixes: {10.0.0.0/8: {cluster: a}}}}\n"
	"- {name: bob@x, groups: [g], policies: [{name: p, match: {authority: WEB}, default: allow}, {name: q, rules: [{deny: {method: PUT}}]}]}\n";

static void test_users(void **state)
{
	(void)state;
	check(users, "n", NULL,
	      "users:\n  - name: alice\n    password: \"" PASSWORD "\"\n"
	      "clusters:\n"
	      "  - name: a\n    carry: h2\n    endpoints:\n      - address: 10.0.0.2:8443\n    tls:\n      server_name: hermes://x/node/m\n"
	      "  - name: c\n    carry: h1\n    endpoints:\n      - \"10.0.0.1:80\"\n"
	      "address_spaces:\n  - name: alice\n    users:\n      - alice\n    names:\n      WEB:\n        cluster: c\n"
	      "    prefixes:\n      \"10.0.0.0/8\":\n        cluster: a\n"
	      "policies:\n  - name: bob_x.p\n    match:\n      authority: WEB\n      user: \"bob@x\"\n    default: allow\n"
	      "  - name: bob_x.q\n    rules:\n      - deny:\n          method: PUT\n    match:\n      user: \"bob@x\"\n");
	/* secrets and policies only where the user enters */
	struct document *d = parse(users);
	char *p = compose(d, "p", NULL), *m = compose(d, "m", NULL);
	assert_non_null(strstr(p, "alice"));
	assert_null(strstr(p, "bob"));
	assert_string_equal(m, "{}\n");
	free(p);
	free(m);
	document_free(d);
}

#define OBJECTIVE \
	"- {name: o, user: alice, service: [\"VIDEO:443\", 10.9.0.0/16], limit: 100ms, ways: [{cluster: a}, {cluster: c, add_headers: {way: two}}]}\n"
#define PROBE(cluster, headers) \
	"  - name: objective.o." cluster "\n    cluster: " cluster "\n    target: VIDEO:443\n    add_headers:\n      user: alice\n" headers \
	"    interval: 1000ms\n"

static const char objective[] =
	"domain: x\n" CLUSTERS NODES "- {name: n}\n"
	"users: [{name: alice, nodes: [n], address_space: {names: {VIDEO: {cluster: b, timeout: {idle: 1m}}}}}]\n"
	"objectives:\n" OBJECTIVE;

static void test_objectives(void **state)
{
	struct compose_inputs in = {.steer = json_pack("{s:s}", "o", "c")};
	struct document *d = parse(objective);
	char *first = compose(d, "n", NULL), *second = compose(d, "n", &in);
	const char *const probes = "probes:\n" PROBE("a", "") PROBE("c", "      way: two\n");
	(void)state;

	assert_non_null(strstr(first, "    names:\n      VIDEO:\n        cluster: a\n        timeout:\n          idle: 1m\n"
	                              "    prefixes:\n      \"10.9.0.0/16\":\n        cluster: a\n"));
	assert_non_null(strstr(first, probes));
	assert_null(strstr(first, "  - name: b\n"));
	assert_non_null(strstr(second, "    names:\n      VIDEO:\n        cluster: c\n        add_headers:\n          way: two\n"
	                               "        timeout:\n          idle: 1m\n"
	                               "    prefixes:\n      \"10.9.0.0/16\":\n        cluster: c\n        add_headers:\n          way: two\n"));
	assert_non_null(strstr(second, probes));
	free(first);
	free(second);
	json_decref(in.steer);
	/* a choice that is no way any more is none */
	in.steer = json_pack("{s:s}", "o", "gone");
	assert_string_equal(compose_choice(&d->objectives[0], &in), "a");
	assert_true(compose_measures(d, &d->objectives[0], "n"));
	assert_false(compose_measures(d, &d->objectives[0], "m"));
	json_decref(in.steer);
	document_free(d);
}

static void test_overrides(void **state)
{
	struct compose_inputs in = {.overrides = json_pack("{s:{s:i, s:{s:b, s:b}}}", "n", "tunnel_workers", 3, "roles", "telemetry", 0,
	                                                   "tun_bridge", 1)};
	(void)state;

	check("domain: x\nnodes: [{name: n, config: {node: {tunnel_workers: 1, max_hops: 3}, roles: {telemetry: on}}}]\n", "n", &in,
	      "node:\n  tunnel_workers: 3\n  max_hops: 3\nroles:\n  telemetry: off\n  tun_bridge: on\n");
	json_decref(in.overrides);
}

/* Same input, same bytes; and the text is what it says, read by itself. */
static void test_determined(void **state)
{
	FILE *f = fopen("packaging/examples/domain.yaml", "r");
	char *text = calloc(1, 65536);
	(void)state;

	assert_non_null(f);
	assert_true(fread(text, 1, 65535, f) > 0);
	fclose(f);
	struct document *d = parse(text), *e = parse(text);
	static const char own[] = "node: {name: n, domain: example.net}\nidentity: {certificate: a, key: b, authorities: [c]}\n"
	                          "control: {endpoints: [\"c:1\"], key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}\n";
	for (size_t i = 0; i < d->n_nodes; i++) {
		char *a = compose(d, d->nodes[i].name, NULL), *b = compose(e, d->nodes[i].name, NULL);
		struct config_layer layers[] = {{"own", own, strlen(own)}, {"controller", a, strlen(a)}};
		assert_string_equal(a, b);
		struct config *config = config_parse_layers(layers, 2, &report);
		assert_non_null(config);
		config_free(config);
		free(a);
		free(b);
	}
	assert_int_equal(d->rollout.canary.n, 1);
	assert_int_equal(d->rollout.stages.n, 3);
	document_free(d);
	document_free(e);
	free(text);
}

static void test_nothing(void **state)
{
	struct compose_inputs in = {.revoked = json_pack("{s:b}", "bad", 1)};
	char *a = compose_nothing(&(struct compose_inputs){0}), *b = compose_nothing(&in);
	(void)state;

	assert_string_equal(a, "{}\n");
	assert_string_equal(b, "identity:\n  revoked:\n    - bad\n");
	free(a);
	free(b);
	json_decref(in.revoked);
}

/* --- errors name their place -------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
	(void)state;
	refused("domain: x\nnode: []\n", "d:2:1: node: unknown key in domain; did you mean \"nodes\"?");
	refused("domain: y\n", "d:1:9: \"y\" is another domain; expected x");
	refused("nodes: []\n", "d:1:1: domain: missing in domain; expected: The domain's name, as nodes have it.");
	refused("domain: x\nnodes: [{name: a}, {name: a}]\n",
	        "d:2:27: nodes[1]: \"a\" is taken by nodes[0]; expected a name of its own");
	refused("domain: x\nnodes: [{name: a, groups: [g]}]\n",
	        "d:2:28: nodes[0].groups: there is no group \"g\"; expected the name of one");
	refused("domain: x\nusers: [{name: u}]\n",
	        "d:2:9: users[0]: the user enters nowhere; expected nodes: [...] or groups: [...]");
	refused("domain: x\nnodes: [{name: a, config: {node: {name: b}}}]\n",
	        "d:2:41: nodes[0].config: node.name is the node's own; expected none here");
	refused("domain: x\nclusters: [{carry: h2}]\n",
	        "d:2:12: clusters[0]: a cluster without name; expected a map with name, carry and endpoints");
	refused("domain: x\nrollout: {steps: [50%, 10%]}\n",
	        "d:2:18: rollout.steps: \"10%\" is no further step; expected rising shares such as [10%, 50%, 100%]");
	refused("domain: x\nrollout: {canary: [nobody]}\n",
	        "d:2:20: rollout.canary: there is no node \"nobody\"; expected the name of one");
	refused("domain: x\nrollout: {health: {probe_loss: many}}\n",
	        "d:2:32: rollout.probe_loss: \"many\" is no share; expected a percentage such as 1%");
}

static void test_refused_objectives(void **state)
{
	(void)state;
	refused("domain: x\nobjectives: [{name: o, user: u, service: s, limit: 1s, ways: [{cluster: c}]}]\n",
	        "d:2:30: objectives[0]: there is no user \"u\"; expected the name of one");
	refused("domain: x\nnodes: [{name: n}]\nusers: [{name: u, nodes: [n]}]\n"
	        "objectives: [{name: o, user: u, service: s, ways: [{cluster: c}]}]\n",
	        "d:4:14: objectives[0]: neither limit nor loss; expected what is to be kept");
	refused("domain: x\nnodes: [{name: n}]\nusers: [{name: u, nodes: [n]}]\n"
	        "objectives: [{name: o, user: u, service: s, loss: 1%, ways: [{cluster: c}]}]\n",
	        "d:4:62: node n: address_spaces[0].names.s.cluster: there is no cluster \"c\"; expected the name of one of clusters");
}

/* In what the document's fragments become: the place in the document, and the node. */
static void test_refused_fragments(void **state)
{
	(void)state;
	refused("domain: x\ndefaults:\n  listeners: [{name: l, address: nowhere, accept: http}]\nnodes: [{name: a}, {name: b}]\n",
	        "d:3:34: node a: listeners[0].address: \"nowhere\": the port is missing; expected ADDRESS:PORT, [V6]:PORT, :PORT or unix:/PATH");
	refused("domain: x\nnodes:\n- {name: a, config: {routes: [{cluster: nowhere}]}}\n",
	        "d:3:41: node a: routes[0].cluster: there is no cluster \"nowhere\"; expected the name of one of clusters");
	refused("domain: x\nclusters: [{name: c, carry: h2, endpoints: [{node: z}]}]\n",
	        "d:2:52: clusters.c.endpoints: there is no node \"z\"; expected {node: NAME} of a node with an address, and weight");
	refused("domain: x\nnodes: [{name: z}]\nclusters: [{name: c, carry: h2, endpoints: [{node: z}]}]\n",
	        "d:3:52: clusters.c.endpoints: there is no address of node \"z\"; expected {node: NAME} of a node with an address, and weight");
	/* also what no node refers to */
	refused("domain: x\nnodes: [{name: z}]\nclusters: [{name: c, carry: h9, endpoints: [\"a:1\"]}]\n",
	        "d:3:29: clusters[0].carry: \"h9\" is not known; expected h1, h2, h3, tcp, udp or ip");
	refused("domain: x\nnodes: [{name: n}]\nusers: [{name: u, nodes: [n], policies: [{name: p, match: {user: v}}]}]\n",
	        "d:3:66: users[0].policies[0]: a policy of the user \"u\" is about others; expected match without user");
}

/* --- the manual -------------------------------------------------------------------------------------------- */

static void check_keys(const char *page, const struct config_object *object)
{
	for (unsigned i = 0; i < object->n_fields; i++) {
		const char *key = object->fields[i].key, *at = key ? strstr(page, key) : page;
		if (object->fields[i].object && object->fields[i].object != &config_match_object)
			check_keys(page, object->fields[i].object);
		if (!at)
			fail_msg("%s: %s is not in hermes-controller(7)", object->name, key);
		assert_true(!key || object->fields[i].doc);
	}
}

static void test_man_page(void **state)
{
	FILE *f = fopen("packaging/man/hermes-controller.7", "r");
	char *page = calloc(1, 262144);
	(void)state;

	assert_non_null(f);
	assert_true(fread(page, 1, 262143, f) > 0);
	fclose(f);
	check_keys(page, &domain_document);
	free(page);
}

/* Whom all nodes are told not to believe. */
static void test_revoked(void **state)
{
	static const struct { const char *record, *entry; } cases[] = {
		{"{\"revoked\": true}", "alice"}, {"{\"revoked\": true, \"begins\": 7}", "alice"}, {"{\"revoked\": false}", NULL},
		{"{\"begins\": 7}", "alice@7"}, {"{\"revoked\": 1}", NULL}, {"{}", NULL}, {"[]", NULL},
	};
	char entry[96];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		json_t *json = json_loads(cases[i].record, 0, NULL);
		struct kv_value value = {.key = "node/alice", .json = json, .revision = 1};
		assert_int_equal(compose_revoked(&value, entry, sizeof(entry)), cases[i].entry != NULL);
		if (cases[i].entry)
			assert_string_equal(entry, cases[i].entry);
		value.revision = 0;                       /* it is gone */
		assert_false(compose_revoked(&value, entry, sizeof(entry)));
		json_decref(json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_layers, clean),
		cmocka_unit_test_teardown(test_clusters, clean),
		cmocka_unit_test_teardown(test_own_cluster, clean),
		cmocka_unit_test_teardown(test_users, clean),
		cmocka_unit_test_teardown(test_objectives, clean),
		cmocka_unit_test_teardown(test_overrides, clean),
		cmocka_unit_test_teardown(test_determined, clean),
		cmocka_unit_test_teardown(test_nothing, clean),
		cmocka_unit_test_teardown(test_refused, clean),
		cmocka_unit_test_teardown(test_refused_objectives, clean),
		cmocka_unit_test_teardown(test_refused_fragments, clean),
		cmocka_unit_test(test_revoked),
		cmocka_unit_test(test_man_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
