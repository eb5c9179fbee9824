/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/rollout.h"

#include <stdio.h>
#include <string.h>

static json_t *value_of(struct kv *kv, const char *prefix, const char *node)
{
	char key[80];

	snprintf(key, sizeof(key), "%s%s", prefix, node);
	struct kv_value value = kv_get(kv, key);
	return value.revision ? value.json : NULL;
}

static json_int_t number(const json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

static bool is_text(const json_t *json, const char *key, const char *text)
{
	const char *value = json_string_value(json_object_get(json, key));

	return value && !strcmp(value, text);
}

long long rollout_restarts(const json_t *report)
{
	json_t *workers = json_object_get(report, "workers"), *worker;
	long long sum = 0;
	size_t i;

	if (!json_is_array(workers))
		return -1;
	json_array_foreach(workers, i, worker)
		sum += number(worker, "restarts");
	return sum;
}

/* Where a refusal concerns what the node is to run now. */
static const char *refusal(const json_t *report, json_int_t wanted)
{
	const json_t *refused = json_object_get(report, "refused"), *errors = json_object_get(refused, "errors");
	const char *first = json_string_value(json_array_get(errors, 0));

	if (!json_is_object(refused) || number(refused, "number") != wanted)
		return NULL;
	if (first)
		return first;
	return is_text(report, "state", "rolled back") ? "rolled back: no controller was reached with it" : "no reason given";
}

static enum rollout_node state_of(const json_t *want, const json_t *report, json_int_t version, bool present, const char **why)
{
	json_int_t wanted = number(want, "number");

	if (!want || number(want, "version") != version)
		return present ? ROLLOUT_WAITING : ROLLOUT_AWAY;
	*why = refusal(report, wanted);
	if (*why)
		return ROLLOUT_REJECTED;
	if (!present)
		return ROLLOUT_AWAY;
	return number(report, "number") >= wanted && !is_text(report, "state", "rejected") ? ROLLOUT_ACCEPTED : ROLLOUT_WAITING;
}

/* --- health ------------------------------------------------------------------------------------------------------- */

static void stop(struct rollout_verdict *v, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void stop(struct rollout_verdict *v, const char *format, ...)
{
	va_list ap;

	if (v->stop)
		return;
	v->stop = true;
	va_start(ap, format);
	vsnprintf(v->reason, sizeof(v->reason), format, ap);
	va_end(ap);
}

static void look_at_probes(const char *node, const json_t *report, struct domain_share limit, struct rollout_verdict *v)
{
	json_t *probes = json_object_get(report, "probes"), *probe;
	size_t i;

	json_array_foreach(probes, i, probe) {
		json_int_t sent = number(probe, "sent"), lost = number(probe, "lost");
		const char *name = json_string_value(json_object_get(probe, "name"));
		if (limit.n && sent > 0 && lost > 0 && lost * 10000 > sent * (json_int_t)limit.n)
			stop(v, "node %s loses %lld of %lld probes (%s)", node, (long long)lost, (long long)sent, name ? name : "?");
	}
}

static void look_at_health(const char *node, const json_t *report, const json_t *record, const struct domain_health *rules,
                           struct rollout_verdict *v)
{
	const json_t *baseline = json_object_get(json_object_get(record, "baseline"), node);
	long long restarts = rollout_restarts(report);

	if (json_is_false(json_object_get(report, "ready"))) {
		v->not_ready++;
		v->first_waiting = v->first_waiting ? v->first_waiting : node;
	}
	if (baseline && restarts - json_integer_value(baseline) > rules->restarts)
		stop(v, "workers of node %s were restarted %lld times", node, restarts - (long long)json_integer_value(baseline));
	look_at_probes(node, report, rules->probe_loss, v);
}

static json_t *set_of(const json_t *list)
{
	json_t *set = json_object();

	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_is_string(json_array_get(list, i)))
			json_object_set_new(set, json_string_value(json_array_get(list, i)), json_true());
	return set;
}

static void add_away(const json_t *away, const char *node, struct rollout_verdict *v)
{
	v->away++;
	if (json_object_get(away, node))
		return;
	v->silent++;
	v->first_silent = v->first_silent ? v->first_silent : node;
}

static void add_rejection(const char *node, const char *why, struct rollout_verdict *v)
{
	json_t *text = json_string(why);

	v->rejected++;
	json_array_append_new(v->rejections, json_pack("{s:s, s:o}", "node", node, "reason", text ? text : json_string("?")));
}

static void judge(const struct domain_health *rules, struct rollout_verdict *v)
{
	const json_t *first = json_array_get(v->rejections, 0);

	if (v->rejected > domain_share_of(rules->rejected, v->moved))
		stop(v, "node %s refused it: %s", json_string_value(json_object_get(first, "node")),
		     json_string_value(json_object_get(first, "reason")));
}

void rollout_assess(const json_t *record, const struct domain_rollout *rules, struct kv *kv,
                    bool (*present)(void *arg, const char *node), void *arg, struct rollout_verdict *v)
{
	const json_t *nodes = json_object_get(record, "nodes");
	json_t *away = set_of(json_object_get(record, "away"));
	const char *why;

	*v = (struct rollout_verdict){.moved = (size_t)number(record, "moved"), .rejections = json_array()};
	for (size_t i = 0; i < v->moved && i < json_array_size(nodes); i++) {
		const char *node = json_string_value(json_array_get(nodes, i));
		const json_t *report = value_of(kv, "state/", node);
		enum rollout_node is = state_of(value_of(kv, "want/", node), report, number(record, "version"), present(arg, node), &why);
		if (is == ROLLOUT_ACCEPTED && rules->staged && json_is_false(json_object_get(report, "confirmed")))
			is = ROLLOUT_WAITING;     /* it may still go back by itself */
		switch (is) {
		case ROLLOUT_REJECTED: add_rejection(node, why, v); break;
		case ROLLOUT_AWAY: add_away(away, node, v); break;
		case ROLLOUT_WAITING:
			v->waiting++;
			v->first_waiting = v->first_waiting ? v->first_waiting : node;
			break;
		case ROLLOUT_ACCEPTED:
			v->accepted++;
			look_at_health(node, report, record, &rules->health, v);
		}
	}
	json_decref(away);
	judge(&rules->health, v);
}

void rollout_begin_stage(json_t *record, size_t from, size_t to, struct kv *kv, bool (*present)(void *arg, const char *node), void *arg)
{
	json_t *nodes = json_object_get(record, "nodes"), *away = json_object_get(record, "away");
	json_t *baseline = json_object_get(record, "baseline");

	for (size_t i = from; i < to && i < json_array_size(nodes); i++) {
		const char *node = json_string_value(json_array_get(nodes, i));
		long long restarts = rollout_restarts(value_of(kv, "state/", node));
		if (!present(arg, node))
			json_array_append_new(away, json_string(node));
		if (restarts >= 0)
			json_object_set_new(baseline, node, json_integer(restarts));
	}
}
