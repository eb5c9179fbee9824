/* SPDX-License-Identifier: Apache-2.0 */
/* Which way an objective's traffic takes: no kv, no clock. */
#include "workers/controller/objectives.h"

#include <stdio.h>
#include <string.h>

#define MEMORY_MS (3600 * 1000)       /* moves that are remembered */
#define DOUBLINGS_MAX 6
#define ALL_LOST 10000u               /* hundredths of a percent */

bool objective_met(const struct domain_objective *o, const struct way_measure *m)
{
	if (m->loss >= ALL_LOST)
		return false;
	return (!o->limit || m->rtt_us <= (uint64_t)o->limit * 1000) && (!o->loss.n || m->loss <= o->loss.n);
}

int64_t objective_hold(const struct domain_objective *o, const json_t *moves, int64_t now)
{
	unsigned recent = 0;

	for (size_t i = 0; i < json_array_size(moves); i++)
		recent += now - json_integer_value(json_array_get(moves, i)) < MEMORY_MS;
	unsigned doublings = recent > 1 ? recent - 1 : 0;
	return (int64_t)o->hold << (doublings < DOUBLINGS_MAX ? doublings : DOUBLINGS_MAX);
}

/* How badly it misses the objective: 1 is just met; what is not asked for does not count. */
static double badness(const struct domain_objective *o, const struct way_measure *m)
{
	double rtt = o->limit ? m->rtt_us / 1000.0 / o->limit : 0, loss = o->loss.n ? (double)m->loss / o->loss.n : 0;

	if (m->loss >= ALL_LOST)
		return 1e9;
	return rtt > loss ? rtt : loss;
}

/* Quicker, then less loss. */
static bool is_better(const struct way_measure *a, const struct way_measure *b)
{
	return a->rtt_us != b->rtt_us ? a->rtt_us < b->rtt_us : a->loss < b->loss;
}

static size_t best_that_meets(const struct domain_objective *o, const struct way_measure *m, size_t present)
{
	size_t best = present;

	for (size_t i = 0; i < o->n_ways; i++)
		if (i != present && m[i].known && objective_met(o, &m[i]) && (best == present || is_better(&m[i], &m[best])))
			best = i;
	return best;
}

static size_t best_by_margin(const struct domain_objective *o, const struct way_measure *m, size_t present)
{
	double least = badness(o, &m[present]) / (1 + o->margin / 100.0);
	size_t best = present;

	for (size_t i = 0; i < o->n_ways; i++)
		if (i != present && m[i].known && m[i].loss < ALL_LOST && badness(o, &m[i]) <= least) {
			least = badness(o, &m[i]);
			best = i;
		}
	return best;
}

static void tell(struct objective_choice *c, const struct domain_objective *o, const struct way_measure *m, size_t present)
{
	const struct way_measure *from = &m[present], *to = &m[c->way];
	char was[64];

	if (from->loss >= ALL_LOST)
		snprintf(was, sizeof(was), "is dead");
	else
		snprintf(was, sizeof(was), "takes %.1f ms and loses %.2g%%", from->rtt_us / 1000.0, from->loss / 100.0);
	snprintf(c->reason, sizeof(c->reason), "%s %s; %s takes %.1f ms and loses %.2g%%%s", o->ways[present].cluster, was,
	         o->ways[c->way].cluster, to->rtt_us / 1000.0, to->loss / 100.0, objective_met(o, to) ? "" : ", less bad");
}

struct objective_choice objective_decide(const struct domain_objective *o, const struct way_measure *m, size_t present,
                                         const json_t *moves, struct objective_memory *memory, int64_t now)
{
	struct objective_choice c = {.way = present};
	size_t n = json_array_size(moves);
	int64_t last = n ? json_integer_value(json_array_get(moves, n - 1)) : 0;

	if (!m[present].known)
		return c;
	if (objective_met(o, &m[present])) {
		memory->violated_since = 0;
		return c;
	}
	if (!memory->violated_since)
		memory->violated_since = now;
	if (now - memory->violated_since < (int64_t)o->for_ || (last && now - last < objective_hold(o, moves, now)))
		return c;
	c.way = best_that_meets(o, m, present);
	if (c.way == present)
		c.way = best_by_margin(o, m, present);
	c.changed = c.way != present;
	if (c.changed)
		tell(&c, o, m, present);
	return c;
}
