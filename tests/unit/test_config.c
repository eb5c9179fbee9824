#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/config.h"

static struct config *parse(const char *text)
{
	struct config_report report = {0};
	struct config *config = config_parse("t", text, strlen(text), &report);

	if (!config)
		fail_msg("%s", report.n_errors ? report.errors[0] : "no error");
	assert_int_equal(report.n_errors, 0);
	config_report_free(&report);
	return config;
}

static void test_model(void **state)
{
	struct config *c = parse(
		"node: {name: alice, domain: example.net, memory: 1GiB, worker_rss: 1536MiB}\n"
		"identity: {certificate: a.crt, key: a.key, authorities: [ca.crt]}\n"
		"users: [{name: u, password: $6$abc$0123456789}]\n"
		"overlay_headers: [X-Own]\n"
		"listeners:\n"
		"- {name: apps, address: '127.0.0.1:12000', accept: http, add_headers: {User: alice}, remove_headers: [X-Gone]}\n"
		"- {name: db, address: ':3306', accept: tcp, target: 'MYSQL:3306', limits: {idle_timeout: 0, streams: 7}}\n"
		"- {name: nodes, address: '[::]:8443', accept: overlay, peers: [{node: b, users: [u, v]}, {dns: x.example, headers: '*'}]}\n"
		"- {name: plain, address: 'unix:/run/p', accept: overlay, tls: off}\n"
		"clusters:\n"
		"- {name: up, carry: h2, tls: {server_name: up.example}, endpoints: ['192.0.2.7:8443', {address: '[::1]:1', weight: 3}]}\n"
		"- {name: web, carry: h1, tls: {identity: false, authorities: ca}, endpoints: ['svc.example:443'], health_check: {path: /h}}\n"
		"- {name: any, carry: tcp, endpoints: target, allow_targets: [loopback, private, 10.0.0.0/8], deny_targets: 10.1.0.0/16}\n"
		"address_spaces:\n"
		"- {name: gold, users: [alice], names: {VIDEO: {cluster: web}}, prefixes: {10.0.0.1/32: {cluster: up}}}\n"
		"routes:\n"
		"- match: {method: [GET, HEAD], authority: [VIDEO, '*.Example'], path: [/org/, /x, {prefix: /p}],\n"
		"          headers: {Token: admin, a: {prefix: x}, b: {present: true}, c: {absent: true}}, source: 10.0.0.0/8}\n"
		"  cluster: up\n"
		"  retry: {on: [connect-failure, gateway-error], attempts: 3, per_try_timeout: 250ms}\n"
		"- {name: last, cluster: any}\n"
		"policies:\n"
		"- name: p\n"
		"  default: allow\n"
		"  rules: [{allow: {user: [a]}, add_headers: {x-secure: admin}}, {deny: {}}]\n"
		"  authorizer: {address: 'unix:/run/opa', path: /v1/data/x, fail: open}\n"
		"telemetry: {metrics: {address: '127.0.0.1:9901'}, access_log: [{to: stderr, format: json}]}\n"
		"admin: {read: ['group:ops'], operate: []}\n"
		"log: {level: debug}\n");

	(void)state;
	assert_string_equal(c->node_name, "alice");
	assert_int_equal(c->memory, 1 << 30);
	assert_int_equal(c->worker_rss, 1536);
	assert_int_equal(c->max_hops, 10);
	assert_int_equal(c->drain_timeout, 30000);
	assert_int_equal(c->n_listeners, 4);
	assert_string_equal(c->listeners[0].add_headers.v[0].name, "user");
	assert_string_equal(c->listeners[0].remove_headers.v[0], "x-gone");
	assert_int_equal(c->listeners[0].limits.streams, 100);
	assert_int_equal(c->listeners[0].limits.header_timeout, 10000);
	assert_false(c->listeners[0].tls.enabled);
	assert_string_equal(c->listeners[1].target.host, "MYSQL");
	assert_string_equal(c->listeners[1].address.host, "");
	assert_int_equal(c->listeners[1].limits.streams, 7);
	assert_int_equal(c->listeners[1].limits.idle_timeout, 0);
	assert_true(c->listeners[2].tls.enabled);
	assert_int_equal(c->listeners[2].tls.min_version, CONFIG_TLS_1_3);
	assert_int_equal(c->listeners[2].limits.streams, 1000);
	assert_false(c->listeners[2].peers[0].any_user);
	assert_true(c->listeners[2].peers[0].any_header);
	assert_int_equal(c->listeners[2].peers[0].users.n, 2);
	assert_true(c->listeners[2].peers[1].any_user);
	assert_true(c->listeners[3].tls.off);
	assert_false(c->listeners[3].tls.enabled);
	assert_int_equal(c->clusters[0].max_connections, 4);
	assert_int_equal(c->clusters[0].endpoints[0].weight, 1);
	assert_int_equal(c->clusters[0].endpoints[1].weight, 3);
	assert_int_equal(c->clusters[0].tls.min_version, CONFIG_TLS_1_3);
	assert_int_equal(c->clusters[0].health_check.interval, 0);
	assert_int_equal(c->clusters[1].max_connections, 1024);
	assert_true(c->clusters[1].tls.no_identity);
	assert_int_equal(c->clusters[1].tls.min_version, CONFIG_TLS_1_2);
	assert_int_equal(c->clusters[1].health_check.interval, 5000);
	assert_int_equal(c->clusters[1].health_check.status_high, 399);
	assert_int_equal(c->clusters[1].ejection.max_percent, 50);
	assert_int_equal(c->clusters[1].ttl_max, 300);
	assert_true(c->clusters[2].target);
	assert_true(c->clusters[2].allow_targets.loopback && c->clusters[2].allow_targets.private_);
	assert_int_equal(c->clusters[2].allow_targets.prefixes.v[0].bits, 104);
	assert_int_equal(c->clusters[2].deny_targets.prefixes.n, 1);
	assert_string_equal(c->spaces[0].names[0].name, "video");
	assert_string_equal(c->spaces[0].names[0].key, "VIDEO");
	assert_int_equal(c->spaces[0].prefixes[0].prefix.bits, 128);
	assert_int_equal(c->spaces[0].names[0].timeout.idle, 300000);
	assert_string_equal(c->routes[0].name, "routes[0]");
	assert_string_equal(c->routes[0].match.authorities.v[1], "*.example");
	assert_string_equal(c->routes[0].match.paths[0].prefix, "/org/");
	assert_string_equal(c->routes[0].match.paths[1].exact, "/x");
	assert_string_equal(c->routes[0].match.paths[2].prefix, "/p");
	assert_string_equal(c->routes[0].match.headers[0].name, "token");
	assert_true(c->routes[0].match.headers[3].match.absent);
	assert_int_equal(c->routes[0].retry.on, CONFIG_RETRY_CONNECT | CONFIG_RETRY_GATEWAY);
	assert_int_equal(c->routes[0].retry.per_try_timeout, 250);
	assert_int_equal(c->routes[1].retry.attempts, 1);
	assert_true(c->policies[0].default_allow);
	assert_true(c->policies[0].rules[0].allow);
	assert_false(c->policies[0].rules[1].allow);
	assert_true(c->policies[0].authorizer.fail_open);
	assert_int_equal(c->policies[0].authorizer.timeout, 500);
	assert_true(c->telemetry.access_log[0].json);
	assert_string_equal(c->log_level, "debug");
	assert_true(c->examines.source && c->examines.user && c->examines.path && !c->examines.time);
	assert_int_equal(c->examined_headers.n, 4);
	assert_string_equal(c->examined_headers.v[3], "token");
	assert_int_equal(c->internal_headers.n, 3);
	assert_string_equal(c->internal_headers.v[0], "user");
	assert_string_equal(c->internal_headers.v[2], "x-secure");
	char *json = config_json(c);
	assert_null(strstr(json, "$6$"));
	assert_non_null(strstr(json, "\"password\":\"***\""));
	free(json);
	config_free(c);
}

#define NODE "node: {name: n}\n"
#define WEB "clusters: [{name: web, carry: h1, endpoints: ['a:80']}]\n"

/* Each text has one fault; the error must have this position and these words. */
static const struct { const char *text, *error; } faults[] = {
	{"", "t:1:1: the document is empty"},
	{"node: {name: n}\nnode: {name: m}\n", "t:2:1: the key \"node\" is given twice"},
	{"node: {name: n\n", "t:2:1: the document is not YAML"},
	{"[]", "t:1:1: not a map"},
	{"node: &a {name: n}\n", "t:1:7: anchors are not supported"},
	{"node: !!map {name: n}\n", "t:1:7: tags are not supported"},
	{"log: {level: info}\n", "t:1:1: node: missing"},
	{"node:\n  nmae: n\n  name: n\n", "t:2:3: node.nmae: unknown key in node; did you mean \"name\"?"},
	{NODE "xyzzy: 1\n", "t:2:1: xyzzy: unknown key in document; expected one of node, identity"},
	{NODE "log: {level: loud}\n", "t:2:14: log.level: \"loud\" is not known; expected debug, info, warn or error"},
	{"node: {name: n, max_hops: 0}\n", "t:1:27: node.max_hops: 0 is out of range; expected a whole number from 1 to 255"},
	{"node: {name: n, max_hops: '5'}\n", "t:1:27: node.max_hops: \"5\" is not a whole number"},
	{"node: {name: n, max_hops: [5]}\n", "t:1:27: node.max_hops: a list; expected a whole number"},
	{"node: {name: n, memory: 5KB}\n", "t:1:25: node.memory: \"5KB\" is not a size"},
	{"node: {name: n, drain_timeout: 5}\n", "t:1:32: node.drain_timeout: \"5\" is not a duration"},
	{"node: {name: n, drain_timeout: 99999999999999999999h}\n", "is not a duration"},
	{"node: {name: n, drain_timeout: 999999999999999999d}\n", "is not a duration"},
	{NODE "users: [{name: a, password: secret}]\n", "t:2:29: users[0].password: not a hashed password"},
	{NODE "users: [{name: 'a:b', password: $6$a$0123456789abc}]\n", "t:2:16: users[0]: \"a:b\" is no user name"},
	{NODE "users: [{name: a, password: $6$a$0123456789abc}, {name: a, password: $6$a$0123456789abc}]\n",
	 "t:2:57: users[1]: \"a\" is taken by users[0]"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: quic}]\n",
	 "t:2:53: listeners[0].accept: \"quic\" is not known; expected http, tcp, socks5, overlay, udp or transparent"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:0', accept: http}]\n", "t:2:32: listeners[0].address: \"1.2.3.4:0\": the port"},
	{NODE "listeners: [{name: a, address: 'localhost:1', accept: http}]\n", "a name, not an address"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: tcp}]\n", "target is missing"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: overlay}]\n", "TLS lacks a certificate"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http, peers: [{node: b}]}]\n", "peers is for accept: overlay"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http}, {name: b, address: '1.2.3.4:1', accept: http}]\n",
	 "t:2:60: listeners[1]: the address 1.2.3.4:1 is listeners[0]'s"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http, add_headers: {Host: x}}]\n", "the proxy's own"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http, remove_headers: [':path']}]\n", "no header name"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http, add_headers: {X: \"a\\r\\nb\"}}]\n", "not a header's value"},
	{NODE "listeners: [{name: a, address: '1.2.3.4:1', accept: http, add_headers: {X: a, x: b}}]\n", "given twice"},
	{NODE "clusters: [{name: c, carry: h3, endpoints: ['a:1']}]\n", "t:2:29: clusters[0]: carry: h3 is not available"},
	{NODE "clusters: [{name: c, carry: h1}]\n", "t:2:12: clusters[0]: endpoints is missing"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: []}]\n", "no endpoints"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: [{address: 'a:1', weight: 0}]}]\n", "expected a whole number from 1 to 1000"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: ['0x7f000001:1']}]\n", "dotted quad"},
	{NODE "clusters: [{name: c, carry: h1, tls: {identity: false, authorities: x}, endpoints: ['1.2.3.4:1']}]\n",
	 "server_name is missing"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: ['a:1'], allow_targets: [private]}]\n", "only endpoints: target"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: target, allow_targets: [10.0.0.1/8]}]\n", "bits after the prefix length"},
	{NODE "clusters: [{name: c, carry: h1, endpoints: ['a:1'], ttl_min: 10s, ttl_max: 5s}]\n", "ttl_min is above ttl_max"},
	{NODE "routes: [{cluster: nope}]\n", "t:2:20: routes[0].cluster: there is no cluster \"nope\""},
	{NODE WEB "routes: [{name: a, cluster: web}, {name: a, cluster: web}]\n", "is taken by routes[0]"},
	{NODE WEB "routes: [{cluster: web, match: {path: x}}]\n", "t:3:39: routes[0].match.path: \"x\" is no path"},
	{NODE WEB "routes: [{cluster: web, match: {user: []}}]\n", "an empty list"},
	{NODE WEB "routes: [{cluster: web, match: }]\n", "t:3:25: routes[0].match: not a map"},
	{NODE WEB "routes: [{cluster: web, match: {headers: {a: {exact: x, prefix: y}}}}]\n", "not one condition"},
	{NODE WEB "routes: [{cluster: web, match: {listener: nope}}]\n", "a listener \"nope\""},
	{NODE WEB "policies: [{name: p, match: {ip: {protocol: icmp, port: 5}}}]\n", "t:3:57: policies[0].match.ip: this protocol has no"},
	{NODE WEB "policies: [{name: p, match: {ip: {protocol: tpc}}}]\n", "t:3:45: policies[0].match.ip.protocol: \"tpc\" is no"},
	{NODE WEB "policies: [{name: p, match: {ip: {port: 9-8}}}]\n", "t:3:41: policies[0].match.ip.port: \"9-8\" is no range"},
	{NODE WEB "routes: [{cluster: web, retry: {attempts: 3}}]\n", "attempts without on"},
	{NODE WEB "routes: [{cluster: web, match: {time: 'Mon 08:00-18:00 ../../etc/passwd'}}]\n", "is no time zone"},
	{NODE WEB "routes: [{cluster: web, match: {time: 'Mon 08:00-18:00 /etc/passwd'}}]\n", "is no time zone"},
	{NODE WEB "routes: [{cluster: web, match: {time: 'Mon 08:00-25:00 UTC'}}]\n", "are no hours"},
	{NODE WEB "routes: [{cluster: web, match: {time: 'Mun 08:00-18:00 UTC'}}]\n", "are no days"},
	{NODE WEB "address_spaces: [{name: s, users: [a], names: {'V:80': {cluster: web}}}]\n", "is no name"},
	{NODE WEB "address_spaces: [{name: s, users: [a], names: {V: {cluster: x}}}]\n",
	 "t:3:61: address_spaces[0].names.V.cluster: there is no cluster \"x\""},
	{NODE WEB "address_spaces: [{name: s, users: [a]}, {name: t, users: [a]}]\n", "has an address space already"},
	{NODE "policies: [{name: p, rules: [{allow: {path: [/a, /b, /c]}, deny: {path: /d}}]}]\n", "both allow and deny"},
	{NODE "policies: [{name: p, rules: [{}]}]\n", "t:2:30: policies[0].rules[0]: neither allow nor deny"},
	{NODE "policies: [{name: p, rules: [{deny: {}, add_headers: {a: b}}]}]\n", "a rule that denies"},
	{NODE "policies: [{name: p, authorizer: {address: x, path: /}}]\n", "the port is missing"},
	{NODE "telemetry: {access_log: [{to: relative.log}]}\n", "no place for a log"},
};

static void test_faults(void **state)
{
	unsigned wrong = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
		struct config_report report = {0};
		struct config *config = config_parse("t", faults[i].text, strlen(faults[i].text), &report);
		if (config || report.n_errors != 1 || !strstr(report.errors[0], faults[i].error)) {
			print_error("%s\nwants %s\n", faults[i].text, faults[i].error);
			for (size_t e = 0; e < report.n_errors; e++)
				print_error("said  %s\n", report.errors[e]);
			wrong++;
		}
		config_free(config);
		config_report_free(&report);
	}
	assert_int_equal(wrong, 0);
}

/* RFC 9298 3.1: UDP tunnels live for two minutes at least, unless somebody insists. */
static void test_idle_udp(void **state)
{
	static const struct { const char *route; uint32_t idle; const char *warning; } all[] = {
		{"{}", 300000, NULL}, {"{match: {method: CONNECT-UDP}}", 300000, NULL},
		{"{match: {method: CONNECT-UDP}, timeout: {idle: 2m}}", 120000, NULL},
		{"{match: {method: CONNECT-UDP}, timeout: {idle: 0s}}", 0, NULL},
		{"{match: {method: CONNECT}, timeout: {idle: 10s}}", 10000, NULL},
		{"{match: {method: CONNECT-UDP}, timeout: {idle: 119s}}", 119000, "t:3:69: routes[0].timeout.idle: UDP tunnels"},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		char text[400];
		struct config_report report = {0};
		snprintf(text, sizeof(text), "node: {name: n}\nclusters: [{name: c, carry: udp, endpoints: target}]\nroutes: [{cluster: c, %s]\n",
		         all[i].route + 1);
		struct config *c = config_parse("t", text, strlen(text), &report);
		assert_non_null(c);
		assert_int_equal(c->routes[0].timeout.idle, all[i].idle);
		assert_int_equal(report.n_warnings, all[i].warning != NULL);
		if (all[i].warning && !strstr(report.warnings[0], all[i].warning))
			fail_msg("said %s", report.warnings[0]);
		config_free(c);
		config_report_free(&report);
	}
}

static void test_many_errors(void **state)
{
	struct config_report report = {0};
	char text[4096] = "node: {name: n}\nusers:\n";

	(void)state;
	for (int i = 0; i < 100; i++)
		strcat(text, "- {name: a b}\n");
	assert_null(config_parse("t", text, strlen(text), &report));
	assert_int_equal(report.n_errors, 50);
	config_report_free(&report);
}

static void refused(const char *text, size_t length, const char *error)
{
	struct config_report report = {0};

	assert_null(config_parse("t", text, length, &report));
	assert_true(report.n_errors >= 1);
	if (!strstr(report.errors[0], error))
		fail_msg("said %s, wants %s", report.errors[0], error);
	config_report_free(&report);
}

static void test_large(void **state)
{
	size_t size = (16 << 20) + 1;
	char *text = malloc(size);

	(void)state;
	memset(text, ' ', size);
	refused(text, size, "at most 16 MiB");
	memset(text, '[', 100000);
	refused(text, 100000, "nested deeper");
	memset(text, 'a', 1000);
	refused("node: {name: \"a\0b\"}", 19, "NUL");
	strcpy(text, "users: [");
	for (size_t n = 8; n < 3000000; n += 2)
		memcpy(text + n, "a,", 3);
	refused(text, strlen(text), "million");
	free(text);
}

/* A truncated document is refused or at least means nothing else than a document. */
static void test_truncated(void **state)
{
	static const char text[] = NODE WEB "routes: [{cluster: web, match: {path: /x/, headers: {a: {prefix: \"y\"}}}}]\n";

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 2; n++) {
		struct config_report report = {0};
		char *cut = malloc(n ? n : 1);
		memcpy(cut, text, n);
		struct config *config = config_parse("t", cut, n, &report);
		assert_true(config ? report.n_errors == 0 : report.n_errors > 0);
		config_free(config);
		config_report_free(&report);
		free(cut);
	}
}

static void test_windows(void **state)
{
	struct config *c = parse(NODE WEB "routes: [{cluster: web, match: {time: ['Mon-Fri 08:00-18:00 Europe/Warsaw', "
	                         "'Sat-Mon,Wed 22:00-24:00 UTC', 'Sun 23:00-06:00 America/New_York']}}]\n");
	const struct config_window *w = c->routes[0].match.times;

	(void)state;
	assert_int_equal(c->routes[0].match.n_times, 3);
	assert_true(c->examines.time);
	assert_int_equal(w[0].days, 0x1f);
	assert_int_equal(w[0].from, 480);
	assert_int_equal(w[0].to, 1080);
	assert_true(w[0].n_offsets >= 19 && w[0].n_offsets <= 23);   /* two changes a year */
	for (size_t i = 0; i < w[0].n_offsets; i++) {
		assert_true(w[0].offsets[i].seconds == 3600 || w[0].offsets[i].seconds == 7200);
		if (!i)
			continue;
		/* all of the Union changes at 01:00 UTC on a Sunday (Directive 2000/84/EC) */
		assert_true(w[0].offsets[i].from > w[0].offsets[i - 1].from);
		assert_int_equal(w[0].offsets[i].from % 86400, 3600);
		assert_int_equal((w[0].offsets[i].from / 86400 + 3) % 7, 6);
	}
	assert_true(w[0].offsets[0].from <= time(NULL));
	assert_int_equal(w[1].days, 0x20 | 0x40 | 1 | 4);
	assert_int_equal(w[1].to, 1440);
	assert_int_equal(w[1].n_offsets, 1);
	assert_int_equal(w[1].offsets[0].seconds, 0);
	assert_true(w[2].from > w[2].to);
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model), cmocka_unit_test(test_faults), cmocka_unit_test(test_many_errors),
		cmocka_unit_test(test_idle_udp),
		cmocka_unit_test(test_large), cmocka_unit_test(test_truncated), cmocka_unit_test(test_windows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
