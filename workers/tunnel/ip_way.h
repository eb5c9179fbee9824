/* SPDX-License-Identifier: Apache-2.0 */
/* The way of packets between a device and a tunnel: what both ends of a tunnel do alike. TTL, policy for inner flows, MTU, ICMP
 * errors; the queue of packets that wait to become capsules, and those that wait for the device. */
#ifndef HERMES_TUNNEL_IP_WAY_H
#define HERMES_TUNNEL_IP_WAY_H

#include "workers/tunnel/datagram_queue.h"
#include "workers/tunnel/device.h"
#include "workers/tunnel/inner_flows.h"
#include "workers/tunnel/ip_leg.h"

struct ip_parked;
STAILQ_HEAD(ip_parked_list, ip_parked);

struct ip_way {
	struct device *device;        /* the owner's reference */
	struct device_port port;      /* ours, for writing; the owner may add routes to it, and sets port.packet then */
	struct ip_leg *leg;           /* packets leave by it; NULL: none, they wait */
	struct datagram_queue queue;
	struct inner_flows *inner;    /* NULL: no packet is asked about */
	struct ip_parked_list out, in;    /* their inner flow is being asked about */
	size_t parked;                /* bytes in both */
	struct ip_parked_list blocked;    /* the device takes no more: written before anything else */
	void (*resume)(struct ip_way *way);   /* legs that paused may go on */
	uint64_t out_packets, out_bytes, in_packets, in_bytes, dropped;
};

void ip_way_init(struct ip_way *way, struct device *device, void (*resume)(struct ip_way *way));
/* Its packets are gone; it may be used no more. */
void ip_way_clear(struct ip_way *way);
/* Asks about inner flows from now on. */
void ip_way_police(struct ip_way *way, const struct origin *origin, const char *user, const struct head *request);

/* A packet that the device gave: into the tunnel, or the queue, or back with an ICMP error. Its memory may be changed. */
void ip_way_out(struct ip_way *way, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                const struct ip_packet *ip);
/* Puts what waits, while the leg has room. */
void ip_way_drain(struct ip_way *way);

/* A packet that came from the tunnel, in one piece, valid until the next call (*ip filled). NULL: dropped and counted. */
uint8_t *ip_way_packet(struct ip_way *way, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n,
                       size_t length, struct ip_packet *ip);
/* Into the device; pauses the leg that it came by where it has to wait. */
void ip_way_in(struct ip_way *way, struct ip_leg *leg, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
               const struct ip_packet *ip);
/* Answers a packet from the tunnel with an ICMP error, back through the leg. */
void ip_way_reject(struct ip_way *way, struct ip_leg *leg, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                   const struct ip_packet *ip);
void ip_way_drop(struct ip_way *way, enum device_drop reason);

/* All that waits goes into the parcel, of the client end (in) or the far end; and what came in one. */
struct parcel;
void ip_way_hand_over(struct ip_way *way, struct parcel *parcel, bool client);
/* False: it does not fit. */
bool ip_way_restore(struct ip_way *way, const struct parcel *parcel, bool client);

#endif
