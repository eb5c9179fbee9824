/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio header and a packet, from a peer: what passes the check is cut without leaving its memory, the parts are packets
 * with right checksums, and together they are the whole. The first byte's lowest bit mends IPv4's checksum, so that it is no
 * obstacle. */
#include "workers/tunnel/ip_packet.h"
#include "workers/tunnel/ip_segment.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen { uint8_t *packet, *scratch; size_t length, payload, used; bool gso; unsigned n; };

static void each(void *arg, uint8_t *packet, size_t length)
{
	struct seen *s = arg;
	struct ip_packet ip;
	size_t header;

	s->n++;
	if (!s->gso) {
		assert(packet == s->packet && length == s->length);
		return;
	}
	assert(packet == s->scratch + s->used && s->used + length <= SEGMENT_SCRATCH);
	s->used += length;
	assert(!ip_parse(packet, length, &ip) && ip.length == length);
	assert(ip_upper_checksum(&ip, packet + ip.header, length - ip.header) == 0);
	header = ip.header + (ip.protocol == IPPROTO_TCP ? (packet[ip.header + 12] >> 4) * 4u : 8);
	s->payload += length - header;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *scratch;
	struct virtio_net_hdr header;
	struct seen seen = { 0 };
	struct ip_packet ip;
	uint16_t sum;

	if (size < 1 + VNET_HEADER)
		return 0;
	scratch = scratch ? scratch : malloc(SEGMENT_SCRATCH);
	memcpy(&header, data + 1, VNET_HEADER);
	seen = (struct seen){ .length = size - 1 - VNET_HEADER, .scratch = scratch, .gso = header.gso_type != 0 };
	seen.packet = malloc(seen.length + 1);
	memcpy(seen.packet, data + 1 + VNET_HEADER, seen.length);
	if (data[0] & 1 && seen.length >= 20 && seen.length >= (seen.packet[0] & 15) * 4u) {
		seen.packet[10] = seen.packet[11] = 0;
		sum = ip_checksum(seen.packet, (seen.packet[0] & 15) * 4u);
		seen.packet[10] = (uint8_t)(sum >> 8), seen.packet[11] = (uint8_t)sum;
	}
	if (!vnet_check(&header, seen.packet, seen.length)) {
		ip_segment(&header, seen.packet, seen.length, scratch, each, &seen);
		assert(seen.n >= 1);
		/* finishing a checksum changes nothing that was judged */
		if (!seen.gso && header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
			assert(!ip_parse(seen.packet, seen.length, &ip));
		if (seen.gso) {
			size_t at;
			assert(!ip_parse(seen.packet, seen.length, &ip));
			at = ip.header + (ip.protocol == IPPROTO_TCP ? (seen.packet[ip.header + 12] >> 4) * 4u : 8);
			assert(seen.payload == seen.length - at);
		}
	}
	free(seen.packet);
	return 0;
}
