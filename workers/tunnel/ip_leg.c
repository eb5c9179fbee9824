/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_leg.h"

#include <endian.h>
#include <string.h>

#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/ip_capsule.h"
#include "workers/tunnel/ip_coalesce.h"

#define RUN_MAX 65000u                /* bytes of datagrams in one capsule (over CONNECT-UDP) */
#define ANSWERS_MAX (1024u * 1024)    /* bytes not taken: packets are never so many, so it asks and does not read our answers */
#define ROUNDS 16u                    /* batches per turn: others are served in between */

/* --- life --------------------------------------------------------------------------------------------------------- */

static void enter(struct ip_leg *l)
{
	l->busy++;
}

static void leave(struct ip_leg *l)
{
	if (--l->busy == 0 && l->closed)
		l->callbacks->release(l);
}

/* The flow is no more. */
static void let_go(struct ip_leg *l)
{
	l->leg.flow = NULL;
	l->closed = true;
	l->joined = false;
	if (l->device->all->gathers == l)
		l->device->all->gathers = NULL;
	device_flush_cancel(l->device, &l->flush);
	chunks_clear(&l->batch);
	chunks_clear(&l->held);
	capsule_reader_reset(&l->reader);
}

void ip_leg_dispose(struct ip_leg *l)
{
	let_go(l);
	device_unref(l->device);
	l->device = NULL;
}

/* --- to the tunnel ------------------------------------------------------------------------------------------------ */

bool ip_leg_room(const struct ip_leg *l)
{
	return l->joined && !l->ended && !l->abort && l->outstanding + l->batch.bytes < slab_allowance();
}

void ip_leg_wake(struct ip_leg *l)
{
	if (!l->closed)
		device_flush_later(l->device, &l->flush);
}

struct run { struct ip_leg *leg; const uint8_t *data; size_t length, segment; unsigned n; };

static void run_end(struct run *run)
{
	uint8_t size[2] = {(uint8_t)(run->segment >> 8), (uint8_t)run->segment};
	if (run->n == 1)
		capsule_put_datagram(&run->leg->batch, CONTEXT_PAYLOAD, NULL, 0, run->data, run->length);
	else if (run->n > 1)
		capsule_put_datagram(&run->leg->batch, CONTEXT_SEGMENTS, size, sizeof(size), run->data, run->length);
	run->n = 0;
}

/* Packets of one size that lie one behind the other, the last may be shorter. */
static void run_add(void *arg, uint8_t *packet, size_t length)
{
	struct run *run = arg;
	bool fits = run->n > 0 && run->data + run->length == packet && length <= run->segment &&
	            run->length == run->n * run->segment && run->length + length <= RUN_MAX;
	if (!fits)
		run_end(run);
	if (run->n == 0) {
		run->data = packet;
		run->length = 0;
		run->segment = length;
	}
	run->length += length;
	run->n++;
}

static void put_one(void *arg, uint8_t *packet, size_t length)
{
	struct ip_leg *l = arg;
	capsule_put_datagram(&l->batch, CONTEXT_PAYLOAD, NULL, 0, packet, length);
}

static struct virtio_net_hdr swapped(const struct virtio_net_hdr *h)
{
	return (struct virtio_net_hdr){h->flags, h->gso_type, htole16(h->hdr_len), htole16(h->gso_size), htole16(h->csum_start),
	                               htole16(h->csum_offset)};
}

static void put(struct ip_leg *l, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	uint8_t *scratch = l->device->all->segments;
	bool plain = !header || (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && header->gso_type == VIRTIO_NET_HDR_GSO_NONE);
	if (plain) {
		put_one(l, packet, length);
	} else if (l->segments && !l->udp) {
		struct virtio_net_hdr wire = swapped(header);
		capsule_put_datagram(&l->batch, CONTEXT_SEGMENTS, &wire, VNET_HEADER, packet, length);
	} else if (l->segments) {
		struct run run = {.leg = l};
		ip_segment(header, packet, length, scratch, run_add, &run);
		run_end(&run);
	} else {
		ip_segment(header, packet, length, scratch, put_one, l);
	}
	ip_leg_wake(l);
}

/* What was gathered, for whichever leg, goes into its batch. */
static void put_gathered(struct devices *all)
{
	struct virtio_net_hdr header;
	uint8_t *packet;
	size_t length = ip_coalesce_take(all->gathered, &header, &packet);
	if (length && all->gathers)
		put(all->gathers, &header, packet, length);
	all->gathers = NULL;
}

void ip_leg_put(struct ip_leg *l, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	if (l->device->all->gathers == l)
		put_gathered(l->device->all);
	put(l, header, packet, length);
}

void ip_leg_put_flowing(struct ip_leg *l, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                        const struct ip_packet *ip)
{
	struct devices *all = l->device->all;
	if (!l->segments || l->udp)
		return put(l, header, packet, length);
	if (all->gathers == l && ip_coalesce_add(all->gathered, header, packet, length, ip))
		return;
	put_gathered(all);
	if (!ip_coalesce_add(all->gathered, header, packet, length, ip))
		return put(l, header, packet, length);
	all->gathers = l;
	ip_leg_wake(l);
}

void ip_leg_put_capsule(struct ip_leg *l, uint64_t type, const uint8_t *value, size_t length)
{
	capsule_put(&l->batch, type, value, length);
	ip_leg_wake(l);
}

void ip_leg_end(struct ip_leg *l)
{
	l->ended = true;
	ip_leg_wake(l);
}

static void give(struct ip_leg *l)
{
	struct chunks batch = {0};
	chunks_move(&batch, &l->batch);
	l->outstanding += batch.bytes;
	flow_data(l->leg.flow, &l->leg, &batch);
}

/* The stream is not what it must be: the flow ends, never inside one of its own calls. */
static void abort_now(struct ip_leg *l)
{
	struct flow *flow = l->leg.flow;
	const char *why = l->abort;
	if (!flow)
		return;
	let_go(l);
	l->callbacks->closed(l, FLOW_RESPONSE);
	flow_broken(flow, &l->leg, FLOW_RESPONSE, why);
}

static void on_flush(struct device_flush *flush)
{
	struct ip_leg *l = (struct ip_leg *)((char *)flush - offsetof(struct ip_leg, flush));
	enter(l);
	l->giving = true;
	if (l->device->all->gathers == l)
		put_gathered(l->device->all);
	if (l->abort)
		abort_now(l);
	for (unsigned i = 0; i < ROUNDS && !l->closed && l->joined; i++) {
		if (!l->ended)
			l->callbacks->ready(l);
		if (!l->batch.head)
			break;
		give(l);
	}
	l->giving = false;
	if (!l->closed && l->ended && !l->batch.head)
		flow_finish(l->leg.flow, &l->leg, NULL);
	else if (!l->closed && l->batch.head && l->joined)
		ip_leg_wake(l);
	if (!l->closed && l->refused && l->outstanding + l->batch.bytes <= ANSWERS_MAX) {
		l->refused = false;
		if (!l->paused && !l->held.head)
			flow_writable(l->leg.flow, &l->leg);
	}
	leave(l);
}

static void leg_taken(struct leg *base, size_t bytes)
{
	struct ip_leg *l = (struct ip_leg *)base;
	l->outstanding -= bytes;
	if (!l->giving && (l->wanted || l->refused || l->batch.head))
		ip_leg_wake(l);
}

/* --- from the tunnel ---------------------------------------------------------------------------------------------- */

static void hand_over(struct ip_leg *l, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n,
                      size_t length)
{
	if (l->abort || length == 0)
		return;
	l->callbacks->packet(l, header, pieces, n, length);
}

/* Copies `length` bytes of the pieces from `offset` on; returns how many pieces out describes the rest with. */
static unsigned skip(const struct capsule_piece *pieces, unsigned n, void *prefix, size_t length, struct capsule_piece *out)
{
	unsigned m = 0;
	uint8_t *to = prefix;
	for (unsigned i = 0; i < n; i++) {
		size_t k = pieces[i].length < length ? pieces[i].length : length;
		memcpy(to, pieces[i].data, k);
		to += k;
		length -= k;
		if (pieces[i].length > k)
			out[m++] = (struct capsule_piece){pieces[i].data + k, pieces[i].length - (uint32_t)k};
	}
	return m;
}

/* A run of datagrams (over CONNECT-UDP), each a packet. Linear, since packets lie across pieces. */
static void run_received(struct ip_leg *l, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	uint8_t *copy = l->device->all->segments, prefix[2];
	struct capsule_piece rest[CAPSULE_PIECES];
	if (length < sizeof(prefix) || length - sizeof(prefix) > SEGMENT_SCRATCH)
		return;
	n = skip(pieces, n, prefix, sizeof(prefix), rest);
	length -= sizeof(prefix);
	size_t segment = (size_t)prefix[0] << 8 | prefix[1], at = 0;
	for (unsigned i = 0; i < n; i++) {
		memcpy(copy + at, rest[i].data, rest[i].length);
		at += rest[i].length;
	}
	for (at = 0; segment > 0 && at < length && !l->closed; at += segment) {
		struct capsule_piece one = {copy + at, (uint32_t)(length - at < segment ? length - at : segment)};
		hand_over(l, NULL, &one, 1, one.length);
	}
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct ip_leg *l = arg;
	struct virtio_net_hdr header;
	struct capsule_piece rest[CAPSULE_PIECES];
	if (context == CONTEXT_PAYLOAD) {
		hand_over(l, NULL, pieces, n, length);
	} else if (context == CONTEXT_SEGMENTS && l->segments && l->udp) {
		run_received(l, pieces, n, length);
	} else if (context == CONTEXT_SEGMENTS && l->segments && length > VNET_HEADER) {
		n = skip(pieces, n, &header, VNET_HEADER, rest);
		header = swapped(&header);
		hand_over(l, &header, rest, n, length - VNET_HEADER);
	}                               /* others: unknown contexts are dropped (RFC 9484 6) */
	return true;
}

static bool on_capsule(void *arg, uint64_t type, const uint8_t *value, size_t length)
{
	struct ip_leg *l = arg;
	if (l->udp || l->abort)
		return true;
	const char *why = l->callbacks->control(l, type, value, length);
	if (why)
		l->abort = why;
	return !why;
}

static void receive(struct ip_leg *l, struct chunks *chunks)
{
	enum capsule_result result = capsule_read(&l->reader, chunks);
	if (result != CAPSULE_OK && !l->abort)
		l->abort = result == CAPSULE_TOO_LONG ? "a capsule is too long" : "malformed capsules";
	if (l->abort) {
		chunks_clear(chunks);
		ip_leg_wake(l);
	}
	l->callbacks->received(l);
}

static const struct leg_ops client_ops, far_ops;

static bool leg_send(struct leg *base, struct chunks *chunks)
{
	struct ip_leg *l = (struct ip_leg *)base;
	if (l->declined) {
		chunks_clear(chunks);
		return true;
	}
	l->refused = l->outstanding + l->batch.bytes > ANSWERS_MAX;
	if (!l->joined || l->refused || l->paused || l->held.head)
		return false;           /* not joined: what a client sends at once waits for our answer */
	enter(l);
	receive(l, chunks);
	chunks_move(&l->held, chunks);
	leave(l);
	return true;
}

void ip_leg_pause(struct ip_leg *l)
{
	l->paused = true;
	l->reader.paused = true;
}

void ip_leg_resume(struct ip_leg *l)
{
	if (!l->paused || l->closed)
		return;
	enter(l);
	l->paused = l->reader.paused = false;
	struct chunks held = {0};
	chunks_move(&held, &l->held);
	receive(l, &held);
	chunks_move(&l->held, &held);
	if (!l->closed && !l->paused && !l->held.head)
		flow_writable(l->leg.flow, &l->leg);
	leave(l);
}

/* --- from the flow ------------------------------------------------------------------------------------------------ */

static void leg_head(struct leg *base, const struct head *head, bool end)
{
	struct ip_leg *l = (struct ip_leg *)base;
	enter(l);
	l->declined = head->status >= 300;
	l->callbacks->head(l, head, end);
	leave(l);
}

static void leg_joined(struct leg *base, const struct join *join)
{
	struct ip_leg *l = (struct ip_leg *)base;
	enter(l);
	l->joined = true;
	l->segments = join->segments;
	capsule_reader_reset(&l->reader);
	l->callbacks->joined(l, join);
	ip_leg_wake(l);
	leave(l);
}

static void leg_finish(struct leg *base, const struct head *trailers)
{
	struct ip_leg *l = (struct ip_leg *)base;
	(void)trailers;
	enter(l);
	if (!l->declined && !capsule_read_end(&l->reader) && !l->abort) {
		l->abort = "the stream ends inside a capsule";   /* RFC 9297 3.3 */
		ip_leg_wake(l);
	}
	l->callbacks->finished(l);
	leave(l);
}

static void leg_close(struct leg *base, enum flow_error error)
{
	struct ip_leg *l = (struct ip_leg *)base;
	enter(l);
	let_go(l);
	l->callbacks->closed(l, error);
	leave(l);
}

static size_t leg_waiting(const struct leg *base)
{
	return ((const struct ip_leg *)base)->held.bytes;
}

/* What was put is given, however far behind the flow is: it is counted then, and kept. */
static bool leg_hand_over(struct leg *base, struct parcel *parcel)
{
	struct ip_leg *l = (struct ip_leg *)base;
	if (!l->joined || l->closed || l->ended || l->abort || l->busy || l->declined)
		return false;
	enter(l);
	l->giving = true;
	if (l->device->all->gathers == l)
		put_gathered(l->device->all);
	if (l->batch.head)
		give(l);
	l->giving = false;
	device_flush_cancel(l->device, &l->flush);
	bool ok = !l->closed && l->callbacks->hand_over(l, parcel);
	if (ok)
		parcel_put_chunks(parcel, base->ops == &client_ops ? PARCEL_DOWN : PARCEL_UP, &l->held);
	else if (!l->closed)
		ip_leg_wake(l);
	leave(l);
	return ok;
}

static const struct capsule_callbacks capsules = {.datagram = on_datagram, .capsule = on_capsule};

#define OPS(name) {                                                                                                   \
	.kind = name, .head = leg_head, .send = leg_send, .finish = leg_finish, .taken = leg_taken, .close = leg_close, \
	.waiting = leg_waiting, .joined = leg_joined, .hand_over = leg_hand_over}
static const struct leg_ops client_ops = OPS("tun");
static const struct leg_ops far_ops = OPS("ip");

void ip_leg_init(struct ip_leg *l, struct device *device, bool client, const struct ip_leg_callbacks *callbacks, bool udp)
{
	device_ref(device);
	l->leg.ops = client ? &client_ops : &far_ops;
	l->callbacks = callbacks;
	l->device = device;
	l->udp = udp;
	l->reader = (struct capsule_reader){.callbacks = &capsules, .arg = l, .control_max = IP_CAPSULE_MAX};
	l->flush.run = on_flush;
}
