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
#include <errno.h>
#include <event2/event.h>

#include "ipc/http_client.h"
#include "ipc/http_reply.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* --- the response ------------------------------------------------------------------------------------------------------ */

static struct http_reply reply = {.body_max = 65536};

/* The state after the text, the same however it is cut. */
static enum http_reply_state feed(const char *text)
{
	size_t length = strlen(text), whole, at = 0;
	enum http_reply_state state;

	http_reply_reset(&reply);
	whole = http_reply_feed(&reply, text, length);
	state = reply.state;
	http_reply_reset(&reply);
	while (at < length && http_reply_feed(&reply, text + at, 1))
		at++;
	assert_int_equal(reply.state, state);
	assert_int_equal(at, whole);
	return state;
}

static void good_responses(void **state)
{
	(void)state;
	assert_int_equal(feed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}extra"), HTTP_DONE);
	assert_string_equal(reply.body, "{}");
	assert_true(reply.keep_alive && reply.status == 200);
	assert_int_equal(feed("HTTP/1.1 200 \r\ntransfer-encoding: Chunked\r\n\r\n1;x=y\r\n{\r\n01\r\n}\r\n0\r\nT: 1\r\n\r\n"),
	                 HTTP_DONE);
	assert_string_equal(reply.body, "{}");
	assert_int_equal(feed("HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n"), HTTP_DONE);
	assert_true(!reply.keep_alive && reply.status == 503 && !reply.n_body);
	assert_int_equal(feed("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length:1 \r\n\r\n1"), HTTP_DONE);
	assert_false(reply.keep_alive);
	assert_int_equal(feed("HTTP/1.1 204 No\r\n\r\n"), HTTP_DONE);
	assert_int_equal(feed("HTTP/1.1 100 Go\r\nContent-Length: 7\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), HTTP_DONE);
	assert_true(reply.status == 200 && reply.n_body == 1);
	assert_int_equal(feed("HTTP/1.1 200 OK\r\n\r\nabc"), HTTP_CLOSE);
	http_reply_eof(&reply);
	assert_true(reply.state == HTTP_DONE && !reply.keep_alive);
	assert_string_equal(reply.body, "abc");
	http_reply_clear(&reply);
}

static void bad_responses(void **state)
{
	static const char *const bad[] = {
		"HTTP/2 200 OK\r\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1 2000\r\n", "HTTP/1.1 200 OK\n", "HTTP/1.1 101 Go\r\n",
		"HTTP/1.1 099 OK\r\n", "\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n", "HTTP/1.1 200 OK\r\n a: b\r\n", "HTTP/1.1 200 OK\r\nab\r\n",
		"HTTP/1.1 200 OK\r\n: b\r\n", "HTTP/1.1 200 OK\r\na: b\rc\r\n", "HTTP/1.1 200 OK\r\na: b\r\n c\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", "HTTP/1.1 200 OK\r\nContent-Length: \r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++)
		if (feed(bad[i]) != HTTP_FAILED || !reply.error || !reply.code)
			fail_msg("accepted: %s", bad[i]);
	http_reply_reset(&reply);
	http_reply_feed(&reply, "HTTP/1.1 200 OK\r\nA\0: b\r\n", 25);
	assert_int_equal(reply.state, HTTP_FAILED);
	assert_int_equal(feed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), HTTP_LENGTH);
	http_reply_eof(&reply);
	assert_true(reply.state == HTTP_FAILED && reply.code == -ECONNRESET);
	http_reply_clear(&reply);
}

static void endless_answers_end(void **state)
{
	static char much[70000];
	size_t n = 0;

	(void)state;
	http_reply_reset(&reply);
	http_reply_feed(&reply, "HTTP/1.1 200 OK\r\n", 17);
	while (reply.state != HTTP_FAILED && n < 100000)
		n += http_reply_feed(&reply, "aaaaaaa: b\r\n", 12);
	assert_true(n <= HTTP_HEAD_MAX);
	http_reply_reset(&reply);
	for (n = 0; reply.state != HTTP_FAILED && n < 100000; n++)
		http_reply_feed(&reply, "a", 1);
	assert_true(n <= HTTP_LINE_MAX + 1);
	http_reply_reset(&reply);
	for (n = 0; reply.state != HTTP_FAILED && n < 1000; n++)    /* interim responses for ever */
		http_reply_feed(&reply, "HTTP/1.1 102 Wait\r\n\r\n", 21);
	assert_true(n < 1000 && reply.code == -EFBIG);
	http_reply_reset(&reply);
	memset(much, 'x', sizeof(much));
	http_reply_feed(&reply, "HTTP/1.1 200 OK\r\n\r\n", 19);
	http_reply_feed(&reply, much, sizeof(much));
	assert_true(reply.state == HTTP_FAILED && reply.code == -EFBIG);
	http_reply_clear(&reply);
}

/* --- the client: the test is the server -------------------------------------------------------------------------------- */

static struct event_base *base;
static struct http_client *client;
static int server;
static unsigned told;
static struct http_answer last;
static char last_body[256], asked[4096], pieces[4096];
static unsigned pieces_wanted;
static bool free_in_piece, ask_again;

static void on_answer(void *arg, const struct http_answer *answer)
{
	(void)arg;
	told++;
	last = *answer;
	snprintf(last_body, sizeof(last_body), "%s", answer->body);
	assert_int_equal(strlen(answer->body), answer->length);
	if (ask_again) {
		ask_again = false;
		assert_int_equal(http_client_request(client, "GET", "h", "/2", NULL, NULL, 0, 1000, NULL, on_answer, NULL), 0);
	}
}

static bool on_piece(void *arg, const char *data, size_t length)
{
	(void)arg;
	snprintf(pieces + strlen(pieces), sizeof(pieces) - strlen(pieces), "[%.*s]", (int)length, data);
	if (free_in_piece) {
		http_client_free(client);
		client = NULL;
	}
	return --pieces_wanted > 0;
}

static int setup(void **state)
{
	int fds[2];

	(void)state;
	base = event_base_new();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	server = fds[1];
	client = http_client_new(base, fds[0], 100);
	told = 0;
	*pieces = 0;
	pieces_wanted = 1000;
	free_in_piece = ask_again = false;
	return client ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	http_client_free(client);
	if (server >= 0)
		close(server);
	event_base_free(base);
	return 0;
}

static void turn(void)
{
	for (int i = 0; i < 5; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void hear(void)
{
	ssize_t n = read(server, asked, sizeof(asked) - 1);

	asked[n > 0 ? n : 0] = 0;
}

static void say(const char *text)
{
	assert_int_equal(write(server, text, strlen(text)), strlen(text));
	turn();
}

static int get(http_piece *piece)
{
	return http_client_request(client, "GET", "host", "/p?q=1", "a: b\r\n", NULL, 0, 60000, piece, on_answer, NULL);
}

static void requests_are_kept_alive(void **state)
{
	(void)state;
	assert_int_equal(get(NULL), 0);
	assert_int_equal(get(NULL), -EBUSY);
	hear();
	assert_string_equal(asked, "GET /p?q=1 HTTP/1.1\r\nHost: host\r\nUser-Agent: hermes/" HERMES_VERSION "\r\na: b\r\n"
	                           "Accept: application/json\r\n\r\n");
	say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
	assert_true(told == 1 && !last.error && last.status == 200 && last.reusable);
	assert_string_equal(last_body, "{}");
	assert_int_equal(http_client_request(client, "POST", "h", "x", NULL, "[1]", 3, 60000, NULL, on_answer, NULL), 0);
	hear();
	assert_non_null(strstr(asked, "POST /x HTTP/1.1\r\nHost: h\r\n"));
	assert_non_null(strstr(asked, "Content-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]"));
	ask_again = true;
	say("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
	assert_true(told == 2 && last.status == 404 && !last.length);
	hear();
	assert_memory_equal(asked, "GET /2 ", 7);
	say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
	assert_true(told == 3 && !last.reusable && !http_client_usable(client));
	assert_int_equal(get(NULL), -ENOTCONN);
	assert_int_equal(http_client_request(client, "GET", "h", "/ HTTP/1.1\r\nEvil: 1", NULL, NULL, 0, 1, NULL, on_answer, NULL),
	                 -ENOTCONN);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	assert_int_equal(http_client_request(client, "GET", "h", "/ HTTP/1.1\r\nEvil: 1", NULL, NULL, 0, 1, NULL, on_answer, NULL),
	                 -EINVAL);
	get(NULL);
	say("nonsense\r\n");
	assert_true(told == 1 && last.error == -EPROTO && last.reason && !last.reusable && !*last_body);
}

static void endings(void **state)
{
	(void)state;
	get(NULL);
	close(server);
	server = -1;
	assert_int_equal(told, 0);
	turn();
	assert_true(told == 1 && last.error == -ENOTCONN && !http_client_usable(client));
	teardown(NULL);
	setup(NULL);
	get(NULL);
	say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12");
	close(server);
	server = -1;
	turn();
	assert_true(told == 1 && last.error == -ECONNRESET);
	teardown(NULL);
	setup(NULL);
	get(NULL);
	hear();                          /* else its end is a reset */
	say("HTTP/1.1 200 OK\r\n\r\n123");
	assert_int_equal(told, 0);
	close(server);
	server = -1;
	turn();
	assert_true(told == 1 && !last.error && !last.reusable && last.length == 3);
	teardown(NULL);
	setup(NULL);
	say("HTTP/1.1 200 OK\r\n\r\n");              /* words that nobody asked for */
	assert_true(!told && !http_client_usable(client));
}

static void silence_times_out(void **state)
{
	(void)state;
	http_client_request(client, "GET", "h", "/", NULL, NULL, 0, 1, NULL, on_answer, NULL);
	while (!told)
		event_base_loop(base, EVLOOP_ONCE);
	assert_true(last.error == -ETIMEDOUT && !http_client_usable(client));
}

static void too_much_ends(void **state)
{
	(void)state;
	get(NULL);
	say("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n");
	assert_true(told == 1 && last.error == -EFBIG);
}

static void streams_come_in_pieces(void **state)
{
	(void)state;
	get(on_piece);
	say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
	for (unsigned i = 0; i < 30; i++)
		say("A\r\n0123456789\r\n");      /* in all more than body_max */
	assert_int_equal(strlen(pieces), 3 + 30 * 12);
	assert_int_equal(told, 0);
	say("0\r\n\r\n");
	assert_true(told == 1 && last.status == 200 && !last.length && last.reusable);
	get(on_piece);
	pieces_wanted = 1;
	say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n");
	assert_true(told == 2 && last.error == -ECANCELED && !http_client_usable(client));
}

static void a_piece_may_free_the_client(void **state)
{
	(void)state;
	get(on_piece);
	free_in_piece = true;
	say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n");
	assert_int_equal(told, 0);
	assert_string_equal(pieces, "[a]");
}

static void what_was_said_before_the_end_is_heard(void **state)
{
	static char body[1u << 20];

	(void)state;
	memset(body, 'x', sizeof(body));
	assert_int_equal(http_client_request(client, "POST", "h", "/", NULL, body, sizeof(body), 60000, NULL, on_answer, NULL), 0);
	say("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
	assert_true(told == 1 && last.status == 413 && !last.reusable && !http_client_usable(client));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_responses), cmocka_unit_test(bad_responses), cmocka_unit_test(endless_answers_end),
		cmocka_unit_test_setup_teardown(requests_are_kept_alive, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(endings, setup, teardown),
		cmocka_unit_test_setup_teardown(silence_times_out, setup, teardown),
		cmocka_unit_test_setup_teardown(too_much_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(streams_come_in_pieces, setup, teardown),
		cmocka_unit_test_setup_teardown(a_piece_may_free_the_client, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_said_before_the_end_is_heard, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
