/* SPDX-License-Identifier: Apache-2.0 */
/* Which flow a datagram belongs to: a hash table by its key, and those that were refused a moment ago in it. */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/udp_flows_internal.h"

#define BUCKETS_MIN 16u           /* a power of two */

uint32_t udp_table_hash(const struct udp_flows *all, const uint8_t *key, size_t length)
{
	uint64_t h = all->seed ^ length, word;
	for (; length >= sizeof(word); key += sizeof(word), length -= sizeof(word)) {
		memcpy(&word, key, sizeof(word));
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	for (word = 0; length > 0; length--)
		word = word << 8 | *key++;
	h = (h ^ word ^ all->seed >> 7) * 0xbf58476d1ce4e5b9u;
	return (uint32_t)(h ^ h >> 32);
}

static void grow(struct udp_flows *all)
{
	unsigned n = all->n_buckets ? 2 * all->n_buckets : BUCKETS_MIN;
	struct udp_flow **buckets = calloc(n, sizeof(*buckets));
	if (!buckets)
		abort();
	for (unsigned i = 0; i < all->n_buckets; i++)
		for (struct udp_flow *f = all->buckets[i], *next; f; f = next) {
			next = f->next;
			f->next = buckets[f->hash & (n - 1)];
			buckets[f->hash & (n - 1)] = f;
		}
	free(all->buckets);
	all->buckets = buckets;
	all->n_buckets = n;
}

void udp_table_insert(struct udp_flow *f)
{
	struct udp_flows *all = f->all;
	if (all->n >= all->n_buckets)
		grow(all);
	f->next = all->buckets[f->hash & (all->n_buckets - 1)];
	all->buckets[f->hash & (all->n_buckets - 1)] = f;
	all->n++;
	all->listener->udp_flows++;
	f->listed = true;
}

void udp_flow_set_state(struct udp_flow *f, enum udp_flow_state state)
{
	struct udp_flows *all = f->all;
	if (f->state == UDP_FLOW_REFUSED || f->state == UDP_FLOW_ENDING)
		TAILQ_REMOVE(f->state == UDP_FLOW_REFUSED ? &all->refused : &all->ending, f, state_link);
	f->state = state;
	if (state == UDP_FLOW_REFUSED || state == UDP_FLOW_ENDING)
		TAILQ_INSERT_TAIL(state == UDP_FLOW_REFUSED ? &all->refused : &all->ending, f, state_link);
}

void udp_table_remove(struct udp_flow *f, enum udp_flow_state state)
{
	struct udp_flows *all = f->all;
	struct udp_flow **link = &all->buckets[f->hash & (all->n_buckets - 1)];
	udp_flow_set_state(f, state);
	if (!f->listed)
		return;
	f->listed = false;
	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	all->n--;
	all->listener->udp_flows--;
	udp_flow_unref(f);
}

static void forget_refused(struct udp_flows *all, uint64_t until)
{
	struct udp_flow *f;
	while ((f = TAILQ_FIRST(&all->refused)) && f->forget_at <= until)
		udp_table_remove(f, UDP_FLOW_OVER);
}

void udp_table_on_forget(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval again = {.tv_sec = 1};
	struct udp_flows *all = arg;
	(void)fd, (void)what;
	forget_refused(all, now_us());
	if (!TAILQ_EMPTY(&all->refused))
		event_add(all->forget, &again);
}

struct udp_flow *udp_flows_find(struct udp_flows *all, const void *key, size_t length)
{
	if (all->n_buckets == 0)
		return NULL;
	uint32_t hash = udp_table_hash(all, key, length);
	for (struct udp_flow *f = all->buckets[hash & (all->n_buckets - 1)]; f; f = f->next)
		if (f->hash == hash && f->key_length == length && memcmp(f->key, key, length) == 0) {
			if (f->state != UDP_FLOW_REFUSED || f->forget_at > now_us())
				return f;
			udp_table_remove(f, UDP_FLOW_OVER);
			return NULL;
		}
	return NULL;
}
