#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <netinet/in.h>

#include "workers/tunnel/socks5.h"

struct talk {
	struct socks5 socks;
	uint8_t out[64];
	size_t n_out;
	size_t rest;
};

static void collect(struct talk *t)
{
	memcpy(t->out + t->n_out, t->socks.out, t->socks.out_length);
	t->n_out += t->socks.out_length;
}

/* Feeds in pieces of `step` until there is an event or the bytes are used up. */
static enum socks5_event talk(struct talk *t, const void *data, size_t length, size_t step)
{
	const uint8_t *bytes = data;
	size_t at = 0, used;
	while (at < length) {
		enum socks5_event event = socks5_feed(&t->socks, bytes + at, length - at < step ? length - at : step, &used);
		at += used;
		collect(t);
		t->rest = length - at;
		if (event != SOCKS5_MORE)
			return event;
		assert_true(used > 0 || t->socks.out_length > 0);
	}
	return SOCKS5_MORE;
}

#define TALK(t, text, step) talk(t, text, sizeof(text) - 1, step)

static void connects(void **state)
{
	(void)state;
	static const struct { const char *text; size_t length; const char *authority; } cases[] = {
		{"\x05\x02\x00\x02\x05\x01\x00\x03\x05ViDeO\x00\x50tail", 20, "video:80"},
		{"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\xff\xfftail", 17, "127.0.0.1:65535"},
		{"\x05\x01\x00\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x00\x01tail", 29, "[::1]:1"},
		{"\x05\x01\x00\x05\x01\x00\x03\x03::2\x00\x01tail", 17, "[::2]:1"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t step = 1; step < 40; step++) {
			struct talk t = {0};
			socks5_init(&t.socks, false, false);
			assert_int_equal(talk(&t, cases[i].text, cases[i].length, step), SOCKS5_CONNECT);
			assert_string_equal(t.socks.authority, cases[i].authority);
			assert_int_equal(t.n_out, 2);
			assert_memory_equal(t.out, "\x05\x00", 2);
			assert_true(t.rest <= 4);
		}
}

static void passwords(void **state)
{
	(void)state;
	for (size_t step = 1; step < 40; step++) {
		struct talk t = {0};
		socks5_init(&t.socks, true, true);
		assert_int_equal(TALK(&t, "\x05\x02\x00\x02\x01\x05" "alice\x03" "pw1", step), SOCKS5_AUTH);
		assert_string_equal(t.socks.name, "alice");
		assert_string_equal(t.socks.password, "pw1");
		assert_int_equal(socks5_proved(&t.socks, true), SOCKS5_MORE);
		collect(&t);
		assert_string_equal(t.socks.password, "");
		assert_int_equal(TALK(&t, "\x05\x01\x00\x03\x01x\x00\x50", step), SOCKS5_CONNECT);
		assert_int_equal(t.n_out, 4);
		assert_memory_equal(t.out, "\x05\x02\x01\x00", 4);
	}
	struct talk t = {0};
	socks5_init(&t.socks, true, false);
	assert_int_equal(TALK(&t, "\x05\x01\x02\x01\x01x\x00", 9), SOCKS5_AUTH);
	assert_int_equal(socks5_proved(&t.socks, false), SOCKS5_REFUSED);
	assert_memory_equal(t.socks.out, "\x01\x01", 2);
	/* users exist, but none is needed */
	t = (struct talk){0};
	socks5_init(&t.socks, true, false);
	assert_int_equal(TALK(&t, "\x05\x01\x00", 9), SOCKS5_MORE);
	assert_memory_equal(t.out, "\x05\x00", 2);
}

static void refusals(void **state)
{
	(void)state;
	static const struct { bool passwords, required; const char *text; size_t length; const char *out; size_t n_out; } cases[] = {
		{false, false, "\x04\x01\x00\x50", 4, "", 0}, {false, false, "GET / HTTP/1.1\r\n", 16, "", 0},
		{false, false, "\x05\x01\x02", 3, "\x05\xff", 2}, {false, false, "\x05\x00", 2, "\x05\xff", 2},
		{true, true, "\x05\x01\x00", 3, "\x05\xff", 2},
		{true, true, "\x05\x01\x02\x05", 4, "\x05\x02\x01\x01", 4},
		{true, true, "\x05\x01\x02\x01\x00\x00", 6, "\x05\x02\x01\x01", 4},
		{true, true, "\x05\x01\x02\x01\x01\x00\x00", 7, "\x05\x02\x01\x01", 4},
		{false, false, "\x05\x01\x00\x04", 4, "\x05\x00", 2},
		/* BIND, an unknown command, nonsense */
		{false, false, "\x05\x01\x00\x05\x02\x00\x01\x7f", 8, "\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x04\x00\x01\x7f", 8, "\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x01\x00\x02\x7f", 8, "\x05\x00\x05\x08\x00\x01\0\0\0\0\0\0", 12},
		/* empty name, NUL, bad characters, port 0 */
		{false, false, "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", 10, "\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x01\x00\x03\x02" "a\0\x00\x50", 12, "\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x01\x00\x03\x03" "a@b\x00\x50", 13, "\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x01\x00\x03\x03" "a:b\x00\x50", 13, "\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", 12},
		{false, false, "\x05\x01\x00\x05\x01\x00\x03\x01" "a\x00\x00", 11, "\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0", 12},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t step = 1; step < 20; step++) {
			struct talk t = {0};
			socks5_init(&t.socks, cases[i].passwords, cases[i].required);
			assert_int_equal(talk(&t, cases[i].text, cases[i].length, step), SOCKS5_REFUSED);
			assert_int_equal(t.n_out, cases[i].n_out);
			assert_memory_equal(t.out, cases[i].out, t.n_out);
			assert_non_null(t.socks.why);
		}
}

static void longest_messages(void **state)
{
	(void)state;
	uint8_t methods[257] = {5, 255}, auth[513] = {1, 255}, request[262] = {5, 1, 0, 3, 255};
	struct talk t = {0};
	memset(methods + 2, 2, 255);
	memset(auth + 2, 'u', 255);
	auth[257] = 255;
	memset(auth + 258, 'p', 255);
	memset(request + 5, 'h', 255);
	request[261] = 80;
	socks5_init(&t.socks, true, true);
	assert_int_equal(talk(&t, methods, sizeof(methods), 100), SOCKS5_MORE);
	assert_int_equal(talk(&t, auth, sizeof(auth), 100), SOCKS5_AUTH);
	assert_int_equal(strlen(t.socks.name), 255);
	assert_int_equal(strlen(t.socks.password), 255);
	socks5_proved(&t.socks, true);
	assert_int_equal(talk(&t, request, sizeof(request), 100), SOCKS5_CONNECT);
	assert_int_equal(strlen(t.socks.authority), 258);
}

/* What the client says of its own address is left aside: mostly it is nothing at all. */
static void associates(void **state)
{
	(void)state;
	static const struct { const char *text; size_t length; } cases[] = {
		{"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0", 13}, {"\x05\x01\x00\x05\x03\x00\x01\x7f\0\0\1\x12\x34", 13},
		{"\x05\x01\x00\x05\x03\x00\x03\x00\0\0", 10},
		{"\x05\x01\x00\x05\x03\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 25},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		for (size_t step = 1; step < 30; step++) {
			struct talk t = {0};
			socks5_init(&t.socks, false, false);
			assert_int_equal(talk(&t, cases[i].text, cases[i].length, step), SOCKS5_ASSOCIATE);
			assert_int_equal(t.rest, 0);
		}
}

static void bound_replies(void **state)
{
	uint8_t reply[SOCKS5_REPLY_MAX];
	struct sockaddr_storage address = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
	(void)state;
	*v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(0x1234), .sin_addr = {htonl(0x7f000001)}};
	assert_int_equal(socks5_reply_bound(reply, &address), 10);
	assert_memory_equal(reply, "\x05\x00\x00\x01\x7f\0\0\1\x12\x34", 10);
	*v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(0x1234), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	assert_int_equal(socks5_reply_bound(reply, &address), 22);
	assert_memory_equal(reply, "\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x12\x34", 22);
}

/* RFC 1928 7 */
static void datagrams(void **state)
{
	(void)state;
	static const struct { const char *text; size_t length, header; const char *target; } cases[] = {
		{"\0\0\0\x01\x7f\0\0\1\0\x35query", 15, 10, "127.0.0.1:53"},
		{"\0\0\0\x01\x7f\0\0\1\0\x35", 10, 10, "127.0.0.1:53"},
		{"\0\0\0\x03\x04Name\0\x35q", 12, 11, "name:53"},
		{"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\x35q", 23, 22, "[::1]:53"},
		/* fragments, reserved bytes, unknown kinds, cut short */
		{"\0\0\1\x01\x7f\0\0\1\0\x35query", 15, 0, NULL}, {"\0\0\x80\x01\x7f\0\0\1\0\x35query", 15, 0, NULL},
		{"\0\1\0\x01\x7f\0\0\1\0\x35query", 15, 0, NULL}, {"\0\0\0\x02\x7f\0\0\1\0\x35query", 15, 0, NULL},
		{"\0\0\0\x01\x7f\0\0\1\0", 9, 0, NULL}, {"\0\0\0\x03\x04Name\0", 10, 0, NULL}, {"\0\0\0\x01", 4, 0, NULL},
		{"", 0, 0, NULL}, {"\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0", 21, 0, NULL},
		/* targets that are none */
		{"\0\0\0\x01\x7f\0\0\1\0\0query", 15, 10, NULL}, {"\0\0\0\x03\x00\0\x35q", 8, 7, NULL},
		{"\0\0\0\x03\x03" "a@b\0\x35q", 11, 10, NULL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char target[SOCKS5_AUTHORITY];
		size_t header = socks5_datagram_header((const uint8_t *)cases[i].text, cases[i].length);
		assert_int_equal(header, cases[i].header);
		if (header == 0)
			continue;
		bool ok = socks5_datagram_target((const uint8_t *)cases[i].text, header, target);
		assert_int_equal(ok, cases[i].target != NULL);
		if (ok)
			assert_string_equal(target, cases[i].target);
	}
}

static void codes(void **state)
{
	(void)state;
	static const struct { unsigned status; const char *proxy_status; enum socks5_code code; } cases[] = {
		{200, NULL, SOCKS5_OK}, {502, "n; error=connection_refused", SOCKS5_CONNECTION},
		{502, "n; error=dns_error; details=\"x\"", SOCKS5_HOST}, {403, NULL, SOCKS5_NOT_ALLOWED},
		{502, NULL, SOCKS5_FAILURE}, {504, NULL, SOCKS5_HOST}, {404, "n; error=destination_not_found", SOCKS5_HOST},
		{502, "n; error=destination_ip_unroutable", SOCKS5_NETWORK}, {508, "n; error=proxy_loop_detected", SOCKS5_TTL},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct head *head = head_new();
		head->status = cases[i].status;
		if (cases[i].proxy_status)
			head_add(head, "proxy-status", cases[i].proxy_status);
		assert_int_equal(socks5_code(head), cases[i].code);
		head_free(head);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connects), cmocka_unit_test(passwords), cmocka_unit_test(refusals),
		cmocka_unit_test(longest_messages), cmocka_unit_test(associates), cmocka_unit_test(bound_replies),
		cmocka_unit_test(datagrams), cmocka_unit_test(codes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
