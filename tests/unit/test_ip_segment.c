/* SPDX-License-Identifier: Apache-2.0 */
/* Large packets cut into small ones. The packets were made with Python's struct and a checksum of its own. */
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
#include "workers/tunnel/ip_segment.h"

#define COUNT(a) (sizeof(a) / sizeof(*(a)))

/* tcp4: 40 bytes to be cut at 16, with a timestamp option; FIN, PSH, ACK, ECE, CWR; sequence and id about to wrap.
 * tcp6: 40 bytes at 20. udp4: 40 bytes at 30. udp6: 40 bytes at 20, the first one's checksum comes to zero. plain: only its
 * checksum is open. */
static const char tcp4[] =
	"4500005cffff400040064e60c0000201c63364079c400050fffffff00000000780d9ffffec8a00000101080a000000010000"
	"0002000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627";
static const char tcp4_0[] =
	"45000044ffff400040064e78c0000201c63364079c400050fffffff00000000780d0ffffb4e500000101080a000000010000"
	"0002000102030405060708090a0b0c0d0e0f";
static const char tcp4_1[] =
	"450000440000400040064e78c0000201c63364079c40005000000000000000078050ffff34d600000101080a000000010000"
	"0002101112131415161718191a1b1c1d1e1f";
static const char tcp4_2[] =
	"4500003c0001400040064e7fc0000201c63364079c40005000000010000000078059ffff60f500000101080a000000010000"
	"00022021222324252627";
static const char tcp6[] =
	"60000000003c064020010db800000000000000000000000120010db800010000000000000000000700010002000000640000"
	"00075018ffff5bbd0000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627";
static const char tcp6_0[] =
	"600000000028064020010db800000000000000000000000120010db800010000000000000000000700010002000000640000"
	"00075010fffff9730000000102030405060708090a0b0c0d0e0f10111213";
static const char tcp6_1[] =
	"600000000028064020010db800000000000000000000000120010db800010000000000000000000700010002000000780000"
	"00075018ffff308f00001415161718191a1b1c1d1e1f2021222324252627";
static const char udp4[] =
	"450000441234400040113c39c0000201c633640703e800350030ec7d000102030405060708090a0b0c0d0e0f101112131415"
	"161718191a1b1c1d1e1f2021222324252627";
static const char udp4_0[] =
	"4500003a1234400040113c43c0000201c633640703e8003500263c67000102030405060708090a0b0c0d0e0f101112131415"
	"161718191a1b1c1d";
static const char udp4_1[] =
	"450000261235400040113c56c0000201c633640703e80035001264c11e1f2021222324252627";
static const char udp6[] =
	"600000000030114020010db800000000000000000000000120010db800010000000000000000000703e8003500305bbc45bb"
	"02030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627";
static const char udp6_0[] =
	"60000000001c114020010db800000000000000000000000120010db800010000000000000000000703e80035001cffff45bb"
	"02030405060708090a0b0c0d0e0f10111213";
static const char udp6_1[] =
	"60000000001c114020010db800000000000000000000000120010db800010000000000000000000703e80035001c7cf11415"
	"161718191a1b1c1d1e1f2021222324252627";
static const char plain[] =
	"4500001f1234400040113c5ec0000201c633640703e80035000bec58616263";
static const char plain_done[] =
	"4500001f1234400040113c5ec0000201c633640703e80035000b4b1c616263";

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

struct expected { const char *const *hex; unsigned n, seen; };

static void expect(void *arg, uint8_t *packet, size_t length)
{
	struct expected *e = arg;
	uint8_t want[200];
	size_t n;

	assert_true(e->seen < e->n);
	n = unhex(e->hex[e->seen++], want);
	assert_int_equal(length, n);
	for (size_t i = 0; i < n; i++)
		if (packet[i] != want[i])
			fail_msg("packet %u, byte %zu: %02x, wanted %02x", e->seen, i, packet[i], want[i]);
}

static struct virtio_net_hdr header_of(uint8_t type, uint16_t size, uint16_t start, uint16_t offset)
{
	return (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = type, .hdr_len = start,
		.gso_size = size, .csum_start = start, .csum_offset = offset };
}

static void cut(const char *hex, struct virtio_net_hdr header, const char *const *want, unsigned n)
{
	uint8_t *scratch = malloc(SEGMENT_SCRATCH), bytes[200], *packet;
	size_t length = unhex(hex, bytes);
	struct expected e = { want, n, 0 };
	const char *why;

	packet = malloc(length);
	memcpy(packet, bytes, length);
	why = vnet_check(&header, packet, length);
	if (why)
		fail_msg("%s", why);
	ip_segment(&header, packet, length, scratch, expect, &e);
	assert_int_equal(e.seen, n);
	free(packet);
	free(scratch);
}

static void cuts(void **state)
{
	static const char *const t4[] = { tcp4_0, tcp4_1, tcp4_2 }, *const t6[] = { tcp6_0, tcp6_1 };
	static const char *const u4[] = { udp4_0, udp4_1 }, *const u6[] = { udp6_0, udp6_1 }, *const done[] = { plain_done };

	(void)state;
	cut(tcp4, header_of(VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, 16, 20, 16), t4, 3);
	cut(tcp6, header_of(VIRTIO_NET_HDR_GSO_TCPV6, 20, 40, 16), t6, 2);
	cut(udp4, header_of(VIRTIO_NET_HDR_GSO_UDP_L4, 30, 20, 6), u4, 2);
	cut(udp6, header_of(VIRTIO_NET_HDR_GSO_UDP_L4, 20, 40, 6), u6, 2);
	cut(plain, header_of(VIRTIO_NET_HDR_GSO_NONE, 0, 20, 6), done, 1);
	cut(plain_done, (struct virtio_net_hdr){ 0 }, done, 1);
}

/* One segment, and a checksum that is there already. */
static void nothing_to_cut(void **state)
{
	static const char *const whole[] = { plain_done };

	(void)state;
	cut(plain, header_of(VIRTIO_NET_HDR_GSO_UDP_L4, 3, 20, 6), whole, 1);
	cut(plain, header_of(VIRTIO_NET_HDR_GSO_UDP_L4, 1400, 20, 6), whole, 1);
}

struct sum { size_t payload, packets, end; uint8_t *scratch; };

static void count(void *arg, uint8_t *packet, size_t length)
{
	struct sum *s = arg;
	struct ip_packet ip;

	assert_null(ip_parse(packet, length, &ip));
	assert_int_equal(ip_upper_checksum(&ip, packet + ip.header, length - ip.header), 0);
	assert_ptr_equal(packet, s->scratch + s->end);        /* all of them are there at once */
	s->end += length;
	s->payload += length - 40;
	s->packets++;
}

/* The longest packet there is, in the smallest pieces that fit, and one byte less, which do not. */
static void largest(void **state)
{
	uint8_t *scratch = malloc(SEGMENT_SCRATCH), *packet = calloc(1, 65535);
	struct virtio_net_hdr header = header_of(VIRTIO_NET_HDR_GSO_TCPV4, 14, 20, 16);
	struct sum sum = { .scratch = scratch };
	uint16_t check;

	(void)state;
	memcpy(packet, "\x45\0\xff\xff\0\0\0\0\x40\6\0\0\12\0\0\1\12\0\0\2", 20);
	check = htons(ip_checksum(packet, 20));
	memcpy(packet + 10, &check, 2);
	packet[32] = 0x50;
	assert_null(vnet_check(&header, packet, 65535));
	ip_segment(&header, packet, 65535, scratch, count, &sum);
	assert_int_equal(sum.payload, 65535 - 40);
	assert_int_equal(sum.packets, (65495 + 13) / 14);
	header.gso_size = 13;
	assert_string_equal(vnet_check(&header, packet, 65535), "too many segments");
	free(packet);
	free(scratch);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

static void refuse(const char *hex, struct virtio_net_hdr header, size_t cut_by, const char *want)
{
	uint8_t bytes[200], *packet;
	size_t length = unhex(hex, bytes) - cut_by;
	const char *why;

	packet = malloc(length);
	memcpy(packet, bytes, length);
	why = vnet_check(&header, packet, length);
	free(packet);
	if (!why || strcmp(why, want))
		fail_msg("%s, wanted %s", why ? why : "accepted", want);
}

static void bad_headers(void **state)
{
	enum { T4 = VIRTIO_NET_HDR_GSO_TCPV4, T6 = VIRTIO_NET_HDR_GSO_TCPV6, U = VIRTIO_NET_HDR_GSO_UDP_L4 };
	struct virtio_net_hdr h = header_of(T4, 16, 20, 16);

	(void)state;
	h.hdr_len = 93;
	refuse(tcp4, h, 0, "bad length");
	h.hdr_len = 92, h.flags |= VIRTIO_NET_HDR_F_RSC_INFO;
	refuse(tcp4, h, 0, "bad vnet flags");
	h.flags = 0;
	refuse(tcp4, h, 0, "gso without checksum");
	refuse(tcp4, header_of(T4, 0, 20, 16), 0, "bad gso size");
	refuse(tcp4, header_of(T6, 16, 20, 16), 0, "bad gso type");
	refuse(tcp4, header_of(U, 16, 20, 16), 0, "bad gso type");
	refuse(tcp4, header_of(VIRTIO_NET_HDR_GSO_UDP, 16, 20, 16), 0, "bad gso type");
	refuse(tcp4, header_of(77, 16, 20, 16), 0, "bad gso type");
	refuse(tcp6, header_of(T4, 16, 40, 16), 0, "bad gso type");
	refuse(udp4, header_of(T4, 16, 20, 6), 0, "bad gso type");
	refuse(udp4, header_of(U | VIRTIO_NET_HDR_GSO_ECN, 16, 20, 6), 0, "bad gso type");
	refuse(tcp4, header_of(T4, 16, 20, 16), 1, "truncated");
}

/* Whoever finishes the checksum writes where the header says. */
static void bad_checksum_places(void **state)
{
	static const struct { const char *hex; uint16_t start, offset; } table[] = {
		{ udp4, 0, 12 },                /* over the source address */
		{ udp4, 20, 2 }, { udp4, 20, 0 },       /* over a port */
		{ udp4, 22, 0 }, { udp4, 10, 6 }, { udp4, 20, 47 }, { udp4, 65535, 65535 },
		{ tcp4, 20, 2 }, { tcp4, 20, 6 }, { tcp4, 21, 15 }, { tcp4, 40, 0 },
		{ tcp6, 6, 0 }, { tcp6, 40, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT(table); i++)
		refuse(table[i].hex, (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = table[i].start,
		       .csum_offset = table[i].offset }, 0, "bad checksum offset");
}

/* A packet inside UDP's payload (VXLAN) may have its checksum open. */
static void checksum_inside_payload(void **state)
{
	struct virtio_net_hdr h = header_of(VIRTIO_NET_HDR_GSO_NONE, 0, 36, 6);
	uint8_t packet[100];
	size_t n = unhex(udp4, packet);

	(void)state;
	packet[42] = packet[43] = 0;
	assert_null(vnet_check(&h, packet, n));
	vnet_checksum(&h, packet, n);
	assert_int_equal(ip_checksum(packet + 36, n - 36), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cuts), cmocka_unit_test(nothing_to_cut), cmocka_unit_test(largest),
		cmocka_unit_test(bad_headers), cmocka_unit_test(bad_checksum_places), cmocka_unit_test(checksum_inside_payload),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
