/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/polls.h"
#include "workers/controller/nodes.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

struct poll {
	TAILQ_ENTRY(poll) link;
	struct waiters *waiters;
	struct api_request *request;
	struct event *timer;
	uint64_t have;
};

struct waiters {
	char name[NODES_NAME_MAX + 1];
	struct polls *polls;
	TAILQ_HEAD(, poll) queue;     /* the oldest first */
	unsigned n;
	UT_hash_handle hh;
};

struct polls {
	struct controller *controller;
	struct event_base *base;
	struct waiters *table;
	size_t n;
};

/* --- waiting ---------------------------------------------------------------------------------------------------------- */

/* Its request, which is the caller's to answer; where nobody waits for the node any more, w is gone. */
static struct api_request *poll_free(struct poll *p)
{
	struct waiters *w = p->waiters;
	struct polls *polls = w->polls;
	struct api_request *request = p->request;
	TAILQ_REMOVE(&w->queue, p, link);
	w->n--;
	polls->n--;
	if (!w->n) {
		HASH_DEL(polls->table, w);
		free(w);
	}
	event_free(p->timer);
	free(p);
	return request;
}

static void nothing_new(struct poll *p)
{
	api_reply(poll_free(p), 204, NULL);
}

static void on_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	nothing_new(arg);
}

static void on_gone(void *arg)
{
	poll_free(arg);
}

static struct waiters *find(const struct polls *polls, const char *name)
{
	struct waiters *w;
	HASH_FIND_STR(polls->table, name, w);
	return w;
}

static struct waiters *find_or_make(struct polls *polls, const char *name)
{
	struct waiters *w = find(polls, name);
	if (w || strlen(name) > NODES_NAME_MAX || !(w = calloc(1, sizeof(*w))))
		return w;
	strcpy(w->name, name);
	w->polls = polls;
	TAILQ_INIT(&w->queue);
	HASH_ADD_STR(polls->table, name, w);
	return w;
}

static bool wait_for_more(struct polls *polls, struct api_call *call, uint64_t have, uint64_t seconds)
{
	struct poll *p = calloc(1, sizeof(*p));
	struct event *timer = p ? evtimer_new(polls->base, on_over, p) : NULL;
	struct waiters *w = timer ? find_or_make(polls, call->node) : NULL;
	if (!w) {
		if (timer)
			event_free(timer);
		free(p);
		return false;
	}
	*p = (struct poll){.waiters = w, .request = call->request, .timer = timer, .have = have};
	TAILQ_INSERT_TAIL(&w->queue, p, link);
	w->n++;
	polls->n++;
	evtimer_add(timer, &(struct timeval){.tv_sec = (time_t)seconds});
	api_on_gone(call->request, on_gone, p);
	if (w->n > POLLS_PER_NODE)
		nothing_new(TAILQ_FIRST(&w->queue));
	return true;
}

/* --- answering -------------------------------------------------------------------------------------------------------- */

static uint64_t number_of(const struct kv_value *want)
{
	json_int_t number = want->revision ? json_integer_value(json_object_get(want->json, "number")) : 0;
	return number > 0 ? (uint64_t)number : 0;
}

/* What the node is to run, and for whom it is: the signature is over these too. */
static void answer(const struct polls *polls, struct api_request *request, const char *node, const struct kv_value *want)
{
	const struct config *config = polls->controller->config;
	json_t *json = json_copy(want->json);
	json_object_set_new(json, "node", json_string(node));
	json_object_set_new(json, "domain", config && config->domain ? json_string(config->domain) : json_null());
	api_reply(request, 200, json);
}

void polls_config(struct api_call *call)
{
	struct polls *polls = call->controller->polls;
	uint64_t have = api_query_u64(call, "have", 0), seconds = api_query_u64(call, "wait", 0);
	char key[NODES_NAME_MAX + 8];
	if (!call->node || !nodes_name_ok(call->node)) {
		api_error(call->request, 403, "forbidden", "a node asks for its own configuration; nodes/NAME/config shows it to operators");
		return;
	}
	nodes_heard(call->controller->nodes, call->node);
	snprintf(key, sizeof(key), "want/%s", call->node);
	struct kv_value want = kv_get(call->controller->kv, key);
	if (number_of(&want) > have)
		answer(polls, call->request, call->node, &want);
	else if (!seconds || !wait_for_more(polls, call, have, seconds < POLLS_WAIT_MAX ? seconds : POLLS_WAIT_MAX))
		api_reply(call->request, 204, NULL);
}

static void on_want(void *arg, const struct kv_value *want)
{
	struct polls *polls = arg;
	const char *name = strchr(want->key, '/') + 1;
	struct waiters *w = find(polls, name);
	struct poll *next;
	for (struct poll *p = w ? TAILQ_FIRST(&w->queue) : NULL; p; p = next) {
		next = TAILQ_NEXT(p, link);
		if (number_of(want) > p->have)
			answer(polls, poll_free(p), name, want);
	}
}

/* A revoked node's end at once. */
static void on_node(void *arg, const char *name)
{
	struct polls *polls = arg;
	struct waiters *w = find(polls, name);
	struct poll *next;
	if (!w || nodes_status(polls->controller->nodes, name) != NODE_REVOKED)
		return;
	for (struct poll *p = TAILQ_FIRST(&w->queue); p; p = next) {
		next = TAILQ_NEXT(p, link);
		api_error(poll_free(p), 403, "revoked", "node %s is revoked", name);
	}
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

struct polls *polls_new(struct controller *controller, struct event_base *base)
{
	struct polls *polls = calloc(1, sizeof(*polls));
	if (polls)
		*polls = (struct polls){.controller = controller, .base = base};
	return polls;
}

void polls_start(struct polls *polls)
{
	kv_watch(polls->controller->kv, "want/", on_want, polls);
	nodes_watch(polls->controller->nodes, on_node, polls);
}

size_t polls_waiting(const struct polls *polls)
{
	return polls->n;
}

void polls_end(struct polls *polls)
{
	while (polls->table)
		nothing_new(TAILQ_FIRST(&polls->table->queue));
}

/* Their requests are the server's, which ends later. */
void polls_free(struct polls *polls)
{
	if (!polls)
		return;
	polls_end(polls);
	free(polls);
}
