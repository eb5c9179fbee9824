#include "workers/telemetry/http.h"
#include "workers/telemetry/http_request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the parser ---------------------------------------------------------------------------------------------------- */

static int parse(const char *text, struct http_request *request)
{
	return http_request_parse(text, strlen(text), request);
}

static void good_requests(void **state)
{
	(void)state;
	struct http_request r;
	assert_int_equal(parse("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nmore", &r), 34);
	assert_int_equal(r.method, HTTP_GET);
	assert_int_equal(r.path_length, 8);
	assert_false(r.close);
	assert_false(r.plain);
	assert_true(parse("HEAD http://h:1/health?x HTTP/1.1\r\nhost:a\r\nConnection: foo, Close\r\n\r\n", &r) > 0);
	assert_int_equal(r.method, HTTP_HEAD);
	assert_memory_equal(r.path, "/health", r.path_length);
	assert_true(r.close);
	assert_true(parse("GET / HTTP/1.0\r\n\r\n", &r) > 0);
	assert_true(r.close);
	assert_true(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &r) > 0);
	assert_false(r.close);
	assert_true(parse("OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &r) > 0);
	assert_int_equal(r.method, HTTP_OTHER);
	assert_true(parse("get / HTTP/1.1\r\nHost: a\r\n\r\n", &r) > 0);      /* methods are case-sensitive */
	assert_int_equal(r.method, HTTP_OTHER);
	assert_true(parse("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", &r) > 0);
	assert_int_equal(r.method, HTTP_OTHER);
}

static void bad_requests(void **state)
{
	(void)state;
	static const struct { const char *text; int status; } cases[] = {
		{"GET /\r\n", -400}, {"\r\nGET / HTTP/1.1\r\n", -400}, {"GET  / HTTP/1.1\r\n", -400},
		{"GET / HTTP/1.1 \r\n", -400}, {"G(T / HTTP/1.1\r\n", -400}, {"GET x HTTP/1.1\r\n", -400},
		{"GET / HTTP/2.0\r\n", -505}, {"GET / HTTP/0.9\r\n", -505}, {"GET / http/1.1\r\n", -400},
		{"GET / HTTP/1.1\n", -400}, {"GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", -400}, {"GET / HTTP/1.1\r\n folded\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", -400}, {"GET / HTTP/1.1\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", -400}, {"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", -400},
		{"GET / HTTP/1.1\r\nno colon\r\n\r\n", -400}, {"GET /\x80 HTTP/1.1\r\n", -400},
		{"GET / HTTP/1.1\r\nHost: a\r\n", 0}, {"GE", 0}, {"", 0},
	};
	struct http_request r;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (parse(cases[i].text, &r) != cases[i].status)
			fail_msg("%s: %d, not %d", cases[i].text, parse(cases[i].text, &r), cases[i].status);
	assert_int_equal(http_request_parse("GET /\0 HTTP/1.1\r\n", 17, &r), -400);
}

static void heads_are_bounded(void **state)
{
	(void)state;
	struct http_request r;
	char *big = malloc(HTTP_HEAD_MAX + 100);
	int n = snprintf(big, HTTP_HEAD_MAX, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
	memset(big + n, 'x', HTTP_HEAD_MAX + 100 - (size_t)n);
	assert_int_equal(http_request_parse(big, HTTP_HEAD_MAX - 1, &r), 0);
	assert_int_equal(http_request_parse(big, HTTP_HEAD_MAX, &r), -431);
	memset(big, 'G', HTTP_HEAD_MAX);
	assert_int_equal(http_request_parse(big, HTTP_HEAD_MAX, &r), -431);
	free(big);
}

static void accept_is_weighed(void **state)
{
	(void)state;
	static const struct { const char *accept; bool plain; } cases[] = {
		{"*/*", false}, {"text/plain", true}, {"text/plain;version=0.0.4", true},
		{"application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", false},
		{"application/openmetrics-text;q=0.2, text/plain;q=0.5", true},
		{"text/plain;q=0", false}, {"text/*", true}, {";,=;q=,", false}, {"text/plain;q=abc", true},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char text[256];
		struct http_request r;
		snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: a\r\nAccept: %s\r\n\r\n", cases[i].accept);
		assert_true(parse(text, &r) > 0);
		if (r.plain != cases[i].plain)
			fail_msg("%s", cases[i].accept);
	}
}

/* --- the server ---------------------------------------------------------------------------------------------------- */

struct fixture {
	struct event_base *base;
	struct http_server *server;
	struct regions *regions;
	struct sockaddr_in address;
	bool in_force;
};

static bool some_metrics(void *arg, struct metrics *out)
{
	struct fixture *f = arg;
	*out = (struct metrics){.regions = f->regions};
	return f->in_force;
}

static int bound(struct sockaddr_in *address)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &size), 0);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->base = event_base_new();
	f->regions = regions_new();
	f->in_force = true;
	f->server = http_new(f->base, some_metrics, f);
	assert_int_equal(http_listen(f->server, bound(&f->address)), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	http_free(f->server);
	regions_free(f->regions);
	event_base_free(f->base);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 5; i++)
		event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static int client(struct fixture *f)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&f->address, sizeof(f->address)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* Reads until `wanted` bytes of what ends with `end` are there (or the peer closes: *closed). */
static char *answer(struct fixture *f, int fd, const char *end, bool *closed)
{
	static char buffer[1 << 20];
	size_t length = 0;
	if (closed)
		*closed = false;
	for (int i = 0; i < 10000; i++) {
		turn(f);
		ssize_t n = recv(fd, buffer + length, sizeof(buffer) - 1 - length, 0);
		length += n > 0 ? (size_t)n : 0;
		buffer[length] = '\0';
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			if (closed)
				*closed = true;
			break;
		}
		if (!closed && length >= strlen(end) && !strcmp(buffer + length - strlen(end), end))
			break;
	}
	if (!strstr(buffer, end))
		fail_msg("no %s in: %.500s", end, buffer);
	return buffer;
}

static void ask(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), 0), (ssize_t)strlen(text));
}

static void pages(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	ask(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
	char *text = answer(f, fd, "# EOF\n", NULL);
	assert_non_null(strstr(text, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(text, "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
	ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n");                /* the connection lives on */
	assert_non_null(strstr(answer(f, fd, "ok\n", NULL), "HTTP/1.1 200 "));
	f->in_force = false;
	ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_non_null(strstr(answer(f, fd, "in force\n", NULL), "HTTP/1.1 503 "));
	ask(fd, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
	answer(f, fd, "404 Not Found\n", NULL);
	ask(fd, "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\nConnection: close\r\n\r\n");
	bool closed;
	assert_non_null(strstr(answer(f, fd, "hermes_build_info{", &closed), "text/plain; version=0.0.4"));
	assert_true(closed);
	assert_int_equal(http_connections(f->server), 0);
	close(fd);
}

static void head_has_the_length_and_no_body(void **state)
{
	struct fixture *f = *state;
	int fd = client(f);
	bool closed;
	ask(fd, "HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	char *text = answer(f, fd, "Content-Length: ", &closed);
	assert_true(atoi(strstr(text, "Content-Length: ") + 16) > 500);
	assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
	close(fd);
}

static void refusals_close(void **state)
{
	static const struct { const char *request, *line; } cases[] = {
		{"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 Method Not Allowed\r\n"},
		{"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 400 "},
		{"GET /metrics HTTP/3.1\r\n\r\n", "HTTP/1.1 505 "}, {"\x16\x03\x01\x02\r\n", "HTTP/1.1 400 "},
	};
	struct fixture *f = *state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int fd = client(f);
		bool closed;
		ask(fd, cases[i].request);
		assert_int_equal(strncmp(answer(f, fd, "Connection: close\r\n", &closed), cases[i].line, strlen(cases[i].line)), 0);
		assert_true(closed);
		close(fd);
	}
	int fd = client(f);
	char big[HTTP_HEAD_MAX];
	memset(big, 'x', sizeof(big));
	memcpy(big, "GET / HTTP/1.1\r\nA: ", 19);
	assert_int_equal(send(fd, big, sizeof(big), 0), sizeof(big));
	bool closed;
	answer(f, fd, "HTTP/1.1 431 ", &closed);
	close(fd);
}

static void byte_by_byte_and_pipelined(void **state)
{
	static const char text[] = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
	struct fixture *f = *state;
	int fd = client(f);
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		assert_int_equal(send(fd, text + i, 1, 0), 1);
		turn(f);
	}
	answer(f, fd, "ok\n", NULL);
	for (int i = 0; i < 20; i++)
		ask(fd, text);
	ask(fd, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	bool closed;
	char *all = answer(f, fd, "404 Not Found\n", &closed);
	int n = 0;
	for (char *s = all; (s = strstr(s, "HTTP/1.1 200 OK")); s++)
		n++;
	assert_int_equal(n, 20);
	close(fd);
}

/* Those who connect and say nothing do not keep others out. */
static void idle_connections_make_room(void **state)
{
	struct fixture *f = *state;
	int idle[HTTP_CONNECTIONS_MAX + 10];
	for (size_t i = 0; i < HTTP_CONNECTIONS_MAX + 10; i++) {
		idle[i] = client(f);
		turn(f);
	}
	assert_int_equal(http_connections(f->server), HTTP_CONNECTIONS_MAX);
	int fd = client(f);
	ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	bool closed;
	answer(f, fd, "ok\n", &closed);
	close(fd);
	for (size_t i = 0; i < HTTP_CONNECTIONS_MAX + 10; i++)
		close(idle[i]);
	turn(f);
	assert_int_equal(http_connections(f->server), 0);
}

static void readers_of_the_same_second_share(void **state)
{
	struct fixture *f = *state;
	int fds[20];
	for (int i = 0; i < 20; i++) {
		int small = 4096;
		fds[i] = client(f);
		setsockopt(fds[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		ask(fds[i], "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
	}
	turn(f);
	for (int i = 0; i < 20; i += 2)
		close(fds[i]);                 /* in the middle of the answer */
	turn(f);
	for (int i = 1; i < 20; i += 2) {
		answer(f, fds[i], "# EOF\n", NULL);
		close(fds[i]);
	}
	turn(f);
	assert_int_equal(http_connections(f->server), 0);
}

static void listener_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_in before = f->address;
	int open_one = client(f), keep = bound(&f->address);
	turn(f);
	assert_int_equal(http_listen(f->server, dup(keep)), 0);
	ask(open_one, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
	answer(f, open_one, "ok\n", NULL);         /* what was open stays */
	int fd = client(f);
	ask(fd, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
	answer(f, fd, "ok\n", NULL);
	event_base_loop(f->base, EVLOOP_ONCE);     /* the old socket closes a moment later */
	int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(late, (struct sockaddr *)&before, sizeof(before)), -1);
	assert_int_equal(http_listen(f->server, -1), 0);
	close(late);
	close(fd);
	close(open_one);
	close(keep);
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(http_listen(f->server, pipes[0]), -ENOTSOCK);
	close(pipes[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_requests), cmocka_unit_test(bad_requests), cmocka_unit_test(heads_are_bounded),
		cmocka_unit_test(accept_is_weighed), cmocka_unit_test_setup_teardown(pages, setup, teardown),
		cmocka_unit_test_setup_teardown(head_has_the_length_and_no_body, setup, teardown),
		cmocka_unit_test_setup_teardown(refusals_close, setup, teardown),
		cmocka_unit_test_setup_teardown(byte_by_byte_and_pipelined, setup, teardown),
		cmocka_unit_test_setup_teardown(idle_connections_make_room, setup, teardown),
		cmocka_unit_test_setup_teardown(readers_of_the_same_second_share, setup, teardown),
		cmocka_unit_test_setup_teardown(listener_is_replaced, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
