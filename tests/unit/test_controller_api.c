/* SPDX-License-Identifier: Apache-2.0 */
/* The controller's interface over a real socket, with the local store and a keeper that is none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "workers/controller/api_http.h"
#include "workers/controller/enrolment.h"
#include "workers/controller/metrics.h"
#include "workers/controller/nodes.h"
#include "workers/controller/polls.h"
#include "workers/controller/tokens.h"

#define LIMIT_MS 10000
/* Of nothing: three bytes of DER are enough for a fingerprint. */
#define PEM "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"

static struct controller world;
static struct config config;
static struct event_base *base;
static char folder[64];
static const char *keeper_fault;
static unsigned asked;
static struct held { keeper_done *done; void *arg; } held[4];     /* certificates that the keeper takes its time for */
static unsigned n_held;
static bool slow;

void keeper_ask(struct keeper_client *keeper, const char *op, const char *const *args, size_t n_args, const char *text,
                size_t length, keeper_done *done, void *arg)
{
	char answer[200];
	(void)keeper, (void)length;
	asked++;
	if (slow && !strcmp(op, "certify") && n_held < 4)
		held[n_held++] = (struct held){done, arg};
	else if (keeper_fault)
		done(arg, NULL, keeper_fault);
	else if (!strcmp(op, "authorities"))
		done(arg, PEM, NULL);
	else if (!strcmp(op, "public"))
		done(arg, "cHVibGlj", NULL);
	else if (!strcmp(op, "certify") && n_args == 3) {
		snprintf(answer, sizeof(answer), "serial %02X\ncertificate of %s%s by %s", asked, args[0], *args[2] ? " +" : "", text);
		done(arg, answer, NULL);
	} else
		done(arg, NULL, "no such operation");
}

/* --- a world ---------------------------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	static char domain[] = "example.net", own[] = "c1", boss[] = "boss";
	static char *operators[] = {boss};
	const char *why = NULL;
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	(void)state;
	strcpy(folder, "/tmp/hermes-api-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	base = event_base_new();
	config = (struct config){.domain = domain, .node_name = own};
	config.controller.operators = (struct config_strs){.v = operators, .n = 1};
	config.controller.certificate_days = 30;
	config.control.report = 200;
	world = (struct controller){.config = &config};
	keeper_fault = NULL;
	world.api = api_new(&world, base);
	world.nodes = nodes_new(&world, base);
	world.polls = polls_new(&world, base);
	world.enrolment = enrolment_new(&world, base);
	world.kv = kv_local(base, folder, NULL, NULL, &why);
	api_nodes_add(world.api);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", folder);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || api_listen(world.api, fd))
		return -1;
	nodes_start(world.nodes);
	polls_start(world.polls);
	return 0;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	polls_free(world.polls);
	enrolment_free(world.enrolment);
	kv_free(world.kv);
	nodes_free(world.nodes);
	api_free(world.api);
	event_base_free(base);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

/* Connections of this process are the tunnel worker's, or an operator's. */
static void as_operator(bool operator_)
{
	api_set_self(world.api, operator_ ? getuid() + 1 : getuid());
}

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/s", folder);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void run(int ms)
{
	const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	event_base_loopexit(base, &time);
	event_base_dispatch(base);
}

static void send_all(int fd, const char *text, size_t length)
{
	for (int ms = 0; length; ms += 2) {
		ssize_t n = send(fd, text, length, MSG_NOSIGNAL);
		text += n > 0 ? n : 0;
		length -= n > 0 ? (size_t)n : 0;
		if (n < 0 && errno != EAGAIN)
			return;                       /* refused already */
		if (length)
			run(2);
		assert_true(ms < LIMIT_MS);
	}
}

static void send_text(int fd, const char *text)
{
	send_all(fd, text, strlen(text));
}

/* An answer: its status; the body in `body`. 0: the connection has ended. */
static char body[1 << 20];
static unsigned answer(int fd)
{
	static char all[1 << 20];
	size_t n = 0, length = 0;
	for (int ms = 0; ms < LIMIT_MS; ms += 2) {
		ssize_t got = recv(fd, all + n, sizeof(all) - 1 - n, 0);
		n += got > 0 ? (size_t)got : 0;
		all[n] = '\0';
		char *end = strstr(all, "\r\n\r\n"), *field = strcasestr(all, "content-length:");
		length = field && end && field < end ? strtoul(field + 15, NULL, 10) : 0;
		if (end && n >= (size_t)(end - all) + 4 + length) {
			memcpy(body, end + 4, length);
			body[length] = '\0';
			return (unsigned)strtoul(all + 9, NULL, 10);
		}
		if (!got)
			return 0;
		run(2);
	}
	fail_msg("no answer: %s", all);
	return 0;
}

static void ask_on(int fd, const char *method, const char *path, const char *peer, const char *text)
{
	char head[1024];
	int n = snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: controller\r\n%s%s%sContent-Length: %zu\r\n\r\n", method, path,
	                 peer ? "hermes-peer: " : "", peer ? peer : "", peer ? "\r\n" : "", text ? strlen(text) : 0);
	send_all(fd, head, (size_t)n);
	if (text)
		send_all(fd, text, strlen(text));
}

static unsigned ask(const char *method, const char *path, const char *peer, const char *text)
{
	int fd = dial();
	ask_on(fd, method, path, peer, text);
	unsigned status = answer(fd);
	close(fd);
	run(1);
	return status;
}

static unsigned operate(const char *method, const char *path, const char *text)
{
	as_operator(true);
	unsigned status = ask(method, path, NULL, text);
	as_operator(false);
	return status;
}

static json_t *member(const char *name)
{
	static json_t *last;
	json_decref(last);
	last = json_loads(body, 0, NULL);
	assert_non_null(last);
	json_t *value = json_object_get(last, name);
	assert_non_null(value);
	return value;
}

static void expect_error(const char *code)
{
	assert_string_equal(json_string_value(json_object_get(member("error"), "code")), code);
}

static void want(const char *node, int number)
{
	char key[80];
	snprintf(key, sizeof(key), "want/%s", node);
	struct kv_txn *txn = kv_txn_new(world.kv);
	kv_txn_put(txn, key, json_pack("{s:i, s:i, s:s, s:s, s:s}", "number", number, "version", number, "text", "x: 1\n", "digest",
	                               "abc", "signature", "sig"), false);
	kv_commit(txn, NULL, NULL);
}

/* --- tests ------------------------------------------------------------------------------------------------------------ */

static void test_levels(void **state)
{
	(void)state;
	assert_int_equal(ask("GET", "/v1/nodes", NULL, NULL), 403);
	expect_error("forbidden");
	assert_int_equal(ask("GET", "/v1/nodes", "alice", NULL), 403);
	assert_int_equal(ask("GET", "/v1/nodes", "boss", NULL), 200);
	assert_int_equal(ask("GET", "/v1/config", NULL, NULL), 403);
	assert_int_equal(ask("GET", "/v1/config", "", NULL), 403);
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 204);
	assert_int_equal(ask("POST", "/v1/report", NULL, "{}"), 403);
	assert_int_equal(ask("GET", "/v1/authorities", NULL, NULL), 200);
	assert_string_equal(body, PEM);
	assert_int_equal(operate("GET", "/v1/nodes", NULL), 200);
	assert_int_equal(operate("GET", "/v1/config", NULL), 403);
	/* what an operator says of a peer does not count */
	as_operator(true);
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 403);
	as_operator(false);
	assert_int_equal(ask("GET", "/v1/tokens", "alice", NULL), 403);
	assert_int_equal(ask("GET", "/metrics", NULL, NULL), 403);
}

static void test_paths(void **state)
{
	(void)state;
	assert_int_equal(operate("GET", "/", NULL), 404);
	expect_error("not-found");
	assert_int_equal(operate("GET", "/v1/nodesx", NULL), 404);
	assert_int_equal(operate("DELETE", "/v1/nodes", NULL), 405);
	expect_error("method");
	assert_int_equal(operate("GET", "/v1/nodes/", NULL), 200);
	assert_int_equal(operate("GET", "/v1/nodes/nobody", NULL), 404);
	assert_int_equal(operate("GET", "/v1/nodes/c%31?x=%20&y", NULL), 200);
	assert_string_equal(json_string_value(member("name")), "c1");
	assert_int_equal(operate("GET", "/v1/nodes/c1%00", NULL), 400);
	assert_int_equal(operate("GET", "/v1/nodes/c%zz", NULL), 400);
	assert_int_equal(operate("GET", "/v1/nodes?a=%", NULL), 400);
	assert_int_equal(operate("GET", "/v1/nodes/c1/revoke", NULL), 405);
	assert_int_equal(operate("POST", "/v1/nodes/nobody/revoke", NULL), 404);
	assert_int_equal(operate("POST", "/v1/nodes//revoke", NULL), 405);
	assert_int_equal(operate("POST", "/v1/tokens", "{\"node\": "), 400);
	expect_error("bad-json");
}

static unsigned raw(const char *text)
{
	int fd = dial();
	send_all(fd, text, strlen(text));
	unsigned status = answer(fd);
	close(fd);
	run(1);
	return status;
}

static void test_malformed(void **state)
{
	static const struct { const char *text; unsigned status; } cases[] = {
		{"GET /v1/nodes HTTP/1.1\r\n\r\n", 400}, {"GET  /v1/nodes HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"GET /v1/nodes HTTP/2.0\r\nHost: a\r\n\r\n", 505}, {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"VERYVERYVERYVERYLONG / HTTP/1.1\r\nHost: a\r\n\r\n", 501}, {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400}, {"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
		{"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
		{"GET / HTTP/1.1\r\nHost: a\r\nhermes-peer: a\r\nHermes-Peer: b\r\n\r\n", 400},
		{"POST /v1/tokens HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", 413},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		unsigned status = raw(cases[i].text);
		if (status != cases[i].status)
			fail_msg("case %zu: %u\n%s", i, status, body);
		assert_true(json_is_object(member("error")));
	}
	char *head = malloc(40000);
	memset(head, 'x', 40000);
	head[39999] = '\0';
	memcpy(head, "GET /", 5);
	assert_int_equal(raw(head), 431);
	free(head);
}

/* Requests one after the other on a connection, also sent at once; chunked; 100-continue. */
static void test_connection(void **state)
{
	int fd = dial();
	(void)state;
	ask_on(fd, "GET", "/v1/config", "a", NULL);
	ask_on(fd, "GET", "/nothing", "a", NULL);
	ask_on(fd, "GET", "/v1/authorities", "a", NULL);
	assert_int_equal(answer(fd), 204);
	/* answer() reads what is there: the next may have come along with it */
	close(fd);
	fd = dial();
	const char *chunked = "POST /v1/report HTTP/1.1\r\nHost: a\r\nhermes-peer: alice\r\nTransfer-Encoding: chunked\r\n\r\n"
	                      "5\r\n{\"num\r\n1d\r\nber\": 0, \"state\": \"accepted\"}\r\n0\r\n\r\n";
	for (const char *c = chunked; *c; c++) {
		send_all(fd, c, 1);
		if (c - chunked > 90)
			run(1);
	}
	assert_int_equal(answer(fd), 200);
	send_text(fd, "POST /v1/report HTTP/1.1\r\nHost: a\r\nhermes-peer: alice\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
	assert_int_equal(answer(fd), 100);
	send_text(fd, "{}");
	assert_int_equal(answer(fd), 400);
	expect_error("bad-report");
	send_text(fd, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	assert_int_equal(answer(fd), 404);
	run(5);
	assert_int_equal(recv(fd, body, 1, 0), 0);
	close(fd);
	run(5);
	assert_int_equal(api_counts(world.api).connections, 0);
}

/* Who is no node may send little, and keeps nobody else out by beginning much. */
static void test_strangers(void **state)
{
	static const struct { const char *peer; const char *length; unsigned status; } cases[] = {
		{"", "Content-Length: 65537", 413}, {"", "Content-Length: 65536", 100},
		{"hermes-peer:\r\n", "Content-Length: 65537", 413}, {"hermes-peer: alice\r\n", "Content-Length: 65537", 100},
		{"hermes-peer: alice\r\n", "Content-Length: 2000000", 413}, {"hermes-peer: boss\r\n", "Content-Length: 2000000", 100},
		{"hermes-peer: boss\r\n", "Content-Length: 20000000", 413},
		{"", "Transfer-Encoding: chunked", 100}, {"hermes-peer: alice\r\n", "Transfer-Encoding: chunked", 100},
	};
	int many[API_STRANGERS_MAX];
	char text[400];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int fd = dial();
		snprintf(text, sizeof(text), "POST /v1/enroll HTTP/1.1\r\nHost: a\r\n%sExpect: 100-continue\r\n%s\r\n\r\n", cases[i].peer,
		         cases[i].length);
		send_text(fd, text);
		unsigned status = answer(fd);
		if (status != cases[i].status)
			fail_msg("case %zu: %u\n%s", i, status, body);
		if (status == 100 && strchr(cases[i].length, 'c')) {
			send_text(fd, "10001\r\n");
			run(5);
			assert_int_equal(recv(fd, body, sizeof(body), 0) > 0, !*cases[i].peer);
		}
		close(fd);
		run(1);
	}
	/* a chunk that comes along with the head */
	assert_int_equal(raw("POST /v1/enroll HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n"), 413);
	for (size_t i = 0; i < API_STRANGERS_MAX; i++) {
		many[i] = dial();
		send_text(many[i], "POST /v1/enroll HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
		run(1);
	}
	assert_int_equal(ask("GET", "/v1/authorities", NULL, NULL), 503);
	expect_error("too-many");
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 204);
	assert_int_equal(operate("GET", "/v1/nodes", NULL), 200);
	send_text(many[0], "{\"node\":1}");       /* its end makes room, and so do those who go */
	run(5);
	assert_int_equal(ask("GET", "/v1/authorities", NULL, NULL), 200);
	for (size_t i = 0; i < API_STRANGERS_MAX; i++)
		close(many[i]);
	run(20);
	assert_int_equal(ask("GET", "/v1/authorities", NULL, NULL), 200);
}

static void test_long_poll(void **state)
{
	int fd = dial(), other = dial(), many[POLLS_PER_NODE + 1];
	(void)state;
	ask_on(fd, "GET", "/v1/config?have=0&wait=60", "alice", NULL);
	ask_on(other, "GET", "/v1/config?have=0&wait=60", "bob", NULL);
	run(20);
	assert_int_equal(polls_waiting(world.polls), 2);
	want("alice", 7);
	assert_int_equal(answer(fd), 200);
	assert_int_equal(json_integer_value(member("number")), 7);
	assert_string_equal(json_string_value(member("node")), "alice");
	assert_string_equal(json_string_value(member("domain")), "example.net");
	assert_int_equal(polls_waiting(world.polls), 1);      /* bob hears nothing of it */
	assert_int_equal(ask("GET", "/v1/config?have=6", "alice", NULL), 200);
	assert_int_equal(ask("GET", "/v1/config?have=7", "alice", NULL), 204);
	ask_on(fd, "GET", "/v1/config?have=7&wait=1", "alice", NULL);
	assert_int_equal(answer(fd), 204);
	/* whoever goes is forgotten */
	close(other);
	run(10);
	assert_int_equal(polls_waiting(world.polls), 0);
	for (int i = 0; i <= POLLS_PER_NODE; i++) {
		many[i] = dial();
		ask_on(many[i], "GET", "/v1/config?have=7&wait=60", "alice", NULL);
		run(5);
	}
	assert_int_equal(polls_waiting(world.polls), POLLS_PER_NODE);
	assert_int_equal(answer(many[0]), 204);
	want("alice", 8);
	for (int i = 1; i <= POLLS_PER_NODE; i++) {
		assert_int_equal(answer(many[i]), 200);
		close(many[i]);
	}
	close(many[0]);
	close(fd);
}

#define REPORT "{\"number\": 3, \"version\": 2, \"state\": \"accepted\", \"digest\": \"d\", \"ready\": true, \"refused\": null, "          \
               "\"probes\": [{\"name\": \"p\"}]}"

static void test_reports(void **state)
{
	(void)state;
	assert_int_equal(ask("POST", "/v1/report", "alice", REPORT), 200);
	assert_false(json_is_true(member("renew")));
	assert_int_equal(json_integer_value(member("report_ms")), 200);
	run(5);
	assert_int_equal(operate("GET", "/v1/nodes/alice", NULL), 200);
	assert_string_equal(json_string_value(member("state")), "online");
	assert_int_equal(json_integer_value(json_object_get(member("runs"), "number")), 3);
	assert_int_equal(json_array_size(member("probes")), 1);
	assert_true(kv_get(world.kv, "node/alice").revision > 0);     /* entered by her certificate */
	uint64_t revision = kv_get(world.kv, "state/alice").revision;
	assert_int_equal(ask("POST", "/v1/report", "alice", REPORT), 200);
	assert_true(kv_get(world.kv, "state/alice").revision == revision);     /* nothing new so soon: not written */
	assert_int_equal(ask("POST", "/v1/report", "alice", "{\"number\": 4, \"state\": \"accepted\"}"), 200);
	assert_true(kv_get(world.kv, "state/alice").revision > revision);
	static const char *const bad[] = {"[]", "{}", "{\"number\": \"1\", \"state\": \"x\"}", "{\"number\": 1}",
		"{\"number\": 1, \"state\": \"x\", \"probes\": {}}", "{\"number\": 1, \"state\": \"x\", \"probes\": [1]}",
		"{\"number\": 1, \"state\": \"x\", \"refused\": {\"errors\": 1}}"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(ask("POST", "/v1/report", "alice", bad[i]), 400);
	assert_int_equal(ask("POST", "/v1/report", "no/name", REPORT), 400);
	char *large = malloc(NODES_REPORT_MAX + 200);
	sprintf(large, "{\"number\": 5, \"state\": \"accepted\", \"digest\": \"%0*d\"}", NODES_REPORT_MAX + 50, 1);
	assert_int_equal(ask("POST", "/v1/report", "alice", large), 400);
	free(large);
	/* of very many next hops nothing is kept; but what it runs, and its probes */
	json_t *hops = json_array(), *report = json_loads(REPORT, 0, NULL);
	for (int i = 0; i < 3000; i++)
		json_array_append_new(hops, json_pack("{s:s, s:[]}", "name", "a cluster of many", "endpoints"));
	json_object_set_new(report, "number", json_integer(6));
	json_object_set_new(report, "clusters", hops);
	large = json_dumps(report, JSON_COMPACT);
	assert_true(strlen(large) > NODES_REPORT_MAX);
	assert_int_equal(ask("POST", "/v1/report", "alice", large), 200);
	assert_int_equal(operate("GET", "/v1/nodes/alice", NULL), 200);
	assert_int_equal(json_integer_value(json_object_get(member("runs"), "number")), 6);
	assert_int_equal(json_array_size(member("clusters")), 0);
	assert_int_equal(json_array_size(member("probes")), 1);
	json_decref(report);
	free(large);
	run(3500);
	assert_int_equal(nodes_status(world.nodes, "alice"), NODE_AWAY);
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 204);
	assert_int_equal(nodes_status(world.nodes, "alice"), NODE_ONLINE);
}

static char *make_token(const char *request)
{
	assert_int_equal(operate("POST", "/v1/tokens", request), 201);
	return strdup(json_string_value(member("token")));
}

static unsigned enroll(const char *token, const char *node)
{
	char text[600];
	if (node)
		snprintf(text, sizeof(text), "{\"token\": \"%s\", \"node\": \"%s\", \"request\": \"CSR\"}", token, node);
	else
		snprintf(text, sizeof(text), "{\"token\": \"%s\", \"request\": \"CSR\"}", token);
	return ask("POST", "/v1/enroll", NULL, text);
}

static void test_enrolment(void **state)
{
	char *token = make_token("{\"node\": \"alice\", \"controller\": true}"), *any = make_token(NULL);
	(void)state;
	assert_null(strstr(body, "hash"));
	assert_int_equal(operate("GET", "/v1/tokens", NULL), 200);
	assert_int_equal(json_array_size(member("tokens")), 2);
	assert_null(strstr(body, "hash"));
	assert_int_equal(enroll(token, "bob"), 403);
	assert_int_equal(enroll("hermes1.a.b.c", "alice"), 403);
	assert_int_equal(enroll("x", "alice"), 403);
	assert_int_equal(enroll(token, "../x"), 400);
	keeper_fault = "no";
	assert_int_equal(enroll(token, "alice"), 503);
	keeper_fault = NULL;
	assert_int_equal(enroll(token, NULL), 200);       /* not used up by what failed; and the name is the token's */
	assert_string_equal(json_string_value(member("node")), "alice");
	assert_string_equal(json_string_value(member("authorities")), PEM);
	assert_string_equal(json_string_value(member("public")), "cHVibGlj");
	assert_string_equal(json_string_value(member("certificate")), "certificate of alice + by CSR");
	assert_int_equal(enroll(token, "alice"), 403);    /* once */
	assert_int_equal(enroll(any, NULL), 400);
	assert_int_equal(enroll(any, "alice"), 403);      /* taken: only a token for just that name */
	assert_int_equal(enroll(any, "carol"), 200);
	assert_string_equal(json_string_value(member("certificate")), "certificate of carol by CSR");
	free(token);
	token = make_token("{\"node\": \"alice\"}");
	assert_null(json_object_get(kv_get(world.kv, "node/alice").json, "begins"));
	assert_int_equal(enroll(token, "alice"), 200);
	/* certificates of before are not that machine's; a renewal does not forget it */
	json_int_t begins = json_integer_value(json_object_get(kv_get(world.kv, "node/alice").json, "begins"));
	assert_true(begins > 0 && begins <= (json_int_t)time(NULL));
	assert_int_equal(ask("POST", "/v1/renew", "alice", "{\"request\": \"NEW\"}"), 200);
	assert_int_equal(json_integer_value(json_object_get(kv_get(world.kv, "node/alice").json, "begins")), begins);
	free(token);
	free(any);
	assert_int_equal(ask("POST", "/v1/renew", "carol", "{\"request\": \"NEW\"}"), 200);
	assert_string_equal(json_string_value(member("certificate")), "certificate of carol by NEW");
	assert_int_equal(ask("POST", "/v1/renew", "carol", "{}"), 400);
	assert_int_equal(ask("POST", "/v1/renew", NULL, "{\"request\": \"NEW\"}"), 403);
}

static void test_tokens(void **state)
{
	(void)state;
	static const char *const bad[] = {"{\"node\": \"a b\"}", "{\"node\": 1}", "{\"lifetime\": 0}", "{\"lifetime\": -5}",
		"{\"lifetime\": 99999999999}", "[]", "{\"node\": \"\"}"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(operate("POST", "/v1/tokens", bad[i]), 400);
	char *token = make_token("{\"node\": \"web-*\", \"lifetime\": 3600}");
	assert_int_equal(enroll(token, "db-1"), 403);
	/* guessing ends it */
	char wrong[300];
	snprintf(wrong, sizeof(wrong), "%s", token);
	char *secret = strchr(strchr(wrong, '.') + 1, '.') + 1;
	secret[3] = secret[3] == 'A' ? 'B' : 'A';
	for (int i = 0; i < 10; i++)
		assert_int_equal(enroll(wrong, "web-1"), 403);
	assert_int_equal(enroll(token, "web-1"), 403);
	assert_int_equal(kv_count(world.kv, "token/"), 0);
	for (int i = 0; i < 60; i++)
		enroll("hermes1.a.b.c", "x");
	assert_int_equal(enroll("hermes1.a.b.c", "x"), 429);
	free(token);
	token = make_token(NULL);
	assert_int_equal(enroll(token, "carol"), 200);    /* who has a right one is not kept out by those */
	free(token);
	token = make_token("{\"lifetime\": 1}");
	char path[100];
	snprintf(path, sizeof(path), "/v1/tokens/%.16s", token + strlen("hermes1."));
	assert_int_equal(operate("DELETE", path, NULL), 204);
	assert_int_equal(operate("DELETE", path, NULL), 404);
	free(token);
	assert_true(enrolment_pattern_fits("web-?", "web-1", false));
	assert_false(enrolment_pattern_fits("web-?", "web-1", true));
	assert_false(enrolment_pattern_fits("*", "a/b", false));
	char fingerprint[44];
	assert_true(enrolment_fingerprint(PEM, fingerprint));
	assert_string_equal(fingerprint, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");    /* of "abc" (FIPS 180-4) */
	assert_false(enrolment_fingerprint("nothing", fingerprint));
}

/* A token holds until it is over, and for one machine: also where two come at the same moment. */
static void test_tokens_once(void **state)
{
	char *token = make_token("{\"lifetime\": 1}");
	unsigned statuses[2];
	int fds[2] = {dial(), dial()};
	(void)state;
	run(2100);
	assert_int_equal(enroll(token, "carol"), 403);
	free(token);
	assert_int_equal(operate("GET", "/v1/tokens", NULL), 200);
	assert_int_equal(json_array_size(member("tokens")), 0);
	token = make_token(NULL);
	assert_int_equal(kv_count(world.kv, "token/"), 1);        /* the other is forgotten */
	slow = true;
	for (size_t i = 0; i < 2; i++) {
		char text[300];
		snprintf(text, sizeof(text), "{\"token\": \"%s\", \"node\": \"twin-%zu\", \"request\": \"CSR\"}", token, i);
		ask_on(fds[i], "POST", "/v1/enroll", NULL, text);
		run(10);
	}
	slow = false;
	assert_int_equal(n_held, 2);
	while (n_held) {
		n_held--;
		held[n_held].done(held[n_held].arg, "serial 0A\ncertificate", NULL);
	}
	for (size_t i = 0; i < 2; i++) {
		statuses[i] = answer(fds[i]);
		close(fds[i]);
	}
	assert_int_equal(statuses[0] + statuses[1], 200 + 409);
	assert_int_equal(kv_count(world.kv, "token/"), 0);
	assert_int_equal(kv_count(world.kv, "node/twin-"), 1);
	free(token);
}

static void test_revoked(void **state)
{
	int fd = dial();
	(void)state;
	assert_int_equal(ask("POST", "/v1/report", "alice", REPORT), 200);
	ask_on(fd, "GET", "/v1/config?have=0&wait=60", "alice", NULL);
	run(20);
	assert_int_equal(operate("POST", "/v1/nodes/alice/revoke", NULL), 200);
	assert_int_equal(answer(fd), 403);                /* at once */
	expect_error("revoked");
	close(fd);
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 403);
	assert_int_equal(ask("POST", "/v1/report", "alice", REPORT), 403);
	assert_int_equal(ask("POST", "/v1/renew", "alice", "{\"request\": \"x\"}"), 403);
	assert_int_equal(nodes_status(world.nodes, "alice"), NODE_REVOKED);
	char *token = make_token("{}");
	assert_int_equal(enroll(token, "alice"), 200);    /* only enrolling anew helps */
	run(5);
	assert_int_equal(ask("GET", "/v1/config", "alice", NULL), 204);
	free(token);
}

static void test_metrics(void **state)
{
	int fd = dial();
	(void)state;
	ask_on(fd, "GET", "/v1/config?have=0&wait=60", "alice", NULL);
	run(20);
	want("alice", 3);
	assert_int_equal(answer(fd), 200);
	assert_int_equal(ask("POST", "/v1/report", "alice", REPORT), 200);
	run(20);
	assert_int_equal(operate("GET", "/metrics", NULL), 200);
	assert_non_null(strstr(body, "hermes_controller_nodes{state=\"online\"} 1\n"));
	assert_non_null(strstr(body, "hermes_controller_accepted_seconds_count 1\n"));
	assert_non_null(strstr(body, "hermes_controller_reports_total 1\n"));
	assert_string_equal(body + strlen(body) - 6, "# EOF\n");
	close(fd);
}

/* The manual lists every family. */
static void test_metrics_manual(void **state)
{
	char *manual = calloc(1, 1 << 18), name[100];
	FILE *file = fopen("packaging/man/hermes-metrics.7", "r");
	(void)state;
	assert_non_null(file);
	assert_true(fread(manual, 1, (1 << 18) - 1, file) > 0);
	fclose(file);
	assert_int_equal(operate("GET", "/metrics", NULL), 200);
	int n = 0;
	for (const char *at = body; (at = strstr(at, "# HELP ")); at++, n++) {
		size_t length = strcspn(at + 7, " ");
		snprintf(name, sizeof(name), "\n.BR %.*s", (int)length, at + 7);
		if (!strstr(manual, name))
			fail_msg("not in hermes-metrics(7): %s", name);
	}
	assert_true(n > 15);
	free(manual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_levels, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_paths, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_malformed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_connection, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_strangers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_long_poll, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reports, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_enrolment, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tokens, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tokens_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_revoked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_metrics, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_metrics_manual, set_up, tear_down),
	};
	if (sodium_init() < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
