/* SPDX-License-Identifier: Apache-2.0 */
/* What test_device.c, test_leg_ip.c and test_ip_exit.c stand on: devices whose queues are socket pairs (one message, one packet, as with a TUN
 * device), flows of the test's own that are joined to a leg on one side and to the test, or a second leg, on the other, and a
 * clock. Included once. */
#ifndef HERMES_TESTS_IP_WORLD_H
#define HERMES_TESTS_IP_WORLD_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/ip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/ip_capsule.h"
#include "workers/tunnel/ip_pool.h"
#include "workers/tunnel/ip_text.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/masque.h"

static struct {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_tunnel tunnels[2];
	struct config_network networks[4];
	struct config_cluster clusters[2];
	struct config_pair headers[2];
	int kernel[2];                /* the other end of each device's queue */
	struct fake *flows;
	uint64_t now;
	bool deny_packets;
	unsigned asked;
	char asked_for[64];           /* user and header `service` of the last question */
	struct { void (*done)(void *arg, struct decision *decision); void *arg; } question;
	bool ask_later;
} world;

/* --- what legs ask of others -------------------------------------------------------------------------------------- */

uint64_t now_us(void) { return world.now; }
uint64_t wall_us(void) { return world.now; }
void decision_unref(struct decision *decision) { free(decision); }
void ask_cancel(struct ask_query *query) { (void)query; world.question.done = NULL; }
struct own_origin *own_origin_new(const struct origin *origin) { (void)origin; return NULL; }
void own_origin_free(struct own_origin *own) { (void)own; }
const struct origin *own_origin_get(const struct own_origin *own) { (void)own; return NULL; }

static struct decision *verdict(void)
{
	struct decision *d = calloc(1, sizeof(*d));
	*d = (struct decision){.refs = 1, .status = world.deny_packets ? 403 : 0, .valid_until = UINT64_MAX};
	return d;
}

struct decision *ask_inner(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                           const struct ask_inner *inner, struct ask_query **query,
                           void (*done)(void *arg, struct decision *decision), void *arg)
{
	const char *service = head_get(request, "service");
	(void)ask, (void)origin, (void)inner;
	world.asked++;
	snprintf(world.asked_for, sizeof(world.asked_for), "%s %s", user ? user : "-", service ? service : "-");
	if (!world.ask_later)
		return verdict();
	world.question.done = done;
	world.question.arg = arg;
	*query = (struct ask_query *)&world.question;
	return NULL;
}

/* --- flows -------------------------------------------------------------------------------------------------------- */

/* Between an in leg and an out leg, or one of them and the test. */
struct fake {
	struct flow flow;             /* first */
	struct fake *next;
	struct chunks up, down;       /* what the missing or refusing side has not got yet */
	struct head *request;
	unsigned gave[2];             /* calls of flow_data: up, down */
	bool keep;                    /* nothing is taken: what comes stays in up or down */
	bool ended[2], broken;
	char detail[160];
};

static struct fake *fake_of(struct flow *flow) { return (struct fake *)flow; }

static struct fake *fake_new(struct head *request)
{
	static struct config_listener config = {.name = (char *)"l", .accept = CONFIG_OVERLAY};
	static struct listener listener = {.name = "l", .config = &config};
	static struct origin origin = {.listener = &listener, .source_text = "192.0.2.9"};
	struct fake *f = calloc(1, sizeof(*f)), **last = &world.flows;
	f->flow.origin = &origin;
	f->flow.tunnel = &world.tunnel;
	f->request = f->flow.request = request;
	while (*last)
		last = &(*last)->next;
	*last = f;
	return f;
}

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	struct fake *f = fake_new(request);
	(void)tunnel, (void)end;
	f->flow.origin = origin;
	f->flow.in = leg;
	leg->flow = &f->flow;
	return &f->flow;
}

const struct head *flow_request(const struct flow *flow) { return flow->request; }

static void move(struct fake *f, bool up)
{
	struct chunks *held = up ? &f->up : &f->down;
	struct leg *far = up ? f->flow.out : f->flow.in, *near = up ? f->flow.in : f->flow.out;
	size_t bytes = held->bytes;
	if (!far || f->keep || !held->head || !far->ops->send(far, held))
		return;
	assert_int_equal(held->bytes, 0);
	if (near)
		near->ops->taken(near, bytes);
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	struct fake *f = fake_of(flow);
	bool up = leg == flow->in;
	assert_false(f->ended[!up]);
	f->gave[!up]++;
	chunks_move(up ? &f->up : &f->down, chunks);
	move(f, up);
}

void flow_writable(struct flow *flow, struct leg *leg) { move(fake_of(flow), leg == flow->out); }

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	struct fake *f = fake_of(flow);
	bool up = leg == flow->in;
	struct leg *far = up ? flow->out : flow->in;
	assert_null(trailers);
	if (f->ended[!up])
		return;
	f->ended[!up] = true;
	if (far)
		far->ops->finish(far, NULL);
}

static inline void fake_join(struct fake *f, bool fresh, bool segments)
{
	struct join join = {.fresh = fresh, .segments = segments};
	if (f->flow.out)
		f->flow.out->ops->joined(f->flow.out, &join);
	if (f->flow.in)
		f->flow.in->ops->joined(f->flow.in, &join);
}

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	(void)leg, (void)end;
	flow->status = response->status;
	if (flow->in)
		flow->in->ops->head(flow->in, response, false);
	head_free(response);
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	struct fake *f = fake_of(flow);
	(void)error;
	f->broken = true;
	snprintf(f->detail, sizeof(f->detail), "%s", detail);
	if (leg == flow->in)
		flow->in = NULL;
	else
		flow->out = NULL;
}

/* Both legs of the flow hear that it is over. */
static void fake_end(struct fake *f, enum flow_error error)
{
	struct fake **link = &world.flows;
	struct leg *in = f->flow.in, *out = f->flow.out;
	f->flow.in = f->flow.out = NULL;
	if (in)
		in->ops->close(in, error);
	if (out)
		out->ops->close(out, error);
	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	chunks_clear(&f->up);
	chunks_clear(&f->down);
	head_free(f->request);
	free(f);
}

static inline struct fake *flow_at(unsigned i)
{
	struct fake *f = world.flows;
	while (f && i-- > 0)
		f = f->next;
	return f;
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

static struct in6_addr address(const char *text)
{
	struct config_prefix prefix;
	assert_int_equal(config_prefix_parse(text, &prefix, NULL), 0);
	return prefix.address;
}

static struct config_prefix prefix_of(const char *text)
{
	struct config_prefix prefix;
	assert_int_equal(config_prefix_parse(text, &prefix, NULL), 0);
	return prefix;
}

/* A UDP packet of `length` bytes in all (IPv4: don't fragment). */
static size_t make_packet(uint8_t *out, const char *from, const char *to, uint8_t ttl, size_t length)
{
	struct in6_addr a = address(from), b = address(to);
	bool v4 = IN6_IS_ADDR_V4MAPPED(&a);
	size_t header = v4 ? 20 : 40;
	memset(out, 0, length);
	if (v4) {
		out[0] = 0x45, out[2] = (uint8_t)(length >> 8), out[3] = (uint8_t)length, out[6] = 0x40, out[8] = ttl, out[9] = IPPROTO_UDP;
		memcpy(out + 12, a.s6_addr + 12, 4);
		memcpy(out + 16, b.s6_addr + 12, 4);
		uint16_t sum = ip_checksum(out, 20);
		out[10] = (uint8_t)(sum >> 8), out[11] = (uint8_t)sum;
	} else {
		out[0] = 0x60, out[4] = (uint8_t)((length - 40) >> 8), out[5] = (uint8_t)(length - 40), out[6] = IPPROTO_UDP, out[7] = ttl;
		memcpy(out + 8, a.s6_addr, 16);
		memcpy(out + 24, b.s6_addr, 16);
	}
	out[header] = 4, out[header + 2] = 5;   /* ports 1024 and 1280 */
	out[header + 4] = (uint8_t)((length - header) >> 8), out[header + 5] = (uint8_t)(length - header);
	return length;
}

/* What a router at `router` says about a packet from one to the other. */
static inline size_t make_icmp_error(uint8_t *out, const char *router, const char *from, const char *to)
{
	uint8_t packet[256];
	struct in6_addr own = address(router);
	struct ip_packet ip;
	size_t length = make_packet(packet, from, to, 64, 100);
	assert_null(ip_parse(packet, length, &ip));
	return ip_icmp_error(out, IP_TIME_EXCEEDED, 0, packet, length, &ip, &own);
}

static inline size_t make_echo_request(uint8_t *out, const char *from, const char *to)
{
	size_t length = make_packet(out, from, to, 64, 60);
	bool v4 = out[0] == 0x45;
	out[v4 ? 9 : 6] = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	out[v4 ? 20 : 40] = v4 ? 8 : 128;
	if (v4) {
		out[10] = 0, out[11] = 0;
		uint16_t sum = ip_checksum(out, 20);
		out[10] = (uint8_t)(sum >> 8), out[11] = (uint8_t)sum;
	}
	return length;
}

/* What the machine's own stack sends into the device. */
static void kernel_sends(unsigned device, const struct virtio_net_hdr *header, const uint8_t *packet, size_t length)
{
	static const struct virtio_net_hdr none;
	struct iovec v[2] = {{(void *)(header ? header : &none), VNET_HEADER}, {(void *)packet, length}};
	assert_int_equal(writev(world.kernel[device], v, 2), VNET_HEADER + length);
}

/* The next packet that the device got; 0: none. */
static size_t kernel_gets(unsigned device, struct virtio_net_hdr *header, uint8_t *packet, size_t size)
{
	struct virtio_net_hdr h;
	struct iovec v[2] = {{header ? header : &h, VNET_HEADER}, {packet, size}};
	ssize_t n = readv(world.kernel[device], v, 2);
	if (n < 0)
		return assert_int_equal(errno, EAGAIN), 0;
	return (size_t)n - VNET_HEADER;
}

static void turn(void)
{
	for (int i = 0; i < 4; i++)
		event_base_loop(world.base, EVLOOP_NONBLOCK);
}

static inline void send_udp(unsigned device, const char *from, const char *to, uint8_t ttl, size_t length)
{
	uint8_t packet[65536];
	kernel_sends(device, NULL, packet, make_packet(packet, from, to, ttl, length));
	turn();
}

/* Reads one packet and says where it goes, its protocol and ICMP type: "10.0.0.1 17", "10.8.0.2 1/11"; "" where none came. */
static inline const char *got(unsigned device)
{
	static char text[80];
	char to[IP_TEXT];
	uint8_t packet[65600];
	struct ip_packet ip;
	size_t n = kernel_gets(device, NULL, packet, sizeof(packet));
	if (n == 0)
		return "";
	if (ip_parse(packet, n, &ip))
		return "malformed";
	bool icmp = ip.protocol == IPPROTO_ICMP || ip.protocol == IPPROTO_ICMPV6;
	snprintf(text, sizeof(text), icmp ? "%s %u/%u" : "%s %u", ip_text(&ip.destination, to), ip.protocol, ip.icmp_type);
	return text;
}

/* --- set-up ------------------------------------------------------------------------------------------------------- */

static char *own_addresses[] = {(char *)"10.8.0.2/24", (char *)"fd00:8::2/64"}, *far_addresses[] = {(char *)"10.8.0.1/24"};
static struct config_prefix pool[2], advertise[2];

/* hermes0: a client's device with the network 10.0.0.0/24. hermes1: the device of the cluster "exit". */
static int world_begin(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	world.base = event_base_new();
	world.now = 1000000000;
	pool[0] = prefix_of("10.8.0.0/24"), pool[1] = prefix_of("fd00:8::/64");
	advertise[0] = prefix_of("10.0.0.0/8"), advertise[1] = prefix_of("fd00::/16");
	world.networks[0] = (struct config_network){.prefix = prefix_of("10.0.0.0/24")};
	world.networks[1] = (struct config_network){.prefix = prefix_of("fd00:1::/64")};
	world.tunnels[0] = (struct config_tunnel){.name = (char *)"hermes0", .addresses = {own_addresses, 2}, .mtu = 1400, .queues = 1,
	                                          .networks = world.networks, .n_networks = 1};
	world.tunnels[1] = (struct config_tunnel){.name = (char *)"hermes1", .addresses = {far_addresses, 1}, .mtu = 1400, .queues = 1};
	world.clusters[0] = (struct config_cluster){.name = (char *)"exit", .carry = CONFIG_CARRY_IP, .device = (char *)"hermes1",
	                                            .pool = {pool, 2}, .advertise = {advertise, 2}};
	world.config = (struct config){.node_name = (char *)"node", .datagram_queue = 1 << 20, .datagram_age = 2000,
	                               .tunnels = world.tunnels, .n_tunnels = 2, .clusters = world.clusters, .n_clusters = 1,
	                               .cache_entries = 1000};
	world.generation = (struct generation){.number = 1, .refs = 1000000, .config = &world.config};
	world.tunnel = (struct tunnel){.base = world.base, .stats = stats_new(16), .current = &world.generation};
	world.tunnel.self = stats_set(world.tunnel.stats, STATS_WORKER, "tunnel-0");
	world.tunnel.devices = devices_new(&world.tunnel);
	world.tunnel.current = NULL;                    /* the queues come before the commit */
	for (unsigned i = 0; i < 2; i++) {
		int pair[2], size = 1 << 20;
		struct ipc_tun_queue message = {.generation = 1, .device = world.tunnels[i].name, .queues = 1, .mtu = 1400};
		assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		world.kernel[i] = pair[0];
		devices_add_queue(world.tunnel.devices, &message, pair[1]);
	}
	world.tunnel.current = &world.generation;
	return 0;
}

static void world_commit(void)
{
	devices_commit(world.tunnel.devices);
	turn();
}

static int world_end(void **state)
{
	(void)state;
	while (world.flows)
		fake_end(world.flows, FLOW_NONE);
	devices_free(world.tunnel.devices);
	while (world.flows)
		fake_end(world.flows, FLOW_NONE);
	turn();
	assert_true(slab_in_use() <= SLAB_SIZE);
	assert_int_equal(world.generation.refs, 1000000);
	close(world.kernel[0]), close(world.kernel[1]);
	stats_free(world.tunnel.stats);
	event_base_free(world.base);
	return 0;
}

#endif
