/* Verbs that are more than one question, and answers that are more than one table. */
#include "supervisor/admin_verbs.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MS 15000u
#define STOP_MS 120000u

/* --- wait, watch, stop ---------------------------------------------------------------------------------------------- */

/* "--name N": a positive number of seconds, or -1. */
static double option_seconds(const struct admin_call *call, const char *name, double otherwise)
{
	char *end;
	if (!call->argc)
		return otherwise;
	double n = call->argc == 2 && !strcmp(call->argv[0], name) ? strtod(call->argv[1], &end) : -1;
	return n > 0 && n < 86400 && !*end ? n : -1;
}

int admin_wait(const struct admin_call *call)
{
	double seconds = option_seconds(call, "--timeout", 30);
	char error[512], text[32];
	struct timespec start, now;
	if (seconds < 0) {
		admin_error("usage: hermes-admin wait ready [--timeout SECONDS]");
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	struct admin_client *client = admin_connect(call->socket, (unsigned)(seconds * 1000), error, sizeof(error));
	if (!client)
		return admin_error("%s", error);
	clock_gettime(CLOCK_MONOTONIC, &now);
	double left = seconds - (double)(now.tv_sec - start.tv_sec);
	snprintf(text, sizeof(text), "%.0f", left < 1 ? 1 : left);
	const char *words[] = {text};
	struct ipc_strs args = {words, 1};
	struct admin_reply reply;
	admin_ask(client, "wait ready", &args, -1, (unsigned)(left < 1 ? 1 : left) * 1000 + 5000, &reply);
	int status = admin_print(call, &reply);
	admin_reply_clear(&reply);
	admin_close(client);
	return status;
}

int admin_watch(const struct admin_call *call)
{
	double seconds = option_seconds(call, "--interval", 2);
	const struct ipc_strs none = {NULL, 0};
	char error[512];
	int status = 0;
	if (seconds < 0) {
		admin_error("usage: hermes-admin flows watch [--interval SECONDS]");
		return 2;
	}
	struct admin_client *client = admin_connect(call->socket, 0, error, sizeof(error));
	if (!client)
		return admin_error("%s", error);
	while (!status) {
		struct admin_reply reply;
		admin_ask(client, "flows list", &none, -1, ANSWER_MS, &reply);
		if (!call->json && isatty(STDOUT_FILENO))
			fputs("\033[H\033[2J", stdout);
		status = admin_print(call, &reply);
		admin_reply_clear(&reply);
		if (!status)
			usleep((useconds_t)(seconds * 1e6));
	}
	admin_close(client);
	return status;
}

int admin_stop(const struct admin_call *call)
{
	const struct ipc_strs none = {NULL, 0};
	struct admin_reply reply;
	char error[512];
	struct admin_client *client = admin_connect(call->socket, 0, error, sizeof(error));
	if (!client)
		return admin_error("%s", error);
	admin_ask(client, "stop", &none, -1, ANSWER_MS, &reply);
	int status = reply.status ? (int)reply.status : 0;
	if (status)
		admin_error("%s", reply.error ? reply.error : "refused");
	else if (!admin_wait_end(client, STOP_MS))
		status = admin_error("hermesd is still stopping after 2 minutes");
	else if (call->json)
		puts("{\"stopped\":true}");
	admin_reply_clear(&reply);
	admin_close(client);
	return status;
}

/* --- bugreport ------------------------------------------------------------------------------------------------------ */

static json_t *part(struct admin_client *client, const char *verb)
{
	const struct ipc_strs none = {NULL, 0};
	struct admin_reply reply;
	admin_ask(client, verb, &none, -1, ANSWER_MS, &reply);
	json_t *document = reply.json ? json_loads(reply.json, JSON_DECODE_ANY, NULL) : NULL;
	if (!document)
		document = json_pack("{s:s}", "error", reply.error ? reply.error : "no answer");
	admin_reply_clear(&reply);
	return document;
}

static json_t *machine(void)
{
	struct utsname u;
	if (uname(&u))
		return json_null();
	return json_pack("{s:s, s:s, s:s, s:I}", "system", u.sysname, "release", u.release, "machine", u.machine, "cpus",
	                 (json_int_t)sysconf(_SC_NPROCESSORS_ONLN));
}

int admin_bugreport(const struct admin_call *call)
{
	/* no flows: who talks to whom is nobody else's business */
	static const char *const verbs[] = {
		"status", "workers list", "listeners list", "clusters list", "config show", "config history", "stats",
	};
	char error[512];
	struct admin_client *client = admin_connect(call->socket, 0, error, sizeof(error));
	if (!client)
		return admin_error("%s", error);
	json_t *report = json_pack("{s:s, s:I, s:o}", "hermes_admin", HERMES_VERSION, "time", (json_int_t)time(NULL), "machine",
	                           machine());
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		json_object_set_new(report, verbs[i], part(client, verbs[i]));
	int status = json_dumpf(report, stdout, call->json ? JSON_COMPACT : JSON_INDENT(2)) ? 1 : 0;
	fputc('\n', stdout);
	json_decref(report);
	admin_close(client);
	return status;
}

/* --- printing ------------------------------------------------------------------------------------------------------- */

void admin_print_decision(const json_t *d)
{
	static const struct admin_column columns[] = {
		{"accepted", "accepted", ADMIN_TEXT}, {"status", "status", ADMIN_TEXT}, {"error", "error", ADMIN_TEXT},
		{"detail", "detail", ADMIN_TEXT},     {"user", "question.user", ADMIN_TEXT},
		{"policies", "policies", ADMIN_TEXT}, {"route", "route", ADMIN_TEXT}, {"cluster", "cluster", ADMIN_TEXT},
		{"headers added", "add_headers", ADMIN_TEXT}, {"headers removed", "remove_headers", ADMIN_TEXT},
		{"cached for", "valid_ms", ADMIN_MS}, {NULL, NULL, ADMIN_TEXT},
	};
	const json_t *trace = json_object_get(d, "trace");
	struct admin_column shown[sizeof(columns) / sizeof(columns[0])];
	memcpy(shown, columns, sizeof(columns));
	if (json_is_true(json_object_get(d, "accepted")))      /* status 0 says nothing more */
		memmove(shown + 1, shown + 2, sizeof(columns) - 2 * sizeof(columns[0]));
	admin_pairs(stdout, d, shown);
	if (json_array_size(trace))
		puts("\nwhy:");
	for (size_t i = 0; i < json_array_size(trace); i++) {
		const char *line = json_string_value(json_array_get(trace, i));
		printf("  %s\n", line ? line : "");
	}
}

static void print_list(const json_t *list, const char *suffix)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *line = json_string_value(json_array_get(list, i));
		fprintf(stderr, "%s%s\n", line ? line : "", suffix);
	}
}

void admin_print_change(const json_t *d)
{
	long long generation = json_integer_value(json_object_get(d, "generation"));
	print_list(json_object_get(d, "warnings"), " (warning)");
	if (!json_is_true(json_object_get(d, "ok"))) {
		fputs("refused; nothing has changed\n", stderr);
		return;
	}
	if (json_is_true(json_object_get(d, "unchanged")))
		printf("unchanged: version %lld is in force\n", generation);
	else if (generation)
		printf("version %lld is in force\n", generation);
	else
		puts("ok");
}

/* A document's text where the answer carries one, else the answer, indented. */
void admin_print_document(const json_t *d)
{
	static const char *const members[] = {"document", "diff"};
	const json_t *config = json_object_get(d, "config");
	for (size_t i = 0; i < sizeof(members) / sizeof(*members); i++) {
		const char *text = json_string_value(json_object_get(d, members[i]));
		if (!text)
			continue;
		fputs(text, stdout);
		if (*text && text[strlen(text) - 1] != '\n')
			fputc('\n', stdout);
		return;
	}
	json_dumpf(config ? config : d, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	fputc('\n', stdout);
}

void admin_print_stats(const json_t *d)
{
	static const struct admin_column columns[] = {
		{"METRIC", "metric", ADMIN_TEXT}, {"LABELS", "labels", ADMIN_TEXT}, {"VALUE", "value", ADMIN_COUNT},
		{"COUNT", "count", ADMIN_COUNT},  {"P50", "p50", ADMIN_SECONDS},    {"P90", "p90", ADMIN_SECONDS},
		{"P99", "p99", ADMIN_SECONDS},    {NULL, NULL, ADMIN_TEXT},
	};
	admin_table(stdout, json_object_get(d, "metrics"), columns);
}
