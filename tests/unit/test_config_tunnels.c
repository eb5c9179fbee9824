/* UDP listeners, transparent capture, TUN devices and carry: ip in the configuration. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/config.h"

#define NODE "node: {name: n}\n"
#define IP "carry: ip, device: t"

static struct config *parse(const char *text, struct config_report *report)
{
	struct config *config = config_parse("t", text, strlen(text), report);

	if (!config)
		fail_msg("%s", report->n_errors ? report->errors[0] : "no error");
	assert_int_equal(report->n_errors, 0);
	return config;
}

/* Through the packed form and through JSON it stays the same. */
static void check_round_trips(const struct config *c)
{
	struct config_report report = {0};
	uint8_t *data;
	size_t length;

	assert_int_equal(config_pack(c, &data, &length), 0);
	struct config *copy = config_unpack(data, length);
	assert_non_null(copy);
	char *a = config_json(c), *b = config_json(copy);
	assert_string_equal(a, b);
	assert_int_equal(copy->examines.ip, c->examines.ip);
	config_free(copy);
	free(b);
	copy = parse(a, &report);
	b = config_json(copy);
	assert_string_equal(a, b);
	assert_int_equal(copy->examines.ip, c->examines.ip);
	config_free(copy);
	config_report_free(&report);
	free(data);
	free(a);
	free(b);
}

static void test_udp(void **state)
{
	struct config_report report = {0};
	struct config *c = parse(
		"node: {name: n, datagram_queue: 2MiB, datagram_age: 500ms, resume_timeout: 0, resume_bytes: 64KiB}\n"
		"listeners:\n"
		"- {name: a, address: '127.0.0.1:1', accept: udp, target: 'DEV:6363', limits: {flows: 7}, add_headers: {Svc: NDN}}\n"
		"- {name: b, address: '127.0.0.1:1', accept: tcp, target: 'DEV:1'}\n"     /* TCP beside UDP */
		"- {name: c, address: ':2', accept: transparent}\n"
		"- {name: d, address: ':4', accept: transparent, capture: {destinations: 10.0.0.0/8, exclude: [10.1.0.0/16], ports: 80}}\n"
		"- {name: e, address: ':3', accept: transparent, capture: {protocol: udp, ports: 8000-8999, local: true}}\n"
		"clusters: [{name: u, carry: udp, endpoints: ['a:1', {address: '[::1]:2', weight: 2}]},\n"
		"  {name: v, carry: udp, endpoints: target, allow_targets: [private]}]\n", &report);
	const struct config_listener *l = c->listeners;

	(void)state;
	assert_int_equal(c->datagram_queue, 2 << 20);
	assert_int_equal(c->datagram_age, 500);
	assert_int_equal(c->resume_timeout, 0);
	assert_int_equal(c->resume_bytes, 65536);
	assert_string_equal(l[0].target.text, "DEV:6363");
	assert_int_equal(l[0].limits.flows, 7);
	assert_int_equal(l[1].limits.flows, 65536);
	assert_true(l[2].capture.tcp && l[2].capture.udp && !l[2].capture.local);
	assert_int_equal(l[2].capture.port_low, 0);
	assert_true(l[3].capture.tcp && l[3].capture.udp);
	assert_int_equal(l[3].capture.destinations.v[0].bits, 104);
	assert_int_equal(l[3].capture.exclude.n, 1);
	assert_int_equal(l[3].capture.port_low, 80);
	assert_int_equal(l[3].capture.port_high, 80);
	config_free(c);
	config_report_free(&report);
}

/* The transparent listeners d and e above would share a port: only where their protocols differ may they. */
static void test_shared_addresses(void **state)
{
	struct config_report report = {0};
	struct config *c = parse(NODE
		"listeners:\n"
		"- {name: d, address: ':3', accept: transparent, capture: {protocol: [tcp], ports: 80, local: true}}\n"
		"- {name: e, address: ':3', accept: transparent, capture: {protocol: udp, ports: 8000-8999}}\n"
		"telemetry: {metrics: {address: ':4'}}\n"
		"clusters: [{name: u, carry: udp, endpoints: ['a:1']}]\n", &report);

	(void)state;
	assert_true(c->listeners[0].capture.local && !c->listeners[0].capture.udp);
	assert_int_equal(c->listeners[1].capture.port_high, 8999);
	assert_int_equal(c->clusters[0].max_connections, 65536);
	assert_int_equal(c->datagram_queue, 1 << 20);
	assert_int_equal(c->datagram_age, 2000);
	assert_int_equal(c->resume_timeout, 30000);
	assert_int_equal(c->resume_bytes, 4 << 20);
	check_round_trips(c);
	config_free(c);
	config_report_free(&report);
}

static void test_tunnels(void **state)
{
	struct config_report report = {0};
	struct config *c = parse(NODE
		"tunnels:\n"
		"- {name: hermes0, addresses: [10.8.0.2/24, 'fd00::2/64', 10.9.0.1], mtu: 9000, queues: 8, offload: false,\n"
		"   networks: [{prefix: 10.0.0.1/32, add_headers: {User: user2, IPAddress: 10.0.0.1}},\n"
		"              {prefix: 0.0.0.0/0, add_headers: {user: u}, over_udp: 'SERVER1:4500'}],\n"
		"   exclude: [192.168.0.0/16], require_user: true}\n"
		"- {name: a-name-of-15-by, addresses: assigned, networks: [{prefix: '::/0'}]}\n"
		"- {name: bare}\n"
		"clusters:\n"
		"- {name: campus, carry: ip, device: bare, pool: [10.8.0.0/24, '2001:db8::/112'], advertise: 128.252.0.0/16, nat: true}\n"
		"- {name: other, carry: ip, device: hermes0, pool: 10.8.0.0/24}\n"
		"policies:\n"
		"- {name: r, match: {listener: hermes0, ip: {protocol: udp, source: 10.0.0.0/8, destination: ['::/0'], port: 53}}}\n",
		&report);
	const struct config_tunnel *t = c->tunnels;

	(void)state;
	assert_int_equal(report.n_warnings, 0);
	assert_int_equal(c->n_tunnels, 3);
	assert_string_equal(t[0].addresses.v[0], "10.8.0.2/24");
	assert_int_equal(t[0].addresses.n, 3);
	assert_int_equal(t[0].mtu, 9000);
	assert_int_equal(t[0].queues, 8);
	assert_false(t[0].offload);
	assert_true(t[0].require_user);
	assert_int_equal(t[0].networks[0].prefix.bits, 128);
	assert_string_equal(t[0].networks[0].add_headers.v[1].name, "ipaddress");
	assert_null(t[0].networks[0].over_udp.text);
	assert_int_equal(t[0].networks[1].prefix.bits, 96);
	assert_string_equal(t[0].networks[1].over_udp.host, "SERVER1");
	assert_int_equal(t[0].exclude.n, 1);
	assert_true(t[1].assigned && !t[0].assigned);
	assert_int_equal(t[1].networks[0].prefix.bits, 0);
	assert_int_equal(t[2].mtu, 1500);
	assert_int_equal(t[2].queues, 1);
	assert_true(t[2].offload);
	assert_string_equal(c->clusters[0].device, "bare");
	assert_int_equal(c->clusters[0].pool.n, 2);
	assert_true(c->clusters[0].nat && !c->clusters[1].nat);
	assert_true(c->examines.ip);
	assert_int_equal(c->policies[0].match.ip.protocol, 17);
	assert_int_equal(c->policies[0].match.ip.port_low, 53);
	/* a tunnel's headers are the overlay's own */
	assert_int_equal(c->internal_headers.n, 2);
	assert_string_equal(c->internal_headers.v[0], "ipaddress");
	check_round_trips(c);
	config_free(c);
	config_report_free(&report);
}

static void test_warnings(void **state)
{
	static const struct { const char *text, *warning; } all[] = {
		{NODE "tunnels: [{name: a, addresses: assigned, networks: [{prefix: 10.0.0.0/8}]},\n"
		 "  {name: b, networks: [{prefix: ::/0}, {prefix: 10.0.0.0/8}], addresses: assigned}]\n",
		 "t:3:40: tunnels[1].networks[1]: the prefix also leads into a (tunnels[0])"},
		{NODE "tunnels: [{name: a, networks: [{prefix: 10.0.0.0/8}], exclude: [10.1.0.0/16, 11.0.0.0/8],\n"
		 "  addresses: assigned}]\n", "t:2:78: tunnels[0].exclude: lies in none of networks"},
		{NODE "listeners: [{name: a, address: '127.0.0.1:1', accept: transparent, capture: {destinations: [10.0.0.0/8, 'fd00::/8']}}]\n",
		 "listeners[0].capture.destinations: not all are of the family"},
		{NODE "tunnels:\n  - {name: a, networks: [{prefix: 10.0.0.0/8}]}\n", "t:3:5: tunnels[0]: no addresses: "},
		{NODE "policies:\n  - name: p\n    rules: [{allow: {ip: {protocol: tcp}}, add_headers: {a: b}}]\n",
		 "policies[0].rules[0]: packets have no headers"},
		{NODE "clusters: [{name: c, carry: udp, endpoints: target}]\nroutes: [{cluster: c, match: {method: connect-udp}}]\n", "routes[0].match.method: methods are compared with case"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++) {
		struct config_report report = {0};
		struct config *c = parse(all[i].text, &report);
		assert_int_equal(report.n_warnings, 1);
		if (!strstr(report.warnings[0], all[i].warning))
			fail_msg("said %s, wants %s", report.warnings[0], all[i].warning);
		config_free(c);
		config_report_free(&report);
	}
}

static const struct { const char *text, *error; } faults[] = {
	/* ip: */
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP "}]\nroutes: [{cluster: c, match: {ip: {}}}]\n",
	 "t:4:10: ip is about packets inside a tunnel"},
	{NODE "tunnels: [{name: t}]\npolicies: [{name: p, match: {listener: u}}]\n", "expected one of listeners or tunnels"},
	/* accept: udp */
	{NODE "listeners: [{name: a, address: ':1', accept: udp}]\n", "t:2:13: listeners[0]: target is missing; expected target: HOST:PORT with accept: udp"},
	{NODE "listeners: [{name: a, address: ':1', accept: udp, target: 'unix:/x'}]\n", "t:2:59: listeners[0].target: \"unix:/x\": a Unix"},
	{NODE "listeners: [{name: a, address: 'unix:/x', accept: udp, target: 'h:1'}]\n", "t:2:32: listeners[0]: a Unix socket with accept: udp"},
	{NODE "listeners: [{name: a, address: ':1', accept: udp, target: 'h:1', require_user: true}]\n", "t:2:80: listeners[0]: accept: udp has no way"},
	{NODE "listeners: [{name: a, address: ':1', accept: udp, target: 'h:1', tls: {certificate: c, key: k}}]\n", "TLS towards clients"},
	{NODE "listeners: [{name: a, address: ':1', accept: udp, target: 'h:1', limits: {flows: 0}}]\n",
	 "t:2:82: listeners[0].limits.flows: 0 is out of range; expected a whole number from 1 to 16777216"},
	{NODE "listeners: [{name: a, address: ':1', accept: udp, target: 'h:1'}, {name: b, address: ':1', accept: udp, target: 'h:1'}]\n",
	 "t:2:67: listeners[1]: the address :1 is listeners[0]'s"},
	{NODE "listeners: [{name: a, address: ':1', accept: http, capture: {}}]\n", "t:2:61: listeners[0]: capture is for accept: transparent"},
	/* accept: transparent */
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, target: 'h:1'}]\n", "t:2:67: listeners[0]: target is for accept: tcp and udp"},
	{NODE "listeners: [{name: a, address: 'unix:/x', accept: transparent}]\n", "a Unix socket with accept: transparent"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, capture: {protocol: icmp}}]\n",
	 "t:2:79: listeners[0].capture.protocol: \"icmp\" is not known; expected tcp or udp"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, capture: {protocol: []}}]\n", "an empty list; expected tcp, udp"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, capture: {ports: 0}}]\n", "\"0\" is no range; expected numbers from 1 to 65535"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, capture: {destinations: [10.0.0.1/8]}}]\n", "bits after the prefix"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent, capture: {dest: 10.0.0.0/8}}]\n", "t:2:69: listeners[0].capture.dest: unknown key"},
	{NODE "listeners: [{name: a, address: ':1', accept: transparent}, {name: b, address: ':1', accept: tcp, target: 'h:1'}]\n",
	 "the address :1 is listeners[0]'s"},
	/* node */
	{"node: {name: n, datagram_queue: 1KiB}\n", "t:1:33: node.datagram_queue: 1KiB is out of range; expected a size (KiB, MiB, GiB) from 64KiB to 1GiB"},
	{"node: {name: n, datagram_age: 1ms}\n", "t:1:31: node.datagram_age: 1ms is out of range"},
	{"node: {name: n, resume_timeout: 5}\n", "t:1:33: node.resume_timeout: \"5\" is not a duration"},
	{"node: {name: n, resume_bytes: 2GiB}\n", "t:1:31: node.resume_bytes: 2GiB is out of range"},
	/* carry: udp */
	{NODE "clusters: [{name: c, carry: udp}]\n", "t:2:12: clusters[0]: endpoints is missing"},
	{NODE "clusters: [{name: c, carry: udp, endpoints: ['a:1'], tls: {identity: false, authorities: x}}]\n", "t:2:59: clusters[0]: TLS does not go over carry: udp"},
	{NODE "clusters: [{name: c, carry: udp, endpoints: ['unix:/x']}]\n", "t:2:45: clusters[0]: \"unix:/x\" is a Unix socket"},
	{NODE "clusters: [{name: c, carry: udp, endpoints: ['a:1'], health_check: {}}]\n", "t:2:68: clusters[0]: an endpoint cannot be checked"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, carry: udp, device: t, endpoints: ['a:1']}]\n", "are for carry: ip"},
	/* carry: ip */
	{NODE "clusters: [{name: c, carry: ip}]\n", "t:2:12: clusters[0]: device is missing"},
	{NODE "clusters: [{name: c, " IP "}]\n", "t:2:41: clusters[0].device: there is no device \"t\"; expected the name of one of tunnels"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP ", endpoints: ['a:1']}]\n", "t:3:55: clusters[0]: carry: ip has no use for endpoints"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP ", tls: off}]\n", "carry: ip has no use for tls"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP ", pool: [10.8.0.0/24, 10.8.0.128/25]}]\n",
	 "t:3:64: clusters[0].pool: overlaps with the pool of c on the same device"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP ", pool: 10.8.0.64/26}, {name: d, " IP ", pool: [10.9.0.0/16, 10.8.0.0/16]}]\n",
	 "t:3:117: clusters[1].pool: overlaps with the pool of c"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, " IP ", pool: 10.8.0.1/24}]\n", "bits after the prefix length are not zero"},
	{NODE "tunnels: [{name: t}]\nclusters: [{name: c, carry: tcp, endpoints: target, nat: true}]\n", "device, pool, advertise and nat are for carry: ip"},
	/* tunnels */
	{NODE "tunnels: [{name: a-name-of-16-byt}]\n", "t:2:18: tunnels[0]: \"a-name-of-16-byt\" is too long for a device; expected at most 15 bytes"},
	{NODE "tunnels: [{name: all}]\n", "t:2:18: tunnels[0]: a device cannot be called \"all\""},
	{NODE "tunnels: [{name: a/b}]\n", "is no name"},
	{NODE "tunnels: [{name: t}, {name: t}]\n", "t:2:29: tunnels[1]: \"t\" is taken by tunnels[0]"},
	{NODE "tunnels: [{addresses: [10.0.0.1/8]}]\n", "t:2:11: tunnels[0].name: missing in tunnel"},
	{NODE "tunnels: [{name: t, mtu: 1279}]\n", "t:2:26: tunnels[0].mtu: 1279 is out of range; expected a whole number from 1280 to 65535"},
	{NODE "tunnels: [{name: t, queues: 9}]\n", "expected a whole number from 1 to 8"},
	{NODE "tunnels: [{name: t, offload: 1}]\n", "expected true or false"},
	{NODE "tunnels: [{name: t, addresses: []}]\n", "t:2:32: tunnels[0].addresses: not a list of addresses"},
	{NODE "tunnels: [{name: t, addresses: [10.0.0.1, 10.0.0.300/8]}]\n", "t:2:43: tunnels[0].addresses[1]: \"10.0.0.300/8\": not an IPv4"},
	{NODE "tunnels: [{name: t, addresses: 10.0.0.1/33}]\n", "the prefix length is not a number from 0 to 32"},
	{NODE "tunnels: [{name: t, addresses: 10.0.0.1/0}]\n", "the prefix length is 0"},
	{NODE "tunnels: [{name: t, addresses: '10.0.0.1/08x'}]\n", "the prefix length is not"},
	{NODE "tunnels: [{name: t, addresses: 224.0.0.1/8}]\n", "no address that a device can have"},
	{NODE "tunnels: [{name: t, addresses: 'ff02::1/64'}]\n", "no address that a device can have"},
	{NODE "tunnels: [{name: t, addresses: [10.0.0.1/8, 10.0.0.1/8]}]\n", "is given twice"},
	{NODE "tunnels: [{name: t, addresses: assigned}]\n", "t:2:32: tunnels[0].addresses: assigned, and no far end"},
	{NODE "tunnels: [{name: t, addresses: assigned, networks: [{prefix: 10.0.0.0/8, over_udp: 'a:1'}]}]\n", "expected a network without over_udp"},
	{NODE "tunnels: [{name: t, networks: [{prefix: 10.0.0.1/8}]}]\n",
	 "t:2:41: tunnels[0].networks[0].prefix: \"10.0.0.1/8\": bits after the prefix length are not zero; expected a prefix such as"},
	{NODE "tunnels: [{name: t, networks: [{add_headers: {a: b}}]}]\n", "t:2:32: tunnels[0].networks[0].prefix: missing in network"},
	{NODE "tunnels: [{name: t, networks: [{prefix: [10.0.0.0/8]}]}]\n", "t:2:41: tunnels[0].networks[0].prefix: a list; expected a prefix"},
	{NODE "tunnels: [{name: t, networks: [10.0.0.0/8]}]\n", "t:2:32: tunnels[0].networks[0]: not a map; expected a network with its keys"},
	{NODE "tunnels: [{name: t, networks: [{prefix: 10.0.0.0/8, over_udp: 'a'}]}]\n", "t:2:63: tunnels[0].networks[0].over_udp: \"a\": the port is missing"},
	{NODE "tunnels: [{name: t, networks: [{prefix: 10.0.0.0/8, add_headers: {Host: x}}]}]\n", "the proxy's own"},
	{NODE "tunnels: [{name: t, networks: [{prefix: 10.0.0.0/8}, {prefix: ::/0}, {prefix: 10.0.0.0/8}]}]\n",
	 "t:2:70: tunnels[0].networks[2]: the prefix is networks[0]'s; expected one of its own"},
	{NODE "tunnels: [{name: t, require_user: true, networks: [{prefix: 10.0.0.0/8, add_headers: {a: b}}]}]\n",
	 "t:2:52: tunnels[0].networks[0]: names no user, and require_user is true"},
	{NODE "tunnels: [{name: t, networks: [{prefix: 10.0.0.0/8}], exclude: x}]\n", "t:2:64: tunnels[0].exclude: \"x\": not an IPv4"},
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

static void test_device_address(void **state)
{
	struct config_prefix a;
	const char *why;

	(void)state;
	assert_int_equal(config_device_address_parse("10.8.0.2/24", &a, &why), 0);
	assert_int_equal(a.bits, 120);
	assert_int_equal(a.address.s6_addr[15], 2);
	assert_int_equal(config_device_address_parse("fd00::2", &a, &why), 0);
	assert_int_equal(a.bits, 128);
	assert_int_not_equal(config_device_address_parse("::/64", &a, &why), 0);
	assert_int_not_equal(config_device_address_parse("10.8.0.2/", &a, &why), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_udp), cmocka_unit_test(test_shared_addresses), cmocka_unit_test(test_tunnels),
		cmocka_unit_test(test_warnings), cmocka_unit_test(test_faults), cmocka_unit_test(test_device_address),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
