/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_capsule.h"

#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/capsule.h"

/* A value under way. why: the first thing wrong with it. */
struct cursor { const uint8_t *at; size_t left; const char *why; };

static const uint8_t *take(struct cursor *c, size_t n)
{
	const uint8_t *at = c->at;

	if (c->why || c->left < n) {
		c->why = c->why ? c->why : "truncated capsule";
		return NULL;
	}
	c->at += n;
	c->left -= n;
	return at;
}

static uint8_t take_byte(struct cursor *c)
{
	const uint8_t *p = take(c, 1);

	return p ? *p : 0;
}

static uint64_t take_varint(struct cursor *c)
{
	uint64_t value = 0;
	unsigned n = c->why ? 0 : varint_get(c->at, c->left, &value);

	if (n == 0)
		c->why = c->why ? c->why : "truncated capsule";
	else
		take(c, n);
	return value;
}

static uint8_t take_version(struct cursor *c)
{
	uint8_t version = take_byte(c);

	if (!c->why && version != 4 && version != 6)
		c->why = "bad IP version";
	return version;
}

/* An IPv6 address that would read as one of IPv4 among us is none on a wire (RFC 4942 2.2), but where a range ends: ::/80. */
static void take_address(struct cursor *c, uint8_t version, struct in6_addr *out)
{
	const uint8_t *p = take(c, version == 4 ? 4 : 16);

	memset(out, 0, sizeof(*out));
	if (!p)
		return;
	if (version == 4) {
		memset(out->s6_addr + 10, 0xff, 2);
		memcpy(out->s6_addr + 12, p, 4);
		return;
	}
	memcpy(out, p, 16);
}

static void refuse_mapped(struct cursor *c, uint8_t version, const struct in6_addr *address)
{
	if (!c->why && version == 6 && IN6_IS_ADDR_V4MAPPED(address))
		c->why = "IPv4-mapped address";
}

/* Of a range, what its first address says. */
static int version_of(const struct in6_addr *address)
{
	return IN6_IS_ADDR_V4MAPPED(address) ? 4 : 6;
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

static bool host_bits_zero(const struct config_prefix *prefix)
{
	for (unsigned bit = prefix->bits; bit < 128; bit++)
		if (prefix->address.s6_addr[bit / 8] & 0x80 >> bit % 8)
			return false;
	return true;
}

static void take_assigned(struct cursor *c, bool request, struct ip_assigned *out)
{
	uint8_t version, bits;

	out->request = take_varint(c);
	version = take_version(c);
	take_address(c, version, &out->prefix.address);
	refuse_mapped(c, version, &out->prefix.address);
	bits = take_byte(c);
	if (c->why)
		return;
	if (bits > (version == 4 ? 32 : 128)) {
		c->why = "prefix too long";
		return;
	}
	out->prefix.bits = (uint8_t)(version == 4 ? bits + 96 : bits);
	if (!host_bits_zero(&out->prefix))
		c->why = "address bits past the prefix";
	else if (request && out->request == 0)
		c->why = "address request without an id";
}

const char *ip_addresses_get(const uint8_t *value, size_t length, bool request, struct ip_assigned *out, unsigned max,
                             unsigned *n)
{
	struct cursor c = { .at = value, .left = length };

	for (*n = 0; c.left && !c.why; (*n)++) {
		if (*n == max)
			return "too many addresses";
		take_assigned(&c, request, &out[*n]);
	}
	if (!c.why && request && *n == 0)
		return "empty address request";
	return c.why;
}

static uint8_t *put_address(uint8_t *out, int version, const struct in6_addr *address)
{
	size_t length = version == 4 ? 4 : 16;

	memcpy(out, address->s6_addr + 16 - length, length);
	return out + length;
}

size_t ip_addresses_put(uint8_t *out, const struct ip_assigned *v, unsigned n)
{
	uint8_t *p = out;

	for (unsigned i = 0; i < n; i++) {
		int version = version_of(&v[i].prefix.address);

		p += varint_put(p, v[i].request);
		*p++ = (uint8_t)version;
		p = put_address(p, version, &v[i].prefix.address);
		*p++ = (uint8_t)(version == 4 ? v[i].prefix.bits - 96 : v[i].prefix.bits);
	}
	return (size_t)(p - out);
}

/* --- routes ------------------------------------------------------------------------------------------------------- */

static int compare_addresses(const struct in6_addr *a, const struct in6_addr *b)
{
	return memcmp(a, b, sizeof(*a));
}

/* The order of RFC 9484 4.7.3. */
static int compare_routes(const void *left, const void *right)
{
	const struct ip_route *a = left, *b = right;
	int va = version_of(&a->from), vb = version_of(&b->from);

	if (va != vb)
		return va - vb;
	if (a->protocol != b->protocol)
		return a->protocol - b->protocol;
	return compare_addresses(&a->from, &b->from);
}

static const char *check_order(const struct ip_route *a, const struct ip_route *b)
{
	int va = version_of(&a->from), vb = version_of(&b->from);

	if (va != vb)
		return va < vb ? NULL : "routes out of order";
	if (a->protocol != b->protocol)
		return a->protocol < b->protocol ? NULL : "routes out of order";
	if (compare_addresses(&a->to, &b->from) < 0)
		return NULL;
	return compare_addresses(&a->from, &b->to) <= 0 ? "routes overlap" : "routes out of order";
}

static int find_overlap(const void *key, const void *member)
{
	const struct ip_route *route = key, *all = member;

	if (version_of(&route->from) != version_of(&all->from))
		return version_of(&route->from) - version_of(&all->from);
	if (compare_addresses(&route->to, &all->from) < 0)
		return -1;
	return compare_addresses(&route->from, &all->to) > 0;
}

/* Routes of one protocol inside those of all protocols, which the order does not rule out. v is ordered: those of all
 * protocols stand first within their version, and do not overlap each other. */
static const char *check_protocols(const struct ip_route *v, unsigned n)
{
	unsigned i = 0;

	while (i < n) {
		unsigned all = 0, begin = i;

		while (begin + all < n && version_of(&v[begin + all].from) == version_of(&v[begin].from) && !v[begin + all].protocol)
			all++;
		for (i = begin + all; i < n && version_of(&v[i].from) == version_of(&v[begin].from); i++)
			if (bsearch(&v[i], v + begin, all, sizeof(*v), find_overlap))
				return "routes overlap";
	}
	return NULL;
}

const char *ip_routes_get(const uint8_t *value, size_t length, struct ip_route *out, unsigned max, unsigned *n)
{
	struct cursor c = { .at = value, .left = length };

	for (*n = 0; c.left && !c.why; (*n)++) {
		struct ip_route *route = &out[*n];
		uint8_t version;

		if (*n == max)
			return "too many routes";
		version = take_version(&c);
		take_address(&c, version, &route->from);
		refuse_mapped(&c, version, &route->from);
		take_address(&c, version, &route->to);
		route->protocol = take_byte(&c);
		if (!c.why && compare_addresses(&route->from, &route->to) > 0)
			c.why = "route ends before it begins";
		if (!c.why && *n)
			c.why = check_order(route - 1, route);
	}
	return c.why ? c.why : check_protocols(out, *n);
}

/* Whether b begins no later than right after a's end. Both of one version and protocol, a <= b. */
static bool touch(const struct ip_route *a, const struct ip_route *b)
{
	struct in6_addr next = a->to;

	for (int i = 15; i >= 0 && ++next.s6_addr[i] == 0; i--)
		if (i == 0)
			return true;          /* a ends at the last address of all */
	return compare_addresses(&b->from, &next) <= 0;
}

static unsigned merge(struct ip_route *v, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 1; i < n; i++) {
		struct ip_route *last = &v[kept];

		if (version_of(&last->from) == version_of(&v[i].from) && last->protocol == v[i].protocol && touch(last, &v[i])) {
			if (compare_addresses(&v[i].to, &last->to) > 0)
				last->to = v[i].to;
		} else {
			v[++kept] = v[i];
		}
	}
	return n ? kept + 1 : 0;
}

size_t ip_routes_put(uint8_t *out, struct ip_route *v, unsigned n)
{
	uint8_t *p = out;

	if (n)
		qsort(v, n, sizeof(*v), compare_routes);
	n = merge(v, n);
	for (unsigned i = 0; i < n; i++) {
		int version = version_of(&v[i].from);

		*p++ = (uint8_t)version;
		p = put_address(p, version, &v[i].from);
		p = put_address(p, version, &v[i].to);
		*p++ = v[i].protocol;
	}
	return (size_t)(p - out);
}

struct ip_route ip_route_of(const struct config_prefix *prefix, uint8_t protocol)
{
	struct ip_route route = { .from = prefix->address, .to = prefix->address, .protocol = protocol };

	for (unsigned bit = prefix->bits; bit < 128; bit++)
		route.to.s6_addr[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	return route;
}

bool ip_route_has(const struct ip_route *route, uint8_t protocol, const struct in6_addr *address)
{
	if (version_of(&route->from) != version_of(address))
		return false;
	if (compare_addresses(address, &route->from) < 0 || compare_addresses(address, &route->to) > 0)
		return false;
	return !route->protocol || route->protocol == protocol ||
	       protocol == (version_of(address) == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}
