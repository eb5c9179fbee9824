/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/inquire.h"
#include "ipc/memfd.h"
#include "supervisor/clock.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ID ((uint64_t)1 << 62)     /* far from those of the admin socket */
#define ANSWER_MAX ((size_t)4 << 20)

struct inquiry {
	struct inquiries *all;
	uint64_t id;
	pid_t pid;                 /* who was asked; 0: nobody */
	inquired *done;
	void *arg;
	struct event *limit;
	LIST_ENTRY(inquiry) link;
};

struct inquiries {
	struct supervisor *supervisor;
	LIST_HEAD(, inquiry) list;
	uint64_t last;
};

struct inquiries *inquiries_new(struct supervisor *s)
{
	struct inquiries *all = calloc(1, sizeof(*all));
	if (all)
		*all = (struct inquiries){.supervisor = s, .last = FIRST_ID + (clock_ms() << 20)};    /* not those of a hermesd before us */
	return all;
}

static void inquiry_free(struct inquiry *q)
{
	LIST_REMOVE(q, link);
	event_free(q->limit);
	free(q);
}

void inquiries_free(struct inquiries *all)
{
	if (!all)
		return;
	for (struct inquiry *q; (q = LIST_FIRST(&all->list));)
		inquiry_free(q);
	free(all);
}

static void finish(struct inquiry *q, const char *json, const char *error)
{
	inquired *done = q->done;
	void *arg = q->arg;
	inquiry_free(q);
	done(arg, json, error);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct inquiry *q = arg;
	(void)fd;
	(void)what;
	finish(q, NULL, q->pid ? "it did not answer in time" : "it is not there just now");
}

int inquire(struct inquiries *all, struct child *child, const char *verb, const char *word, unsigned limit_ms, inquired *done,
            void *arg)
{
	struct ipc_admin_request m = {.id = ++all->last, .verb = verb, .args = {.v = &word, .n = word ? 1 : 0}};
	struct timeval limit = {.tv_sec = limit_ms / 1000, .tv_usec = (suseconds_t)(limit_ms % 1000) * 1000};
	struct inquiry *q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	*q = (struct inquiry){.all = all, .id = m.id, .done = done, .arg = arg};
	q->limit = evtimer_new(all->supervisor->base, on_limit, q);
	if (!q->limit) {
		free(q);
		return -ENOMEM;
	}
	LIST_INSERT_HEAD(&all->list, q, link);
	if (child && child->state != CHILD_STARTING && child_send(child, IPC_MSG_ADMIN_REQUEST, &m, -1))
		q->pid = child->pid;
	else
		limit = (struct timeval){0};
	event_add(q->limit, &limit);
	return 0;
}

void inquire_forget(struct inquiries *all, const void *arg)
{
	struct inquiry *q, *next;
	for (q = LIST_FIRST(&all->list); q; q = next) {
		next = LIST_NEXT(q, link);
		if (q->arg == arg)
			inquiry_free(q);
	}
}

bool inquire_replied(struct inquiries *all, struct child *child, const struct ipc_admin_reply *m, int fd)
{
	const void *data = NULL;
	size_t length = 0;
	char *copy = NULL;
	struct inquiry *q;
	if (m->id <= FIRST_ID)
		return false;
	LIST_FOREACH(q, &all->list, link)
		if (q->id == m->id && q->pid == child->pid)
			break;
	if (!q)
		return true;            /* too late */
	if (fd >= 0 && !memfd_map(fd, ANSWER_MAX, &data, &length))
		copy = strndup(data, length);
	memfd_unmap(data, length);
	if (m->status)
		finish(q, NULL, m->error ? m->error : "it refused");
	else
		finish(q, fd < 0 ? m->json ? m->json : "" : copy, NULL);
	free(copy);
	return true;
}
