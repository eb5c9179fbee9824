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

/* Which tunnel worker a device belongs to: device_owner(), ipc/owner.h. */
/* NULL: not here (another worker's, or none). */
struct device *device_find(struct devices *devices, const char *name);
uint32_t device_mtu(const struct device *device);

/* --- which leg a packet belongs to ------------------------------------------------------------------------------------- */

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

/* What `tunnels list` shows: comma-separated JSON objects. */
struct json;
void devices_json(struct devices *devices, struct json *json);

#endif
