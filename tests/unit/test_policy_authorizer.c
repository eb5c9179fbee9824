/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <jansson.h>

#include "workers/policy/answers.h"
#include "workers/policy/authorizer.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* --- question and result ------------------------------------------------------------------------------------------------ */

static void input_is_json(void **state)
{
	struct ipc_pair h[] = { { "a", "1" }, { "b", "\"\xff" }, { "A", "2" } };
	struct ipc_question q = { .method = "GET", .path = "/x", .user = "alice", .peer = "n1", .headers = { h, 3 } };
	char *text = opa_input(&q);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *input = json_object_get(root, "input");

	(void)state;
	assert_non_null(input);
	assert_string_equal(json_string_value(json_object_get(input, "user")), "alice");
	assert_string_equal(json_string_value(json_object_get(input, "node")), "n1");
	assert_true(json_is_null(json_object_get(input, "authority")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(input, "headers"), "a")), "1, 2");
	assert_null(json_object_get(input, "ip"));
	json_decref(root);
	free(text);
}

static void input_names_the_packet(void **state)
{
	struct ipc_question q = { .user = "alice", .inner = true, .ip_protocol = 6, .ip_source = "10.0.0.1",
		.ip_destination = "2001:db8::1", .ip_port = 80 };
	char *text = opa_input(&q);

	(void)state;
	assert_non_null(strstr(text, "\"ip\":{\"protocol\":6,\"source\":\"10.0.0.1\",\"destination\":\"2001:db8::1\",\"port\":80}"));
	free(text);
}

static struct opa_result parse(const char *text)
{
	struct opa_result r;

	opa_result_parse(text, strlen(text), &r);
	return r;
}

static void results(void **state)
{
	static const char *const refusals[] = { "{}", "{\"result\":false}", "{\"result\":{\"allowed\":false,\"headers\":{\"a\":\"b\"}}}" };
	static const char *const failures[] = { "", "true", "[]", "{\"result\":1}", "{\"result\":{}}", "{\"result\":\"true\"}",
		"{\"result\":null}", "{\"result\":false,\"result\":true}", "{\"result\":true", "{\"result\":true} x",
		"{\"result\":{\"allowed\":\"true\"}}", "{\"result\":{\"allowed\":true,\"headers\":[]}}",
		"{\"result\":{\"allowed\":true,\"headers\":{\"a\":1}}}", "{\"result\":{\"allowed\":true,\"headers\":{\"a b\":\"\"}}}",
		"{\"result\":{\"allowed\":true,\"headers\":{\"\":\"\"}}}", "{\"result\":{\"allowed\":true,\"headers\":{\":path\":\"/\"}}}",
		"{\"result\":{\"allowed\":true,\"headers\":{\"a\":\"b\\r\\nc: d\"}}}",
		"{\"result\":{\"allowed\":true,\"headers\":{\"Content-Length\":\"1\"}}}",
		"{\"result\":{\"allowed\":true,\"headers\":{\"a\":\"b\\u0000\"}}}" };

	(void)state;
	for (size_t i = 0; i < COUNT(refusals); i++) {
		struct opa_result r = parse(refusals[i]);
		assert_true(!r.allowed && !r.failed && !r.n_headers);
	}
	for (size_t i = 0; i < COUNT(failures); i++) {
		struct opa_result r = parse(failures[i]);
		if (r.allowed || !r.failed || r.n_headers)
			fail_msg("%s", failures[i]);
		opa_result_clear(&r);
	}
	assert_true(parse("{\"result\":true,\"decision_id\":\"x\"}").allowed);
	struct opa_result r = parse("{\"result\":{\"allowed\":true,\"headers\":{\"X-Role\":\"boss\",\"b\":\"\"}}}"), copy;
	assert_int_equal(opa_result_copy(&r, &copy), 0);
	opa_result_clear(&r);
	assert_true(copy.allowed && copy.n_headers == 2);
	assert_string_equal(copy.headers[0].name, "x-role");
	assert_string_equal(copy.headers[0].value, "boss");
	opa_result_clear(&copy);
}

static void answers_are_kept_for_a_while(void **state)
{
	struct answers *answers = answers_new();
	struct opa_result yes = { .allowed = true };
	char *key = answers_key("a", "/p", "{}"), name[32];
	uint32_t left;

	(void)state;
	assert_null(answers_get(answers, key, 10, &left));
	answers_put(answers, key, &yes, 10, 100);
	assert_true(answers_get(answers, key, 60, &left)->allowed);
	assert_int_equal(left, 50);
	assert_null(answers_get(answers, key, 110, &left));
	answers_put(answers, key, &yes, 10, 100);
	for (int i = 0; i < ANSWERS_MAX; i++) {
		snprintf(name, sizeof(name), "%d", i);
		answers_put(answers, name, &yes, 10, 100);
	}
	assert_null(answers_get(answers, key, 20, &left));   /* the oldest went */
	assert_non_null(answers_get(answers, "0", 20, &left));
	free(key);
	answers_free(answers);
}

/* --- connections: the test is the supervisor and the authorizer ---------------------------------------------------------- */

static struct event_base *base;
static struct authorizer *authorizer;
static int far_end[16];          /* the authorizer's ends of what was dialled */
static unsigned dialled;
static uint64_t dial_ids[16];
static bool refuse_dials;
static unsigned told, told_yes;
static char told_failed[128];

static int on_dial(void *arg, uint64_t id, const char *address)
{
	(void)arg;
	assert_string_equal(address, "unix:/opa");
	assert_true(dialled < COUNT(dial_ids));
	dial_ids[dialled++] = id;
	return 0;
}

static void on_done(void *arg, const struct opa_result *result)
{
	(void)arg;
	told++;
	told_yes += result->allowed;
	snprintf(told_failed, sizeof(told_failed), "%s", result->failed ? result->failed : "");
}

static void connect_dialled(unsigned i)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	far_end[i] = fds[1];
	assert_true(authorizer_dialed(authorizer, dial_ids[i], refuse_dials ? -1 : fds[0], NULL));
}

static void turn(void)
{
	for (int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void respond(unsigned i, const char *text)
{
	assert_int_equal(write(far_end[i], text, strlen(text)), strlen(text));
	turn();
}

static size_t asked(unsigned i)
{
	char buffer[8192];
	ssize_t n = read(far_end[i], buffer, sizeof(buffer));

	return n > 0 ? (size_t)n : 0;
}

static int setup(void **state)
{
	(void)state;
	base = event_base_new();
	authorizer = authorizer_new(base, "unix:/opa", on_dial, NULL);
	dialled = told = told_yes = 0;
	refuse_dials = false;
	told_failed[0] = 0;
	for (size_t i = 0; i < COUNT(far_end); i++)
		far_end[i] = -1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	authorizer_free(authorizer);
	for (size_t i = 0; i < COUNT(far_end); i++)
		if (far_end[i] >= 0)
			close(far_end[i]);
	event_base_free(base);
	return 0;
}

#define YES "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"result\":true}"

static bool ask(uint32_t timeout)
{
	return authorizer_ask(authorizer, "/v1", "{}", timeout, on_done, NULL);
}

static void one_connection_is_kept(void **state)
{
	(void)state;
	assert_true(ask(60000));
	assert_int_equal(dialled, 1);
	connect_dialled(0);
	assert_true(asked(0) > 0);
	respond(0, YES);
	assert_true(told == 1 && told_yes == 1);
	assert_true(ask(60000));
	assert_true(asked(0) > 0 && dialled == 1);
	respond(0, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"result\":false}");
	assert_true(told == 2 && told_yes == 1 && !*told_failed);
	assert_false(authorizer_dialed(authorizer, 4711, -1, NULL));
}

static void a_closed_idle_connection_costs_nothing(void **state)
{
	(void)state;
	ask(60000);
	connect_dialled(0);
	respond(0, YES);
	asked(0);
	ask(60000);                      /* goes out; its end is closed before a byte came back */
	close(far_end[0]);
	far_end[0] = -1;
	turn();
	assert_int_equal(told, 1);
	assert_int_equal(dialled, 2);
	connect_dialled(1);
	assert_true(asked(1) > 0);
	close(far_end[1]);               /* a second time is a failure */
	far_end[1] = -1;
	turn();
	assert_int_equal(told, 2);
	assert_string_equal(told_failed, "closed the connection before it had answered");
}

static void half_an_answer_is_none(void **state)
{
	(void)state;
	ask(60000);
	connect_dialled(0);
	respond(0, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"result\":t");
	close(far_end[0]);
	far_end[0] = -1;
	turn();
	assert_true(told == 1 && told_yes == 0);
	assert_int_equal(dialled, 1);
}

static void errors_and_nonsense_fail(void **state)
{
	static const char *const bad[] = { "HTTP/1.1 500 No\r\nContent-Length: 15\r\n\r\n{\"result\":true}", "nonsense\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{" };

	(void)state;
	for (unsigned i = 0; i < COUNT(bad); i++) {
		unsigned before = dialled;
		ask(60000);
		if (dialled > before)
			connect_dialled(dialled - 1);
		respond(dialled - 1, bad[i]);
		assert_int_equal(told, i + 1);
		assert_true(*told_failed);
	}
	assert_int_equal(told_yes, 0);
	assert_int_equal(dialled, 2);    /* nonsense cost its connection, a plain 500 did not */
}

static void words_nobody_asked_for_close(void **state)
{
	(void)state;
	ask(60000);
	connect_dialled(0);
	respond(0, YES YES);             /* the second would be the next question's */
	assert_int_equal(told, 1);
	ask(60000);
	assert_int_equal(dialled, 2);
}

static void silence_times_out(void **state)
{
	(void)state;
	ask(1);
	connect_dialled(0);
	while (!told)
		event_base_loop(base, EVLOOP_ONCE);
	assert_string_equal(told_failed, "timeout");
	ask(1);                          /* and while it cannot be reached at all */
	refuse_dials = true;
	assert_int_equal(dialled, 2);
	assert_true(authorizer_dialed(authorizer, dial_ids[1], -1, "refused"));
	while (told < 2)
		event_base_loop(base, EVLOOP_ONCE);
	assert_string_equal(told_failed, "timeout");
	assert_int_equal(dialled, 2);    /* backing off */
	ask(60000);
	assert_int_equal(dialled, 2);
	while (dialled < 3)
		event_base_loop(base, EVLOOP_ONCE);
	refuse_dials = false;
	connect_dialled(2);
	respond(2, YES);
	assert_int_equal(told_yes, 1);
}

static void many_questions(void **state)
{
	(void)state;
	for (unsigned i = 0; i < AUTHORIZER_QUEUE; i++)
		assert_true(ask(60000));
	assert_false(ask(60000));
	assert_int_equal(dialled, AUTHORIZER_CONNECTIONS);
	for (unsigned i = 0; i < AUTHORIZER_CONNECTIONS; i++)
		connect_dialled(i);
	for (unsigned i = 0; told < 100; i = (i + 1) % AUTHORIZER_CONNECTIONS)
		respond(i, YES);
	assert_int_equal(told_yes, 100);
	assert_false(authorizer_idle(authorizer));
	authorizer_free(authorizer);     /* everybody is told */
	authorizer = NULL;
	assert_int_equal(told, AUTHORIZER_QUEUE);
	assert_int_equal(told_yes, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(input_is_json), cmocka_unit_test(input_names_the_packet),
		cmocka_unit_test(results), cmocka_unit_test(answers_are_kept_for_a_while),
		cmocka_unit_test_setup_teardown(one_connection_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(a_closed_idle_connection_costs_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(half_an_answer_is_none, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_and_nonsense_fail, setup, teardown),
		cmocka_unit_test_setup_teardown(words_nobody_asked_for_close, setup, teardown),
		cmocka_unit_test_setup_teardown(silence_times_out, setup, teardown),
		cmocka_unit_test_setup_teardown(many_questions, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
