#include "ipc/stats_layout.h"
#include "workers/telemetry/metrics.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

static struct region *show(struct regions *regions, enum ipc_role role, unsigned index, struct stats *stats)
{
	return regions_add(regions, role, index, dup(stats_fd(stats)));
}

static char *expose(const struct metrics *metrics, enum metrics_format format)
{
	struct text out = {0};
	assert_int_equal(metrics_exposition(metrics, format, &out), 0);
	return out.data;
}

static void assert_has(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("no line %s in:\n%.3000s", line, text);
}

static void workers_are_summed(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	struct stats *a = stats_new(8), *b = stats_new(8);
	stats_add(stats_set(a, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS, 3);
	stats_add(stats_set(b, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS, 4);
	stats_add(stats_set(a, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS_OPEN, 2);
	stats_add(stats_set(b, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS_OPEN, -1);
	stats_add(stats_set(a, STATS_WORKER, "whatever"), STATS_WORKER_DENIED, 1);
	stats_add(stats_set(b, STATS_WORKER, "whatever"), STATS_WORKER_DENIED, 2);
	assert_non_null(show(regions, IPC_TUNNEL, 0, a));
	assert_non_null(show(regions, IPC_TUNNEL, 1, b));
	char *text = expose(&(struct metrics){.regions = regions}, METRICS_OPENMETRICS);
	assert_has(text, "\nhermes_listener_flows_total{listener=\"apps\"} 7\n");
	assert_has(text, "\nhermes_listener_open_flows{listener=\"apps\"} 1\n");
	assert_has(text, "\nhermes_worker_denied_flows_total{worker=\"tunnel-0\"} 1\n");
	assert_has(text, "\nhermes_worker_denied_flows_total{worker=\"tunnel-1\"} 2\n");
	assert_has(text, "\nhermes_worker_up{worker=\"tunnel-1\"} 1\n");
	free(text);
	regions_free(regions);
	stats_free(a);
	stats_free(b);
}

/* What a worker counted stays when it is gone, in every scope; its gauges go with it. */
static void restart_does_not_count_backwards(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	for (unsigned life = 1; life <= 3; life++) {
		struct stats *stats = stats_new(8);
		struct region *region = show(regions, IPC_TUNNEL, 0, stats);
		stats_add(stats_set(stats, STATS_CLUSTER, "web"), STATS_CLUSTER_FLOWS, 10);
		stats_add(stats_set(stats, STATS_CLUSTER, "web"), STATS_CLUSTER_FLOWS_OPEN, 5);
		stats_observe(stats_set(stats, STATS_WORKER, ""), STATS_WORKER_ASK_TIME, 1500000);
		struct totals *totals = regions_snapshot(regions);
		const struct series **list;
		assert_int_equal(totals_list(totals, STATS_CLUSTER, &list), 1);
		assert_int_equal(series_value(list[0], STATS_CLUSTER_FLOWS), 10 * life);
		assert_int_equal(series_value(list[0], STATS_CLUSTER_FLOWS_OPEN), 5);
		free(list);
		totals_free(totals);
		regions_remove(regions, region);
		stats_free(stats);
	}
	char *text = expose(&(struct metrics){.regions = regions}, METRICS_OPENMETRICS);
	assert_has(text, "\nhermes_cluster_flows_total{cluster=\"web\"} 30\n");
	assert_has(text, "\nhermes_cluster_open_flows{cluster=\"web\"} 0\n");
	assert_has(text, "\nhermes_worker_decision_duration_seconds_sum{worker=\"tunnel-0\"} 4.500000\n");
	assert_has(text, "\nhermes_worker_decision_duration_seconds_count{worker=\"tunnel-0\"} 3\n");
	assert_has(text, "\nhermes_worker_up{worker=\"tunnel-0\"} 0\n");
	assert_has(text, "\nhermes_worker_starts_total{worker=\"tunnel-0\"} 3\n");
	free(text);
	regions_free(regions);
}

static void what_is_no_region_is_refused(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_null(regions_add(regions, IPC_TUNNEL, 0, fds[0]));
	assert_int_equal(fcntl(fds[0], F_GETFD), -1);     /* taken over, and closed */
	close(fds[1]);
	regions_free(regions);
}

static void series_beyond_the_cap_share_one(void **state)
{
	(void)state;
	struct totals *totals = totals_new();
	for (unsigned round = 0; round < 3; round++) {
		struct stats *stats = stats_new(30000);
		for (unsigned i = 0; i < 30000; i++) {
			char name[32];
			snprintf(name, sizeof(name), "r%u", round * 30000 + i);
			stats_add(stats_set(stats, STATS_ROUTE, name), STATS_ROUTE_FLOWS, 1);
		}
		struct stats_view *view = stats_view_new(stats_fd(stats));
		assert_int_equal(totals_add_view(totals, view, "tunnel-0", true), 0);
		stats_view_free(view);
		stats_free(stats);
	}
	const struct series **list;
	uint64_t flows = 0;
	int n = totals_list(totals, STATS_ROUTE, &list);
	assert_in_range(n, TOTALS_MAX, TOTALS_MAX + STATS_SCOPE_COUNT);
	for (int i = 0; i < n; i++)
		flows += series_value(list[i], STATS_ROUTE_FLOWS);
	assert_int_equal(flows, 90000);
	free(list);
	totals_free(totals);
}

static void histograms_are_cumulative(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	struct stats *stats = stats_new(8);
	struct stats_set *set = stats_set(stats, STATS_ROUTE, "r");
	stats_observe(set, STATS_ROUTE_DURATION, 5);             /* up to 10 µs */
	stats_observe(set, STATS_ROUTE_DURATION, 999999);        /* up to 1 s */
	stats_observe(set, STATS_ROUTE_DURATION, 500000000);     /* beyond all */
	show(regions, IPC_TUNNEL, 0, stats);
	char *text = expose(&(struct metrics){.regions = regions}, METRICS_OPENMETRICS);
	assert_has(text, "\n# TYPE hermes_route_flow_duration_seconds histogram\n# UNIT hermes_route_flow_duration_seconds seconds\n");
	assert_has(text, "\nhermes_route_flow_duration_seconds_bucket{route=\"r\",le=\"1e-05\"} 1\n");
	assert_has(text, "\nhermes_route_flow_duration_seconds_bucket{route=\"r\",le=\"0.5\"} 1\n");
	assert_has(text, "\nhermes_route_flow_duration_seconds_bucket{route=\"r\",le=\"1.0\"} 2\n");
	assert_has(text, "\nhermes_route_flow_duration_seconds_bucket{route=\"r\",le=\"+Inf\"} 3\n");
	assert_has(text, "\nhermes_route_flow_duration_seconds_sum{route=\"r\"} 501.000004\n");
	free(text);
	regions_free(regions);
	stats_free(stats);
}

static void labels_are_escaped(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	struct stats *stats = stats_new(8);
	stats_set(stats, STATS_ROUTE, "a\"b\\c\nd\x01\xc2\x9b\xff\xc3\xa9");
	show(regions, IPC_TUNNEL, 0, stats);
	char *text = expose(&(struct metrics){.regions = regions}, METRICS_OPENMETRICS);
	assert_has(text, "\nhermes_route_flows_total{route=\"a\\\"b\\\\c\\nd\\\\x01\\\\xc2\\\\x9b\\\\xff\xc3\xa9\"} 0\n");
	free(text);
	regions_free(regions);
	stats_free(stats);
}

static void older_format_names_counters_by_their_sample(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	char *text = expose(&(struct metrics){.regions = regions}, METRICS_PROMETHEUS);
	assert_has(text, "# TYPE hermes_build_info gauge\n");
	assert_has(text, "\n# TYPE hermes_listener_flows_total counter\n");
	assert_null(strstr(text, "# UNIT"));
	assert_null(strstr(text, "# EOF"));
	free(text);
	regions_free(regions);
}

/* Everything, with awkward names, as a real reader sees it. */
static void write_example(const char *path, enum metrics_format format)
{
	struct regions *regions = regions_new();
	struct stats *stats = stats_new(32);
	struct log_counts logs[] = {{.to = "/var/log/\"x\"", .written = 5}, {.to = "stderr", .dropped_full = 1}};
	static const char *const names[] = {"apps", "a\"b\\c\nd", "sp ace", "\xff{}"};
	for (unsigned scope = 0; scope < STATS_SCOPE_COUNT; scope++)
		for (unsigned i = 0; i < 4; i++) {
			struct stats_set *set = stats_set(stats, scope, names[i]);
			for (unsigned m = 0; m < STATS_METRIC_COUNT; m++)
				if (stats_describe(m)->scope == scope && stats_describe(m)->kind == STATS_histogram)
					stats_observe(set, m, 1000 * m);
				else if (stats_describe(m)->scope == scope)
					stats_add(set, m, 1000 + m);
		}
	show(regions, IPC_TUNNEL, 0, stats);
	char *text = expose(&(struct metrics){.regions = regions, .generation = 7, .logs = logs, .n_logs = 2}, format);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	free(text);
	regions_free(regions);
	stats_free(stats);
}

static void check_with_parser(const char *module, enum metrics_format format)
{
	char path[] = "/tmp/hermes-metrics-XXXXXX", command[1024];
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	write_example(path, format);
	snprintf(command, sizeof(command),
	         "/usr/bin/python3 -c \"import sys\ntry: from %s import text_string_to_metric_families as parse\n"
	         "except ImportError: sys.exit(77)\n"
	         "n=sum(len(f.samples) for f in parse(open('%s', newline='').read()))\nassert n > 500, n\"", module, path);
	int status = system(command);
	unlink(path);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void strict_parser_accepts_openmetrics(void **state)
{
	(void)state;
	check_with_parser("prometheus_client.openmetrics.parser", METRICS_OPENMETRICS);
}

static void prometheus_parser_accepts_older_format(void **state)
{
	(void)state;
	check_with_parser("prometheus_client.parser", METRICS_PROMETHEUS);
}

static void quantiles_are_interpolated(void **state)
{
	(void)state;
	struct stats_histogram h = {.sum = 0};
	assert_true(metrics_quantile(&h, 0.5) < 0);
	for (unsigned b = 0; b < STATS_BUCKETS - 1; b++)
		if (stats_bounds[b] == 1000)
			h.buckets[b] = 100;                      /* between 500 µs and 1 ms */
	assert_float_equal(metrics_quantile(&h, 0.5), 0.00075, 1e-9);
	assert_float_equal(metrics_quantile(&h, 1), 0.001, 1e-9);
	h.buckets[STATS_BUCKETS - 1] = 1000;
	assert_float_equal(metrics_quantile(&h, 0.99), (double)stats_bounds[STATS_BUCKETS - 2] / 1e6, 1e-9);
}

static size_t json_count(const struct metrics *metrics, const char *filter)
{
	char *json = metrics_json(metrics, filter);
	assert_non_null(json);
	json_t *array = json_loads(json, 0, NULL);
	assert_true(json_is_array(array));
	size_t n = json_array_size(array);
	json_decref(array);
	free(json);
	return n;
}

static void json_is_filtered(void **state)
{
	(void)state;
	struct regions *regions = regions_new();
	struct stats *stats = stats_new(8);
	struct metrics metrics = {.regions = regions};
	stats_observe(stats_set(stats, STATS_LISTENER, "apps"), STATS_LISTENER_DURATION, 100);
	show(regions, IPC_TUNNEL, 0, stats);
	assert_int_equal(json_count(&metrics, "listener_flow_duration"), 1);
	assert_int_equal(json_count(&metrics, "listener_responses"), 5);
	assert_int_equal(json_count(&metrics, "5xx"), 1);
	assert_int_equal(json_count(&metrics, "nothing of the kind"), 0);
	assert_true(json_count(&metrics, "apps") < json_count(&metrics, NULL));
	char *json = metrics_json(&metrics, "listener_flow_duration");
	assert_has(json, "\"labels\":{\"listener\":\"apps\"},\"count\":1,\"sum\":0.0001,\"p50\":7.5e-05");
	free(json);
	regions_free(regions);
	stats_free(stats);
}

/* The manual lists every metric, with its kind. */
static void manual_is_complete(void **state)
{
	(void)state;
	char *manual = calloc(1, 1 << 18), row[256];
	FILE *file = fopen("packaging/man/hermes-metrics.7", "r");
	assert_non_null(file);
	assert_true(fread(manual, 1, (1 << 18) - 1, file) > 0);
	fclose(file);
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		const struct stats_description *d = stats_describe(m);
		static const char *const kinds[] = {"counter", "gauge", "histogram"};
		snprintf(row, sizeof(row), "\n.BR hermes_%s%s \" (%s, %s%s)\"\n%s.\n", d->family,
		         d->kind == STATS_counter ? "_total" : "", kinds[d->kind], metrics_scope_label(d->scope),
		         d->stability == STATS_unstable ? ", unstable" : "", d->help);
		assert_has(manual, row);
	}
	free(manual);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_are_summed), cmocka_unit_test(restart_does_not_count_backwards),
		cmocka_unit_test(what_is_no_region_is_refused), cmocka_unit_test(series_beyond_the_cap_share_one),
		cmocka_unit_test(histograms_are_cumulative), cmocka_unit_test(labels_are_escaped),
		cmocka_unit_test(older_format_names_counters_by_their_sample),
		cmocka_unit_test(strict_parser_accepts_openmetrics), cmocka_unit_test(prometheus_parser_accepts_older_format),
		cmocka_unit_test(quantiles_are_interpolated), cmocka_unit_test(json_is_filtered),
		cmocka_unit_test(manual_is_complete),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
