/* SPDX-License-Identifier: Apache-2.0 */
#include "store/generations.h"

#include <stddef.h>

static void drop(struct generations *g, struct generation *one)
{
	if (one->object)
		g->release(one->object);
	*one = (struct generation){0};
}

void generations_prepare(struct generations *g, uint64_t number, void *object)
{
	drop(g, &g->prepared);
	g->prepared = (struct generation){ number, object };
}

void generations_commit(struct generations *g, uint64_t number)
{
	if (!g->prepared.object || g->prepared.number != number)
		return;
	drop(g, &g->previous);
	g->previous = g->committed;
	g->committed = g->prepared;
	g->prepared = (struct generation){0};
}

void generations_abort(struct generations *g, uint64_t number)
{
	if (g->prepared.number == number)
		drop(g, &g->prepared);
}

void *generations_find(const struct generations *g, uint64_t number, uint64_t *used)
{
	/* A restarted worker may prepare the number that it has in force already: the newest wins. */
	const struct generation *order[] = { &g->prepared, &g->committed, &g->previous };

	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++)
		if (order[i]->object && order[i]->number == number) {
			*used = number;
			return order[i]->object;
		}
	*used = g->committed.number;
	return g->committed.object;
}

void generations_clear(struct generations *g)
{
	drop(g, &g->prepared);
	drop(g, &g->committed);
	drop(g, &g->previous);
}
