/* SPDX-License-Identifier: Apache-2.0 */
/* Devices: which leg a packet belongs to, what is answered where none does, what happens when the device takes no more; the
 * addresses of a pool, and scopes. */
#include "tests/unit/ip_world.h"

#include "workers/tunnel/ip_scope.h"

/* --- longest prefix match, against a linear search ---------------------------------------------------------------- */

#define ROUTES 600

static uint32_t seed = 1;
static uint32_t chance(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static struct config_prefix random_prefix(void)
{
	bool v4 = chance(2);
	struct config_prefix p = {.bits = (uint8_t)(v4 ? 96 + chance(33) : chance(129))};
	for (unsigned i = 0; i < 16; i++)
		p.address.s6_addr[i] = v4 && i < 12 ? (i < 10 ? 0 : 0xff) : (uint8_t)(chance(3) * 0x55);
	for (unsigned bit = p.bits; bit < 128; bit++)
		p.address.s6_addr[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
	return p;
}

static void *linear(const struct config_prefix *v, const bool *there, int *takers, const struct in6_addr *a)
{
	int best = -1;
	for (int i = 0; i < ROUTES; i++) {
		bool same_family = ip_prefix_is_v4(&v[i]) == ip_is_v4(a);
		if (there[i] && same_family && config_prefix_contains(&v[i], a) && (best < 0 || v[i].bits > v[best].bits))
			best = i;
	}
	return best < 0 ? NULL : &takers[best];
}

static void test_longest_prefix(void **state)
{
	static struct config_prefix v[ROUTES];
	static bool there[ROUTES];
	static int takers[ROUTES];
	struct device_routes *r = device_routes_new();
	unsigned found = 0;
	(void)state;
	for (int i = 0; i < ROUTES; i++) {
		v[i] = random_prefix();
		there[i] = device_routes_add(r, &v[i], &takers[i]);
	}
	for (int round = 0; round < 20000; round++) {
		struct in6_addr a = random_prefix().address;
		void *expected = linear(v, there, takers, &a);
		assert_ptr_equal(device_routes_find(r, &a), expected);
		assert_ptr_equal(device_routes_find(r, &a), expected);   /* as remembered */
		found += expected != NULL;
		int k = (int)chance(ROUTES);
		if (there[k]) {
			device_routes_remove(r, &v[k], &takers[k]);
			there[k] = false;
		} else {
			there[k] = device_routes_add(r, &v[k], &takers[k]);
		}
	}
	assert_true(found > 1000);
	for (int i = 0; i < ROUTES; i++)
		device_routes_forget(r, &takers[i]);
	for (int i = 0; i < ROUTES; i++)
		assert_null(device_routes_find(r, &v[i].address));
	device_routes_free(r);
}

static void test_one_taker_per_prefix(void **state)
{
	struct device_routes *r = device_routes_new();
	struct config_prefix a = prefix_of("10.0.0.0/8"), all = prefix_of("::/0");
	struct in6_addr v4 = address("10.1.1.1"), other = address("192.0.2.1");
	int x, y;
	(void)state;
	assert_true(device_routes_add(r, &a, &x));
	assert_true(device_routes_add(r, &a, &x));
	assert_false(device_routes_add(r, &a, &y));
	device_routes_remove(r, &a, &y);
	assert_ptr_equal(device_routes_find(r, &v4), &x);
	assert_true(device_routes_add(r, &all, &y));
	assert_null(device_routes_find(r, &other));   /* ::/0 is no route for IPv4 */
	device_routes_remove(r, &a, &x);
	assert_null(device_routes_find(r, &v4));
	device_routes_free(r);
}

/* --- what the kernel's side gives --------------------------------------------------------------------------------- */

static void test_no_route(void **state)
{
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes0"));
	(void)state;
	send_udp(0, "10.8.0.2", "192.0.2.1", 64, 100);
	assert_string_equal(got(0), "10.8.0.2 1/3");
	send_udp(0, "fd00:8::2", "2001:db8::1", 64, 100);
	assert_string_equal(got(0), "fd00:8::2 58/1");
	assert_int_equal(d->drops[DEVICE_DROP_NO_ROUTE], 2);
	/* what a device says by itself stays on its link */
	send_udp(0, "fd00:8::2", "ff02::2", 255, 60);
	send_udp(0, "10.8.0.2", "224.0.0.22", 1, 60);
	send_udp(0, "10.8.0.2", "255.255.255.255", 64, 60);
	assert_string_equal(got(0), "");
	assert_int_equal(d->drops[DEVICE_DROP_LINK_LOCAL], 3);
}

static void test_malformed_from_device(void **state)
{
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes0"));
	uint8_t packet[100] = {0x45};
	struct virtio_net_hdr wrong = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 5000};
	(void)state;
	kernel_sends(0, NULL, packet, 1);
	kernel_sends(0, NULL, packet, sizeof(packet));
	kernel_sends(0, &wrong, packet, make_packet(packet, "10.8.0.2", "10.0.0.1", 64, 100));
	turn();
	assert_string_equal(got(0), "");
	assert_int_equal(d->drops[DEVICE_DROP_MALFORMED], 3);
}

static void test_icmp_is_limited(void **state)
{
	unsigned n = 0;
	(void)state;
	world_commit();
	for (int i = 0; i < 1000; i++) {
		send_udp(0, "10.8.0.2", "192.0.2.1", 64, 60);
		n += got(0)[0] != '\0';
	}
	assert_int_equal(n, 200);
	world.now += 1000000;
	send_udp(0, "10.8.0.2", "192.0.2.1", 64, 60);
	assert_string_equal(got(0), "10.8.0.2 1/3");
}

/* --- into the device ---------------------------------------------------------------------------------------------- */

static unsigned woken;
static void on_writable(struct device_port *port) { (void)port; woken++; }

static void test_device_full(void **state)
{
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes0"));
	struct device_port a = {.writable = on_writable, .device = d}, b = a;
	uint8_t packet[1400], out[1400];
	struct capsule_piece pieces[2] = {{packet, 700}, {packet + 700, 700}};
	unsigned n = 0;
	(void)state;
	make_packet(packet, "10.0.0.1", "10.8.0.2", 64, sizeof(packet));
	woken = 0;
	while (device_write(&a, NULL, pieces, 2) == 0)
		n++;
	assert_true(n > 5);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(device_write(&b, NULL, pieces, 2), -EAGAIN);
	turn();
	assert_int_equal(woken, 0);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(kernel_gets(0, NULL, out, sizeof(out)), sizeof(packet));
		assert_memory_equal(out, packet, sizeof(packet));
	}
	turn();
	assert_int_equal(woken, 2);
	device_port_remove(d, &a);
	device_port_remove(d, &b);
}

static void test_queue_of_a_later_generation(void **state)
{
	int pair[2];
	struct ipc_tun_queue message = {.generation = 2, .device = "hermes0", .queue = 1, .queues = 2, .mtu = 1400};
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes0"));
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
	devices_add_queue(world.tunnel.devices, &message, pair[1]);
	assert_int_equal(d->queues[1].fd, -1);
	devices_abort(world.tunnel.devices, 2);
	assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), -1);   /* closed */
	close(pair[0]);
	/* queue numbers out of range, or none at all */
	message.queue = 99;
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
	devices_add_queue(world.tunnel.devices, &message, pair[1]);
	devices_add_queue(world.tunnel.devices, &message, -1);
	assert_int_equal(send(pair[0], "x", 1, MSG_NOSIGNAL), -1);
	close(pair[0]);
}

/* tun-bridge made the device anew: its queue takes the place of the one that is there. */
static void test_queue_again(void **state)
{
	int pair[2];
	struct ipc_tun_queue message = {.generation = 1, .device = "hermes0", .queue = 0, .queues = 1, .mtu = 1400};
	(void)state;
	world_commit();
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
	devices_add_queue(world.tunnel.devices, &message, pair[1]);
	turn();
	assert_int_equal(send(world.kernel[0], "x", 1, MSG_NOSIGNAL), -1);
	close(world.kernel[0]);
	world.kernel[0] = pair[0];
	send_udp(0, "10.8.0.2", "192.0.2.1", 64, 100);
	assert_string_equal(got(0), "10.8.0.2 1/3");
}

static void test_device_goes(void **state)
{
	(void)state;
	world_commit();
	assert_non_null(device_find(world.tunnel.devices, "hermes0"));
	world.config.n_tunnels = 0;
	world_commit();
	assert_null(device_find(world.tunnel.devices, "hermes0"));
	assert_null(device_find(world.tunnel.devices, "hermes1"));
	assert_int_equal(send(world.kernel[0], "x", 1, MSG_NOSIGNAL), -1);
}

/* --- pools -------------------------------------------------------------------------------------------------------- */

static char *holder_of_packet;
static void to_holder(struct ip_holder *holder, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                      const struct ip_packet *ip)
{
	(void)header, (void)packet, (void)length, (void)ip;
	holder_of_packet = (char *)holder->client;
}

static void test_pool(void **state)
{
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes1"));
	struct config_prefix small = prefix_of("10.9.0.0/30");
	struct config_prefixes ranges = {&small, 1};
	struct ip_pool *p = ip_pool_of(d);
	struct ip_holder a = {to_holder, .user = "alice", .client = "A"}, b = {to_holder, .user = "bob", .client = "B"}, c = {to_holder, .client = "C"};
	struct in6_addr any = address("0.0.0.0"), any6 = address("::"), one, two, got_;
	(void)state;
	assert_true(ip_pool_assign(p, &ranges, &any, &a, &one));
	assert_true(ip_pool_assign(p, &ranges, &any, &b, &two));
	assert_false(IN6_ARE_ADDR_EQUAL(&one, &two));
	assert_true(config_prefix_contains(&small, &one) && config_prefix_contains(&small, &two));
	assert_false(ip_pool_assign(p, &ranges, &any, &c, &got_));      /* .0 and .3 are nobody's */
	assert_false(ip_pool_assign(p, &ranges, &any6, &c, &got_));
	assert_false(ip_pool_assign(p, &ranges, &one, &c, &got_));      /* another's */
	for (const char *const *bad = (const char *const[]){"10.9.0.0", "10.9.0.3", "10.9.1.1", "fd00:8::5", NULL}; *bad; bad++) {
		struct in6_addr wanted = address(*bad);
		assert_false(ip_pool_assign(p, &ranges, &wanted, &c, &got_));
	}
	assert_true(ip_pool_holds(&a, &one) && !ip_pool_holds(&a, &two));
	ip_pool_release(&a);
	assert_false(ip_pool_holds(&a, &one));
	/* the same user again, from elsewhere, gets the same; and where nobody else is free, others may have it */
	struct ip_holder again = {to_holder, .user = "alice"};
	assert_true(ip_pool_assign(p, &ranges, &any, &again, &got_));
	assert_true(IN6_ARE_ADDR_EQUAL(&got_, &one));
	ip_pool_release(&again);
	assert_true(ip_pool_assign(p, &ranges, &any, &c, &got_));
	assert_true(IN6_ARE_ADDR_EQUAL(&got_, &one));
	assert_false(ip_pool_assign(p, &ranges, &any, &again, &got_));
	ip_pool_release(&b);
	ip_pool_release(&c);
}

/* A router says that it cannot send on what 10.8.0.7 sent to that address. */
static void send_error_about(const char *destination)
{
	uint8_t packet[256], error[IP_ICMP_MAX];
	struct in6_addr router = address("10.0.0.254");       /* inside both scopes, the narrow one's by chance */
	struct ip_packet ip;
	size_t length = make_packet(packet, "10.8.0.7", destination, 64, 60);
	assert_null(ip_parse(packet, length, &ip));
	length = ip_icmp_error(error, IP_NO_ROUTE, 0, packet, length, &ip, &router);
	assert_true(length > 0);
	holder_of_packet = NULL;
	kernel_sends(1, NULL, error, length);
	turn();
}

static void test_pool_shared(void **state)
{
	struct device *d = (world_commit(), device_find(world.tunnel.devices, "hermes1"));
	struct config_prefixes ranges = {pool, 1};
	struct config_prefix near_[1] = {prefix_of("10.0.0.0/24")}, wide[1] = {prefix_of("10.0.0.0/8")};
	struct config_prefixes narrow = {near_, 1}, broad = {wide, 1};
	struct ip_pool *p = ip_pool_of(d);
	struct ip_holder a = {to_holder, .client = "same", .scope = &narrow}, b = {to_holder, .client = "same", .scope = &broad},
	                 c = {to_holder, .client = "other"};
	struct in6_addr wanted = address("10.8.0.7"), out;
	(void)state;
	assert_true(ip_pool_assign(p, &ranges, &wanted, &a, &out));
	assert_true(ip_pool_assign(p, &ranges, &wanted, &b, &out));
	assert_false(ip_pool_assign(p, &ranges, &wanted, &c, &out));
	b.client = "b", a.client = "a";           /* to tell them apart */
	send_udp(1, "10.0.0.1", "10.8.0.7", 64, 60);
	assert_string_equal(holder_of_packet, "a");
	send_udp(1, "10.1.0.1", "10.8.0.7", 64, 60);
	assert_string_equal(holder_of_packet, "b");
	send_error_about("10.0.0.1");
	assert_string_equal(holder_of_packet, "a");
	send_error_about("10.1.0.1");             /* not the narrow tunnel's packet */
	assert_string_equal(holder_of_packet, "b");
	ip_pool_release(&a);
	send_udp(1, "10.0.0.1", "10.8.0.7", 64, 60);
	assert_string_equal(holder_of_packet, "b");
	ip_pool_release(&b);
	send_udp(1, "10.0.0.1", "10.8.0.7", 64, 60);
	assert_string_equal(got(1), "10.0.0.1 1/3");
}

/* --- scopes ------------------------------------------------------------------------------------------------------- */

static void test_scope(void **state)
{
	struct config_prefix targets[2] = {prefix_of("10.0.0.0/24"), prefix_of("192.0.2.0/24")};
	struct config_prefixes adv = {advertise, 2}, none = {NULL, 0}, p = {pool, 1}, t = {targets, 2}, outside = {targets + 1, 1};
	struct ip_scope *s = ip_scope_new(&adv, &p, &t, IPPROTO_TCP);
	struct in6_addr in = address("10.0.0.9"), out = address("10.0.1.9"), v6 = address("fd00:1::1");
	struct ip_route routes[4];
	size_t length;
	unsigned n;
	(void)state;
	assert_true(ip_scope_allows(s, &in, IPPROTO_TCP) && ip_scope_allows(s, &in, IPPROTO_ICMP));
	assert_false(ip_scope_allows(s, &in, IPPROTO_UDP) || ip_scope_allows(s, &out, IPPROTO_TCP) || ip_scope_allows(s, &v6, IPPROTO_TCP));
	uint8_t *value = ip_scope_routes(s, &length);
	assert_null(ip_routes_get(value, length, routes, 4, &n));
	assert_int_equal(n, 1);
	assert_int_equal(routes[0].protocol, IPPROTO_TCP);
	free(value);
	ip_scope_free(s);
	assert_null(ip_scope_new(&adv, &p, &outside, -1));
	s = ip_scope_new(&none, &p, NULL, -1);    /* everything, in the pool's family */
	assert_true(ip_scope_allows(s, &out, IPPROTO_UDP));
	assert_false(ip_scope_allows(s, &v6, IPPROTO_UDP));
	ip_scope_free(s);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_begin, world_end)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_longest_prefix),
		cmocka_unit_test(test_one_taker_per_prefix),
		WORLD(test_no_route),
		WORLD(test_malformed_from_device),
		WORLD(test_icmp_is_limited),
		WORLD(test_device_full),
		WORLD(test_queue_of_a_later_generation),
		WORLD(test_queue_again),
		WORLD(test_device_goes),
		WORLD(test_pool),
		WORLD(test_pool_shared),
		WORLD(test_scope),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
