/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/publish.h"
#include "ipc/log.h"
#include "store/digest.h"
#include "workers/controller/rollout_plan.h"
#include "workers/controller/sweep.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SIGNING_MAX 64            /* questions to the keeper at a time */
#define BATCH_MAX 64              /* wants in one transaction */
#define BATCH_BYTES ((size_t)768 * 1024)
#define NUMBERS 1000              /* reserved at a time: each reservation is a write */
#define RETRY_MAX_S 16                /* from 1 on, doubling */

enum change_state { CHANGE_FOUND, CHANGE_SIGNING, CHANGE_SIGNED, CHANGE_WRITING, CHANGE_DONE };

struct change {
	struct publish *publish;
	char *node, *text, *signature;
	const char *reason;               /* in publish's doing */
	char digest[65];
	uint64_t version, number, revision;   /* revision: of want/NODE when the text was compared */
	unsigned row;                     /* of its number: publish's, unless others took numbers since */
	enum change_state state;
};

struct batch { struct publish *publish; size_t n; struct change *changes[BATCH_MAX]; };

struct publish {
	struct controller *controller;
	struct versions *versions;
	struct event *soon;
	json_t *dirty, *doing;            /* node -> reason; the key "" stands for all */
	struct sweep *sweep;
	struct change **changes;
	size_t n, at, signing, ready, writing, done;   /* at: those before have been given to the keeper */
	bool running, reserving, again, stopped;      /* again: later, after a failure */
	uint64_t next, end, reserved;     /* numbers; reserved: the revision of kv's `number` that says so */
	uint64_t written, last;
	unsigned row, retry;              /* retry: s; 0: the last run came to its end */
	json_t *errors;
};

/* --- what is to be done ------------------------------------------------------------------------------------------- */

static void mark(struct publish *p, const char *node, const char *reason)
{
	json_object_set_new(p->dirty, node, json_string(reason));
	if (!p->running && !p->again && !p->stopped)
		event_add(p->soon, &(struct timeval){0});
}

void publish_node(struct publish *p, const char *node, const char *reason)
{
	mark(p, node, reason);
}

void publish_all(struct publish *p, const char *reason)
{
	mark(p, "", reason);
}

static const char *reason_for(const json_t *doing, const char *node)
{
	const char *own = json_string_value(json_object_get(doing, node)), *all = json_string_value(json_object_get(doing, ""));
	return own ? own : all ? all : "";
}

/* --- the end of a run --------------------------------------------------------------------------------------------- */

static void change_free(struct change *c)
{
	free(c->node);
	free(c->text);
	free(c->signature);
	free(c);
}

static void end_run(struct publish *p)
{
	for (size_t i = 0; i < p->n; i++)
		change_free(p->changes[i]);
	free(p->changes);
	p->changes = NULL;
	p->n = p->at = p->ready = p->done = 0;
	p->running = false;
	json_object_clear(p->doing);
	p->retry = !p->again ? 0 : !p->retry ? 1 : p->retry < RETRY_MAX_S ? 2 * p->retry : RETRY_MAX_S;
	if (p->again || json_object_size(p->dirty))
		event_add(p->soon, &(struct timeval){.tv_sec = p->retry});
}

static void finished(struct publish *p, struct change *c)
{
	p->ready -= c->state == CHANGE_SIGNED;
	c->state = CHANGE_DONE;
	p->done++;
}

/* To be done anew: at once where somebody else was faster, else after a while. */
static void failed(struct publish *p, struct change *c, bool at_once)
{
	json_object_set_new(p->dirty, c->node, json_string(c->reason));
	p->again |= !at_once;
	finished(p, c);
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static void go_on(struct publish *p);

static void on_written(void *arg, int error)
{
	struct batch *b = arg;
	struct publish *p = b->publish;

	if (error && error != -EAGAIN && !p->again)
		log_error("configurations were not written", "nodes=%zu error=%s", b->n, strerror(-error));
	for (size_t i = 0; i < b->n; i++) {
		struct change *c = b->changes[i];
		if (error)
			failed(p, c, error == -EAGAIN);
		else
			finished(p, c);
		p->last = !error && c->number > p->last ? c->number : p->last;
	}
	p->written += error ? 0 : b->n;
	p->writing--;
	free(b);
	go_on(p);
}

static json_t *want_of(const struct change *c, const json_t *document, bool moved)
{
	const char *comment = json_string_value(json_object_get(document, "comment"));
	const char *author = moved ? json_string_value(json_object_get(document, "author")) : "controller";

	return json_pack("{s:I, s:I, s:s, s:s, s:I, s:s, s:s, s:s}", "number", (json_int_t)c->number,
	                 "version", (json_int_t)c->version, "reason", moved && comment && *comment ? comment : c->reason,
	                 "author", author ? author : "controller", "time", (json_int_t)time(NULL), "text", c->text,
	                 "digest", c->digest, "signature", c->signature);
}

static bool put_want(struct publish *p, struct kv_txn *txn, struct change *c)
{
	char key[80];

	snprintf(key, sizeof(key), "want/%s", c->node);
	const struct kv_value before = kv_get(p->controller->kv, key);
	bool moved = !before.revision || (uint64_t)json_integer_value(json_object_get(before.json, "version")) != c->version;
	json_t *want = want_of(c, versions_record(p->controller->kv, c->version), moved);
	if (!want)
		return false;             /* no put without a value: it would delete */
	kv_txn_if(txn, key, c->revision);
	kv_txn_put(txn, key, want, false);
	c->state = CHANGE_WRITING;
	p->ready--;
	return true;
}

static void write_batch(struct publish *p)
{
	struct batch *b = calloc(1, sizeof(*b));
	struct kv_txn *txn = b ? kv_txn_new(p->controller->kv) : NULL;
	size_t bytes = 0;

	if (!txn) {
		free(b);
		for (size_t i = 0; i < p->n; i++)
			if (p->changes[i]->state == CHANGE_SIGNED)
				failed(p, p->changes[i], false);
		return;
	}
	b->publish = p;
	/* numbers that were given after ours are ours too: whoever led meanwhile has reserved others */
	kv_txn_if(txn, "number", p->reserved);
	for (size_t i = 0; i < p->n && b->n < BATCH_MAX; i++) {
		struct change *c = p->changes[i];
		if (c->state != CHANGE_SIGNED || (b->n && bytes + strlen(c->text) > BATCH_BYTES))
			continue;
		bytes += strlen(c->text);
		if (c->row == p->row && put_want(p, txn, c))
			b->changes[b->n++] = c;
		else
			failed(p, c, c->row != p->row);
	}
	p->writing++;
	kv_commit(txn, on_written, b);
}

/* --- signing ------------------------------------------------------------------------------------------------------ */

static void on_signed(void *arg, const char *text, const char *error)
{
	struct change *c = arg;
	struct publish *p = c->publish;
	p->signing--;
	if (error) {
		if (!p->again)                    /* the others will hear the same */
			log_error("a configuration was not signed", "node=%s error=%s", c->node, log_value(error));
		failed(p, c, false);
	} else {
		c->signature = strndup(text, strcspn(text, "\n"));
		c->state = CHANGE_SIGNED;
		p->ready++;
		if (!c->signature)
			failed(p, c, false);
	}
	go_on(p);
}

static void sign(struct publish *p, struct change *c)
{
	char text[512];
	const char *domain = p->controller->config->domain;

	c->number = p->next++;
	c->row = p->row;
	c->state = CHANGE_SIGNING;
	p->signing++;
	int n = snprintf(text, sizeof(text), "hermes-config-1\n%s\n%s\n%" PRIu64 "\n%s\n", domain, c->node, c->number, c->digest);
	keeper_ask(p->controller->keeper, "sign", NULL, 0, text, (size_t)n, on_signed, c);
}

/* --- numbers ------------------------------------------------------------------------------------------------------ */

static bool have_numbers(const struct publish *p)
{
	return p->next < p->end && kv_get(p->controller->kv, "number").revision == p->reserved;
}

static void on_reserved(void *arg, int error)
{
	struct publish *p = arg;
	struct kv_value number = kv_get(p->controller->kv, "number");
	uint64_t last = number.revision ? (uint64_t)json_integer_value(json_object_get(number.json, "last")) : 0;

	p->reserving = false;
	if (!error && last >= NUMBERS) {
		p->reserved = number.revision;
		p->row += last - NUMBERS + 1 != p->end;       /* where it goes on, nobody was in between */
		p->next = last - NUMBERS + 1;
		p->end = last + 1;
	} else if (error != -EAGAIN) {
		log_error("no numbers for configurations", "error=%s", strerror(-error));
		for (size_t i = 0; i < p->n; i++)
			if (p->changes[i]->state == CHANGE_FOUND)
				failed(p, p->changes[i], false);
	}
	go_on(p);
}

/* Nodes take no lower number than they had. Where the store was lost nobody knows which that was; but the clock, in ms, is beyond what
 * the numbers of a store before can have come to. */
static uint64_t first_number(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void reserve(struct publish *p)
{
	struct kv_value number = kv_get(p->controller->kv, "number");
	uint64_t last = number.revision ? (uint64_t)json_integer_value(json_object_get(number.json, "last")) : first_number();
	struct kv_txn *txn = kv_txn_new(p->controller->kv);

	p->reserving = true;
	kv_txn_if(txn, "number", number.revision);
	kv_txn_put(txn, "number", json_pack("{s:I}", "last", (json_int_t)(last + NUMBERS)), false);
	kv_commit(txn, on_reserved, p);
}

/* Signs and writes what is left; a batch is full, or all that there is. Entered again from what it starts: callbacks may come at once. */
static void go_on(struct publish *p)
{
	if (!p->running || p->reserving || p->stopped)
		return;
	while (p->at < p->n && p->signing < SIGNING_MAX) {
		if (p->changes[p->at]->state == CHANGE_FOUND && !have_numbers(p)) {
			reserve(p);
			return;
		}
		struct change *c = p->changes[p->at++];
		if (c->state == CHANGE_FOUND)
			sign(p, c);
		if (!p->running)
			return;
	}
	if (p->ready && (p->ready >= BATCH_MAX || (!p->sweep && !p->signing && p->at == p->n)))
		write_batch(p);
	if (p->running && !p->sweep && p->done == p->n && !p->signing && !p->writing)
		end_run(p);
}

/* --- finding what has changed ------------------------------------------------------------------------------------- */

static void on_composed(void *arg, const struct sweep_target *target, const char *text)
{
	struct publish *p = arg;
	struct kv_value want;
	uint8_t digest[32];
	char hex[65], key[80];
	struct change *c, **grown;

	if (!text)
		return;
	snprintf(key, sizeof(key), "want/%s", target->node);
	want = kv_get(p->controller->kv, key);
	digest_sha256(text, strlen(text), digest);
	digest_hex(digest, hex);
	const char *before = json_string_value(json_object_get(want.json, "digest"));
	if ((before && !strcmp(hex, before)) || (!want.revision && document_node(target->version->document, target->node) < 0))
		return;
	c = calloc(1, sizeof(*c));
	grown = c ? realloc(p->changes, (p->n + 1) * sizeof(*grown)) : NULL;
	if (!grown) {
		free(c);
		return;
	}
	p->changes = grown;
	*c = (struct change){.publish = p, .node = strdup(target->node), .text = strdup(text), .version = target->version->number,
	                     .revision = want.revision, .reason = reason_for(p->doing, target->node)};
	memcpy(c->digest, hex, sizeof(hex));
	if (!c->node || !c->text) {
		change_free(c);
		return;
	}
	p->changes[p->n++] = c;
	go_on(p);                                 /* signed and written while others are composed */
}

static void on_swept(void *arg, struct config_report *report)
{
	struct publish *p = arg;

	p->sweep = NULL;
	json_array_clear(p->errors);
	for (size_t i = 0; i < report->n_errors; i++) {
		json_array_append_new(p->errors, json_string(report->errors[i]));
		log_error("a configuration cannot be composed", "error=%s", log_value(report->errors[i]));
	}
	go_on(p);
}

struct targets { struct publish *p; struct rollout_view view; struct sweep_target *v; size_t n, room; json_t *seen; };

static void add_target(struct targets *t, const char *node)
{
	struct config_report report = {0};
	struct sweep_target *grown;
	uint64_t number = rollout_version_of(&t->view, node);
	struct version *version;

	if (!number || json_object_get(t->seen, node))
		return;
	if (t->n == t->room) {
		grown = realloc(t->v, (t->room = 2 * t->room + 16) * sizeof(*t->v));
		if (!grown)
			return;
		t->v = grown;
	}
	version = versions_open(t->p->versions, number, &report);
	if (version) {
		json_object_set_new(t->seen, node, json_true());
		t->v[t->n] = (struct sweep_target){.node = strdup(node), .version = version};
		if (t->v[t->n].node)
			t->n++;
		else
			version_release(version);
	} else if (report.n_errors) {
		log_error("a document cannot be read", "node=%s error=%s", node, log_value(report.errors[0]));
	}
	config_report_free(&report);
}

static bool add_wanted(void *arg, const struct kv_value *value)
{
	add_target(arg, value->key + strlen("want/"));
	return true;
}

static void add_named(struct targets *t, uint64_t number)
{
	struct config_report report = {0};
	struct version *v = number ? versions_open(t->p->versions, number, &report) : NULL;

	for (size_t i = 0; v && i < v->document->n_nodes; i++) {
		uint64_t own = rollout_version_of(&t->view, v->document->nodes[i].name);
		if (own == number)
			add_target(t, v->document->nodes[i].name);
	}
	version_release(v);
	config_report_free(&report);
}

static void find_targets(struct targets *t)
{
	struct kv *kv = t->p->controller->kv;
	json_t *in_use, *number, *reason;
	const char *node;
	size_t i;

	if (!json_object_get(t->p->doing, "")) {
		json_object_foreach(t->p->doing, node, reason)
			add_target(t, node);
		return;
	}
	in_use = rollout_in_use(t->view.record);
	json_array_foreach(in_use, i, number)
		add_named(t, (uint64_t)json_integer_value(number));
	kv_each(kv, "want/", add_wanted, t);
	json_decref(in_use);
}

static void start(struct publish *p)
{
	struct kv_value record = kv_get(p->controller->kv, "rollout");
	struct targets t = {.p = p, .seen = json_object()};
	json_t *doing = p->doing;

	p->doing = p->dirty;
	p->dirty = doing;
	p->again = false;
	rollout_view_init(&t.view, record.revision ? record.json : NULL);
	find_targets(&t);
	p->running = true;
	p->sweep = sweep_start(worker_base(p->controller->worker), p->controller->kv, t.v, t.n, false, on_composed, on_swept, p);
	if (!p->sweep)
		end_run(p);
	rollout_view_free(&t.view);
	json_decref(t.seen);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
	struct publish *p = arg;
	(void)fd, (void)what;

	if (p->running || !json_object_size(p->dirty))
		return;
	if (!p->controller->config || !kv_ready(p->controller->kv) || !kv_leads(p->controller->kv))
		json_object_clear(p->dirty);      /* whoever leads looks at everything when it begins */
	else
		start(p);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

struct publish *publish_new(struct controller *controller, struct versions *versions)
{
	struct publish *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	*p = (struct publish){.controller = controller, .versions = versions, .dirty = json_object(), .doing = json_object(),
	                      .errors = json_array()};
	p->soon = evtimer_new(worker_base(controller->worker), on_soon, p);
	if (p->soon)
		return p;
	publish_free(p);
	return NULL;
}

void publish_stop(struct publish *p)
{
	p->stopped = true;
	event_del(p->soon);
}

void publish_free(struct publish *p)
{
	if (!p)
		return;
	sweep_free(p->sweep);
	for (size_t i = 0; i < p->n; i++)
		change_free(p->changes[i]);
	free(p->changes);
	if (p->soon)
		event_free(p->soon);
	json_decref(p->dirty);
	json_decref(p->doing);
	json_decref(p->errors);
	free(p);
}

json_t *publish_status(const struct publish *p)
{
	return json_pack("{s:b, s:O, s:I, s:I}", "busy", p->running || json_object_size(p->dirty), "errors", p->errors, "written",
	                 (json_int_t)p->written, "number", (json_int_t)p->last);
}
