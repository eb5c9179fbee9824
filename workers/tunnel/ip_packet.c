/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_packet.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "workers/tunnel/ip_bytes.h"

#define EXTENSIONS_MAX 8u
#define TCP_HEADER 20u

static void mapped(struct in6_addr *out, const uint8_t *v4)
{
	memset(out->s6_addr, 0, 10);
	memset(out->s6_addr + 10, 0xff, 2);
	memcpy(out->s6_addr + 12, v4, 4);
}

/* --- checksums ---------------------------------------------------------------------------------------------------- */

/* The sum of 16-bit words, as they lie in memory (RFC 1071 2 (B): byte order does not matter to the sum itself), not folded. */
static uint64_t sum_of(const uint8_t *data, size_t length, uint64_t sum)
{
	uint32_t word;
	uint16_t half;

	for (; length >= 16; data += 16, length -= 16) {
		uint32_t words[4];

		memcpy(words, data, sizeof(words));
		sum += (uint64_t)words[0] + words[1] + words[2] + words[3];
	}
	for (; length >= 4; data += 4, length -= 4) {
		memcpy(&word, data, sizeof(word));
		sum += word;
	}
	if (length >= 2) {
		memcpy(&half, data, sizeof(half));
		sum += half;
		data += 2;
		length -= 2;
	}
	if (length) {
		uint8_t last[2] = { *data, 0 };

		memcpy(&half, last, sizeof(half));
		sum += half;
	}
	return sum;
}

/* Folded, complemented, in host order. */
static uint16_t finish(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ntohs((uint16_t)~sum);
}

uint16_t ip_checksum(const uint8_t *data, size_t length)
{
	return finish(sum_of(data, length, 0));
}

uint16_t ip_upper_checksum(const struct ip_packet *ip, const uint8_t *upper, size_t length)
{
	uint8_t tail[8] = { 0, 0, 0, 0, 0, 0, 0, ip->protocol };
	size_t skip = ip->version == 4 ? 12 : 0;
	uint64_t sum;

	put32(tail, (uint32_t)length);
	sum = sum_of(ip->source.s6_addr + skip, 16 - skip, 0);
	sum = sum_of(ip->destination.s6_addr + skip, 16 - skip, sum);
	sum = sum_of(tail, sizeof(tail), sum);
	return finish(sum_of(upper, length, sum));
}

/* --- parsing ------------------------------------------------------------------------------------------------------ */

/* data: the packet's own bytes only. quoted: they may end early. */
struct parse { const uint8_t *data; size_t length; bool quoted; };

static size_t upper_header(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return TCP_HEADER;
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		return 12;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 8;
	}
	return 0;
}

/* Echo requests and replies: the identifier stands for the ports, since request and reply share it. */
static void read_icmp(const uint8_t *upper, struct ip_packet *out)
{
	bool echo = out->protocol == IPPROTO_ICMPV6 ? upper[0] == 128 || upper[0] == 129 : upper[0] == 8 || upper[0] == 0;

	out->icmp_type = upper[0];
	out->icmp_code = upper[1];
	if (echo)
		out->source_port = out->destination_port = get16(upper + 4);
}

/* What the upper layer says. A first fragment without its whole header would let a later one complete it unseen (RFC 1858 3,
 * RFC 7112 5); so would one that begins inside it. */
static const char *read_upper(const struct parse *p, size_t fragment_offset, struct ip_packet *out)
{
	const uint8_t *upper = p->data + out->header;
	size_t need = upper_header(out->protocol);

	if (fragment_offset)
		return fragment_offset < need ? "tiny fragment" : NULL;
	if (p->quoted && need > 8)
		need = 8;             /* all that RFC 792 promises of it */
	if (p->length - out->header < need)
		return out->fragment ? "tiny fragment" : "truncated";
	switch (out->protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		read_icmp(upper, out);
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		out->ports = true;
		out->source_port = get16(upper);
		out->destination_port = get16(upper + 2);
	}
	return NULL;
}

/* offset in bytes. Any fragment but the last is a multiple of 8 long, and none is empty or ends past the longest packet. */
static const char *read_fragment(const struct parse *p, size_t offset, bool more, size_t payload, struct ip_packet *out)
{
	out->fragment = offset || more;
	out->first = offset == 0;
	if (!out->fragment || p->quoted)
		return NULL;
	if (payload == 0 || (more && payload % 8) || offset + payload > 65535)
		return "bad fragment";
	return NULL;
}

/* IPv4 options (RFC 791 3.1): source routes lead past where the packet was judged to go. */
static const char *v4_options(const uint8_t *p, size_t length)
{
	for (size_t i = 0; i < length;) {
		if (p[i] == 0)
			return NULL;
		if (p[i] == 1) {
			i++;
			continue;
		}
		if (i + 2 > length || p[i + 1] < 2 || p[i + 1] > length - i)
			return "bad options";
		if (p[i] == 131 || p[i] == 137)
			return "source route";
		i += p[i + 1];
	}
	return NULL;
}

static const char *parse_v4(struct parse *p, struct ip_packet *out)
{
	const uint8_t *d = p->data;
	size_t offset;
	const char *why;

	if (p->length < V4_HEADER)
		return "truncated";
	out->header = (uint32_t)(d[0] & 15) * 4;
	out->length = get16(d + 2);
	if (out->header < V4_HEADER || out->length < out->header)
		return "bad length";
	if (p->length < out->header || (p->length < out->length && !p->quoted))
		return "truncated";
	if (!p->quoted && ip_checksum(d, out->header))
		return "bad checksum";
	if (p->length > out->length)
		p->length = out->length;
	why = v4_options(d + V4_HEADER, out->header - V4_HEADER);
	if (why)
		return why;
	out->ttl = d[8];
	out->protocol = d[9];
	out->dont_fragment = d[6] & 0x40;
	out->fragment_id = get16(d + 4);
	mapped(&out->source, d + 12);
	mapped(&out->destination, d + 16);
	offset = (get16(d + 6) & 0x1fff) * 8u;
	why = read_fragment(p, offset, d[6] & 0x20, out->length - out->header, out);
	return why ? why : read_upper(p, offset, out);
}

/* Options of a hop-by-hop or destination header (RFC 8200 4.2). */
static const char *v6_options(const uint8_t *p, size_t length)
{
	for (size_t i = 2; i < length;) {
		if (p[i] == 0) {
			i++;
			continue;
		}
		if (i + 2 > length || p[i + 1] > length - i - 2)
			return "bad options";
		if (p[i] == 0xc2)
			return "bad length";          /* jumbogram (RFC 2675): its real length stands in the option */
		if (p[i] == 0xc9)
			return "home address";        /* RFC 6275 6.3: the receiver takes it for the source */
		i += 2 + p[i + 1];
	}
	return NULL;
}

/* Extension headers as IANA lists them; any other number is an upper layer's. */
static bool is_extension(uint8_t next)
{
	switch (next) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case 139:                     /* HIP */
	case 140:                     /* Shim6 */
	case 253:
	case 254:
		return true;
	}
	return false;
}

/* One extension header at h of at most `left` bytes. *length: its own. */
static const char *extension(uint8_t type, const uint8_t *h, size_t left, size_t *length)
{
	if (left < 8)
		return "truncated";
	*length = type == IPPROTO_AH ? (h[1] + 2u) * 4 : type == IPPROTO_FRAGMENT ? 8 : (h[1] + 1u) * 8;
	if (left < *length)
		return "truncated";
	switch (type) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_DSTOPTS:
		return v6_options(h, *length);
	case IPPROTO_ROUTING:         /* RFC 5095: type 0 is never taken; of others none that is still to be followed */
		return h[2] == 0 || h[3] ? "routing header" : NULL;
	case IPPROTO_AH:
		return *length < 12 ? "bad length" : NULL;
	case IPPROTO_FRAGMENT:
		return NULL;
	}
	return "extension header";
}

/* Walks to the upper layer. Sets header, protocol and what a fragment header says; *offset: of the fragment, in bytes. */
static const char *v6_extensions(const struct parse *p, size_t *offset, struct ip_packet *out)
{
	uint8_t next = p->data[6];
	unsigned seen = 0;
	bool fragmented = false;
	size_t at = V6_HEADER, length;
	const char *why = NULL;

	for (; !why && is_extension(next); at += length) {
		const uint8_t *h = p->data + at;

		if (++seen > EXTENSIONS_MAX || (next == IPPROTO_HOPOPTS && seen > 1))     /* RFC 8200 4.1: the first only */
			return "extension header";
		if (out->fragment || (fragmented && next == IPPROTO_FRAGMENT))
			return "bad fragment";
		why = extension(next, h, p->length - at, &length);
		if (why)
			return why;
		if (next == IPPROTO_FRAGMENT) {
			fragmented = true;
			*offset = get16(h + 2) & 0xfff8;
			out->fragment_id = get32(h + 4);
			why = read_fragment(p, *offset, h[3] & 1, out->length - at - 8, out);
		}
		next = h[0];
	}
	out->header = (uint32_t)at;
	out->protocol = next;
	return why;
}

static const char *parse_v6(struct parse *p, struct ip_packet *out)
{
	const uint8_t *d = p->data;
	size_t offset = 0;
	const char *why;

	if (p->length < V6_HEADER)
		return "truncated";
	out->length = V6_HEADER + get16(d + 4);
	if (p->length < out->length && !p->quoted)
		return "truncated";
	if (p->length > out->length)
		p->length = out->length;
	out->ttl = d[7];
	out->dont_fragment = true;
	memcpy(&out->source, d + 8, 16);
	memcpy(&out->destination, d + 24, 16);
	out->first = true;
	/* Mapped addresses are no addresses on a wire (RFC 4942 2.2), and IPv4's among us. */
	if (IN6_IS_ADDR_V4MAPPED(&out->source) || IN6_IS_ADDR_V4MAPPED(&out->destination))
		return "mapped address";
	why = v6_extensions(p, &offset, out);
	return why ? why : read_upper(p, offset, out);
}

static const char *parse(struct parse p, struct ip_packet *out)
{
	memset(out, 0, offsetof(struct ip_packet, quoted) + sizeof(out->quoted.present));
	if (p.length == 0)
		return "truncated";
	out->version = p.data[0] >> 4;
	switch (out->version) {
	case 4:
		return parse_v4(&p, out);
	case 6:
		return parse_v6(&p, out);
	}
	return "bad version";
}

/* The beginning of a packet only, so that neither its length nor its checksum are held against it. */
static void read_quoted(const uint8_t *data, size_t length, struct ip_quoted *out)
{
	struct parse p = { .data = data, .length = length, .quoted = true };
	struct ip_packet ip;

	if (parse(p, &ip) || !ip.first)
		return;
	*out = (struct ip_quoted){ .present = true, .protocol = ip.protocol, .source_port = ip.source_port,
		.destination_port = ip.destination_port, .source = ip.source, .destination = ip.destination };
}

const char *ip_parse(const uint8_t *data, size_t length, struct ip_packet *out)
{
	const char *why = parse((struct parse){ .data = data, .length = length }, out);

	if (!why && ip_is_icmp_error(out) && !(out->version == 6 && out->icmp_type == 137))
		read_quoted(data + out->header + 8, out->length - out->header - 8, &out->quoted);
	return why;
}

/* --- what is asked about packets ---------------------------------------------------------------------------------- */

bool ip_is_icmp_error(const struct ip_packet *ip)
{
	if (!ip->first)
		return false;
	if (ip->version == 6)         /* RFC 4443 2.4 (e.1, e.2) */
		return ip->protocol == IPPROTO_ICMPV6 && (ip->icmp_type < 128 || ip->icmp_type == 137);
	return ip->protocol == IPPROTO_ICMP && (ip->icmp_type == 3 || ip->icmp_type == 4 || ip->icmp_type == 5 ||
	                                        ip->icmp_type == 11 || ip->icmp_type == 12);
}

bool ip_link_local(const struct in6_addr *a)
{
	const uint8_t *b = a->s6_addr;

	if (IN6_IS_ADDR_V4MAPPED(a))
		return (b[12] == 169 && b[13] == 254) || (b[12] == 224 && b[13] == 0 && b[14] == 0);
	return (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || (b[0] == 0xff && (b[1] & 0x0f) == 2);
}

bool ip_decrement_ttl(uint8_t *packet, const struct ip_packet *ip)
{
	uint32_t sum;

	if (ip->version == 6) {
		if (packet[7] <= 1)
			return false;
		packet[7]--;
		return true;
	}
	if (packet[8] <= 1)
		return false;
	/* RFC 1624 3: HC' = ~(~HC + ~m + m'); m is the word of TTL and protocol */
	sum = (uint32_t)(uint16_t)~get16(packet + 10) + (uint16_t)~get16(packet + 8);
	packet[8]--;
	sum += get16(packet + 8);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	put16(packet + 10, (uint16_t)~sum);
	return true;
}

const char *ip_protocol_name(uint8_t protocol, char *out)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return "tcp";
	case IPPROTO_UDP:
		return "udp";
	case IPPROTO_ICMP:
		return "icmp";
	case IPPROTO_ICMPV6:
		return "icmpv6";
	case IPPROTO_SCTP:
		return "sctp";
	}
	snprintf(out, 8, "%u", protocol);
	return out;
}
