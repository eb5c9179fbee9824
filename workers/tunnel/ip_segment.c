/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_segment.h"

#include <endian.h>
#include <string.h>

#include "workers/tunnel/ip_bytes.h"
#include "workers/tunnel/ip_packet.h"

#define TCP_CHECKSUM 16u              /* offsets in the upper layer's header */
#define UDP_CHECKSUM 6u
#define ICMPV6_CHECKSUM 2u
#define TCP_FLAGS 13u
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };

/* --- checking ----------------------------------------------------------------------------------------------------- */

static size_t payload_at(const struct ip_packet *ip, const uint8_t *packet)
{
	return ip->header + (ip->protocol == IPPROTO_TCP ? (packet[ip->header + 12] >> 4) * 4u : 8u);
}

/* Where the checksum of the packet's own upper layer stands in it; 0: it has none that a device would leave open. */
static unsigned checksum_offset(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return TCP_CHECKSUM;
	case IPPROTO_UDP:
		return UDP_CHECKSUM;
	case IPPROTO_ICMPV6:
		return ICMPV6_CHECKSUM;
	}
	return 0;
}

/* Whoever finishes the checksum writes two bytes where the header says: these must not be addresses, ports or anything else
 * that has been judged, so the upper layer's own checksum, or one of a packet inside the payload. */
static const char *check_checksum(const struct virtio_net_hdr *header, size_t length, const struct ip_packet *ip)
{
	size_t start = le16toh(header->csum_start), offset = le16toh(header->csum_offset);
	unsigned own = checksum_offset(ip->protocol);

	if (!ip->first || start + offset + 2 > length)
		return "bad checksum offset";
	if (start == ip->header && own && offset == own)
		return NULL;
	switch (ip->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
	case IPPROTO_DCCP:
		return "bad checksum offset";
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return start < ip->header + 8 ? "bad checksum offset" : NULL;
	}
	return start < ip->header ? "bad checksum offset" : NULL;
}

static const char *check_gso(const struct virtio_net_hdr *header, const uint8_t *packet, size_t length,
                             const struct ip_packet *ip)
{
	unsigned type = header->gso_type & ~VIRTIO_NET_HDR_GSO_ECN, size = le16toh(header->gso_size);
	bool tcp = type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6;
	size_t at, segments;

	if (!tcp && header->gso_type != VIRTIO_NET_HDR_GSO_UDP_L4)
		return "bad gso type";
	if (tcp && ip->version != (type == VIRTIO_NET_HDR_GSO_TCPV4 ? 4 : 6))
		return "bad gso type";
	if (ip->fragment || ip->protocol != (tcp ? IPPROTO_TCP : IPPROTO_UDP))
		return "bad gso type";
	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || le16toh(header->csum_start) != ip->header)
		return "gso without checksum";
	at = payload_at(ip, packet);
	if (at < ip->header + (tcp ? 20u : 8u) || at > length || size == 0)
		return "bad gso size";
	segments = (length - at + size - 1) / size;
	if (segments * at + (length - at) > SEGMENT_SCRATCH)
		return "too many segments";
	return NULL;
}

const char *vnet_check(const struct virtio_net_hdr *header, const uint8_t *packet, size_t length)
{
	struct ip_packet ip;
	const char *why;

	if (header->flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
		return "bad vnet flags";
	if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE && !(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return NULL;
	why = ip_parse(packet, length, &ip);
	if (why)
		return why;
	if (ip.length != length || le16toh(header->hdr_len) > length)
		return "bad length";
	if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		why = check_checksum(header, length, &ip);
	if (why || header->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return why;
	return check_gso(header, packet, length, &ip);
}

/* --- finishing and cutting ---------------------------------------------------------------------------------------- */

void vnet_checksum(const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	size_t start = le16toh(header->csum_start), offset = le16toh(header->csum_offset);
	uint16_t sum;

	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return;
	/* the field holds the pseudo header's sum already */
	sum = ip_checksum(packet + start, length - start);
	if (sum == 0 && offset == UDP_CHECKSUM)
		sum = 0xffff;         /* RFC 768: 0 says that there is none; to others it makes no difference */
	put16(packet + start + offset, sum);
}

/* What is the same for all segments of a packet. */
struct cut { const struct ip_packet *ip; const uint8_t *packet; size_t headers, size; };

static void segment_ip(const struct cut *cut, uint8_t *out, size_t length, unsigned index)
{
	if (cut->ip->version == 6) {
		put16(out + 4, (uint32_t)(length - V6_HEADER));
		return;
	}
	put16(out + 2, (uint32_t)length);
	put16(out + 4, get16(out + 4) + index);
	put16(out + 10, 0);
	put16(out + 10, ip_checksum(out, cut->ip->header));
}

static void segment_upper(const struct cut *cut, uint8_t *out, size_t length, size_t offset, bool last)
{
	uint8_t *upper = out + cut->ip->header;
	size_t n = length - cut->ip->header;
	bool tcp = cut->ip->protocol == IPPROTO_TCP;
	uint8_t *field = upper + (tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
	uint16_t sum;

	if (tcp) {
		put32(upper + 4, get32(upper + 4) + (uint32_t)offset);
		if (!last)
			upper[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
		if (offset)           /* CWR is said once; ECE stays on all (RFC 3168 6.1) */
			upper[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	} else {
		put16(upper + 4, (uint32_t)n);
	}
	put16(field, 0);
	sum = ip_upper_checksum(cut->ip, upper, n);
	put16(field, sum == 0 && !tcp ? 0xffff : sum);
}

void ip_segment(const struct virtio_net_hdr *header, uint8_t *packet, size_t length, uint8_t *scratch,
                void (*each)(void *arg, uint8_t *packet, size_t length), void *arg)
{
	struct ip_packet ip;
	struct cut cut = { .ip = &ip, .packet = packet, .size = le16toh(header->gso_size) };
	size_t payload;

	if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		vnet_checksum(header, packet, length);
		each(arg, packet, length);
		return;
	}
	if (ip_parse(packet, length, &ip))
		return;               /* vnet_check() would have said so */
	cut.headers = payload_at(&ip, packet);
	payload = length - cut.headers;
	for (size_t offset = 0, index = 0; offset < payload || index == 0; offset += cut.size, index++) {
		size_t n = payload - offset < cut.size ? payload - offset : cut.size;

		memcpy(scratch, packet, cut.headers);
		memcpy(scratch + cut.headers, packet + cut.headers + offset, n);
		segment_ip(&cut, scratch, cut.headers + n, (unsigned)index);
		segment_upper(&cut, scratch, cut.headers + n, offset, offset + n == payload);
		each(arg, scratch, cut.headers + n);
		scratch += cut.headers + n;
	}
}
