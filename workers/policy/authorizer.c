/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/authorizer.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/policy/authz_reply.h"

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000

/* One question, waiting or on a connection. */
struct ask {
	TAILQ_ENTRY(ask) link;         /* in queue, while conn is NULL */
	struct authorizer *owner;
	struct conn *conn;
	struct event *timer;
	char *data;                    /* the request */
	size_t length;
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
	int fd;
	struct event *readable, *writable;
	struct ask *ask;
	size_t sent;
	struct authz_reply reply;
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
	free(ask->data);
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

	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	if (c->fd >= 0)
		close(c->fd);
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

/* The connection is of no more use. A question that saw nothing come back goes to the head of the queue, once: the
 * authorizer may have closed the idle connection just when we wrote, and asking it twice does no harm. */
static void conn_lost(struct conn *c, const char *why)
{
	struct ask *ask = c->ask;
	bool begun = authz_reply_begun(&c->reply);

	c->ask = NULL;
	struct authorizer *a = c->owner;
	conn_free(c);
	if (!ask)
		return;
	ask->conn = NULL;
	TAILQ_INSERT_HEAD(&a->queue, ask, link);
	a->n_queue++;
	if (begun || ask->repeated)
		ask_fail(ask, why);
	else
		ask->repeated = true;
}

static void conn_answered(struct conn *c, bool reusable)
{
	struct opa_result result;
	struct ask *ask = c->ask;

	if (c->reply.state != AUTHZ_FAILED && c->reply.status != 200)
		log_debug("authorizer answered", "address=%s status=%u", log_value(c->owner->address), c->reply.status);
	if (c->reply.state == AUTHZ_FAILED)
		result = (struct opa_result){ .failed = c->reply.error };
	else if (c->reply.status != 200)
		result = (struct opa_result){ .failed = "answered with a status other than 200" };
	else
		opa_result_parse(c->reply.body, c->reply.n_body, &result);
	c->ask = NULL;
	ask->conn = NULL;
	/* back to the queue for a moment, where ask_finish() takes it from: the connection must be settled before anybody
	 * is told, since that may ask the next question */
	TAILQ_INSERT_HEAD(&c->owner->queue, ask, link);
	c->owner->n_queue++;
	if (reusable && c->reply.keep_alive && c->reply.state == AUTHZ_DONE)
		set_state(c, CONN_IDLE);
	else
		conn_free(c);
	ask_finish(ask, &result);
	opa_result_clear(&result);
}

static void conn_read(struct conn *c)
{
	char buffer[16384];
	ssize_t n = recv(c->fd, buffer, sizeof(buffer), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || c->state != CONN_BUSY) {      /* the end, or words that nobody asked for */
		conn_lost(c, "closed the connection before it had answered");
		return;
	}
	size_t taken = authz_reply_feed(&c->reply, buffer, (size_t)n);
	if (c->reply.state == AUTHZ_DONE || c->reply.state == AUTHZ_FAILED)
		conn_answered(c, taken == (size_t)n && c->sent == c->ask->length);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct authorizer *a = c->owner;

	(void)fd, (void)what;
	conn_read(c);
	pump(a);
}

/* False: the connection is gone. */
static bool conn_write(struct conn *c)
{
	struct ask *ask = c->ask;
	ssize_t n = send(c->fd, ask->data + c->sent, ask->length - c->sent, MSG_NOSIGNAL);

	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		conn_lost(c, "closed the connection");
		return false;
	}
	c->sent += n > 0 ? (size_t)n : 0;
	if (c->sent < ask->length)
		event_add(c->writable, NULL);
	return true;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct authorizer *a = c->owner;

	(void)fd, (void)what;
	if (c->state == CONN_BUSY && c->sent < c->ask->length && !conn_write(c))
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
	c->fd = -1;
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
	c->fd = fd;
	if (evutil_make_socket_nonblocking(fd) < 0)
		return false;
	c->readable = event_new(c->owner->base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(c->owner->base, fd, EV_WRITE, on_writable, c);
	set_state(c, CONN_IDLE);
	return c->readable && c->writable && !event_add(c->readable, NULL);
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

static struct conn *idle_conn(struct authorizer *a)
{
	struct conn *c;

	TAILQ_FOREACH(c, &a->conns, link)
		if (c->state == CONN_IDLE)
			return c;
	return NULL;
}

static void start(struct conn *c, struct ask *ask)
{
	struct authorizer *a = c->owner;

	TAILQ_REMOVE(&a->queue, ask, link);
	a->n_queue--;
	ask->conn = c;
	c->ask = ask;
	c->sent = 0;
	authz_reply_reset(&c->reply);
	set_state(c, CONN_BUSY);
	conn_write(c);
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
		ask->repeated = true;
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
	ask->data = opa_request(a->address, path, body, &ask->length);
	ask->timer = evtimer_new(a->base, on_timeout, ask);
	if (!ask->data || !ask->timer || evtimer_add(ask->timer, &limit) < 0) {
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
	while ((c = TAILQ_FIRST(&a->conns))) {
		if (c->ask)
			c->ask->repeated = true;
		conn_lost(c, "no longer configured");
	}
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
