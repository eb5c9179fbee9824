/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/metrics.h"
#include "workers/controller/api.h"
#include "workers/controller/nodes.h"
#include "workers/controller/polls.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# TYPE hermes_controller_%s %s\n# HELP hermes_controller_%s %s\n", name, type, name, help);
}

static void one(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	family(out, name, type, help);
	fprintf(out, "hermes_controller_%s%s %" PRIu64 "\n", name, strcmp(type, "counter") ? "" : "_total", value);
}

/* A label's value as the format wants it. */
static void label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\\' || *text == '"')
			fputc('\\', out);
		if (*text == '\n')
			fputs("\\n", out);
		else
			fputc(*text, out);
	}
}

static void put_nodes(FILE *out, const struct nodes_counts *counts)
{
	family(out, "nodes", "gauge", "Nodes by state.");
	for (int i = 0; i < NODE_STATUS_COUNT; i++)
		fprintf(out, "hermes_controller_nodes{state=\"%s\"} %" PRIu64 "\n", node_status_names[i], counts->status[i]);
	one(out, "nodes_rejected", "gauge", "Nodes whose last report says that they rejected what they were to run.", counts->rejected);
	one(out, "nodes_rolled_back", "gauge", "Nodes whose last report says that they went back by themselves.", counts->rolled_back);
	one(out, "reports", "counter", "Reports that nodes sent.", counts->reports);
	one(out, "reports_kept", "counter", "Reports that were kept; the others said nothing new.", counts->reports_kept);
}

static void put_latency(FILE *out, const struct nodes_latency *latency)
{
	uint64_t sum = 0;
	family(out, "accepted_seconds", "histogram", "From a new configuration of a node to its word that it is in force.");
	for (int i = 0; i < NODES_BUCKETS; i++) {
		sum += latency->counts[i];
		fprintf(out, "hermes_controller_accepted_seconds_bucket{le=\"%g\"} %" PRIu64 "\n", nodes_bucket_limits[i], sum);
	}
	fprintf(out, "hermes_controller_accepted_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", latency->n);
	fprintf(out, "hermes_controller_accepted_seconds_count %" PRIu64 "\nhermes_controller_accepted_seconds_sum %g\n", latency->n,
	        latency->seconds);
}

/* --- what the domain does -------------------------------------------------------------------------------------------- */

static bool put_steer(void *arg, const struct kv_value *value)
{
	const char *choice = json_string_value(json_object_get(value->json, "choice"));
	fputs("hermes_controller_objective_choice_info{objective=\"", arg);
	label(arg, strchr(value->key, '/') + 1);
	fputs("\",choice=\"", arg);
	label(arg, choice ? choice : "");
	fputs("\"} 1\n", arg);
	return true;
}

static void put_domain(FILE *out, struct kv *kv)
{
	struct kv_value head = kv_get(kv, "document-head"), rollout = kv_get(kv, "rollout");
	const char *state = rollout.revision ? json_string_value(json_object_get(rollout.json, "state")) : NULL;
	json_int_t version = head.revision ? json_integer_value(json_object_get(head.json, "version")) : 0;
	one(out, "document_version", "gauge", "The domain's document that is in force or being rolled out.",
	    version > 0 ? (uint64_t)version : 0);
	one(out, "documents", "gauge", "Versions of the domain's document that are kept.", kv_count(kv, "document/"));
	family(out, "rollout", "info", "The last rollout's state.");
	fputs("hermes_controller_rollout_info{state=\"", out);
	label(out, state ? state : "none");
	fputs("\"} 1\n", out);
	family(out, "objective_choice", "info", "The way that an objective's traffic was sent, where it is not the first.");
	kv_each(kv, "steer/", put_steer, out);
	one(out, "tokens", "gauge", "Tokens of enrolment that are open.", kv_count(kv, "token/"));
}

static void put_process(FILE *out)
{
	struct rusage use;
	long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");
	if (statm && fscanf(statm, "%*d %ld", &pages) != 1)
		pages = 0;
	if (statm)
		fclose(statm);
	if (getrusage(RUSAGE_SELF, &use))
		return;
	family(out, "cpu_seconds", "counter", "CPU time of the controller.");
	fprintf(out, "hermes_controller_cpu_seconds_total %.3f\n",
	        (double)use.ru_utime.tv_sec + (double)use.ru_stime.tv_sec + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6);
	/* the sandbox shuts /proc: then the most that it ever was */
	one(out, "resident_bytes", "gauge", "Memory of the controller.", pages ? (uint64_t)pages * 4096 : (uint64_t)use.ru_maxrss * 1024);
}

char *metrics_text(struct controller *c)
{
	struct api_counts api = api_counts(c->api);
	struct nodes_counts nodes;
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);
	if (!out)
		return NULL;
	nodes_count(c->nodes, &nodes);
	put_nodes(out, &nodes);
	put_latency(out, &nodes.latency);
	one(out, "polls", "gauge", "Nodes' requests that wait for a new configuration.", polls_waiting(c->polls));
	put_domain(out, c->kv);
	one(out, "leads", "gauge", "Whether this controller acts for the domain.", kv_leads(c->kv));
	one(out, "requests", "counter", "Requests to the controller's interface.", api.requests);
	one(out, "requests_refused", "counter", "Requests that were answered with 400 to 499.", api.refused);
	one(out, "requests_failed", "counter", "Requests that were answered with 500 and above.", api.failed);
	one(out, "connections", "gauge", "Connections to the controller's interface.", api.connections);
	put_process(out);
	fputs("# EOF\n", out);
	bool failed = ferror(out);
	if (fclose(out) || failed) {
		free(text);
		return NULL;
	}
	return text;
}
