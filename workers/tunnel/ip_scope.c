/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_scope.h"

#include <stdlib.h>

#include "workers/tunnel/device_routes.h"
#include "workers/tunnel/ip_text.h"

struct ip_scope {
	struct config_prefixes prefixes;
	struct device_routes *set;    /* the same, to look up */
	int protocol;
};

static void add(struct ip_scope *s, const struct config_prefix *prefix)
{
	for (size_t i = 0; i < s->prefixes.n; i++)
		if (s->prefixes.v[i].bits == prefix->bits && IN6_ARE_ADDR_EQUAL(&s->prefixes.v[i].address, &prefix->address))
			return;
	s->prefixes.v = realloc(s->prefixes.v, (s->prefixes.n + 1) * sizeof(*prefix));
	if (!s->prefixes.v)
		abort();
	s->prefixes.v[s->prefixes.n++] = *prefix;
	device_routes_add(s->set, prefix, s);
}

/* What both contain: prefixes nest or have nothing in common. */
static void add_common(struct ip_scope *s, const struct config_prefix *a, const struct config_prefix *b)
{
	if (ip_prefix_is_v4(a) != ip_prefix_is_v4(b))
		return;
	const struct config_prefix *outer = a->bits <= b->bits ? a : b, *inner = outer == a ? b : a;
	if (config_prefix_contains(outer, &inner->address))
		add(s, inner);
}

static void add_limited(struct ip_scope *s, const struct config_prefix *prefix, const struct config_prefixes *targets)
{
	if (!targets)
		return add(s, prefix);
	for (size_t i = 0; i < targets->n; i++)
		add_common(s, prefix, &targets->v[i]);
}

static bool has_family(const struct config_prefixes *pool, bool v4)
{
	for (size_t i = 0; i < pool->n; i++)
		if (ip_prefix_is_v4(&pool->v[i]) == v4)
			return true;
	return false;
}

struct ip_scope *ip_scope_new(const struct config_prefixes *advertise, const struct config_prefixes *pool,
                              const struct config_prefixes *targets, int protocol)
{
	static const struct config_prefix all_v4 = {{.s6_addr = {[10] = 0xff, [11] = 0xff}}, 96}, all_v6 = {.bits = 0};
	struct ip_scope *s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	s->set = device_routes_new();
	s->protocol = protocol;
	for (size_t i = 0; i < advertise->n; i++)
		add_limited(s, &advertise->v[i], targets);
	if (advertise->n == 0 && has_family(pool, true))
		add_limited(s, &all_v4, targets);
	if (advertise->n == 0 && has_family(pool, false))
		add_limited(s, &all_v6, targets);
	if (s->prefixes.n > 0)
		return s;
	ip_scope_free(s);
	return NULL;
}

void ip_scope_free(struct ip_scope *s)
{
	if (!s)
		return;
	device_routes_free(s->set);
	free(s->prefixes.v);
	free(s);
}

bool ip_scope_allows(struct ip_scope *s, const struct in6_addr *far, uint8_t protocol)
{
	bool icmp = protocol == (ip_is_v4(far) ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	return (s->protocol < 0 || s->protocol == protocol || icmp) && device_routes_find(s->set, far);
}

const struct config_prefixes *ip_scope_prefixes(const struct ip_scope *s)
{
	return &s->prefixes;
}

uint8_t *ip_scope_routes(const struct ip_scope *s, size_t *length)
{
	unsigned n = s->prefixes.n < IP_CAPSULE_ENTRIES ? (unsigned)s->prefixes.n : IP_CAPSULE_ENTRIES;
	struct ip_route *routes = calloc(n, sizeof(*routes));
	uint8_t *out = malloc(n * 34u + 16);
	if (!routes || !out)
		abort();
	for (unsigned i = 0; i < n; i++)
		routes[i] = ip_route_of(&s->prefixes.v[i], (uint8_t)(s->protocol < 0 ? 0 : s->protocol));
	*length = ip_routes_put(out, routes, n);
	free(routes);
	return out;
}
