#include "workers/telemetry/regions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define WORKERS_MAX 256u

struct known_worker {
	char name[32];            /* "tunnel-0" */
	unsigned living;
	uint64_t starts;
};

struct region {
	LIST_ENTRY(region) link;
	struct stats_view *view;
	struct known_worker *worker;
};

struct regions {
	LIST_HEAD(, region) living;
	struct totals *base;      /* what vanished regions had counted */
	struct known_worker workers[WORKERS_MAX];
	unsigned n_workers;
};

struct regions *regions_new(void)
{
	struct regions *regions = calloc(1, sizeof(*regions));
	if (!regions)
		return NULL;
	LIST_INIT(&regions->living);
	regions->base = totals_new();
	if (!regions->base) {
		free(regions);
		return NULL;
	}
	return regions;
}

static void dispose(struct region *region)
{
	LIST_REMOVE(region, link);
	region->worker->living--;
	stats_view_free(region->view);
	free(region);
}

void regions_free(struct regions *regions)
{
	if (!regions)
		return;
	while (!LIST_EMPTY(&regions->living))
		dispose(LIST_FIRST(&regions->living));
	totals_free(regions->base);
	free(regions);
}

/* Found or made; NULL when there are too many. */
static struct known_worker *know(struct regions *regions, enum ipc_role role, unsigned index)
{
	char name[sizeof(regions->workers[0].name)];
	snprintf(name, sizeof(name), "%.16s-%u", ipc_role_name(role), index);
	for (unsigned i = 0; i < regions->n_workers; i++)
		if (!strcmp(regions->workers[i].name, name))
			return &regions->workers[i];
	if (regions->n_workers == WORKERS_MAX)
		return NULL;
	struct known_worker *worker = &regions->workers[regions->n_workers++];
	memcpy(worker->name, name, sizeof(name));
	return worker;
}

struct region *regions_add(struct regions *regions, enum ipc_role role, unsigned index, int fd)
{
	struct region *region = calloc(1, sizeof(*region));
	struct stats_view *view = stats_view_new(fd);
	close(fd);
	struct known_worker *worker = region && view ? know(regions, role, index) : NULL;
	if (!worker) {
		stats_view_free(view);
		free(region);
		return NULL;
	}
	region->view = view;
	region->worker = worker;
	worker->living++;
	worker->starts++;
	LIST_INSERT_HEAD(&regions->living, region, link);
	return region;
}

void regions_remove(struct regions *regions, struct region *region)
{
	if (!region)
		return;
	/* Out of memory here loses a part of the past; the scraper sees a counter's reset, which it knows how to handle. */
	(void)totals_add_view(regions->base, region->view, region->worker->name, false);
	dispose(region);
}

struct totals *regions_snapshot(const struct regions *regions)
{
	const struct region *region;
	struct totals *totals = totals_new();
	if (!totals)
		return NULL;
	int rc = totals_add(totals, regions->base);
	LIST_FOREACH(region, &regions->living, link)
		if (!rc)
			rc = totals_add_view(totals, region->view, region->worker->name, true);
	if (!rc)
		return totals;
	totals_free(totals);
	return NULL;
}

bool regions_worker(const struct regions *regions, unsigned i, const char **name, unsigned *living, uint64_t *starts)
{
	if (i >= regions->n_workers)
		return false;
	*name = regions->workers[i].name;
	*living = regions->workers[i].living;
	*starts = regions->workers[i].starts;
	return true;
}
