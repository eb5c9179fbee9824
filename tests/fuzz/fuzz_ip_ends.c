/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of an IP tunnel between devices of the test's own (tests/unit/ip_world.h): capsules from either side, packets from
 * either device, ways that change, flows that take nothing, in any order. Nothing may be lost of memory, nothing written that
 * is no packet. */
#define CMOCKA_H_                     /* the world's checks without cmocka */
#define must(condition) ((condition) ? (void)0 : __builtin_trap())
#define assert_int_equal(a, b) must((long long)(a) == (long long)(b))
#define assert_string_equal(a, b) must(strcmp(a, b) == 0)
#define assert_ptr_equal(a, b) must((a) == (b))
#define assert_true(a) must(a)
#define assert_false(a) must(!(a))
#define assert_null(a) must(!(a))
#define assert_non_null(a) must(a)

#include "tests/unit/ip_world.h"

#include "ipc/log.h"

struct input { const uint8_t *data; size_t length; };

static uint8_t byte(struct input *in)
{
	if (in->length == 0)
		return 0;
	in->length--;
	return *in->data++;
}

static size_t bytes(struct input *in, const uint8_t **at, size_t want)
{
	size_t n = want < in->length ? want : in->length;
	*at = in->data;
	in->data += n;
	in->length -= n;
	return n;
}

/* As a flow would: once more when the leg is ready, and in order. */
static void say(struct fake *f, bool up, struct chunks *chunks)
{
	chunks_move(up ? &f->up : &f->down, chunks);
	move(f, up);
}

static void say_bytes(struct fake *f, bool up, struct input *in)
{
	const uint8_t *at;
	struct chunks chunks = {0};
	size_t n = bytes(in, &at, byte(in));
	chunks_copy(&chunks, at, n);
	if (n)
		say(f, up, &chunks);
}

static void say_datagram(struct fake *f, bool up, struct input *in, bool whole)
{
	static const char *const hosts[4] = {"10.8.0.2", "10.0.0.1", "fd00:8::2", "fd00:1::1"};
	uint8_t packet[2048], kind = byte(in);
	struct chunks chunks = {0};
	const uint8_t *at;
	size_t length = 60 + byte(in) * 6u;
	bool v6 = kind & 1;
	make_packet(packet, hosts[v6 * 2 + (kind >> 1 & 1)], hosts[v6 * 2 + (kind >> 2 & 1)], kind >> 3, length);
	if (!whole && length > 0)
		packet[byte(in) % length] ^= byte(in);
	struct virtio_net_hdr header = {.flags = byte(in) & 3, .gso_type = byte(in), .gso_size = byte(in), .csum_start = byte(in), .csum_offset = 6};
	bytes(in, &at, 0);
	if (whole)
		capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, length);
	else
		capsule_put_datagram(&chunks, CONTEXT_SEGMENTS, &header, VNET_HEADER, packet, length);
	say(f, up, &chunks);
}

static void say_control(struct fake *f, bool up, struct input *in)
{
	uint8_t value[64 * 34 + 16], kind = byte(in);
	struct chunks chunks = {0};
	struct ip_assigned list[4];
	unsigned n = 1 + (kind >> 2 & 3);
	for (unsigned i = 0; i < n; i++) {
		list[i] = (struct ip_assigned){byte(in), prefix_of(kind & 64 ? "fd00:8::/128" : "10.8.0.0/32")};
		list[i].prefix.address.s6_addr[15] = byte(in);
	}
	if ((kind & 3) == 3) {
		struct ip_route route = ip_route_of(&list[0].prefix, byte(in));
		capsule_put(&chunks, CAPSULE_ROUTE_ADVERTISEMENT, value, ip_routes_put(value, &route, kind >> 7));
	} else {
		capsule_put(&chunks, 1 + (kind & 1), value, ip_addresses_put(value, list, n));
	}
	say(f, up, &chunks);
}

/* Only what the kernel would give: a packet with a header that fits, or what is refused for its form. */
static void from_kernel(struct input *in)
{
	uint8_t packet[2048], kind = byte(in);
	struct virtio_net_hdr header = {.flags = kind & 3, .csum_start = 20, .csum_offset = 6};
	size_t length = 60 + byte(in) * 5u;
	unsigned device = kind >> 2 & 1;
	make_packet(packet, device ? "10.0.0.1" : kind & 8 ? "192.0.2.3" : "10.8.0.2", device ? "10.8.0.2" : "10.0.0.1", kind >> 4, length);
	if (kind & 16) {
		header = (struct virtio_net_hdr){.flags = 1, .gso_type = VIRTIO_NET_HDR_GSO_UDP_L4, .gso_size = 1 + byte(in), .hdr_len = 28,
		                                 .csum_start = 20, .csum_offset = 6};
	}
	if (kind & 32)
		packet[byte(in) % length] ^= byte(in);
	struct iovec v[2] = {{&header, VNET_HEADER}, {packet, length}};
	(void)!writev(world.kernel[device], v, 2);
}

static void kernel_takes(unsigned device)
{
	uint8_t packet[65600];
	struct ip_packet ip;
	for (size_t n; (n = kernel_gets(device, NULL, packet, sizeof(packet)));)
		must(ip_parse(packet, n, &ip) == NULL);
}

static void open_tunnel(struct fake *f, bool segments)
{
	enum flow_error error;
	const char *detail;
	if (f->flow.out || f->broken)
		return;
	f->flow.out = ip_exit_new(&world.tunnel, &world.clusters[0], &f->flow, &error, &detail);
	if (!f->flow.out)
		return;
	f->flow.out->ops->head(f->flow.out, f->request, false);
	if (f->flow.out)
		fake_join(f, true, segments);
}

static void step(struct input *in)
{
	uint8_t op = byte(in);
	struct fake *f = flow_at(op >> 6 & 1);
	bool up = op & 16;
	switch (op & 15) {
	case 0: return turn();
	case 1: return from_kernel(in);
	case 2: return kernel_takes(op >> 4 & 1);
	case 3: world.now += byte(in) * 20000u; return;
	case 4: world.ask_later = up; world.deny_packets = op & 32; world.config.examines.ip = true; return;
	case 5:
		if (world.question.done) {
			void (*done)(void *, struct decision *) = world.question.done;
			world.question.done = NULL;
			done(world.question.arg, verdict());
		}
		return;
	case 6: return world_commit();
	default: break;
	}
	if (!f)
		return;
	switch (op & 15) {
	case 7: return open_tunnel(f, up);
	case 8: f->keep = up; move(f, true); return move(f, false);
	case 9: return say_bytes(f, up, in);
	case 10: return say_datagram(f, up, in, true);
	case 11: return say_datagram(f, up, in, false);
	case 12: return say_control(f, up, in);
	case 13: if (f->flow.out && f->flow.in && !f->broken) fake_join(f, op & 32, up); return;
	case 14: if (f->flow.out && !f->flow.in && up && !f->ended[0]) f->ended[0] = true, f->flow.out->ops->finish(f->flow.out, NULL); return;
	default: return fake_end(f, up ? FLOW_NONE : FLOW_TERMINATED);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	log_set_level("error");
	world_begin(NULL);
	world_commit();
	for (unsigned i = 0; i < 200 && in.length > 0; i++)
		step(&in);
	turn();
	world_end(NULL);
	return 0;
}
