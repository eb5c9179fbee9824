/* SPDX-License-Identifier: Apache-2.0 */
/* What test_handover.c and fuzz_handover.c stand on, beside flow_world.h: a worker's tunnel and its successor's, and plain legs
 * that number what they give, check what they get, and go over. Included once, after CHECK(condition) and flow_world.h. */
#ifndef HERMES_TESTS_HANDOVER_WORLD_H
#define HERMES_TESTS_HANDOVER_WORLD_H

#include <fcntl.h>
#include <unistd.h>

#include "workers/tunnel/capsule.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/handover.h"
#include "workers/tunnel/handover_flow.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/leg_tcp.h"
#include "workers/tunnel/leg_udp.h"
#include "workers/tunnel/listener_internal.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/udp_flows.h"
#include "workers/tunnel/worker_link.h"

#define NUMBERS 4096u
#define PLAINS 512u

/* A program or a target: it lives on, whichever worker has it. */
struct program {
	uint32_t gave, got;
	uint8_t seen[NUMBERS];
	unsigned stale;               /* gave to a leg that had gone over */
};
struct plain {
	struct leg leg;
	struct program *program;
	unsigned number;              /* of program */
	bool in, open, refuse, gone, handed;
	size_t untaken;
	struct capsule_reader reader;
	struct chunks refused;        /* undelivered when it went over */
};
static struct plain plains[PLAINS];
static unsigned n_plains;
static struct program programs[PLAINS];
static struct tunnel next;        /* the successor */
static struct bound bound;
static unsigned listener_holds;
static bool no_listener;
static size_t padding;            /* behind each number */
static bool any_datagram;         /* what comes is not looked at */

static bool plain_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct plain *p = arg;
	uint8_t first[sizeof(uint32_t)] = {0};
	uint32_t number;
	size_t have = 0;
	(void)context;
	if (any_datagram)
		return true;
	CHECK(length >= sizeof(number));
	for (unsigned i = 0; i < n; i++)
		for (uint32_t k = 0; k < pieces[i].length && have < sizeof(first); k++)
			first[have++] = pieces[i].data[k];
	memcpy(&number, first, sizeof(number));
	CHECK(number < NUMBERS && p->program->seen[number] == 0);
	p->program->seen[number]++;
	p->program->got++;
	return true;
}

static void plain_give(struct plain *p, unsigned n)
{
	static const uint8_t zero[1024];
	struct chunks chunks = {0};
	CHECK(p->open && !p->gone && !p->handed && padding <= sizeof(zero));
	for (unsigned i = 0; i < n; i++, p->program->gave++)
		capsule_put_datagram(&chunks, 0, &p->program->gave, sizeof(p->program->gave), zero, padding);
	p->untaken += chunks.bytes;
	flow_data(p->leg.flow, &p->leg, &chunks);
}

static void plain_head(struct leg *leg, const struct head *head, bool end)
{
	(void)head, (void)end;
	if (!((struct plain *)leg)->in)
		flow_head(leg->flow, leg, masque_response(), false);
}

static bool plain_send(struct leg *leg, struct chunks *chunks)
{
	static const struct capsule_callbacks callbacks = {.datagram = plain_datagram};
	struct plain *p = (struct plain *)leg;
	CHECK(p->open && !p->gone && !p->handed);
	if (p->refuse)
		return false;
	p->reader.callbacks = &callbacks;
	p->reader.arg = p;
	if (capsule_read(&p->reader, chunks) != CAPSULE_OK)
		chunks_clear(chunks);
	return true;
}

static void plain_finish(struct leg *leg, const struct head *trailers) { (void)leg, (void)trailers; }

static void plain_taken(struct leg *leg, size_t bytes)
{
	struct plain *p = (struct plain *)leg;
	p->untaken -= bytes < p->untaken ? bytes : p->untaken;
}

static void plain_close(struct leg *leg, enum flow_error error)
{
	struct plain *p = (struct plain *)leg;
	(void)error;
	CHECK(!p->gone);
	p->gone = true;
	leg->flow = NULL;
	capsule_reader_reset(&p->reader);
}

static void plain_joined(struct leg *leg, const struct join *join)
{
	(void)join;
	((struct plain *)leg)->open = true;
}

static bool plain_hand_over(struct leg *leg, struct parcel *parcel)
{
	struct plain *p = (struct plain *)leg;
	static int fd = -1;
	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	p->handed = true;
	*(p->in ? &parcel->record.in_kind : &parcel->record.out_kind) = "udp";
	unsigned *number = parcel_alloc(parcel, sizeof(*number));
	*number = p->number;
	if (p->in)
		parcel->record.key = (struct ipc_bytes){(uint8_t *)number, sizeof(*number)};
	else
		parcel->record.client = (struct ipc_bytes){(uint8_t *)number, sizeof(*number)};
	parcel->fd = fd;
	return true;
}

static const struct leg_ops plain_ops = {.kind = "udp", .head = plain_head, .send = plain_send, .finish = plain_finish,
	.taken = plain_taken, .close = plain_close, .joined = plain_joined, .hand_over = plain_hand_over};

static struct plain *plain_new(bool in, unsigned number)
{
	CHECK(n_plains < PLAINS && number < PLAINS);
	struct plain *p = &plains[n_plains++];
	*p = (struct plain){.leg = {.ops = &plain_ops}, .in = in, .program = &programs[number], .number = number};
	return p;
}

static struct leg *plain_restored(bool in, const struct ipc_bytes *number)
{
	unsigned n;
	if (number->length != sizeof(n))
		return NULL;
	memcpy(&n, number->data, sizeof(n));
	return n < PLAINS && n_plains < PLAINS ? &plain_new(in, n)->leg : NULL;
}

/* --- what the successor has, as far as flows from elsewhere see it ----------------------------------------------------- */

struct bound *listeners_find(struct listeners *listeners, const char *name)
{
	(void)listeners;
	return no_listener || !name || strcmp(name, "l") != 0 ? NULL : &bound;
}

struct udp_listener *listeners_udp(struct listeners *listeners, const char *name)
{
	return listeners_find(listeners, name) ? (struct udp_listener *)&bound : NULL;
}

void bound_hold(struct listener *listener, int change)
{
	(void)listener;
	listener_holds += (unsigned)change;
}

struct leg *udp_listener_restore(struct udp_listener *listener, const struct parcel *parcel)
{
	(void)listener;
	return plain_restored(true, &parcel->record.key);
}

bool udp_listener_begin(struct udp_listener *listener, const struct parcel *parcel)
{
	(void)listener;
	return parcel->record.key.length == sizeof(unsigned);
}

const struct origin *udp_flow_origin(const struct leg *leg)
{
	(void)leg;
	return &world.origin;
}

struct leg *udp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct stats_set *stats, struct parcel *parcel)
{
	(void)tunnel, (void)stats;
	struct leg *leg = plain_restored(false, &parcel->record.client);
	if (parcel->fd >= 0)
		close(parcel->fd);
	parcel->fd = -1;
	if (leg)
		leg->flow = flow;
	return leg;
}

struct ip_network *devices_network(struct devices *devices, const char *device, const char *prefix)
{
	(void)devices, (void)device, (void)prefix;
	return NULL;
}

struct leg *ip_network_restore(struct ip_network *network, const struct parcel *parcel)
{
	(void)network, (void)parcel;
	return NULL;
}

const struct origin *ip_network_origin(const struct leg *leg) { (void)leg; return &world.origin; }

struct leg *ip_exit_restore(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow,
                            const struct parcel *parcel)
{
	(void)tunnel, (void)config, (void)flow, (void)parcel;
	return NULL;
}

struct leg *tcp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct parcel *parcel, bool dialled, bool ended)
{
	(void)tunnel, (void)flow, (void)parcel, (void)dialled, (void)ended;
	return NULL;
}

struct own_origin *worker_link_origin(struct worker_links *links, const char *listener, const char *source, const char *peer)
{
	(void)links, (void)listener, (void)source, (void)peer;
	return own_origin_new(&world.origin);
}

struct stats_set *worker_link_stats(struct worker_links *links) { (void)links; return world.at_once->cluster_stats; }

bool worker_link_owner(const struct flow *flow, const struct config_cluster *cluster, unsigned *index)
{
	(void)flow, (void)cluster, (void)index;
	return false;
}

struct decision *worker_link_decision(struct worker_links *links, const struct origin *link, struct head *request,
                                      struct own_origin **origin, char **user)
{
	(void)links, (void)link, (void)request, (void)origin, (void)user;
	return NULL;
}

struct decision *decision_of_message(struct tunnel *tunnel, const struct ipc_decision *message)
{
	(void)tunnel, (void)message;
	world.at_once->refs++;
	return world.at_once;
}

static void hold(struct listener *listener, int change) { bound_hold(listener, change); }

static void handover_world_begin(void)
{
	world_begin();
	world.config.resume_timeout = 30000;
	world.config.resume_bytes = 1024 * 1024;
	world.origin.hold = hold;
	world.at_once = decision_new();
	bound = (struct bound){.base = world.listener};
	memset(programs, 0, sizeof(programs));
	n_plains = listener_holds = 0;
	no_listener = false;
	next = world.tunnel;
	next.flow_id = 1ull << 20;
}

static void end_flows(struct tunnel *tunnel)
{
	for (struct flow *flow; (flow = tunnel->flows);) {
		flow_enter(flow);
		flow_end(flow, FLOW_NONE, FLOW_NONE);
		flow_leave(flow);
		CHECK(tunnel->flows != flow);
	}
}
#endif
