/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>

#include "supervisor/report.h"
#include "ipc/json.h"
#include "supervisor/clock.h"
#include "supervisor/inquire.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_LIMIT_MS 1000

enum part { PART_CLUSTERS, PART_PROBES, PART_STATS, PARTS };
static const struct { enum ipc_role role; const char *verb, *word; } questions[PARTS] = {
	[PART_CLUSTERS] = {IPC_ROUTER, "clusters list", NULL},
	[PART_PROBES] = {IPC_TUNNEL, "probes list", NULL},
	[PART_STATS] = {IPC_TELEMETRY, "stats", "hermes_listener_"},
};

struct answer {
	struct report *report;
	json_t *list;              /* what the worker said; NULL: nothing */
};

struct report {
	struct supervisor *supervisor;
	struct answer answers[PARTS];
	unsigned waiting;
	report_done *done;
	void *arg;
};

void report_free(struct report *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < PARTS; i++) {
		inquire_forget(r->supervisor->inquiries, &r->answers[i]);
		json_decref(r->answers[i].list);
	}
	free(r);
}

/* --- what it says --------------------------------------------------------------------------------------------------- */

/* CPU time of all workers that are there, s. */
static double cpu_seconds(struct pool *pool)
{
	double sum = 0;
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(pool), link) {
		struct timespec t;
		clockid_t clock;
		if (slot->child && !clock_getcpuclockid(slot->child->pid, &clock) && !clock_gettime(clock, &t))
			sum += (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	}
	return sum;
}

static void put_workers(struct supervisor *s, struct json *j)
{
	uint64_t rss = 0;
	struct slot *slot;
	json_begin_array(j, "workers");
	TAILQ_FOREACH(slot, pool_slots(s->pool), link) {
		const struct child *c = slot->child;
		if (slot->gone)
			continue;
		json_begin_object(j, NULL);
		json_str(j, "name", slot->name);
		json_str(j, "state", c ? child_state_name(c->state) : "waiting");
		json_uint(j, "restarts", slot->falls);      /* planned ones say nothing of its health */
		json_uint(j, "rss_bytes", c ? c->rss : 0);
		json_end(j);
		rss += c ? c->rss : 0;
	}
	json_end(j);
	json_begin_object(j, "load");
	json_double(j, "cpu_seconds", cpu_seconds(s->pool));
	json_uint(j, "rss_bytes", rss);
	json_end(j);
}

static const char *state_of(json_t *endpoint)
{
	const char *health = json_string_value(json_object_get(endpoint, "health"));
	return json_is_true(json_object_get(endpoint, "drained")) ? "drained" : health ? health : "unknown";
}

/* router lists endpoints, those of a cluster together; a cluster without any stands there once, without. */
static void put_clusters(json_t *list, struct json *j)
{
	const char *open = NULL;
	json_t *one;
	size_t i;
	json_begin_array(j, "clusters");
	json_array_foreach(list, i, one) {
		const char *name = json_string_value(json_object_get(one, "cluster"));
		const char *address = json_string_value(json_object_get(one, "endpoint"));
		if (!name)
			continue;
		if (!open || strcmp(open, name)) {
			if (open) {
				json_end(j);
				json_end(j);
			}
			json_begin_object(j, NULL);
			json_str(j, "name", open = name);
			json_begin_array(j, "endpoints");
		}
		if (!address)
			continue;
		json_begin_object(j, NULL);
		json_str(j, "address", address);
		json_str(j, "state", state_of(one));
		json_end(j);
	}
	if (open) {
		json_end(j);
		json_end(j);
	}
	json_end(j);
}

static uint64_t sum_of(json_t *stats, const char *metric)
{
	uint64_t sum = 0;
	json_t *one;
	size_t i;
	json_array_foreach(stats, i, one) {
		const char *name = json_string_value(json_object_get(one, "metric"));
		if (name && strcmp(name, metric) == 0)
			sum += (uint64_t)json_integer_value(json_object_get(one, "value"));
	}
	return sum;
}

static void put_traffic(json_t *stats, struct json *j)
{
	json_begin_object(j, "traffic");
	json_uint(j, "flows", sum_of(stats, "hermes_listener_flows_total"));
	json_uint(j, "bytes_in", sum_of(stats, "hermes_listener_received_bytes_total"));
	json_uint(j, "bytes_out", sum_of(stats, "hermes_listener_sent_bytes_total"));
	json_end(j);
}

static void conclude(struct report *r)
{
	struct supervisor *s = r->supervisor;
	struct json j = JSON_INIT;
	json_t *list = r->answers[PART_PROBES].list;
	char *probes = list ? json_dumps(list, JSON_COMPACT) : NULL;
	json_begin_object(&j, NULL);
	json_uint(&j, "generation", s->in_force.number);
	json_str(&j, "hermes", HERMES_VERSION);
	json_double(&j, "uptime_seconds", (double)(clock_ms() - s->started_ms) / 1000.0);
	json_bool(&j, "ready", supervisor_ready(s));
	put_workers(s, &j);
	json_raw(&j, "probes", probes ? probes : "[]");
	put_clusters(r->answers[PART_CLUSTERS].list, &j);
	put_traffic(r->answers[PART_STATS].list, &j);
	json_end(&j);
	free(probes);
	r->done(r->arg, j.failed ? NULL : j.data);
	json_free(&j);
}

/* --- asking --------------------------------------------------------------------------------------------------------- */

/* Workers give a list without its brackets, telemetry one with them. */
static void on_answer(void *arg, const char *json, const char *error)
{
	struct answer *a = arg;
	char *text = NULL;
	(void)error;               /* that part is missing: better than no report */
	if (json && asprintf(&text, *json == '[' ? "%s" : "[%s]", json) >= 0)
		a->list = json_loads(text, 0, NULL);
	free(text);
	if (!--a->report->waiting)
		conclude(a->report);
}

struct report *report_new(struct supervisor *s, report_done *done, void *arg)
{
	struct report *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	*r = (struct report){.supervisor = s, .done = done, .arg = arg};
	for (unsigned i = 0; i < PARTS; i++) {
		struct child *child = pool_find(s->pool, questions[i].role, 0);
		r->answers[i].report = r;
		if (!inquire(s->inquiries, child, questions[i].verb, questions[i].word, ANSWER_LIMIT_MS, on_answer, &r->answers[i]))
			r->waiting++;
	}
	if (r->waiting)
		return r;
	report_free(r);
	return NULL;
}
