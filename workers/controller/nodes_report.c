/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/nodes_report.h"

static bool is_or_missing(const json_t *report, const char *name, bool (*is)(const json_t *value))
{
	const json_t *value = json_object_get(report, name);
	return !value || json_is_null(value) || is(value);
}

static bool is_integer(const json_t *v) { return json_is_integer(v); }
static bool is_number(const json_t *v) { return json_is_number(v); }
static bool is_string(const json_t *v) { return json_is_string(v); }
static bool is_object(const json_t *v) { return json_is_object(v); }
static bool is_array(const json_t *v) { return json_is_array(v); }
static bool is_bool(const json_t *v) { return json_is_boolean(v); }

/* Objects all the way, so that whoever reads need not ask. */
static bool is_list_of_objects(const json_t *v)
{
	const json_t *member;
	size_t i;
	json_array_foreach(v, i, member)
		if (!json_is_object(member))
			return false;
	return json_is_array(v);
}

const char *nodes_report_fault(const json_t *report)
{
	static const struct { const char *name; bool (*is)(const json_t *value); const char *error; } fields[] = {
		{"number", is_integer, "number is no number"}, {"version", is_integer, "version is no number"},
		{"digest", is_string, "digest is no text"}, {"state", is_string, "state is no text"},
		{"refused", is_object, "refused is no object"}, {"generation", is_integer, "generation is no number"},
		{"hermes", is_string, "hermes is no text"}, {"uptime_seconds", is_number, "uptime_seconds is no number"},
		{"ready", is_bool, "ready is neither true nor false"}, {"workers", is_list_of_objects, "workers is no list of objects"},
		{"probes", is_list_of_objects, "probes is no list of objects"},
		{"clusters", is_list_of_objects, "clusters is no list of objects"}, {"traffic", is_object, "traffic is no object"},
		{"load", is_object, "load is no object"},
	};
	const json_t *refused = json_object_get(report, "refused");
	if (!json_is_object(report))
		return "a report is an object";
	if (!json_is_integer(json_object_get(report, "number")) || !json_is_string(json_object_get(report, "state")))
		return "a report says number and state";
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
		if (!is_or_missing(report, fields[i].name, fields[i].is))
			return fields[i].error;
	return is_or_missing(refused, "errors", is_array) && is_or_missing(refused, "number", is_integer)
		? NULL : "refused is malformed";
}

bool nodes_report_same(const json_t *a, const json_t *b)
{
	static const char *const names[] = {"number", "version", "digest", "state", "refused", "generation", "ready"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		const json_t *x = json_object_get(a, names[i]), *y = json_object_get(b, names[i]);
		if (x != y && !(x && y && json_equal(x, y)))
			return false;
	}
	return true;
}
