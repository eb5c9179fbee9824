/* SPDX-License-Identifier: Apache-2.0 */
/* ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT: RFC 9484 4.7, byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "workers/tunnel/ip_capsule.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* Blanks are for people. */
static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; *hex; hex++) {
		if (*hex == ' ')
			continue;
		assert_int_equal(sscanf(hex, "%2x", &byte), 1);
		out[n++] = (uint8_t)byte;
		hex++;
	}
	return n;
}

static struct in6_addr address(const char *text)
{
	struct in6_addr a;

	assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
	return a;
}

static struct config_prefix prefix(const char *text, uint8_t bits)
{
	return (struct config_prefix){ .address = address(text), .bits = bits };
}

static const char *addresses(const char *hex, bool request, struct ip_assigned *out, unsigned max, unsigned *n)
{
	uint8_t bytes[400], *value;
	size_t length = unhex(hex, bytes);
	const char *why;

	value = malloc(length + 1);
	memcpy(value + 1, bytes, length);
	why = ip_addresses_get(value + 1, length, request, out, max, n);
	free(value);
	return why;
}

static const char *routes(const char *hex, struct ip_route *out, unsigned max, unsigned *n)
{
	uint8_t bytes[400], *value;
	size_t length = unhex(hex, bytes);
	const char *why;

	value = malloc(length + 1);
	memcpy(value + 1, bytes, length);
	why = ip_routes_get(value + 1, length, out, max, n);
	free(value);
	return why;
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

#define V6 "20010db8000000000000000000000000"

static void reads_addresses(void **state)
{
	struct ip_assigned v[4];
	unsigned n;

	(void)state;
	assert_null(addresses("01 04 c0000202 20  4002 06 " V6 " 40", true, v, 4, &n));
	assert_int_equal(n, 2);
	assert_int_equal(v[0].request, 1);
	assert_int_equal(v[0].prefix.bits, 128);
	assert_memory_equal(&v[0].prefix.address, &(struct in6_addr[]){ address("::ffff:192.0.2.2") }, 16);
	assert_int_equal(v[1].request, 2);      /* a varint that is longer than it needs to be */
	assert_int_equal(v[1].prefix.bits, 64);
	assert_memory_equal(&v[1].prefix.address, &(struct in6_addr[]){ address("2001:db8::") }, 16);
	assert_null(addresses("", false, v, 4, &n));          /* all addresses are taken back */
	assert_int_equal(n, 0);
	assert_null(addresses("00 04 00000000 00", false, v, 4, &n));
	assert_int_equal(v[0].prefix.bits, 96);
	assert_null(addresses("05 04 00000000 18", true, v, 4, &n));          /* no preference, but for its length */
	assert_int_equal(v[0].prefix.bits, 120);
}

static void refuses_addresses(void **state)
{
	static const struct { const char *hex; bool request; const char *why; } table[] = {
		{ "01 04 c0000201 18", false, "address bits past the prefix" },
		{ "01 04 c0000201 00", true, "address bits past the prefix" },
		{ "01 06 20010db8000000000000000000000001 7f", false, "address bits past the prefix" },
		{ "01 06 20010db8000000010000000000000000 20", false, "address bits past the prefix" },
		{ "01 04 c0000201 21", false, "prefix too long" }, { "01 06 " V6 " 81", false, "prefix too long" },
		{ "01 05 c0000201 20", false, "bad IP version" }, { "01 00 c0000201 20", false, "bad IP version" },
		{ "01 06 00000000000000000000ffffc0000201 80", false, "IPv4-mapped address" },
		{ "00 04 c0000201 20", true, "address request without an id" },
		{ "", true, "empty address request" },
		{ "01 04 c0000201 20 02 04 c0000202 20 03 04 c0000203 20", false, "too many addresses" },
	};
	static const char whole[] = "4001 06 " V6 " 40";
	struct ip_assigned v[2];
	uint8_t bytes[100];
	unsigned n;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		const char *why = addresses(table[i].hex, table[i].request, v, 2, &n);
		if (!why || strcmp(why, table[i].why))
			fail_msg("%s: %s", table[i].hex, why ? why : "accepted");
		assert_true(n <= 2);
	}
	for (size_t cut = 1; cut < unhex(whole, bytes); cut++)
		assert_string_equal(ip_addresses_get(bytes, cut, false, v, 2, &n), "truncated capsule");
}

static void writes_addresses(void **state)
{
	struct ip_assigned v[] = { { 0, prefix("::ffff:10.8.0.2", 128) }, { 64, prefix("2001:db8::", 64) },
		{ 7, prefix("::ffff:0.0.0.0", 128) } };
	uint8_t out[3 * 34 + 16], want[100];
	size_t n = unhex("00 04 0a080002 20  4040 06 " V6 " 40  07 04 00000000 20", want);

	(void)state;
	assert_int_equal(ip_addresses_put(out, v, 3), n);
	assert_memory_equal(out, want, n);
	assert_int_equal(ip_addresses_put(out, NULL, 0), 0);
}

/* --- routes ------------------------------------------------------------------------------------------------------- */

static void reads_routes(void **state)
{
	struct ip_route v[8];
	unsigned n;

	(void)state;
	assert_null(routes("04 00000000 09ffffff 00  04 0b000000 ffffffff 00  04 0a000000 0a0000ff 06  06 " V6
	                   " 20010db8ffffffffffffffffffffffff 11", v, 8, &n));
	assert_int_equal(n, 4);
	assert_memory_equal(&v[0].to, &(struct in6_addr[]){ address("::ffff:9.255.255.255") }, 16);
	assert_int_equal(v[2].protocol, 6);
	assert_memory_equal(&v[3].from, &(struct in6_addr[]){ address("2001:db8::") }, 16);
	assert_int_equal(v[3].protocol, 17);
	assert_null(routes("", v, 8, &n));
	assert_int_equal(n, 0);
	assert_null(routes("04 0a000000 0a000000 00  04 0a000001 0a000001 00", v, 8, &n));     /* neighbours */
	assert_null(routes("04 0a000000 0a000000 06  04 0a000000 0a000000 11", v, 8, &n));     /* one each */
}

static void refuses_routes(void **state)
{
	static const struct { const char *hex, *why; } table[] = {
		{ "04 0a000002 0a000001 00", "route ends before it begins" },
		{ "04 0a000100 0a0001ff 00  04 0a000000 0a0000ff 00", "routes out of order" },
		{ "04 0a000000 0a0000ff 00  04 0a0000ff 0a0001ff 00", "routes overlap" },
		{ "04 0a000000 0a0000ff 00  04 0a000000 0a0000ff 00", "routes overlap" },
		{ "04 0a000000 0a0000ff 00  04 0a000010 0a000020 00", "routes overlap" },
		{ "04 0a000000 0a0000ff 11  04 0b000000 0b0000ff 06", "routes out of order" },
		{ "06 " V6 " " V6 " 00  04 0a000000 0a0000ff 00", "routes out of order" },
		{ "04 0a000000 0a0000ff 00  04 0a000080 0a000080 06", "routes overlap" },       /* TCP inside of all */
		{ "04 0a000000 0a0000ff 00  04 09000000 0b000000 06", "routes overlap" },
		{ "04 09000000 090000ff 00  04 0a000000 0a0000ff 00  04 0b000000 0b0000ff 00  04 0a0000ff 0a0000ff 84",
		  "routes overlap" },
		{ "04 0a000000 0a0000ff 00  06 " V6 " " V6 " 00  06 " V6 " " V6 " 06", "routes overlap" },
		{ "05 0a000000 0a0000ff 00", "bad IP version" },
		{ "06 00000000000000000000ffffc0000201 20010db8000000000000000000000000 00", "IPv4-mapped address" },
		{ "04 00000000 00000000 00  04 01000000 01000000 00  04 02000000 02000000 00  04 03000000 03000000 00"
		  "04 04000000 04000000 00", "too many routes" },
	};
	struct ip_route v[4];
	uint8_t bytes[100];
	unsigned n;
	size_t length;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		const char *why = routes(table[i].hex, v, 4, &n);
		if (!why || strcmp(why, table[i].why))
			fail_msg("%s: %s", table[i].hex, why ? why : "accepted");
	}
	length = unhex("06 " V6 " " V6 " 00", bytes);
	for (size_t cut = 1; cut < length; cut++)
		assert_string_equal(ip_routes_get(bytes, cut, v, 4, &n), "truncated capsule");
}

static void writes_routes(void **state)
{
	struct config_prefix p[] = { prefix("2001:db8::", 32), prefix("::ffff:10.0.1.0", 120), prefix("::ffff:10.0.0.0", 120),
		prefix("::ffff:10.0.0.16", 124), prefix("::ffff:255.255.255.255", 128), prefix("::ffff:192.0.2.1", 128),
		prefix("2001:db8::1", 128) };
	struct ip_route v[COUNT(p)];
	uint8_t out[COUNT(p) * 34 + 16], want[200];
	size_t n = unhex("04 0a000000 0a0001ff 06  04 c0000201 c0000201 06  04 ffffffff ffffffff 06  06 " V6
	                 " 20010db8ffffffffffffffffffffffff 06", want);
	unsigned read;

	(void)state;
	for (size_t i = 0; i < COUNT(p); i++)
		v[i] = ip_route_of(&p[i], 6);
	assert_int_equal(ip_routes_put(out, v, COUNT(p)), n);
	assert_memory_equal(out, want, n);
	assert_null(ip_routes_get(out, n, v, COUNT(p), &read));
	assert_int_equal(read, 4);
	v[0] = ip_route_of(&(struct config_prefix){ .bits = 0 }, 0);
	v[1] = v[0];
	assert_int_equal(ip_routes_put(out, v, 2), 34);
	assert_int_equal(ip_routes_put(out, v, 0), 0);
	v[0] = ip_route_of(&(struct config_prefix){ .bits = 80 }, 0);   /* ends where the mapped addresses end */
	assert_int_equal(ip_routes_put(out, v, 1), 34);
	assert_null(ip_routes_get(out, 34, v, 1, &read));
}

static void packets_take_routes(void **state)
{
	struct config_prefix p4 = prefix("::ffff:10.0.0.0", 104), p6 = { .bits = 0 };
	struct ip_route tcp = ip_route_of(&p4, IPPROTO_TCP), all = ip_route_of(&p6, 0);
	struct in6_addr in = address("::ffff:10.255.255.255"), out = address("::ffff:11.0.0.0"), v6 = address("2001:db8::1");

	(void)state;
	assert_true(ip_route_has(&tcp, IPPROTO_TCP, &in));
	assert_false(ip_route_has(&tcp, IPPROTO_UDP, &in));
	assert_true(ip_route_has(&tcp, IPPROTO_ICMP, &in));     /* whatever the route says */
	assert_false(ip_route_has(&tcp, IPPROTO_ICMPV6, &in));
	assert_false(ip_route_has(&tcp, IPPROTO_TCP, &out));
	assert_true(ip_route_has(&all, IPPROTO_UDP, &v6));
	assert_false(ip_route_has(&all, IPPROTO_UDP, &in));     /* ::/0 is no way for IPv4 */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_addresses), cmocka_unit_test(refuses_addresses), cmocka_unit_test(writes_addresses),
		cmocka_unit_test(reads_routes), cmocka_unit_test(refuses_routes), cmocka_unit_test(writes_routes),
		cmocka_unit_test(packets_take_routes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
