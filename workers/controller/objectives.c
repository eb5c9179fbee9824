/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/objectives.h"
#include "ipc/log.h"
#include "workers/controller/compose.h"
#include "workers/controller/nodes.h"
#include "workers/controller/rollout_plan.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAYS_MAX DOCUMENT_WAYS_MAX
#define HISTORY_MAX 20
#define STEP_MS 500

struct memory { char name[64]; struct objective_memory memory; bool writing; uint64_t round; };

struct objectives {
	struct domain *domain;
	struct event *tick;
	struct memory **memories;         /* of objectives by name */
	size_t n;
	uint64_t round;
};

/* --- what is measured --------------------------------------------------------------------------------------------- */

static json_t *value_of(struct kv *kv, const char *prefix, const char *name, uint64_t *revision)
{
	char key[96];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	struct kv_value value = kv_get(kv, key);
	if (revision)
		*revision = value.revision;
	return value.revision ? value.json : NULL;
}

static const json_t *probe_named(const json_t *report, const char *name)
{
	json_t *probes = json_object_get(report, "probes"), *probe;
	size_t i;

	json_array_foreach(probes, i, probe) {
		const char *own = json_string_value(json_object_get(probe, "name"));
		if (own && !strcmp(own, name))
			return probe;
	}
	return NULL;
}

static uint32_t clamp(double value)
{
	return value < 0 ? 0 : value > 4e9 ? 4000000000u : (uint32_t)value;
}

/* The worst of the nodes counts. */
static void add_probe(struct way_measure *m, const json_t *probe)
{
	double sent = json_number_value(json_object_get(probe, "sent")), lost = json_number_value(json_object_get(probe, "lost"));
	uint32_t rtt = clamp(json_number_value(json_object_get(probe, "rtt_us"))), loss;

	if (!(sent > 0))
		return;
	loss = clamp(lost >= sent ? 10000 : 10000 * lost / sent);
	m->rtt_us = m->known && m->rtt_us > rtt ? m->rtt_us : rtt;
	m->loss = m->known && m->loss > loss ? m->loss : loss;
	m->known = true;
}

struct measuring { struct domain *d; const struct document *document; const struct domain_objective *o; struct way_measure *m; };

static bool add_report(void *arg, const struct kv_value *value)
{
	struct measuring *m = arg;
	const char *node = value->key + strlen("state/");
	char name[64];

	if (!compose_measures(m->document, m->o, node) || !domain_present(m->d, node))
		return true;
	for (size_t i = 0; i < m->o->n_ways && i < WAYS_MAX; i++) {
		compose_probe_name(m->o, &m->o->ways[i], name);
		add_probe(&m->m[i], probe_named(value->json, name));
	}
	return true;
}

static void look_at_node(struct measuring *m, const char *node)
{
	char key[80];

	snprintf(key, sizeof(key), "state/%s", node);
	struct kv_value value = kv_get(m->d->controller->kv, key);
	if (value.revision)
		add_report(m, &value);
}

/* Named nodes are looked up; with groups all reports are gone through. */
static void measure(struct domain *d, const struct document *document, const struct domain_objective *o, struct way_measure *out)
{
	const struct domain_user *u = &document->users[document_user(document, o->user)];
	const struct config_strs *names = o->nodes.n ? &o->nodes : &u->nodes;
	struct measuring m = {d, document, o, out};

	memset(out, 0, WAYS_MAX * sizeof(*out));
	if (!o->nodes.n && u->groups.n) {
		kv_each(d->controller->kv, "state/", add_report, &m);
		return;
	}
	for (size_t i = 0; i < names->n; i++)
		look_at_node(&m, names->v[i]);
}

static size_t present_way(const struct domain_objective *o, const json_t *steer)
{
	const char *choice = json_string_value(json_object_get(steer, "choice"));

	for (size_t i = 0; choice && i < o->n_ways; i++)
		if (!strcmp(o->ways[i].cluster, choice))
			return i;
	return 0;
}

static json_t *ways_json(const struct domain_objective *o, const struct way_measure *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < o->n_ways && i < WAYS_MAX; i++)
		json_array_append_new(list, json_pack(
			"{s:s, s:b, s:o, s:o, s:o}", "cluster", o->ways[i].cluster, "known", m[i].known,
			"rtt_us", m[i].known && m[i].loss < 10000 ? json_integer(m[i].rtt_us) : json_null(),
			"loss_percent", m[i].known ? json_real(m[i].loss / 100.0) : json_null(),
			"met", m[i].known ? json_boolean(objective_met(o, &m[i])) : json_null()));
	return list;
}

/* --- steering ----------------------------------------------------------------------------------------------------- */

static struct memory *memory_of(struct objectives *os, const char *name)
{
	struct memory **grown, *m;

	for (size_t i = 0; i < os->n; i++)
		if (!strcmp(os->memories[i]->name, name))
			return os->memories[i];
	m = calloc(1, sizeof(*m));
	grown = m ? realloc(os->memories, (os->n + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		free(m);
		return NULL;
	}
	os->memories = grown;
	snprintf(m->name, sizeof(m->name), "%s", name);
	return grown[os->n++] = m;
}

/* Those of objectives that are no more. */
static void forget(struct objectives *os)
{
	for (size_t i = 0; i < os->n;) {
		if (os->memories[i]->round == os->round || os->memories[i]->writing) {
			i++;
			continue;
		}
		free(os->memories[i]);
		os->memories[i] = os->memories[--os->n];
	}
}

static void on_steered(void *arg, int error)
{
	struct memory *m = arg;

	m->writing = false;
	if (!error)
		m->memory.violated_since = 0;
	else if (error != -EAGAIN)
		log_error("objective not steered", "name=%s error=%s", m->name, log_value(strerror(-error)));
}

static json_t *appended(const json_t *list, json_t *value)
{
	json_t *out = json_is_array(list) ? json_copy((json_t *)list) : json_array();

	json_array_append_new(out, value);
	while (json_array_size(out) > HISTORY_MAX)
		json_array_remove(out, 0);
	return out;
}

static void steer(struct objectives *os, struct memory *memory, const struct domain_objective *o, const struct way_measure *m,
                  size_t present, const struct objective_choice *choice)
{
	struct kv *kv = os->domain->controller->kv;
	struct kv_txn *txn = kv_txn_new(kv);
	int64_t now = domain_now();
	uint64_t revision;
	char key[96];
	json_t *before = value_of(kv, "steer/", o->name, &revision);

	if (!txn)
		return;
	snprintf(key, sizeof(key), "steer/%s", o->name);
	json_t *event = json_pack("{s:I, s:s, s:s, s:s, s:o}", "time", (json_int_t)(now / 1000), "from",
	                          o->ways[present].cluster, "to", o->ways[choice->way].cluster, "reason", choice->reason, "ways",
	                          ways_json(o, m));
	kv_txn_if(txn, key, revision);
	kv_txn_put(txn, key, json_pack("{s:s, s:I, s:s, s:s, s:o, s:o}", "choice", o->ways[choice->way].cluster,
	                               "since", (json_int_t)(now / 1000), "reason", choice->reason, "from", o->ways[present].cluster,
	                               "moves", appended(json_object_get(before, "moves"), json_integer((json_int_t)now)),
	                               "history", appended(json_object_get(before, "history"), event)), false);
	log_info("objective steered", "name=%s user=%s to=%s reason=%s", o->name, log_value(o->user), o->ways[choice->way].cluster,
	         log_value(choice->reason));
	memory->writing = true;
	kv_commit(txn, on_steered, memory);
}

/* The document that most nodes run; NULL: none yet. To be released. */
static struct version *version_in_force(struct domain *d)
{
	struct kv_value record = kv_get(d->controller->kv, "rollout");
	struct config_report report = {0};
	const char *key = json_is_true(json_object_get(record.json, "back")) ? "from" : "version";
	uint64_t number = record.revision ? (uint64_t)json_integer_value(json_object_get(record.json, key)) : 0;
	struct version *v = number ? versions_open(d->versions, number, &report) : NULL;

	config_report_free(&report);
	return v;
}

static void decide(struct objectives *os, const struct document *document, const struct domain_objective *o)
{
	struct memory *memory = memory_of(os, o->name);
	struct way_measure m[WAYS_MAX];
	json_t *steered = value_of(os->domain->controller->kv, "steer/", o->name, NULL);
	size_t present = present_way(o, steered);

	if (!memory || memory->writing)
		return;
	memory->round = os->round;
	measure(os->domain, document, o, m);
	struct objective_choice c = objective_decide(o, m, present, json_object_get(steered, "moves"), &memory->memory, domain_now());
	if (c.changed)
		steer(os, memory, o, m, present, &c);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct objectives *os = arg;
	struct kv *kv = os->domain->controller->kv;
	bool acts = !os->domain->stopped && kv_ready(kv) && kv_leads(kv);
	struct version *v = acts ? version_in_force(os->domain) : NULL;
	(void)fd, (void)what;

	os->round++;
	for (size_t i = 0; v && i < v->document->n_objectives; i++)
		decide(os, v->document, &v->document->objectives[i]);
	forget(os);
	version_release(v);
}

/* At once, and apart from rollouts: to the nodes where the user enters. */
static void on_steer(void *arg, const struct kv_value *value)
{
	struct objectives *os = arg;
	const char *name = value->key + strlen("steer/");
	struct version *v = version_in_force(os->domain);
	char reason[160];

	snprintf(reason, sizeof(reason), "objective %s", name);
	for (size_t i = 0; v && i < v->document->n_objectives; i++) {
		const struct document *d = v->document;
		if (strcmp(d->objectives[i].name, name))
			continue;
		const struct domain_user *u = &d->users[document_user(d, d->objectives[i].user)];
		for (size_t n = 0; n < d->n_nodes; n++)
			if (compose_enters(d, u, d->nodes[n].name))
				publish_node(os->domain->publish, d->nodes[n].name, reason);
	}
	version_release(v);
}

/* --- what is shown ------------------------------------------------------------------------------------------------ */

static const char *state_name(const struct domain_objective *o, const struct way_measure *m)
{
	return !m->known ? "unknown" : objective_met(o, m) ? "met" : "violated";
}

static json_t *one_json(struct domain *d, const struct document *document, const struct domain_objective *o, bool all)
{
	struct way_measure m[WAYS_MAX];
	json_t *steered = value_of(d->controller->kv, "steer/", o->name, NULL), *out, *services = json_array();
	size_t present = present_way(o, steered);

	measure(d, document, o, m);
	for (size_t i = 0; i < o->services.n; i++)
		json_array_append_new(services, json_string(o->services.v[i]));
	out = json_pack("{s:s, s:s, s:o, s:s, s:s, s:O?, s:O?, s:O?}", "name", o->name, "user", o->user, "service", services,
	                "state", state_name(o, &m[present]), "choice", o->ways[present].cluster,
	                "since", json_object_get(steered, "since"), "reason", json_object_get(steered, "reason"),
	                "from", json_object_get(steered, "from"));
	json_object_set_new(out, "limit_ms", o->limit ? json_integer(o->limit) : json_null());
	json_object_set_new(out, "loss_percent", o->loss.n ? json_real(o->loss.n / 100.0) : json_null());
	json_object_set_new(out, "hold_ms", json_integer(objective_hold(o, json_object_get(steered, "moves"), domain_now())));
	json_object_set_new(out, "ways", ways_json(o, m));
	if (all)
		json_object_set_new(out, "history", json_incref(json_object_get(steered, "history")) ? : json_array());
	return out;
}

json_t *objectives_json(struct domain *d, const char *name)
{
	struct version *v = version_in_force(d);
	json_t *list = name ? NULL : json_array(), *one = NULL;

	for (size_t i = 0; v && i < v->document->n_objectives; i++) {
		const struct domain_objective *o = &v->document->objectives[i];
		if (!name)
			json_array_append_new(list, one_json(d, v->document, o, false));
		else if (!strcmp(o->name, name))
			one = one_json(d, v->document, o, true);
	}
	version_release(v);
	return name ? one : json_pack("{s:o}", "objectives", list);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct objectives *objectives_new(struct domain *domain)
{
	struct objectives *os = calloc(1, sizeof(*os));

	if (!os)
		return NULL;
	os->domain = domain;
	os->tick = event_new(worker_base(domain->controller->worker), -1, EV_PERSIST, on_tick, os);
	if (!os->tick) {
		free(os);
		return NULL;
	}
	kv_watch(domain->controller->kv, "steer/", on_steer, os);
	event_add(os->tick, &(struct timeval){.tv_usec = STEP_MS * 1000});
	return os;
}

void objectives_free(struct objectives *os)
{
	if (!os)
		return;
	event_free(os->tick);
	for (size_t i = 0; i < os->n; i++)
		free(os->memories[i]);
	free(os->memories);
	free(os);
}
