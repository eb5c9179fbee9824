/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a device share: device.c (life, configuration), device_io.c (packets in and out), device_json.c. */
#ifndef HERMES_TUNNEL_DEVICE_INTERNAL_H
#define HERMES_TUNNEL_DEVICE_INTERNAL_H

#include <event2/event.h>

#include "workers/tunnel/device.h"
#include "workers/tunnel/device_routes.h"
#include "workers/tunnel/ip_segment.h"

#define DEVICE_QUEUES 8u
#define DEVICE_OWN 32u
#define DEVICE_CLIENT_ID 33u          /* hex, with NUL */

struct device_queue {
	struct device *device;
	struct event *readable;       /* NULL: not read yet */
	int fd;                       /* -1: none */
};

struct device_network {
	struct device_network *next;
	struct config_prefix prefix;
	struct ip_network *network;
};

struct device {
	struct device *next;
	struct devices *all;
	char *name;
	struct generation *generation;  /* config belongs to it */
	const struct config_tunnel *config;   /* NULL: not in force */
	uint32_t mtu, offload;
	unsigned refs;                /* ours while listed, and each leg's */
	bool listed;
	struct device_queue queues[DEVICE_QUEUES];
	struct event *writable;       /* of the first queue */
	struct device_routes *routes;
	struct device_port *waiting;
	struct device_flush *due;
	struct event *flush;
	bool reading;
	struct in6_addr own[DEVICE_OWN];
	unsigned n_own, n_configured; /* those assigned come behind the configured ones */
	bool told;                    /* tun-bridge heard of assigned addresses */
	char client[DEVICE_CLIENT_ID];  /* tells far ends that several tunnels are one client's (ip_pool.h) */
	struct device_network *networks;
	struct ip_exit *exits;        /* far ends of tunnels that live on it */
	struct ip_pool *pool;         /* NULL until a cluster uses it */
	uint64_t icmp_since;
	unsigned icmp_sent;
	uint64_t read_packets, read_bytes, written_packets, written_bytes, drops[DEVICE_DROP_COUNT];
};

/* A queue whose generation is not in force yet. */
struct device_pending {
	struct device_pending *next;
	uint64_t generation;
	char *name;
	uint32_t queue, mtu, offload;
	int fd;
};

struct devices {
	struct tunnel *tunnel;
	struct device *list;
	struct device_pending *pending;
	bool draining;
	uint8_t *segments;            /* scratch of ip_segment(), SEGMENT_SCRATCH bytes */
	uint8_t *packet;              /* a packet that came in pieces or has to be changed, DEVICE_PACKET bytes */
	struct ip_coalesce *gathered; /* UDP packets of one flow, for the leg `gathers` (NULL: none) */
	struct ip_leg *gathers;
	uint8_t *read;                /* what a queue gives: virtio header and packet */
};
#define DEVICE_PACKET (64u * 1024 + 512)

void device_ref(struct device *device);
void device_unref(struct device *device);

/* device_io.c */
void device_io_start(struct device *device);
void device_io_drop(struct device_queue *queue);
void device_io_stop(struct device *device);

/* Addresses that the far ends of the device's networks assigned, of all networks: they replace those told before, and go to
 * tun-bridge with the prefixes that they open (TUN_ADDRESSES). */
void device_assigned(struct device *device);

#endif
