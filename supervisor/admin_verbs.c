#include "supervisor/admin_verbs.h"
#include "supervisor/admin_domain.h"

#include <string.h>

static const struct admin_column status_columns[] = {
	{"state", "state", ADMIN_TEXT},
	{"ready", "ready", ADMIN_TEXT},
	{"node", "node", ADMIN_TEXT},
	{"domain", "domain", ADMIN_TEXT},
	{"version", "version", ADMIN_TEXT},
	{"pid", "pid", ADMIN_COUNT},
	{"uptime", "uptime_seconds", ADMIN_SECONDS},
	{"privileged", "privileged", ADMIN_TEXT},
	{"configuration", "configuration.file", ADMIN_TEXT},
	{"generation", "configuration.generation", ADMIN_COUNT},
	{"in force since", "configuration.since", ADMIN_TIME},
	{"file refused", "configuration.stale_reason", ADMIN_TEXT},
	{"workers serving", "workers.serving", ADMIN_COUNT},
	{"workers", "workers.total", ADMIN_COUNT},
	{"worker restarts", "workers.restarts", ADMIN_COUNT},
	{"listeners", "listeners", ADMIN_COUNT},
	{"controller reached", "control.connected", ADMIN_TEXT},
	{"since", "control.since", ADMIN_TIME},
	{"controller away", "control.reason", ADMIN_TEXT},
	{"controller's number", "control.number", ADMIN_COUNT},
	{"confirmed generation", "control.confirmed", ADMIN_COUNT},
	{"to be confirmed", "control.pending.version", ADMIN_COUNT},
	{"or rolled back in", "control.pending.seconds_left", ADMIN_SECONDS},
	{"refused number", "control.refused.number", ADMIN_COUNT},
	{"refused", "control.refused.state", ADMIN_TEXT},
	{"why refused", "control.refused.reason", ADMIN_TEXT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column worker_columns[] = {
	{"NAME", "name", ADMIN_TEXT},           {"STATE", "state", ADMIN_TEXT},
	{"PID", "pid", ADMIN_COUNT},            {"UPTIME", "uptime_seconds", ADMIN_SECONDS},
	{"GENERATION", "generation", ADMIN_COUNT}, {"VERSION", "version", ADMIN_TEXT}, {"RESTARTS", "restarts", ADMIN_COUNT},
	{"SUCCESSOR", "successor", ADMIN_COUNT}, {"DRAINING", "draining", ADMIN_TEXT},
	{"RSS", "rss_bytes", ADMIN_BYTES},      {"LAST END", "last_end", ADMIN_TEXT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column listener_columns[] = {
	{"NAME", "name", ADMIN_TEXT}, {"ACCEPT", "accept", ADMIN_TEXT}, {"ADDRESS", "address", ADMIN_TEXT},
	{"PROTOCOL", "protocol", ADMIN_TEXT}, {"BOUND", "bound", ADMIN_TEXT}, {"SOCKETS", "sockets", ADMIN_COUNT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column flow_columns[] = {
	{"ID", "id", ADMIN_COUNT},          {"LISTENER", "listener", ADMIN_TEXT}, {"USER", "user", ADMIN_TEXT},
	{"SOURCE", "source", ADMIN_TEXT},   {"METHOD", "method", ADMIN_TEXT},     {"AUTHORITY", "authority", ADMIN_TEXT},
	{"ROUTE", "route", ADMIN_TEXT},     {"CLUSTER", "cluster", ADMIN_TEXT},   {"NEXT HOP", "next_hop", ADMIN_TEXT},
	{"STATUS", "status", ADMIN_COUNT},  {"IN", "bytes_in", ADMIN_BYTES},      {"OUT", "bytes_out", ADMIN_BYTES},
	{"AGE", "age_seconds", ADMIN_SECONDS}, {"STATE", "state", ADMIN_TEXT},    {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column flow_pairs[] = {
	{"id", "id", ADMIN_TEXT},               {"state", "state", ADMIN_TEXT},
	{"worker", "worker", ADMIN_TEXT},       {"listener", "listener", ADMIN_TEXT},
	{"carried in by", "carry_in", ADMIN_TEXT}, {"source", "source", ADMIN_TEXT},
	{"peer", "peer", ADMIN_TEXT},           {"user", "user", ADMIN_TEXT},
	{"method", "method", ADMIN_TEXT},       {"protocol", "protocol", ADMIN_TEXT},
	{"authority", "authority", ADMIN_TEXT}, {"path", "path", ADMIN_TEXT},
	{"route", "route", ADMIN_TEXT},         {"cluster", "cluster", ADMIN_TEXT},
	{"carried out by", "carry_out", ADMIN_TEXT}, {"next hop", "next_hop", ADMIN_TEXT},
	{"status", "status", ADMIN_TEXT},       {"received", "bytes_in", ADMIN_BYTES},
	{"sent", "bytes_out", ADMIN_BYTES},     {"attempts", "attempts", ADMIN_TEXT},
	{"age", "age_seconds", ADMIN_SECONDS},  {"idle", "idle_seconds", ADMIN_SECONDS},
	{"generation", "generation", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column cluster_columns[] = {
	{"CLUSTER", "cluster", ADMIN_TEXT}, {"CARRY", "carry", ADMIN_TEXT},    {"ENDPOINT", "endpoint", ADMIN_TEXT},
	{"WEIGHT", "weight", ADMIN_COUNT},  {"HEALTH", "health", ADMIN_TEXT},  {"DRAINED", "drained", ADMIN_TEXT},
	{"DOWN AT", "down_at", ADMIN_COUNT}, {"REASON", "reason", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column probe_columns[] = {
	{"PROBE", "name", ADMIN_TEXT},    {"CLUSTER", "cluster", ADMIN_TEXT}, {"TARGET", "target", ADMIN_TEXT},
	{"P50", "rtt_us", ADMIN_US},      {"MAX", "rtt_max_us", ADMIN_US},    {"SENT", "sent", ADMIN_COUNT},
	{"LOST", "lost", ADMIN_COUNT},    {"LAST ANSWER", "age_ms", ADMIN_MS}, {"ERROR", "error", ADMIN_TEXT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column history_columns[] = {
	{"VERSION", "version", ADMIN_COUNT}, {"SUBMITTED", "time", ADMIN_TIME}, {"STATE", "state", ADMIN_TEXT},
	{"SOURCE", "source", ADMIN_TEXT},    {"AUTHOR", "author", ADMIN_TEXT},  {"NAME", "name", ADMIN_TEXT},
	{"CONTROLLER", "controller", ADMIN_COUNT}, {"CONFIRMED", "confirmed", ADMIN_TIME}, {"REASON", "reason", ADMIN_TEXT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column level_columns[] = {{"level", "level", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT}};
static const struct admin_column nothing[] = {{NULL, NULL, ADMIN_TEXT}};

#define QUESTION                                                                                                      \
	"[--listener L] [--user U] [--peer P] [--method M] [--protocol P] [--source ADDRESS] [--header NAME=VALUE]... "   \
	"[--time UNIX] URL|HOST:PORT"

static const struct admin_verb verbs[] = {
	{"status", NULL, 0, 2, "[--check live|ready]", "how it is; --check: by the exit status", NULL, status_columns, NULL, NULL, false},
	{"wait", "ready", 0, 2, "[--timeout S]", "wait until every worker serves (default 30 s)", NULL, nothing, admin_wait, NULL, false},
	{"workers", "list", 0, 0, "", "the worker processes", "workers", worker_columns, NULL, NULL, false},
	{"workers", "restart", 0, 1, "[NAME|all]", "replace one worker, or all one after another, by what is on disk; nobody notices", NULL, nothing, admin_restart, NULL, false},
	{"listeners", "list", 0, 0, "", "where traffic comes in", "listeners", listener_columns, NULL, NULL, false},
	{"flows", "list", 0, 0, "", "what is carried now", "flows", flow_columns, NULL, NULL, false},
	{"flows", "show", 1, 1, "ID", "one flow", NULL, flow_pairs, NULL, NULL, false},
	{"flows", "watch", 0, 2, "[--interval S]", "the list, again and again (default each 2 s)", "flows", flow_columns, admin_watch, NULL, false},
	{"clusters", "list", 0, 1, "[CLUSTER]", "next hops and their health", "clusters", cluster_columns, NULL, NULL, false},
	{"clusters", "drain", 2, 2, "CLUSTER ENDPOINT", "send nothing new there", NULL, nothing, NULL, NULL, false},
	{"clusters", "undrain", 2, 2, "CLUSTER ENDPOINT", "use it again", NULL, nothing, NULL, NULL, false},
	{"probes", "list", 0, 0, "", "the ways that are measured all the time, over the last 10 s", "probes", probe_columns, NULL, NULL, false},
	{"tunnels", "list", 0, 0, "", "TUN devices, and what enters and leaves the overlay there", NULL, nothing, NULL, admin_print_tunnels, false},
	{"route", "explain", 1, 200, QUESTION, "where a request would go, and why", NULL, nothing, NULL, admin_print_decision, false},
	{"policy", "explain", 1, 200, QUESTION, "which policies a request would meet, and why", NULL, nothing, NULL, admin_print_decision, false},
	{"ping", NULL, 1, 200, "[--count N] [--interval S] [--max-hops N] [--user U] [--header NAME=VALUE]... [--listener L] [--cluster C] NODE", "whether a node is there, and how far away", NULL, nothing, admin_ping, NULL, false},
	{"traceroute", NULL, 1, 200, "[--count N] [--max-hops N] [--user U] [--header NAME=VALUE]... [--method M] [--listener L] [--cluster C] TARGET", "the way to a target through the overlay, hop by hop", NULL, nothing, admin_traceroute, NULL, false},
	{"config", "check", 1, 1, "FILE|-", "would this document be taken?", NULL, nothing, NULL, admin_print_change, true},
	{"config", "apply", 1, 1, "FILE|-", "take this document, or say why not", NULL, nothing, NULL, admin_print_change, true},
	{"config", "show", 0, 2, "[VERSION] [--origin|--local|--controller]", "a version (default: the one in force) with all defaults, secrets as ***; --origin: and where each value came from; --local, --controller: the node's own document, the controller's", NULL, nothing, NULL, admin_print_document, false},
	{"config", "diff", 1, 2, "VERSION [VERSION]", "what changed from one version to another (default: to the one in force)", NULL, nothing, NULL, admin_print_document, false},
	{"config", "history", 0, 0, "", "the versions that the store holds", "versions", history_columns, NULL, NULL, false},
	{"config", "rollback", 1, 1, "VERSION", "put a version back in force", NULL, nothing, NULL, admin_print_change, false},
	{"stats", NULL, 0, 1, "[FILTER]", "counters and latencies", NULL, nothing, NULL, admin_print_stats, false},
	{"log", "level", 0, 1, "[debug|info|warn|error]", "show or set the level", NULL, level_columns, NULL, NULL, false},
	{"reload", NULL, 0, 0, "", "read the configuration file and log files again", NULL, nothing, NULL, admin_print_change, false},
	{"restart", NULL, 0, 0, "", "replace hermesd, in place, and then its workers by what is on disk; nobody notices", NULL, nothing, admin_restart, NULL, false},
	{"stop", NULL, 0, 0, "", "stop hermesd, orderly", NULL, nothing, admin_stop, NULL, false},
	{"bugreport", NULL, 0, 0, "", "everything that a report of a fault needs, as one JSON document, redacted", NULL, nothing, admin_bugreport, NULL, false},
};

/* How many words of argv the verb takes ("controller", "token create": three), 0: it is another. */
static int matches(const struct admin_verb *v, int argc, char **argv)
{
	const char *at = v->verb;
	int n = 1;
	if (argc < 1 || strcmp(v->noun, argv[0]))
		return 0;
	for (; at; n++) {
		size_t length = strcspn(at, " ");
		if (n >= argc || strncmp(at, argv[n], length) || argv[n][length])
			return 0;
		at = at[length] ? at + length + 1 : NULL;
	}
	return n;
}

static const struct admin_verb *nth(size_t i)
{
	const size_t own = sizeof(verbs) / sizeof(*verbs);
	return i < own ? &verbs[i] : i - own < n_domain_verbs ? &domain_verbs[i - own] : NULL;
}

const struct admin_verb *admin_verb_find(int argc, char **argv, int *matched)
{
	const struct admin_verb *v;
	for (size_t i = 0; (v = nth(i)); i++)
		if ((*matched = matches(v, argc, argv)))
			return v;
	return NULL;
}

int admin_verbs_usage(FILE *out, const char *noun)
{
	const struct admin_verb *v;
	int shown = 0;
	for (size_t i = 0; (v = nth(i)); i++) {
		if (noun && strcmp(noun, v->noun))
			continue;
		fprintf(out, "  %s%s%s %s\n        %s\n", v->noun, v->verb ? " " : "", v->verb ? v->verb : "", v->usage, v->help);
		shown++;
	}
	return shown;
}
