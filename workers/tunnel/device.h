/* SPDX-License-Identifier: Apache-2.0 */
/* TUN devices of this worker: their queues, and which leg gets which packet. tun-bridge made them; the supervisor keeps their
 * queues' descriptors too. A device, all its queues, and all tunnels and pools that end on it belong to one worker. */
#ifndef HERMES_TUNNEL_DEVICE_H
#define HERMES_TUNNEL_DEVICE_H

#include <linux/virtio_net.h>

#include "ipc/owner.h"
#include "workers/tunnel/capsule.h"
#include "workers/tunnel/ip_packet.h"
#include "workers/tunnel/tunnel.h"

struct devices;
struct device;

struct devices *devices_new(struct tunnel *tunnel);
void devices_free(struct devices *devices);
/* A queue (TUN_QUEUE); owns fd (non-blocking). Used from the commit of its generation on. */
void devices_add_queue(struct devices *devices, const struct ipc_tun_queue *message, int fd);
/* The generation in force changed: devices that are gone are let go, networks' flows begin, move and end. */
void devices_commit(struct devices *devices);
void devices_abort(struct devices *devices, uint64_t generation);
void devices_drain(struct devices *devices);
/* Reads queues no more: who comes after us will. And the other side of that: the predecessor has handed over, networks that have no
 * flow yet begin one, and queues are read. */
void devices_pause(struct devices *devices);
void devices_start(struct devices *devices);
/* The network of the device with that prefix as text; NULL: none. */
struct ip_network;
struct ip_network *devices_network(struct devices *devices, const char *device, const char *prefix);

/* Which tunnel worker a device belongs to: device_owner(), ipc/owner.h. */
/* NULL: not here (another worker's, or none). */
struct device *device_find(struct devices *devices, const char *name);
uint32_t device_mtu(const struct device *device);

/* --- which leg a packet belongs to -------------------------------------------------------------------------------- */

/* A taker of packets that the device gives; embedded in legs. */
struct device_port {
	/* A packet from the device: header says about offload what is to be known; the memory is the callee's until it returns. */
	void (*packet)(struct device_port *port, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
	               const struct ip_packet *ip);
	/* The device takes packets again after device_write() said no. */
	void (*writable)(struct device_port *port);
	struct device *device;
	struct device_port *next_waiting;
	bool waiting;
};
/* Packets whose destination lies in the prefix go to the port: longest prefix first. False: another port has just that prefix. */
bool device_route_add(struct device *device, const struct config_prefix *prefix, struct device_port *port);
void device_route_remove(struct device *device, const struct config_prefix *prefix, struct device_port *port);
void device_port_remove(struct device *device, struct device_port *port);   /* all its routes, and its wait */

/* Writes one packet (header NULL: no offload) gathered from pieces. 0, -EAGAIN (port->writable() follows), or -errno: dropped
 * and counted. */
int device_write(struct device_port *port, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n);
/* An ICMP error or the like, back to where the packet came from. */
void device_write_packet(struct device *device, const uint8_t *packet, size_t length);

/* What is to be done once when the device has given what it had: a batch of capsules goes to its flow as one. Embedded. */
struct device_flush {
	void (*run)(struct device_flush *flush);
	struct device_flush *next;
	bool due;
};
/* run() is called before the device's turn ends; outside of one, in the next turn of the loop. */
void device_flush_later(struct device *device, struct device_flush *flush);
void device_flush_cancel(struct device *device, struct device_flush *flush);

/* --- what goes no further ----------------------------------------------------------------------------------------- */

/* D(ID, reason, metric): packets that were dropped, as `tunnels list` and the worker's counters tell it. Those that wait too long
 * to become capsules are counted by their queue (datagram_queue.h). */
#define DEVICE_DROPS(D)                                                                                               \
	D(MALFORMED, "malformed", MALFORMED)                                                                          \
	D(LINK_LOCAL, "link_local", NO_ROUTE)                                                                         \
	D(NO_ROUTE, "no_route", NO_ROUTE)                                                                             \
	D(SPOOFED, "spoofed", SOURCE)                                                                                 \
	D(PROHIBITED, "prohibited", POLICY)                                                                           \
	D(POLICY, "policy", POLICY)                                                                                   \
	D(TTL, "ttl", TTL)                                                                                            \
	D(TOO_BIG, "too_big", TOO_LONG)                                                                               \
	D(QUEUE, "queue", QUEUE_FULL)                                                                                 \
	D(WRITE, "device", NO_ROUTE)
enum device_drop {
#define D(ID, reason, metric) DEVICE_DROP_##ID,
	DEVICE_DROPS(D)
#undef D
	DEVICE_DROP_COUNT
};
void device_drop(struct device *device, enum device_drop reason);

/* Whether the address is the device's own: configured, or assigned by the far end. */
bool device_is_own(const struct device *device, const struct in6_addr *address);
/* The address that ICMP errors come from: the device's own of that family, or a dummy (RFC 7600 4). */
struct in6_addr device_address(const struct device *device, bool v4);
/* Whether one more ICMP error may be sent now (RFC 1812 4.3.2.8, RFC 4443 2.4). */
bool device_icmp_allowed(struct device *device);
/* Answers a packet that the device gave with an ICMP error. */
void device_reject(struct device *device, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                   const struct ip_packet *ip);

/* What `tunnels list` shows: comma-separated JSON objects. */
struct json;
void devices_json(struct devices *devices, struct json *json);

#endif
