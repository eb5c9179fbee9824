/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/ip_pool.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/ip_text.h"

#define PROBES 4096u                  /* addresses looked at before a request for any is refused */
#define REMEMBERED 4096u              /* addresses that nobody holds */

struct lease {
	UT_hash_handle hh;
	struct ip_pool *pool;
	struct in6_addr address;
	struct device_port port;
	struct ip_hold *holds;        /* the youngest first; NULL: idle */
	TAILQ_ENTRY(lease) idle;      /* where nobody holds it: the one free for longest first */
	char *user, *client;
};
TAILQ_HEAD(lease_list, lease);

/* A holder's part in a lease. */
struct ip_hold {
	struct lease *lease;
	struct ip_holder *holder;
	struct ip_hold *next;         /* of the lease */
	struct ip_hold *next_held;    /* of the holder, the oldest first */
};

struct ip_pool {
	struct device *device;
	struct lease *leases;         /* by address */
	struct lease_list idle;
	unsigned n_idle;
	struct in6_addr cursor;       /* the last one given to who had no wish */
};

/* --- leases ------------------------------------------------------------------------------------------------------- */

static bool equal(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static bool same_client(const struct lease *l, const struct ip_holder *h)
{
	return equal(l->client, h->client) || equal(l->user, h->user);
}

static bool holds(const struct lease *l, const struct ip_holder *h)
{
	const struct ip_hold *hold = l->holds;
	while (hold && hold->holder != h)
		hold = hold->next;
	return hold;
}

static int fit(const struct config_prefixes *scope, const struct in6_addr *source)
{
	int best = -1;
	for (size_t i = 0; scope && i < scope->n; i++)
		if (scope->v[i].bits > best && config_prefix_contains(&scope->v[i], source))
			best = scope->v[i].bits;
	return best;
}

/* A packet to the address: of several tunnels the one whose scope contains its source most closely; of an ICMP error, which any
 * router may send, where the packet that it is about went (RFC 9484 11). */
static void on_packet(struct device_port *port, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                      const struct ip_packet *ip)
{
	struct lease *l = (struct lease *)((char *)port - offsetof(struct lease, port));
	struct ip_hold *chosen = l->holds;
	const struct in6_addr *peer = ip->quoted.present ? &ip->quoted.destination : &ip->source;
	int best = chosen && chosen->next ? fit(chosen->holder->scope, peer) : 0;
	for (struct ip_hold *h = chosen ? chosen->next : NULL; h; h = h->next) {
		int n = fit(h->holder->scope, peer);
		if (n > best) {
			best = n;
			chosen = h;
		}
	}
	if (chosen)
		chosen->holder->packet(chosen->holder, header, packet, length, ip);
}

static void lease_free(struct lease *l)
{
	HASH_DEL(l->pool->leases, l);
	TAILQ_REMOVE(&l->pool->idle, l, idle);
	l->pool->n_idle--;
	free(l->user), free(l->client);
	free(l);
}

static struct lease *lease_new(struct ip_pool *p, const struct in6_addr *address)
{
	struct lease *l = calloc(1, sizeof(*l));
	if (!l)
		abort();
	l->pool = p;
	l->address = *address;
	l->port.packet = on_packet;
	HASH_ADD(hh, p->leases, address, sizeof(l->address), l);
	TAILQ_INSERT_TAIL(&p->idle, l, idle);
	if (++p->n_idle > REMEMBERED)
		lease_free(TAILQ_FIRST(&p->idle));
	return l;
}

static void rename_lease(struct lease *l, const struct ip_holder *h)
{
	free(l->user), free(l->client);
	l->user = h->user ? strdup(h->user) : NULL;
	l->client = h->client ? strdup(h->client) : NULL;
}

static bool take(struct lease *l, struct ip_holder *h)
{
	struct config_prefix prefix = ip_host_prefix(&l->address);
	if (holds(l, h))
		return true;
	if (!l->holds && !device_route_add(l->pool->device, &prefix, &l->port))
		return false;           /* a network of this very device leads there */
	if (!l->holds) {
		TAILQ_REMOVE(&l->pool->idle, l, idle);
		l->pool->n_idle--;
		rename_lease(l, h);
	}
	struct ip_hold *hold = malloc(sizeof(*hold)), **last = &h->holds;
	if (!hold)
		abort();
	*hold = (struct ip_hold){l, h, l->holds, NULL};
	l->holds = hold;
	while (*last)
		last = &(*last)->next_held;
	*last = hold;
	h->n++;
	return true;
}

static void let(struct ip_hold *hold)
{
	struct lease *l = hold->lease;
	struct ip_hold **link = &l->holds;
	while (*link != hold)
		link = &(*link)->next;
	*link = hold->next;
	free(hold);
	if (l->holds)
		return;
	device_port_remove(l->pool->device, &l->port);
	TAILQ_INSERT_TAIL(&l->pool->idle, l, idle);
	if (++l->pool->n_idle > REMEMBERED)
		lease_free(TAILQ_FIRST(&l->pool->idle));
}

/* --- which address ------------------------------------------------------------------------------------------------ */

static bool host_bits_are(const struct config_prefix *prefix, const struct in6_addr *address, bool ones)
{
	for (unsigned bit = prefix->bits; bit < 128; bit++)
		if (((address->s6_addr[bit / 8] >> (7 - bit % 8)) & 1) != ones)
			return false;
	return true;
}

/* Neither the network's own address nor, for IPv4, its broadcast address; nor one of the device. */
static bool usable(const struct ip_pool *p, const struct config_prefixes *ranges, const struct in6_addr *address)
{
	for (size_t i = 0; i < ranges->n; i++) {
		const struct config_prefix *r = &ranges->v[i];
		bool v4 = ip_prefix_is_v4(r);
		if (v4 != ip_is_v4(address) || !config_prefix_contains(r, address))
			continue;
		if (r->bits < 127 && (host_bits_are(r, address, false) || (v4 && host_bits_are(r, address, true))))
			continue;
		return !device_is_own(p->device, address);
	}
	return false;
}

static struct lease *find(const struct ip_pool *p, const struct in6_addr *address)
{
	struct lease *l;
	HASH_FIND(hh, p->leases, address, sizeof(*address), l);
	return l;
}

/* The next address of the range after `address`, from its first on after its last. */
static void step(const struct config_prefix *range, struct in6_addr *address)
{
	if (!config_prefix_contains(range, address)) {
		*address = range->address;
		return;
	}
	for (unsigned i = 16; i-- > 0 && 8 * (i + 1) > range->bits;) {
		unsigned host = range->bits <= 8 * i ? 0xff : 0xffu >> (range->bits - 8 * i);
		unsigned next = ((address->s6_addr[i] & host) + 1) & host;
		address->s6_addr[i] = (uint8_t)((address->s6_addr[i] & ~host) | next);
		if (next)
			return;
	}
}

/* One that it had before, or shares with another tunnel of the same program. */
static struct lease *former(struct ip_pool *p, const struct config_prefixes *ranges, bool v4, const struct ip_holder *h)
{
	for (struct lease *l = p->leases; l; l = l->hh.next) {
		bool fits = l->holds ? equal(l->client, h->client) : same_client(l, h);
		if (fits && !holds(l, h) && ip_is_v4(&l->address) == v4 && usable(p, ranges, &l->address))
			return l;
	}
	return NULL;
}

static struct lease *any(struct ip_pool *p, const struct config_prefixes *ranges, bool v4, const struct ip_holder *h)
{
	struct lease *l = former(p, ranges, v4, h);
	for (size_t i = 0; i < ranges->n && !l; i++) {
		if (ip_prefix_is_v4(&ranges->v[i]) != v4)
			continue;
		struct in6_addr first = p->cursor;
		for (unsigned k = 0; k < PROBES && !l; k++) {
			step(&ranges->v[i], &p->cursor);
			if (k > 0 && IN6_ARE_ADDR_EQUAL(&p->cursor, &first))
				break;
			if (usable(p, ranges, &p->cursor) && !find(p, &p->cursor))
				l = lease_new(p, &p->cursor);
		}
	}
	if (l)
		return l;
	TAILQ_FOREACH(l, &p->idle, idle)
		if (ip_is_v4(&l->address) == v4 && usable(p, ranges, &l->address))
			return l;
	return NULL;
}

bool ip_pool_assign(struct ip_pool *p, const struct config_prefixes *ranges, const struct in6_addr *wanted,
                    struct ip_holder *h, struct in6_addr *out)
{
	bool v4 = ip_is_v4(wanted);
	bool none = v4 ? memcmp(wanted->s6_addr + 12, "\0\0\0\0", 4) == 0 : IN6_IS_ADDR_UNSPECIFIED(wanted);
	struct lease *l;
	if (none) {
		l = any(p, ranges, v4, h);
	} else {
		if (!usable(p, ranges, wanted))
			return false;
		l = find(p, wanted);
		if (l && l->holds && !holds(l, h) && !same_client(l, h))
			return false;
		if (!l)
			l = lease_new(p, wanted);
	}
	if (!l || !take(l, h))
		return false;
	*out = l->address;
	return true;
}

/* --- holders ------------------------------------------------------------------------------------------------------ */

bool ip_pool_holds(const struct ip_holder *h, const struct in6_addr *address)
{
	for (const struct ip_hold *hold = h->holds; hold; hold = hold->next_held)
		if (IN6_ARE_ADDR_EQUAL(&hold->lease->address, address))
			return true;
	return false;
}

unsigned ip_pool_held(const struct ip_holder *h, struct in6_addr *out, unsigned max)
{
	unsigned n = 0;
	for (const struct ip_hold *hold = h->holds; hold && n < max; hold = hold->next_held)
		out[n++] = hold->lease->address;
	return n;
}

void ip_pool_release(struct ip_holder *h)
{
	for (struct ip_hold *hold; (hold = h->holds);) {
		h->holds = hold->next_held;
		let(hold);
	}
	h->n = 0;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct ip_pool *ip_pool_of(struct device *device)
{
	if (device->pool)
		return device->pool;
	struct ip_pool *p = calloc(1, sizeof(*p));
	if (!p)
		abort();
	p->device = device;
	TAILQ_INIT(&p->idle);
	return device->pool = p;
}

void ip_pool_free(struct ip_pool *p)
{
	if (!p)
		return;
	for (struct lease *l; (l = TAILQ_FIRST(&p->idle));)
		lease_free(l);
	free(p);
}
