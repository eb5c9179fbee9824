/* Clusters against real servers on the loopback; the flows are the test's own. */
#include "tests/unit/cluster_world.h"

static void test_h1_reuses(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	cluster(0, CONFIG_H1, 1);
	commit(1);
	struct flow *flow = run(0, "GET", "a");
	assert_int_equal(flow->status, 200);
	assert_false(flow->used.reused);
	assert_int_equal(flow->used.number, 0);
	assert_string_equal(flow->used.endpoint, servers[0].text);
	assert_string_equal(flow->used.address, servers[0].text);
	for (unsigned i = 0; i < 5; i++) {
		flow = run(0, "GET", "a");
		assert_int_equal(flow->status, 200);
		assert_true(flow->used.reused);
	}
	assert_int_equal(servers[0].accepted, 1);
	assert_int_equal(metric("a", STATS_CLUSTER_CONNECTIONS), 1);
	assert_int_equal(metric("a", STATS_CLUSTER_CONNECTIONS_OPEN), 1);
	/* The server closes the idle connection: the next goes on a new one. */
	peer_close(peers);
	UNTIL(metric("a", STATS_CLUSTER_CONNECTIONS_OPEN) == 0);
	flow = run(0, "GET", "a");
	assert_int_equal(flow->status, 200);
	assert_int_equal(servers[0].accepted, 2);
}

static void test_h1_limit(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	cluster(0, CONFIG_H1, 1)->max_connections = 2;
	commit(1);
	for (unsigned i = 0; i < 10; i++)
		begin(i, "GET", "a");
	await(10);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(flows[i].status, 200);
	assert_int_equal(servers[0].accepted, 2);
	/* All are busy: who waits for too long is told why. */
	servers[0].hold = true;
	begin(0, "GET", "a");
	begin(1, "GET", "a");
	struct flow *flow = make_flow(2, "GET", "x");
	struct cluster_request request = request_of(flow, "a");
	request.connect_timeout = 50;
	flow->attempt = cluster_open(tunnel.clusters, &request);
	await(1);
	assert_int_equal(flow->error, FLOW_CONNECTION_LIMIT);
	assert_non_null(strstr(flow->detail, servers[0].text));
	finish(&flows[0]);
	finish(&flows[1]);
}

static void test_h2_shares(void **state)
{
	(void)state;
	serve(0, SPEAK_H2);
	cluster(0, CONFIG_H2, 1);
	commit(1);
	/* All wait for one connection that is being made. */
	for (unsigned i = 0; i < 50; i++)
		begin(i, "GET", "a");
	await(50);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(flows[i].status, 200);
	assert_int_equal(servers[0].accepted, 1);
	assert_true(flows[49].used.reused);
	assert_int_equal(servers[0].requests, 50);
}

static void test_h2_room(void **state)
{
	(void)state;
	serve(0, SPEAK_H2);
	servers[0].streams = 5;
	cluster(0, CONFIG_H2, 1)->max_connections = 2;
	commit(1);
	for (unsigned i = 0; i < 60; i++)
		begin(i, "GET", "a");
	await(60);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(flows[i].status, 200);
	assert_in_range(servers[0].accepted, 1, 2);
}

static void test_tcp(void **state)
{
	(void)state;
	serve(0, SPEAK_ECHO);
	cluster(0, CONFIG_CARRY_TCP, 1);
	commit(1);
	for (unsigned i = 0; i < 3; i++) {
		struct flow *flow = run(i, "CONNECT", "a");
		assert_int_equal(flow->status, 200);
		assert_false(flow->used.reused);
	}
	assert_int_equal(servers[0].accepted, 3);
	assert_int_equal(metric("a", STATS_CLUSTER_CONNECTIONS_OPEN), 3);
	for (unsigned i = 0; i < 3; i++)
		finish(&flows[i]);
	UNTIL(metric("a", STATS_CLUSTER_CONNECTIONS_OPEN) == 0);
}

static void test_connect_failures(void **state)
{
	(void)state;
	serve(0, SPEAK_ECHO);
	stop_serving(&servers[0]);                   /* a port where nobody listens */
	serve(1, SPEAK_NOTHING);
	cluster(0, CONFIG_CARRY_TCP, 1);
	cluster(1, CONFIG_H2, 2)->connect_timeout = 100;
	endpoints[1][0] = endpoints[1][1];           /* connects, but no SETTINGS come */
	clusters[1].n_endpoints = 1;
	cluster(2, CONFIG_H1, 1);
	endpoints[2][0].address = (struct config_address){.text = nowhere, .host = nowhere, .port = 80};
	commit(3);
	struct flow *flow = run(0, "CONNECT", "a");
	assert_int_equal(flow->error, FLOW_CONNECT_REFUSED);
	assert_int_equal(flow->used.number, 0);
	assert_non_null(strstr(flow->detail, servers[0].text));
	assert_non_null(strstr(flow->detail, "Connection refused"));
	begin(1, "GET", "b");
	begin(2, "GET", "b");
	await(2);
	assert_int_equal(flows[1].error, FLOW_CONNECT_TIMEOUT);
	assert_int_equal(flows[2].error, FLOW_CONNECT_TIMEOUT);
	assert_int_equal(servers[1].accepted, 1);
	flow = run(3, "GET", "c");
	assert_int_equal(flow->error, FLOW_DNS);
	assert_non_null(strstr(flow->detail, "no name server"));
	flow = run(4, "GET", "none");
	assert_int_equal(flow->error, FLOW_NO_ENDPOINT);
}

static void test_choice(void **state)
{
	unsigned counts[2] = {0};
	(void)state;
	serve(0, SPEAK_H1);
	serve(1, SPEAK_H1);
	cluster(0, CONFIG_H1, 2);
	endpoints[0][1].weight = 3;
	commit(1);
	for (unsigned i = 0; i < 40; i++)
		counts[run(0, "GET", "a")->used.number]++;
	assert_int_equal(counts[0], 10);
	assert_int_equal(counts[1], 30);
	/* A further try goes elsewhere, while there is an elsewhere. */
	for (unsigned i = 0; i < 8; i++) {
		struct flow *flow = make_flow(0, "GET", "x");
		struct cluster_request request = request_of(flow, "a");
		request.tried = 1;
		request.tried_endpoints = 2;
		cluster_open(tunnel.clusters, &request);
		await(1);
		assert_int_equal(flow->used.number, 0);
	}
}

static void test_table(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	serve(1, SPEAK_H1);
	cluster(0, CONFIG_H1, 2);
	commit(1);
	struct endpoint_table *table = endpoint_table_new(tunnel.current->config);
	tunnel.current->endpoints = endpoint_table_map(endpoint_table_fd(table), tunnel.current->config);
	endpoint_table_slot(table, 0, 0)->drained = 1;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(run(0, "GET", "a")->used.number, 1);
	endpoint_table_slot(table, 0, 0)->drained = 0;
	endpoint_table_slot(table, 0, 1)->down = 2;  /* worker 1 says so */
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(run(0, "GET", "a")->used.number, 0);
	endpoint_table_slot(table, 0, 0)->down = 2;  /* all down: panic, any will do */
	unsigned seen = 0;
	for (unsigned i = 0; i < 4; i++)
		seen |= 1u << run(0, "GET", "a")->used.number;
	assert_int_equal(seen, 3);
	endpoint_table_slot(table, 0, 0)->drained = endpoint_table_slot(table, 0, 1)->drained = 1;
	assert_int_equal(run(0, "GET", "a")->error, FLOW_NO_ENDPOINT);
	endpoint_table_free(table);
}

static void test_ejection(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	serve(1, SPEAK_H1);
	stop_serving(&servers[1]);
	cluster(0, CONFIG_H1, 2)->ejection = (struct config_ejection){.failures = 2, .time = 100000, .max_percent = 50};
	commit(1);
	unsigned failed = 0;
	for (unsigned i = 0; i < 20; i++)
		failed += run(0, "GET", "a")->failed;
	assert_int_equal(failed, 2);
	assert_int_equal(metric("a", STATS_CLUSTER_EJECTIONS), 1);
	/* At most half of them may be out. */
	for (unsigned i = 0; i < 5; i++)
		cluster_report(tunnel.clusters, "a", 0, false);
	assert_int_equal(run(0, "GET", "a")->used.number, 0);
	struct json json = JSON_INIT;
	clusters_json(tunnel.clusters, &json);
	assert_non_null(strstr(json.data, "\"state\":\"ejected\""));
	assert_non_null(strstr(json.data, "\"state\":\"up\""));
	json_free(&json);
}

static void test_targets(void **state)
{
	(void)state;
	char authority[64];
	serve(0, SPEAK_H1);
	struct config_cluster *c = cluster(0, CONFIG_CARRY_TCP, 0);
	c->target = true;
	c = cluster(1, CONFIG_CARRY_TCP, 0);
	c->target = true;
	c->allow_targets.loopback = true;
	commit(2);
	static const struct { const char *target; enum flow_error error; } cases[] = {
		{"127.0.0.1:%u", FLOW_TARGET_REFUSED}, {"localhost:%u", FLOW_TARGET_REFUSED}, {"LOCALHOST.:%u", FLOW_TARGET_REFUSED},
		{"[::ffff:127.0.0.1]:%u", FLOW_TARGET_REFUSED}, {"[::1]:%u", FLOW_TARGET_REFUSED}, {"0.0.0.0:%u", FLOW_TARGET_REFUSED},
		{"2130706433:%u", FLOW_REQUEST}, {"0x7f.1:%u", FLOW_REQUEST}, {"127.0.0.1:0", FLOW_REQUEST},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *end = strchr(strcpy(authority, cases[i].target), '%');
		if (end)
			sprintf(end, "%u", servers[0].port);
		struct flow *flow = make_flow(0, "CONNECT", authority);
		struct cluster_request request = request_of(flow, "a");
		cluster_open(tunnel.clusters, &request);
		await(1);
		if (flow->error != cases[i].error)
			fail_msg("%s: error %d, %s", authority, flow->error, flow->detail);
	}
	assert_int_equal(servers[0].accepted, 0);
	/* Allowed: a tunnel, and requests on one pooled connection. */
	sprintf(authority, "localhost:%u", servers[0].port);
	struct flow *flow = make_flow(1, "CONNECT", authority);
	struct cluster_request request = request_of(flow, "b");
	cluster_open(tunnel.clusters, &request);
	await(1);
	assert_int_equal(flow->status, 200);
	assert_int_equal(flow->used.number, -1);
	assert_string_equal(flow->used.endpoint, authority);
	finish(flow);
	for (unsigned i = 0; i < 4; i++) {
		flow = make_flow(1, "GET", authority);
		request = request_of(flow, "b");
		cluster_open(tunnel.clusters, &request);
		await(1);
		assert_int_equal(flow->status, 200);
		assert_int_equal(flow->used.reused, i > 0);
	}
	assert_int_equal(servers[0].accepted, 2);
	request.scheme = "https";
	cluster_open(tunnel.clusters, &request);
	await(1);
	assert_int_equal(flow->error, FLOW_TLS_PROTOCOL);
}

static void test_generations(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	serve(1, SPEAK_H1);
	cluster(0, CONFIG_H1, 2);
	commit(1);
	run(0, "GET", "a");
	run(0, "GET", "a");
	assert_int_equal(servers[0].accepted + servers[1].accepted, 2);
	/* Other limits, the same connections. */
	clusters[0].connect_timeout = 1000;
	commit(1);
	assert_true(run(0, "GET", "a")->used.reused);
	assert_true(run(0, "GET", "a")->used.reused);
	/* An endpoint goes: its idle connection closes, the other's stays. */
	endpoints[0][0] = endpoints[0][1];
	clusters[0].n_endpoints = 1;
	commit(1);
	UNTIL(servers[0].open == 0);
	assert_int_equal(servers[1].open, 1);
	assert_true(run(0, "GET", "a")->used.reused);
	assert_int_equal(flows[0].used.number, 0);
	/* Busy ones end with their flows; what waits is still served. */
	servers[1].hold = true;
	struct flow *busy = begin(1, "GET", "a");
	UNTIL(busy->opened == 1);
	begin(2, "GET", "a");
	event_base_loop(tunnel.base, EVLOOP_NONBLOCK | EVLOOP_ONCE);
	cluster(0, CONFIG_CARRY_TCP, 1);
	commit(1);
	UNTIL(flows[2].opened == 1);
	assert_int_equal(busy->broken, 0);
	finish(busy);
	finish(&flows[2]);
	commit(0);
	UNTIL(servers[1].open == 0);
	assert_int_equal(run(0, "GET", "a")->error, FLOW_NO_ENDPOINT);
}

static void test_h2_drains(void **state)
{
	(void)state;
	serve(0, SPEAK_H2);
	cluster(0, CONFIG_H2, 1);
	commit(1);
	servers[0].hold = true;
	struct flow *flow = begin(0, "GET", "a");
	UNTIL(flow->opened == 1);
	commit(0);
	spin();
	assert_int_equal(flow->broken, 0);
	assert_int_equal(servers[0].open, 1);
	finish(flow);
	UNTIL(servers[0].open == 0);
}

static void test_cancel(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	cluster(0, CONFIG_H1, 1);
	commit(1);
	serve(1, SPEAK_NOTHING);
	cluster(1, CONFIG_H2, 2);
	endpoints[1][0] = endpoints[1][1];
	clusters[1].n_endpoints = 1;
	commit(2);
	struct flow *early = begin(0, "GET", "a"), *late = begin(1, "GET", "b");
	attempt_cancel(early->attempt);
	spin();
	attempt_cancel(late->attempt);               /* its connection is up, SETTINGS never come */
	spin();
	assert_int_equal(early->opened + early->failed + late->opened + late->failed, 0);
	assert_int_equal(run(2, "GET", "a")->status, 200);
	/* Freed with attempts under way: they fail. */
	begin(3, "GET", "a");
	begin(4, "GET", "b");
}

static void test_waiting_is_bounded(void **state)
{
	static struct attempt *attempts[4100];
	(void)state;
	serve(0, SPEAK_NOTHING);
	cluster(0, CONFIG_H2, 1)->max_streams = 10000;
	commit(1);
	struct flow *flow = make_flow(0, "GET", "x");
	struct cluster_request request = request_of(flow, "a");
	for (unsigned i = 0; i < 4100; i++)
		attempts[i] = cluster_open(tunnel.clusters, &request);
	await(4);
	assert_int_equal(flow->failed, 4);
	assert_int_equal(flow->error, FLOW_CONNECTION_LIMIT);
	assert_non_null(strstr(flow->detail, "too many"));
	for (unsigned i = 0; i < 4096; i++)
		attempt_cancel(attempts[i]);
	spin();
	assert_int_equal(flow->failed + flow->opened, 4);
}

static void test_several_addresses(void **state)
{
	static char text[32], name[] = "several.test";
	(void)state;
	serve(0, SPEAK_H1);
	resolver_set_hosts(tunnel.resolver, "127.0.0.3 several.test\n::1 several.test\n127.0.0.1 several.test\n");
	cluster(0, CONFIG_H1, 1);
	snprintf(text, sizeof(text), "%s:%u", name, servers[0].port);
	endpoints[0][0].address = (struct config_address){.text = text, .host = name, .port = servers[0].port};
	commit(1);
	struct flow *flow = run(0, "GET", "a");
	assert_int_equal(flow->status, 200);
	assert_string_equal(flow->used.endpoint, text);
	assert_string_equal(flow->used.address, servers[0].text);
	/* All of them refuse: the reason is one of theirs. */
	stop_serving(&servers[0]);
	spin();
	flow = run(1, "GET", "a");
	assert_true(flow->error == FLOW_CONNECT_REFUSED || flow->error == FLOW_UNROUTABLE);
}

/* A listener whose backlog is full takes no SYN: connecting hangs. */
static int hang(uint16_t port, int clients[4])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, "127.0.0.9", &address.sin_addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 0), 0);
	for (unsigned i = 0; i < 4; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		assert_true(connect(clients[i], (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EINPROGRESS);
	}
	return fd;
}

static void test_an_address_that_hangs(void **state)
{
	static char text[32], name[] = "several.test";
	int clients[4];
	(void)state;
	serve(0, SPEAK_H1);
	int fd = hang(servers[0].port, clients);
	resolver_set_hosts(tunnel.resolver, "127.0.0.9 several.test\n127.0.0.1 several.test\n");
	cluster(0, CONFIG_H1, 1);
	snprintf(text, sizeof(text), "%s:%u", name, servers[0].port);
	endpoints[0][0].address = (struct config_address){.text = text, .host = name, .port = servers[0].port};
	commit(1);
	struct flow *flow = run(0, "GET", "a");
	assert_int_equal(flow->status, 200);
	assert_string_equal(flow->used.address, servers[0].text);
	for (unsigned i = 0; i < 4; i++)
		close(clients[i]);
	close(fd);
}

static void test_health(void **state)
{
	(void)state;
	serve(0, SPEAK_H1);
	serve(1, SPEAK_H2);
	cluster(0, CONFIG_H1, 1)->health_check = (struct config_health_check){
		.path = up, .interval = 20, .timeout = 1000, .healthy = 2, .unhealthy = 2, .status_low = 200, .status_high = 299};
	cluster(1, CONFIG_H2, 2)->health_check = clusters[0].health_check;
	endpoints[1][0] = endpoints[1][1];
	clusters[1].n_endpoints = 1;
	commit(2);
	for (unsigned round = 0; round < 3; round++) {
		const char *want = round == 1 ? "\"state\":\"down\"" : "\"state\":\"up\"";
		servers[0].status = servers[1].status = round == 1 ? 503 : 200;
		unsigned before[2] = {servers[0].requests, servers[1].requests};
		/* Until both were checked often enough to change their minds. */
		for (unsigned i = 0; i < 2000 && (servers[0].requests < before[0] + 4 || servers[1].requests < before[1] + 4); i++)
			spin();
		struct json json = JSON_INIT;
		clusters_json(tunnel.clusters, &json);
		char *first = strstr(json.data, want);
		assert_non_null(first);
		assert_non_null(strstr(first + 1, want));
		if (round == 1)
			assert_non_null(strstr(json.data, "status 503"));
		json_free(&json);
	}
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_h1_reuses), T(test_h1_limit), T(test_h2_shares), T(test_h2_room), T(test_tcp), T(test_connect_failures),
		T(test_choice), T(test_table), T(test_ejection), T(test_targets), T(test_generations), T(test_h2_drains),
		T(test_cancel), T(test_waiting_is_bounded), T(test_several_addresses),
		T(test_an_address_that_hangs), T(test_health),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
