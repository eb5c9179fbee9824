/* SPDX-License-Identifier: Apache-2.0 */
/* A controller's domain for unit tests: the real store in a folder of its own; the keeper, and the nodes that report, are the test. */
#ifndef TESTS_DOMAIN_WORLD_H
#define TESTS_DOMAIN_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/controller/domain.h"
#include "workers/controller/nodes.h"
#include "workers/controller/proposal.h"

static struct {
	struct event_base *base;
	char folder[64];
	struct controller controller;
	struct config config;
	json_t *present;                      /* nodes that report */
	void (*changed)(void *arg, const char *name);
	void *changed_arg;
	bool no_keeper;
	void (*while_signing)(void);          /* happens once, before the next answer of the keeper */
	unsigned asked;
} world;

struct event_base *worker_base(struct worker *worker)
{
	(void)worker;
	return world.base;
}

void keeper_ask(struct keeper_client *keeper, const char *op, const char *const *args, size_t n_args, const char *text,
                size_t length, keeper_done *done, void *arg)
{
	(void)keeper, (void)args, (void)n_args;
	char signature[600];

	assert_string_equal(op, "sign");
	world.asked++;
	void (*meanwhile)(void) = world.while_signing;
	world.while_signing = NULL;
	if (meanwhile)
		meanwhile();
	if (world.no_keeper) {
		done(arg, NULL, "there is no keeper");
		return;
	}
	snprintf(signature, sizeof(signature), "signed %.*s", (int)length, text);
	for (char *c = signature; *c; c++)
		*c = *c == '\n' ? '|' : *c;
	done(arg, signature, NULL);
}

void nodes_watch(struct nodes *nodes, void (*changed)(void *arg, const char *name), void *arg)
{
	(void)nodes;
	world.changed = changed;
	world.changed_arg = arg;
}

enum node_status nodes_status(struct nodes *nodes, const char *name)
{
	(void)nodes;
	return json_object_get(world.present, name) ? NODE_ONLINE : NODE_AWAY;
}

uint32_t nodes_report_ms(const struct nodes *nodes)
{
	(void)nodes;
	return 100;
}

static void world_state(void *arg)
{
	(void)arg;
}

static void run_ms(int ms)
{
	event_base_loopexit(world.base, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
	event_base_dispatch(world.base);
}

static inline int world_begin(void **state)
{
	const char *why = "";
	(void)state;

	memset(&world, 0, sizeof(world));
	strcpy(world.folder, "/tmp/hermes-domain-XXXXXX");
	assert_non_null(mkdtemp(world.folder));
	world.base = event_base_new();
	world.present = json_object();
	world.config.domain = (char *)"x";
	world.controller.config = &world.config;
	world.controller.nodes = (struct nodes *)&world;
	world.controller.kv = kv_local(world.base, world.folder, world_state, NULL, &why);
	assert_non_null(world.controller.kv);
	run_ms(10);
	assert_true(kv_ready(world.controller.kv));
	domain_start(&world.controller);
	assert_non_null(world.controller.domain);
	world.controller.domain->grace = 0;
	return 0;
}

static int world_end(void **state)
{
	char command[128];
	(void)state;

	domain_stop(world.controller.domain);
	kv_free(world.controller.kv);
	domain_free(world.controller.domain);
	json_decref(world.present);
	event_base_free(world.base);
	snprintf(command, sizeof(command), "rm -r %s", world.folder);
	return system(command);
}

static inline json_t *get(const char *prefix, const char *name)
{
	char key[96];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	struct kv_value value = kv_get(world.controller.kv, key);
	return value.revision ? value.json : NULL;
}

static inline void put(const char *prefix, const char *name, json_t *json)
{
	struct kv_txn *txn = kv_txn_new(world.controller.kv);
	char key[96];

	snprintf(key, sizeof(key), "%s%s", prefix, name);
	if (json)
		kv_txn_put(txn, key, json, false);
	else
		kv_txn_delete(txn, key);
	kv_commit(txn, NULL, NULL);
}

static json_int_t number(const json_t *json, const char *key)
{
	return json_integer_value(json_object_get(json, key));
}

static const char *text(const json_t *json, const char *key)
{
	const char *value = json_string_value(json_object_get(json, key));

	return value ? value : "";
}

/* --- proposals */

struct answered { unsigned status; json_t *body; };

static void on_answer(void *arg, unsigned status, json_t *body)
{
	struct answered *a = arg;

	a->status = status;
	a->body = body;
}

/* The body is the caller's. */
static inline struct answered propose_as(struct proposal_request r)
{
	struct answered a = {0};

	r.length = strlen(r.text);
	r.author = "test";
	proposal_start(world.controller.domain, &r, on_answer, &a);
	for (int i = 0; i < 400 && !a.status; i++)
		run_ms(5);
	assert_true(a.status);
	return a;
}

static inline json_int_t apply(const char *document)
{
	struct answered a = propose_as((struct proposal_request){.text = document, .comment = "as asked"});
	json_int_t version = number(a.body, "version");

	if (a.status != 200)
		json_dumpf(a.body, stderr, 0);
	assert_int_equal(a.status, 200);
	json_decref(a.body);
	run_ms(50);
	return version;
}

/* --- nodes */

static inline void come(const char *node)
{
	json_object_set_new(world.present, node, json_true());
}

static inline void go(const char *node)
{
	json_object_del(world.present, node);
}

static inline void tell(const char *node)
{
	if (world.changed)
		world.changed(world.changed_arg, node);
}

/* Reports that it runs what it is to run. more (taken over): further members. */
static inline void accept_wanted(const char *node, json_t *more)
{
	json_t *want = get("want/", node), *report = json_pack("{s:I, s:s, s:b, s:n, s:[]}", "number", (json_int_t)number(want, "number"),
	                                                      "state", "accepted", "ready", 1, "refused", "workers");

	come(node);
	json_object_update(report, more);
	json_decref(more);
	put("state/", node, report);
	tell(node);
}

static inline void refuse_wanted(const char *node, const char *error)
{
	json_t *want = get("want/", node);

	come(node);
	put("state/", node, json_pack("{s:i, s:s, s:b, s:{s:I, s:[s]}}", "number", 0, "state", "rejected", "ready", 1, "refused",
	                              "number", (json_int_t)number(want, "number"), "errors", error));
	tell(node);
}

#endif
