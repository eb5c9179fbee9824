/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/proposal.h"
#include "workers/controller/api.h"
#include "ipc/log.h"
#include "store/diff.h"
#include "store/digest.h"
#include "workers/controller/rollout.h"
#include "workers/controller/rollout_plan.h"
#include "workers/controller/sweep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIFFS_MAX ((size_t)4 * 1024 * 1024)   /* bytes of differences in an answer */
#define ATTEMPTS 5
#define COMMENT_MAX 1000              /* bytes */

struct proposal {
	struct proposal *next, **at;      /* of the domain's list */
	struct domain *domain;
	char *text, *author, *comment;
	bool dry_run, at_once;
	uint64_t head, head_revision;
	struct version *version;
	struct sweep *sweep;
	json_t *affected, *changes, *groups, *warnings;   /* groups: difference -> the first node that has it */
	size_t diff_bytes;
	bool truncated;
	unsigned attempts;
	proposal_done *done;
	void *arg;
};

json_t *proposal_error(const char *code, json_t *details, const char *format, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, sizeof(message), format, ap);
	va_end(ap);
	json_t *text = json_string(message);
	return json_pack("{s:{s:s, s:o, s:o}}", "error", "code", code, "message", text ? text : json_string("?"), "details",
	                 details ? details : json_array());
}

static void proposal_free(struct proposal *p)
{
	*p->at = p->next;
	if (p->next)
		p->next->at = p->at;
	version_release(p->version);
	free(p->text);
	free(p->author);
	free(p->comment);
	json_decref(p->affected);
	json_decref(p->changes);
	json_decref(p->groups);
	json_decref(p->warnings);
	free(p);
}

static void answer(struct proposal *p, unsigned status, json_t *body)
{
	if (p->done)
		p->done(p->arg, status, body);
	else
		json_decref(body);
	proposal_free(p);
}

void proposal_forget(struct proposal *p)
{
	p->done = NULL;
}

void proposals_end(struct domain *domain)
{
	for (struct proposal *p; (p = domain->proposals);) {
		sweep_free(p->sweep);
		answer(p, 503, proposal_error("stopping", NULL, "the controller stops"));
	}
}

static json_t *lines(char *const *v, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *line = json_string(v[i]);
		json_array_append_new(list, line ? line : json_string("?"));
	}
	return list;
}

/* --- what changes ------------------------------------------------------------------------------------------------- */

/* A difference that another node has too is told once: same_as names the first. */
static void add_change(struct proposal *p, const char *node, const char *kind, const char *diff)
{
	json_t *change = json_pack("{s:s, s:s}", "name", node, "change", kind), *first = diff ? json_object_get(p->groups, diff) : NULL;
	size_t length = diff ? strlen(diff) : 0;

	json_array_append_new(p->changes, change);
	if (first) {
		json_object_set(change, "same_as", first);
	} else if (diff && p->diff_bytes + length <= DIFFS_MAX) {
		p->diff_bytes += length;
		json_object_set_new(change, "diff", json_string(diff));
		json_object_set_new(p->groups, diff, json_string(node));
	} else if (diff) {
		p->truncated = true;
	}
}

static void on_composed(void *arg, const struct sweep_target *target, const char *text)
{
	struct proposal *p = arg;
	bool named = document_node(p->version->document, target->node) >= 0;
	struct kv_value want;
	char key[80], hex[65], *diff;
	uint8_t digest[32];

	if (!text)
		return;
	snprintf(key, sizeof(key), "want/%s", target->node);
	want = kv_get(p->domain->controller->kv, key);
	if (!want.revision && !named)
		return;
	digest_sha256(text, strlen(text), digest);
	digest_hex(digest, hex);
	const char *before = want.revision ? json_string_value(json_object_get(want.json, "digest")) : NULL;
	if (before && !strcmp(before, hex))
		return;
	json_array_append_new(p->affected, json_string(target->node));
	before = want.revision ? json_string_value(json_object_get(want.json, "text")) : "";
	diff = p->dry_run ? diff_unified("now", before ? before : "", "then", text) : NULL;
	add_change(p, target->node, !named ? "removed" : want.revision ? "changed" : "new", diff);
	free(diff);
}

/* --- keeping it --------------------------------------------------------------------------------------------------- */

static json_t *result(struct proposal *p, const json_t *plan)
{
	uint8_t digest[32];
	char hex[65];

	digest_sha256(p->text, strlen(p->text), digest);
	digest_hex(digest, hex);
	return json_pack("{s:o, s:s, s:O, s:b, s:O, s:O}", "version",
	                 p->dry_run ? json_null() : json_integer((json_int_t)p->version->number), "digest", hex, "nodes", p->changes,
	                 "truncated", p->truncated, "warnings", p->warnings, "stages", json_object_get(plan, "stages"));
}

static json_t *plan_of(struct proposal *p, const struct kv_value *record)
{
	json_t *plan = rollout_plan(record->revision ? record->json : NULL, p->version->document, p->version->number, p->affected,
	                            p->at_once, domain_present, p->domain, p->author, p->comment);

	rollout_begin_stage(plan, 0, (size_t)json_integer_value(json_object_get(plan, "moved")), p->domain->controller->kv,
	                    domain_present, p->domain);
	return plan;
}

static void keep(struct proposal *p);

static void on_kept(void *arg, int error)
{
	struct proposal *p = arg;
	struct kv *kv = p->domain->controller->kv;
	uint64_t revision, head = versions_head(kv, &revision);

	if (error == -EAGAIN && revision == p->head_revision && ++p->attempts < ATTEMPTS) {
		keep(p);                          /* only the rollout before has moved on */
		return;
	}
	if (error == -EAGAIN) {
		answer(p, 409, proposal_error("conflict", NULL, "somebody else made version %" PRIu64 " meanwhile: read it first", head));
		return;
	}
	if (error) {
		answer(p, error == -E2BIG ? 413 : 503, proposal_error("store", NULL, "%s", api_store_why(error)));
		return;
	}
	log_info("document", "version=%" PRIu64 " author=%s nodes=%zu", p->version->number, log_value(p->author),
	         json_array_size(p->affected));
	struct kv_value record = kv_get(kv, "rollout");
	answer(p, 200, result(p, record.revision ? record.json : NULL));
}

static void keep(struct proposal *p)
{
	struct kv *kv = p->domain->controller->kv;
	struct kv_value before = kv_get(kv, "rollout");
	json_t *record = plan_of(p, &before), *in_use = rollout_in_use(before.revision ? before.json : NULL);
	json_t *more = rollout_in_use(record);
	struct kv_txn *txn = kv_txn_new(kv);

	json_array_extend(in_use, more);
	if (!txn || !record) {
		json_decref(record);
		answer(p, 503, proposal_error("memory", NULL, "out of memory"));
	} else {
		versions_put(kv, txn, p->head, p->head_revision, p->author, p->comment, p->text, in_use);
		kv_txn_if(txn, "rollout", before.revision);
		kv_txn_put(txn, "rollout", record, false);
		kv_commit(txn, on_kept, p);
	}
	json_decref(more);
	json_decref(in_use);
}

static void show(struct proposal *p)
{
	struct kv_value before = kv_get(p->domain->controller->kv, "rollout");
	json_t *plan = plan_of(p, &before), *body = result(p, plan);

	json_decref(plan);
	answer(p, 200, body);
}

static void on_swept(void *arg, struct config_report *report)
{
	struct proposal *p = arg;
	json_t *warnings = lines(report->warnings, report->n_warnings);

	p->sweep = NULL;
	json_array_extend(p->warnings, warnings);
	json_decref(warnings);
	if (report->n_errors)
		answer(p, 422, proposal_error("document", lines(report->errors, report->n_errors), "the document has errors: %s",
		                              report->errors[0]));
	else if (p->dry_run)
		show(p);
	else
		keep(p);
}

/* --- the beginning ------------------------------------------------------------------------------------------------ */

struct targets { struct sweep_target *v; size_t n, room; struct version *version; };

static void add_target(struct targets *t, const char *node)
{
	if (t->n == t->room) {
		struct sweep_target *grown = realloc(t->v, (2 * t->room + 64) * sizeof(*grown));
		if (!grown)
			return;
		t->v = grown;
		t->room = 2 * t->room + 64;
	}
	t->v[t->n] = (struct sweep_target){.node = strdup(node)};
	if (t->v[t->n].node)
		t->v[t->n++].version = version_keep(t->version);
}

/* Nodes that have something, and that the document no longer names. */
static bool add_removed(void *arg, const struct kv_value *value)
{
	struct targets *t = arg;

	if (document_node(t->version->document, value->key + strlen("want/")) < 0)
		add_target(t, value->key + strlen("want/"));
	return true;
}

static bool begin(struct proposal *p)
{
	struct targets t = {.version = p->version};
	struct kv *kv = p->domain->controller->kv;

	for (size_t i = 0; i < p->version->document->n_nodes; i++)
		add_target(&t, p->version->document->nodes[i].name);
	kv_each(kv, "want/", add_removed, &t);
	p->sweep = sweep_start(worker_base(p->domain->controller->worker), kv, t.v, t.n, true, on_composed, on_swept, p);
	return p->sweep;
}

static struct proposal *fail(proposal_done *done, void *arg, unsigned status, json_t *body)
{
	done(arg, status, body);
	return NULL;
}

/* What kv can keep. */
static bool is_text(const char *text, size_t length, size_t max)
{
	json_t *json = length <= max ? json_stringn(text, length) : NULL;

	json_decref(json);
	return json;
}

static struct document *parse(struct domain *domain, const struct proposal_request *r, struct config_report *report)
{
	const char *name = r->name && *r->name ? r->name : "document";

	return document_parse(name, r->text, r->length, domain->controller->config->domain, report);
}

struct proposal *proposal_start(struct domain *domain, const struct proposal_request *r, proposal_done *done, void *arg)
{
	struct config_report report = {0};
	uint64_t revision, head = versions_head(domain->controller->kv, &revision);
	struct document *d;
	struct proposal *p;

	if (r->has_base && r->base != head)
		return fail(done, arg, 409,
		            proposal_error("conflict", NULL, "version %" PRIu64 " is the newest, not %" PRIu64 ": read it first", head,
		                           r->base));
	if (!is_text(r->text, r->length, DOCUMENT_TEXT_MAX) || (r->comment && !is_text(r->comment, strlen(r->comment), COMMENT_MAX)))
		return fail(done, arg, 422, proposal_error("document", NULL, "no text in UTF-8, or too long: the document, or its comment"));
	d = parse(domain, r, &report);
	json_t *errors = lines(report.errors, report.n_errors), *warnings = lines(report.warnings, report.n_warnings);
	config_report_free(&report);
	if (!d) {
		json_decref(warnings);
		return fail(done, arg, 422, proposal_error("document", errors, "the document has errors: %s",
		                                           json_string_value(json_array_get(errors, 0)) ? : "?"));
	}
	json_decref(errors);
	p = calloc(1, sizeof(*p));
	if (!p) {
		document_free(d);
		json_decref(warnings);
		return fail(done, arg, 503, proposal_error("memory", NULL, "out of memory"));
	}
	*p = (struct proposal){.domain = domain, .text = strndup(r->text, r->length), .author = strdup(r->author),
	                       .comment = r->comment ? strdup(r->comment) : NULL, .dry_run = r->dry_run, .at_once = r->at_once,
	                       .head = head, .head_revision = revision, .version = version_new(head + 1, d),
	                       .affected = json_array(), .changes = json_array(), .groups = json_object(), .warnings = warnings,
	                       .done = done, .arg = arg};
	p->at = &domain->proposals;
	p->next = domain->proposals;
	domain->proposals = p;
	if (p->next)
		p->next->at = &p->next;
	if (p->text && p->author && p->version && begin(p))
		return p;
	answer(p, 503, proposal_error("memory", NULL, "out of memory"));
	return NULL;
}
