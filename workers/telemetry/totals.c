#include "workers/telemetry/totals.h"
#include "ipc/stats_layout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

struct key {
	uint32_t scope;
	char name[STATS_NAME];    /* zero-padded: the whole struct is the key */
};

struct series {
	struct key key;
	UT_hash_handle hh;
	uint64_t slots[];         /* as in the region: stats_slot(), histograms as buckets and sum */
};

struct totals {
	struct series *by_key;
};

struct totals *totals_new(void)
{
	return calloc(1, sizeof(struct totals));
}

void totals_free(struct totals *totals)
{
	struct series *series, *next;
	if (!totals)
		return;
	HASH_ITER(hh, totals->by_key, series, next) {
		HASH_DEL(totals->by_key, series);
		free(series);
	}
	free(totals);
}

static struct series *find(struct totals *totals, enum stats_scope scope, const char *name)
{
	struct key key;
	struct series *series;
	memset(&key, 0, sizeof(key));
	key.scope = scope;
	memcpy(key.name, name, strnlen(name, sizeof(key.name) - 1));
	HASH_FIND(hh, totals->by_key, &key, sizeof(key), series);
	return series;
}

/* Found or made. NULL: out of memory. */
static struct series *obtain(struct totals *totals, enum stats_scope scope, const char *name)
{
	struct series *series = find(totals, scope, name);
	if (series)
		return series;
	if (HASH_COUNT(totals->by_key) >= TOTALS_MAX && strcmp(name, "other"))
		return obtain(totals, scope, "other");
	series = calloc(1, sizeof(*series) + stats_scope_slots(scope) * sizeof(series->slots[0]));
	if (!series)
		return NULL;
	series->key.scope = scope;
	memcpy(series->key.name, name, strnlen(name, sizeof(series->key.name) - 1));
	HASH_ADD(hh, totals->by_key, key, sizeof(series->key), series);
	return series;
}

static void add_metric(struct series *series, const struct stats_view *view, unsigned set, enum stats_metric metric)
{
	uint64_t *slot = &series->slots[stats_slot(metric)];
	struct stats_histogram histogram;
	if (stats_describe(metric)->kind != STATS_histogram) {
		*slot += stats_view_value(view, set, metric);
		return;
	}
	stats_view_histogram(view, set, metric, &histogram);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		slot[b] += histogram.buckets[b];
	slot[STATS_BUCKETS] += histogram.sum;
}

int totals_add_view(struct totals *totals, const struct stats_view *view, const char *worker, bool gauges)
{
	enum stats_scope scope;
	const char *name;
	for (unsigned set = 0; (name = stats_view_set(view, set, &scope)); set++) {
		if (scope >= STATS_SCOPE_COUNT)
			continue;       /* of a newer release */
		struct series *series = obtain(totals, scope, scope == STATS_WORKER ? worker : name);
		if (!series)
			return -ENOMEM;
		for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
			const struct stats_description *d = stats_describe(m);
			if (d->scope == scope && (gauges || d->kind != STATS_gauge))
				add_metric(series, view, set, m);
		}
	}
	return 0;
}

int totals_add(struct totals *totals, const struct totals *from)
{
	for (const struct series *s = from->by_key; s; s = s->hh.next) {
		struct series *series = obtain(totals, s->key.scope, s->key.name);
		if (!series)
			return -ENOMEM;
		for (unsigned i = 0; i < stats_scope_slots(s->key.scope); i++)
			series->slots[i] += s->slots[i];
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct series *const *)a)->key.name, (*(const struct series *const *)b)->key.name);
}

int totals_list(const struct totals *totals, enum stats_scope scope, const struct series ***list)
{
	int n = 0;
	*list = malloc((HASH_COUNT(totals->by_key) + 1) * sizeof(**list));
	if (!*list)
		return -ENOMEM;
	for (const struct series *s = totals->by_key; s; s = s->hh.next)
		if (s->key.scope == scope)
			(*list)[n++] = s;
	qsort(*list, (size_t)n, sizeof(**list), by_name);
	return n;
}

const char *series_name(const struct series *series)
{
	return series->key.name;
}

uint64_t series_value(const struct series *series, enum stats_metric metric)
{
	return series->slots[stats_slot(metric)];
}

void series_histogram(const struct series *series, enum stats_metric metric, struct stats_histogram *out)
{
	const uint64_t *slot = &series->slots[stats_slot(metric)];
	memcpy(out->buckets, slot, sizeof(out->buckets));
	out->sum = slot[STATS_BUCKETS];
}
