/* SPDX-License-Identifier: Apache-2.0 */
/* A listener whose queue is full drops every SYN, as a path that is down does: who is watched asks often, and goes on asking; who
 * asks in vain for too long is told. (Outages of open connections: tests/system/test_outages.py.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/hop_watch.h"

static struct event_base *base;
static int listener = -1, fill[4], asker = -1;
static struct sockaddr_in address = {.sin_family = AF_INET};

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int result = connect(fd, (struct sockaddr *)&address, sizeof(address));
	assert_true(fd >= 0 && (result == 0 || errno == EINPROGRESS));
	return fd;
}

static int setup(void **state)
{
	socklen_t length = sizeof(address);
	(void)state;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = 0;
	listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	getsockname(listener, (struct sockaddr *)&address, &length);
	for (unsigned i = 0; i < 4; i++)
		fill[i] = dial();
	asker = dial();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		close(fill[i]);
	close(listener);
	close(asker);
	return 0;
}

static struct tcp_info info_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof(info);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
	return info;
}

static void note(void *arg)
{
	*(bool *)arg = true;
}

/* Until it is lost or was asked for so often; at most 20 s. */
static void run(const bool *lost, unsigned often)
{
	uint64_t until = now_us() + 20000000;
	while (!*lost && info_of(asker).tcpi_retransmits < often && now_us() < until)
		event_base_loop(base, EVLOOP_ONCE);
}

static void asks_often(void **state)
{
	bool lost = false;
	(void)state;
	struct hop_watch *watch = hop_watch_new(base, asker, 1000000, note, &lost);
	uint64_t began = now_us();
	assert_non_null(watch);
	hop_watch_wrote(watch);
	hop_watch_wrote(watch);
	run(&lost, 30);
	assert_false(lost);
	assert_true(info_of(asker).tcpi_retransmits >= 30);    /* by itself the kernel had asked five times in these 20 s */
	assert_true(now_us() - began < 20000000);
	hop_watch_free(watch);
	unsigned timeout = 1;
	socklen_t length = sizeof(timeout);
	getsockopt(asker, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, &length);
	assert_int_equal(timeout, 0);
}

static void gives_up(void **state)
{
	bool lost = false;
	(void)state;
	struct hop_watch *watch = hop_watch_new(base, asker, 500, note, &lost);
	hop_watch_wrote(watch);
	run(&lost, 100000);
	assert_true(lost);
	hop_watch_free(watch);
}

static void is_not_looked_at_without_need(void **state)
{
	bool lost = false;
	int pair[2];
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_null(hop_watch_new(base, pair[0], 500, note, &lost));
	hop_watch_free(NULL);
	close(pair[0]);
	close(pair[1]);
	int fd = dial();
	close(fd);
	struct hop_watch *watch = hop_watch_new(base, fill[0], 500, note, &lost);   /* connected, and nothing to be sent */
	hop_watch_wrote(watch);
	event_base_loop(base, 0);                                                   /* ends: no timer is left */
	assert_false(lost);
	hop_watch_free(watch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(asks_often, setup, teardown),
		cmocka_unit_test_setup_teardown(gives_up, setup, teardown),
		cmocka_unit_test_setup_teardown(is_not_looked_at_without_need, setup, teardown),
	};
	base = event_base_new();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
