/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/rollout_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t number(const json_t *record, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(record, key));
}

/* --- who runs what ------------------------------------------------------------------------------------------------ */

void rollout_view_init(struct rollout_view *view, const json_t *record)
{
	json_t *nodes = json_object_get(record, "nodes"), *name;
	size_t i;

	*view = (struct rollout_view){.record = record, .places = json_object()};
	json_array_foreach(nodes, i, name)
		if (json_is_string(name))
			json_object_set_new(view->places, json_string_value(name), json_integer((json_int_t)i));
}

void rollout_view_free(struct rollout_view *view)
{
	json_decref(view->places);
	*view = (struct rollout_view){0};
}

uint64_t rollout_version_of(const struct rollout_view *view, const char *node)
{
	const json_t *place = json_object_get(view->places, node), *before;
	bool back = json_is_true(json_object_get(view->record, "back"));

	if (!back && (!place || (uint64_t)json_integer_value(place) < number(view->record, "moved")))
		return number(view->record, "version");
	before = json_object_get(json_object_get(view->record, "before"), node);
	return before ? (uint64_t)json_integer_value(before) : number(view->record, "from");
}

static void use(json_t *list, uint64_t version)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if ((uint64_t)json_integer_value(json_array_get(list, i)) == version)
			return;
	if (version)
		json_array_append_new(list, json_integer((json_int_t)version));
}

json_t *rollout_in_use(const json_t *record)
{
	json_t *list = json_array(), *before = json_object_get(record, "before"), *version;
	const char *node;

	use(list, number(record, "version"));
	use(list, number(record, "from"));
	json_object_foreach(before, node, version)
		use(list, (uint64_t)json_integer_value(version));
	return list;
}

/* --- the plan ----------------------------------------------------------------------------------------------------- */

/* What nodes run that do not run what most do. After a rollout that is done: none. */
static json_t *exceptions(const json_t *record, uint64_t from)
{
	json_t *before = json_object(), *nodes = json_object_get(record, "nodes"), *name, *kept = json_object_get(record, "before");
	struct rollout_view view;
	const char *node;
	size_t i;

	rollout_view_init(&view, record);
	json_array_foreach(nodes, i, name) {
		uint64_t version = rollout_version_of(&view, json_string_value(name));
		if (version != from)
			json_object_set_new(before, json_string_value(name), json_integer((json_int_t)version));
	}
	if (json_is_true(json_object_get(record, "back")))
		json_object_foreach(kept, node, name)
			if ((uint64_t)json_integer_value(name) != from)
				json_object_set(before, node, name);
	rollout_view_free(&view);
	return before;
}

static bool has(const json_t *set, const char *name)
{
	return json_object_get(set, name);
}

static void take(json_t *nodes, json_t *taken, const char *name)
{
	json_array_append_new(nodes, json_string(name));
	json_object_set_new(taken, name, json_true());
}

struct plan {
	const struct document *d;
	const json_t *affected;
	json_t *nodes, *taken, *stages;
	bool (*present)(void *arg, const char *node);
	void *arg;
};

static void take_canaries(struct plan *p)
{
	const struct domain_rollout *r = &p->d->rollout;
	json_t *wanted = json_object(), *name;
	size_t i, limit = domain_share_of(r->canary_share, json_array_size(p->affected));

	json_array_foreach(p->affected, i, name)
		json_object_set_new(wanted, json_string_value(name), json_true());
	for (i = 0; i < r->canary.n; i++)
		if (has(wanted, r->canary.v[i]) && !has(p->taken, r->canary.v[i]))
			take(p->nodes, p->taken, r->canary.v[i]);
	json_decref(wanted);
	for (int away = 0; away < 2; away++)
		json_array_foreach(p->affected, i, name) {
			const char *node = json_string_value(name);
			if (json_array_size(p->nodes) < limit && !has(p->taken, node) && p->present(p->arg, node) != away)
				take(p->nodes, p->taken, node);
		}
}

static void stage(struct plan *p, const char *name, size_t nodes)
{
	size_t n = json_array_size(p->stages);
	const json_t *last = n ? json_array_get(p->stages, n - 1) : NULL;

	if (nodes > number(last, "nodes"))
		json_array_append_new(p->stages, json_pack("{s:s, s:I}", "name", name, "nodes", (json_int_t)nodes));
}

static void make_stages(struct plan *p, bool at_once)
{
	const struct domain_shares *shares = &p->d->rollout.stages;
	size_t all = json_array_size(p->affected);
	char name[32];

	stage(p, "canary", at_once ? 0 : json_array_size(p->nodes));
	for (size_t i = 0; !at_once && i + 1 < shares->n; i++) {
		struct domain_share s = shares->v[i];
		snprintf(name, sizeof(name), s.percent ? "%g%%" : "%g", s.percent ? s.n / 100.0 : s.n);
		stage(p, name, domain_share_of(s, all));
	}
	stage(p, "all", all);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

json_t *rollout_plan(const json_t *record, const struct document *d, uint64_t version, const json_t *affected, bool at_once,
                     bool (*present)(void *arg, const char *node), void *arg, const char *author, const char *comment)
{
	struct plan p = {.d = d, .affected = affected, .nodes = json_array(), .taken = json_object(), .stages = json_array(),
	                 .present = present, .arg = arg};
	uint64_t from = json_is_true(json_object_get(record, "back")) ? number(record, "from") : number(record, "version");
	bool empty = !json_array_size(affected);
	json_t *name;
	size_t i;

	if (!at_once)
		take_canaries(&p);
	make_stages(&p, at_once);
	json_array_foreach(affected, i, name)
		if (!has(p.taken, json_string_value(name)))
			take(p.nodes, p.taken, json_string_value(name));
	json_decref(p.taken);
	return json_pack("{s:I, s:I, s:o, s:s, s:b, s:n, s:o, s:i, s:I, s:o, s:[], s:{}, s:s, s:s?, s:I, s:I, s:i, s:I}",
	                 "version", (json_int_t)version, "from", (json_int_t)from, "before", exceptions(record, from),
	                 "state", empty ? "done" : "running", "back", 0, "reason", "stages", p.stages, "stage", 0,
	                 "moved", (json_int_t)number(json_array_get(p.stages, 0), "nodes"), "nodes", p.nodes, "away", "baseline",
	                 "author", author, "comment", comment, "started", (json_int_t)now_ms(), "since", (json_int_t)now_ms(),
	                 "settled", 0, "ended", (json_int_t)(empty ? now_ms() : 0));
}
