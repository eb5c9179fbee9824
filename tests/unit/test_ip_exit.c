/* SPDX-License-Identifier: Apache-2.0 */
/* The far end of an IP tunnel (RFC 9484) against the test as the client. */
#include "tests/unit/ip_ends.h"

#include "workers/tunnel/resolve.h"

/* --- the far end -------------------------------------------------------------------------------------------------- */

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
	/* a router's errors come from anywhere, nothing else does */
	uint8_t icmp[IP_ICMP_MAX];
	kernel_sends(1, NULL, icmp, make_icmp_error(icmp, "10.0.9.9", "10.8.0.2", "10.0.0.1"));
	turn();
	look(f, false);
	assert_int_equal(seen.packets, 1);
	assert_int_equal(seen.ip.icmp_type, 11);
	kernel_sends(1, NULL, icmp, make_echo_request(icmp, "10.0.9.9", "10.8.0.2"));
	turn();
	look(f, false);
	assert_int_equal(seen.packets, 0);
	assert_string_equal(got(1), "10.0.9.9 1/3");
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

/* Who may go everywhere does not get to this machine's own or its neighbours' alone. */
static void test_exit_to_nowhere(void **state)
{
	(void)state;
	advertise[0] = prefix_of("0.0.0.0/0"), advertise[1] = prefix_of("::/0");
	struct fake *f = exit_with_address("*", -1);
	struct device *d = device_find(world.tunnel.devices, "hermes1");
	struct ip_assigned request = asking(2, "fd00:8::2/128");
	say_addresses(f->flow.out, CAPSULE_ADDRESS_REQUEST, &request, 1);
	look(f, false);
	static const char *const v4[] = {"127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.1.1", "255.255.255.255"};
	static const char *const v6[] = {"::1", "::", "ff05::1"};
	static const char *const link[] = {"169.254.169.254", "224.0.0.1"};
	for (unsigned i = 0; i < 5; i++)
		say_packet(f->flow.out, "10.8.0.2", v4[i], 7, 100);
	for (unsigned i = 0; i < 3; i++)
		say_packet(f->flow.out, "fd00:8::2", v6[i], 7, 100);
	assert_string_equal(got(1), "");
	assert_int_equal(d->drops[DEVICE_DROP_PROHIBITED], 8);
	for (unsigned i = 0; i < 2; i++)
		say_packet(f->flow.out, "10.8.0.2", link[i], 7, 100);
	say_packet(f->flow.out, "fd00:8::2", "fe80::1", 7, 100);
	say_packet(f->flow.out, "fd00:8::2", "ff02::1", 7, 100);
	say_packet(f->flow.out, "169.254.1.1", "10.0.0.1", 7, 100);
	assert_string_equal(got(1), "");
	assert_int_equal(d->drops[DEVICE_DROP_LINK_LOCAL], 5);
	say_packet(f->flow.out, "10.8.0.2", "192.0.2.7", 7, 100);
	assert_string_equal(got(1), "192.0.2.7 17");
	say_packet(f->flow.out, "fd00:8::2", "2001:db8::7", 7, 100);
	assert_string_equal(got(1), "2001:db8::7 17");
	assert_false(f->broken);
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

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_begin, world_end)
	const struct CMUnitTest tests[] = {
		WORLD(test_exit_gives_addresses), WORLD(test_exit_many_requests), WORLD(test_exit_checks_sources),
		WORLD(test_exit_learns_addresses), WORLD(test_exit_scope), WORLD(test_exit_malformed_packets),
		WORLD(test_exit_ends), WORLD(test_exit_device_full), WORLD(test_exit_over_udp),
		WORLD(test_exit_to_nowhere), WORLD(test_exit_advertises_anew), WORLD(test_exit_for_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
