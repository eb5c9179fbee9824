#include "supervisor/explain.h"
#include "ipc/json.h"
#include "store/config.h"
#include "supervisor/clock.h"
#include "supervisor/explain_args.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_LIMIT_S 5
#define OPEN_MAX 32

/* A question on its way round. */
struct asked {
	struct explain *explain;
	uint64_t id;
	struct json question;        /* as JSON, for the answer */
	explain_done *done;
	void *arg;
	struct event *limit;
	LIST_ENTRY(asked) link;
};

struct explain {
	struct supervisor *supervisor;
	LIST_HEAD(, asked) open;
	unsigned count;
	uint64_t last_id;
};

struct explain *explain_new(struct supervisor *s)
{
	struct explain *e = calloc(1, sizeof(*e));
	if (e)
		e->supervisor = s;
	return e;
}

static void asked_free(struct asked *a)
{
	LIST_REMOVE(a, link);
	a->explain->count--;
	if (a->limit)
		event_free(a->limit);
	json_free(&a->question);
	free(a);
}

void explain_free(struct explain *e)
{
	if (!e)
		return;
	for (struct asked *a; (a = LIST_FIRST(&e->open));)
		asked_free(a);
	free(e);
}

bool explain_idle(const struct explain *e)
{
	return !e->count;
}

void explain_forget(struct explain *e, const void *arg)
{
	struct asked *a;
	LIST_FOREACH(a, &e->open, link)
		if (a->arg == arg) {
			asked_free(a);
			return;
		}
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct asked *a = arg;
	(void)fd;
	(void)what;
	explain_done *done = a->done;
	void *asker = a->arg;
	asked_free(a);
	done(asker, 1, NULL, "policy and router did not answer within 5 s: see `hermes-admin workers list`");
}

/* --- JSON ----------------------------------------------------------------------------------------------------------- */

static void put_pairs(struct json *j, const char *key, const struct ipc_pairs *pairs)
{
	json_object(j, key);
	for (size_t i = 0; i < pairs->n; i++)
		json_str(j, pairs->v[i].name, pairs->v[i].value);
	json_end(j);
}

static void put_strs(struct json *j, const char *key, const struct ipc_strs *strs)
{
	json_array(j, key);
	for (size_t i = 0; i < strs->n; i++)
		json_str(j, NULL, strs->v[i]);
	json_end(j);
}

static void put_question(struct json *j, const struct ipc_question *q)
{
	json_object(j, NULL);
	json_str(j, "listener", q->listener);
	json_str(j, "peer", q->peer);
	json_str(j, "user", q->user);
	json_str(j, "method", q->method);
	json_str(j, "protocol", q->protocol);
	json_str(j, "scheme", q->scheme);
	json_str(j, "authority", q->authority);
	json_str(j, "path", q->path);
	json_str(j, "source", q->source);
	json_int(j, "time", q->now);
	put_pairs(j, "headers", &q->headers);
	if (q->inner) {
		json_object(j, "ip");
		json_uint(j, "protocol", q->ip_protocol);
		json_str(j, "source", q->ip_source);
		json_str(j, "destination", q->ip_destination);
		json_uint(j, "port", q->ip_port);
		json_end(j);
	}
	json_end(j);
}

static void put_decision(struct json *j, const struct asked *a, const struct ipc_decision *m)
{
	json_object(j, NULL);
	json_raw(j, "question", a->question.data);
	json_uint(j, "generation", m->generation);
	json_bool(j, "accepted", m->status == 0);
	json_uint(j, "status", m->status);
	json_str(j, "error", m->error);
	json_str(j, "detail", m->detail);
	put_strs(j, "policies", &m->policies);
	json_str(j, "route", m->route);
	json_str(j, "cluster", m->cluster);
	put_pairs(j, "add_headers", &m->add_headers);
	put_strs(j, "remove_headers", &m->remove_headers);
	json_uint(j, "retry_attempts", m->retry_attempts);
	json_uint(j, "per_try_timeout_ms", m->per_try_timeout);
	json_uint(j, "request_timeout_ms", m->request_timeout);
	json_uint(j, "idle_timeout_ms", m->idle_timeout);
	json_uint(j, "valid_ms", m->valid_ms);
	put_strs(j, "trace", &m->trace);
	json_end(j);
}

/* --- question and answer -------------------------------------------------------------------------------------------- */

void explain_ask(struct explain *e, const struct ipc_strs *args, explain_done *done, void *arg)
{
	struct supervisor *s = e->supervisor;
	struct explain_args parsed;
	char error[256] = "";
	struct child *policy = pool_find(s->pool, IPC_POLICY, 0);
	if (explain_parse(args, s->in_force.config, &parsed, error, sizeof(error))) {
		done(arg, 2, NULL, error);
		return;
	}
	struct asked *a = e->count < OPEN_MAX && policy && s->in_force.number ? calloc(1, sizeof(*a)) : NULL;
	if (!a) {
		done(arg, 1, NULL, "not ready, or too many open questions: try again");
		goto out;
	}
	struct timeval limit = {.tv_sec = ANSWER_LIMIT_S};
	*a = (struct asked){.explain = e, .id = ++e->last_id, .done = done, .arg = arg};
	LIST_INSERT_HEAD(&e->open, a, link);
	e->count++;
	parsed.question.id = a->id;
	parsed.question.generation = s->in_force.number;
	parsed.question.tunnel = IPC_EXPLAIN;
	parsed.question.deadline = clock_ms() + ANSWER_LIMIT_S * 1000;
	put_question(&a->question, &parsed.question);
	a->limit = evtimer_new(s->base, on_limit, a);
	if (!a->limit || a->question.failed || event_add(a->limit, &limit) ||
	    !child_send(policy, IPC_MSG_QUESTION, &parsed.question, -1)) {
		asked_free(a);
		done(arg, 1, NULL, "policy did not take the question: see `hermes-admin workers list`");
	}
out:
	explain_args_clear(&parsed);
}

void explain_decided(struct explain *e, const struct ipc_decision *m)
{
	struct asked *a;
	LIST_FOREACH(a, &e->open, link)
		if (a->id == m->id)
			break;
	if (!a)
		return;              /* too late */
	struct json j = JSON_INIT;
	explain_done *done = a->done;
	void *asker = a->arg;
	put_decision(&j, a, m);
	asked_free(a);
	if (j.failed)
		done(asker, 1, NULL, "out of memory");
	else
		done(asker, 0, j.data, NULL);
	json_free(&j);
}
