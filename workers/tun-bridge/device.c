/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/device.h"
#include "ipc/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TUN_PATH "/dev/net/tun"
#define VNET_HEADER_BYTES 10      /* struct virtio_net_hdr without num_buffers */
/* linux/if_tun.h of 6.2; Debian 12's is older. */
#define TUN_USO (0x20u | 0x40u)
#define TUN_TSO (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

static void explain_open(int code, char *error, size_t size)
{
	const char *what =
		code == ENOENT || code == ENODEV || code == ENXIO ? "the kernel's tun module is not loaded (modprobe tun; in a "
		                                                    "container, pass the device through)" :
		code == EACCES || code == EPERM ? "no permission to open it (hermesd must be started as root; in a container, "
		                                  "allow the device)" : strerror(code);
	snprintf(error, size, "%s: %s", TUN_PATH, what);
}

static void explain_attach(int code, char *error, size_t size)
{
	const char *what =
		code == EPERM ? "making a TUN device needs CAP_NET_ADMIN: start hermesd as root, or give its container that capability" :
		code == EBUSY ? "a network interface with this name exists already and is not ours (`ip link show` shows it): remove it, "
		                "or choose another name" :
		code == EINVAL ? "the kernel does not take this name, or an interface of another kind has it" : strerror(code);
	snprintf(error, size, "%s", what);
}

int tun_device_open_queue(const char *name, bool first, char *error, size_t size)
{
	struct ifreq request = {0};
	int header = VNET_HEADER_BYTES;
	int fd = open(TUN_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		explain_open(errno, error, size);
		return -1;
	}
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	/* multi-queue also with one queue: more can then be added to the living device. Exclusive: never somebody else's. */
	int flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | (first ? IFF_TUN_EXCL : 0);
	request.ifr_flags = (short)flags;
	if (ioctl(fd, TUNSETIFF, &request) || ioctl(fd, TUNSETVNETHDRSZ, &header)) {
		explain_attach(errno, error, size);
		close(fd);
		return -1;
	}
	return fd;
}

void tun_device_set_offload(struct tun_device *d, bool on)
{
	static const unsigned choices[] = {TUN_TSO | TUN_USO, TUN_TSO, TUN_F_CSUM, 0};
	for (size_t i = on ? 0 : 3; i < sizeof(choices) / sizeof(*choices); i++)
		if (ioctl(d->fd, TUNSETOFFLOAD, (unsigned long)choices[i]) == 0) {
			d->offload = choices[i];
			return;
		}
}

bool tun_device_alive(const struct tun_device *d)
{
	struct ifreq request = {0};
	return ioctl(d->fd, TUNGETIFF, &request) == 0 && strcmp(request.ifr_name, d->name) == 0;
}

/* --- the list -------------------------------------------------------------------------------------------------------- */

struct tun_device *tun_device_new(struct tun_devices *devices, const char *name, int fd)
{
	struct tun_device *d = calloc(1, sizeof(*d));
	if (!d) {
		close(fd);
		return NULL;
	}
	d->fd = fd;
	snprintf(d->name, sizeof(d->name), "%s", name);
	LIST_INSERT_HEAD(devices, d, link);
	return d;
}

struct tun_device *tun_device_find(const struct tun_devices *devices, const char *name)
{
	struct tun_device *d;
	LIST_FOREACH(d, devices, link)
		if (strcmp(d->name, name) == 0)
			return d;
	return NULL;
}

static void strings_free(char ***v, size_t *n)
{
	for (size_t i = 0; i < *n; i++)
		free((*v)[i]);
	free(*v);
	*v = NULL;
	*n = 0;
}

void tun_device_free(struct tun_device *d)
{
	if (!d)
		return;
	LIST_REMOVE(d, link);
	strings_free(&d->addresses, &d->n_addresses);
	strings_free(&d->routes, &d->n_routes);
	close(d->fd);
	free(d);
}

static bool strings_copy(char ***v, size_t *n, const struct ipc_strs *from)
{
	strings_free(v, n);
	*v = calloc(from->n + 1, sizeof(**v));
	for (size_t i = 0; *v && i < from->n; i++) {
		char *copy = strdup(from->v[i]);
		if (!copy)
			return false;
		(*v)[(*n)++] = copy;
	}
	return *v != NULL;
}

bool tun_device_assign(struct tun_device *d, const struct ipc_strs *addresses, const struct ipc_strs *routes)
{
	d->told = true;
	bool ok = strings_copy(&d->addresses, &d->n_addresses, addresses);
	return strings_copy(&d->routes, &d->n_routes, routes) && ok;
}
