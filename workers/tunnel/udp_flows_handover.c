/* SPDX-License-Identifier: Apache-2.0 */
/* UDP flows of programs that go over to the worker's successor, and come from its predecessor. The socket that they share is there
 * already; who sent, and what waits to become capsules, is in the parcel. */
#include <string.h>

#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/udp_flows_internal.h"

void udp_flows_hand_over_as(struct udp_flows *all, const char *kind)
{
	all->kind = kind;
}

static struct ipc_bytes bytes_of(const void *data, size_t length)
{
	return (struct ipc_bytes){.data = data, .length = length};
}

/* Capsules of this wake-up are given, however far behind the far leg is: they are counted then, and kept. */
static void give_gathered(struct udp_flow *f)
{
	struct chunks capsules = {0};
	chunks_move(&capsules, &f->gathered);
	f->outstanding += capsules.bytes;
	if (capsules.head)
		flow_data(f->leg.flow, &f->leg, &capsules);
}

bool udp_flow_hand_over(struct leg *leg, struct parcel *parcel)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	struct ipc_handover_record *r = &parcel->record;
	if (!f->all->kind || f->all->closing || f->last || f->malformed ||
	    (f->state != UDP_FLOW_JOINED && f->state != UDP_FLOW_BEGUN))
		return false;
	udp_flow_ref(f);
	if (f->state == UDP_FLOW_JOINED)
		give_gathered(f);
	bool lives = f->leg.flow && f->state != UDP_FLOW_OVER;
	if (lives) {
		parcel_put_queue(parcel, PARCEL_IN_QUEUE, &f->queue);
		udp_answers_hand_over(f, parcel);
		r->in_kind = f->all->kind;
		r->listener = f->all->listener->name;
		r->key = bytes_of(f->key, f->key_length);
		r->client = bytes_of(&f->client, sizeof(f->client));
		if (f->has_local)
			r->local = bytes_of(&f->local, sizeof(f->local));
	}
	datagram_queue_clear(&f->queue);       /* not dropped: it is in the parcel */
	udp_flow_account(f);
	udp_flow_unref(f);
	return lives;
}

struct leg *udp_flows_restore(struct udp_flows *all, const struct udp_begin *begin, const struct parcel *parcel)
{
	if (all->closing || udp_flows_find(all, begin->key, begin->key_length))
		return NULL;
	struct udp_flow *f = udp_flow_make(all, begin);
	parcel_get_queue(parcel, PARCEL_IN_QUEUE, &f->queue);
	udp_flow_account(f);
	udp_flow_set_state(f, UDP_FLOW_JOINED);
	return &f->leg;
}

const struct origin *udp_flow_origin(const struct leg *leg)
{
	return &((const struct udp_flow *)leg)->origin;
}
