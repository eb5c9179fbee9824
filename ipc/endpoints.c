/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/endpoints.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/config.h"

#define MAGIC 0x68657031u   /* "hep1": the layout's version */
#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK)

/* The shared part: never empty, so that a configuration without endpoints can be mapped too. */
struct layout {
	uint32_t magic, count;
	uint64_t reserved;
	struct endpoint_slot slots[];
};

struct endpoint_table {
	struct layout *shared;
	size_t length;
	int fd;                /* the writer's; -1: a reader */
	unsigned n_clusters;
	uint32_t *first;       /* of each cluster, and one past the last */
};

static size_t layout_size(uint32_t count)
{
	return sizeof(struct layout) + (size_t)count * sizeof(struct endpoint_slot);
}

/* The index part: where each cluster's slots begin. */
static struct endpoint_table *table_index(const struct config *config)
{
	struct endpoint_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fd = -1;
	t->n_clusters = (unsigned)config->n_clusters;
	t->first = calloc(config->n_clusters + 1, sizeof(*t->first));
	if (!t->first) {
		free(t);
		return NULL;
	}
	for (size_t i = 0; i < config->n_clusters; i++)
		t->first[i + 1] = t->first[i] + (uint32_t)config->clusters[i].n_endpoints;
	t->length = layout_size(t->first[config->n_clusters]);
	return t;
}

struct endpoint_table *endpoint_table_new(const struct config *config)
{
	struct endpoint_table *t = table_index(config);
	void *map;

	if (!t)
		return NULL;
	t->fd = memfd_create("hermes-endpoints", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (t->fd < 0 || ftruncate(t->fd, (off_t)t->length) < 0)
		goto failed;
	map = mmap(NULL, t->length, PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
	if (map == MAP_FAILED)
		goto failed;
	t->shared = map;
	/* after our own mapping: it stays writable, nobody else gets such a one */
	if (fcntl(t->fd, F_ADD_SEALS, SEALS | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0)
		goto failed;
	t->shared->magic = MAGIC;
	t->shared->count = t->first[t->n_clusters];
	for (size_t i = 0; i < config->n_clusters; i++)
		for (size_t k = 0; k < config->clusters[i].n_endpoints; k++)
			endpoint_table_slot(t, (unsigned)i, (unsigned)k)->weight = config->clusters[i].endpoints[k].weight;
	return t;
failed:
	endpoint_table_free(t);
	return NULL;
}

int endpoint_table_fd(const struct endpoint_table *table)
{
	return table->fd;
}

struct endpoint_table *endpoint_table_map(int fd, const struct config *config)
{
	struct endpoint_table *t = table_index(config);
	struct stat st;
	void *map;
	int seals = fcntl(fd, F_GET_SEALS);

	if (!t)
		return NULL;
	/* unsealed memory could shrink under us: reading it would end us with SIGBUS */
	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || (size_t)st.st_size != t->length)
		goto failed;
	map = mmap(NULL, t->length, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		goto failed;
	t->shared = map;
	if (t->shared->magic == MAGIC && t->shared->count == t->first[t->n_clusters])
		return t;
failed:
	endpoint_table_free(t);
	return NULL;
}

void endpoint_table_free(struct endpoint_table *table)
{
	if (!table)
		return;
	if (table->shared)
		munmap(table->shared, table->length);
	if (table->fd >= 0)
		close(table->fd);
	free(table->first);
	free(table);
}

struct endpoint_slot *endpoint_table_slot(struct endpoint_table *table, unsigned cluster, unsigned endpoint)
{
	if (cluster >= table->n_clusters || endpoint >= table->first[cluster + 1] - table->first[cluster])
		return NULL;
	return &table->shared->slots[table->first[cluster] + endpoint];
}
