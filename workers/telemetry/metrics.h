/* Everything that telemetry knows in numbers, as one picture, and the forms it is shown in. */
#ifndef HERMES_TELEMETRY_METRICS_H
#define HERMES_TELEMETRY_METRICS_H

#include "workers/telemetry/regions.h"
#include "workers/telemetry/text.h"

/* What an access log did; borrowed. */
struct log_counts {
	const char *to;
	uint64_t written, dropped_full, dropped_error;
};

struct metrics {
	const struct regions *regions;
	uint64_t generation;      /* of the configuration in force; 0: none yet */
	uint64_t records;         /* flow records received */
	const struct log_counts *logs;
	size_t n_logs;
};

enum metrics_format { METRICS_OPENMETRICS, METRICS_PROMETHEUS };

/* OpenMetrics 1.0.0, or Prometheus' text format 0.0.4, appended to out. Returns 0 or -ENOMEM. */
int metrics_exposition(const struct metrics *metrics, enum metrics_format format, struct text *out);
const char *metrics_content_type(enum metrics_format format);

/* For `hermes-admin stats`: a JSON array of {metric, labels, value}; histograms have count, sum, p50, p99 (seconds, null
 * where nothing was counted) instead of value. filter: only metrics and labels that contain it; NULL: all. malloc'd. */
char *metrics_json(const struct metrics *metrics, const char *filter);

/* Estimates the value below which the share q (0...1) of what was observed lies, in seconds, by interpolating within a
 * bucket; what lies in the unbounded bucket counts as its lower bound. Negative: nothing was observed. */
double metrics_quantile(const struct stats_histogram *histogram, double q);

/* The label of a scope's own name. */
const char *metrics_scope_label(enum stats_scope scope);

#endif
