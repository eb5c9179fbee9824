/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of datagrams over loopback, with the kernel's offload and without. */
#include <errno.h>
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

#include "workers/tunnel/udp_io.h"

struct pair { int a, b; struct sockaddr_storage at_a, at_b; };

static int make_socket(int family, unsigned flags, struct sockaddr_storage *at)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(*at);
	*at = (struct sockaddr_storage){.ss_family = (sa_family_t)family};
	if (family == AF_INET)
		((struct sockaddr_in *)at)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)at)->sin6_addr = in6addr_loopback;
	if (bind(fd, (struct sockaddr *)at, sizeof(*at)) != 0)
		skip();                       /* no IPv6 here */
	assert_int_equal(getsockname(fd, (struct sockaddr *)at, &size), 0);
	assert_int_equal(udp_setup(fd, family, flags), 0);
	return fd;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);
	assert_int_equal(getsockopt(fd, level, name, &value, &size), 0);
	return value;
}

/* RFC 9298 7, 7.1: packets are never cut on the way, and not marked as if their sender knew ECN. */
static void never_cut_and_not_ect(void **state)
{
	struct sockaddr_storage at;
	(void)state;
	int fd = make_socket(AF_INET, UDP_CONNECTED, &at);
	assert_int_equal(option(fd, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DO);
	assert_int_equal(option(fd, IPPROTO_IP, IP_TOS) & 3, 0);
	close(fd);
	fd = make_socket(AF_INET6, UDP_CONNECTED, &at);
	assert_int_equal(option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER), IPV6_PMTUDISC_DO);
	assert_int_equal(option(fd, IPPROTO_IPV6, IPV6_TCLASS) & 3, 0);
	assert_int_equal(option(fd, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DO);      /* mapped addresses */
	close(fd);
}

static socklen_t address_size(const struct sockaddr_storage *at)
{
	return at->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* a is connected to b. */
static struct pair make_pair(int family, unsigned flags)
{
	struct pair p;
	p.b = make_socket(family, flags, &p.at_b);
	p.a = make_socket(family, UDP_CONNECTED, &p.at_a);
	assert_int_equal(connect(p.a, (struct sockaddr *)&p.at_b, address_size(&p.at_b)), 0);
	return p;
}

static void close_pair(struct pair *p)
{
	close(p->a);
	close(p->b);
}

/* All that comes to fd, datagram by datagram: lengths and first bytes as text. */
static void receive_all(int fd, char *text, size_t size, unsigned *messages)
{
	size_t used = 0;
	*text = 0;
	*messages = 0;
	for (struct pollfd wait = {.fd = fd, .events = POLLIN}; poll(&wait, 1, 100) == 1;) {
		struct udp_received in[UDP_BATCH];
		int n = udp_receive(fd, in, UDP_BATCH);
		assert_true(n > 0);
		*messages += (unsigned)n;
		for (int i = 0; i < n; i++) {
			uint32_t at = 0;
			do {
				uint32_t left = in[i].length - at, part = left < in[i].segment ? left : in[i].segment;
				used += (size_t)snprintf(text + used, size - used, "%u%c ", part, part ? in[i].data[at] : '-');
				at += part;
			} while (at < in[i].length);
		}
	}
}

static void add(struct udp_sender *sender, const char *data, size_t length, uint32_t segment)
{
	struct iovec pieces[2] = {{.iov_base = (void *)(uintptr_t)data, .iov_len = length / 3},
	                          {.iov_base = (void *)(uintptr_t)(data + length / 3), .iov_len = length - length / 3}};
	assert_true(udp_add(sender, NULL, NULL, pieces, length ? 2 : 0, segment));
}

static void neighbours_of_one_size_leave_together(int family)
{
	static char a[2000], b[2000], c[2000];
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(family, 0);
	unsigned taken, sent, too_long, messages;
	char text[4096];
	memset(a, 'a', sizeof(a)), memset(b, 'b', sizeof(b)), memset(c, 'c', sizeof(c));
	add(sender, a, 1200, 0);
	add(sender, b, 1200, 0);
	add(sender, c, 900, 0);          /* the shorter one ends a message */
	add(sender, a, 900, 0);
	add(sender, b, 1000, 0);
	add(sender, c, 0, 0);
	add(sender, a, 0, 0);
	add(sender, b, 2000, 300);       /* a run: six and a short one */
	add(sender, c, 200, 0);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(taken, 9);
	assert_int_equal(sent, 15);
	assert_int_equal(too_long, 0);
	receive_all(p.b, text, sizeof(text), &messages);
	assert_string_equal(text, "1200a 1200b 900c 900a 1000b 0- 0- 300b 300b 300b 300b 300b 300b 200b 200c ");
	assert_true(messages <= 7);      /* fewer than datagrams: offload works both ways */
	close_pair(&p);
	udp_sender_free(sender);
}

static void ipv4_batches(void **state)
{
	(void)state;
	neighbours_of_one_size_leave_together(AF_INET);
}

static void ipv6_batches(void **state)
{
	(void)state;
	neighbours_of_one_size_leave_together(AF_INET6);
}

/* Sockets without checksums cannot segment, nor can some routes. */
static void without_offload_datagrams_leave_one_by_one(void **state)
{
	(void)state;
	static char data[4000];
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(AF_INET, 0);
	unsigned taken, sent, too_long, messages;
	char text[4096];
	int one = 1;
	memset(data, 'n', sizeof(data));
	assert_int_equal(setsockopt(p.a, SOL_SOCKET, SO_NO_CHECK, &one, sizeof(one)), 0);
	for (unsigned round = 0; round < 2; round++) {   /* the second time it is known */
		add(sender, data, 50, 0);
		add(sender, data, 1000, 300);
		add(sender, data, 300, 0);
		add(sender, data, 40, 0);
		add(sender, data, 0, 0);
		assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
		assert_int_equal(taken, 5);
		assert_int_equal(sent, 8);
		receive_all(p.b, text, sizeof(text), &messages);
		assert_string_equal(text, "50n 300n 300n 300n 100n 300n 40n 0- ");
	}
	close_pair(&p);
	udp_sender_free(sender);
}

static void full_batches_say_so(void **state)
{
	(void)state;
	static char data[64 * 1024];
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(AF_INET, 0);
	unsigned taken, sent, too_long, n = 0;
	struct iovec piece = {.iov_base = data};
	for (;; n++) {                   /* sizes that do not combine */
		piece.iov_len = 1 + n % 2 * 10 + n;
		if (!udp_add(sender, NULL, NULL, &piece, 1, 0))
			break;
	}
	assert_in_range(n, UDP_BATCH, 2 * UDP_BATCH);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(taken, n);
	/* The longest run that may be added, of the smallest datagrams, and one that is nearly as long as there can be. */
	piece.iov_len = UDP_RUN_MAX;
	assert_true(udp_add(sender, NULL, NULL, &piece, 1, 1));
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(sent, UDP_RUN_MAX);
	piece.iov_len = 65535;
	assert_true(udp_add(sender, NULL, NULL, &piece, 1, 65530));
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(sent, 1);       /* 65,530 do not fit into an IPv4 packet */
	assert_int_equal(too_long, 1);
	close_pair(&p);
	udp_sender_free(sender);
}

static void what_is_too_long_is_dropped_alone(void **state)
{
	(void)state;
	static char data[3 * 65508];
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(AF_INET, 0);
	unsigned taken, sent, too_long, messages;
	char text[4096];
	memset(data, 'x', sizeof(data));
	add(sender, data, 100, 0);
	add(sender, data, 65508, 0);
	add(sender, data, 99, 0);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(sent, 2);
	assert_int_equal(too_long, 1);
	assert_int_equal(taken, 3);
	receive_all(p.b, text, sizeof(text), &messages);
	assert_string_equal(text, "100x 99x ");
	add(sender, data, 65507, 0);     /* the longest */
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	receive_all(p.b, text, sizeof(text), &messages);
	assert_string_equal(text, "65507x ");
	close_pair(&p);
	udp_sender_free(sender);
}

static void a_full_socket_keeps_the_rest(void **state)
{
	(void)state;
	static char data[60000];
	struct udp_sender *sender = udp_sender_new();
	int ends[2], small = 1;
	unsigned taken, sent, too_long, added = 0, got = 0;
	struct udp_kept *kept = NULL;
	/* A UDP socket on loopback never fills up; a Unix one does. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (; added < 20; added++) {    /* growing ones do not combine, which a Unix socket would not undo */
		data[added * 1000] = (char)('A' + added);
		add(sender, data + added * 1000, 500 + added, 0);
	}
	assert_int_equal(udp_flush(sender, ends[0], &taken, &sent, &too_long), -EAGAIN);
	assert_true(taken < added);
	kept = udp_keep(sender);
	assert_non_null(kept);
	for (unsigned rounds = 0; got < added && rounds < 1000; rounds++) {
		char buffer[2000];
		while (recv(ends[1], buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
			assert_int_equal(buffer[0], 'A' + got++);
		if (kept)
			udp_flush_kept(sender, &kept, ends[0], &sent, &too_long);
	}
	assert_int_equal(got, added);
	assert_null(kept);
	close(ends[0]), close(ends[1]);
	udp_sender_free(sender);
}

static void what_the_socket_had_no_room_for_is_told(void **state)
{
	(void)state;
	static char data[1000];
	struct pair p = make_pair(AF_INET, 0);
	struct udp_losses losses = {0};
	struct udp_received in[UDP_BATCH];
	int small = 1, n;
	unsigned got = 0, lost = 0;
	setsockopt(p.b, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(send(p.a, data, sizeof(data), 0), sizeof(data));
	while ((n = udp_receive(p.b, in, UDP_BATCH)) > 0) {
		got += (unsigned)n;
		lost += udp_losses(&losses, in, n);
	}
	assert_true(got < 50);
	assert_int_equal(send(p.a, data, sizeof(data), 0), sizeof(data));   /* it bears the number */
	n = udp_receive(p.b, in, UDP_BATCH);
	assert_int_equal(n, 1);
	lost += udp_losses(&losses, in, n);
	assert_int_equal(lost, 50 - got);
	close_pair(&p);
}

static void unreachable_is_told_once(void **state)
{
	(void)state;
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(AF_INET, 0);
	struct udp_received in[4];
	unsigned taken, sent, too_long;
	close(p.b);
	add(sender, "abc", 3, 0);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	struct pollfd wait = {.fd = p.a, .events = POLLIN};
	assert_int_equal(poll(&wait, 1, 1000), 1);
	assert_int_equal(udp_receive(p.a, in, 4), -ECONNREFUSED);
	assert_int_equal(udp_receive(p.a, in, 4), 0);
	assert_int_equal(poll(&wait, 1, 0), 0);   /* the error queue is empty: no busy loop */
	add(sender, "abc", 3, 0);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), 0);
	assert_int_equal(poll(&wait, 1, 1000), 1);
	add(sender, "abc", 3, 0);
	assert_int_equal(udp_flush(sender, p.a, &taken, &sent, &too_long), -ECONNREFUSED);
	assert_int_equal(poll(&wait, 1, 0), 0);
	close(p.a);
	udp_sender_free(sender);
}

/* From where a peer asked, answers leave. */
static void answers_leave_from_the_address_that_was_asked(void **state)
{
	(void)state;
	struct udp_sender *sender = udp_sender_new();
	struct pair p = make_pair(AF_INET, 0);
	struct sockaddr_in any = {.sin_family = AF_INET}, other = {.sin_family = AF_INET};
	struct sockaddr_storage at;
	socklen_t size = sizeof(at);
	unsigned taken, sent, too_long;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(udp_setup(fd, AF_INET, UDP_PKTINFO), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
	other.sin_port = ((struct sockaddr_in *)&at)->sin_port;
	other.sin_addr.s_addr = htonl(0x7f000063);   /* 127.0.0.99 */
	assert_int_equal(connect(p.a, (struct sockaddr *)&other, sizeof(other)), 0);
	assert_int_equal(send(p.a, "ask", 3, 0), 3);
	struct udp_received in[4];
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&wait, 1, 1000), 1);
	assert_int_equal(udp_receive(fd, in, 4), 1);
	assert_non_null(in[0].from);
	assert_non_null(in[0].to);
	assert_int_equal(((const struct sockaddr_in *)in[0].to)->sin_addr.s_addr, other.sin_addr.s_addr);
	struct iovec piece = {.iov_base = (void *)(uintptr_t)in[0].data, .iov_len = in[0].length};
	assert_true(udp_add(sender, in[0].from, in[0].to, &piece, 1, 0));
	assert_true(udp_add(sender, in[0].from, in[0].to, &piece, 1, 0));
	assert_int_equal(udp_flush(sender, fd, &taken, &sent, &too_long), 0);
	wait.fd = p.a;
	assert_int_equal(poll(&wait, 1, 1000), 1);
	assert_int_equal(udp_receive(p.a, in, 4), 1);   /* p.a is connected to .99: from elsewhere nothing would come */
	assert_int_equal(in[0].length, 6);
	assert_int_equal(in[0].segment, 3);
	close(fd);
	close_pair(&p);
	udp_sender_free(sender);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv4_batches),
		cmocka_unit_test(ipv6_batches),
		cmocka_unit_test(without_offload_datagrams_leave_one_by_one),
		cmocka_unit_test(full_batches_say_so),
		cmocka_unit_test(what_is_too_long_is_dropped_alone),
		cmocka_unit_test(a_full_socket_keeps_the_rest),
		cmocka_unit_test(what_the_socket_had_no_room_for_is_told),
		cmocka_unit_test(unreachable_is_told_once),
		cmocka_unit_test(answers_leave_from_the_address_that_was_asked),
		cmocka_unit_test(never_cut_and_not_ect),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
