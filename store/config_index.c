/* SPDX-License-Identifier: Apache-2.0 */
/* Look-ups by name: sorted tables of positions, made once per configuration. */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config.h"

#include <stdlib.h>
#include <string.h>

struct index {
	const struct config_cluster **clusters;
	const struct config_listener **listeners;
};

static int by_cluster(const void *a, const void *b)
{
	return strcmp((*(const struct config_cluster *const *)a)->name, (*(const struct config_cluster *const *)b)->name);
}

static int by_listener(const void *a, const void *b)
{
	return strcmp((*(const struct config_listener *const *)a)->name, (*(const struct config_listener *const *)b)->name);
}

/* Documents from the parser bear names everywhere; a packed one that does not is only searched, not sorted. */
static bool all_named(const struct config *c)
{
	for (size_t i = 0; i < c->n_clusters; i++)
		if (!c->clusters[i].name)
			return false;
	for (size_t i = 0; i < c->n_listeners; i++)
		if (!c->listeners[i].name)
			return false;
	return true;
}

void config_index(struct config *c)
{
	struct index *index = config_arena_alloc(c->arena, 1, sizeof(*index));

	if (!index || !all_named(c))
		return;
	index->clusters = config_arena_alloc(c->arena, c->n_clusters, sizeof(*index->clusters));
	index->listeners = config_arena_alloc(c->arena, c->n_listeners, sizeof(*index->listeners));
	if (!index->clusters || !index->listeners)
		return;
	for (size_t i = 0; i < c->n_clusters; i++)
		index->clusters[i] = &c->clusters[i];
	for (size_t i = 0; i < c->n_listeners; i++)
		index->listeners[i] = &c->listeners[i];
	if (c->n_clusters)
		qsort(index->clusters, c->n_clusters, sizeof(*index->clusters), by_cluster);
	if (c->n_listeners)
		qsort(index->listeners, c->n_listeners, sizeof(*index->listeners), by_listener);
	*config_arena_slot(c->arena) = index;
}

const struct config_cluster *config_cluster(const struct config *c, const char *name)
{
	const struct index *index = c->arena ? *config_arena_slot(c->arena) : NULL;
	struct config_cluster key = {.name = (char *)(uintptr_t)name};
	const struct config_cluster *k = &key, **found;

	if (!name)
		return NULL;
	if (index && c->n_clusters) {
		found = bsearch(&k, index->clusters, c->n_clusters, sizeof(k), by_cluster);
		return found ? *found : NULL;
	}
	for (size_t i = 0; i < c->n_clusters; i++)
		if (c->clusters[i].name && !strcmp(c->clusters[i].name, name))
			return &c->clusters[i];
	return NULL;
}

const struct config_listener *config_listener(const struct config *c, const char *name)
{
	const struct index *index = c->arena ? *config_arena_slot(c->arena) : NULL;
	struct config_listener key = {.name = (char *)(uintptr_t)name};
	const struct config_listener *k = &key, **found;

	if (!name)
		return NULL;
	if (index && c->n_listeners) {
		found = bsearch(&k, index->listeners, c->n_listeners, sizeof(k), by_listener);
		return found ? *found : NULL;
	}
	for (size_t i = 0; i < c->n_listeners; i++)
		if (c->listeners[i].name && !strcmp(c->listeners[i].name, name))
			return &c->listeners[i];
	return NULL;
}

void config_free(struct config *config)
{
	if (config)
		config_arena_free(config->arena);
}
