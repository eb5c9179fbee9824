/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the controller for people, and what is looked at until it is over. */
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/admin_domain.h"
#include "supervisor/admin_options.h"
#include "supervisor/admin_rest.h"

#define FOLLOW_S 0.5
#define FOLLOW_FAILURES 60            /* a controller may be replaced meanwhile */

static const char *text(const json_t *d, const char *name)
{
	const char *value = json_string_value(json_object_get(d, name));
	return value ? value : "";
}

static size_t count(const json_t *d, const char *name)
{
	return json_array_size(json_object_get(d, name));
}

/* --- rollouts -------------------------------------------------------------------------------------------------------- */

static void print_progress(const json_t *r)
{
	const json_t *stage = json_array_get(json_object_get(r, "stages"), (size_t)json_integer_value(json_object_get(r, "stage")));
	printf("version %lld: %s", (long long)json_integer_value(json_object_get(r, "version")), text(r, "state"));
	if (*text(stage, "name"))
		printf(", stage %s", text(stage, "name"));
	printf(", %lld of %zu nodes", (long long)json_integer_value(json_object_get(r, "moved")), count(r, "nodes"));
	if (*text(r, "reason"))
		printf(": %s", text(r, "reason"));
	puts("");
}

void domain_print_rollout(const json_t *d)
{
	static const struct admin_column columns[] = {
		{"version", "version", ADMIN_TEXT}, {"from", "from", ADMIN_TEXT},   {"state", "state", ADMIN_TEXT},
		{"reason", "reason", ADMIN_TEXT},   {"rolled back", "back", ADMIN_TEXT}, {"moved", "moved", ADMIN_TEXT},
		{"nodes", "nodes", ADMIN_TEXT},     {"away", "away", ADMIN_TEXT},   {"author", "author", ADMIN_TEXT},
		{"comment", "comment", ADMIN_TEXT}, {"accepted", "progress.accepted", ADMIN_TEXT}, {"waiting", "progress.waiting", ADMIN_TEXT},
		{"not ready", "progress.not_ready", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
	};
	static const struct admin_column rejected[] = {
		{"REJECTED BY", "node", ADMIN_TEXT}, {"REASON", "reason", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT}};
	const json_t *rejections = json_object_get(json_object_get(d, "progress"), "rejected");
	if (!*text(d, "state"))
		puts("nothing was rolled out yet");
	admin_pairs(stdout, d, columns);
	if (json_array_size(rejections))
		admin_table(stdout, rejections, rejected);
}

static void print_lines(const json_t *list, FILE *out, const char *suffix)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_is_string(json_array_get(list, i)))
			fprintf(out, "%s%s\n", json_string_value(json_array_get(list, i)), suffix);
}

void domain_print_dry_run(const json_t *d)
{
	const json_t *nodes = json_object_get(d, "nodes"), *version = json_object_get(d, "version");
	print_lines(json_object_get(d, "warnings"), stderr, " (warning)");
	for (size_t i = 0; i < json_array_size(nodes); i++) {
		const json_t *node = json_array_get(nodes, i);
		printf("%s: %s\n", text(node, "name"), *text(node, "change") ? text(node, "change") : "changes");
		if (*text(node, "same_as"))
			printf("  as %s\n", text(node, "same_as"));
		if (*text(node, "diff"))
			fputs(text(node, "diff"), stdout);
	}
	if (json_is_integer(version) && json_integer_value(version))
		printf("version %lld, %zu nodes change\n", (long long)json_integer_value(version), json_array_size(nodes));
	else
		printf("it would be taken; %zu nodes change\n", json_array_size(nodes));
}

/* One line per change, or one document per line. */
static void show_progress(const struct admin_call *call, const json_t *rollout)
{
	if (call->json) {
		json_dumpf(rollout, stdout, JSON_COMPACT);
		puts("");
	} else {
		print_progress(rollout);
	}
	fflush(stdout);
}

static bool same_progress(const json_t *a, const json_t *b)
{
	static const char *const names[] = {"version", "state", "stage", "moved", "reason", "back"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const json_t *x = json_object_get(a, names[i]), *y = json_object_get(b, names[i]);
		if (x != y && !(x && y && json_equal(x, y)))
			return false;
	}
	return true;
}

int domain_follow(const struct admin_call *call, const struct rest *rest)
{
	json_t *last = NULL;
	int failures = 0, status = -1;
	while (status < 0) {
		json_t *d = rest_get(rest, "/v1/rollout");
		failures = d ? 0 : failures + 1;
		if (d && (!last || !same_progress(last, d)))
			show_progress(call, d);
		if (d && (!strcmp(text(d, "state"), "done") || !*text(d, "state")))
			status = 0;
		else if ((d && (!strcmp(text(d, "state"), "stopped") || !strcmp(text(d, "state"), "aborted"))) ||
		         failures == FOLLOW_FAILURES)
			status = 1;
		json_decref(last);
		last = d;
		if (status < 0)
			usleep((useconds_t)(FOLLOW_S * 1e6));
	}
	json_decref(last);
	return status;
}

static void titled(const char *title, const json_t *rows, const struct admin_column *columns)
{
	if (!json_array_size(rows))
		return;
	printf("\n%s:\n", title);
	admin_table(stdout, rows, columns);
}

void domain_print_objective(const json_t *d)
{
	static const struct admin_column pairs[] = {
		{"name", "name", ADMIN_TEXT},     {"user", "user", ADMIN_TEXT},    {"service", "service", ADMIN_TEXT},
		{"state", "state", ADMIN_TEXT},   {"way", "choice", ADMIN_TEXT},   {"since", "since", ADMIN_TIME},
		{"why", "reason", ADMIN_TEXT},    {"limit", "limit_ms", ADMIN_MS}, {"loss, %", "loss_percent", ADMIN_TEXT},
		{"stays for at least", "hold_ms", ADMIN_MS}, {NULL, NULL, ADMIN_TEXT}};
	static const struct admin_column ways[] = {
		{"WAY", "cluster", ADMIN_TEXT}, {"MEASURED", "known", ADMIN_TEXT}, {"P50", "rtt_us", ADMIN_US},
		{"LOSS %", "loss_percent", ADMIN_COUNT}, {"KEEPS IT", "met", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT}};
	admin_pairs(stdout, d, pairs);
	titled("ways", json_object_get(d, "ways"), ways);
}

/* --- nodes ----------------------------------------------------------------------------------------------------------- */

/* Endpoints of all clusters in one list. */
static json_t *endpoints(const json_t *clusters)
{
	json_t *rows = json_array();
	for (size_t i = 0; i < json_array_size(clusters); i++) {
		const json_t *cluster = json_array_get(clusters, i), *list = json_object_get(cluster, "endpoints");
		for (size_t k = 0; k < json_array_size(list); k++) {
			json_t *row = json_copy(json_array_get(list, k));
			json_object_set(row, "cluster", json_object_get(cluster, "name"));
			json_array_append_new(rows, row);
		}
	}
	return rows;
}

void domain_print_node(const json_t *d)
{
	static const struct admin_column pairs[] = {
		{"name", "name", ADMIN_TEXT},               {"state", "state", ADMIN_TEXT},          {"since", "since", ADMIN_TIME},
		{"seen", "seen", ADMIN_TIME},               {"version of Hermes", "hermes", ADMIN_TEXT}, {"ready", "ready", ADMIN_TEXT},
		{"uptime", "uptime_seconds", ADMIN_SECONDS}, {"document", "runs.version", ADMIN_TEXT}, {"number", "runs.number", ADMIN_TEXT},
		{"wanted document", "wants.version", ADMIN_TEXT}, {"wanted number", "wants.number", ADMIN_TEXT},
		{"why", "wants.reason", ADMIN_TEXT},        {"reports", "runs.state", ADMIN_TEXT},   {"refused", "refused", ADMIN_TEXT},
		{"enrolled", "enrolled", ADMIN_TIME},       {"certified", "certified", ADMIN_TIME},  {"serial", "serial", ADMIN_TEXT},
		{"controller", "controller", ADMIN_TEXT},   {"override", "override", ADMIN_TEXT},    {"flows", "traffic.flows", ADMIN_COUNT},
		{"received", "traffic.bytes_in", ADMIN_BYTES}, {"sent", "traffic.bytes_out", ADMIN_BYTES},
		{"CPU time", "load.cpu_seconds", ADMIN_SECONDS}, {"memory", "load.rss_bytes", ADMIN_BYTES}, {NULL, NULL, ADMIN_TEXT},
	};
	static const struct admin_column workers[] = {
		{"WORKER", "name", ADMIN_TEXT}, {"STATE", "state", ADMIN_TEXT}, {"RESTARTS", "restarts", ADMIN_COUNT},
		{"RSS", "rss_bytes", ADMIN_BYTES}, {NULL, NULL, ADMIN_TEXT}};
	static const struct admin_column probes[] = {
		{"PROBE", "name", ADMIN_TEXT}, {"CLUSTER", "cluster", ADMIN_TEXT}, {"TARGET", "target", ADMIN_TEXT},
		{"P50", "rtt_us", ADMIN_US}, {"MAX", "rtt_max_us", ADMIN_US}, {"LOST", "lost", ADMIN_COUNT},
		{"SENT", "sent", ADMIN_COUNT}, {NULL, NULL, ADMIN_TEXT}};
	static const struct admin_column hops[] = {
		{"CLUSTER", "cluster", ADMIN_TEXT}, {"ENDPOINT", "address", ADMIN_TEXT}, {"STATE", "state", ADMIN_TEXT},
		{NULL, NULL, ADMIN_TEXT}};
	json_t *rows = endpoints(json_object_get(d, "clusters"));
	admin_pairs(stdout, d, pairs);
	titled("workers", json_object_get(d, "workers"), workers);
	titled("links", json_object_get(d, "probes"), probes);
	titled("next hops", rows, hops);
	json_decref(rows);
}

int domain_watch_nodes(const struct admin_call *call, const struct rest *rest)
{
	double seconds = rest->interval ? admin_seconds(rest->interval) : 2;
	if (seconds <= 0) {
		admin_error("--interval: \"%s\" is not a time as 500ms, 2s", rest->interval);
		return 2;
	}
	for (;;) {
		json_t *d = rest_get(rest, "/v1/nodes");
		if (!d)
			return 1;
		if (!call->json && isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		int status = rest_print(call, d);
		json_decref(d);
		if (status)
			return status;
		usleep((useconds_t)(seconds * 1e6));
	}
}
