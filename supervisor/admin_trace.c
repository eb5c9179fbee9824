/* SPDX-License-Identifier: Apache-2.0 */
/* ping and traceroute: probes (workers/tunnel/probe.h), one question each. */
#include "supervisor/admin_verbs.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define ANSWER_MS 10000u
#define WORDS_MAX 220
#define COUNT_MAX 1000000u
#define SAMPLES_MAX 1000u         /* kept for the median: of more, every so many-th */

/* What was asked for. */
struct trace {
	struct admin_client *client;
	const struct admin_call *call;
	const char *target;
	unsigned count, max_hops;
	double interval;
	const char *words[WORDS_MAX];    /* for the prober; the last four are set per probe */
	size_t n_words;
};

/* Round trips, in µs. */
struct trips {
	unsigned sent, received;
	uint64_t v[SAMPLES_MAX];
	size_t n;
	uint64_t least, most;
};

/* --- words ------------------------------------------------------------------------------------------------------------------- */

static bool number(const char *text, unsigned least, unsigned most, unsigned *value)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	*value = (unsigned)n;
	return text[0] >= '0' && text[0] <= '9' && !*end && n >= least && n <= most;
}

static bool seconds(const char *text, double *value)
{
	char *end;
	*value = strtod(text, &end);
	return end != text && !*end && *value >= 0 && *value <= 3600;
}

/* Ours are taken, the rest goes to the prober as it is. */
static bool option(struct trace *t, const char *word, const char *value)
{
	if (strcmp(word, "--count") == 0)
		return number(value, 1, COUNT_MAX, &t->count);
	if (strcmp(word, "--max-hops") == 0)
		return number(value, 1, 255, &t->max_hops);
	if (strcmp(word, "--interval") == 0)
		return seconds(value, &t->interval);
	t->words[t->n_words++] = word;
	t->words[t->n_words++] = value;
	return true;
}

static int take_words(struct trace *t, const struct admin_call *call)
{
	for (int i = 0; i < call->argc; i++) {
		const char *word = call->argv[i];
		bool good = strncmp(word, "--", 2) == 0 ? i + 1 < call->argc && option(t, word, call->argv[i + 1]) : !t->target;
		if (!good) {
			admin_error("%s: not valid here\nusage: hermes-admin %s %s", word, call->verb->noun, call->verb->usage);
			return 2;
		}
		if (strncmp(word, "--", 2) == 0)
			i++;
		else
			t->target = word;
	}
	if (t->target)
		return 0;
	admin_error("usage: hermes-admin %s %s", call->verb->noun, call->verb->usage);
	return 2;
}

static int begin(struct trace *t, const struct admin_call *call)
{
	char error[512];
	int status = take_words(t, call);
	t->call = call;
	if (status)
		return status;
	t->client = admin_connect(call->socket, 0, error, sizeof(error));
	return t->client ? 0 : admin_error("%s", error);
}

/* --- probes ------------------------------------------------------------------------------------------------------------------ */

/* One probe with Max-Forwards `hops`: the answer's document, or NULL with *status for the caller's exit. */
static json_t *probe(struct trace *t, unsigned hops, int *status)
{
	struct admin_reply reply;
	char text[16];
	size_t n = t->n_words;
	snprintf(text, sizeof(text), "%u", hops);
	t->words[n++] = "--hops";
	t->words[n++] = text;
	t->words[n++] = t->target;
	struct ipc_strs args = {t->words, n};
	admin_ask(t->client, "probe", &args, -1, ANSWER_MS, &reply);
	json_t *answer = reply.json && !reply.status ? json_loads(reply.json, 0, NULL) : NULL;
	if (!answer) {
		*status = reply.status ? (int)reply.status : 1;
		admin_error("%s", reply.error ? reply.error : "the answer is not understood");
	}
	admin_reply_clear(&reply);
	return answer;
}

static void count(struct trips *trips, const json_t *answer)
{
	trips->sent++;
	if (!json_is_true(json_object_get(answer, "answered")))
		return;
	uint64_t us = (uint64_t)json_integer_value(json_object_get(answer, "round_trip_us"));
	if (!trips->received || us < trips->least)
		trips->least = us;
	if (us > trips->most)
		trips->most = us;
	trips->v[trips->n < SAMPLES_MAX ? trips->n++ : trips->received % SAMPLES_MAX] = us;
	trips->received++;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static uint64_t median(struct trips *trips)
{
	qsort(trips->v, trips->n, sizeof(trips->v[0]), compare);
	return trips->n ? trips->v[trips->n / 2] : 0;
}

static void put_trips(json_t *to, struct trips *trips)
{
	json_object_set_new(to, "sent", json_integer(trips->sent));
	json_object_set_new(to, "received", json_integer(trips->received));
	if (!trips->received)
		return;
	json_object_set_new(to, "min_us", json_integer((json_int_t)trips->least));
	json_object_set_new(to, "median_us", json_integer((json_int_t)median(trips)));
	json_object_set_new(to, "max_us", json_integer((json_int_t)trips->most));
}

static double ms(uint64_t us)
{
	return (double)us / 1000;
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

static void show(const struct trace *t, json_t *document)
{
	if (t->call->json) {
		json_dumpf(document, stdout, JSON_COMPACT);
		putchar('\n');
	}
	json_decref(document);
}

static int done(struct trace *t, int status)
{
	admin_close(t->client);
	return fflush(stdout) || ferror(stdout) ? admin_error("standard output was not taken") : status;
}

/* --- traceroute -------------------------------------------------------------------------------------------------------------- */

/* Who answered where no hop of ours did: the first member of Proxy-Status names it. */
static json_t *stranger(const json_t *answer)
{
	json_t *hop = json_object();
	const char *status = text_of(answer, "proxy_status"), *error = strstr(status, "error="), *detail = strstr(status, "details=\"");
	size_t n = strcspn(status, ";, ");
	if (n)
		json_object_set_new(hop, "node", json_stringn(status, n));
	json_object_set(hop, "status", json_object_get(answer, "status"));
	if (error)
		json_object_set_new(hop, "error", json_stringn(error + 6, strcspn(error + 6, ";, ")));
	if (detail)
		json_object_set_new(hop, "detail", json_stringn(detail + 9, strcspn(detail + 9, "\"")));
	return hop;
}

static void print_hop(const json_t *hop, struct trips *trips, unsigned number)
{
	const char *node = text_of(hop, "node"), *cluster = text_of(hop, "cluster"), *error = text_of(hop, "error");
	printf("%2u  %-24s", number, *node ? node : "*");
	if (trips->received)
		printf("  %9.3f ms  %9.3f ms", ms(trips->least), ms(median(trips)));
	else
		printf("  %12s  %12s", "no answer", "");
	if (*cluster)
		printf("  %s over %s: %s", cluster, text_of(hop, "carry"), text_of(hop, "endpoint"));
	if (json_integer_value(json_object_get(hop, "status")))
		printf("  %lld %s %s", (long long)json_integer_value(json_object_get(hop, "status")), error, text_of(hop, "detail"));
	putchar('\n');
	fflush(stdout);
}

/* All probes to one hop. Returns the hop, or NULL with *status. *ours: a node of the overlay spoke for itself. */
static json_t *trace_hop(struct trace *t, unsigned number, struct trips *trips, bool *ours, int *status)
{
	json_t *hop = NULL;
	for (unsigned i = 0; i < t->count; i++) {
		json_t *answer = probe(t, number, status);
		if (!answer) {
			json_decref(hop);
			return NULL;
		}
		count(trips, answer);
		json_t *said = json_object_get(answer, "hop");
		if (json_is_true(json_object_get(answer, "answered"))) {
			json_decref(hop);
			*ours = json_is_object(said);
			hop = *ours ? json_incref(said) : stranger(answer);
		}
		json_decref(answer);
	}
	return hop ? hop : json_object();
}

/* What ends the way: the endpoint that the last hop of ours leads to. */
static void print_end(const json_t *last)
{
	const char *endpoint = text_of(last, "endpoint");
	if (*endpoint)
		printf("    %s  (the way leaves the overlay here, over %s)\n", endpoint, text_of(last, "carry"));
}

static int trace_all(struct trace *t, json_t *hops, json_t **last)
{
	int status = 1;
	for (unsigned number = 0; number <= t->max_hops; number++) {
		struct trips trips = {0};
		bool ours = false;
		json_t *hop = trace_hop(t, number, &trips, &ours, &status);
		if (!hop)
			return status;
		/* what answers and is no node of the overlay is the endpoint itself */
		bool outside = !ours && trips.received && !*text_of(hop, "error") && *last;
		if (!t->call->json && !outside)
			print_hop(hop, &trips, number);
		json_object_set_new(hop, "hop", json_integer(number));
		put_trips(hop, &trips);
		if (!outside)
			json_array_append_new(hops, hop);
		if (ours)
			*last = hop;
		bool refused = ours && json_integer_value(json_object_get(hop, "status")), end = json_is_true(json_object_get(hop, "end"));
		if (outside)
			json_decref(hop);
		if (outside || end || !trips.received || !ours)
			return outside || (end && !refused) ? 0 : 1;
	}
	return admin_error("%s is more than %u hops away", t->target, t->max_hops);
}

/* A prefix is the target of an IP tunnel. */
static void as_packets(struct trace *t)
{
	for (size_t i = 0; i < t->n_words; i += 2)
		if (strcmp(t->words[i], "--method") == 0)
			return;
	if (!strchr(t->target, '/') || strstr(t->target, "://") || t->n_words + 2 > WORDS_MAX - 4)
		return;
	t->words[t->n_words++] = "--method";
	t->words[t->n_words++] = "CONNECT-IP";
}

int admin_traceroute(const struct admin_call *call)
{
	struct trace t = {.count = 3, .max_hops = 16};
	int status = begin(&t, call);
	if (status)
		return status;
	as_packets(&t);
	json_t *hops = json_array(), *last = NULL;
	status = trace_all(&t, hops, &last);
	if (status == 2 || !json_array_size(hops)) {
		json_decref(hops);
		return done(&t, status);
	}
	if (!status && !call->json)
		print_end(last);
	show(&t, json_pack("{s:s, s:b, s:o, s:o?}", "target", t.target, "complete", !status, "hops", hops, "endpoint",
	                   status ? json_null() : json_incref(json_object_get(last, "endpoint"))));
	return done(&t, status);
}

/* --- ping -------------------------------------------------------------------------------------------------------------------- */

static bool is_node(const json_t *hop, const char *name)
{
	const char *node = text_of(hop, "node"), *domain = text_of(hop, "domain");
	size_t n = strlen(node);
	return n && strncasecmp(name, node, n) == 0 && (!name[n] || (name[n] == '.' && strcasecmp(name + n + 1, domain) == 0));
}

/* How many steps away the node is; -1 with *status: it was not found. */
static int find_node(struct trace *t, int *status)
{
	char last[300] = "this node";
	for (unsigned hops = 0; hops <= t->max_hops; hops++) {
		json_t *answer = probe(t, hops, status);
		if (!answer)
			return -1;
		json_t *hop = json_object_get(answer, "hop");
		bool found = is_node(hop, t->target), more = json_is_object(hop) && !json_is_true(json_object_get(hop, "end"));
		if (json_is_object(hop))
			snprintf(last, sizeof(last), "%s", text_of(hop, "node"));
		json_decref(answer);
		if (found)
			return (int)hops;
		if (!more)
			break;
	}
	*status = admin_error("no way to %s: it was followed as far as %s (`hermes-admin traceroute %s` shows more)",
	                      t->target, last, t->target);
	return -1;
}

static int ping(struct trace *t, int hops, struct trips *trips)
{
	int status = 1;
	for (unsigned i = 0; i < t->count; i++) {
		if (i && t->interval > 0)
			usleep((useconds_t)(t->interval * 1e6));
		json_t *answer = probe(t, (unsigned)hops, &status);
		if (!answer)
			return status;
		bool right = is_node(json_object_get(answer, "hop"), t->target);
		if (!right)
			json_object_set_new(answer, "answered", json_false());   /* the way has changed meanwhile */
		count(trips, answer);
		if (!t->call->json && right)
			printf("%s: hop=%d time=%.3f ms\n", t->target, hops,
			       ms((uint64_t)json_integer_value(json_object_get(answer, "round_trip_us"))));
		else if (!t->call->json)
			printf("%s: no answer\n", t->target);
		fflush(stdout);
		json_decref(answer);
	}
	return trips->received ? 0 : 1;
}

int admin_ping(const struct admin_call *call)
{
	struct trace t = {.count = 5, .max_hops = 16, .interval = 0.2};
	struct trips trips = {0};
	int status = begin(&t, call);
	if (status)
		return status;
	int hops = find_node(&t, &status);
	if (hops < 0)
		return done(&t, status);
	status = ping(&t, hops, &trips);
	if (status == 2)
		return done(&t, status);
	double loss = trips.sent ? 100.0 * (trips.sent - trips.received) / trips.sent : 0;
	if (!call->json)
		printf("%u sent, %u received, %.1f %% lost", trips.sent, trips.received, loss);
	if (!call->json && trips.received)
		printf("; min/median/max %.3f/%.3f/%.3f ms", ms(trips.least), ms(median(&trips)), ms(trips.most));
	if (!call->json)
		putchar('\n');
	json_t *document = json_pack("{s:s, s:i, s:f}", "node", t.target, "hop", hops, "loss_percent", loss);
	put_trips(document, &trips);
	show(&t, document);
	return done(&t, status);
}
