/* SPDX-License-Identifier: Apache-2.0 */
/* Packets, good and bad. Those in hex, and the ICMP errors about them, were made with Python's struct and a checksum of
 * its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "workers/tunnel/ip_packet.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* 192.0.2.1:40000 > 198.51.100.7:80, SYN, DF, TTL 2, id 0x1234 */
static const char syn4[] =
	"4500002c1234400002067a5cc0000201c63364079c40005000000001000000006002ffff0f590000020405b4";
/* 2001:db8::1 port 5353 > 2001:db8:1::7 port 53, hop limit 9, "abc" */
static const char udp6[] =
	"60000000000b110920010db800000000000000000000000120010db800010000000000000000000714e90035000bcadc6162"
	"63";
/* echo request, id 0xbeef */
static const char ping4[] =
	"450000211234400040013c6cc0000201c63364070800f53cbeef000168656c6c6f";
/* 198.51.100.7 > 192.0.2.1: port unreachable, about 192.0.2.1:1000 > 198.51.100.7:53 UDP, of which 8 bytes are quoted */
static const char unreach4[] =
	"450000381234400040013c55c6336407c0000201030352e400000000450000441234400040113c39c0000201c633640703e8"
	"00350030a5cb";

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = strlen(hex) / 2;
	unsigned byte;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		out[i] = (uint8_t)byte;
	}
	return n;
}

/* RFC 1071, the slow way. */
static uint16_t slow_checksum(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void fix_v4(uint8_t *p)
{
	uint16_t sum;

	p[10] = p[11] = 0;
	sum = slow_checksum(p, (p[0] & 15) * 4u);
	p[10] = (uint8_t)(sum >> 8);
	p[11] = (uint8_t)sum;
}

static void address_is(const struct in6_addr *address, const char *text)
{
	struct in6_addr want;

	assert_int_equal(inet_pton(AF_INET6, text, &want), 1);
	assert_memory_equal(address, &want, 16);
}

/* From memory of just that size, so that the sanitizer sees what is read past it. */
static const char *parse(const uint8_t *p, size_t n, struct ip_packet *ip)
{
	uint8_t *copy = malloc(n ? n : 1);
	const char *why;

	memcpy(copy, p, n);
	why = ip_parse(n ? copy : copy + 1, n, ip);
	free(copy);
	return why;
}

static void reason(const uint8_t *p, size_t n, const char *want)
{
	struct ip_packet ip;
	const char *why = parse(p, n, &ip);

	if (!want)
		assert_null(why);
	else if (!why || strcmp(why, want))
		fail_msg("%s, wanted %s", why ? why : "accepted", want);
}

/* --- what packets say --------------------------------------------------------------------------------------------- */

static void says_ipv4(void **state)
{
	uint8_t p[100];
	size_t n = unhex(syn4, p);
	struct ip_packet ip;

	(void)state;
	assert_null(parse(p, n, &ip));
	assert_true(ip.version == 4 && ip.protocol == IPPROTO_TCP && ip.ttl == 2 && ip.ports && ip.first && !ip.fragment);
	assert_true(ip.dont_fragment && ip.length == 44 && ip.header == 20 && ip.fragment_id == 0x1234);
	assert_true(ip.source_port == 40000 && ip.destination_port == 80);
	address_is(&ip.source, "::ffff:192.0.2.1");
	address_is(&ip.destination, "::ffff:198.51.100.7");
	p[n] = 0xff;                  /* what follows the packet is not part of it */
	assert_null(parse(p, n + 1, &ip));
	assert_int_equal(ip.length, 44);
}

static void says_ipv6(void **state)
{
	uint8_t p[100];
	size_t n = unhex(udp6, p);
	struct ip_packet ip;

	(void)state;
	assert_null(parse(p, n, &ip));
	assert_true(ip.version == 6 && ip.protocol == IPPROTO_UDP && ip.ttl == 9 && ip.ports && ip.dont_fragment && ip.first);
	assert_true(ip.length == 51 && ip.header == 40 && ip.source_port == 5353 && ip.destination_port == 53);
	address_is(&ip.source, "2001:db8::1");
	address_is(&ip.destination, "2001:db8:1::7");
	assert_int_equal(ip_upper_checksum(&ip, p + 40, 11), 0);
}

static void says_icmp(void **state)
{
	uint8_t p[100];
	struct ip_packet ip;

	(void)state;
	assert_null(parse(p, unhex(ping4, p), &ip));
	assert_true(!ip.ports && ip.source_port == 0xbeef && ip.destination_port == 0xbeef && ip.icmp_type == 8);
	assert_false(ip_is_icmp_error(&ip) || ip.quoted.present);
	assert_null(parse(p, unhex(unreach4, p), &ip));
	assert_true(ip_is_icmp_error(&ip) && ip.icmp_type == 3 && ip.icmp_code == 3 && ip.source_port == 0);
	assert_true(ip.quoted.present && ip.quoted.protocol == IPPROTO_UDP && ip.quoted.source_port == 1000 &&
	            ip.quoted.destination_port == 53);
	address_is(&ip.quoted.source, "::ffff:192.0.2.1");
	p[20] = 0;                    /* an echo reply reports on nothing */
	assert_null(parse(p, 56, &ip));
	assert_false(ip_is_icmp_error(&ip) || ip.quoted.present);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

static void bad_lengths(void **state)
{
	uint8_t p[200] = {0};
	size_t n = unhex(syn4, p);

	(void)state;
	for (size_t i = 0; i < n; i++)
		reason(p, i, "truncated");
	p[3] = 19, fix_v4(p);
	reason(p, n, "bad length");   /* shorter than its header */
	p[3] = 39, fix_v4(p);
	reason(p, n, "truncated");    /* no room for TCP's header */
	unhex(syn4, p), p[0] = 0x44, fix_v4(p);
	reason(p, n, "bad length");
	unhex(syn4, p), p[0] = 0x4f;
	reason(p, n, "bad length");
	unhex(syn4, p), p[0] = 0x55;
	reason(p, n, "bad version");
	unhex(syn4, p), p[15] ^= 1;
	reason(p, n, "bad checksum");
	n = unhex(udp6, p);
	for (size_t i = 0; i < n; i++)
		reason(p, i, "truncated");
	p[5] = 7;
	reason(p, n, "truncated");
	p[4] = 1;
	reason(p, n, "truncated");
}

static void ttl(void **state)
{
	static const char *const wraps[][2] = { /* checksums at the corners of RFC 1624: 0xff00, 0xfeff */
		{ "450000144f9c40004011ff00c0000201c6336407", "0001" }, { "450000144f9d40004011feffc0000201c6336407", "0000" } };
	uint8_t p[100], sum[2];
	struct ip_packet ip;
	size_t n = unhex(syn4, p);

	(void)state;
	assert_null(parse(p, n, &ip));
	assert_true(ip_decrement_ttl(p, &ip));
	assert_int_equal(p[8], 1);
	assert_int_equal(slow_checksum(p, 20), 0);
	assert_false(ip_decrement_ttl(p, &ip));
	assert_int_equal(p[8], 1);
	p[8] = 0, fix_v4(p);
	assert_false(ip_decrement_ttl(p, &ip));
	reason(p, n, NULL);
	for (size_t i = 0; i < COUNT(wraps); i++) {
		unhex(wraps[i][0], p);
		unhex(wraps[i][1], sum);
		assert_true(ip_decrement_ttl(p, &ip));
		assert_memory_equal(p + 10, sum, 2);
	}
	n = unhex(udp6, p);
	assert_null(parse(p, n, &ip));
	for (int left = 8; left >= 1; left--) {
		assert_true(ip_decrement_ttl(p, &ip));
		assert_int_equal(p[7], left);
	}
	assert_false(ip_decrement_ttl(p, &ip));
	assert_int_equal(p[7], 1);
}

/* A UDP packet of `options`, padded to 4 bytes. */
static size_t with_options(uint8_t *p, const uint8_t *options, size_t n)
{
	memset(p, 0, 100);
	unhex(ping4, p);
	p[0] = (uint8_t)(0x45 + n / 4);
	p[3] = (uint8_t)(28 + n);
	p[9] = IPPROTO_UDP;
	memcpy(p + 20, options, n);
	fix_v4(p);
	return 28 + n;
}

static void ipv4_options(void **state)
{
	static const struct { uint8_t bytes[8]; const char *why; } table[] = {
		{ { 1, 1, 0, 0xff }, NULL }, { { 148, 4, 0, 0 }, NULL }, { { 7, 7, 4, 0, 0, 0, 0, 1 }, NULL },
		{ { 131, 7, 4, 10, 0, 0, 1, 0 }, "source route" }, { { 1, 137, 7, 4, 10, 0, 0, 1 }, "source route" },
		{ { 7, 0, 0, 0 }, "bad options" }, { { 7, 1, 0, 0 }, "bad options" }, { { 7, 9, 0, 0 }, "bad options" },
		{ { 1, 1, 1, 1, 1, 1, 1, 7 }, "bad options" }, { { 0, 131, 7, 4 }, NULL },
	};
	uint8_t p[100];

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		reason(p, with_options(p, table[i].bytes, 8), table[i].why);
}

/* Sets flags and offset (in units of 8), and a payload of n bytes of the protocol. */
static size_t fragment(uint8_t *p, uint8_t protocol, bool more, unsigned offset, size_t n)
{
	memset(p, 0, 2000);
	unhex(ping4, p);
	p[2] = (uint8_t)((20 + n) >> 8), p[3] = (uint8_t)(20 + n);
	p[6] = (uint8_t)((more ? 0x20 : 0) | offset >> 8), p[7] = (uint8_t)offset;
	p[9] = protocol;
	fix_v4(p);
	return 20 + n;
}

static void ipv4_fragments(void **state)
{
	static const struct { uint8_t protocol; bool more; unsigned offset; size_t n; const char *why; } table[] = {
		{ IPPROTO_UDP, true, 0, 8, NULL }, { IPPROTO_UDP, true, 1, 8, NULL }, { IPPROTO_UDP, false, 1, 1, NULL },
		{ IPPROTO_TCP, true, 0, 24, NULL }, { IPPROTO_TCP, true, 3, 8, NULL },
		{ IPPROTO_TCP, true, 0, 16, "tiny fragment" },         /* RFC 1858: the flags come with the next one */
		{ IPPROTO_TCP, true, 1, 40, "tiny fragment" },         /* writes over them */
		{ IPPROTO_TCP, false, 2, 4, "tiny fragment" },
		{ IPPROTO_SCTP, true, 1, 8, "tiny fragment" },
		{ IPPROTO_UDP, true, 0, 12, "bad fragment" }, { IPPROTO_UDP, true, 4, 0, "bad fragment" },
		{ IPPROTO_UDP, false, 4, 0, "bad fragment" },
		{ IPPROTO_ICMP, false, 8190, 100, "bad fragment" },    /* ends past 65,535 bytes: the ping of death */
		{ IPPROTO_ICMP, false, 8189, 23, NULL },
	};
	uint8_t p[2000];
	struct ip_packet ip;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		reason(p, fragment(p, table[i].protocol, table[i].more, table[i].offset, table[i].n), table[i].why);
	assert_null(parse(p, fragment(p, IPPROTO_UDP, true, 0, 16), &ip));
	assert_true(ip.fragment && ip.first && ip.ports);
	assert_null(parse(p, fragment(p, IPPROTO_UDP, false, 2, 16), &ip));
	assert_true(ip.fragment && !ip.first && !ip.ports && !ip.destination_port && ip.fragment_id == 0x1234);
}

/* udp6 with the extension headers `hex` before UDP, the first of type next; the last one's next header is set by the caller. */
static size_t with_extensions(uint8_t *p, uint8_t next, const char *hex)
{
	uint8_t extensions[600];
	size_t n = unhex(hex, extensions);

	unhex(udp6, p);
	memmove(p + 40 + n, p + 40, 11);
	memcpy(p + 40, extensions, n);
	p[6] = next;
	p[4] = (uint8_t)((11 + n) >> 8);
	p[5] = (uint8_t)(11 + n);
	return 51 + n;
}

static void ipv6_extensions(void **state)
{
	static const struct { uint8_t next; const char *hex, *why; } table[] = {
		{ 0, "1100050200000100", NULL },                        /* hop-by-hop: router alert, Pad1, then UDP */
		{ 60, "1100010400000000", NULL },                       /* destination options: PadN */
		{ 0, "3c00010400000000" "1100010400000000", NULL },
		{ 60, "0000010400000000" "1100010400000000", "extension header" },   /* hop-by-hop is the first or none */
		{ 0, "11000602000001ff", "bad options" },               /* an option past the header's end */
		{ 60, "11000106000000ff", "bad options" },
		{ 0, "1100c20400010000", "bad length" },                /* jumbogram */
		{ 60, "1102c910" "20010db8000000000000000000000bad" "01020000", "home address" },
		{ 43, "1100000000000000", "routing header" },           /* type 0 */
		{ 43, "1102000100000000" "20010db8000000000000000000000bad", "routing header" },
		{ 43, "1102020100000000" "20010db8000000000000000000000bad", "routing header" },   /* type 2, one left */
		{ 43, "1102020000000000" "20010db8000000000000000000000bad", NULL },               /* followed to its end */
		{ 43, "11ff020000000000", "truncated" },
		{ 51, "11020000" "0000000100000001" "deadbeef", NULL }, /* AH */
		{ 51, "1100000000000001", "bad length" },
		{ 135, "1100000000000000", "extension header" }, { 139, "1100000000000000", "extension header" },
		{ 140, "1100000000000000", "extension header" }, { 253, "1100000000000000", "extension header" },
		{ 254, "1100000000000000", "extension header" },
		{ 44, "1100000000000001", NULL },                       /* atomic fragment (RFC 6946) */
		{ 44, "3c00000000000001" "1100010400000000", NULL },
		{ 44, "1100000100000001", "bad fragment" },             /* more to come, 11 bytes */
		{ 44, "2c00000000000001" "1100000000000001", "bad fragment" },
		{ 44, "3c00000100000001" "1100010400000000", "bad fragment" },   /* hides UDP from who sees the second one */
		{ 44, "1100000900000001", "bad fragment" },
		{ 44, "1100000800000001", NULL },                       /* the last one, at 8 */
		{ 44, "0600000800000001", "tiny fragment" },            /* inside TCP's header */
		{ 44, "1100fff800000001", "bad fragment" },             /* ends past 65,535 */
	};
	uint8_t p[700];

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		reason(p, with_extensions(p, table[i].next, table[i].hex), table[i].why);
}

/* Eight pass, nine do not, and one that says to end past the packet is not followed. */
static void chains_of_extensions(void **state)
{
	char hex[16 * 9 + 1] = "";
	uint8_t p[700];
	struct ip_packet ip;

	(void)state;
	for (int i = 0; i < 7; i++)
		strcat(hex, "3c00010400000000");
	strcat(hex, "1100010400000000");
	assert_null(parse(p, with_extensions(p, 60, hex), &ip));
	assert_true(ip.protocol == IPPROTO_UDP && ip.header == 40 + 64 && ip.destination_port == 53);
	strcpy(hex + 16 * 7, "3c00010400000000" "1100010400000000");
	reason(p, with_extensions(p, 60, hex), "extension header");
	reason(p, with_extensions(p, 60, "1103010400000000"), "truncated");
	reason(p, with_extensions(p, 59, ""), NULL);            /* no next header: a packet of nothing */
	for (size_t n = 40; n <= 64; n++) {                     /* cut anywhere before the end of UDP's header */
		with_extensions(p, 0, "3c00010400000000" "1100010400000000");
		p[5] = (uint8_t)(n - 40);
		reason(p, n, n < 64 ? "truncated" : NULL);
	}
}

static void mapped_addresses(void **state)
{
	uint8_t p[100];
	size_t n = unhex(udp6, p);

	(void)state;
	memcpy(p + 8, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\1", 16);
	reason(p, n, "mapped address");
}

static void link_local(void **state)
{
	static const struct { const char *text; bool is; } table[] = {
		{ "::ffff:169.254.1.1", true }, { "::ffff:224.0.0.251", true }, { "fe80::1", true }, { "febf::1", true },
		{ "ff02::1", true }, { "::ffff:169.255.1.1", false }, { "::ffff:224.0.1.1", false }, { "fec0::1", false },
		{ "ff05::1", false }, { "2001:db8::1", false },
	};
	struct in6_addr a;

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		inet_pton(AF_INET6, table[i].text, &a);
		if (ip_link_local(&a) != table[i].is)
			fail_msg("%s", table[i].text);
	}
}

/* --- ICMP errors -------------------------------------------------------------------------------------------------- */

static struct in6_addr own4, own6;

static int owns(void **state)
{
	(void)state;
	inet_pton(AF_INET6, "::ffff:192.0.2.254", &own4);
	inet_pton(AF_INET6, "2001:db8::ff", &own6);
	return 0;
}

static size_t error_about(uint8_t *out, enum ip_icmp kind, uint32_t mtu, const uint8_t *p, size_t n)
{
	struct ip_packet ip;

	assert_null(ip_parse(p, n, &ip));
	return ip_icmp_error(out, kind, mtu, p, n, &ip, ip.version == 4 ? &own4 : &own6);
}

static void errors_whole(void **state)
{
	static const char exceeded4[] =
		"45c00048000040004001b4f5c00002fec00002010b00e15a000000004500002c1234400002067a5cc0000201c63364079c40"
		"005000000001000000006002ffff0f590000020405b4";
	static const char prohibited6[] =
		"60000000003b3a4020010db80000000000000000000000ff20010db80000000000000000000000010101311f000000006000"
		"0000000b110920010db800000000000000000000000120010db800010000000000000000000714e90035000bcadc616263";
	uint8_t p[100], want[200], out[IP_ICMP_MAX];
	size_t n;

	(void)state;
	n = unhex(syn4, p);
	p[n] = 0xee;                  /* behind the packet: not quoted */
	assert_int_equal(error_about(out, IP_TIME_EXCEEDED, 0, p, n + 1), unhex(exceeded4, want));
	assert_memory_equal(out, want, sizeof(exceeded4) / 2);
	n = unhex(udp6, p);
	assert_int_equal(error_about(out, IP_PROHIBITED, 0, p, n), unhex(prohibited6, want));
	assert_memory_equal(out, want, sizeof(prohibited6) / 2);
}

/* 1,500 bytes: 576 are told of IPv4, 1,280 of IPv6. */
static void errors_cut(void **state)
{
	uint8_t p[1500], want[48], out[IP_ICMP_MAX];

	(void)state;
	unhex("450005dc12344000401136a1c0000201c63364070001000205c882bc", p);
	for (size_t i = 28; i < 1500; i++)
		p[i] = (uint8_t)(i - 28);
	assert_int_equal(error_about(out, IP_TOO_BIG, 1400, p, 1500), 576);
	assert_memory_equal(out + 10, "\xb2\xfd", 2);
	unhex("0304e26c00000578", want);
	assert_memory_equal(out + 20, want, 8);
	assert_memory_equal(out + 28, p, 548);
	unhex("6000000005b4114020010db800000000000000000000000120010db80001000000000000000000070001000205b42cc9", p);
	for (size_t i = 48; i < 1500; i++)
		p[i] = (uint8_t)(i - 48);
	assert_int_equal(error_about(out, IP_TOO_BIG, 1400, p, 1500), 1280);
	unhex("0200c7fb00000578", want);
	assert_memory_equal(out + 40, want, 8);
	assert_memory_equal(out + 48, p, 1232);
}

static void error_kinds(void **state)
{
	static const struct { enum ip_icmp kind; uint8_t v4[2], v6[2]; } table[] = {
		{ IP_TIME_EXCEEDED, { 11, 0 }, { 3, 0 } }, { IP_TOO_BIG, { 3, 4 }, { 2, 0 } }, { IP_NO_ROUTE, { 3, 0 }, { 1, 0 } },
		{ IP_PROHIBITED, { 3, 13 }, { 1, 1 } }, { IP_ADDRESS_UNREACHABLE, { 3, 1 }, { 1, 3 } },
		{ IP_SOURCE_POLICY, { 3, 13 }, { 1, 5 } },
	};
	uint8_t p4[100], p6[100], out[IP_ICMP_MAX];
	size_t n4 = unhex(syn4, p4), n6 = unhex(udp6, p6);

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++) {
		assert_int_equal(error_about(out, table[i].kind, 1280, p4, n4), 72);
		assert_memory_equal(out + 20, table[i].v4, 2);
		assert_int_equal(slow_checksum(out, 20), 0);
		assert_int_equal(slow_checksum(out + 20, 52), 0);
		assert_int_equal(error_about(out, table[i].kind, 1280, p6, n6), 99);
		assert_memory_equal(out + 40, table[i].v6, 2);
	}
}

/* RFC 1122 3.2.2, RFC 4443 2.4: no error about errors, groups, later fragments, or nobody's packets. */
static void errors_not_sent(void **state)
{
	static const uint8_t sources[][4] = { { 0, 0, 0, 0 }, { 127, 0, 0, 1 }, { 224, 0, 0, 1 }, { 255, 255, 255, 255 } };
	static const char *const sources6[] = { "::", "::1", "ff02::1" };
	uint8_t p[2000], out[IP_ICMP_MAX];
	struct ip_packet ip;
	size_t n = unhex(syn4, p);

	(void)state;
	for (size_t i = 0; i < COUNT(sources); i++) {
		memcpy(p + 12, sources[i], 4), fix_v4(p);
		assert_int_equal(error_about(out, IP_NO_ROUTE, 0, p, n), 0);
	}
	unhex(syn4, p), p[16] = 239, fix_v4(p);
	assert_int_equal(error_about(out, IP_TIME_EXCEEDED, 0, p, n), 0);
	unhex(syn4, p);
	assert_null(ip_parse(p, n, &ip));
	assert_int_equal(ip_icmp_error(out, IP_NO_ROUTE, 0, p, n, &ip, &own6), 0);     /* of another family */
	assert_int_equal(error_about(out, IP_NO_ROUTE, 0, p, unhex(unreach4, p)), 0);
	assert_true(error_about(out, IP_NO_ROUTE, 0, p, unhex(ping4, p)) > 0);
	assert_int_equal(error_about(out, IP_NO_ROUTE, 0, p, fragment(p, IPPROTO_UDP, false, 1, 8)), 0);
	assert_true(error_about(out, IP_NO_ROUTE, 0, p, fragment(p, IPPROTO_UDP, true, 0, 8)) > 0);
	n = unhex(udp6, p);
	for (size_t i = 0; i < COUNT(sources6); i++) {
		inet_pton(AF_INET6, sources6[i], p + 8);
		assert_int_equal(error_about(out, IP_NO_ROUTE, 0, p, n), 0);
	}
	unhex(udp6, p), p[24] = 0xff;
	assert_int_equal(error_about(out, IP_NO_ROUTE, 0, p, n), 0);
	assert_true(error_about(out, IP_TOO_BIG, 1280, p, n) > 0);     /* path MTU of groups */
	unhex(udp6, p), p[6] = IPPROTO_ICMPV6, p[40] = 1;
	assert_int_equal(error_about(out, IP_TOO_BIG, 1280, p, n), 0);
	p[40] = 137;
	assert_int_equal(error_about(out, IP_TOO_BIG, 1280, p, n), 0);
	p[40] = 128;
	assert_true(error_about(out, IP_TOO_BIG, 1280, p, n) > 0);
}

/* --- small things ------------------------------------------------------------------------------------------------- */

static void checksums(void **state)
{
	uint8_t p[257];

	(void)state;
	for (size_t i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)(i * 167 + 251);
	for (size_t at = 0; at < 4; at++)
		for (size_t n = 0; n + at <= sizeof(p); n++)
			assert_int_equal(ip_checksum(p + at, n), slow_checksum(p + at, n));
	memset(p, 0xff, sizeof(p));
	assert_int_equal(ip_checksum(p, 256), 0);
}

static void names(void **state)
{
	char out[8];

	(void)state;
	assert_string_equal(ip_protocol_name(IPPROTO_TCP, out), "tcp");
	assert_string_equal(ip_protocol_name(IPPROTO_ICMPV6, out), "icmpv6");
	assert_string_equal(ip_protocol_name(255, out), "255");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(says_ipv4), cmocka_unit_test(says_ipv6), cmocka_unit_test(says_icmp),
		cmocka_unit_test(bad_lengths), cmocka_unit_test(ttl), cmocka_unit_test(ipv4_options),
		cmocka_unit_test(ipv4_fragments), cmocka_unit_test(ipv6_extensions), cmocka_unit_test(chains_of_extensions),
		cmocka_unit_test(mapped_addresses), cmocka_unit_test(link_local), cmocka_unit_test(errors_whole),
		cmocka_unit_test(errors_cut), cmocka_unit_test(error_kinds), cmocka_unit_test(errors_not_sent),
		cmocka_unit_test(checksums), cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, owns, NULL);
}
