/* SPDX-License-Identifier: Apache-2.0 */
/* The client end of an IP tunnel (RFC 9484) against the test as the far end, runs of packets, and both ends joined. */
#include "tests/unit/ip_ends.h"

#include "ipc/json.h"
#include "workers/tunnel/ip_segment.h"

/* --- the client end ----------------------------------------------------------------------------------------------- */

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
	uint8_t icmp[IP_ICMP_MAX];                                  /* but for a router's errors */
	struct chunks chunks = {0};
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, icmp, make_icmp_error(icmp, "10.66.0.1", "10.8.0.2", "10.0.0.1"));
	say(f->flow.in, &chunks);
	assert_string_equal(got(0), "10.8.0.2 1/11");
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, icmp, make_echo_request(icmp, "10.66.0.1", "10.8.0.2"));
	say(f->flow.in, &chunks);
	assert_string_equal(got(0), "");
	assert_int_equal(d->drops[DEVICE_DROP_SPOOFED], 2);
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
	/* each capsule is the whole list: what it lacks is no longer ours (RFC 9484 4.7.1) */
	struct ip_assigned other = asking(0, "10.8.0.78/32"), first = answer;
	say_addresses(f->flow.in, CAPSULE_ADDRESS_ASSIGN, &other, 1);
	assert_int_equal(ip_network_assigned(n, assigned, 4), 1);
	assert_memory_equal(&assigned[0].address, &other.prefix.address, 16);
	assert_false(device_is_own(device_find(world.tunnel.devices, "hermes0"), &first.prefix.address));
	say_capsule(f->flow.in, CAPSULE_ADDRESS_ASSIGN, "", 0);
	assert_int_equal(ip_network_assigned(n, assigned, 4), 0);
	say_addresses(f->flow.in, CAPSULE_ADDRESS_ASSIGN, &first, 1);
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
	(void)state;
	world.headers[0] = (struct config_pair){(char *)"user", (char *)"alice"};
	world.headers[1] = (struct config_pair){(char *)"service", (char *)"files"};
	world.networks[0].add_headers = (struct config_pairs){world.headers, 2};
	struct fake *f = network_open(false);
	look(f, true);
	world.config.examines.ip = true;
	world.ask_later = true;
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	look(f, true);
	assert_int_equal(seen.packets, 0);
	assert_int_equal(world.asked, 1);
	assert_string_equal(world.asked_for, "alice files");
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

/* The flow ends while packets wait to be judged: the next one's table asks anew. */
static void test_network_policy_over_flows(void **state)
{
	struct fake *f = network_open(false);
	(void)state;
	look(f, true);
	world.config.examines.ip = true;
	world.ask_later = true;
	send_udp(0, "10.8.0.2", "10.0.0.1", 64, 100);
	assert_int_equal(world.asked, 1);
	fake_end(f, FLOW_TERMINATED);
	while (!flow_at(0))
		event_base_loop(world.base, EVLOOP_ONCE);
	assert_int_equal(world.asked, 2);
	fake_join(flow_at(0), true, false);
	world.question.done(world.question.arg, verdict());
	turn();
	look(flow_at(0), true);
	assert_int_equal(seen.packets, 1);
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

/* --- runs of UDP packets ------------------------------------------------------------------------------------------ */

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

/* --- both --------------------------------------------------------------------------------------------------------- */

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
		WORLD(test_network_begins), WORLD(test_network_batches), WORLD(test_network_ttl),
		WORLD(test_network_backpressure), WORLD(test_network_segments), WORLD(test_network_routes),
		WORLD(test_network_writes), WORLD(test_network_assigned), WORLD(test_network_asked_for_addresses),
		WORLD(test_network_malformed), WORLD(test_network_tries_again), WORLD(test_network_changes),
		WORLD(test_network_policy),
		WORLD(test_network_policy_over_flows), WORLD(test_network_over_udp), WORLD(test_udp_runs),
		WORLD(test_udp_runs_end), WORLD(test_both_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
