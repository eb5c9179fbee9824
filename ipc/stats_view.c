/* The reader's side of the shared counters. The writer is another process: nothing in the region is taken on trust. */
#include "ipc/stats.h"
#include "ipc/stats_layout.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct seen {
	char name[STATS_NAME];    /* copied when first asked for: it stays, whatever the writer does */
	enum stats_scope scope;
	bool known;
	bool foreign;             /* of a scope that a newer release has: listed among the workers', all values zero */
};

struct stats_view {
	const struct stats_header *header;
	size_t length;
	uint32_t room;
	uint32_t slots[STATS_SCOPE_COUNT];
	struct seen *seen;
};

/* Only a region that cannot shrink under the mapping. */
static const void *map_region(int fd, size_t *length)
{
	const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & needed) != needed || fstat(fd, &st))
		return NULL;
	if (st.st_size < (off_t)sizeof(struct stats_header) ||
	    (uintmax_t)st.st_size > sizeof(struct stats_header) + STATS_SETS_MAX * sizeof(struct stats_set))
		return NULL;
	*length = (size_t)st.st_size;
	void *map = mmap(NULL, *length, PROT_READ, MAP_SHARED, fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

static bool check_header(struct stats_view *view)
{
	struct stats_header h;
	memcpy(&h, view->header, sizeof(h));
	if (h.magic != STATS_MAGIC || h.version != STATS_VERSION || h.set_size != sizeof(struct stats_set))
		return false;
	if (h.room > STATS_SETS_MAX || view->length < sizeof(h) + h.room * sizeof(struct stats_set))
		return false;
	for (unsigned i = 0; i < STATS_SCOPE_COUNT; i++) {
		if (h.slots[i] > STATS_SLOTS)
			return false;
		view->slots[i] = h.slots[i];
	}
	view->room = h.room;
	return true;
}

struct stats_view *stats_view_new(int fd)
{
	struct stats_view *view = calloc(1, sizeof(*view));
	if (!view)
		return NULL;
	view->header = map_region(fd, &view->length);
	if (view->header && check_header(view))
		view->seen = calloc(view->room ? view->room : 1, sizeof(*view->seen));
	if (!view->seen) {
		stats_view_free(view);
		return NULL;
	}
	return view;
}

void stats_view_free(struct stats_view *view)
{
	if (!view)
		return;
	if (view->header)
		munmap((void *)(uintptr_t)view->header, view->length);
	free(view->seen);
	free(view);
}

static const struct stats_set *set_at(const struct stats_view *view, unsigned i)
{
	return (const struct stats_set *)(view->header + 1) + i;
}

/* NULL: no such set. */
static const struct seen *look(const struct stats_view *view, unsigned i)
{
	uint32_t used = __atomic_load_n(&view->header->used, __ATOMIC_ACQUIRE);
	if (i >= view->room || i >= used)
		return NULL;
	struct seen *seen = &view->seen[i];
	if (!seen->known) {
		uint32_t scope = __atomic_load_n(&set_at(view, i)->scope, __ATOMIC_RELAXED);
		memcpy(seen->name, set_at(view, i)->name, STATS_NAME - 1);
		seen->scope = scope < STATS_SCOPE_COUNT ? scope : STATS_WORKER;
		seen->foreign = scope >= STATS_SCOPE_COUNT;
		seen->known = true;
	}
	return seen;
}

const char *stats_view_set(const struct stats_view *view, unsigned i, enum stats_scope *scope)
{
	const struct seen *seen = look(view, i);
	if (!seen)
		return NULL;
	*scope = seen->scope;
	return seen->name;
}

/* The metric's first slot, where the set has all of them. */
static const uint64_t *find_slot(const struct stats_view *view, unsigned i, enum stats_metric metric, unsigned n)
{
	const struct seen *seen = look(view, i);
	if (!seen || seen->foreign || (unsigned)metric >= STATS_METRIC_COUNT)
		return NULL;
	if (seen->scope != stats_describe(metric)->scope)
		return NULL;
	unsigned slot = stats_slot(metric);
	return slot + n <= view->slots[seen->scope] ? &set_at(view, i)->slots[slot] : NULL;
}

uint64_t stats_view_value(const struct stats_view *view, unsigned i, enum stats_metric metric)
{
	const uint64_t *slot = find_slot(view, i, metric, 1);
	return slot ? __atomic_load_n(slot, __ATOMIC_RELAXED) : 0;
}

void stats_view_histogram(const struct stats_view *view, unsigned i, enum stats_metric metric,
                          struct stats_histogram *out)
{
	*out = (struct stats_histogram){.sum = 0};
	const uint64_t *slot = find_slot(view, i, metric, STATS_HISTOGRAM_SLOTS);
	if (!slot || stats_describe(metric)->kind != STATS_histogram)
		return;
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		out->buckets[b] = __atomic_load_n(slot + b, __ATOMIC_RELAXED);
	out->sum = __atomic_load_n(slot + STATS_BUCKETS, __ATOMIC_RELAXED);
}
