/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/rollout.h"
#include "ipc/log.h"
#include "workers/controller/nodes.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOON_MS 50                /* reports of many nodes come together */

struct rollout {
	struct domain *domain;
	struct event *step;
	bool writing, hurried;        /* hurried: the next step is brought forward already */
};

static json_int_t number(const json_t *record, const char *key)
{
	return json_integer_value(json_object_get(record, key));
}

static bool is_state(const json_t *record, const char *state)
{
	const char *now = json_string_value(json_object_get(record, "state"));

	return now && !strcmp(now, state);
}

/* A text that may have been cut within a character. NULL: it is none. */
static json_t *cut_text(const char *text)
{
	json_t *out = NULL;

	for (size_t n = strlen(text), cut = 0; !out && cut < 4 && cut <= n; cut++)
		out = json_stringn(text, n - cut);
	return out;
}

static void set_state(json_t *record, const char *state, const char *reason)
{
	json_t *text = reason ? cut_text(reason) : NULL;

	json_object_set_new(record, "state", json_string(state));
	json_object_set_new(record, "reason", text ? text : json_null());
}

static void set_number(json_t *record, const char *key, json_int_t value)
{
	json_object_set_new(record, key, json_integer(value));
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

static void finish(json_t *record, const char *state, const char *reason)
{
	set_state(record, state, reason);
	set_number(record, "ended", domain_now());
}

static void stop(json_t *record, const struct domain_rollout *rules, const char *reason)
{
	finish(record, "stopped", reason);
	json_object_set_new(record, "back", json_boolean(!rules->stay));
}

static void next_stage(struct domain *d, json_t *record)
{
	json_t *stages = json_object_get(record, "stages");
	size_t stage = (size_t)number(record, "stage") + 1, moved = (size_t)number(record, "moved");

	if (stage >= json_array_size(stages)) {
		finish(record, "done", NULL);
		return;
	}
	size_t to = (size_t)number(json_array_get(stages, stage), "nodes");
	set_number(record, "stage", (json_int_t)stage);
	set_number(record, "moved", (json_int_t)to);
	set_number(record, "since", domain_now());
	set_number(record, "settled", 0);
	rollout_begin_stage(record, moved, to, d->controller->kv, domain_present, d);
}

static bool is_first_of_several(const json_t *record)
{
	return !number(record, "stage") && json_array_size(json_object_get(record, "stages")) > 1;
}

/* Time is up: those that are there and have not answered stop it; those that fell silent only where they are many, or canaries. */
static void on_timeout(json_t *record, const struct domain_rollout *rules, const struct rollout_verdict *v)
{
	char reason[400];

	if (v->waiting || v->not_ready > domain_share_of(rules->health.not_ready, v->moved)) {
		snprintf(reason, sizeof(reason), "node %s %s in time", v->first_waiting, v->waiting ? "has not answered" : "was not ready");
		stop(record, rules, reason);
	} else if (v->silent && (is_first_of_several(record) || v->silent > domain_share_of(rules->health.silent, v->moved))) {
		snprintf(reason, sizeof(reason), "node %s has fallen silent", v->first_silent);
		stop(record, rules, reason);
	} else if (is_first_of_several(record) && v->away == v->moved) {
		stop(record, rules, "all canary nodes are away");
	} else {
		set_number(record, "settled", domain_now());
	}
}

/* What is to be changed in the record; false: nothing. */
static bool advance(struct domain *d, json_t *record, const struct domain_rollout *rules)
{
	struct rollout_verdict v;
	int64_t now = domain_now(), settled = number(record, "settled");
	bool changed = true;

	rollout_assess(record, rules, d->controller->kv, domain_present, d, &v);
	bool ready = v.not_ready <= domain_share_of(rules->health.not_ready, v.moved);
	bool proven = !is_first_of_several(record) || v.away < v.moved;
	if (v.stop)
		stop(record, rules, v.reason);
	else if (is_state(record, "paused") || (domain_is_fresh(d) && (v.silent || v.waiting)))
		changed = false;
	else if (settled && !ready) {
		snprintf(v.reason, sizeof(v.reason), "node %s is not ready", v.first_waiting);
		stop(record, rules, v.reason);
	} else if (settled && (is_first_of_several(record) ? v.silent : v.silent > domain_share_of(rules->health.silent, v.moved))) {
		snprintf(v.reason, sizeof(v.reason), "node %s has fallen silent", v.first_silent);
		stop(record, rules, v.reason);
	} else if (settled && now - settled >= rules->wait)
		next_stage(d, record);
	else if (!settled && !v.waiting && !v.silent && ready && proven)
		set_number(record, "settled", now);
	else if (!settled && now - number(record, "since") >= rules->timeout)
		on_timeout(record, rules, &v);
	else
		changed = false;
	json_decref(v.rejections);
	return changed;
}

static void log_change(const json_t *before, const json_t *after)
{
	const char *state = json_string_value(json_object_get(after, "state")), *reason =
		json_string_value(json_object_get(after, "reason"));

	if (number(before, "stage") == number(after, "stage") && is_state(before, state))
		return;
	log_event(!strcmp(state, "stopped") ? LOG_WARN_ : LOG_INFO_, "rollout", "version=%lld state=%s stage=%lld moved=%lld reason=%s",
	          (long long)number(after, "version"), state, (long long)number(after, "stage"), (long long)number(after, "moved"),
	          log_value(reason ? reason : ""));
}

static void soon(struct rollout *r, int ms)
{
	event_add(r->step, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

static void on_written(void *arg, int error)
{
	struct rollout *r = arg;

	r->writing = false;
	if (error && error != -EAGAIN)
		log_error("rollout not written", "error=%s", log_value(strerror(-error)));
	soon(r, error && error != -EAGAIN ? 1000 : 0);
}

/* Takes over record. */
static void write_record(struct rollout *r, uint64_t revision, json_t *record)
{
	struct kv *kv = r->domain->controller->kv;
	struct kv_txn *txn = kv_txn_new(kv);

	if (!txn) {
		json_decref(record);
		return;
	}
	kv_txn_if(txn, "rollout", revision);
	kv_txn_put(txn, "rollout", record, false);
	r->writing = true;
	kv_commit(txn, on_written, r);
}

static void step(struct rollout *r)
{
	struct kv *kv = r->domain->controller->kv;
	struct kv_value now = kv_get(kv, "rollout");
	struct config_report report = {0};
	struct version *version;

	if (!now.revision || !(is_state(now.json, "running") || is_state(now.json, "paused")))
		return;
	version = versions_open(r->domain->versions, (uint64_t)number(now.json, "version"), &report);
	json_t *record = version ? json_deep_copy(now.json) : NULL;
	if (record && advance(r->domain, record, &version->document->rollout)) {
		log_change(now.json, record);
		write_record(r, now.revision, record);
	} else {
		json_decref(record);
	}
	version_release(version);
	config_report_free(&report);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
	struct rollout *r = arg;
	struct kv *kv = r->domain->controller->kv;
	(void)fd, (void)what;

	if (r->domain->stopped)
		return;
	r->hurried = false;
	soon(r, 1000);
	if (!r->writing && kv_ready(kv) && kv_leads(kv))
		step(r);
}

static void on_node(void *arg, const char *name)
{
	struct rollout *r = arg;
	(void)name;

	if (!r->hurried)
		soon(r, SOON_MS);
	r->hurried = true;
}

/* --- what operators ask for --------------------------------------------------------------------------------------- */

static bool is_open(const json_t *record)
{
	return is_state(record, "running") || is_state(record, "paused");
}

/* 0, -EINVAL, -EPERM. */
static int act(struct domain *d, json_t *record, const char *action)
{
	if (!strcmp(action, "pause") && is_state(record, "running")) {
		set_state(record, "paused", NULL);
	} else if (!strcmp(action, "resume") && (is_state(record, "paused") || is_state(record, "stopped"))) {
		set_state(record, "running", NULL);
		json_object_set_new(record, "back", json_false());
		set_number(record, "since", domain_now());
		set_number(record, "settled", 0);
		set_number(record, "ended", 0);
	} else if (!strcmp(action, "abort") && (is_open(record) || is_state(record, "stopped"))) {
		finish(record, "aborted", NULL);
		json_object_set_new(record, "back", json_true());
	} else if (!strcmp(action, "promote") && is_open(record)) {
		set_state(record, "running", NULL);
		next_stage(d, record);
	} else {
		return !strcmp(action, "pause") || !strcmp(action, "resume") || !strcmp(action, "abort") || !strcmp(action, "promote") ?
		       -EPERM : -EINVAL;
	}
	return 0;
}

void rollout_act(struct domain *d, const char *action, rollout_done *done, void *arg)
{
	struct kv *kv = d->controller->kv;
	struct kv_value now = kv_get(kv, "rollout");
	json_t *record = now.revision ? json_deep_copy(now.json) : json_object();
	struct kv_txn *txn = NULL;
	int error = act(d, record, action);

	if (!error && !(txn = kv_txn_new(kv)))
		error = -ENOMEM;
	if (error) {
		json_decref(record);
		done(arg, error);
		return;
	}
	log_change(now.json, record);
	kv_txn_if(txn, "rollout", now.revision);
	kv_txn_put(txn, "rollout", record, false);
	kv_commit(txn, done, arg);
}

/* Times as seconds. */
json_t *rollout_json(struct domain *d)
{
	static const char *const times[] = {"started", "since", "settled", "ended"};
	struct kv_value now = kv_get(d->controller->kv, "rollout");
	struct config_report report = {0};
	struct rollout_verdict v;
	struct version *version;
	json_t *out = now.revision ? json_copy(now.json) : NULL;

	if (!out)
		return NULL;
	json_object_del(out, "before");
	json_object_del(out, "baseline");
	for (size_t i = 0; i < sizeof(times) / sizeof(*times); i++)
		json_object_set_new(out, times[i], number(out, times[i]) ? json_real((double)number(out, times[i]) / 1000) : json_null());
	version = versions_open(d->versions, (uint64_t)number(now.json, "version"), &report);
	if (version) {
		rollout_assess(now.json, &version->document->rollout, d->controller->kv, domain_present, d, &v);
		json_object_set_new(out, "progress", json_pack(
			"{s:I, s:I, s:I, s:I, s:I, s:o}", "accepted", (json_int_t)v.accepted, "waiting", (json_int_t)v.waiting,
			"away", (json_int_t)v.away, "silent", (json_int_t)v.silent, "not_ready", (json_int_t)v.not_ready,
			"rejected", v.rejections));
	}
	version_release(version);
	config_report_free(&report);
	return out;
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct rollout *rollout_new(struct domain *domain)
{
	struct rollout *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->domain = domain;
	r->step = evtimer_new(worker_base(domain->controller->worker), on_step, r);
	if (!r->step) {
		free(r);
		return NULL;
	}
	nodes_watch(domain->controller->nodes, on_node, r);
	soon(r, 0);
	return r;
}

void rollout_free(struct rollout *r)
{
	if (!r)
		return;
	event_free(r->step);
	free(r);
}
