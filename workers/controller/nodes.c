/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/nodes.h"
#include "workers/controller/nodes_report.h"
#include "ipc/log.h"

#include <ctype.h>
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>

#define REPORT_MS 5000
#define WRITE_MS 1000                 /* between reports of one node that are kept though they say nothing new */
#define AWAY_MIN_MS 3000
#define WATCHERS_MAX 16
#define KEY_MAX (NODES_NAME_MAX + 16)

const char *const node_status_names[NODE_STATUS_COUNT] = {
	[NODE_EXPECTED] = "expected", [NODE_UNKNOWN] = "unknown", [NODE_ONLINE] = "online", [NODE_AWAY] = "away",
	[NODE_REVOKED] = "revoked",
};
const double nodes_bucket_limits[NODES_BUCKETS] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

struct node {
	char name[NODES_NAME_MAX + 1];
	bool entered, revoked, wanted;        /* there is node/NAME; it says so; there is want/NAME */
	json_t *report;                       /* the last there was, also when kv has let it go; NULL: none */
	int64_t seen, since;                  /* Unix ms: last word; since when its status is what it is */
	enum node_status status;
	uint64_t written;                     /* its last report, CLOCK_MONOTONIC ms */
	uint64_t want_number, want_at;        /* what it is to run, and since when (monotonic ms); 0: it said that it does */
	bool entering;                        /* node/NAME is being written */
	UT_hash_handle hh;
};

struct nodes {
	struct controller *controller;
	struct event_base *base;
	struct node *table;
	struct event *tick;
	struct { void (*changed)(void *arg, const char *name); void *arg; } watchers[WATCHERS_MAX];
	size_t n_watchers;
	uint64_t reports, reports_kept;
	struct nodes_latency latency;
};

static int64_t wall(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static uint64_t monotonic(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

bool nodes_name_ok(const char *name)
{
	size_t length = strlen(name);
	if (!length || length > NODES_NAME_MAX || !isalnum((unsigned char)*name))
		return false;
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
			return false;
	return true;
}

uint32_t nodes_report_ms(const struct nodes *n)
{
	const struct config *config = n->controller->config;
	return config && config->control.report ? config->control.report : REPORT_MS;
}

/* --- the table ------------------------------------------------------------------------------------------------------ */

static struct node *find(struct nodes *n, const char *name)
{
	struct node *node;
	HASH_FIND_STR(n->table, name, node);
	return node;
}

static struct node *find_or_make(struct nodes *n, const char *name)
{
	struct node *node = nodes_name_ok(name) ? find(n, name) : NULL;
	if (node || !nodes_name_ok(name) || !(node = calloc(1, sizeof(*node))))
		return node;
	strcpy(node->name, name);
	node->since = wall();
	HASH_ADD_STR(n->table, name, node);
	return node;
}

/* ms. Who reports very often is not away at once: reports of others' nodes come by way of the store. */
static int64_t away_after(const struct nodes *n)
{
	int64_t after = (int64_t)NODES_AWAY * nodes_report_ms(n);
	return after > AWAY_MIN_MS ? after : AWAY_MIN_MS;
}

static enum node_status status_of(const struct nodes *n, const struct node *node, int64_t now)
{
	if (node->revoked)
		return NODE_REVOKED;
	if (node->seen)
		return now - node->seen > away_after(n) ? NODE_AWAY : NODE_ONLINE;
	return node->entered ? NODE_UNKNOWN : NODE_EXPECTED;
}

static void tell(struct nodes *n, const char *name)
{
	for (size_t i = 0; i < n->n_watchers; i++)
		n->watchers[i].changed(n->watchers[i].arg, name);
}

/* Whether it changed. */
static bool update_status(struct nodes *n, struct node *node)
{
	enum node_status status = status_of(n, node, wall());
	if (status == node->status)
		return false;
	bool matters = status == NODE_AWAY || node->status == NODE_AWAY || status == NODE_REVOKED;
	log_event(matters ? LOG_INFO_ : LOG_DEBUG_, "node", "name=%s state=%s before=%s", log_value(node->name),
	          node_status_names[status], node_status_names[node->status]);
	node->status = status;
	node->since = wall();
	return true;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct nodes *n = arg;
	struct node *node, *next;
	(void)fd, (void)what;
	HASH_ITER(hh, n->table, node, next)
		if (update_status(n, node))
			tell(n, node->name);
}

void nodes_watch(struct nodes *n, void (*changed)(void *arg, const char *name), void *arg)
{
	if (n->n_watchers == WATCHERS_MAX)
		abort();
	n->watchers[n->n_watchers].changed = changed;
	n->watchers[n->n_watchers++].arg = arg;
}

/* --- what kv says ---------------------------------------------------------------------------------------------------- */

static struct node *node_of(struct nodes *n, const struct kv_value *value)
{
	const char *name = strchr(value->key, '/') + 1;
	return value->revision ? find_or_make(n, name) : find(n, name);
}

static void on_record(void *arg, const struct kv_value *value)
{
	struct nodes *n = arg;
	struct node *node = node_of(n, value);
	if (!node)
		return;
	node->entered = value->revision != 0;
	node->revoked = value->revision && json_is_true(json_object_get(value->json, "revoked"));
	if (node->revoked)
		node->seen = 0;
	update_status(n, node);
	tell(n, node->name);
}

static uint64_t number_of(const json_t *json, const char *name)
{
	json_int_t number = json_integer_value(json_object_get(json, name));
	return number > 0 ? (uint64_t)number : 0;
}

static void measure(struct nodes *n, struct node *node)
{
	if (!node->want_at || number_of(node->report, "number") < node->want_number)
		return;
	double seconds = (double)(monotonic() - node->want_at) / 1000;
	size_t i = 0;
	while (i < NODES_BUCKETS && seconds > nodes_bucket_limits[i])
		i++;
	n->latency.counts[i]++;
	n->latency.n++;
	n->latency.seconds += seconds;
	node->want_at = 0;
}

/* A report, ours or another controller's. Those that kv lets go are kept here, to show what the node was like. */
static void on_state(void *arg, const struct kv_value *value)
{
	struct nodes *n = arg;
	struct node *node = node_of(n, value);
	if (!node || !value->revision)
		return;
	int64_t seen = (int64_t)number_of(value->json, "seen");
	json_decref(node->report);
	node->report = json_incref(value->json);
	node->seen = seen > node->seen && !node->revoked ? seen : node->seen;
	measure(n, node);
	update_status(n, node);
	tell(n, node->name);
}

static void on_want(void *arg, const struct kv_value *value)
{
	struct nodes *n = arg;
	struct node *node = node_of(n, value);
	uint64_t number = value->revision ? number_of(value->json, "number") : 0;
	if (!node)
		return;
	node->wanted = value->revision != 0;
	if (number > node->want_number) {
		node->want_number = number;
		node->want_at = monotonic();
	}
	tell(n, node->name);
}

static bool load_record(void *arg, const struct kv_value *value)
{
	on_record(arg, value);
	return true;
}

static bool load_state(void *arg, const struct kv_value *value)
{
	on_state(arg, value);
	return true;
}

/* How long it took to what was wanted before we came cannot be said. */
static bool load_want(void *arg, const struct kv_value *value)
{
	struct node *node = node_of(arg, value);
	on_want(arg, value);
	if (node)
		node->want_at = 0;
	return true;
}

/* --- entering -------------------------------------------------------------------------------------------------------- */

struct entering { struct nodes *nodes; char name[NODES_NAME_MAX + 1]; };

static void on_entered(void *arg, int error)
{
	struct entering *e = arg;
	struct node *node = find(e->nodes, e->name);
	if (node)
		node->entering = false;
	if (error && error != -EAGAIN)
		log_warn("node not entered", "name=%s error=%s", log_value(e->name), log_value(strerror(-error)));
	free(e);
}

/* Nodes whose certificate is the domain's, and of whom the store knows nothing: the controller's own, and all where it was lost. */
static void enter(struct nodes *n, struct node *node, bool controller)
{
	struct entering *e = node->entering ? NULL : calloc(1, sizeof(*e));
	char key[KEY_MAX];
	if (!e)
		return;
	*e = (struct entering){.nodes = n};
	strcpy(e->name, node->name);
	node->entering = true;
	snprintf(key, sizeof(key), "node/%s", node->name);
	struct kv_txn *txn = kv_txn_new(n->controller->kv);
	kv_txn_if(txn, key, 0);
	kv_txn_put(txn, key, json_pack("{s:s, s:n, s:I, s:b, s:b}", "name", node->name, "serial", "enrolled",
	                               (json_int_t)(wall() / 1000), "controller", controller, "revoked", false), false);
	kv_commit(txn, on_entered, e);
}

void nodes_heard(struct nodes *n, const char *name)
{
	struct node *node = find_or_make(n, name);
	if (!node || node->revoked)
		return;
	node->seen = wall();
	if (!node->entered)
		enter(n, node, false);
	if (update_status(n, node))
		tell(n, node->name);
}

/* --- reports ---------------------------------------------------------------------------------------------------------- */

/* What a node of many next hops says of each is left out before its word counts for nothing: it would be away. */
static bool fit(json_t *report)
{
	static const char *const details[] = {"clusters", "probes", "workers"};
	for (size_t i = 0; json_dumpb(report, NULL, 0, JSON_COMPACT) > NODES_REPORT_MAX; i++) {
		if (i == sizeof(details) / sizeof(*details))
			return false;
		if (json_object_get(report, details[i]))
			json_object_set_new(report, details[i], json_array());
	}
	return true;
}

static const char *keep_report(struct nodes *n, struct node *node, const json_t *report)
{
	const struct config *config = n->controller->config;
	char key[KEY_MAX];
	json_t *copy = json_copy((json_t *)(uintptr_t)report);
	if (!fit(copy)) {
		json_decref(copy);
		return "the report is too large";
	}
	json_object_set_new(copy, "seen", json_integer((json_int_t)node->seen));
	json_object_set_new(copy, "by", config && config->node_name ? json_string(config->node_name) : json_null());
	snprintf(key, sizeof(key), "state/%s", node->name);
	struct kv_txn *txn = kv_txn_new(n->controller->kv);
	kv_txn_put(txn, key, copy, true);
	kv_commit(txn, NULL, NULL);
	node->written = monotonic();
	n->reports_kept++;
	return NULL;
}

const char *nodes_report(struct nodes *n, const char *name, json_t *report)
{
	const char *error = nodes_report_fault(report);
	struct node *node = error ? NULL : find_or_make(n, name);
	if (error || !node)
		return error ? error : "no node of ours can be called that";
	n->reports++;
	nodes_heard(n, name);
	if (node->report && nodes_report_same(node->report, report) && monotonic() - node->written < WRITE_MS)
		return NULL;
	return keep_report(n, node, report);
}

/* --- what is shown ---------------------------------------------------------------------------------------------------- */

enum node_status nodes_status(struct nodes *n, const char *name)
{
	struct node *node = find(n, name);
	return node ? status_of(n, node, wall()) : NODE_EXPECTED;
}

static void copy_fields(json_t *to, const json_t *from, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		json_t *value = json_object_get(from, names[i]);
		json_object_set_new(to, names[i], value ? json_deep_copy(value) : json_null());
	}
}

static json_t *record(struct nodes *n, const char *prefix, const char *name)
{
	char key[KEY_MAX + 16];
	snprintf(key, sizeof(key), "%s%s", prefix, name);
	struct kv_value value = kv_get(n->controller->kv, key);
	return value.revision ? value.json : NULL;
}

static json_t *seconds(int64_t ms)
{
	return ms ? json_integer((json_int_t)(ms / 1000)) : json_null();
}

json_t *nodes_json(struct nodes *n, const char *name, bool all)
{
	static const char *const runs[] = {"number", "version", "digest", "state", "generation"};
	static const char *const wants[] = {"number", "version", "digest", "time", "reason", "author"};
	static const char *const short_report[] = {"ready", "hermes", "uptime_seconds", "refused"};
	static const char *const long_report[] = {"workers", "probes", "clusters", "traffic", "load", "by"};
	static const char *const certificate[] = {"serial", "enrolled", "certified", "controller"};
	struct node *node = find(n, name);
	if (!node)
		return NULL;
	update_status(n, node);
	json_t *out = json_pack("{s:s, s:s, s:o, s:o}", "name", node->name, "state", node_status_names[node->status], "since",
	                        seconds(node->since), "seen", seconds(node->seen));
	json_t *run = node->report ? json_object() : json_null(), *want = record(n, "want/", name), *wanted = want ? json_object() : json_null();
	copy_fields(run, node->report, runs, sizeof(runs) / sizeof(*runs));
	copy_fields(wanted, want, wants, sizeof(wants) / sizeof(*wants));
	json_object_set_new(out, "runs", run);
	json_object_set_new(out, "wants", wanted);
	copy_fields(out, node->report, short_report, sizeof(short_report) / sizeof(*short_report));
	copy_fields(out, record(n, "node/", name), certificate, sizeof(certificate) / sizeof(*certificate));
	json_t *override = record(n, "override/", name);
	json_object_set_new(out, "override", override ? json_deep_copy(override) : json_null());
	if (all)
		copy_fields(out, node->report, long_report, sizeof(long_report) / sizeof(*long_report));
	return out;
}

static int by_name(const struct node *a, const struct node *b)
{
	return strcmp(a->name, b->name);
}

json_t *nodes_list(struct nodes *n)
{
	json_t *list = json_array();
	struct node *node, *next;
	HASH_SORT(n->table, by_name);
	HASH_ITER(hh, n->table, node, next)
		if (node->entered || node->wanted || node->seen)
			json_array_append_new(list, nodes_json(n, node->name, false));
	return list;
}

static bool says(const struct node *node, const char *state)
{
	const char *said = json_string_value(json_object_get(node->report, "state"));
	return said && !strcmp(said, state);
}

void nodes_count(struct nodes *n, struct nodes_counts *out)
{
	struct node *node, *next;
	*out = (struct nodes_counts){.reports = n->reports, .reports_kept = n->reports_kept, .latency = n->latency};
	HASH_ITER(hh, n->table, node, next) {
		if (node->entered || node->wanted || node->seen)
			out->status[status_of(n, node, wall())]++;
		out->rejected += says(node, "rejected");
		out->rolled_back += says(node, "rolled back");
	}
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

struct nodes *nodes_new(struct controller *controller, struct event_base *base)
{
	struct nodes *n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->controller = controller;
	n->base = base;
	n->tick = event_new(base, -1, EV_PERSIST, on_tick, n);
	if (n->tick)
		return n;
	free(n);
	return NULL;
}

void nodes_start(struct nodes *n)
{
	const struct config *config = n->controller->config;
	struct kv *kv = n->controller->kv;
	kv_watch(kv, "node/", on_record, n);
	kv_watch(kv, "state/", on_state, n);
	kv_watch(kv, "want/", on_want, n);
	kv_each(kv, "node/", load_record, n);
	kv_each(kv, "want/", load_want, n);
	kv_each(kv, "state/", load_state, n);
	evtimer_add(n->tick, &(struct timeval){.tv_sec = 1});
	struct node *own = config && config->node_name ? find_or_make(n, config->node_name) : NULL;
	if (own && !own->entered)
		enter(n, own, true);
}

void nodes_free(struct nodes *n)
{
	struct node *node, *next;
	if (!n)
		return;
	HASH_ITER(hh, n->table, node, next) {
		HASH_DEL(n->table, node);
		json_decref(node->report);
		free(node);
	}
	event_free(n->tick);
	free(n);
}
