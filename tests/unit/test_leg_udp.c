/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a CONNECT-UDP tunnel: a real socket at one side, a flow of the test's own at the other. */
#include <errno.h>
#include <event2/event.h>
#include <poll.h>
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

#include "workers/tunnel/leg_udp.h"
#include "workers/tunnel/udp_capsule.h"

struct flow { int unused; };

static struct {
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct flow flow;
	struct leg *leg;
	int target;                   /* the socket of the test's */
	unsigned head, writable, finished, gone;
	bool keep;                    /* data is not taken */
	size_t untaken;
	enum flow_error broken;
	char detail[128], text[8192];
	size_t text_length;
	struct capsule_reader reader;
} w;

static bool told(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	(void)arg;
	w.text_length += (size_t)snprintf(w.text + w.text_length, sizeof(w.text) - w.text_length, "%u:%zu", (unsigned)context,
	                                  length);
	if (n > 0)
		w.text_length += (size_t)snprintf(w.text + w.text_length, sizeof(w.text) - w.text_length, "%.*s",
		                                  pieces[n - 1].length < 3 ? (int)pieces[n - 1].length : 3,
		                                  pieces[n - 1].data + (context == 2 ? 2 : 0));
	w.text_length += (size_t)snprintf(w.text + w.text_length, sizeof(w.text) - w.text_length, " ");
	return true;
}

static const struct capsule_callbacks callbacks = {.datagram = told};

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	assert_ptr_equal(flow, &w.flow);
	assert_int_equal(response->status, 200);
	assert_false(end);
	assert_ptr_equal(leg, w.leg);
	w.head++;
	head_free(response);
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	(void)flow;
	size_t bytes = chunks->bytes;
	assert_int_equal(capsule_read(&w.reader, chunks), CAPSULE_OK);
	if (w.keep)
		w.untaken += bytes;
	else
		leg->ops->taken(leg, bytes);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	(void)flow, (void)leg;
	assert_null(trailers);
	w.finished++;
	leg->ops->close(leg, FLOW_NONE);
	w.leg = NULL;
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	(void)flow, (void)leg;
	w.writable++;
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	(void)flow;
	assert_ptr_equal(leg, w.leg);
	w.broken = error;
	snprintf(w.detail, sizeof(w.detail), "%s", detail);
	w.leg = NULL;
}

static void on_gone(void *arg)
{
	(void)arg;
	w.gone++;
}

static struct sockaddr_in local(int fd)
{
	struct sockaddr_in at = {0};
	socklen_t size = sizeof(at);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
	return at;
}

/* Runs what is due, and waits for more up to ms. */
static void turn(unsigned ms)
{
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	event_base_loopexit(w.tunnel.base, &limit);
	event_base_dispatch(w.tunnel.base);
}

/* Until what was told ends with that. */
static void await(const char *tail)
{
	for (unsigned i = 0; i < 500; i++) {
		size_t length = strlen(tail);
		if (w.text_length >= length && strcmp(w.text + w.text_length - length, tail) == 0)
			return;
		turn(10);
	}
	fail_msg("'%s' does not end with '%s'", w.text, tail);
}

static int set_up(void **state)
{
	(void)state;
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, at;
	memset(&w, 0, sizeof(w));
	w.tunnel.base = event_base_new();
	w.tunnel.udp = udp_sender_new();
	w.tunnel.current = &w.generation;
	w.generation.config = &w.config;
	w.config.datagram_queue = 1 << 20;
	w.config.datagram_age = 60000;
	w.reader = (struct capsule_reader){.callbacks = &callbacks};
	w.target = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(w.target, (struct sockaddr *)&any, sizeof(any)), 0);
	struct timeval limit = {.tv_sec = 10};
	setsockopt(w.target, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	at = local(w.target);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(udp_setup(fd, AF_INET, UDP_CONNECTED), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	any = local(fd);
	assert_int_equal(connect(w.target, (struct sockaddr *)&any, sizeof(any)), 0);
	w.leg = udp_leg_new(&w.tunnel, fd, &w.flow, NULL, on_gone, NULL);
	w.leg->ops->head(w.leg, NULL, false);
	assert_int_equal(w.head, 1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	if (w.leg)
		w.leg->ops->close(w.leg, FLOW_CANCELLED);
	assert_int_equal(w.gone, 1);
	close(w.target);
	udp_sender_free(w.tunnel.udp);
	event_base_free(w.tunnel.base);
	assert_true(slab_in_use() <= SLAB_SIZE);
	return 0;
}

static void join(bool segments)
{
	w.leg->ops->joined(w.leg, &(struct join){.fresh = true, .segments = segments});
}

static void give(const void *bytes, size_t length)
{
	struct chunks chunks = {0};
	chunks_copy(&chunks, bytes, length);
	assert_true(w.leg->ops->send(w.leg, &chunks));
	assert_null(chunks.head);
}

static void expect(const char *payload, size_t length)
{
	static char got[70000];
	assert_int_equal(recv(w.target, got, sizeof(got), 0), length);
	assert_memory_equal(got, payload, length);
}

static void expect_none(void)
{
	char got[16];
	assert_int_equal(recv(w.target, got, sizeof(got), MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void datagrams_go_both_ways(void **state)
{
	(void)state;
	join(false);
	give("\0\4\0abc\0\1\0\0\3\0xy", 14);
	expect("abc", 3);
	expect("", 0);
	expect("xy", 2);
	send(w.target, "answer", 6, 0);
	send(w.target, "", 0, 0);
	await("0:6ans 0:0 ");
}

static void contexts_that_are_not_known_are_left_out(void **state)
{
	(void)state;
	join(false);
	give("\0\4\4abc" "\0\5\2\0\1pq" "\x17\3zzz" "\1\0" "\0\2\0w", 6 + 7 + 5 + 2 + 4);
	expect("w", 1);              /* context 2 was not negotiated */
	expect_none();
}

static void runs_go_whole_where_both_ends_take_them(void **state)
{
	(void)state;
	join(true);
	give("\0\x0a\2\0\3aaabbbc", 12);
	expect("aaa", 3);
	expect("bbb", 3);
	expect("c", 1);
	struct udp_sender *sender = udp_sender_new();
	unsigned taken, sent, too_long;
	struct iovec piece = {.iov_base = (void *)(uintptr_t)"ddddeeeeff", .iov_len = 10};
	assert_true(udp_add(sender, NULL, NULL, &piece, 1, 4));
	assert_int_equal(udp_flush(sender, w.target, &taken, &sent, &too_long), 0);
	udp_sender_free(sender);
	await("2:12ddd ");
}

static void what_comes_before_the_tunnel_is_open_waits(void **state)
{
	(void)state;
	send(w.target, "early", 5, 0);
	send(w.target, "later", 5, 0);
	turn(20);
	assert_int_equal(w.text_length, 0);
	join(false);
	await("0:5ear 0:5lat ");
}

static void a_far_side_that_takes_nothing_does_not_stop_the_reading(void **state)
{
	(void)state;
	static char data[1400];
	w.keep = true;
	join(false);
	memset(data, 'x', sizeof(data));
	for (unsigned i = 0; i < 400; i++) {     /* 560 kB: more than the flow gets ahead, less than what may wait */
		send(w.target, data, sizeof(data), 0);
		if (i % 50 == 49)
			turn(5);
	}
	turn(20);
	assert_in_range(w.untaken, 200000, 300000);
	size_t before = w.text_length;
	turn(20);
	assert_int_equal(w.text_length, before);
	w.keep = false;
	w.leg->ops->taken(w.leg, w.untaken);
	unsigned n = 0;
	for (const char *at = w.text; (at = strstr(at, "0:1400xxx ")); at++)
		n++;
	assert_int_equal(n, 400);                /* none was lost, and all came without another one from outside */
}

static void malformed_streams_break_the_flow(void **state)
{
	(void)state;
	static const struct { const char *bytes; size_t length; bool segments; } cases[] = {
		{"\0\0", 2, false}, {"\0\1\x40", 3, false}, {"\0\x80\x01\x00\x09" "\0", 6, false}, {"\0\3\2\0\0", 5, true},
		{"\0\2\2\1", 4, true}, {"\0\4\2\0\0a", 6, true}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (i > 0) {
			tear_down(NULL);
			set_up(NULL);
		}
		join(cases[i].segments);
		give("\0\3\0ok", 5);
		give(cases[i].bytes, cases[i].length);
		give("\0\4\0not", 6);
		assert_int_equal(w.broken, FLOW_NONE);   /* never inside send() */
		turn(10);
		if (i == 2) {                            /* not malformed before it is whole */
			assert_int_equal(w.broken, FLOW_NONE);
			static uint8_t rest[65545];
			give(rest, sizeof(rest) - 7);
			turn(10);
		}
		assert_int_equal(w.broken, FLOW_REQUEST);
		expect("ok", 2);
		expect_none();
	}
}

static void a_payload_of_65527_is_the_longest(void **state)
{
	(void)state;
	static uint8_t payload[UDP_PAYLOAD_MAX + 1];
	struct chunks chunks = {0};
	join(false);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, payload, UDP_PAYLOAD_MAX);   /* too long for IPv4: dropped */
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, "alive", 5);
	assert_true(w.leg->ops->send(w.leg, &chunks));
	expect("alive", 5);
	turn(10);
	assert_int_equal(w.broken, FLOW_NONE);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, payload, UDP_PAYLOAD_MAX + 1);
	assert_true(w.leg->ops->send(w.leg, &chunks));
	turn(10);
	assert_int_equal(w.broken, FLOW_REQUEST);
}

static void an_unreachable_target_breaks_the_flow(void **state)
{
	(void)state;
	join(false);
	close(w.target);
	w.target = -1;
	give("\0\4\0abc", 6);
	for (unsigned i = 0; i < 100 && !w.broken; i++)
		turn(10);
	assert_int_equal(w.broken, FLOW_CONNECT_REFUSED);
	assert_string_equal(w.detail, strerror(ECONNREFUSED));
}

static void an_end_inside_a_capsule_is_malformed(void **state)
{
	(void)state;
	join(false);
	give("\0\4\0ab", 5);
	w.leg->ops->finish(w.leg, NULL);
	turn(10);
	assert_int_equal(w.broken, FLOW_REQUEST);
	expect_none();
}

static void answers_come_for_a_while_after_the_end(void **state)
{
	(void)state;
	join(false);
	give("\0\4\0abc", 6);
	w.leg->ops->finish(w.leg, NULL);
	expect("abc", 3);
	turn(10);
	assert_int_equal(w.finished, 0);
	send(w.target, "late", 4, 0);
	await("0:4lat ");
	for (unsigned i = 0; i < 300 && !w.finished; i++)
		turn(10);
	assert_int_equal(w.finished, 1);
	assert_int_equal(w.broken, FLOW_NONE);
}

/* A UDP socket on loopback never fills up; a Unix one does after some datagrams. */
static void a_full_socket_holds_the_flow(void **state)
{
	(void)state;
	static char data[100], got[200];
	struct chunks chunks = {0};
	int ends[2], small = 1;
	unsigned n = 0;
	w.leg->ops->close(w.leg, FLOW_NONE);
	assert_int_equal(w.gone--, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	w.leg = udp_leg_new(&w.tunnel, ends[0], &w.flow, NULL, on_gone, NULL);
	w.leg->ops->head(w.leg, NULL, false);
	join(false);
	for (unsigned i = 1; i <= 90; i++)       /* growing ones leave one by one */
		capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, data, i);
	assert_true(w.leg->ops->send(w.leg, &chunks));
	assert_true(w.leg->ops->waiting(w.leg) > 0);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, data, 91);
	assert_false(w.leg->ops->send(w.leg, &chunks));
	assert_true(chunks.bytes > 91);
	turn(20);
	assert_int_equal(w.writable, 0);
	for (unsigned i = 0; i < 200 && n < 91; i++) {
		while (recv(ends[1], got, sizeof(got), 0) > 0 && ++n)
			;
		turn(5);
		if (w.writable && chunks.head)
			assert_true(w.leg->ops->send(w.leg, &chunks));
	}
	assert_int_equal(w.writable, 1);
	assert_int_equal(n, 91);
	w.leg->ops->finish(w.leg, NULL);
	for (unsigned i = 0; i < 300 && !w.finished; i++)
		turn(10);
	assert_int_equal(w.finished, 1);
	close(ends[1]);
}

static void another_way_begins_a_new_stream(void **state)
{
	(void)state;
	join(false);
	give("\0\4\0a", 4);              /* the rest is lost with the old way */
	join(true);
	give("\0\4\0abc", 6);
	expect("abc", 3);
	give("\0\5\2\0\1hi", 7);
	expect("h", 1);
	expect("i", 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(datagrams_go_both_ways),
		TEST(contexts_that_are_not_known_are_left_out),
		TEST(runs_go_whole_where_both_ends_take_them),
		TEST(what_comes_before_the_tunnel_is_open_waits),
		TEST(a_far_side_that_takes_nothing_does_not_stop_the_reading),
		TEST(malformed_streams_break_the_flow),
		TEST(a_payload_of_65527_is_the_longest),
		TEST(an_unreachable_target_breaks_the_flow),
		TEST(an_end_inside_a_capsule_is_malformed),
		TEST(answers_come_for_a_while_after_the_end),
		TEST(a_full_socket_holds_the_flow),
		TEST(another_way_begins_a_new_stream),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
