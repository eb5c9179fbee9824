/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/keeper_client.h"
#include "ipc/log.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define TEXT_IN_MESSAGE (32u * 1024)
#define TEXT_MAX (16u << 20)
#define ARGS_MAX 4
#define OPEN_MAX 4096
#define LIMIT_S 20                    /* also while there is no keeper: it may be being replaced */

struct question {
	TAILQ_ENTRY(question) link;
	struct keeper_client *keeper;
	struct event *limit;
	uint64_t id;
	char *op, *args[ARGS_MAX], *text;
	size_t n_args, length;
	keeper_done *done;
	void *arg;
};

struct keeper_client {
	struct event_base *base;
	struct ipc_channel *channel;
	uint64_t last;
	unsigned n;
	TAILQ_HEAD(, question) questions;
};

static void question_free(struct question *q)
{
	free(q->op);
	for (size_t i = 0; i < q->n_args; i++)
		free(q->args[i]);
	free(q->text);
	if (q->limit)
		event_free(q->limit);
	free(q);
}

static void settle(struct question *q, const char *text, const char *error)
{
	keeper_done *done = q->done;
	void *arg = q->arg;
	TAILQ_REMOVE(&q->keeper->questions, q, link);
	q->keeper->n--;
	question_free(q);
	done(arg, text, error);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct question *q = arg;
	(void)fd, (void)what;
	log_warn("keeper did not answer", "op=%s", log_value(q->op));
	settle(q, NULL, "the keeper of keys does not answer");
}

static void ask(struct question *q)
{
	struct ipc_channel *channel = q->keeper->channel;
	struct ipc_keeper_request m = {.id = q->id, .op = q->op, .text = q->text,
	                               .args = {.v = (const char **)(uintptr_t)q->args, .n = q->n_args}};
	int fd = -1;
	if (!channel)
		return;
	if (q->length > TEXT_IN_MESSAGE) {
		fd = memfd_sealed("hermes-keeper", q->text, q->length);
		m.text = NULL;
	}
	int error = q->length > TEXT_IN_MESSAGE && fd < 0 ? fd : ipc_send(channel, IPC_MSG_KEEPER_REQUEST, &m, fd);
	if (fd >= 0)
		close(fd);
	if (error)
		log_warn("keeper not asked", "op=%s error=%s", log_value(q->op), log_value(strerror(-error)));
}

static struct question *make_question(struct keeper_client *k, const char *op, const char *const *args, size_t n_args,
                                      const char *text, size_t length)
{
	struct question *q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->keeper = k;
	q->id = ++k->last;
	q->op = strdup(op);
	q->text = text ? strndup(text, length) : NULL;
	q->length = text ? length : 0;
	bool failed = !q->op || (text && !q->text);
	for (; !failed && q->n_args < n_args && q->n_args < ARGS_MAX; q->n_args++)
		failed = !(q->args[q->n_args] = strdup(args[q->n_args]));
	q->limit = evtimer_new(k->base, on_limit, q);
	if (!failed && q->limit)
		return q;
	question_free(q);
	return NULL;
}

void keeper_ask(struct keeper_client *k, const char *op, const char *const *args, size_t n_args, const char *text, size_t length,
                keeper_done *done, void *arg)
{
	struct question *q = k->n < OPEN_MAX ? make_question(k, op, args, n_args, text, length) : NULL;
	if (!q) {
		done(arg, NULL, "the keeper of keys has too much to do");
		return;
	}
	q->done = done;
	q->arg = arg;
	TAILQ_INSERT_TAIL(&k->questions, q, link);
	k->n++;
	evtimer_add(q->limit, &(struct timeval){.tv_sec = LIMIT_S});
	ask(q);
}

static void answer(struct question *q, const struct ipc_keeper_reply *m, int fd)
{
	const void *data = NULL;
	size_t length = 0;
	char *copy = NULL;
	if (fd < 0 || m->error) {
		settle(q, m->text ? m->text : "", m->error);
		return;
	}
	if (!memfd_map(fd, TEXT_MAX, &data, &length) && (copy = malloc(length + 1))) {
		memcpy(copy, data ? data : "", length);
		copy[length] = '\0';
	}
	if (data)
		memfd_unmap(data, length);
	settle(q, copy, copy ? NULL : "the keeper's answer could not be read");
	free(copy);
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	struct keeper_client *k = arg;
	struct question *q;
	(void)channel;
	if (type != IPC_MSG_KEEPER_REPLY)
		return;
	TAILQ_FOREACH(q, &k->questions, link)
		if (q->id == message->keeper_reply.id) {
			answer(q, &message->keeper_reply, *fd);
			return;
		}
}

/* What it had not answered goes to the one that comes in its place. */
static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct keeper_client *k = arg;
	log_warn("keeper gone", "reason=%s", log_value(reason));
	if (k->channel == channel)
		k->channel = NULL;
	ipc_channel_free(channel);
}

void keeper_client_peer(struct keeper_client *k, int fd)
{
	struct question *q;
	if (k->channel)
		ipc_channel_free(k->channel);
	k->channel = ipc_channel_new(k->base, fd, IPC_CONTROLLER, 0, IPC_KEEPER, on_message, on_ended, k);
	TAILQ_FOREACH(q, &k->questions, link)
		ask(q);
}

struct keeper_client *keeper_client_new(struct event_base *base)
{
	struct keeper_client *k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->base = base;
	TAILQ_INIT(&k->questions);
	return k;
}

void keeper_client_free(struct keeper_client *k)
{
	if (!k)
		return;
	for (struct question *q; (q = TAILQ_FIRST(&k->questions));)
		settle(q, NULL, "the controller ends");
	if (k->channel)
		ipc_channel_free(k->channel);
	free(k);
}
