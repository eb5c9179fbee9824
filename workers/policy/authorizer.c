/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/authorizer.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ipc/http_client.h"
#include "ipc/log.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define ANSWER_MAX (64u * 1024)
#define REQUEST_LIMIT_MS 3600000u

/* One question, waiting or on a connection. */
struct ask {
	TAILQ_ENTRY(ask) link;         /* in queue, while conn is NULL */
	struct authorizer *owner;
	struct conn *conn;
	struct event *timer;
	char *path, *body;
	bool repeated;                 /* its connection was gone before a byte came back: tried once more */
	authorizer_done *done;
	void *arg;
};
TAILQ_HEAD(asks, ask);

enum conn_state { CONN_DIALING, CONN_IDLE, CONN_BUSY };

struct conn {
	TAILQ_ENTRY(conn) link;
	struct authorizer *owner;
	enum conn_state state;
	uint64_t id;                   /* of the DIAL */
	struct http_client *http;      /* NULL while CONN_DIALING */
	struct ask *ask;
};
TAILQ_HEAD(conns, conn);

struct authorizer {
	struct event_base *base;
	char *address;
	authorizer_dial *dial;
	void *arg;
	struct asks queue;
	struct conns conns;
	unsigned n_queue, n_conns, n_dialing, n_busy;
	struct event *backoff;         /* pending: no dialling now */
	unsigned delay_ms;             /* the next back-off; 0: the last dial went well */
	bool ending;
};

static void pump(struct authorizer *a);

static struct timeval after(unsigned ms)
{
	return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000 };
}

/* --- questions ------------------------------------------------------------------------------------------------------ */

static void ask_free(struct ask *ask)
{
	if (ask->timer)
		event_free(ask->timer);
	free(ask->path);
	free(ask->body);
	free(ask);
}

/* Off the queue or its connection; tells, and is gone. */
static void ask_finish(struct ask *ask, const struct opa_result *result)
{
	if (ask->conn) {
		ask->conn->ask = NULL;
	} else {
		TAILQ_REMOVE(&ask->owner->queue, ask, link);
		ask->owner->n_queue--;
	}
	ask->done(ask->arg, result);
	ask_free(ask);
}

static void ask_fail(struct ask *ask, const char *why)
{
	struct opa_result none = { .failed = why };

	ask_finish(ask, &none);
}

/* --- connections ---------------------------------------------------------------------------------------------------- */

static void conn_free(struct conn *c)
{
	struct authorizer *a = c->owner;

	http_client_free(c->http);
	TAILQ_REMOVE(&a->conns, c, link);
	a->n_conns--;
	a->n_dialing -= c->state == CONN_DIALING;
	a->n_busy -= c->state == CONN_BUSY;
	free(c);
}

static void set_state(struct conn *c, enum conn_state state)
{
	struct authorizer *a = c->owner;

	a->n_dialing += (state == CONN_DIALING) - (c->state == CONN_DIALING);
	a->n_busy += (state == CONN_BUSY) - (c->state == CONN_BUSY);
	c->state = state;
}

/* The question goes back to the head of the queue, from where ask_finish() takes it, or the next connection. */
static struct ask *conn_release(struct conn *c)
{
	struct authorizer *a = c->owner;
	struct ask *ask = c->ask;

	c->ask = NULL;
	ask->conn = NULL;
	TAILQ_INSERT_HEAD(&a->queue, ask, link);
	a->n_queue++;
	return ask;
}

/* The connection is of no more use, and its question has failed. */
static void conn_lost(struct conn *c, const char *why)
{
	struct ask *ask = c->ask ? conn_release(c) : NULL;

	conn_free(c);
	if (ask)
		ask_fail(ask, why);
}

static void conn_answered(struct conn *c, const struct http_answer *answer)
{
	struct opa_result result = {.failed = answer->reason};
	struct ask *ask = conn_release(c);

	if (!answer->error && answer->status != 200) {
		log_debug("authorizer answered", "address=%s status=%u", log_value(c->owner->address), answer->status);
		result.failed = "answered with a status other than 200";
	} else if (!answer->error) {
		opa_result_parse(answer->body, answer->length, &result);
	}
	/* the connection must be settled before anybody is told, since that may ask the next question */
	if (answer->reusable)
		set_state(c, CONN_IDLE);
	else
		conn_free(c);
	ask_finish(ask, &result);
	opa_result_clear(&result);
}

/* A question that saw nothing come back is asked once more: the authorizer may have closed the idle connection just when we
 * wrote, and asking it twice does no harm. */
static void on_answer(void *arg, const struct http_answer *answer)
{
	struct conn *c = arg;
	struct authorizer *a = c->owner;

	if (answer->error == -ENOTCONN && !c->ask->repeated) {
		conn_release(c)->repeated = true;
		conn_free(c);
	} else {
		conn_answered(c, answer);
	}
	pump(a);
}

/* --- dialling ------------------------------------------------------------------------------------------------------- */

static void back_off(struct authorizer *a, const char *error)
{
	struct timeval delay;

	a->delay_ms = a->delay_ms ? a->delay_ms * 2 : BACKOFF_FIRST_MS;
	if (a->delay_ms > BACKOFF_MAX_MS)
		a->delay_ms = BACKOFF_MAX_MS;
	if (a->delay_ms == BACKOFF_FIRST_MS)        /* once per outage */
		log_warn("authorizer unreachable", "address=%s error=%s", log_value(a->address), log_value(error));
	delay = after(a->delay_ms);
	event_add(a->backoff, &delay);
}

static void on_backoff_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	pump(arg);
}

static void dial(struct authorizer *a)
{
	static uint64_t last_id;       /* one row of ids over all authorizers */
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return;
	c->owner = a;
	c->id = ++last_id;
	c->state = CONN_DIALING;
	TAILQ_INSERT_TAIL(&a->conns, c, link);
	a->n_conns++;
	a->n_dialing++;
	int error = a->dial(a->arg, c->id, a->address);
	if (error) {
		conn_free(c);
		back_off(a, strerror(-error));
	}
}

static bool conn_open(struct conn *c, int fd)
{
	c->http = http_client_new(c->owner->base, fd, ANSWER_MAX);
	set_state(c, CONN_IDLE);
	return c->http != NULL;
}

bool authorizer_dialed(struct authorizer *a, uint64_t id, int fd, const char *error)
{
	struct conn *c;

	TAILQ_FOREACH(c, &a->conns, link)
		if (c->state == CONN_DIALING && c->id == id)
			break;
	if (!c)
		return false;
	if (fd < 0) {
		conn_free(c);
		back_off(a, error ? error : "no connection");
	} else if (!conn_open(c, fd)) {
		conn_free(c);
		back_off(a, "out of memory");
	} else {
		if (a->delay_ms)
			log_info("authorizer reachable again", "address=%s", log_value(a->address));
		a->delay_ms = 0;
	}
	pump(a);
	return true;
}

/* --- who goes where ------------------------------------------------------------------------------------------------- */

/* Those that the authorizer closed meanwhile go. */
static struct conn *idle_conn(struct authorizer *a)
{
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&a->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state == CONN_IDLE && http_client_usable(c->http))
			return c;
		if (c->state == CONN_IDLE)
			conn_free(c);
	}
	return NULL;
}

static void start(struct conn *c, struct ask *ask)
{
	struct authorizer *a = c->owner;
	const char *host = !strncmp(a->address, "unix:", 5) ? "localhost" : a->address;

	TAILQ_REMOVE(&a->queue, ask, link);
	a->n_queue--;
	ask->conn = c;
	c->ask = ask;
	set_state(c, CONN_BUSY);
	/* the question's own timer limits it */
	if (http_client_request(c->http, "POST", host, ask->path, NULL, ask->body, strlen(ask->body), REQUEST_LIMIT_MS, NULL,
	                        on_answer, c))
		conn_lost(c, "could not be asked");
}

/* Every waiting question that a connection is free for goes out; where there are more, more connections are dialled. */
static void pump(struct authorizer *a)
{
	struct conn *c;

	while (!a->ending && !TAILQ_EMPTY(&a->queue) && (c = idle_conn(a)))
		start(c, TAILQ_FIRST(&a->queue));
	while (!a->ending && a->n_queue > a->n_dialing && a->n_conns < AUTHORIZER_CONNECTIONS &&
	       !event_pending(a->backoff, EV_TIMEOUT, NULL)) {
		unsigned before = a->n_conns;
		dial(a);
		if (a->n_conns == before)
			return;
	}
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct ask *ask = arg;
	struct authorizer *a = ask->owner;

	(void)fd, (void)what;
	if (ask->conn) {
		/* what it may still say would be taken for the next answer */
		conn_lost(ask->conn, "timeout");
	} else {
		ask_fail(ask, "timeout");
	}
	pump(a);
}

bool authorizer_ask(struct authorizer *a, const char *path, const char *body, uint32_t timeout_ms,
                    authorizer_done *done, void *arg)
{
	struct timeval limit = after(timeout_ms);
	struct ask *ask;

	if (a->n_queue >= AUTHORIZER_QUEUE || !(ask = calloc(1, sizeof(*ask))))
		return false;
	ask->owner = a;
	ask->done = done;
	ask->arg = arg;
	ask->path = strdup(path);
	ask->body = strdup(body);
	ask->timer = evtimer_new(a->base, on_timeout, ask);
	if (!ask->path || !ask->body || !ask->timer || evtimer_add(ask->timer, &limit) < 0) {
		ask_free(ask);
		return false;
	}
	TAILQ_INSERT_TAIL(&a->queue, ask, link);
	a->n_queue++;
	pump(a);
	return true;
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

struct authorizer *authorizer_new(struct event_base *base, const char *address, authorizer_dial *dial_, void *arg)
{
	struct authorizer *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->base = base;
	a->dial = dial_;
	a->arg = arg;
	TAILQ_INIT(&a->queue);
	TAILQ_INIT(&a->conns);
	a->address = strdup(address);
	a->backoff = evtimer_new(base, on_backoff_over, a);
	if (a->address && a->backoff)
		return a;
	authorizer_free(a);
	return NULL;
}

void authorizer_free(struct authorizer *a)
{
	struct conn *c;

	if (!a)
		return;
	a->ending = true;
	while ((c = TAILQ_FIRST(&a->conns)))
		conn_lost(c, "no longer configured");
	while (!TAILQ_EMPTY(&a->queue))
		ask_fail(TAILQ_FIRST(&a->queue), "no longer configured");
	if (a->backoff)
		event_free(a->backoff);
	free(a->address);
	free(a);
}

const char *authorizer_address(const struct authorizer *a)
{
	return a->address;
}

bool authorizer_idle(const struct authorizer *a)
{
	return !a->n_queue && !a->n_busy;
}
