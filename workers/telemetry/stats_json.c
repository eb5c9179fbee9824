/* The same numbers for `hermes-admin stats`. */
#include "ipc/json.h"
#include "workers/telemetry/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double metrics_quantile(const struct stats_histogram *histogram, double q)
{
	uint64_t count = 0;
	double below = 0;
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		count += histogram->buckets[b];
	if (!count)
		return -1;
	double rank = q * (double)count;
	for (unsigned b = 0; b < STATS_BUCKETS - 1; b++) {
		double in = (double)histogram->buckets[b], low = b ? (double)stats_bounds[b - 1] : 0;
		if (in > 0 && below + in >= rank)
			return (low + ((double)stats_bounds[b] - low) * (rank - below) / in) / 1e6;
		below += in;
	}
	return (double)stats_bounds[STATS_BUCKETS - 2] / 1e6;
}

/* code="2xx" as it stands in the list of metrics: one pair at most. */
static void put_fixed_label(struct json *j, const char *labels)
{
	const char *equals = strchr(labels, '=');
	char name[32];
	if (!equals || (size_t)(equals - labels) >= sizeof(name))
		return;
	snprintf(name, sizeof(name), "%.*s", (int)(equals - labels), labels);
	json_str_n(j, name, equals + 2, strlen(equals + 2) - 1);
}

static void put_quantile(struct json *j, const char *key, double value)
{
	if (value < 0)
		json_raw(j, key, NULL);
	else
		json_double(j, key, value);
}

static void put_histogram(struct json *j, enum stats_metric metric, const struct series *series)
{
	struct stats_histogram histogram;
	uint64_t count = 0;
	series_histogram(series, metric, &histogram);
	for (unsigned b = 0; b < STATS_BUCKETS; b++)
		count += histogram.buckets[b];
	json_uint(j, "count", count);
	json_double(j, "sum", (double)histogram.sum / 1e6);
	put_quantile(j, "p50", metrics_quantile(&histogram, 0.5));
	put_quantile(j, "p99", metrics_quantile(&histogram, 0.99));
}

static void put_metric(struct json *j, enum stats_metric metric, const struct series *series, const char *filter)
{
	const struct stats_description *d = stats_describe(metric);
	char name[128];
	snprintf(name, sizeof(name), "hermes_%s%s", d->family, d->kind == STATS_counter ? "_total" : "");
	if (filter && !strstr(name, filter) && !strstr(series_name(series), filter) && !strstr(d->labels, filter))
		return;
	json_object(j, NULL);
	json_str(j, "metric", name);
	json_object(j, "labels");
	json_str(j, metrics_scope_label(d->scope), series_name(series));
	put_fixed_label(j, d->labels);
	json_end(j);
	if (d->kind == STATS_histogram)
		put_histogram(j, metric, series);
	else if (d->kind == STATS_gauge)
		json_int(j, "value", (int64_t)series_value(series, metric));
	else
		json_uint(j, "value", series_value(series, metric));
	json_end(j);
}

static int put_scope(struct json *j, const struct totals *totals, enum stats_scope scope, const char *filter)
{
	const struct series **list;
	int n = totals_list(totals, scope, &list);
	for (int i = 0; i < n; i++)
		for (unsigned m = 0; m < STATS_METRIC_COUNT; m++)
			if (stats_describe(m)->scope == scope)
				put_metric(j, m, list[i], filter);
	if (n >= 0)
		free(list);
	return n < 0 ? n : 0;
}

static void put_own(struct json *j, const char *name, const char *label, const char *label_value, const char *reason,
                    uint64_t value, const char *filter)
{
	if (filter && !strstr(name, filter) && !(label_value && strstr(label_value, filter)))
		return;
	json_object(j, NULL);
	json_str(j, "metric", name);
	json_object(j, "labels");
	if (label)
		json_str(j, label, label_value);
	if (reason)
		json_str(j, "reason", reason);
	json_end(j);
	json_uint(j, "value", value);
	json_end(j);
}

static void put_telemetry(struct json *j, const struct metrics *metrics, const char *filter)
{
	const char *name;
	unsigned living;
	uint64_t starts;
	put_own(j, "hermes_build_info", "version", HERMES_VERSION, NULL, 1, filter);
	put_own(j, "hermes_configuration_generation", NULL, NULL, NULL, metrics->generation, filter);
	put_own(j, "hermes_access_log_received_records_total", NULL, NULL, NULL, metrics->records, filter);
	for (size_t i = 0; i < metrics->n_logs; i++) {
		const struct log_counts *log = &metrics->logs[i];
		put_own(j, "hermes_access_log_written_records_total", "log", log->to, NULL, log->written, filter);
		put_own(j, "hermes_access_log_dropped_records_total", "log", log->to, "full", log->dropped_full, filter);
		put_own(j, "hermes_access_log_dropped_records_total", "log", log->to, "error", log->dropped_error, filter);
	}
	for (unsigned i = 0; regions_worker(metrics->regions, i, &name, &living, &starts); i++) {
		put_own(j, "hermes_worker_up", "worker", name, NULL, living, filter);
		put_own(j, "hermes_worker_starts_total", "worker", name, NULL, starts, filter);
	}
}

char *metrics_json(const struct metrics *metrics, const char *filter)
{
	struct json j = JSON_INIT;
	struct totals *totals = regions_snapshot(metrics->regions);
	int rc = totals ? 0 : -1;
	json_array(&j, NULL);
	put_telemetry(&j, metrics, filter);
	for (unsigned scope = 0; scope < STATS_SCOPE_COUNT && !rc; scope++)
		rc = put_scope(&j, totals, scope, filter);
	json_end(&j);
	totals_free(totals);
	if (!rc && !j.failed)
		return j.data;
	json_free(&j);
	return NULL;
}
