/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/sweep.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLICE_NS (8 * 1000 * 1000)

static const struct timeval at_once;      /* but after what has come in meanwhile */

struct part { struct version *version; struct compose *compose; struct part *next; };

struct sweep {
	struct sweep_target *targets;
	size_t n, at;
	struct compose_inputs inputs;
	struct config_report report;
	struct part *parts;               /* one per version */
	char *nothing;
	struct event *turn;
	bool all;
	sweep_each *each;
	sweep_done *done;
	void *arg;
};

static void free_targets(struct sweep_target *targets, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(targets[i].node);
		version_release(targets[i].version);
	}
	free(targets);
}

void sweep_free(struct sweep *s)
{
	if (!s)
		return;
	for (struct part *p = s->parts, *next; p; p = next) {
		next = p->next;
		compose_free(p->compose);
		version_release(p->version);
		free(p);
	}
	if (s->turn)
		event_free(s->turn);
	free_targets(s->targets, s->n);
	compose_inputs_free(&s->inputs);
	config_report_free(&s->report);
	free(s->nothing);
	free(s);
}

/* NULL: the document cannot be composed at all. */
static struct compose *compose_of(struct sweep *s, struct version *version)
{
	for (struct part *p = s->parts; p; p = p->next)
		if (p->version == version)
			return p->compose;
	struct part *p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	*p = (struct part){.version = version_keep(version), .next = s->parts};
	p->compose = compose_new(version->document, &s->inputs, &s->report);
	s->parts = p;
	return p->compose;
}

static void one(struct sweep *s, const struct sweep_target *t)
{
	ssize_t i = document_node(t->version->document, t->node);
	struct compose *c = compose_of(s, t->version);
	char *text = NULL;

	if (i >= 0 && c)
		text = compose_node(c, (size_t)i, &s->report);
	else if (i < 0 && !s->nothing)
		s->nothing = compose_nothing(&s->inputs);
	s->each(s->arg, t, i >= 0 ? text : s->nothing);
	free(text);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void finish(struct sweep *s)
{
	for (struct part *p = s->all ? s->parts : NULL; p; p = p->next)
		if (p->compose)
			compose_check_rest(p->compose, &s->report);
	s->done(s->arg, &s->report);
	sweep_free(s);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct sweep *s = arg;
	int64_t until = now_ns() + SLICE_NS;
	(void)fd, (void)what;

	while (s->at < s->n && now_ns() < until)
		one(s, &s->targets[s->at++]);
	if (s->at < s->n)
		event_add(s->turn, &at_once);
	else
		finish(s);
}

struct sweep *sweep_start(struct event_base *base, struct kv *kv, struct sweep_target *targets, size_t n, bool all, sweep_each *each,
                          sweep_done *done, void *arg)
{
	struct sweep *s = calloc(1, sizeof(*s));

	if (!s) {
		free_targets(targets, n);
		return NULL;
	}
	*s = (struct sweep){.targets = targets, .n = n, .all = all, .each = each, .done = done, .arg = arg};
	compose_inputs_read(kv, &s->inputs);
	s->turn = event_new(base, -1, 0, on_turn, s);
	if (!s->turn) {
		sweep_free(s);
		return NULL;
	}
	event_add(s->turn, &at_once);
	return s;
}
