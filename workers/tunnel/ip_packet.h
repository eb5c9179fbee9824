/* SPDX-License-Identifier: Apache-2.0 */
/* IPv4 and IPv6 packets as pure functions over memory: what they say, whether they may pass, TTL, ICMP errors.
 *
 * TTL (RFC 9484 7): decremented where a packet is put into a tunnel (right before its capsule is written), not where it comes
 * out. A packet that this machine itself made (its source is an address of the device, or assigned to us) is not decremented:
 * it has not been forwarded yet. One of TTL 0 or 1 that would have to be is answered with IP_TIME_EXCEEDED and goes nowhere.
 * ICMP passes whatever protocol a route or a request's scope names (RFC 9484 4.7.3). Link-local sources and destinations are
 * never forwarded (RFC 9484 7): ip_link_local(). */
#ifndef HERMES_TUNNEL_IP_PACKET_H
#define HERMES_TUNNEL_IP_PACKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses are IPv4-mapped for IPv4, as everywhere in Hermes. */

/* What an ICMP error says that it is about. */
struct ip_quoted {
	bool present;                 /* false: no error, or what it quotes cannot be read; the rest is then undefined */
	uint8_t protocol;
	uint16_t source_port, destination_port;
	struct in6_addr source, destination;
};
struct ip_packet {
	uint8_t version;              /* 4, 6 */
	uint8_t protocol;             /* the upper layer's, after IPv6 extension headers (RFC 8200 4) */
	uint8_t ttl;
	bool fragment;                /* any fragment; first: of offset 0 */
	bool first;
	bool ports;                   /* source_port and destination_port are there (TCP, UDP, SCTP, DCCP; first fragments) */
	bool dont_fragment;           /* IPv4 DF; IPv6: always */
	uint16_t source_port, destination_port;   /* ICMP echo: identifier in both, ports false */
	uint8_t icmp_type, icmp_code; /* ICMP and ICMPv6, first fragments */
	uint32_t fragment_id;         /* fragments */
	uint32_t length;              /* of the packet, from its header; <= the memory's */
	uint32_t header;              /* bytes before the upper layer */
	struct in6_addr source, destination;
	struct ip_quoted quoted;
};
/* Parses and checks lengths, version, header checksum (IPv4), options (source routes and malformed ones are refused), extension
 * headers (bounded, fail closed: an unknown one or more than 8 is an error), routing headers (type 0 and any with segments
 * left are refused), home address options (they stand for another source), fragments: a first one must hold the upper layer's
 * whole header, no other may reach back into it, and in fragments nothing stands between fragment header and upper layer, so
 * that no later fragment can change what was judged. Returns NULL, or the reason to drop it ("truncated", "bad length", "bad
 * version", "bad checksum", "bad options", "source route", "routing header", "home address", "mapped address",
 * "extension header", "bad fragment", "tiny fragment"; static, usable as a counter's label). Bytes past the packet's own
 * length are ignored. */
const char *ip_parse(const uint8_t *data, size_t length, struct ip_packet *out);
/* ICMP messages that report about another packet (types below 128 of ICMPv6 and redirects; unreachable, quench, redirect,
 * exceeded, parameter problem). */
bool ip_is_icmp_error(const struct ip_packet *ip);
bool ip_link_local(const struct in6_addr *address);   /* 169.254.0.0/16, fe80::/10, ff02::/16, 224.0.0.0/24 */

/* Decrements TTL or hop limit in place, the checksum with it (RFC 1624). False: it was 0 or 1, unchanged. */
bool ip_decrement_ttl(uint8_t *packet, const struct ip_packet *ip);

/* ICMP errors (RFC 792, RFC 4443, RFC 4884 not used) that answer `packet`, from `own` (of the same family). Written to out (at
 * least IP_ICMP_MAX bytes); returns its length, or 0: no error may be sent about this packet (ICMP errors, multicast,
 * fragments but the first, unspecified source; RFC 1122 3.2.2, RFC 4443 2.4). mtu: for TOO_BIG. */
#define IP_ICMP_MAX 1280u
enum ip_icmp { IP_TIME_EXCEEDED, IP_TOO_BIG, IP_NO_ROUTE, IP_PROHIBITED, IP_ADDRESS_UNREACHABLE, IP_SOURCE_POLICY };
/* IPv4 knows no IP_SOURCE_POLICY: it is told as prohibited. */
size_t ip_icmp_error(uint8_t *out, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                     const struct ip_packet *ip, const struct in6_addr *own);

/* Internet checksum (RFC 1071) of data, folded: what stands in a header, in host order; 0 over data that holds its right
 * checksum. And of an upper layer with its pseudo header (ICMP has none). */
uint16_t ip_checksum(const uint8_t *data, size_t length);
uint16_t ip_upper_checksum(const struct ip_packet *ip, const uint8_t *upper, size_t length);

/* Protocol numbers by name for people: "tcp", "udp", "icmp", "icmpv6", "sctp", else the number. out: at least 8 bytes. */
const char *ip_protocol_name(uint8_t protocol, char *out);

#endif
