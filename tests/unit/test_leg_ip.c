/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of an IP tunnel (RFC 9484): against the test as the other end, and joined to one another. */
#include "tests/unit/ip_world.h"

#include "ipc/json.h"
#include "workers/tunnel/ip_segment.h"
#include "workers/tunnel/resolve.h"

/* --- the test as the other end -------------------------------------------------------------------------------------------------- */

/* What the leg gave: capsules one after another. */
static struct seen {
	struct ip_assigned addresses[IP_CAPSULE_ENTRIES];
	struct ip_route routes[64];
	unsigned n_addresses, n_routes, requests, assigns, advertisements, packets, segments, answers, given;
	uint8_t packet[65600];
	size_t length;
	struct ip_packet ip;
	const char *wrong;
} seen;

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	(void)arg;
	seen.length = 0;
	for (unsigned i = 0; i < n; seen.length += pieces[i++].length)
		memcpy(seen.packet + seen.length, pieces[i].data, pieces[i].length);
	assert_int_equal(seen.length, length);
	seen.packets += context == CONTEXT_PAYLOAD;
	seen.segments += context == CONTEXT_SEGMENTS;
	if (context == CONTEXT_PAYLOAD)
		seen.wrong = ip_parse(seen.packet, seen.length, &seen.ip);
	return true;
}

static bool on_capsule(void *arg, uint64_t type, const uint8_t *value, size_t length)
{
	(void)arg;
	seen.requests += type == CAPSULE_ADDRESS_REQUEST;
	seen.assigns += type == CAPSULE_ADDRESS_ASSIGN;
	seen.advertisements += type == CAPSULE_ROUTE_ADVERTISEMENT;
	if (type == CAPSULE_ROUTE_ADVERTISEMENT)
		assert_null(ip_routes_get(value, length, seen.routes, 64, &seen.n_routes));
	else
		assert_null(ip_addresses_get(value, length, type == CAPSULE_ADDRESS_REQUEST, seen.addresses, IP_CAPSULE_ENTRIES,
		                             &seen.n_addresses));
	for (unsigned i = 0; i < seen.n_addresses && type == CAPSULE_ADDRESS_ASSIGN; i++) {
		char text[IP_TEXT];
		seen.answers += seen.addresses[i].request > 0;
		seen.given += seen.addresses[i].request > 0 && strncmp(ip_prefix_text(&seen.addresses[i].prefix, text), "0.", 2) != 0;
	}
	return true;
}

/* Everything that came since the last look. */
static void look(struct fake *f, bool up)
{
	static const struct capsule_callbacks callbacks = {.datagram = on_datagram, .capsule = on_capsule};
	struct capsule_reader reader = {.callbacks = &callbacks, .control_max = IP_CAPSULE_MAX};
	struct chunks *held = up ? &f->up : &f->down;
	struct leg *near = up ? f->flow.in : f->flow.out;
	size_t bytes = held->bytes;
	memset(&seen, 0, offsetof(struct seen, packet));
	seen.wrong = NULL;
	assert_int_equal(capsule_read(&reader, held), CAPSULE_OK);
	assert_true(capsule_read_end(&reader));
	if (near && bytes)
		near->ops->taken(near, bytes);
}

static bool say(struct leg *leg, struct chunks *chunks)
{
	bool taken = leg->ops->send(leg, chunks);
	chunks_clear(chunks);
	turn();
	return taken;
}

static void say_packet(struct leg *leg, const char *from, const char *to, uint8_t ttl, size_t length)
{
	struct chunks chunks = {0};
	uint8_t packet[65536];
	make_packet(packet, from, to, ttl, length);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, length);
	assert_true(say(leg, &chunks));
}

static bool say_capsule(struct leg *leg, uint64_t type, const void *value, size_t length)
{
	struct chunks chunks = {0};
	capsule_put(&chunks, type, value, length);
	return say(leg, &chunks);
}

static void say_addresses(struct leg *leg, uint64_t type, const struct ip_assigned *v, unsigned n)
{
	uint8_t value[64 * 34 + 16];
	assert_true(say_capsule(leg, type, value, ip_addresses_put(value, v, n)));
}

static struct ip_assigned asking(uint64_t id, const char *text)
{
	return (struct ip_assigned){id, prefix_of(text)};
}

static const char *told(unsigned i)
{
	static char text[4][IP_TEXT];
	return ip_prefix_text(&seen.addresses[i].prefix, text[i % 4]);
}

/* --- the client end ---------------------------------------------------------------------------------------------------------------- */

static struct fake *network_open(bool segments)
{
	world_commit();
	struct fake *f = flow_at(0);
	assert_non_null(f);
	fake_join(f, true, segments);
	turn();
	return f;
}

static void test_network_begins(void **state)
{
	(void)state;
	world.headers[0] = (struct config_pair){(char *)"user", (char *)"alice"};
	world.networks[0].add_headers = (struct config_pairs){world.headers, 1};
	world_commit();
	struct fake *f = flow_at(0);
	assert_null(flow_at(1));
	assert_true(masque_is_ip(f->request));
	assert_string_equal(f->request->authority, "10.0.0.0/24");
	assert_non_null(head_get(f->request, IP_CLIENT_HEADER));
	assert_string_equal(f->flow.origin->listener->name, "hermes0");
	assert_string_equal(f->flow.origin->listener->config->add_headers.v[0].value, "alice");
	/* what comes before the tunnel is open waits, and follows the request for our address */
	for (int i = 0; i < 3; i++)
		send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	assert_int_equal(f->up.bytes, 0);
	fake_join(f, true, false);
	turn();
	assert_int_equal(f->gave[0], 1);
	look(f, true);
	assert_int_equal(seen.requests, 1);
	assert_int_equal(seen.n_addresses, 1);
	assert_string_equal(told(0), "10.8.0.2/32");
	assert_true(seen.addresses[0].request > 0);
	assert_int_equal(seen.packets, 3);
	assert_int_equal(seen.ip.ttl, 64);          /* our own packets are not decremented */
}

static void test_network_batches(void **state)
{
	struct fake *f = network_open(false);
	uint8_t packet[200];
	(void)state;
	look(f, true);
	unsigned before = f->gave[0];
	for (int i = 0; i < 20; i++)
		kernel_sends(0, NULL, packet, make_packet(packet, "10.8.0.2", "10.0.0.1", 64, 200));
	turn();
	assert_int_equal(f->gave[0], before + 1);
	look(f, true);
	assert_int_equal(seen.packets, 20);
}

static void test_network_ttl(void **state)
{
	struct fake *f = network_open(false);
	(void)state;
	look(f, true);
	send_udp(0, "192.168.7.7", "10.0.0.1", 9, 100);    /* passing through this machine */
	look(f, true);
	assert_int_equal(seen.ip.ttl, 8);
	send_udp(0, "192.168.7.7", "10.0.0.1", 1, 100);
	look(f, true);
	assert_int_equal(seen.packets, 0);
	assert_string_equal(got(0), "192.168.7.7 1/11");
	send_udp(0, "10.8.0.2", "10.0.0.1", 1, 100);
	look(f, true);
	assert_int_equal(seen.ip.ttl, 1);
}

static void test_network_backpressure(void **state)
{
	struct fake *f = network_open(false);
	struct device *d = device_find(world.tunnel.devices, "hermes0");
	(void)state;
	look(f, true);
	for (int i = 0; i < 200; i++)                      /* 1.2 MB: more than a reader may have under way, less than with the queue */
		send_udp(0, "10.8.0.2", "10.0.0.1", 64, 6000);
	assert_true(f->up.bytes <= SLAB_SIZE + 6100);
	assert_int_equal(d->drops[DEVICE_DROP_QUEUE], 0);
	unsigned packets = 0;
	for (int i = 0; i < 20; i++) {
		look(f, true);
		packets += seen.packets;
		turn();
	}
	assert_int_equal(packets, 200);
	/* and what waits longer than 2 s is of no use to anybody */
	f->keep = true;
	for (int i = 0; i < 200; i++)
		send_udp(0, "10.8.0.2", "10.0.0.1", 64, 6000);
	world.now += 3000000;
	packets = 0;
	for (int i = 0; i < 20; i++) {
		look(f, true);
		packets += seen.packets;
		turn();
	}
	assert_true(packets > 20 && packets < 60);
}

static void test_network_segments(void **state)
{
	struct fake *f = network_open(true);
	uint8_t packet[8000];
	struct virtio_net_hdr gso = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, .hdr_len = 28,
	                             .gso_size = 1000, .csum_start = 20, .csum_offset = 6};
	(void)state;
	look(f, true);
	make_packet(packet, "10.8.0.2", "10.0.0.1", 64, 3528);
	kernel_sends(0, &gso, packet, 3528);
	turn();
	look(f, true);
	assert_int_equal(seen.segments, 1);
	assert_int_equal(seen.packets, 0);
	assert_int_equal(seen.length, VNET_HEADER + 3528);
	assert_memory_equal(seen.packet, &gso, VNET_HEADER);
	assert_memory_equal(seen.packet + VNET_HEADER, packet, 3528);
	/* the far end goes on elsewhere, where nobody knows segments */
	fake_join(f, true, false);
	turn();
	look(f, true);
	assert_int_equal(seen.requests, 1);             /* told again */
	kernel_sends(0, &gso, packet, 3528);
	turn();
	look(f, true);
	assert_int_equal(seen.segments, 0);
	assert_int_equal(seen.packets, 4);
	assert_null(seen.wrong);
	assert_int_equal(seen.ip.length, 528);
	assert_int_equal(ip_upper_checksum(&seen.ip, seen.packet + seen.ip.header, seen.ip.length - seen.ip.header), 0);
}

static void test_network_routes(void **state)
{
	struct fake *f = network_open(false);
	struct config_prefix only = prefix_of("10.0.0.16/28");
	struct ip_route route = ip_route_of(&only, 0);
	uint8_t value[64];
	(void)state;
	look(f, true);
	assert_true(say_capsule(f->flow.in, CAPSULE_ROUTE_ADVERTISEMENT, value, ip_routes_put(value, &route, 1)));
	send_udp(0, "10.8.0.2", "10.0.0.17", 64, 100);
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.packets, 1);
	assert_string_equal(got(0), "10.8.0.2 1/3");
	assert_true(say_capsule(f->flow.in, CAPSULE_ROUTE_ADVERTISEMENT, value, ip_routes_put(value, &route, 0)));
	send_udp(0, "10.8.0.2", "10.0.0.17", 64, 100);       /* all withdrawn */
	assert_string_equal(got(0), "10.8.0.2 1/3");
	/* a new far end has not said anything yet */
	fake_join(f, true, false);
	turn();
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.packets, 1);
}

static void test_network_writes(void **state)
{
	struct fake *f = network_open(false);
	struct device *d = device_find(world.tunnel.devices, "hermes0");
	(void)state;
	look(f, true);
	say_packet(f->flow.in, "10.0.0.1", "10.8.0.2", 5, 100);
	assert_string_equal(got(0), "10.8.0.2 17");
	say_packet(f->flow.in, "10.66.0.1", "10.8.0.2", 5, 100);   /* not from the network */
	assert_string_equal(got(0), "");
	assert_int_equal(d->drops[DEVICE_DROP_SPOOFED], 1);
	say_packet(f->flow.in, "10.0.0.1", "10.8.0.2", 5, 1401);   /* longer than the device's MTU */
	assert_string_equal(got(0), "");
	look(f, true);
	assert_int_equal(seen.packets, 1);
	assert_int_equal(seen.ip.icmp_type, 3);
	assert_int_equal(seen.ip.icmp_code, 4);
	assert_int_equal(seen.packet[26] << 8 | seen.packet[27], 1400);
}

static void test_network_assigned(void **state)
{
	struct config_prefix assigned[4];
	struct ip_network *n;
	(void)state;
	world.tunnels[0].addresses.n = 0;
	world.tunnels[0].assigned = true;
	struct fake *f = network_open(false);
	n = device_find(world.tunnel.devices, "hermes0")->networks->network;
	look(f, true);
	assert_string_equal(told(0), "0.0.0.0/32");
	struct ip_assigned answer = asking(seen.addresses[0].request, "10.8.0.77/32");
	say_addresses(f->flow.in, CAPSULE_ADDRESS_ASSIGN, &answer, 1);
	assert_int_equal(ip_network_assigned(n, assigned, 4), 1);
	assert_true(device_is_own(device_find(world.tunnel.devices, "hermes0"), &answer.prefix.address));
	/* the same is asked for again at a new far end; where that refuses, any will do */
	fake_join(f, true, false);
	turn();
	look(f, true);
	assert_string_equal(told(0), "10.8.0.77/32");
	answer = asking(seen.addresses[0].request, "0.0.0.0/32");
	say_addresses(f->flow.in, CAPSULE_ADDRESS_ASSIGN, &answer, 1);
	assert_int_equal(ip_network_assigned(n, assigned, 4), 0);
	look(f, true);
	assert_int_equal(seen.requests, 1);
	assert_string_equal(told(0), "0.0.0.0/32");
	answer = asking(seen.addresses[0].request, "0.0.0.0/32");
	say_addresses(f->flow.in, CAPSULE_ADDRESS_ASSIGN, &answer, 1);
	look(f, true);
	assert_int_equal(seen.requests, 0);             /* and then we do not ask for ever */
}

static void test_network_asked_for_addresses(void **state)
{
	struct fake *f = network_open(false);
	struct ip_assigned requests[2] = {asking(7, "10.1.1.1/32"), asking(9, "::/128")};
	(void)state;
	look(f, true);
	say_addresses(f->flow.in, CAPSULE_ADDRESS_REQUEST, requests, 2);
	look(f, true);
	assert_int_equal(seen.n_addresses, 2);
	assert_int_equal(seen.addresses[0].request, 7);
	assert_string_equal(told(0), "0.0.0.0/32");
	assert_int_equal(seen.addresses[1].request, 9);
	assert_string_equal(told(1), "::/128");
}

static void test_network_malformed(void **state)
{
	static const struct { uint64_t type; uint8_t value[24]; size_t length; } bad[] = {
		{CAPSULE_ADDRESS_ASSIGN, {0, 5, 1, 2, 3, 4, 32}, 7},
		{CAPSULE_ADDRESS_ASSIGN, {0, 4, 10, 0, 0, 1, 24}, 7},
		{CAPSULE_ADDRESS_ASSIGN, {0, 4, 10, 0, 0}, 5},
		{CAPSULE_ADDRESS_REQUEST, {0}, 0},
		{CAPSULE_ADDRESS_REQUEST, {0, 4, 0, 0, 0, 0, 32}, 7},
		{CAPSULE_ROUTE_ADVERTISEMENT, {4, 10, 0, 0, 9, 10, 0, 0, 1, 0}, 10},
		{CAPSULE_ROUTE_ADVERTISEMENT, {4, 10, 0, 0, 1, 10, 0, 0, 9, 0, 4, 10, 0, 0, 9, 10, 0, 0, 12, 0}, 20},
	};
	(void)state;
	world_commit();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		world.now += 60000000;
		while (!flow_at(0))
			event_base_loop(world.base, EVLOOP_ONCE);
		struct fake *f = flow_at(0);
		fake_join(f, true, false);
		turn();
		say_capsule(f->flow.in, bad[i].type, bad[i].value, bad[i].length);
		assert_true(f->broken);
		fake_end(f, FLOW_NONE);
	}
}

static void test_network_tries_again(void **state)
{
	struct head *no = head_new();
	struct json json = JSON_INIT;
	(void)state;
	world_commit();
	struct fake *f = flow_at(0);
	no->status = 403;
	head_add(no, "proxy-status", "node; error=http_request_denied");
	f->flow.in->ops->head(f->flow.in, no, true);
	head_free(no);
	fake_end(f, FLOW_NONE);
	assert_null(flow_at(0));
	devices_json(world.tunnel.devices, &json);
	assert_non_null(strstr(json.data, "\"state\":\"BACKING_OFF\""));
	assert_non_null(strstr(json.data, "http_request_denied"));
	json_free(&json);
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	for (int i = 0; i < 5; i++) {                   /* 0.1 s, 0.2 s, ... of real time: libevent's */
		while (!flow_at(0))
			event_base_loop(world.base, EVLOOP_ONCE);
		if (i < 2)
			fake_end(flow_at(0), FLOW_TERMINATED);
		else
			break;
	}
	fake_join(flow_at(0), true, false);
	turn();
	look(flow_at(0), true);
	assert_int_equal(seen.packets, 1);              /* it waited */
}

static void test_network_changes(void **state)
{
	struct fake *f = network_open(false);
	(void)state;
	look(f, true);
	world_commit();                                 /* nothing changed */
	assert_null(flow_at(1));
	struct config_network changed[1] = {world.networks[0]};
	world.headers[0] = (struct config_pair){(char *)"user", (char *)"bob"};
	changed[0].add_headers = (struct config_pairs){world.headers, 1};
	world.tunnels[0].networks = changed;
	world_commit();
	struct fake *g = flow_at(1);
	assert_non_null(g);
	assert_string_equal(g->flow.origin->listener->config->add_headers.v[0].value, "bob");
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);  /* still the former way */
	look(f, true);
	assert_int_equal(seen.packets, 1);
	fake_join(g, true, false);
	turn();
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.packets, 0);
	look(g, true);
	assert_int_equal(seen.requests, 1);
	assert_int_equal(seen.packets, 1);
	assert_true(f->ended[0]);
	say_packet(f->flow.in, "10.0.0.1", "10.8.0.2", 64, 100);   /* what is still under way the old way arrives */
	assert_string_equal(got(0), "10.8.0.2 17");
	fake_end(f, FLOW_NONE);
	world.tunnels[0].n_networks = 0;
	world_commit();
	assert_true(g->ended[0]);
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	assert_string_equal(got(0), "10.8.0.2 1/3");
	fake_end(g, FLOW_NONE);
	assert_null(flow_at(0));
}

static void test_network_policy(void **state)
{
	struct fake *f = network_open(false);
	(void)state;
	look(f, true);
	world.config.examines.ip = true;
	world.ask_later = true;
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.packets, 0);
	assert_int_equal(world.asked, 1);
	world.question.done(world.question.arg, verdict());
	turn();
	look(f, true);
	assert_int_equal(seen.packets, 2);
	say_packet(f->flow.in, "10.0.0.1", "10.8.0.2", 64, 100);
	assert_int_equal(world.asked, 2);                      /* other ports than the answer's: a flow of its own */
	world.deny_packets = true;
	world.question.done(world.question.arg, verdict());
	turn();
	look(f, true);
	assert_int_equal(seen.ip.icmp_type, 3);
	assert_int_equal(seen.ip.icmp_code, 13);
	assert_string_equal(got(0), "");
}

static void test_network_over_udp(void **state)
{
	uint8_t packet[8000];
	struct virtio_net_hdr gso = {.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .hdr_len = 28,
	                             .gso_size = 1000, .csum_start = 20, .csum_offset = 6};
	(void)state;
	world.networks[0].over_udp = (struct config_address){.text = (char *)"192.0.2.1:4500", .host = (char *)"192.0.2.1", .port = 4500};
	struct fake *f = network_open(true);
	assert_true(masque_is_udp(f->request));
	assert_string_equal(f->request->authority, "192.0.2.1:4500");
	kernel_sends(0, &gso, packet, make_packet(packet, "10.8.0.2", "10.0.0.1", 64, 3528));
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.requests, 0);
	assert_int_equal(seen.segments, 1);             /* a run: 1,028 bytes each, the last 528 */
	assert_int_equal(seen.packets, 1);
	/* and back */
	struct chunks chunks = {0};
	uint8_t run[2100], size[2] = {1028 >> 8, 1028 & 255};
	make_packet(run, "10.0.0.1", "10.8.0.2", 64, 1028);
	make_packet(run + 1028, "10.0.0.1", "10.8.0.2", 64, 500);
	capsule_put_datagram(&chunks, CONTEXT_SEGMENTS, size, 2, run, 1528);
	assert_true(say(f->flow.in, &chunks));
	assert_int_equal(kernel_gets(0, NULL, packet, sizeof(packet)), 1028);
	assert_int_equal(kernel_gets(0, NULL, packet, sizeof(packet)), 500);
}

/* --- the far end --------------------------------------------------------------------------------------------------------------------- */

static struct fake *exit_begin(struct head *request, const char *user)
{
	enum flow_error error;
	const char *detail;
	if (user)
		head_set(request, "user", user);
	struct fake *f = fake_new(request);
	struct leg *leg = ip_exit_new(&world.tunnel, &world.clusters[0], &f->flow, &error, &detail);
	if (!leg) {
		f->flow.error = error;
		return f;
	}
	f->flow.out = leg;
	leg->ops->head(leg, request, false);
	return f;
}

static struct fake *exit_open(const char *target, int protocol, const char *user)
{
	world.tunnels[0].n_networks = 0;
	if (!device_find(world.tunnel.devices, "hermes1"))
		world_commit();
	struct fake *f = exit_begin(masque_ip_request(target, protocol), user);
	assert_int_equal(f->flow.status, 200);
	fake_join(f, true, false);
	turn();
	return f;
}

/* With the address 10.8.0.2, and the answer looked at. */
static struct fake *exit_with_address(const char *target, int protocol)
{
	struct fake *f = exit_open(target, protocol, "alice");
	struct ip_assigned request = asking(1, "10.8.0.2/32");
	say_addresses(f->flow.out, CAPSULE_ADDRESS_REQUEST, &request, 1);
	look(f, false);
	assert_string_equal(told(0), "10.8.0.2/32");
	return f;
}

static void test_exit_gives_addresses(void **state)
{
	struct fake *f = exit_open("*", -1, "alice"), *g = exit_open("*", -1, "bob");
	struct ip_assigned two[3] = {asking(5, "0.0.0.0/32"), asking(6, "::/128"), asking(8, "192.0.2.1/32")}, same;
	(void)state;
	look(f, false);
	assert_int_equal(seen.advertisements, 1);
	assert_int_equal(seen.n_routes, 2);
	say_addresses(f->flow.out, CAPSULE_ADDRESS_REQUEST, two, 3);
	look(f, false);
	assert_int_equal(seen.assigns, 1);
	assert_int_equal(seen.n_addresses, 3);
	assert_int_equal(seen.addresses[0].request, 5);
	assert_true(config_prefix_contains(&pool[0], &seen.addresses[0].prefix.address));
	assert_int_equal(seen.addresses[1].request, 6);
	assert_true(config_prefix_contains(&pool[1], &seen.addresses[1].prefix.address));
	assert_int_equal(seen.addresses[2].request, 8);
	assert_string_equal(told(2), "0.0.0.0/32");         /* refused (RFC 9484 4.7.2) */
	same = (struct ip_assigned){9, seen.addresses[0].prefix};
	say_addresses(g->flow.out, CAPSULE_ADDRESS_REQUEST, &same, 1);
	look(g, false);
	assert_string_equal(told(0), "0.0.0.0/32");         /* another user's */
	fake_end(f, FLOW_NONE);
	same.request = 10;
	say_addresses(g->flow.out, CAPSULE_ADDRESS_REQUEST, &same, 1);
	look(g, false);
	assert_int_equal(seen.addresses[0].request, 10);
	assert_false(strcmp(told(0), "0.0.0.0/32") == 0);
}

static void test_exit_many_requests(void **state)
{
	struct fake *f = exit_open("*", -1, NULL);
	struct chunks chunks = {0};
	(void)state;
	look(f, false);
	for (unsigned i = 0; i < 10000; i++) {
		uint8_t value[40];
		struct ip_assigned a = asking(i + 1, "0.0.0.0/32");
		capsule_put(&chunks, CAPSULE_ADDRESS_REQUEST, value, ip_addresses_put(value, &a, 1));
	}
	assert_true(say(f->flow.out, &chunks));
	look(f, false);
	assert_int_equal(seen.answers, 10000);
	assert_int_equal(seen.given, IP_ADDRESSES);
	/* who asks and does not listen has to wait */
	f->keep = true;
	bool taken = true;
	for (int k = 0; k < 100 && taken; k++) {
		for (unsigned i = 0; i < 10000; i++) {
			uint8_t value[40];
			struct ip_assigned a = asking(i + 1, "0.0.0.0/32");
			capsule_put(&chunks, CAPSULE_ADDRESS_REQUEST, value, ip_addresses_put(value, &a, 1));
		}
		taken = say(f->flow.out, &chunks);
	}
	assert_false(taken);
	assert_true(f->down.bytes < 2 * 1024 * 1024);
}

static void test_exit_checks_sources(void **state)
{
	struct fake *f = exit_with_address("*", -1);
	struct device *d = device_find(world.tunnel.devices, "hermes1");
	(void)state;
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "10.0.0.1 17");
	for (const char *const *bad = (const char *const[]){"10.8.0.3", "127.0.0.1", "10.0.0.1", NULL}; *bad; bad++)
		say_packet(f->flow.out, *bad, "10.0.0.1", 7, 100);
	say_packet(f->flow.out, "fd00:8::9", "fd00:1::1", 7, 100);
	assert_string_equal(got(1), "");
	look(f, false);
	assert_int_equal(seen.packets, 0);                  /* no reply to whom it was not */
	assert_int_equal(d->drops[DEVICE_DROP_SPOOFED], 4);
}

/* Configured with an address, and nothing asked for: it is given by use, unless it is another's. */
static void test_exit_learns_addresses(void **state)
{
	struct fake *f = exit_open("*", -1, "alice"), *g = exit_open("*", -1, "bob");
	struct ip_assigned request = asking(1, "0.0.0.0/32");
	(void)state;
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "10.0.0.1 17");
	say_packet(f->flow.out, "10.77.0.2", "10.0.0.1", 7, 100);
	say_packet(g->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "");
	send_udp(1, "10.0.0.1", "10.8.0.2", 7, 100);
	look(f, false);
	assert_int_equal(seen.packets, 1);
	say_addresses(g->flow.out, CAPSULE_ADDRESS_REQUEST, &request, 1);
	say_packet(g->flow.out, "10.8.0.99", "10.0.0.1", 7, 100);     /* free, but it has been given another */
	assert_string_equal(got(1), "");
}

static void test_exit_scope(void **state)
{
	struct fake *f = exit_with_address("10.0.0.0/24", IPPROTO_TCP);
	(void)state;
	look(f, false);
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);      /* UDP */
	assert_string_equal(got(1), "");
	look(f, false);
	assert_int_equal(seen.ip.icmp_type, 3);
	assert_int_equal(seen.ip.icmp_code, 13);
	assert_false(f->broken);
	fake_end(f, FLOW_NONE);
	f = exit_with_address("10.0.0.0/24", -1);
	for (const char *const *bad = (const char *const[]){"10.0.1.1", "192.0.2.1", NULL}; *bad; bad++) {
		say_packet(f->flow.out, "10.8.0.2", *bad, 7, 100);
		look(f, false);
		assert_int_equal(seen.ip.icmp_code, 13);
	}
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "10.0.0.1 17");
	/* and the other way */
	send_udp(1, "10.0.0.1", "10.8.0.2", 7, 100);
	look(f, false);
	assert_int_equal(seen.packets, 1);
	assert_int_equal(seen.ip.ttl, 6);
	send_udp(1, "10.0.1.1", "10.8.0.2", 7, 100);
	look(f, false);
	assert_int_equal(seen.packets, 0);
	assert_string_equal(got(1), "10.0.1.1 1/3");
	send_udp(1, "10.0.0.1", "10.8.0.2", 1, 100);
	assert_string_equal(got(1), "10.0.0.1 1/11");
	struct fake *g = exit_begin(masque_ip_request("192.0.2.0/24", -1), NULL);
	assert_int_equal(g->flow.error, FLOW_TARGET_REFUSED);
	g = exit_begin(masque_ip_request("*", IPPROTO_FRAGMENT), NULL);
	assert_int_equal(g->flow.error, FLOW_TARGET_REFUSED);
}

static void test_exit_malformed_packets(void **state)
{
	struct fake *f = exit_with_address("*", -1);
	struct device *d = device_find(world.tunnel.devices, "hermes1");
	struct chunks chunks = {0};
	uint8_t packet[2000];
	struct virtio_net_hdr gso = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1000};
	(void)state;
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, "", 0);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, "\x45", 1);
	make_packet(packet, "10.8.0.2", "10.0.0.1", 7, 100);
	packet[10] ^= 1;
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, 100);
	packet[10] ^= 1;
	capsule_put_datagram(&chunks, CONTEXT_SEGMENTS, &gso, VNET_HEADER, packet, 100);   /* never agreed on */
	capsule_put_datagram(&chunks, 77, NULL, 0, packet, 100);
	assert_true(say(f->flow.out, &chunks));
	assert_string_equal(got(1), "");
	assert_int_equal(d->drops[DEVICE_DROP_MALFORMED], 2);
	assert_false(f->broken);
	fake_join(f, false, true);                          /* goes on: nothing is told again */
	turn();
	look(f, false);
	assert_int_equal(seen.advertisements, 0);
	capsule_put_datagram(&chunks, CONTEXT_SEGMENTS, &gso, VNET_HEADER, packet, 100);   /* TCP's on UDP */
	assert_true(say(f->flow.out, &chunks));
	assert_string_equal(got(1), "");
	assert_int_equal(d->drops[DEVICE_DROP_MALFORMED], 3);
}

static void test_exit_ends(void **state)
{
	struct fake *f = exit_with_address("*", -1);
	(void)state;
	f->flow.out->ops->finish(f->flow.out, NULL);
	send_udp(1, "10.0.0.1", "10.8.0.2", 7, 100);          /* was under way */
	look(f, false);
	assert_int_equal(seen.packets, 1);
	assert_false(f->ended[1]);
	world.now += 600000;
	for (int i = 0; i < 100 && !f->ended[1]; i++)
		event_base_loop(world.base, EVLOOP_ONCE);
	assert_true(f->ended[1]);
	/* an end inside a capsule is none */
	struct fake *g = exit_open("*", -1, "bob");
	struct chunks chunks = {0};
	chunks_copy(&chunks, "\x00\x44\x00", 3);
	assert_true(say(g->flow.out, &chunks));
	g->flow.out->ops->finish(g->flow.out, NULL);
	turn();
	assert_true(g->broken);
}

static void test_exit_device_full(void **state)
{
	struct fake *f = exit_with_address("*", -1);
	unsigned n = 0, sent = 0;
	uint8_t packet[1400];
	struct chunks chunks = {0};
	(void)state;
	make_packet(packet, "10.8.0.2", "10.0.0.1", 7, sizeof(packet));
	for (int i = 0; i < 5000; i++, sent++)
		capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, sizeof(packet));
	assert_true(f->flow.out->ops->send(f->flow.out, &chunks));
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, sizeof(packet));
	assert_false(f->flow.out->ops->send(f->flow.out, &chunks));
	chunks_move(&f->up, &chunks);
	sent++;
	for (int i = 0; i < 1000 && n < sent; i++, turn())
		while (kernel_gets(1, NULL, packet, sizeof(packet)))
			n++;
	assert_int_equal(n, sent);                          /* none is lost */
	assert_int_equal(f->up.bytes, 0);
}

static void test_exit_over_udp(void **state)
{
	(void)state;
	world.tunnels[0].n_networks = 0;
	world_commit();
	struct fake *f = exit_begin(masque_udp_request("10.0.0.1:4500"), "alice");
	fake_join(f, true, false);
	turn();
	assert_int_equal(f->down.bytes, 0);
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);      /* learned */
	assert_string_equal(got(1), "10.0.0.1 17");
	say_packet(f->flow.out, "10.77.0.2", "10.0.0.1", 7, 100);     /* not in the pool */
	assert_string_equal(got(1), "");
	send_udp(1, "10.0.0.1", "10.8.0.2", 7, 100);
	look(f, false);
	assert_int_equal(seen.packets, 1);
	struct fake *g = exit_begin(masque_udp_request("10.0.0.1:4500"), "bob");
	fake_join(g, true, false);
	say_packet(g->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);      /* another's */
	assert_string_equal(got(1), "");
}

static void test_exit_advertises_anew(void **state)
{
	struct fake *f = exit_with_address("*", -1);
	(void)state;
	advertise[0] = prefix_of("192.0.2.0/24");
	world_commit();
	look(f, false);
	assert_int_equal(seen.advertisements, 1);
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "");
	say_packet(f->flow.out, "10.8.0.2", "192.0.2.7", 7, 100);
	assert_string_equal(got(1), "192.0.2.7 17");
	world.config.n_tunnels = 0;
	world_commit();
	assert_true(f->broken);
}

/* A target that is a name is resolved before the answer, and limits the tunnel to its addresses (RFC 9484 4.1, 4.6). */
static void test_exit_for_a_name(void **state)
{
	struct ip_assigned request = asking(1, "10.8.0.2/32");
	(void)state;
	world.tunnels[0].n_networks = 0;
	world_commit();
	world.tunnel.resolver = resolver_new(world.base);
	resolver_set_resolv_conf(world.tunnel.resolver, "nameserver 127.0.0.1:1\noptions timeout:1 attempts:1\n");
	resolver_set_hosts(world.tunnel.resolver, "10.0.0.5 db.example\n192.0.2.5 far.example\n");
	struct fake *f = exit_begin(masque_ip_request("db.example", -1), "alice");
	for (int i = 0; i < 100 && !f->flow.status; i++)
		event_base_loop(world.base, EVLOOP_NONBLOCK);
	assert_int_equal(f->flow.status, 200);
	fake_join(f, true, false);
	turn();
	look(f, false);
	assert_int_equal(seen.n_routes, 1);
	say_addresses(f->flow.out, CAPSULE_ADDRESS_REQUEST, &request, 1);
	look(f, false);
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.5", 7, 100);
	assert_string_equal(got(1), "10.0.0.5 17");
	say_packet(f->flow.out, "10.8.0.2", "10.0.0.6", 7, 100);
	assert_string_equal(got(1), "");
	struct fake *g = exit_begin(masque_ip_request("far.example", -1), NULL);
	for (int i = 0; i < 100 && !g->broken; i++)
		event_base_loop(world.base, EVLOOP_NONBLOCK);
	assert_true(g->broken);
	struct fake *h = exit_begin(masque_ip_request("nobody.example", -1), NULL);
	fake_end(h, FLOW_CANCELLED);                    /* the client goes before the name is resolved */
	resolver_free(world.tunnel.resolver);
}

/* --- runs of UDP packets ----------------------------------------------------------------------------------------------------------- */

#define RUN 20

static struct { uint8_t packet[RUN][1400]; size_t length[RUN]; unsigned n, seen; } run;

static void expect_one(void *arg, uint8_t *packet, size_t length)
{
	struct ip_packet ip;
	(void)arg;
	assert_true(run.seen < run.n);
	assert_null(ip_parse(packet, length, &ip));
	assert_int_equal(length, run.length[run.seen]);
	assert_int_equal(ip_upper_checksum(&ip, packet + ip.header, length - ip.header), 0);
	if (ip.version == 4)                           /* the kernel numbers segments; nobody reads it where DF is set */
		memcpy(packet + 4, run.packet[run.seen] + 4, 2), memcpy(packet + 10, run.packet[run.seen] + 10, 2);
	memcpy(packet + ip.header + 6, run.packet[run.seen] + ip.header + 6, 2);
	assert_memory_equal(packet, run.packet[run.seen], length);
	run.seen++;
}

static void test_udp_runs(void **state)
{
	static const char *const pairs[2][2] = {{"10.8.0.2", "10.0.0.1"}, {"fd00:8::2", "fd00:1::1"}};
	static uint8_t scratch[SEGMENT_SCRATCH];
	(void)state;
	world.tunnels[0].n_networks = 2;
	world_commit();
	for (unsigned family = 0; family < 2; family++) {
		uint16_t header_length = family ? 40 : 20;
		struct virtio_net_hdr partial = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = header_length, .csum_offset = 6}, gso;
		struct fake *f = flow_at(0);
		while (f && strchr(f->request->authority, ':') == NULL ? family == 1 : family == 0)
			f = f->next;
		fake_join(f, true, true);
		turn();
		look(f, true);
		run.n = RUN, run.seen = 0;
		for (unsigned i = 0; i < RUN; i++) {
			run.length[i] = make_packet(run.packet[i], pairs[family][0], pairs[family][1], 64, i < RUN - 1 ? 1200 : 777);
			for (size_t k = header_length + 8u; k < run.length[i]; k++)
				run.packet[i][k] = (uint8_t)(k * 3 + i);
			kernel_sends(0, &partial, run.packet[i], run.length[i]);
		}
		turn();
		look(f, true);
		assert_int_equal(seen.segments, 1);
		assert_int_equal(seen.packets, 0);
		memcpy(&gso, seen.packet, VNET_HEADER);
		assert_null(vnet_check(&gso, seen.packet + VNET_HEADER, seen.length - VNET_HEADER));
		ip_segment(&gso, seen.packet + VNET_HEADER, seen.length - VNET_HEADER, scratch, expect_one, NULL);
		assert_int_equal(run.seen, RUN);
	}
}

/* Another flow, another TTL, a longer one, one behind a shorter one, one whose checksum nobody vouches for: each begins anew, and
 * the order stays. */
static void test_udp_runs_end(void **state)
{
	struct fake *f = network_open(true);
	struct virtio_net_hdr partial = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 20, .csum_offset = 6};
	struct virtio_net_hdr none = {0};
	uint8_t packet[1400];
	static const struct { const char *to; uint8_t ttl; size_t length; bool plain; } steps[] = {
		{"10.0.0.1", 64, 500, false}, {"10.0.0.1", 64, 500, false}, {"10.0.0.2", 64, 500, false}, {"10.0.0.2", 63, 500, false},
		{"10.0.0.2", 63, 501, false}, {"10.0.0.2", 63, 400, false}, {"10.0.0.2", 63, 400, false}, {"10.0.0.2", 63, 400, true},
		{"10.0.0.2", 63, 28, false}};
	(void)state;
	look(f, true);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		kernel_sends(0, steps[i].plain ? &none : &partial, packet, make_packet(packet, "10.8.0.2", steps[i].to, steps[i].ttl,
		                                                                       steps[i].length));
	turn();
	look(f, true);
	/* 500+500 | 500 | 500 | 501+400 | 400 | 400 plain | 28, all but the plain one with a header */
	assert_int_equal(seen.segments, 6);
	assert_int_equal(seen.packets, 1);
}

/* --- both ------------------------------------------------------------------------------------------------------------------------------ */

static void test_both_ends(void **state)
{
	enum flow_error error;
	const char *detail;
	uint8_t packet[65536], back[65600];
	struct virtio_net_hdr gso = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, .hdr_len = 28,
	                             .gso_size = 1000, .csum_start = 20, .csum_offset = 6}, header;
	(void)state;
	world_commit();
	struct fake *f = flow_at(0);
	struct leg *leg = ip_exit_new(&world.tunnel, &world.clusters[0], &f->flow, &error, &detail);
	assert_non_null(leg);
	f->flow.out = leg;
	leg->ops->head(leg, f->request, false);
	send_udp(0, "10.8.0.2", "10.0.0.9", 64, 700);
	fake_join(f, true, true);
	turn();
	assert_string_equal(got(1), "10.0.0.9 17");         /* its address was asked for before */
	make_packet(packet, "10.8.0.2", "10.0.0.9", 64, 60028);
	for (size_t i = 28; i < 60028; i++)
		packet[i] = (uint8_t)(i * 7);
	for (int i = 0; i < 10; i++) {
		kernel_sends(0, &gso, packet, 60028);
		turn();
		assert_int_equal(kernel_gets(1, &header, back, sizeof(back)), 60028);
		assert_memory_equal(back, packet, 60028);
		assert_memory_equal(&header, &gso, VNET_HEADER);
	}
	make_packet(packet, "10.0.0.9", "10.8.0.2", 64, 60028);
	kernel_sends(1, &gso, packet, 60028);
	turn();
	assert_int_equal(kernel_gets(0, &header, back, sizeof(back)), 60028);
	assert_int_equal(back[8], 63);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_begin, world_end)
	const struct CMUnitTest tests[] = {
		WORLD(test_network_begins), WORLD(test_network_batches), WORLD(test_network_ttl), WORLD(test_network_backpressure),
		WORLD(test_network_segments), WORLD(test_network_routes), WORLD(test_network_writes), WORLD(test_network_assigned),
		WORLD(test_network_asked_for_addresses), WORLD(test_network_malformed), WORLD(test_network_tries_again),
		WORLD(test_network_changes), WORLD(test_network_policy), WORLD(test_network_over_udp),
		WORLD(test_exit_gives_addresses), WORLD(test_exit_many_requests), WORLD(test_exit_checks_sources), WORLD(test_exit_learns_addresses), WORLD(test_exit_scope),
		WORLD(test_exit_malformed_packets), WORLD(test_exit_ends), WORLD(test_exit_device_full), WORLD(test_exit_over_udp),
		WORLD(test_exit_advertises_anew), WORLD(test_exit_for_a_name), WORLD(test_udp_runs), WORLD(test_udp_runs_end), WORLD(test_both_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
