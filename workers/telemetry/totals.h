/* Sums of counters over workers: one series per scope and name, with a slot for every metric of the scope. */
#ifndef HERMES_TELEMETRY_TOTALS_H
#define HERMES_TELEMETRY_TOTALS_H

#include "ipc/stats.h"

#include <stdbool.h>

/* Series of one map; what comes after shares the series "other" of its scope. */
#define TOTALS_MAX 65536u

struct totals;
struct series;

struct totals *totals_new(void);
void totals_free(struct totals *totals);

/* Adds what a region holds. worker: names the series of the worker scope ("tunnel-0"), whatever the region calls it.
 * gauges: also those (they die with their worker). Returns 0 or -ENOMEM. */
int totals_add_view(struct totals *totals, const struct stats_view *view, const char *worker, bool gauges);
/* Adds all of `from`. Returns 0 or -ENOMEM. */
int totals_add(struct totals *totals, const struct totals *from);

/* The series of one scope in the order of their names: fills *list (free it) and returns how many, or -ENOMEM. They live
 * as long as totals. */
int totals_list(const struct totals *totals, enum stats_scope scope, const struct series ***list);
const char *series_name(const struct series *series);
uint64_t series_value(const struct series *series, enum stats_metric metric);
void series_histogram(const struct series *series, enum stats_metric metric, struct stats_histogram *out);

#endif
