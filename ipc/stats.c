/* The writer's side of the shared counters; the layout is in stats_layout.h. */
#include "ipc/stats.h"
#include "ipc/stats_layout.h"

#include <assert.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const uint64_t stats_bounds[STATS_BUCKETS - 1] = {
	10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000,
	1000000, 2000000, 5000000, 10000000, 30000000, 100000000,
};

static const struct stats_description descriptions[STATS_METRIC_COUNT] = {
#define S(SCOPE, ID, metric_kind, family_name, more_labels, how_stable, text)                                         \
	[STATS_##SCOPE##_##ID] = {                                                                                    \
		.scope = STATS_##SCOPE, .kind = STATS_##metric_kind, .stability = STATS_##how_stable,                 \
		.family = family_name, .labels = more_labels, .help = text,                                           \
	},
	STATS_METRICS(S)
#undef S
};

const struct stats_description *stats_describe(enum stats_metric metric)
{
	return &descriptions[metric];
}

static uint16_t slots[STATS_METRIC_COUNT];
static uint16_t scope_slots[STATS_SCOPE_COUNT];

/* Numbers a scope's slots in the order of the list: a metric appended after a scope's last keeps the numbers before. */
static void lay_out(void)
{
	if (scope_slots[STATS_WORKER])
		return;
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		enum stats_scope scope = descriptions[m].scope;
		slots[m] = scope_slots[scope];
		scope_slots[scope] += descriptions[m].kind == STATS_histogram ? STATS_HISTOGRAM_SLOTS : 1;
	}
	for (unsigned scope = 0; scope < STATS_SCOPE_COUNT; scope++)
		assert(scope_slots[scope] <= STATS_SLOTS);
}

unsigned stats_slot(enum stats_metric metric)
{
	lay_out();
	return slots[metric];
}

unsigned stats_scope_slots(enum stats_scope scope)
{
	lay_out();
	return scope_slots[scope];
}

struct stats {
	int fd;
	size_t length;
	struct stats_header *header;
	unsigned named;                      /* sets that may be made by name; behind them one "other" per scope */
	struct stats_set *other[STATS_SCOPE_COUNT];
	uint32_t *index, mask;               /* open addressing: number of the set + 1, 0 is free */
};

static int make_region(size_t length)
{
	int fd = memfd_create("hermes-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && ftruncate(fd, (off_t)length)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Whoever receives the region can map it for reading only: F_SEAL_FUTURE_WRITE spares the mapping that exists. */
static int seal_region(int fd)
{
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
}

struct stats *stats_new(unsigned sets)
{
	if (sets > STATS_SETS_MAX - STATS_SCOPE_COUNT)
		sets = STATS_SETS_MAX - STATS_SCOPE_COUNT;
	struct stats *stats = calloc(1, sizeof(*stats));
	if (!stats)
		return NULL;
	stats->named = sets;
	stats->length = sizeof(struct stats_header) + (sets + STATS_SCOPE_COUNT) * sizeof(struct stats_set);
	for (stats->mask = 15; stats->mask < sets * 2; stats->mask = stats->mask * 2 + 1)
		;
	stats->index = calloc(stats->mask + 1, sizeof(*stats->index));
	stats->fd = make_region(stats->length);
	void *map = MAP_FAILED;
	if (stats->fd >= 0)
		map = mmap(NULL, stats->length, PROT_READ | PROT_WRITE, MAP_SHARED, stats->fd, 0);
	if (map != MAP_FAILED)
		stats->header = map;
	if (!stats->index || !stats->header || seal_region(stats->fd)) {
		stats_free(stats);
		return NULL;
	}
	*stats->header = (struct stats_header){
		.magic = STATS_MAGIC, .version = STATS_VERSION, .set_size = sizeof(struct stats_set),
		.room = sets + STATS_SCOPE_COUNT,
	};
	for (unsigned i = 0; i < STATS_SCOPE_COUNT; i++)
		stats->header->slots[i] = stats_scope_slots(i);
	return stats;
}

void stats_free(struct stats *stats)
{
	if (!stats)
		return;
	if (stats->header)
		munmap(stats->header, stats->length);
	if (stats->fd >= 0)
		close(stats->fd);
	free(stats->index);
	free(stats);
}

int stats_fd(const struct stats *stats)
{
	return stats->fd;
}

/* FNV-1a */
static uint32_t hash(enum stats_scope scope, const char *name)
{
	uint32_t h = (2166136261u ^ scope) * 16777619u;
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return h;
}

static struct stats_set *set_at(const struct stats *stats, uint32_t i)
{
	return (struct stats_set *)(stats->header + 1) + i;
}

/* The set becomes visible to the reader when the count is raised, after its name is there. */
static struct stats_set *set_append(struct stats *stats, enum stats_scope scope, const char *name)
{
	uint32_t n = stats->header->used;
	struct stats_set *set = set_at(stats, n);
	set->scope = scope;
	memcpy(set->name, name, strlen(name));
	__atomic_store_n(&stats->header->used, n + 1, __ATOMIC_RELEASE);
	return set;
}

static struct stats_set *set_other(struct stats *stats, enum stats_scope scope)
{
	if (!stats->other[scope])
		stats->other[scope] = set_append(stats, scope, "other");
	return stats->other[scope];
}

static unsigned others(const struct stats *stats)
{
	unsigned n = 0;
	for (unsigned i = 0; i < STATS_SCOPE_COUNT; i++)
		n += stats->other[i] != NULL;
	return n;
}

struct stats_set *stats_set(struct stats *stats, enum stats_scope scope, const char *name)
{
	char cut[STATS_NAME] = "";
	strncpy(cut, name, sizeof(cut) - 1);
	uint32_t i = hash(scope, cut) & stats->mask;
	for (; stats->index[i]; i = (i + 1) & stats->mask) {
		struct stats_set *set = set_at(stats, stats->index[i] - 1);
		if (set->scope == (uint32_t)scope && !strcmp(set->name, cut))
			return set;
	}
	if (stats->header->used - others(stats) >= stats->named)
		return set_other(stats, scope);
	struct stats_set *set = set_append(stats, scope, cut);
	stats->index[i] = stats->header->used;
	return set;
}

/* One writer: a plain load and a plain store, atomic only so that the reader sees whole numbers. */
static void add(uint64_t *slot, uint64_t n)
{
	__atomic_store_n(slot, __atomic_load_n(slot, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

void stats_add(struct stats_set *set, enum stats_metric metric, int64_t n)
{
	if (!set)
		return;
	assert(set->scope == (uint32_t)descriptions[metric].scope);
	assert(descriptions[metric].kind != STATS_histogram);
	add(&set->slots[slots[metric]], (uint64_t)n);
}

void stats_observe(struct stats_set *set, enum stats_metric metric, uint64_t microseconds)
{
	if (!set)
		return;
	assert(set->scope == (uint32_t)descriptions[metric].scope);
	assert(descriptions[metric].kind == STATS_histogram);
	uint64_t *slot = &set->slots[slots[metric]];
	unsigned low = 0, high = STATS_BUCKETS - 1;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (microseconds <= stats_bounds[middle])
			high = middle;
		else
			low = middle + 1;
	}
	add(slot + low, 1);
	add(slot + STATS_BUCKETS, microseconds);
}
