/* SPDX-License-Identifier: Apache-2.0 */
/* A TUN device as tun-bridge knows it: made here, or taken over from the tun-bridge before. Packets never pass here. */
#ifndef HERMES_TUN_BRIDGE_DEVICE_H
#define HERMES_TUN_BRIDGE_DEVICE_H

#include <linux/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#define DEVICE_QUEUES_MAX 8

struct netlink;
struct ipc_strs;

struct tun_device {
	char name[IFNAMSIZ];
	int fd;                     /* a duplicate of one queue, for ioctls; never read */
	uint32_t index;             /* of the interface */
	unsigned queues, fresh_queues;   /* opened, also those that sleep; fresh: by the configuration that is being prepared */
	uint32_t offload;           /* TUN_F_* that are on */
	uint32_t mtu;
	bool fresh;                 /* made for the configuration that is being prepared */
	bool told;                  /* assigned: the far end has said something */
	char **addresses, **routes; /* assigned: what it said; malloc'd */
	size_t n_addresses, n_routes;
	LIST_ENTRY(tun_device) link;
};
LIST_HEAD(tun_devices, tun_device);

/* Opens one queue of the device: the first makes it. Returns the descriptor or -1 with a reason for people that says what to do. */
int tun_device_open_queue(const char *name, bool first, char *error, size_t size);
/* Turns segmentation offload on, as much as the kernel has, or off. */
void tun_device_set_offload(struct tun_device *device, bool on);
/* Whether the descriptor still leads to a device that is there. */
bool tun_device_alive(const struct tun_device *device);

/* Adds a device to the list: takes over fd. NULL: out of memory (fd is closed). */
struct tun_device *tun_device_new(struct tun_devices *devices, const char *name, int fd);
struct tun_device *tun_device_find(const struct tun_devices *devices, const char *name);
void tun_device_free(struct tun_device *device);
/* What the far end gave replaces what it gave before. False: out of memory. */
bool tun_device_assign(struct tun_device *device, const struct ipc_strs *addresses, const struct ipc_strs *routes);

#endif
