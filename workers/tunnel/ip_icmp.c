/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors about packets: ip_icmp_error() of ip_packet.h. */
#include "workers/tunnel/ip_packet.h"

#include <string.h>

#include "workers/tunnel/ip_bytes.h"

static const struct { uint8_t v4_type, v4_code, v6_type, v6_code; } kinds[] = {
	[IP_TIME_EXCEEDED] = { 11, 0, 3, 0 },
	[IP_TOO_BIG] = { 3, 4, 2, 0 },
	[IP_NO_ROUTE] = { 3, 0, 1, 0 },
	[IP_PROHIBITED] = { 3, 13, 1, 1 },
	[IP_ADDRESS_UNREACHABLE] = { 3, 1, 1, 3 },
	[IP_SOURCE_POLICY] = { 3, 13, 1, 5 },
};

/* Whether this address stands for one host, so that it may be told (RFC 1122 3.2.2, RFC 4443 2.4 (e.6)). */
static bool single_host(const struct in6_addr *a)
{
	const uint8_t *b = a->s6_addr;

	if (IN6_IS_ADDR_V4MAPPED(a))
		return b[12] != 0 && b[12] != 127 && b[12] < 224;
	return !IN6_IS_ADDR_UNSPECIFIED(a) && !IN6_IS_ADDR_LOOPBACK(a) && !IN6_IS_ADDR_MULTICAST(a);
}

static bool may_answer(enum ip_icmp kind, const struct ip_packet *ip, const struct in6_addr *own)
{
	bool group = !single_host(&ip->destination) && !IN6_IS_ADDR_UNSPECIFIED(&ip->destination);

	if (!ip->first || !single_host(&ip->source) || ip_is_icmp_error(ip))
		return false;
	if (group && !(ip->version == 6 && kind == IP_TOO_BIG))       /* RFC 4443 2.4 (e.3): the one exception */
		return false;
	return (ip->version == 4) == !!IN6_IS_ADDR_V4MAPPED(own);
}

/* 576 bytes in all (RFC 1812 4.3.2.3). */
static size_t error_v4(uint8_t *out, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                       const struct ip_packet *ip, const struct in6_addr *own)
{
	size_t quote = length < 576 - V4_HEADER - 8 ? length : 576 - V4_HEADER - 8, total = V4_HEADER + 8 + quote;

	memset(out, 0, V4_HEADER + 8);
	out[0] = 0x45;
	out[1] = 0xc0;                /* internetwork control (RFC 1812 4.3.2.5) */
	put16(out + 2, (uint32_t)total);
	out[6] = 0x40;
	out[8] = 64;
	out[9] = IPPROTO_ICMP;
	memcpy(out + 12, own->s6_addr + 12, 4);
	memcpy(out + 16, ip->source.s6_addr + 12, 4);
	put16(out + 10, ip_checksum(out, V4_HEADER));
	out[20] = kinds[kind].v4_type;
	out[21] = kinds[kind].v4_code;
	if (kind == IP_TOO_BIG)
		put16(out + 26, mtu > 65535 ? 65535 : mtu);           /* RFC 1191 4 */
	memcpy(out + V4_HEADER + 8, packet, quote);
	put16(out + 22, ip_checksum(out + V4_HEADER, 8 + quote));
	return total;
}

/* As much as fits the smallest MTU (RFC 4443 2.4 (c)). */
static size_t error_v6(uint8_t *out, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                       const struct ip_packet *ip, const struct in6_addr *own)
{
	size_t quote = length < IP_ICMP_MAX - V6_HEADER - 8 ? length : IP_ICMP_MAX - V6_HEADER - 8;
	struct ip_packet answer = { .version = 6, .protocol = IPPROTO_ICMPV6, .source = *own, .destination = ip->source };

	memset(out, 0, V6_HEADER + 8);
	out[0] = 0x60;
	put16(out + 4, (uint32_t)(8 + quote));
	out[6] = IPPROTO_ICMPV6;
	out[7] = 64;
	memcpy(out + 8, own, 16);
	memcpy(out + 24, &ip->source, 16);
	out[40] = kinds[kind].v6_type;
	out[41] = kinds[kind].v6_code;
	if (kind == IP_TOO_BIG)
		put32(out + 44, mtu);
	memcpy(out + V6_HEADER + 8, packet, quote);
	put16(out + 42, ip_upper_checksum(&answer, out + V6_HEADER, 8 + quote));
	return V6_HEADER + 8 + quote;
}

size_t ip_icmp_error(uint8_t *out, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                     const struct ip_packet *ip, const struct in6_addr *own)
{
	if (!may_answer(kind, ip, own))
		return 0;
	if (length > ip->length)
		length = ip->length;
	return ip->version == 4 ? error_v4(out, kind, mtu, packet, length, ip, own) :
	                          error_v6(out, kind, mtu, packet, length, ip, own);
}
