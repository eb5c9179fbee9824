/* SPDX-License-Identifier: Apache-2.0 */
/* What operators ask of the domain: documents, rollouts, objectives, maintenance. */
#include "store/diff.h"
#include "workers/controller/api.h"
#include "workers/controller/nodes.h"
#include "workers/controller/objectives.h"
#include "workers/controller/overrides.h"
#include "workers/controller/proposal.h"
#include "workers/controller/rollout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An answer that comes later; request is NULL once the asker has gone. */
struct waiting {
	struct api_request *request;
	struct domain *domain;
	struct proposal *proposal;
	char *node;
};

static void on_gone(void *arg)
{
	struct waiting *w = arg;

	w->request = NULL;
	if (w->proposal) {
		proposal_forget(w->proposal);
		free(w->node);
		free(w);
	}
}

static struct waiting *wait_for(struct api_call *call, const char *node)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (!w) {
		api_error(call->request, 503, "memory", "out of memory");
		return NULL;
	}
	*w = (struct waiting){.request = call->request, .domain = call->controller->domain, .node = node ? strdup(node) : NULL};
	api_on_gone(call->request, on_gone, w);
	return w;
}

static void reply(struct waiting *w, unsigned status, json_t *body)
{
	if (w->request)
		api_reply(w->request, status, body);
	else
		json_decref(body);
	free(w->node);
	free(w);
}

static bool flag(const struct api_call *call, const char *name)
{
	const char *value = api_query(call, name);

	return value && strcmp(value, "0") && strcmp(value, "false");
}

/* --- documents ---------------------------------------------------------------------------------------------------- */

/* NULL: it was answered. 0 stands for the newest. */
static json_t *record_of(struct api_call *call, uint64_t number)
{
	struct kv *kv = call->controller->kv;
	uint64_t wanted = number ? number : versions_head(kv, NULL);
	json_t *record = wanted ? versions_record(kv, wanted) : NULL;

	if (!record && !number)
		api_error(call->request, 404, "no-document", "the domain has no document yet");
	else if (!record)
		api_error(call->request, 404, "not-found", "there is no version %" PRIu64 " in the history", number);
	return record;
}

static json_t *shown(const json_t *record)
{
	json_t *out = json_copy((json_t *)record);

	json_object_set(out, "document", json_object_get(record, "text"));
	json_object_del(out, "text");
	return out;
}

static void show_document(struct api_call *call)
{
	json_t *record = record_of(call, api_query_u64(call, "version", 0));
	const char *format = api_query(call, "format");

	if (!record)
		return;
	if (format && !strcmp(format, "yaml"))
		api_reply_text(call->request, 200, "application/yaml", json_string_value(json_object_get(record, "text")));
	else
		api_reply(call->request, 200, shown(record));
}

static void on_proposed(void *arg, unsigned status, json_t *body)
{
	struct waiting *w = arg;

	w->proposal = NULL;
	reply(w, status, body);
}

static void propose(struct api_call *call, struct proposal_request *r)
{
	struct waiting *w;

	if (!r->text) {
		api_error(call->request, 415, "no-document", "expected a document, of type application/yaml");
		return;
	}
	r->author = call->author;
	r->has_base = api_query(call, "base");
	r->base = api_query_u64(call, "base", 0);
	r->at_once |= flag(call, "at_once");
	w = wait_for(call, NULL);
	struct proposal *p = w ? proposal_start(call->controller->domain, r, on_proposed, w) : NULL;
	if (p)
		w->proposal = p;
}

static void put_document(struct api_call *call)
{
	propose(call, &(struct proposal_request){.name = api_query(call, "name"), .text = call->text, .length = call->length,
	                                         .comment = api_query(call, "comment"), .dry_run = flag(call, "dry_run")});
}

static void document(struct api_call *call)
{
	if (*call->rest)
		api_error(call->request, 404, "not-found", "there is nothing at this path");
	else if (!strcmp(call->method, "PUT"))
		put_document(call);
	else
		show_document(call);
}

static void check_document(struct api_call *call)
{
	propose(call, &(struct proposal_request){.name = api_query(call, "name"), .text = call->text, .length = call->length,
	                                         .dry_run = true});
}

static void versions(struct api_call *call)
{
	if (!*call->rest) {
		uint64_t limit = api_query_u64(call, "limit", 0);
		api_reply(call->request, 200, json_pack("{s:o}", "versions", versions_list(call->controller->kv, (size_t)limit)));
		return;
	}
	json_t *record = record_of(call, strtoull(call->rest, NULL, 10) ? : UINT64_MAX >> 1);
	if (record)
		api_reply(call->request, 200, shown(record));
}

static void diff(struct api_call *call)
{
	uint64_t head = versions_head(call->controller->kv, NULL), to = api_query_u64(call, "to", head);
	uint64_t from = api_query_u64(call, "from", to > 1 ? to - 1 : to);
	json_t *a = record_of(call, from), *b = a ? record_of(call, to) : NULL;
	char names[2][40], *text;

	if (!b)
		return;
	snprintf(names[0], sizeof(names[0]), "version %" PRIu64, from);
	snprintf(names[1], sizeof(names[1]), "version %" PRIu64, to);
	text = diff_unified(names[0], json_string_value(json_object_get(a, "text")), names[1],
	                    json_string_value(json_object_get(b, "text")));
	if (text)
		api_reply(call->request, 200, json_pack("{s:I, s:I, s:s}", "from", (json_int_t)from, "to", (json_int_t)to, "diff", text));
	else
		api_error(call->request, 503, "memory", "out of memory");
	free(text);
}

static void roll_back(struct api_call *call)
{
	json_t *wanted = json_object_get(call->body, "version"), *record;
	const char *comment = json_string_value(json_object_get(call->body, "comment"));
	char own[64];

	if (!json_is_integer(wanted) || json_integer_value(wanted) <= 0) {
		api_error(call->request, 400, "bad-request", "expected {\"version\": NUMBER}");
		return;
	}
	record = record_of(call, (uint64_t)json_integer_value(wanted));
	if (!record)
		return;
	json_t *text = json_object_get(record, "text");
	snprintf(own, sizeof(own), "back to version %lld", (long long)json_integer_value(wanted));
	propose(call, &(struct proposal_request){.name = "document", .text = json_string_value(text),
	                                         .length = json_string_length(text), .comment = comment ? comment : own,
	                                         .at_once = json_is_true(json_object_get(call->body, "at_once"))});
}

/* --- rollouts ----------------------------------------------------------------------------------------------------- */

static json_t *rollout_or_nothing(struct domain *d)
{
	json_t *rollout = rollout_json(d);

	return rollout ? rollout : json_pack("{s:n}", "state");
}

static void refuse_action(struct api_request *request, struct domain *d)
{
	json_t *rollout = rollout_json(d);
	const char *state = json_string_value(json_object_get(rollout, "state"));

	if (state)
		api_error(request, 409, "state", "the rollout is %s: pause is for one that runs, resume for one that is paused or stopped, "
		          "promote for one that is not over, abort for any of these", state);
	else
		api_error(request, 409, "state", "nothing was rolled out yet");
	json_decref(rollout);
}

static void on_acted(void *arg, int error)
{
	struct waiting *w = arg;

	if (error && w->request) {
		struct api_request *request = w->request;
		if (error == -EINVAL)
			api_error(request, 400, "bad-request", "expected {\"action\": ...}: pause, resume, abort or promote");
		else if (error == -EPERM)
			refuse_action(request, w->domain);
		else
			api_store_error(request, error);
		w->request = NULL;
	}
	if (w->request)
		reply(w, 200, rollout_or_nothing(w->domain));
	else
		reply(w, 0, NULL);
}

static void rollout(struct api_call *call)
{
	const char *action = *call->rest ? call->rest : json_string_value(json_object_get(call->body, "action"));
	struct waiting *w;

	if (!strcmp(call->method, "GET")) {
		api_reply(call->request, 200, rollout_or_nothing(call->controller->domain));
		return;
	}
	w = wait_for(call, NULL);
	if (w)
		rollout_act(call->controller->domain, action ? action : "", on_acted, w);
}

/* --- maintenance -------------------------------------------------------------------------------------------------- */

static void on_overridden(void *arg, int error)
{
	struct waiting *w = arg;
	char key[80];

	if (error && w->request) {
		api_store_error(w->request, error);
		w->request = NULL;
	}
	snprintf(key, sizeof(key), "override/%s", w->node);
	struct kv_value value = kv_get(w->domain->controller->kv, key);
	reply(w, 200, w->request ? json_pack("{s:s, s:o}", "name", w->node, "override",
	                                     value.revision ? json_incref(value.json) : json_object()) : NULL);
}

/* Takes over value. */
static void override(struct api_call *call, const char *key, const char *role, json_t *value)
{
	char name[64];
	struct waiting *w = NULL;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(call->rest, "/"), call->rest);
	json_t *node = nodes_name_ok(name) ? nodes_json(call->controller->nodes, name, false) : NULL;
	if (!node)
		api_error(call->request, 404, "not-found", "there is no node of that name");
	else
		w = wait_for(call, name);
	json_decref(node);
	if (w && w->node)
		overrides_set(call->controller->kv, name, key, role, value, on_overridden, w);
	else
		json_decref(value);
}

static void drain(struct api_call *call)
{
	override(call, "drained", NULL, json_true());
}

static void undrain(struct api_call *call)
{
	override(call, "drained", NULL, NULL);
}

/* 0 or null: as the document says. */
static void scale(struct api_call *call)
{
	json_t *n = json_object_get(call->body, "tunnel_workers");
	json_int_t wanted = json_integer_value(n);

	if ((!json_is_integer(n) && !json_is_null(n)) || wanted < 0 || wanted > OVERRIDES_WORKERS_MAX)
		api_error(call->request, 400, "bad-request", "expected {\"tunnel_workers\": 1 to %d}; 0: as the document says",
		          OVERRIDES_WORKERS_MAX);
	else
		override(call, "tunnel_workers", NULL, wanted ? json_integer(wanted) : NULL);
}

static void roles(struct api_call *call)
{
	const char *role = json_string_value(json_object_get(call->body, "role"));
	json_t *on = json_object_get(call->body, "on");
	char name[32];

	snprintf(name, sizeof(name), "%s", role && !strcmp(role, "tun-bridge") ? "tun_bridge" : role ? role : "");
	if (!overrides_role_ok(name) || !(json_is_boolean(on) || json_is_null(on)))
		api_error(call->request, 400, "bad-request", "expected {\"role\": \"tun_bridge\" or \"telemetry\", "
		          "\"on\": true, false, or null: as the document says}");
	else
		override(call, "roles", name, json_is_null(on) ? NULL : json_incref(on));
}

static void node_config(struct api_call *call)
{
	char key[80];

	snprintf(key, sizeof(key), "want/%.*s", (int)strcspn(call->rest, "/"), call->rest);
	struct kv_value want = kv_get(call->controller->kv, key);
	if (want.revision)
		api_reply(call->request, 200, shown(want.json));
	else
		api_error(call->request, 404, "not-found", "nothing was composed for a node of that name");
}

/* --- objectives, and the whole ------------------------------------------------------------------------------------ */

static void objectives(struct api_call *call)
{
	json_t *out = objectives_json(call->controller->domain, *call->rest ? call->rest : NULL);

	if (out)
		api_reply(call->request, 200, out);
	else
		api_error(call->request, 404, "not-found", "there is no objective of that name");
}

static json_t *brief(struct domain *d)
{
	static const char *const keys[] = {"version", "state", "reason", "back", "stage", "moved"};
	struct kv_value now = kv_get(d->controller->kv, "rollout");
	json_t *out = now.revision ? json_object() : NULL;

	for (size_t i = 0; out && i < sizeof(keys) / sizeof(*keys); i++)
		json_object_set(out, keys[i], json_object_get(now.json, keys[i]));
	return out ? out : json_null();
}

static void status(struct api_call *call)
{
	struct controller *c = call->controller;
	uint64_t head = versions_head(c->kv, NULL);
	json_t *document = head ? json_copy(versions_record(c->kv, head)) : NULL;

	json_object_del(document, "text");
	api_reply(call->request, 200, json_pack(
		"{s:s, s:s, s:s, s:b, s:b, s:o, s:I, s:o, s:o}",
		"domain", c->config->domain, "node", c->config->node_name,
		"store", c->config->controller.etcd.n ? "etcd" : "local", "ready", kv_ready(c->kv), "leads", kv_leads(c->kv),
		"document", document ? document : json_null(), "nodes", (json_int_t)kv_count(c->kv, "node/"),
		"rollout", brief(c->domain), "publish", publish_status(c->domain->publish)));
}

void api_domain_add(struct api *api)
{
	static const struct api_route routes[] = {
		{"/v1/document", "GET PUT", API_OPERATOR, document, NULL},
		{"/v1/document/check", "POST", API_OPERATOR, check_document, NULL},
		{"/v1/versions", "GET", API_OPERATOR, versions, NULL},
		{"/v1/diff", "GET", API_OPERATOR, diff, NULL},
		{"/v1/rollback", "POST", API_OPERATOR, roll_back, NULL},
		{"/v1/rollout", "GET POST", API_OPERATOR, rollout, NULL},
		{"/v1/objectives", "GET", API_OPERATOR, objectives, NULL},
		{"/v1/status", "GET", API_OPERATOR, status, NULL},
		{"/v1/nodes/", "POST", API_OPERATOR, drain, "drain"},
		{"/v1/nodes/", "POST", API_OPERATOR, undrain, "undrain"},
		{"/v1/nodes/", "POST", API_OPERATOR, scale, "scale"},
		{"/v1/nodes/", "POST", API_OPERATOR, roles, "roles"},
		{"/v1/nodes/", "GET", API_OPERATOR, node_config, "config"},
	};
	api_add(api, routes, sizeof(routes) / sizeof(*routes));
}
