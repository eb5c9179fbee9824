/* The exposition: OpenMetrics 1.0.0 (https://prometheus.io/docs/specs/om/open_metrics_spec/) and its predecessor. */
#include "workers/telemetry/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {
	[STATS_counter] = "counter", [STATS_gauge] = "gauge", [STATS_histogram] = "histogram",
};

const char *metrics_scope_label(enum stats_scope scope)
{
	static const char *const labels[STATS_SCOPE_COUNT] = {
		[STATS_WORKER] = "worker", [STATS_LISTENER] = "listener", [STATS_CLUSTER] = "cluster", [STATS_ROUTE] = "route",
		[STATS_PROBE] = "probe",
	};
	return labels[scope];
}

const char *metrics_content_type(enum metrics_format format)
{
	return format == METRICS_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
	                                     : "text/plain; version=0.0.4; charset=utf-8";
}

static bool ends_with(const char *s, const char *end)
{
	size_t a = strlen(s), b = strlen(end);
	return a >= b && !strcmp(s + a - b, end);
}

/* The family's lines of metadata. In the older format a counter's family bears the name of its sample. */
static void put_family(struct text *out, enum metrics_format format, const char *family, const char *kind,
                       const char *suffix, const char *help)
{
	if (format == METRICS_OPENMETRICS)
		suffix = "";
	text_printf(out, "# TYPE hermes_%s%s %s\n", family, suffix, kind);
	if (format == METRICS_OPENMETRICS && ends_with(family, "_seconds"))
		text_printf(out, "# UNIT hermes_%s seconds\n", family);
	if (format == METRICS_OPENMETRICS && ends_with(family, "_bytes"))
		text_printf(out, "# UNIT hermes_%s bytes\n", family);
	text_printf(out, "# HELP hermes_%s%s %s\n", family, suffix, help);
}

/* {scope="name",labels,le="..."}; le: µs, 0 for none, UINT64_MAX for +Inf */
static void put_labels(struct text *out, const struct stats_description *d, const struct series *series, uint64_t le)
{
	text_printf(out, "{%s=\"", metrics_scope_label(d->scope));
	text_label(out, series_name(series));
	text_put(out, "\"", 1);
	if (d->labels[0])
		text_printf(out, ",%s", d->labels);
	if (le == UINT64_MAX)
		text_puts(out, ",le=\"+Inf\"");
	else if (le)
		text_printf(out, ",le=\"%.15g%s\"", (double)le / 1e6, le % 1000000 ? "" : ".0");
	text_put(out, "}", 1);
}

static void put_histogram(struct text *out, enum stats_metric metric, const struct series *series)
{
	const struct stats_description *d = stats_describe(metric);
	struct stats_histogram histogram;
	uint64_t count = 0;
	series_histogram(series, metric, &histogram);
	for (unsigned b = 0; b < STATS_BUCKETS; b++) {
		count += histogram.buckets[b];
		text_printf(out, "hermes_%s_bucket", d->family);
		put_labels(out, d, series, b < STATS_BUCKETS - 1 ? stats_bounds[b] : UINT64_MAX);
		text_printf(out, " %" PRIu64 "\n", count);
	}
	text_printf(out, "hermes_%s_count", d->family);
	put_labels(out, d, series, 0);
	text_printf(out, " %" PRIu64 "\nhermes_%s_sum", count, d->family);
	put_labels(out, d, series, 0);
	text_printf(out, " %" PRIu64 ".%06" PRIu64 "\n", histogram.sum / 1000000, histogram.sum % 1000000);
}

static void put_sample(struct text *out, enum stats_metric metric, const struct series *series)
{
	const struct stats_description *d = stats_describe(metric);
	if (d->kind == STATS_histogram) {
		put_histogram(out, metric, series);
		return;
	}
	text_printf(out, "hermes_%s%s", d->family, d->kind == STATS_counter ? "_total" : "");
	put_labels(out, d, series, 0);
	if (d->kind == STATS_gauge)
		text_printf(out, " %" PRId64 "\n", (int64_t)series_value(series, metric));
	else
		text_printf(out, " %" PRIu64 "\n", series_value(series, metric));
}

static bool same_family(unsigned a, unsigned b)
{
	return !strcmp(stats_describe(a)->family, stats_describe(b)->family);
}

/* A family with all its metrics, which differ in their labels (`first` is the first of them in the list). */
static void put_metric_family(struct text *out, enum metrics_format format, unsigned first,
                              const struct series **list, int n)
{
	const struct stats_description *d = stats_describe(first);
	char help[256];
	snprintf(help, sizeof(help), "%s%s", d->help, d->stability == STATS_unstable ? " (unstable)" : "");
	put_family(out, format, d->family, kinds[d->kind], d->kind == STATS_counter ? "_total" : "", help);
	for (int i = 0; i < n; i++)
		for (unsigned m = first; m < STATS_METRIC_COUNT; m++)
			if (same_family(m, first))
				put_sample(out, m, list[i]);
}

static bool begins_family(unsigned metric)
{
	for (unsigned m = 0; m < metric; m++)
		if (same_family(m, metric))
			return false;
	return true;
}

static int put_scope(struct text *out, enum metrics_format format, const struct totals *totals, enum stats_scope scope)
{
	const struct series **list;
	int n = totals_list(totals, scope, &list);
	if (n < 0)
		return n;
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++)
		if (stats_describe(m)->scope == scope && begins_family(m))
			put_metric_family(out, format, m, list, n);
	free(list);
	return 0;
}

static void put_workers(struct text *out, enum metrics_format format, const struct regions *regions)
{
	const char *name;
	unsigned living;
	uint64_t starts;
	put_family(out, format, "worker_up", "gauge", "", "Processes of this worker that live now");
	for (unsigned i = 0; regions_worker(regions, i, &name, &living, &starts); i++)
		text_printf(out, "hermes_worker_up{worker=\"%s\"} %u\n", name, living);
	put_family(out, format, "worker_starts", "counter", "_total", "Processes of this worker seen by telemetry");
	for (unsigned i = 0; regions_worker(regions, i, &name, &living, &starts); i++)
		text_printf(out, "hermes_worker_starts_total{worker=\"%s\"} %" PRIu64 "\n", name, starts);
}

static void put_log(struct text *out, const char *family, const char *to, const char *labels, uint64_t value)
{
	text_printf(out, "hermes_%s_total{log=\"", family);
	text_label(out, to);
	text_printf(out, "\"%s} %" PRIu64 "\n", labels, value);
}

static void put_own(struct text *out, enum metrics_format format, const struct metrics *metrics)
{
	bool om = format == METRICS_OPENMETRICS;
	put_family(out, format, om ? "build" : "build_info", om ? "info" : "gauge", "", "The release that runs");
	text_puts(out, "hermes_build_info{version=\"" HERMES_VERSION "\"} 1\n");
	put_family(out, format, "configuration_generation", "gauge", "", "Version of the configuration in force, 0 before the first");
	text_printf(out, "hermes_configuration_generation %" PRIu64 "\n", metrics->generation);
	put_family(out, format, "access_log_received_records", "counter", "_total", "Flow records received from workers");
	text_printf(out, "hermes_access_log_received_records_total %" PRIu64 "\n", metrics->records);
	put_family(out, format, "access_log_written_records", "counter", "_total", "Records written to an access log");
	for (size_t i = 0; i < metrics->n_logs; i++)
		put_log(out, "access_log_written_records", metrics->logs[i].to, "", metrics->logs[i].written);
	put_family(out, format, "access_log_dropped_records", "counter", "_total", "Records that an access log did not take");
	for (size_t i = 0; i < metrics->n_logs; i++) {
		const struct log_counts *log = &metrics->logs[i];
		put_log(out, "access_log_dropped_records", log->to, ",reason=\"full\"", log->dropped_full);
		put_log(out, "access_log_dropped_records", log->to, ",reason=\"error\"", log->dropped_error);
	}
}

int metrics_exposition(const struct metrics *metrics, enum metrics_format format, struct text *out)
{
	struct totals *totals = regions_snapshot(metrics->regions);
	int rc = totals ? 0 : -ENOMEM;
	put_own(out, format, metrics);
	put_workers(out, format, metrics->regions);
	for (unsigned scope = 0; scope < STATS_SCOPE_COUNT && !rc; scope++)
		rc = put_scope(out, format, totals, scope);
	if (format == METRICS_OPENMETRICS)
		text_puts(out, "# EOF\n");
	totals_free(totals);
	return out->failed ? -ENOMEM : rc;
}
