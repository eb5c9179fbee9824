#include "workers/tunnel/balance.h"

#include <math.h>

/* Smooth weighted round robin: each endpoint gains its weight, the richest is chosen and pays the total. Choices are spread
 * evenly (a, a, b, a for 3:1), not in bursts. */
static unsigned pick_round_robin(const struct balance_candidate *c, unsigned n)
{
	int64_t total = 0;
	unsigned best = 0;
	for (unsigned i = 0; i < n; i++) {
		*c[i].turn += c[i].weight;
		total += c[i].weight;
		if (*c[i].turn > *c[best].turn)
			best = i;
	}
	*c[best].turn -= total;
	return best;
}

/* Least (load + 1) / weight; among equals it goes round robin. */
static unsigned pick_least(const struct balance_candidate *c, unsigned n)
{
	unsigned best = 0, ties = 0;
	for (unsigned i = 1; i < n; i++) {
		uint64_t a = ((uint64_t)c[i].load + 1) * c[best].weight, b = ((uint64_t)c[best].load + 1) * c[i].weight;
		if (a < b)
			best = i, ties = 0;
		else if (a == b)
			ties++;
	}
	if (ties == 0)
		return best;
	unsigned chosen = best;
	int64_t total = 0;
	for (unsigned i = best; i < n; i++) {
		if (((uint64_t)c[i].load + 1) * c[best].weight != ((uint64_t)c[best].load + 1) * c[i].weight)
			continue;
		*c[i].turn += c[i].weight;
		total += c[i].weight;
		if (*c[i].turn > *c[chosen].turn)
			chosen = i;
	}
	*c[chosen].turn -= total;
	return chosen;
}

/* The finalizer of MurmurHash3: every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 33;
}

/* Weighted rendezvous hashing: the loss of an endpoint moves only its own keys. Score: -weight / ln(u), u in (0, 1). */
static unsigned pick_hash(const struct balance_candidate *c, unsigned n, uint64_t key)
{
	unsigned best = 0;
	double best_score = -1;
	for (unsigned i = 0; i < n; i++) {
		double u = ((double)(mix(key ^ mix(c[i].hash)) >> 11) + 0.5) / 9007199254740992.0;
		double score = -(double)c[i].weight / log(u);
		if (score > best_score)
			best = i, best_score = score;
	}
	return best;
}

unsigned balance_pick(enum config_balance how, const struct balance_candidate *c, unsigned n, uint64_t key)
{
	if (n == 1)
		return 0;
	if (how == CONFIG_HASH)
		return pick_hash(c, n, key);
	return how == CONFIG_LEAST_REQUEST ? pick_least(c, n) : pick_round_robin(c, n);
}

uint64_t balance_hash(const char *text)
{
	uint64_t h = 0xcbf29ce484222325ull;   /* FNV-1a */
	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 0x100000001b3ull;
	return mix(h);
}
