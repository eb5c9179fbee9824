/* SPDX-License-Identifier: Apache-2.0 */
/* Packets out of a TUN device's queues to the legs that they belong to, and into the device. A read gives one packet, of up to
 * 64 KiB where segmentation offload is on; what a turn gave becomes one batch per leg (device_flush). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/device_internal.h"

#define READS 64u                     /* per queue and turn: others are served in between */
#define ICMP_PER_SECOND 200u

void device_drop(struct device *d, enum device_drop reason)
{
	static const enum stats_metric metrics[] = {
#define D(ID, name, metric) [DEVICE_DROP_##ID] = STATS_WORKER_DROP_##metric,
		DEVICE_DROPS(D)
#undef D
	};
	d->drops[reason]++;
	if (d->all->tunnel->self)
		stats_add(d->all->tunnel->self, metrics[reason], 1);
}

/* --- own addresses and ICMP errors -------------------------------------------------------------------------------- */

bool device_is_own(const struct device *d, const struct in6_addr *address)
{
	for (unsigned i = 0; i < d->n_own; i++)
		if (IN6_ARE_ADDR_EQUAL(&d->own[i], address))
			return true;
	return false;
}

struct in6_addr device_address(const struct device *d, bool v4)
{
	/* IPv4: the dummy address of RFC 7600 4.8. IPv6: the discard-only prefix's first (RFC 6666). */
	static const struct in6_addr dummy_v4 = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 0, 8}}};
	static const struct in6_addr dummy_v6 = {{{0x01, 0, [15] = 1}}};
	for (unsigned i = 0; i < d->n_own; i++)
		if (IN6_IS_ADDR_V4MAPPED(&d->own[i]) == v4)
			return d->own[i];
	return v4 ? dummy_v4 : dummy_v6;
}

bool device_icmp_allowed(struct device *d)
{
	uint64_t now = now_us();
	if (now - d->icmp_since >= 1000000) {
		d->icmp_since = now;
		d->icmp_sent = 0;
	}
	return d->icmp_sent++ < ICMP_PER_SECOND;
}

void device_reject(struct device *d, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                   const struct ip_packet *ip)
{
	uint8_t error[IP_ICMP_MAX];
	if (!device_icmp_allowed(d))
		return;
	/* From where the packet wanted to go: the kernel takes nothing from a device that claims to be from one of this machine's
	 * own addresses, nor what leads elsewhere than its source (rp_filter). */
	size_t n = ip_icmp_error(error, kind, mtu, packet, length, ip, &ip->destination);
	if (n)
		device_write_packet(d, error, n);
}

/* --- batches ------------------------------------------------------------------------------------------------------ */

static void run_due(struct device *d)
{
	for (struct device_flush *f; (f = d->due);) {
		d->due = f->next;
		f->due = false;
		f->run(f);
	}
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct device *d = arg;
	(void)fd, (void)what;
	device_ref(d);
	run_due(d);
	device_unref(d);
}

void device_flush_later(struct device *d, struct device_flush *f)
{
	if (f->due)
		return;
	f->due = true;
	f->next = d->due;
	d->due = f;
	if (!d->reading)
		event_active(d->flush, EV_TIMEOUT, 0);
}

void device_flush_cancel(struct device *d, struct device_flush *f)
{
	if (!f->due)
		return;
	struct device_flush **link = &d->due;
	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	f->due = false;
}

/* --- out of the device -------------------------------------------------------------------------------------------- */

/* Router solicitations, multicast listener reports and the like: a TUN device makes them by itself, and they stay on their link. */
static bool stays_here(const struct ip_packet *ip)
{
	bool v4 = ip->version == 4;
	return ip_link_local(&ip->source) || ip_link_local(&ip->destination) ||
	       (v4 ? (ip->destination.s6_addr[12] & 0xf0) == 0xe0 || memcmp(ip->destination.s6_addr + 12, "\xff\xff\xff\xff", 4) == 0
	           : ip->destination.s6_addr[0] == 0xff);
}

static void from_device(struct device *d, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	struct ip_packet ip;
	d->read_packets++;
	d->read_bytes += length;
	if (ip_parse(packet, length, &ip) || vnet_check(header, packet, length))
		return device_drop(d, DEVICE_DROP_MALFORMED);
	if (stays_here(&ip))
		return device_drop(d, DEVICE_DROP_LINK_LOCAL);
	struct device_port *port = device_routes_find(d->routes, &ip.destination);
	if (port)
		return port->packet(port, header, packet, length, &ip);
	device_drop(d, DEVICE_DROP_NO_ROUTE);
	device_reject(d, IP_NO_ROUTE, 0, packet, length, &ip);
}

static void read_queue(struct device_queue *q)
{
	struct device *d = q->device;
	struct virtio_net_hdr header;
	uint8_t *at = d->all->read;
	for (unsigned i = 0; i < READS && q->fd >= 0; i++) {
		ssize_t n = read(q->fd, at, VNET_HEADER + DEVICE_PACKET);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno == EAGAIN || errno == EIO)   /* EIO: the interface is down */
				return;
			log_warn("device not read", "device=%s error=%s", d->name, log_value(strerror(errno)));
			event_del(q->readable);                /* EBADFD: somebody took it away, and it would say so for ever */
			return;
		}
		if (n <= (ssize_t)VNET_HEADER) {
			device_drop(d, DEVICE_DROP_MALFORMED);
			continue;
		}
		memcpy(&header, at, VNET_HEADER);
		from_device(d, &header, at + VNET_HEADER, (size_t)n - VNET_HEADER);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct device_queue *q = arg;
	struct device *d = q->device;
	(void)fd, (void)what;
	device_ref(d);
	d->reading = true;
	read_queue(q);
	d->reading = false;
	run_due(d);
	device_unref(d);
}

/* --- into the device ---------------------------------------------------------------------------------------------- */

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct device *d = arg;
	unsigned n = 0;
	(void)fd, (void)what;
	device_ref(d);
	for (struct device_port *p = d->waiting; p; p = p->next_waiting)
		n++;
	for (struct device_port *port; n > 0 && (port = d->waiting); n--) {   /* those that wait again come behind */
		d->waiting = port->next_waiting;
		port->waiting = false;
		port->writable(port);
	}
	device_unref(d);
}

static void wait_writable(struct device_port *port)
{
	struct device *d = port->device;
	struct device_port **link = &d->waiting;
	if (port->waiting)
		return;
	while (*link)
		link = &(*link)->next_waiting;
	*link = port;
	port->next_waiting = NULL;
	port->waiting = true;
	event_add(d->writable, NULL);
}

int device_write(struct device_port *port, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n)
{
	static const struct virtio_net_hdr none;
	struct device *d = port->device;
	struct iovec v[1 + CAPSULE_PIECES] = {{(void *)(header ? header : &none), VNET_HEADER}};
	size_t length = 0;
	for (unsigned i = 0; i < n; i++) {
		v[1 + i] = (struct iovec){(void *)pieces[i].data, pieces[i].length};
		length += pieces[i].length;
	}
	ssize_t done = d->queues[0].fd < 0 ? -1 : writev(d->queues[0].fd, v, (int)n + 1);
	if (done < 0 && d->queues[0].fd >= 0 && errno == EAGAIN) {
		wait_writable(port);
		return -EAGAIN;
	}
	if (done < 0) {
		int error = d->queues[0].fd < 0 ? ENETDOWN : errno;
		if (error != EINVAL || !header || !header->gso_type)
			device_drop(d, DEVICE_DROP_WRITE);
		return -error;
	}
	d->written_packets++;
	d->written_bytes += length;
	return 0;
}

void device_write_packet(struct device *d, const uint8_t *packet, size_t length)
{
	static const struct virtio_net_hdr none;
	struct iovec v[2] = {{(void *)&none, VNET_HEADER}, {(void *)packet, length}};
	if (d->queues[0].fd < 0 || writev(d->queues[0].fd, v, 2) < 0)
		return device_drop(d, DEVICE_DROP_WRITE);
	d->written_packets++;
	d->written_bytes += length;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

void device_io_start(struct device *d)
{
	struct event_base *base = d->all->tunnel->base;
	if (!d->flush && !(d->flush = event_new(base, -1, 0, on_flush, d)))
		abort();
	for (unsigned i = 0; i < DEVICE_QUEUES; i++) {
		struct device_queue *q = &d->queues[i];
		if (q->fd < 0 || q->readable || d->all->tunnel->awaiting)
			continue;
		q->readable = event_new(base, q->fd, EV_READ | EV_PERSIST, on_readable, q);
		if (!q->readable || event_add(q->readable, NULL) < 0)
			abort();
	}
	if (!d->writable && d->queues[0].fd >= 0 && !(d->writable = event_new(base, d->queues[0].fd, EV_WRITE, on_writable, d)))
		abort();
	if (d->waiting && d->writable)
		event_add(d->writable, NULL);
}

static void close_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	close((int)(intptr_t)arg);
}

/* The supervisor keeps duplicates: a descriptor closed before libevent's change list has reached the kernel would stay in
 * the epoll set for good. So it is closed in the next turn. */
void device_io_drop(struct device_queue *q)
{
	static const struct timeval now = {0};
	struct device *d = q->device;
	if (q == d->queues && d->writable) {
		event_free(d->writable);
		d->writable = NULL;
	}
	if (q->readable)
		event_free(q->readable);
	q->readable = NULL;
	if (q->fd >= 0)
		event_base_once(d->all->tunnel->base, -1, EV_TIMEOUT, close_fd, (void *)(intptr_t)q->fd, &now);
	q->fd = -1;
}

void device_io_stop(struct device *d)
{
	for (unsigned i = 0; i < DEVICE_QUEUES; i++)
		device_io_drop(&d->queues[i]);
}
