/* SPDX-License-Identifier: Apache-2.0 */
/* The test as the other end of an IP tunnel: what a leg gave is looked at, and capsules are said to it. Included once, by
 * test_leg_ip.c and test_ip_exit.c. */
#ifndef HERMES_TESTS_IP_ENDS_H
#define HERMES_TESTS_IP_ENDS_H

#include "tests/unit/ip_world.h"

/* --- the test as the other end ------------------------------------------------------------------------------------ */

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
static inline void look(struct fake *f, bool up)
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

static inline bool say(struct leg *leg, struct chunks *chunks)
{
	bool taken = leg->ops->send(leg, chunks);
	chunks_clear(chunks);
	turn();
	return taken;
}

static inline void say_packet(struct leg *leg, const char *from, const char *to, uint8_t ttl, size_t length)
{
	struct chunks chunks = {0};
	uint8_t packet[65536];
	make_packet(packet, from, to, ttl, length);
	capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, packet, length);
	assert_true(say(leg, &chunks));
}

static inline bool say_capsule(struct leg *leg, uint64_t type, const void *value, size_t length)
{
	struct chunks chunks = {0};
	capsule_put(&chunks, type, value, length);
	return say(leg, &chunks);
}

static inline void say_addresses(struct leg *leg, uint64_t type, const struct ip_assigned *v, unsigned n)
{
	uint8_t value[64 * 34 + 16];
	assert_true(say_capsule(leg, type, value, ip_addresses_put(value, v, n)));
}

static inline struct ip_assigned asking(uint64_t id, const char *text)
{
	return (struct ip_assigned){id, prefix_of(text)};
}

static inline const char *told(unsigned i)
{
	static char text[4][IP_TEXT];
	return ip_prefix_text(&seen.addresses[i].prefix, text[i % 4]);
}

#endif
