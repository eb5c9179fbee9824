/* SPDX-License-Identifier: Apache-2.0 */
/* Questions that wait for an authorizer. A waiting question is its encoded message and what was answered so far; with
 * each answer it is judged again from the start, by the configuration of its generation (or the one in force, where that
 * is gone meanwhile). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "ipc/log.h"
#include "workers/policy/authorizer.h"
#include "workers/policy/policy.h"

struct given {
	struct assess_answer answer;   /* points into what follows */
	struct opa_result result;
	char policy[];
};

struct pending_key { uint64_t id; uint32_t tunnel, zero; };

struct pending {
	UT_hash_handle hh;
	struct pending_key key;
	struct policy *policy;
	uint64_t deadline;
	bool forgotten;
	struct given *given;
	/* the question under way */
	char *asking;                  /* the policy's name */
	char *cache_key;               /* NULL: its answer is not kept */
	uint32_t cache_ms;
	int length;
	uint8_t message[];
};

struct authorizers {
	UT_hash_handle hh;
	struct authorizer *authorizer;
	char address[];
};

static void run(struct pending *w);

/* --- what is kept --------------------------------------------------------------------------------------------------- */

static void asking_clear(struct pending *w)
{
	free(w->asking);
	free(w->cache_key);
	w->asking = w->cache_key = NULL;
}

static void pending_free(struct pending *w)
{
	const struct assess_answer *a = w->given ? &w->given->answer : NULL;

	HASH_DEL(w->policy->pending, w);
	while (a) {
		struct given *g = (struct given *)(uintptr_t)a;   /* the answer is its first member */
		a = a->next;
		opa_result_clear(&g->result);
		free(g);
	}
	asking_clear(w);
	free(w);
}

/* False: out of memory. */
static bool give(struct pending *w, const char *policy, const struct opa_result *result, uint32_t valid_ms)
{
	size_t length = strlen(policy);
	struct given *g = calloc(1, sizeof(*g) + length + 1);

	if (!g)
		return false;
	memcpy(g->policy, policy, length);
	if (opa_result_copy(result, &g->result) < 0) {
		free(g);
		return false;
	}
	g->answer = (struct assess_answer){ .policy = g->policy, .allowed = g->result.allowed, .failed = g->result.failed,
		.headers = g->result.headers, .n_headers = g->result.n_headers, .valid_ms = valid_ms,
		.next = w->given ? &w->given->answer : NULL };
	w->given = g;
	return true;
}

static bool give_failed(struct pending *w, const char *policy, const char *why)
{
	struct opa_result result = { .failed = why };

	return give(w, policy, &result, 0);
}

/* --- authorizers ---------------------------------------------------------------------------------------------------- */

static int send_dial(void *arg, uint64_t id, const char *address)
{
	struct policy *p = arg;
	struct ipc_dial message = { .id = id, .address = address };

	return ipc_send(worker_supervisor(p->worker), IPC_MSG_DIAL, &message, -1);
}

static struct authorizer *authorizer_at(struct policy *p, const char *address)
{
	size_t length = strlen(address);
	struct authorizers *a;

	HASH_FIND_STR(p->authorizers, address, a);
	if (a)
		return a->authorizer;
	a = calloc(1, sizeof(*a) + length + 1);
	if (!a)
		return NULL;
	memcpy(a->address, address, length);
	a->authorizer = authorizer_new(worker_base(p->worker), address, send_dial, p);
	if (a->authorizer)
		HASH_ADD_KEYPTR(hh, p->authorizers, a->address, length, a);
	if (a->authorizer && a->hh.tbl)
		return a->authorizer;
	authorizer_free(a->authorizer);
	free(a);
	return NULL;
}

void pending_dialed(struct policy *p, uint64_t id, int *fd, const char *error)
{
	struct authorizers *a, *next;

	HASH_ITER(hh, p->authorizers, a, next)
		if (authorizer_dialed(a->authorizer, id, *fd, error)) {
			*fd = -1;
			return;
		}
}

static bool names(const struct config *config, const char *address)
{
	for (size_t i = 0; config && i < config->n_policies; i++)
		if (config->policies[i].authorizer.address && !strcmp(config->policies[i].authorizer.address, address))
			return true;
	return false;
}

void pending_sweep(struct policy *p)
{
	struct authorizers *a, *next;

	HASH_ITER(hh, p->authorizers, a, next) {
		if (names(p->generations.committed.object, a->address) || names(p->generations.previous.object, a->address) ||
		    !authorizer_idle(a->authorizer))
			continue;
		HASH_DEL(p->authorizers, a);
		authorizer_free(a->authorizer);
		free(a);
	}
}

/* --- asking --------------------------------------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct opa_result *result)
{
	struct pending *w = arg;
	bool kept;

	if (!result->failed && w->cache_key)
		answers_put(w->policy->answers, w->cache_key, result, policy_now(), w->cache_ms);
	kept = give(w, w->asking, result, result->failed ? 0 : w->cache_ms);
	asking_clear(w);
	if (kept && !w->forgotten)
		run(w);
	else
		pending_free(w);
}

/* True: an answer is known at once, from the cache or since nobody can be asked; false: it comes later, the pending
 * question may be gone already. */
static bool ask_now(struct pending *w, const struct ipc_question *q, const struct config_policy *policy)
{
	const struct config_authorizer *a = &policy->authorizer;
	struct authorizer *authorizer = authorizer_at(w->policy, a->address);
	char *body = opa_input(q);
	const struct opa_result *known = NULL;
	uint32_t left = 0;
	bool asked;

	asking_clear(w);
	w->asking = strdup(policy->name);
	w->cache_ms = a->cache;
	if (body && a->cache)
		w->cache_key = answers_key(a->address, a->path, body);
	if (w->cache_key)
		known = answers_get(w->policy->answers, w->cache_key, policy_now(), &left);
	if (known) {
		free(body);
		if (!give(w, policy->name, known, left))
			give_failed(w, policy->name, "out of memory");
		return true;
	}
	asked = authorizer && body && w->asking && authorizer_ask(authorizer, a->path, body, a->timeout, on_answer, w);
	free(body);
	if (!asked)
		give_failed(w, policy->name, "not asked: too many questions wait");
	return !asked;
}

/* Judges anew with what is known now, until it is decided or waits again. Ends w when it is decided. */
static void run(struct pending *w)
{
	static struct ipc_arena *arena;
	const struct config_policy *ask;
	union ipc_any m;
	const char *why;

	if (!arena && !(arena = ipc_arena_new())) {
		pending_free(w);
		return;
	}
	for (size_t before = 0, n = 1;; before = n) {
		if (ipc_decode(w->message, (size_t)w->length, arena, &m, &why) < 0)
			break;
		m.question.deadline = w->deadline;
		if (verdict_give(w->policy, &m.question, w->given ? &w->given->answer : NULL, &ask) == ASSESS_DONE)
			break;
		if (!ask_now(w, &m.question, ask))
			return;
		n = 0;
		for (const struct assess_answer *a = w->given ? &w->given->answer : NULL; a; a = a->next)
			n++;
		if (n == before)       /* out of memory: no answer can be kept */
			break;
	}
	pending_free(w);
}

/* --- questions ------------------------------------------------------------------------------------------------------ */

static struct pending *find(struct policy *p, const struct ipc_question *q)
{
	struct pending_key key = { .id = q->id, .tunnel = q->tunnel };
	struct pending *w = NULL;

	if (p->pending)
		HASH_FIND(hh, p->pending, &key, sizeof(key), w);
	return w;
}

bool pending_repeat(struct policy *p, const struct ipc_question *q)
{
	struct pending *w = find(p, q);

	if (w)
		w->deadline = q->deadline;
	return w != NULL;
}

void pending_begin(struct policy *p, const struct ipc_question *q, const struct config_policy *ask)
{
	static uint8_t encoded[IPC_MESSAGE_MAX];
	int length = ipc_encode(IPC_MSG_QUESTION, q, encoded, sizeof(encoded));
	struct pending *w = length > 0 ? calloc(1, sizeof(*w) + (size_t)length) : NULL;

	if (!w)
		return;
	w->key = (struct pending_key){ .id = q->id, .tunnel = q->tunnel };
	w->policy = p;
	w->deadline = q->deadline;
	w->length = length;
	memcpy(w->message, encoded, (size_t)length);
	HASH_ADD(hh, p->pending, key, sizeof(w->key), w);
	if (!w->hh.tbl) {
		free(w);
		return;
	}
	if (ask_now(w, q, ask))
		run(w);
}

void pending_forget(struct policy *p, uint32_t tunnel)
{
	struct pending *w, *next;

	HASH_ITER(hh, p->pending, w, next)
		if (w->key.tunnel == tunnel) {
			/* its id may come again, from the new worker: it must not be found any more */
			HASH_DEL(p->pending, w);
			w->key.tunnel = UINT32_MAX - 1;
			w->forgotten = true;
			HASH_ADD(hh, p->pending, key, sizeof(w->key), w);
		}
}
