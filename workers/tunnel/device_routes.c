/* SPDX-License-Identifier: Apache-2.0 */
/* One hash table, keyed by prefix length and address. A look-up tries the lengths that are in use, the longest first: a handful
 * whatever the number of prefixes. What it found is remembered by address until anything changes. */
#include "workers/tunnel/device_routes.h"

#include <stdlib.h>
#include <string.h>

#define LENGTHS 129u
#define FIRST_SIZE 16u
#define REMEMBERED 64u

struct entry {
	struct config_prefix prefix;
	void *taker;                  /* NULL: free */
};

struct device_routes {
	struct entry *entries;        /* open addressing, at most half full */
	unsigned size, used;
	unsigned count[LENGTHS];      /* prefixes of that length */
	uint8_t lengths[LENGTHS];     /* those in use, the longest first */
	unsigned n_lengths;
	struct { struct in6_addr address; void *taker; uint64_t version; } last[REMEMBERED];
	uint64_t version;             /* of the table; last[] entries of another are stale */
};

static struct in6_addr masked(const struct in6_addr *address, unsigned bits)
{
	struct in6_addr out = *address;
	for (unsigned i = 0; i < 16; i++) {
		unsigned keep = bits >= 8 * (i + 1) ? 8 : bits <= 8 * i ? 0 : bits - 8 * i;
		out.s6_addr[i] &= (uint8_t)(0xff00u >> keep);
	}
	return out;
}

static unsigned hash(const struct in6_addr *address, unsigned bits)
{
	uint64_t a, b;
	memcpy(&a, address->s6_addr, 8);
	memcpy(&b, address->s6_addr + 8, 8);
	uint64_t h = (a ^ bits) * 0x9e3779b97f4a7c15u;
	h = (h ^ (h >> 32) ^ b) * 0xc2b2ae3d27d4eb4fu;
	return (unsigned)(h >> 32);
}

static bool same(const struct entry *e, const struct in6_addr *address, unsigned bits)
{
	return e->prefix.bits == bits && memcmp(&e->prefix.address, address, sizeof(*address)) == 0;
}

/* The entry of the prefix, or the free one where it would go. */
static struct entry *slot(const struct device_routes *r, const struct in6_addr *address, unsigned bits)
{
	unsigned i = hash(address, bits) & (r->size - 1);
	while (r->entries[i].taker && !same(&r->entries[i], address, bits))
		i = (i + 1) & (r->size - 1);
	return &r->entries[i];
}

static void resize(struct device_routes *r, unsigned size)
{
	struct entry *old = r->entries;
	unsigned n = r->size;
	r->entries = calloc(size, sizeof(*r->entries));
	if (!r->entries)
		abort();
	r->size = size;
	for (unsigned i = 0; i < n; i++)
		if (old[i].taker)
			*slot(r, &old[i].prefix.address, old[i].prefix.bits) = old[i];
	free(old);
}

struct device_routes *device_routes_new(void)
{
	struct device_routes *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	r->version = 1;
	resize(r, FIRST_SIZE);
	return r;
}

void device_routes_free(struct device_routes *r)
{
	if (!r)
		return;
	free(r->entries);
	free(r);
}

static void changed(struct device_routes *r)
{
	r->version++;
	r->n_lengths = 0;
	for (unsigned bits = LENGTHS; bits-- > 0;)
		if (r->count[bits])
			r->lengths[r->n_lengths++] = (uint8_t)bits;
}

bool device_routes_add(struct device_routes *r, const struct config_prefix *prefix, void *taker)
{
	struct in6_addr address = masked(&prefix->address, prefix->bits);
	struct entry *e = slot(r, &address, prefix->bits);
	if (e->taker)
		return e->taker == taker;
	if (2 * (r->used + 1) > r->size) {
		resize(r, 2 * r->size);
		e = slot(r, &address, prefix->bits);
	}
	*e = (struct entry){{address, prefix->bits}, taker};
	r->used++;
	r->count[prefix->bits]++;
	changed(r);
	return true;
}

/* Those behind it that probed over this entry move up (Knuth 6.4, algorithm R). */
static void take_out(struct device_routes *r, unsigned hole)
{
	r->count[r->entries[hole].prefix.bits]--;
	r->used--;
	for (unsigned i = (hole + 1) & (r->size - 1); r->entries[i].taker; i = (i + 1) & (r->size - 1)) {
		unsigned home = hash(&r->entries[i].prefix.address, r->entries[i].prefix.bits) & (r->size - 1);
		if (((i - home) & (r->size - 1)) < ((i - hole) & (r->size - 1)))
			continue;
		r->entries[hole] = r->entries[i];
		hole = i;
	}
	r->entries[hole].taker = NULL;
	changed(r);
}

void device_routes_remove(struct device_routes *r, const struct config_prefix *prefix, const void *taker)
{
	struct in6_addr address = masked(&prefix->address, prefix->bits);
	struct entry *e = slot(r, &address, prefix->bits);
	if (e->taker && e->taker == taker)
		take_out(r, (unsigned)(e - r->entries));
}

void device_routes_forget(struct device_routes *r, const void *taker)
{
	for (unsigned i = 0; i < r->size;) {
		if (r->entries[i].taker && r->entries[i].taker == taker)
			take_out(r, i);       /* another may have moved here */
		else
			i++;
	}
}

static void *look_up(const struct device_routes *r, const struct in6_addr *address)
{
	unsigned least = IN6_IS_ADDR_V4MAPPED(address) ? 96 : 0;   /* ::/0 is no route for IPv4 */
	for (unsigned i = 0; i < r->n_lengths && r->lengths[i] >= least; i++) {
		struct in6_addr prefix = masked(address, r->lengths[i]);
		const struct entry *e = slot(r, &prefix, r->lengths[i]);
		if (e->taker)
			return e->taker;
	}
	return NULL;
}

void *device_routes_find(struct device_routes *r, const struct in6_addr *address)
{
	unsigned i = hash(address, 128) % REMEMBERED;
	if (r->last[i].version != r->version || memcmp(&r->last[i].address, address, sizeof(*address)) != 0) {
		r->last[i].taker = look_up(r, address);
		r->last[i].address = *address;
		r->last[i].version = r->version;
	}
	return r->last[i].taker;
}
