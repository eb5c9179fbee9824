/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_coalesce.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENTS 64u                  /* the kernel's UDP_MAX_SEGMENTS */
#define TOTAL 65000u
#define UDP_HEADER 8u

struct ip_coalesce {
	struct virtio_net_hdr first;
	unsigned n;                   /* packets; 0: empty */
	bool full;                    /* a shorter one came: it was the last */
	size_t header, payload, length;   /* IP header; each packet's payload; of all */
	uint8_t data[TOTAL];
};

struct ip_coalesce *ip_coalesce_new(void)
{
	struct ip_coalesce *g = calloc(1, sizeof(*g));
	if (!g)
		abort();
	return g;
}

static void put16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Plain UDP: no options, no extension headers, no fragment and none to be made of it, and a checksum that need not be proved. */
static bool may(const struct virtio_net_hdr *h, const uint8_t *packet, size_t length, const struct ip_packet *ip)
{
	bool partial = h && h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && h->csum_start == ip->header && h->csum_offset == 6;
	bool valid = h && h->flags & VIRTIO_NET_HDR_F_DATA_VALID;
	const uint8_t *udp = packet + ip->header;
	return (partial || valid) && h->gso_type == VIRTIO_NET_HDR_GSO_NONE && ip->protocol == IPPROTO_UDP && !ip->fragment &&
	       ip->dont_fragment && ip->header == (ip->version == 4 ? 20u : 40u) && ip->length == length &&
	       length > ip->header + UDP_HEADER && length <= TOTAL && (size_t)(udp[4] << 8 | udp[5]) == length - ip->header &&
	       (partial || udp[6] || udp[7]);
}

/* Same addresses, ports, TTL, class: all of the headers but lengths, checksums and IPv4's id. */
static bool same_flow(const struct ip_coalesce *g, const uint8_t *packet, size_t header)
{
	const uint8_t *a = g->data, *b = packet;
	if (g->header != header || memcmp(a + header, b + header, 4) != 0)
		return false;
	if (header == 20)
		return a[0] == b[0] && a[1] == b[1] && memcmp(a + 6, b + 6, 4) == 0 && memcmp(a + 12, b + 12, 8) == 0;
	return memcmp(a, b, 4) == 0 && memcmp(a + 6, b + 6, 34) == 0;
}

bool ip_coalesce_add(struct ip_coalesce *g, const struct virtio_net_hdr *header, const uint8_t *packet, size_t length,
                     const struct ip_packet *ip)
{
	if (!may(header, packet, length, ip))
		return false;
	size_t head = ip->header + UDP_HEADER, payload = length - head;
	if (g->n == 0) {
		g->first = *header;
		g->header = ip->header;
		g->payload = payload;
		g->length = length;
		g->full = false;
		memcpy(g->data, packet, length);
	} else {
		if (g->full || g->n == SEGMENTS || payload > g->payload || g->length + payload > TOTAL ||
		    !same_flow(g, packet, ip->header))
			return false;
		memcpy(g->data + g->length, packet + head, payload);
		g->length += payload;
		g->full = payload < g->payload;
	}
	g->n++;
	return true;
}

/* The pseudo header's sum, as a partial checksum begins (RFC 768, RFC 8200 8.1). */
static uint16_t pseudo_sum(const uint8_t *packet, size_t header, size_t udp)
{
	uint8_t pseudo[40] = {0};
	if (header == 20) {
		memcpy(pseudo, packet + 12, 8);
		pseudo[9] = IPPROTO_UDP;
		put16(pseudo + 10, udp);
		return (uint16_t)~ip_checksum(pseudo, 12);
	}
	memcpy(pseudo, packet + 8, 32);
	put16(pseudo + 34, udp);
	pseudo[39] = IPPROTO_UDP;
	return (uint16_t)~ip_checksum(pseudo, 40);
}

size_t ip_coalesce_take(struct ip_coalesce *g, struct virtio_net_hdr *header, uint8_t **packet)
{
	uint8_t *p = g->data;
	unsigned n = g->n;
	*packet = p;
	*header = g->first;
	g->n = 0;
	if (n <= 1)
		return n ? g->length : 0;
	uint8_t *udp = p + g->header;
	*header = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, .gso_size = (uint16_t)g->payload,
		.hdr_len = (uint16_t)(g->header + UDP_HEADER), .csum_start = (uint16_t)g->header, .csum_offset = 6};
	put16(udp + 4, g->length - g->header);
	put16(udp + 6, pseudo_sum(p, g->header, g->length - g->header));
	if (g->header == 40) {
		put16(p + 4, g->length - 40);
		return g->length;
	}
	put16(p + 2, g->length);
	put16(p + 10, 0);
	put16(p + 10, ip_checksum(p, 20));
	return g->length;
}
