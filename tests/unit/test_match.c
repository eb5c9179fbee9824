/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#include "store/match.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))
#define LIST(...) { .v = (char *[]){ __VA_ARGS__ }, .n = COUNT(((char *[]){ __VA_ARGS__ })) }

static bool meets(const struct config_match *m, const struct match_input *in)
{
	char why[200];
	bool with = match_meets(m, in, why, sizeof(why)), without = match_meets(m, in, NULL, 0);

	assert_int_equal(with, without);
	return with;
}

static void authorities(void **state)
{
	static const struct { const char *pattern, *authority; bool meets; } table[] = {
		{ "video", "video", true }, { "video", "VIDEO", true }, { "VIDEO", "video:8080", true },
		{ "video:80", "video:80", true }, { "video:80", "video", false }, { "video:80", "video:8080", false },
		{ "video", "video.", true }, { "video", "video2", false }, { "video", "xvideo", false },
		{ "*.example.net", "a.example.net", true }, { "*.example.net", "a.b.Example.NET:1", true },
		{ "*.example.net", "example.net", false }, { "*.example.net", ".example.net", false },
		{ "*.example.net", "badexample.net", false },
		{ "*.example.net:443", "a.example.net:443", true }, { "*.example.net:443", "a.example.net", false },
		{ "*", "anything:1", true }, { "*:443", "x:443", true }, { "*:443", "x:80", false },
		{ "[::1]", "[0:0::1]:80", true }, { "[::1]:80", "[::1]", false }, { "[::1]", "[::2]", false },
		{ "10.0.0.1", "10.0.0.1:3306", true }, { "video", "video:99999", false }, { "video", "video:", false },
		{ "video", "", false }, { "video", ":80", false }, { "[::1]", "[::1", false }, { "video", "video:80:90", false },
		{ "2001:db8::1", "[2001:DB8:0::1]:1", true },
		{ "2001:db8::/32", "2001:DB8:0::/32", true }, { "2001:db8::/32", "2001:db8::/33", false },
		{ "2001:db8::/32", "2001:db8::", false }, { "2001:db8::/", "2001:db8::/", false },
		{ "2001:db8::/32x", "2001:db8::/32x", false }, { "10.0.0.0/8", "10.0.0.0/8", true },
		{ "10.0.0.0/8", "10.0.0.0/9", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		if (match_authority(table[i].pattern, table[i].authority) != table[i].meets)
			fail_msg("%s against %s", table[i].authority, table[i].pattern);
}

static void overlong_host_is_none(void **state)
{
	char text[2000], host[MATCH_HOST_MAX];
	int port;

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(match_host(text, host, &port), -1);
	assert_false(match_authority("a", text));
	text[0] = '[';
	text[sizeof(text) - 2] = ']';
	assert_int_equal(match_host(text, host, &port), -1);
}

static void lists_and_methods(void **state)
{
	struct config_match m = { .methods = LIST("GET", "CONNECT-UDP"), .users = LIST("alice", "bob") };
	struct match_input in = { .method = "GET", .user = "bob" };

	(void)state;
	assert_true(meets(&m, &in));
	in.method = "get";
	assert_false(meets(&m, &in));
	in.method = "CONNECT";
	assert_false(meets(&m, &in));
	in.protocol = "connect-udp";
	assert_true(meets(&m, &in));
	in.protocol = "websocket";
	assert_false(meets(&m, &in));
	in.protocol = "connect-udp";
	in.user = NULL;
	assert_false(meets(&m, &in));
	m.users = (struct config_strs)LIST("*");
	assert_false(meets(&m, &in));
	in.user = "anybody";
	assert_true(meets(&m, &in));
	in.user = "Alice";
	m.users = (struct config_strs)LIST("alice");
	assert_false(meets(&m, &in));
}

static void everything_that_is_given_must_hold(void **state)
{
	struct config_match all = { .listeners = LIST("apps"), .identities = LIST("node1"), .schemes = LIST("http") };
	struct match_input in = { .listener = "apps", .peer = "node1", .scheme = "HTTP" };
	struct config_match empty = { 0 };

	(void)state;
	assert_true(meets(&all, &in));
	in.peer = "node2";
	assert_false(meets(&all, &in));
	in.peer = "node1";
	in.listener = NULL;
	assert_false(meets(&all, &in));
	assert_true(meets(&empty, &in));
}

static void paths(void **state)
{
	struct config_string_match v[] = { { .prefix = "/org/" }, { .exact = "/one" } };
	struct config_match m = { .paths = v, .n_paths = 2 };
	static const struct { const char *path; bool meets; } table[] = {
		{ "/org/", true }, { "/org/a", true }, { "/org", false }, { "/one", true }, { "/one?x=1", true },
		{ "/one/", false }, { "/on", false }, { "/%6frg/", false }, { "/x/../org/", false }, { NULL, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		struct match_input in = { .path = table[i].path };
		if (meets(&m, &in) != table[i].meets)
			fail_msg("%s", table[i].path);
	}
}

static void headers(void **state)
{
	struct match_header own[] = { { "token", "user" }, { "Token", "admin" } }, added[] = { { "token", "none" } };
	struct config_header_match want = { .name = "token", .match = { .exact = "admin" } };
	struct config_match m = { .headers = &want, .n_headers = 1 };
	struct match_input in = { .headers = own, .n_headers = 2 };

	(void)state;
	assert_true(meets(&m, &in));
	in.n_headers = 1;
	assert_false(meets(&m, &in));
	want.match = (struct config_string_match){ .prefix = "us" };
	assert_true(meets(&m, &in));
	want.match = (struct config_string_match){ .present = true };
	assert_true(meets(&m, &in));
	want.match = (struct config_string_match){ .absent = true };
	assert_false(meets(&m, &in));
	in.n_headers = 0;
	assert_true(meets(&m, &in));
	/* what a policy added replaces what the request says */
	in = (struct match_input){ .headers = own, .n_headers = 2, .added = added, .n_added = 1 };
	want.match = (struct config_string_match){ .exact = "admin" };
	assert_false(meets(&m, &in));
	want.match = (struct config_string_match){ .exact = "none" };
	assert_true(meets(&m, &in));
}

static void reasons_hide_secrets(void **state)
{
	struct match_header own[] = { { "token", "s3cret" } };
	struct config_header_match want = { .name = "token", .match = { .exact = "0ther" } };
	struct config_match m = { .headers = &want, .n_headers = 1 };
	struct match_input in = { .headers = own, .n_headers = 1 };
	char why[200];

	(void)state;
	assert_false(match_meets(&m, &in, why, sizeof(why)));
	assert_string_equal(why, "header token is present with another value");
	m = (struct config_match){ .methods = LIST("GET", "PUT", "HEAD", "POST", "DELETE") };
	assert_false(match_meets(&m, &in, why, sizeof(why)));
	assert_string_equal(why, "method is none, wants GET or PUT or HEAD or others");
	assert_false(match_meets(&m, &in, why, 10));
	assert_int_equal(strlen(why), 9);
}

static void sources(void **state)
{
	struct config_prefix p = { .bits = 96 + 24 };
	struct config_match m = { .sources = { .v = &p, .n = 1 } };
	struct match_input in = { .has_source = true };

	(void)state;
	assert_true(match_address("192.168.252.0", &p.address));
	assert_true(match_address("192.168.252.77", &in.source));
	assert_true(meets(&m, &in));
	assert_true(match_address("192.168.253.1", &in.source));
	assert_false(meets(&m, &in));
	assert_false(match_address("0300.0250.0374.1", &in.source));
	in.has_source = false;
	assert_false(meets(&m, &in));
}

/* Mon-Fri 08:00-18:00, UTC+1, from 2026-03-29 01:00 UTC on UTC+2 */
static struct config_offset warsaw[] = { { INT64_MIN, 3600 }, { 1774746000, 7200 } };
static struct config_window office = { .days = 0x1f, .from = 480, .to = 1080, .offsets = warsaw, .n_offsets = 2 };

static void windows(void **state)
{
	struct config_window night = { .days = 1 << 4, .from = 22 * 60, .to = 6 * 60 };  /* Friday nights, UTC */
	const int64_t friday = 1767916800;      /* 2026-01-09 00:00 UTC */

	(void)state;
	assert_false(match_window(&office, friday + 7 * 3600 - 1));      /* 07:59:59 in Warsaw */
	assert_true(match_window(&office, friday + 7 * 3600));
	assert_true(match_window(&office, friday + 17 * 3600 - 1));
	assert_false(match_window(&office, friday + 17 * 3600));
	assert_false(match_window(&office, friday + 86400 + 12 * 3600)); /* Saturday */
	assert_true(match_window(&office, 1774850400));                  /* 2026-03-30 06:00 UTC, 08:00 in summer time */
	assert_false(match_window(&office, 1774850400 - 1));
	assert_true(match_window(&night, friday + 23 * 3600));
	assert_true(match_window(&night, friday + 86400 + 5 * 3600));
	assert_false(match_window(&night, friday + 86400 + 6 * 3600));
	assert_false(match_window(&night, friday + 5 * 3600));
	assert_false(match_window(&night, friday + 86400 + 23 * 3600));
}

/* What holds must not change before match_holds_for says so. */
static void holds_for(void **state)
{
	struct config_match m = { .times = &office, .n_times = 1 };
	struct config_match never = { 0 };

	(void)state;
	assert_true(match_holds_for(&never, 0) == INT64_MAX);
	for (int64_t now = 1767916800 - 7 * 86400; now < 1767916800 + 7 * 86400; now += 1777) {
		int64_t n = match_holds_for(&m, now);
		bool is = match_window(&office, now);
		assert_true(n > 0 && n <= 86400);
		for (int64_t t = 0; t < n; t += 59)
			assert_int_equal(match_window(&office, now + t), is);
		assert_int_equal(match_window(&office, now + n - 1), is);
	}
	assert_true(match_holds_for(&m, 1774746000 - 10) == 10);
}

static struct config_prefix network(const char *text)
{
	struct config_prefix p;
	const char *why;

	assert_int_equal(config_prefix_parse(text, &p, &why), 0);
	return p;
}

static void packets(void **state)
{
	struct config_prefix ten = network("10.0.0.0/8"), six = network("2001:db8::/32"), all6 = network("::/0");
	struct { struct config_ip_match m; bool meets[4]; } table[] = {
		/* tcp 10.0.0.1 > 10.0.0.2:80, udp the same to 53, icmp 10.0.0.1 > 192.0.2.1, tcp 2001:db8::1 > ::2 port 80 */
		{ { .present = true }, { true, true, true, true } },
		{ { .protocol = 6 }, { true, false, false, true } },
		{ { .port_low = 80, .port_high = 80 }, { true, false, false, true } },
		{ { .port_low = 1, .port_high = 65535 }, { true, true, false, true } },    /* ICMP has none */
		{ { .port_low = 54, .port_high = 79 }, { false, false, false, false } },
		{ { .destination = { &ten, 1 } }, { true, true, false, false } },
		{ { .source = { &ten, 1 } }, { true, true, true, false } },
		{ { .source = { &six, 1 } }, { false, false, false, true } },
		{ { .source = { &all6, 1 } }, { false, false, false, true } },             /* no network of IPv4 */
	};
	struct match_input in[4] = { { .user = "alice", .authority = "video" }, { 0 }, { 0 }, { 0 } }, none = in[0];

	(void)state;
	in[1] = in[2] = in[3] = in[0];
	assert_true(match_packet(&in[0].ip, true, 6, "10.0.0.1", "10.0.0.2", 80));
	assert_true(match_packet(&in[1].ip, true, 17, "10.0.0.1", "10.0.0.2", 53));
	assert_true(match_packet(&in[2].ip, true, 1, "10.0.0.1", "192.0.2.1", 0));
	assert_true(match_packet(&in[3].ip, true, 6, "2001:db8::1", "2001:db8::2", 80));
	for (size_t i = 0; i < COUNT(table); i++) {
		struct config_match m = { .ip = table[i].m };
		m.ip.present = true;
		for (size_t k = 0; k < 4; k++)
			if (meets(&m, &in[k]) != table[i].meets[k])
				fail_msg("condition %zu, packet %zu", i, k);
		assert_false(meets(&m, &none));         /* of the tunnel itself it never holds */
		m.users = (struct config_strs)LIST("bob");
		assert_false(meets(&m, &in[0]));        /* and everything else must hold as well */
	}
	struct config_match plain = { .users = LIST("alice") };
	assert_true(meets(&plain, &in[0]) && meets(&plain, &none));
}

static void packets_of_questions(void **state)
{
	struct match_packet p;

	(void)state;
	assert_true(match_packet(&p, false, 999, NULL, NULL, 0) && !p.present);
	assert_false(match_packet(&p, true, 6, NULL, "10.0.0.1", 80));
	assert_false(match_packet(&p, true, 6, "10.0.0.1", "name", 80));
	assert_false(match_packet(&p, true, 256, "10.0.0.1", "10.0.0.1", 80));
	assert_false(match_packet(&p, true, 6, "10.0.0.1", "10.0.0.1", 65536));
	assert_true(p.present);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(authorities), cmocka_unit_test(overlong_host_is_none), cmocka_unit_test(lists_and_methods),
		cmocka_unit_test(everything_that_is_given_must_hold), cmocka_unit_test(paths), cmocka_unit_test(headers),
		cmocka_unit_test(reasons_hide_secrets), cmocka_unit_test(sources), cmocka_unit_test(windows),
		cmocka_unit_test(holds_for), cmocka_unit_test(packets), cmocka_unit_test(packets_of_questions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
