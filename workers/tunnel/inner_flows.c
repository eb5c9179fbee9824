/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/inner_flows.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/head.h"
#include "workers/tunnel/listener.h"

#define SHARE 8u                      /* of node.cache_entries */
#define LEAST 1024u
#define ASKED_MAX 256u
#define FRAGMENTS 64u                 /* packets in fragments that are remembered, a power of two */
#define SECOND 1000000ull             /* µs */
#define IDLE (180 * SECOND)
#define IDLE_CONNECTION (7200 * SECOND)
#define FRAGMENT_TIME (5 * SECOND)
#define HOLD (5 * SECOND)             /* a verdict that nobody may keep holds so long for its own flow */
#define SILENCE SECOND                /* before what nobody answered is asked again */

/* One direction. No padding: compared as memory. */
struct key {
	struct in6_addr source, destination;
	uint16_t source_port, destination_port;
	uint8_t protocol, zero[3];
	uint32_t seed;                        /* the table's: nobody can choose flows that share a bucket */
};

struct inner_flow {
	UT_hash_handle hh;
	struct inner_flow *prev, *next;       /* least recently used first */
	struct inner_flows *table;
	struct key key;
	struct ask_query *query;              /* asked about */
	bool allowed;                         /* where there is no query */
	uint64_t generation, until, idle_at;
};

/* A packet in fragments: what its first one was. */
struct fragments { struct in6_addr source, destination; uint32_t id; uint64_t until; struct key key; };

struct inner_flows {
	struct tunnel *tunnel;
	const struct origin *origin;
	char *user;
	struct head *request;
	void (*ready)(void *arg);
	void *arg;
	struct inner_flow *by_key, *used;
	uint32_t seed;
	unsigned asked;
	uint64_t examined_under;              /* generation that by_port was found in */
	bool by_port;                         /* a policy looks at ports */
	struct fragments fragments[FRAGMENTS];
	unsigned next_fragment;
};

/* --- the table ---------------------------------------------------------------------------------------------------- */

static struct key key_of(const struct inner_flows *table, const struct ip_packet *p)
{
	return (struct key){ .seed = table->seed, .source = p->source, .destination = p->destination,
		.source_port = p->source_port, .destination_port = p->destination_port, .protocol = p->protocol };
}

static struct key reversed(const struct key *key)
{
	struct key other = *key;

	other.source = key->destination;
	other.destination = key->source;
	other.source_port = key->destination_port;
	other.destination_port = key->source_port;
	return other;
}

static void forget(struct inner_flow *flow)
{
	struct inner_flows *table = flow->table;

	if (flow->query) {
		ask_cancel(flow->query);
		table->asked--;
	}
	HASH_DEL(table->by_key, flow);
	DL_DELETE(table->used, flow);
	free(flow);
}

static uint64_t idle_time(const struct key *key)
{
	bool connection = key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_SCTP || key->protocol == IPPROTO_DCCP;

	return connection ? IDLE_CONNECTION : IDLE;
}

static struct inner_flow *find(struct inner_flows *table, const struct key *key, uint64_t now)
{
	struct inner_flow *flow;

	HASH_FIND(hh, table->by_key, key, sizeof(*key), flow);
	if (flow && !flow->query && now >= flow->idle_at) {
		forget(flow);
		return NULL;
	}
	return flow;
}

static void touch(struct inner_flow *flow, uint64_t now)
{
	struct inner_flows *table = flow->table;

	flow->idle_at = now + idle_time(&flow->key);
	if (flow->next) {
		DL_DELETE(table->used, flow);
		DL_APPEND(table->used, flow);
	}
}

/* Those that are asked about are few, and go last. */
static void make_room(struct inner_flows *table, uint64_t now)
{
	unsigned limit = table->tunnel->current->config->cache_entries / SHARE;
	struct inner_flow *flow, *next;
	unsigned steps = 2 * ASKED_MAX;

	limit = limit < LEAST ? LEAST : limit;
	DL_FOREACH_SAFE(table->used, flow, next) {
		if ((HASH_COUNT(table->by_key) < limit && now < flow->idle_at) || !steps--)
			return;
		if (!flow->query)
			forget(flow);
	}
}

/* NULL: out of memory. */
static struct inner_flow *flow_add(struct inner_flows *table, const struct key *key, uint64_t now)
{
	struct inner_flow *flow;

	make_room(table, now);
	flow = calloc(1, sizeof(*flow));
	if (!flow)
		return NULL;
	flow->table = table;
	flow->key = *key;
	HASH_ADD(hh, table->by_key, key, sizeof(flow->key), flow);
	if (!flow->hh.tbl) {
		free(flow);
		return NULL;
	}
	DL_APPEND(table->used, flow);
	return flow;
}

/* --- asking ------------------------------------------------------------------------------------------------------- */

static void use(struct inner_flow *flow, struct decision *decision)
{
	uint64_t now = now_us();

	flow->allowed = decision && !decision->status;
	if (!decision || decision->status >= 500)
		flow->until = now + SILENCE;
	else
		flow->until = decision->valid_until > now ? decision->valid_until : now + HOLD;
	decision_unref(decision);
}

static void on_decided(void *arg, struct decision *decision)
{
	struct inner_flow *flow = arg;
	struct inner_flows *table = flow->table;

	flow->query = NULL;
	table->asked--;
	use(flow, decision);
	table->ready(table->arg);
}

static void ask_about(struct inner_flow *flow)
{
	struct inner_flows *table = flow->table;
	struct ask_inner inner = { .protocol = flow->key.protocol, .source = flow->key.source,
		.destination = flow->key.destination };
	struct decision *decision;

	/* an echo's identifier is no port */
	if (flow->key.protocol != IPPROTO_ICMP && flow->key.protocol != IPPROTO_ICMPV6)
		inner.port = flow->key.destination_port;
	flow->generation = table->tunnel->current->number;
	decision = ask_inner(table->tunnel->ask, table->origin, table->user, table->request, &inner, &flow->query, on_decided,
	                     flow);
	if (decision)
		use(flow, decision);
	else
		table->asked++;
}

/* What is known of the flow, which is asked about anew where that no longer holds. */
static enum inner_verdict verdict(struct inner_flow *flow, uint64_t now)
{
	struct inner_flows *table = flow->table;

	touch(flow, now);
	if (flow->query)
		return INNER_PENDING;
	if (flow->generation != table->tunnel->current->number || now >= flow->until) {
		if (table->asked >= ASKED_MAX)
			return INNER_PENDING;
		ask_about(flow);
	}
	return flow->query ? INNER_PENDING : flow->allowed ? INNER_ALLOW : INNER_DENY;
}

/* What the flow, or the one that it answers, may. ask: one that is not known is asked about, else INNER_DENY. */
static enum inner_verdict check(struct inner_flows *table, const struct key *key, bool ask, uint64_t now)
{
	struct key other = reversed(key);
	struct inner_flow *flow = find(table, key, now), *answered;
	enum inner_verdict own = flow ? verdict(flow, now) : INNER_DENY;

	if (own == INNER_ALLOW)
		return own;
	answered = find(table, &other, now);
	if (answered && answered != flow) {
		enum inner_verdict v = verdict(answered, now);

		if (v != INNER_DENY)
			return v;
	}
	if (flow || !ask)
		return own;
	if (table->asked >= ASKED_MAX)
		return INNER_PENDING;
	flow = flow_add(table, key, now);
	if (!flow)
		return INNER_DENY;
	ask_about(flow);
	return verdict(flow, now);
}

/* --- fragments ---------------------------------------------------------------------------------------------------- */

static struct fragments *find_fragments(struct inner_flows *table, const struct ip_packet *p, uint64_t now)
{
	for (unsigned i = 0; i < FRAGMENTS; i++) {
		struct fragments *f = &table->fragments[i];

		if (f->until > now && f->id == p->fragment_id && IN6_ARE_ADDR_EQUAL(&f->source, &p->source) &&
		    IN6_ARE_ADDR_EQUAL(&f->destination, &p->destination))
			return f;
	}
	return NULL;
}

static void remember(struct inner_flows *table, const struct ip_packet *p, const struct key *key, uint64_t now)
{
	struct fragments *f = find_fragments(table, p, now);

	if (!f)
		f = &table->fragments[table->next_fragment++ % FRAGMENTS];
	*f = (struct fragments){ .source = p->source, .destination = p->destination, .id = p->fragment_id,
		.until = now + FRAGMENT_TIME, .key = *key };
}

static bool by_port(struct inner_flows *table)
{
	const struct generation *current = table->tunnel->current;
	const struct config *config = current->config;

	if (table->examined_under == current->number)
		return table->by_port;
	table->examined_under = current->number;
	table->by_port = false;
	for (size_t i = 0; i < config->n_policies; i++) {
		const struct config_policy *policy = &config->policies[i];

		table->by_port |= policy->match.ip.port_low || policy->authorizer.address;
		for (size_t k = 0; k < policy->n_rules; k++)
			table->by_port |= policy->rules[k].match.ip.port_low != 0;
	}
	return table->by_port;
}

static enum inner_verdict check_fragment(struct inner_flows *table, const struct ip_packet *packet,
                                         const struct key *key, uint64_t now)
{
	const struct fragments *f;

	if (packet->first) {
		remember(table, packet, key, now);
		return check(table, key, true, now);
	}
	f = find_fragments(table, packet, now);
	if (f)
		return check(table, &f->key, true, now);
	return by_port(table) ? INNER_DENY : check(table, key, true, now);
}

/* --- the outside -------------------------------------------------------------------------------------------------- */

/* An error about a flow that may pass belongs to it, and goes to one of its ends. */
static bool reports_on_flow(struct inner_flows *table, const struct ip_packet *packet, uint64_t now,
                            enum inner_verdict *out)
{
	const struct ip_quoted *q = &packet->quoted;
	struct key key;

	if (!q->present || !IN6_ARE_ADDR_EQUAL(&q->source, &packet->destination))
		return false;
	key = (struct key){ .seed = table->seed, .source = q->source, .destination = q->destination,
		.source_port = q->source_port, .destination_port = q->destination_port, .protocol = q->protocol };
	*out = check(table, &key, false, now);
	return *out != INNER_DENY;
}

enum inner_verdict inner_flows_check(struct inner_flows *table, const struct ip_packet *packet)
{
	enum inner_verdict v;
	uint64_t now;
	struct key key;

	if (!table->tunnel->current->config->examines.ip)
		return INNER_ALLOW;
	now = now_us();
	if (reports_on_flow(table, packet, now, &v))
		return v;
	key = key_of(table, packet);
	return packet->fragment ? check_fragment(table, packet, &key, now) : check(table, &key, true, now);
}

/* The request as it was asked about when the tunnel began: with what its listener adds, and without what it removes. */
static struct head *as_asked(const struct head *request, const struct origin *origin)
{
	struct head *head = head_clone(request);

	fields_apply(head, &origin->listener->config->add_headers, &origin->listener->config->remove_headers);
	return head;
}

struct inner_flows *inner_flows_new(struct tunnel *tunnel, const struct origin *origin, const char *user,
                                    const struct head *request, void (*ready)(void *arg), void *arg)
{
	struct inner_flows *table = calloc(1, sizeof(*table));

	if (!table)
		abort();
	table->request = as_asked(request, origin);
	user = user ? user : head_get(table->request, "user");
	if (user && !(table->user = strdup(user)))
		abort();
	table->tunnel = tunnel;
	table->origin = origin;
	table->ready = ready;
	table->arg = arg;
	table->examined_under = UINT64_MAX;
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) < 0)
		table->seed = (uint32_t)(uintptr_t)table;
	return table;
}

void inner_flows_free(struct inner_flows *table)
{
	struct inner_flow *flow, *next;

	if (!table)
		return;
	DL_FOREACH_SAFE(table->used, flow, next)
		forget(flow);
	head_free(table->request);
	free(table->user);
	free(table);
}
