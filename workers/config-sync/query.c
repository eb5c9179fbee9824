/* SPDX-License-Identifier: Apache-2.0 */
/* config show [VERSION] [--origin|--local|--controller], config history, config diff A [B]. */
#include "ipc/json.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "store/diff.h"
#include "workers/config-sync/sync.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HISTORY 1000

struct query {
	struct sync *sync;
	uint64_t id;
	uint64_t versions[2];
	unsigned n;
	bool origin, local, controller;
};

static void refuse(const struct query *q, unsigned status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void refuse(const struct query *q, unsigned status, const char *format, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	worker_reply(q->sync->worker, q->id, status, NULL, text);
}

static void reply(const struct query *q, struct json *j)
{
	if (j->failed)
		refuse(q, 1, "out of memory");
	else
		worker_reply(q->sync->worker, q->id, 0, j->data, NULL);
	json_free(j);
}

static bool parse_args(struct query *q, const struct ipc_strs *args)
{
	for (size_t i = 0; i < args->n; i++) {
		char *end;
		bool *flag = !strcmp(args->v[i], "--origin") ? &q->origin : !strcmp(args->v[i], "--local") ? &q->local :
		             !strcmp(args->v[i], "--controller") ? &q->controller : NULL;
		if (flag) {
			*flag = true;
			continue;
		}
		errno = 0;
		unsigned long long v = strtoull(args->v[i], &end, 10);
		if (*args->v[i] < '0' || *args->v[i] > '9' || *end || errno || q->n == 2) {
			refuse(q, 2, "\"%.80s\" is no version; expected a number from `config history`", args->v[i]);
			return false;
		}
		q->versions[q->n++] = v;
	}
	return true;
}

/* version 0: the one in force. Replies where there is none. */
static bool fetch(const struct query *q, uint64_t version, struct store_version *v)
{
	unsigned skipped;
	int error = version ? store_get(q->sync->store, version, v) : store_in_force(q->sync->store, v, &skipped);

	if (!error && v->version)
		return true;
	if (version)
		refuse(q, 1, "version %" PRIu64 " %s", version,
		       error == -ENOENT ? "is not in the store" : error == -EUCLEAN ? "is damaged" : strerror(-error));
	else
		refuse(q, 1, "no configuration is in force");
	return false;
}

/* Unix seconds; 0: null. */
static void write_time(struct json *j, const char *key, int64_t when)
{
	if (when)
		json_int(j, key, when);
	else
		json_raw(j, key, "null");
}

static void write_version(struct json *j, const struct store_version *v)
{
	json_uint(j, "version", v->version);
	json_str(j, "state", v->state);
	json_int(j, "time", v->time);
	json_str(j, "source", v->source);
	json_str(j, "author", v->author);
	json_str(j, "name", v->name);
	json_str(j, "digest", v->digest);
	json_str(j, "reason", *v->reason ? v->reason : NULL);
	write_time(j, "confirmed", v->confirmed);
	if (v->controller.number)
		json_uint(j, "controller", v->controller.number);
	else
		json_raw(j, "controller", "null");
	write_time(j, "controller_time", v->controller.number ? v->controller.time : 0);
	json_str(j, "controller_digest", v->controller.number ? v->controller.digest : NULL);
	json_str(j, "controller_author", v->controller.number ? v->controller.author : NULL);
	json_str(j, "controller_reason", *v->controller.reason ? v->controller.reason : NULL);
}

/* All in one, as text: what is written, and where each value came from. */
static void write_origins(struct json *j, struct store_version *v)
{
	struct config_report report = {0};
	struct config_layer layers[2];
	char label[48], *origins = NULL;
	size_t n = sync_layers(v, layers, label);

	layers[0].name = "local";
	char *text = config_effective(layers, n, &origins, &report);
	json_str(j, "document", text);
	json_raw(j, "origins", origins ? origins : "[]");
	free(text);
	free(origins);
	config_report_free(&report);
}

static void write_config(struct json *j, const struct store_version *v)
{
	struct config_report report = {0};
	struct config_layer layers[2];
	char label[48];
	struct config *config = config_parse_layers(layers, sync_layers(v, layers, label), &report);
	char *text = config ? config_json(config) : NULL;

	json_raw(j, "config", text ? text : "null");
	free(text);
	config_free(config);
	config_report_free(&report);
}

static void show(const struct query *q)
{
	struct json j = JSON_INIT;
	struct store_version v;

	if (q->origin + q->local + q->controller > 1) {
		refuse(q, 2, "--origin, --local and --controller exclude each other; expected one");
		return;
	}
	if (!fetch(q, q->n ? q->versions[0] : 0, &v))
		return;
	if (q->controller && !v.controller.number) {
		refuse(q, 1, "version %" PRIu64 " has no part from a controller", v.version);
		store_version_clear(&v);
		return;
	}
	json_object(&j, NULL);
	write_version(&j, &v);
	if (q->local)
		json_str_n(&j, "document", v.text, v.length);
	else if (q->controller)
		json_str_n(&j, "document", v.controller.text, v.controller.length);
	else if (q->origin)
		write_origins(&j, &v);
	else
		write_config(&j, &v);
	json_end(&j);
	store_version_clear(&v);
	reply(q, &j);
}

static void history(const struct query *q)
{
	struct store_version *v = NULL;
	struct json j = JSON_INIT;
	size_t n = 0;
	int error = store_history(q->sync->store, HISTORY, &v, &n);

	if (error) {
		refuse(q, 1, "the store is not readable: %s", strerror(-error));
		free(v);
		return;
	}
	json_array(&j, NULL);
	for (size_t i = 0; i < n; i++) {
		json_object(&j, NULL);
		write_version(&j, &v[i]);
		json_end(&j);
	}
	json_end(&j);
	free(v);
	if (!j.failed) {                          /* a list goes without its brackets: the supervisor joins several */
		memmove(j.data, j.data + 1, j.length);
		j.data[j.length - 2] = '\0';
	}
	reply(q, &j);
}

/* Appends the difference of one part to *all; false: out of memory. */
static bool diff_part(char **all, const struct store_version *a, const struct store_version *b, bool controller)
{
	const char *ta = controller ? a->controller.text : a->text, *tb = controller ? b->controller.text : b->text;
	char from[64], to[64], *joined = NULL;

	snprintf(from, sizeof(from), "version %" PRIu64 "%s", a->version, controller ? ", the controller's part" : "");
	snprintf(to, sizeof(to), "version %" PRIu64 "%s", b->version, controller ? ", the controller's part" : "");
	char *text = diff_unified(from, ta ? ta : "", to, tb ? tb : "");
	if (text && asprintf(&joined, "%s%s", *all ? *all : "", text) < 0)
		joined = NULL;
	free(text);
	free(*all);
	*all = joined;
	return joined;
}

static void diff(const struct query *q)
{
	struct store_version a, b = {0};
	struct json j = JSON_INIT;
	char *text = NULL;

	if (!q->n) {
		refuse(q, 2, "which versions? expected config diff A [B], numbers from `config history`");
		return;
	}
	if (!fetch(q, q->versions[0], &a))
		return;
	if (fetch(q, q->n > 1 ? q->versions[1] : 0, &b)) {
		bool ok = diff_part(&text, &a, &b, false) && diff_part(&text, &a, &b, true);
		json_object(&j, NULL);
		json_uint(&j, "from", a.version);
		json_uint(&j, "to", b.version);
		json_str(&j, "diff", text);
		json_end(&j);
		j.failed |= !ok;
		free(text);
		reply(q, &j);
	}
	store_version_clear(&a);
	store_version_clear(&b);
}

void sync_admin(struct sync *sync, const struct ipc_admin_request *request)
{
	struct query q = {.sync = sync, .id = request->id};
	const char *verb = request->verb ? request->verb : "";

	if (!parse_args(&q, &request->args))
		return;
	if (!strcmp(verb, "config show"))
		show(&q);
	else if (!strcmp(verb, "config history"))
		history(&q);
	else if (!strcmp(verb, "config diff"))
		diff(&q);
	else
		refuse(&q, 2, "config-sync does not know \"%.80s\"", verb);
}
