/* The keys control, controller, probes, roles and identity.revoked, and what the first two imply. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/config.h"

#define KEY "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
#define NODE "node: {name: n, domain: example.net}\n"
#define IDENTITY "identity: {certificate: n.crt, key: n.key, authorities: [ca.crt], crl: r.crl, revoked: [mallory, eve]}\n"
#define CONTROL "control: {endpoints: ['a.example.net:8443', {address: '192.0.2.1:8443', weight: 2}], key: '" KEY "'}\n"

static struct config *parse(const char *text)
{
	struct config_report report = {0};
	struct config *config = config_parse("t", text, strlen(text), &report);

	if (!config)
		fail_msg("%s", report.n_errors ? report.errors[0] : "no error");
	config_report_free(&report);
	return config;
}

static void refused(const char *text, const char *error)
{
	struct config_report report = {0};
	struct config *config = config_parse("t", text, strlen(text), &report);

	assert_null(config);
	assert_true(report.n_errors > 0);
	if (!strstr(report.errors[0], error))
		fail_msg("%s\nis not: %s", report.errors[0], error);
	config_report_free(&report);
}

static struct config *through_pack(struct config *c)
{
	uint8_t *data;
	size_t length;

	assert_int_equal(config_pack(c, &data, &length), 0);
	struct config *copy = config_unpack(data, length);
	assert_non_null(copy);
	char *a = config_json(c), *b = config_json(copy);
	assert_string_equal(a, b);
	free(a);
	free(b);
	free(data);
	config_free(c);
	return copy;
}

static void test_control(void **state)
{
	struct config *c = through_pack(parse(NODE IDENTITY CONTROL
		"listeners: [{name: apps, address: '127.0.0.1:1', accept: http}]\n"
		"clusters: [{name: web, carry: h1, endpoints: ['b:80']}]\n"
		"routes: [{match: {}, cluster: web}, {name: last, cluster: web}]\n"));
	const struct config_listener *l = config_listener(c, CONFIG_CONTROL);
	const struct config_cluster *cluster = config_cluster(c, CONFIG_CONTROL);

	(void)state;
	assert_int_equal(c->control.n_endpoints, 2);
	assert_string_equal(c->control.key, KEY);
	assert_int_equal(c->control.confirm, 60000);
	assert_int_equal(c->control.report, 5000);
	assert_int_equal(c->identity.revoked.n, 2);
	assert_string_equal(c->identity.revoked.v[1], "eve");
	assert_int_equal(c->n_listeners, 2);
	assert_string_equal(l->address.text, "unix:control.sock");
	assert_string_equal(l->address.unix_path, "control.sock");
	assert_null(l->address.host);
	assert_int_equal(l->accept, CONFIG_HTTP);
	assert_false(l->tls.enabled);
	assert_int_equal(l->limits.header_bytes, 65536);
	assert_int_equal(cluster->carry, CONFIG_H2);
	assert_true(cluster->tls.enabled && !cluster->tls.no_identity);
	assert_int_equal(cluster->tls.min_version, CONFIG_TLS_1_3);
	assert_string_equal(cluster->tls.server_name, "controller.example.net");
	assert_int_equal(cluster->n_endpoints, 2);
	assert_string_equal(cluster->endpoints[0].address.host, "a.example.net");
	assert_int_equal(cluster->endpoints[1].weight, 2);
	assert_int_equal(cluster->connect_timeout, 2000);
	assert_int_equal(c->n_routes, 3);
	assert_string_equal(c->routes[0].name, CONFIG_CONTROL);
	assert_string_equal(c->routes[0].cluster, CONFIG_CONTROL);
	assert_string_equal(c->routes[0].match.listeners.v[0], CONFIG_CONTROL);
	assert_int_equal(c->routes[0].match.listeners.n, 1);
	assert_int_equal(c->routes[0].retry.attempts, 2);
	assert_int_equal(c->routes[0].timeout.request, 0);
	assert_string_equal(c->routes[1].name, "routes[0]");      /* numbers are those of the document */
	assert_string_equal(c->routes[2].name, "last");
	assert_true(c->examines.listener);
	assert_false(c->examines.path || c->examines.authority || c->examines.user);
	assert_false(c->controller.enabled || c->tun_bridge_off || c->telemetry_off);
	config_free(c);
}

static void test_controller(void **state)
{
	struct config *c = through_pack(parse(NODE IDENTITY CONTROL
		"controller: {address: ':8443', etcd: ['127.0.0.1:2379', 'unix:/run/etcd'], operators: [ops], certificate_days: 7,\n"
		"             token_lifetime: 10m}\n"
		"policies: [{name: p, match: {listener: hermes-controller}, default: allow}]\n"
		"roles: {tun_bridge: off, telemetry: off}\n"));
	const struct config_listener *l = config_listener(c, CONFIG_CONTROLLER);
	const struct config_cluster *cluster = config_cluster(c, CONFIG_CONTROLLER);

	(void)state;
	assert_true(c->controller.enabled && c->tun_bridge_off && c->telemetry_off);
	assert_int_equal(c->controller.etcd.n, 2);
	assert_string_equal(c->controller.prefix, "hermes/");
	assert_string_equal(c->controller.operators.v[0], "ops");
	assert_int_equal(c->controller.certificate_days, 7);
	assert_int_equal(c->controller.token_lifetime, 600000);
	assert_string_equal(l->address.text, ":8443");
	assert_true(l->tls.enabled && !l->tls.require && !l->tls.certificate);
	assert_int_equal(l->tls.min_version, CONFIG_TLS_1_3);
	assert_string_equal(l->tls.authorities.v[0], "ca.crt");
	assert_string_equal(l->tls.crl, "r.crl");
	assert_int_equal(cluster->carry, CONFIG_H1);
	assert_string_equal(cluster->endpoints[0].address.unix_path, "controller.sock");
	assert_true(cluster->max_connections >= 10000);
	assert_int_equal(c->n_listeners, 2);
	assert_int_equal(c->n_routes, 2);
	assert_string_equal(c->routes[0].name, CONFIG_CONTROL);
	assert_string_equal(c->routes[1].name, CONFIG_CONTROLLER);
	config_free(c);
	c = through_pack(parse(NODE IDENTITY "controller: {address: ':8443'}\n"));
	assert_int_equal(c->controller.certificate_days, 30);
	assert_int_equal(c->controller.token_lifetime, 3600000);
	assert_int_equal(c->controller.etcd.n, 0);
	assert_null(config_listener(c, CONFIG_CONTROL));
	config_free(c);
}

static void test_probes(void **state)
{
	struct config *c = through_pack(parse(NODE
		"clusters: [{name: web, carry: h1, endpoints: ['b:80']}]\n"
		"probes:\n"
		"- {name: a, cluster: web}\n"
		"- {name: b, target: 'VIDEO:80', method: GET, add_headers: {user: u}, interval: 200ms, timeout: 100ms}\n"));

	(void)state;
	assert_int_equal(c->n_probes, 2);
	assert_string_equal(c->probes[0].cluster, "web");
	assert_null(c->probes[0].target);
	assert_string_equal(c->probes[0].method, "CONNECT");
	assert_int_equal(c->probes[0].interval, 1000);
	assert_int_equal(c->probes[0].timeout, 1000);
	assert_string_equal(c->probes[1].method, "GET");
	assert_string_equal(c->probes[1].add_headers.v[0].value, "u");
	assert_int_equal(c->probes[1].interval, 200);
	assert_int_equal(c->n_listeners, 0);
	config_free(c);
}

static void test_refused(void **state)
{
	(void)state;
	refused(NODE CONTROL, "control needs the node's certificate");
	refused(NODE "controller: {address: ':1'}\n", "controller needs the node's certificate");
	refused(NODE IDENTITY "control: {endpoints: ['a:1'], key: short}\n", "t:3:36: control.key: not a public key");
	refused(NODE IDENTITY "control: {endpoints: ['a:1'], key: '11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURp='}\n", "not a public key");
	refused(NODE IDENTITY "control: {endpoints: [], key: '" KEY "'}\n", "no endpoints");
	refused(NODE IDENTITY "control: {endpoints: target, key: '" KEY "'}\n", "no endpoints");
	refused(NODE IDENTITY "control: {key: '" KEY "'}\n", "control.endpoints: missing");
	refused(NODE IDENTITY "control: {endpoints: ['a:1'], key: '" KEY "', confirm: 999ms}\n", "out of range");
	refused(NODE IDENTITY "controller: {address: 'name:1'}\n", "a name, not an address");
	refused(NODE IDENTITY "controller: {address: 'unix:/x'}\n", "a Unix socket");
	refused(NODE IDENTITY "controller: {address: ':1', etcd: ['x']}\n", "controller.etcd[0]: \"x\": the port is missing");
	refused(NODE IDENTITY "controller: {address: ':1'}\nlisteners: [{name: a, address: ':1', accept: http}]\n",
	        "controller.address: the address :1 is listeners[0]'s");
	refused(NODE "listeners: [{name: hermes-a, address: ':1', accept: http}]\n", "listeners[0].name: \"hermes-a\" begins with");
	refused(NODE "listeners: [{name: a, address: 'unix:control.sock', accept: http}]\n", "not absolute");
	refused(NODE "policies: [{name: p, match: {listener: hermes-control}}]\n", "which there is not");
	refused(NODE "probes: [{name: a, cluster: b}]\n", "t:2:29: probes[0].cluster: there is no cluster \"b\"");
	refused(NODE "probes: [{name: a}]\n", "nothing to look towards");
	refused(NODE "probes: [{name: a, target: x}]\n", "probes[0].target: \"x\": the port is missing");
	refused(NODE "probes: [{name: a, target: 'x:1'}, {name: a, target: 'x:1'}]\n", "is taken by probes[0]");
	refused(NODE "roles: {policy: off}\n", "unknown key in roles");
	refused(NODE "roles: {telemetry: maybe}\n", "expected on or off");
	refused(NODE "tunnels: [{name: t}]\nroles: {tun_bridge: off}\n", "t:3:21: roles: tun_bridge is off, and tunnels");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_control), cmocka_unit_test(test_controller),
	                                   cmocka_unit_test(test_probes), cmocka_unit_test(test_refused)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
