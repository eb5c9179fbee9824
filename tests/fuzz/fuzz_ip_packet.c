/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a packet: read, one hop further, answered by every ICMP error, which must then be a right packet itself, about
 * the one that it answers, and must not be answered in turn. */
#include "workers/tunnel/ip_packet.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const uint8_t *error, size_t length, const struct ip_packet *about)
{
	struct ip_packet ip;
	uint8_t again[IP_ICMP_MAX];

	assert(length <= (about->version == 4 ? 576 : IP_ICMP_MAX));
	assert(!ip_parse(error, length, &ip) && ip.length == length && ip.version == about->version);
	assert(ip_is_icmp_error(&ip) && !memcmp(&ip.destination, &about->source, 16));
	if (ip.version == 4)
		assert(!ip_checksum(error + ip.header, length - ip.header));
	else
		assert(!ip_upper_checksum(&ip, error + ip.header, length - ip.header));
	if (ip.quoted.present)
		assert(!memcmp(&ip.quoted.source, &about->source, 16) && !memcmp(&ip.quoted.destination, &about->destination, 16) &&
		       ip.quoted.protocol == about->protocol && ip.quoted.destination_port == about->destination_port);
	/* a long chain of extension headers may be cut; what is whole in the packet is so in the error */
	if (about->header + 8 <= 500 && about->length >= about->header + 8)
		assert(ip.quoted.present);
	assert(!ip_icmp_error(again, IP_NO_ROUTE, 0, error, length, &ip, &ip.destination));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ip_packet ip, next;
	struct in6_addr own = { .s6_addr = { 0x20, 1, [15] = 1 } };
	uint8_t *packet = malloc(size + 1), *out = malloc(IP_ICMP_MAX);
	char name[8];

	memcpy(packet, data, size);
	if (!ip_parse(packet, size, &ip)) {
		assert(ip.length <= size && ip.header <= ip.length && (ip.version == 4 || ip.version == 6));
		assert(!ip.ports || ip.first);
		assert(strlen(ip_protocol_name(ip.protocol, name)) < 8);
		if (ip.version == 4)
			memcpy(&own, &(struct in6_addr){ .s6_addr = { [10] = 0xff, [11] = 0xff, 10, 0, 0, 1 } }, 16);
		for (unsigned kind = IP_TIME_EXCEEDED; kind <= IP_SOURCE_POLICY; kind++) {
			size_t n = ip_icmp_error(out, kind, size & 1 ? 1280 : 70000, packet, size, &ip, &own);
			if (n)
				check_error(out, n, &ip);
		}
		if (ip_decrement_ttl(packet, &ip))
			assert(!ip_parse(packet, size, &next) && next.ttl == ip.ttl - 1);
	}
	free(packet);
	free(out);
	return 0;
}
