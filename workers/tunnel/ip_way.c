/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_way.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/ip_segment.h"

#define PARKED_MAX (256u * 1024)      /* bytes whose inner flow is being asked about, both ways */

struct ip_parked {
	STAILQ_ENTRY(ip_parked) link;
	struct virtio_net_hdr header;
	bool offload;
	uint32_t length;
	uint8_t packet[];
};

void ip_way_drop(struct ip_way *w, enum device_drop reason)
{
	w->dropped++;
	device_drop(w->device, reason);
}

/* --- packets that wait -------------------------------------------------------------------------------------------- */

static void park(struct ip_parked_list *list, const struct virtio_net_hdr *header, const uint8_t *packet, size_t length)
{
	struct ip_parked *p = malloc(sizeof(*p) + length);
	if (!p)
		abort();
	p->offload = header != NULL;
	p->length = (uint32_t)length;
	if (header)
		memcpy(&p->header, header, VNET_HEADER);
	memcpy(p->packet, packet, length);
	STAILQ_INSERT_TAIL(list, p, link);
}

static void list_clear(struct ip_parked_list *list)
{
	for (struct ip_parked *p; (p = STAILQ_FIRST(list)); free(p))
		STAILQ_REMOVE_HEAD(list, link);
}

static const struct virtio_net_hdr *header_of(const struct ip_parked *p)
{
	return p->offload ? &p->header : NULL;
}

/* --- from the device ---------------------------------------------------------------------------------------------- */

static void into_tunnel(struct ip_way *w, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                        const struct ip_packet *ip)
{
	w->out_packets++;
	w->out_bytes += length;
	if (w->leg && ip_leg_room(w->leg) && !datagram_queue_first(&w->queue))
		return ip_leg_put_flowing(w->leg, header, packet, length, ip);
	datagram_queue_add(&w->queue, 0, header, header ? VNET_HEADER : 0, packet, length);
	if (!w->leg)
		return;
	w->leg->wanted = true;
	if (ip_leg_room(w->leg))        /* there is, but nothing under way whose taking would wake it */
		ip_leg_wake(w->leg);
}

void ip_way_drain(struct ip_way *w)
{
	const struct datagram_entry *e;
	while (w->leg && ip_leg_room(w->leg) && (e = datagram_queue_first(&w->queue))) {
		struct virtio_net_hdr header = {0};
		uint8_t *packet = (uint8_t *)e->data + e->prefix_length;   /* may be changed: it goes with its entry */
		memcpy(&header, e->data, e->prefix_length);
		ip_leg_put(w->leg, e->prefix_length ? &header : NULL, packet, e->length);
		datagram_queue_pop(&w->queue);
	}
	if (w->leg)
		w->leg->wanted = datagram_queue_first(&w->queue) != NULL;
}

/* Its inner flow is allowed. Decremented right before it becomes a capsule, unless this machine made it (RFC 9484 7). */
static void out_allowed(struct ip_way *w, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                        const struct ip_packet *ip)
{
	if (!device_is_own(w->device, &ip->source) && !ip_decrement_ttl(packet, ip)) {
		ip_way_drop(w, DEVICE_DROP_TTL);
		return device_reject(w->device, IP_TIME_EXCEEDED, 0, packet, length, ip);
	}
	into_tunnel(w, header, packet, length, ip);
}

void ip_way_out(struct ip_way *w, const struct virtio_net_hdr *header, uint8_t *packet, size_t length, const struct ip_packet *ip)
{
	switch (w->inner ? inner_flows_check(w->inner, ip) : INNER_ALLOW) {
	case INNER_ALLOW:
		return out_allowed(w, header, packet, length, ip);
	case INNER_DENY:
		ip_way_drop(w, DEVICE_DROP_POLICY);
		return device_reject(w->device, IP_PROHIBITED, 0, packet, length, ip);
	case INNER_PENDING:
		if (w->parked + length > PARKED_MAX)
			return ip_way_drop(w, DEVICE_DROP_QUEUE);
		w->parked += length;
		return park(&w->out, header, packet, length);
	}
}

/* --- from the tunnel ---------------------------------------------------------------------------------------------- */

void ip_way_reject(struct ip_way *w, struct ip_leg *leg, enum ip_icmp kind, uint32_t mtu, const uint8_t *packet, size_t length,
                   const struct ip_packet *ip)
{
	uint8_t error[IP_ICMP_MAX];
	struct in6_addr own = device_address(w->device, ip->version == 4);
	if (!leg || !ip_leg_room(leg) || !device_icmp_allowed(w->device))
		return;
	size_t n = ip_icmp_error(error, kind, mtu, packet, length, ip, &own);
	if (n)
		ip_leg_put(leg, NULL, error, n);
}

uint8_t *ip_way_packet(struct ip_way *w, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n,
                       size_t length, struct ip_packet *ip)
{
	uint8_t *packet = w->device->all->packet;
	size_t at = 0;
	if (length > DEVICE_PACKET)
		return ip_way_drop(w, DEVICE_DROP_MALFORMED), NULL;
	if (n == 1)
		packet = (uint8_t *)pieces[0].data;
	for (unsigned i = 0; n > 1 && i < n; at += pieces[i++].length)
		memcpy(packet + at, pieces[i].data, pieces[i].length);
	if (ip_parse(packet, length, ip) || (header && vnet_check(header, packet, length)))
		return ip_way_drop(w, DEVICE_DROP_MALFORMED), NULL;
	if (ip_link_local(&ip->source) || ip_link_local(&ip->destination))
		return ip_way_drop(w, DEVICE_DROP_LINK_LOCAL), NULL;
	return packet;
}

static void write_one(void *arg, uint8_t *packet, size_t length)
{
	struct ip_way *w = arg;
	struct capsule_piece piece = {packet, (uint32_t)length};
	if (!STAILQ_EMPTY(&w->blocked) || device_write(&w->port, NULL, &piece, 1) == -EAGAIN)
		park(&w->blocked, NULL, packet, length);
}

/* False: the device takes no more now. */
static bool write_packet(struct ip_way *w, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	struct capsule_piece piece = {packet, (uint32_t)length};
	int result = device_write(&w->port, header, &piece, 1);
	/* An older kernel than the far end's: it does not know this kind of offload. */
	if (result == -EINVAL && header && header->gso_type != VIRTIO_NET_HDR_GSO_NONE)
		ip_segment(header, packet, length, w->device->all->segments, write_one, w);
	return result != -EAGAIN;
}

static void in_allowed(struct ip_way *w, struct ip_leg *leg, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	w->in_packets++;
	w->in_bytes += length;
	if (STAILQ_EMPTY(&w->blocked) && write_packet(w, header, packet, length))
		return;
	park(&w->blocked, header, packet, length);
	if (leg)
		ip_leg_pause(leg);
}

/* What the device's link carries in one packet. */
static size_t on_the_wire(const struct virtio_net_hdr *header, size_t length, const struct ip_packet *ip, const uint8_t *packet)
{
	if (!header || header->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return length;
	size_t upper = ip->protocol == IPPROTO_TCP && ip->header + 13 < length ? (packet[ip->header + 12] >> 4) * 4u : 8;
	return ip->header + upper + header->gso_size;
}

void ip_way_in(struct ip_way *w, struct ip_leg *leg, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
               const struct ip_packet *ip)
{
	if (on_the_wire(header, length, ip, packet) > w->device->mtu && ip->dont_fragment) {
		ip_way_drop(w, DEVICE_DROP_TOO_BIG);
		return ip_way_reject(w, leg, IP_TOO_BIG, w->device->mtu, packet, length, ip);
	}
	switch (w->inner ? inner_flows_check(w->inner, ip) : INNER_ALLOW) {
	case INNER_ALLOW:
		return in_allowed(w, leg, header, packet, length);
	case INNER_DENY:
		ip_way_drop(w, DEVICE_DROP_POLICY);
		return ip_way_reject(w, leg, IP_PROHIBITED, 0, packet, length, ip);
	case INNER_PENDING:
		w->parked += length;
		park(&w->in, header, packet, length);
		if (leg && w->parked > PARKED_MAX)
			ip_leg_pause(leg);
	}
}

/* --- they may go on ----------------------------------------------------------------------------------------------- */

static void on_writable(struct device_port *port)
{
	struct ip_way *w = (struct ip_way *)((char *)port - offsetof(struct ip_way, port));
	for (struct ip_parked *p; (p = STAILQ_FIRST(&w->blocked)); free(p)) {
		struct capsule_piece piece = {p->packet, p->length};
		if (device_write(&w->port, header_of(p), &piece, 1) == -EAGAIN)
			return;
		STAILQ_REMOVE_HEAD(&w->blocked, link);
	}
	w->resume(w);
}

static void try_again(struct ip_way *w, struct ip_parked_list *list, bool out)
{
	struct ip_parked_list again = STAILQ_HEAD_INITIALIZER(again);
	struct ip_packet ip;
	STAILQ_CONCAT(&again, list);
	for (struct ip_parked *p; (p = STAILQ_FIRST(&again)); free(p)) {
		STAILQ_REMOVE_HEAD(&again, link);
		w->parked -= p->length;
		if (ip_parse(p->packet, p->length, &ip))
			continue;
		if (out)
			ip_way_out(w, header_of(p), p->packet, p->length, &ip);
		else
			ip_way_in(w, w->leg, header_of(p), p->packet, p->length, &ip);
	}
}

static void on_decided(void *arg)
{
	struct ip_way *w = arg;
	try_again(w, &w->out, true);
	try_again(w, &w->in, false);
	if (w->parked <= PARKED_MAX && STAILQ_EMPTY(&w->blocked))
		w->resume(w);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

void ip_way_init(struct ip_way *w, struct device *device, void (*resume)(struct ip_way *way))
{
	const struct tunnel *tunnel = device->all->tunnel;
	const struct config *config = tunnel->current->config;
	w->device = device;
	w->resume = resume;
	w->port.device = device;
	w->port.writable = on_writable;
	STAILQ_INIT(&w->out);
	STAILQ_INIT(&w->in);
	STAILQ_INIT(&w->blocked);
	datagram_queue_init(&w->queue, config->datagram_queue, (uint64_t)config->datagram_age * 1000, tunnel->self);
	w->queue.full = STATS_WORKER_DROP_QUEUE_FULL;
	w->queue.old = STATS_WORKER_DROP_TOO_OLD;
}

void ip_way_police(struct ip_way *w, const struct origin *origin, const char *user, const struct head *request)
{
	inner_flows_free(w->inner);
	w->inner = inner_flows_new(w->device->all->tunnel, origin, user, request, on_decided, w);
	if (w->parked)                  /* the questions that they waited for are withdrawn */
		on_decided(w);
	/* What the former table was asked about nobody would answer. */
	try_again(w, &w->out, true);
	try_again(w, &w->in, false);
}

/* --- from one worker to the next ---------------------------------------------------------------------------------- */

static void put_list(struct parcel *parcel, enum parcel_piece piece, struct ip_parked_list *list)
{
	const struct ip_parked *p;
	STAILQ_FOREACH(p, list, link)
		parcel_put_entry(parcel, piece, now_us(), 0, header_of(p), p->offload ? VNET_HEADER : 0, p->packet, p->length);
	list_clear(list);
}

void ip_way_hand_over(struct ip_way *w, struct parcel *parcel, bool client)
{
	parcel_put_queue(parcel, client ? PARCEL_IN_QUEUE : PARCEL_OUT_QUEUE, &w->queue);
	datagram_queue_clear(&w->queue);
	put_list(parcel, client ? PARCEL_IN_WAITING : PARCEL_OUT_WAITING, &w->out);
	put_list(parcel, client ? PARCEL_IN_WRITTEN : PARCEL_OUT_WRITTEN, &w->blocked);
	put_list(parcel, client ? PARCEL_IN_WRITTEN : PARCEL_OUT_WRITTEN, &w->in);
	w->parked = 0;
}

struct restored { struct ip_way *way; bool out; };

/* As if it came just now. */
static void take_again(void *arg, const struct datagram_entry *e, const uint8_t *data)
{
	const struct restored *r = arg;
	struct virtio_net_hdr header = {0};
	uint8_t *packet = r->way->device->all->packet;
	struct ip_packet ip;
	if ((e->prefix_length && e->prefix_length != VNET_HEADER) || e->length > DEVICE_PACKET)
		return ip_way_drop(r->way, DEVICE_DROP_MALFORMED);
	memcpy(&header, data, e->prefix_length);
	memcpy(packet, data + e->prefix_length, e->length);
	const struct virtio_net_hdr *offload = e->prefix_length ? &header : NULL;
	if (ip_parse(packet, e->length, &ip) || (offload && vnet_check(offload, packet, e->length)))
		return ip_way_drop(r->way, DEVICE_DROP_MALFORMED);
	if (r->out)
		ip_way_out(r->way, offload, packet, e->length, &ip);
	else
		ip_way_in(r->way, NULL, offload, packet, e->length, &ip);
}

static void queue_again(void *arg, const struct datagram_entry *e, const uint8_t *data)
{
	struct ip_way *w = arg;
	struct virtio_net_hdr header = {0};
	struct ip_packet ip;
	const uint8_t *packet = data + e->prefix_length;
	if ((e->prefix_length && e->prefix_length != VNET_HEADER) || ip_parse(packet, e->length, &ip))
		return ip_way_drop(w, DEVICE_DROP_MALFORMED);
	memcpy(&header, data, e->prefix_length);
	if (e->prefix_length && vnet_check(&header, packet, e->length))
		return ip_way_drop(w, DEVICE_DROP_MALFORMED);
	datagram_queue_add_since(&w->queue, e->since, 0, data, e->prefix_length, packet, e->length);
}

bool ip_way_restore(struct ip_way *w, const struct parcel *parcel, bool client)
{
	struct restored out = {w, true}, in = {w, false};
	return parcel_each_entry(parcel, client ? PARCEL_IN_QUEUE : PARCEL_OUT_QUEUE, queue_again, w) &&
	       parcel_each_entry(parcel, client ? PARCEL_IN_WAITING : PARCEL_OUT_WAITING, take_again, &out) &&
	       parcel_each_entry(parcel, client ? PARCEL_IN_WRITTEN : PARCEL_OUT_WRITTEN, take_again, &in);
}

void ip_way_clear(struct ip_way *w)
{
	device_port_remove(w->device, &w->port);
	inner_flows_free(w->inner);
	w->inner = NULL;
	list_clear(&w->out);
	list_clear(&w->in);
	list_clear(&w->blocked);
	datagram_queue_clear(&w->queue);
}
