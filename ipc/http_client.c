/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/http_client.h"
#include "ipc/http_reply.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum client_state { CLIENT_IDLE, CLIENT_BUSY, CLIENT_ENDED };

struct http_client {
	enum client_state state;
	int fd;                       /* -1 when CLIENT_ENDED */
	struct event *readable, *writable, *timer;
	char *request;                /* while CLIENT_BUSY */
	size_t length, sent;
	int broken;                   /* writing failed: told by the event that this activates */
	bool streamed;
	http_answered *done;
	http_piece *piece;
	void *arg;
	bool calling, doomed;         /* within piece(): http_client_free() waits until that is through */
	struct http_reply reply;
};

static void end(struct http_client *c)
{
	if (c->state == CLIENT_ENDED)
		return;
	event_del(c->readable);
	event_del(c->writable);
	close(c->fd);
	c->fd = -1;
	c->state = CLIENT_ENDED;
}

static void drop_request(struct http_client *c)
{
	event_del(c->timer);
	event_del(c->writable);
	free(c->request);
	c->request = NULL;
}

/* Tells, when everything is settled: the callee may ask again, or free the client. */
static void finish(struct http_client *c, struct http_answer answer)
{
	char *body = c->reply.body;
	http_answered *done = c->done;
	void *arg = c->arg;

	answer.body = body && !answer.error ? body : "";
	answer.length = answer.error ? 0 : c->reply.n_body;
	answer.status = answer.error ? 0 : c->reply.status;
	c->reply.body = NULL;
	http_reply_clear(&c->reply);
	drop_request(c);
	if (answer.reusable)
		c->state = CLIENT_IDLE;
	else
		end(c);
	done(arg, &answer);
	free(body);
}

static void failed(struct http_client *c, int error, const char *reason)
{
	finish(c, (struct http_answer){.error = error, .reason = reason});
}

/* The connection is gone. Before a byte of the answer came it may have been closed as idle just when we wrote. */
static void lost(struct http_client *c)
{
	if (c->reply.begun)
		failed(c, -ECONNRESET, "closed the connection before it had answered");
	else
		failed(c, -ENOTCONN, "closed the connection before it had answered");
}

static void conclude(struct http_client *c, bool more)
{
	bool whole = c->sent == c->length && !more;

	if (c->reply.state == HTTP_FAILED)
		failed(c, c->reply.code, c->reply.error);
	else
		finish(c, (struct http_answer){.reusable = whole && c->reply.keep_alive});
}

static bool on_piece(void *arg, const char *data, size_t length)
{
	struct http_client *c = arg;

	return c->piece(c->arg, data, length) && !c->doomed;
}

static void take(struct http_client *c, const char *data, size_t length)
{
	c->calling = true;
	size_t taken = http_reply_feed(&c->reply, data, length);
	c->calling = false;
	if (c->doomed) {
		http_client_free(c);
		return;
	}
	/* the head of a streamed answer is there: the rest may take as long as it likes */
	if (c->streamed && c->reply.state >= HTTP_LENGTH && c->reply.state < HTTP_DONE)
		event_del(c->timer);
	if (c->reply.state == HTTP_DONE || c->reply.state == HTTP_FAILED)
		conclude(c, taken < length);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct http_client *c = arg;
	char buffer[16384];
	ssize_t n = recv(fd, buffer, sizeof(buffer), 0);

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (c->state == CLIENT_IDLE) {         /* the end, or words that nobody asked for */
		end(c);
	} else if (n > 0) {
		take(c, buffer, (size_t)n);
	} else {
		http_reply_eof(&c->reply);
		if (n == 0 && c->reply.state == HTTP_DONE)
			conclude(c, true);
		else
			lost(c);
	}
}

static void write_on(struct http_client *c)
{
	ssize_t n = send(c->fd, c->request + c->sent, c->length - c->sent, MSG_NOSIGNAL);

	/* what a peer said before it closed is heard first, by on_readable() */
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		return;
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		c->broken = errno;
		event_active(c->writable, EV_WRITE, 0);
		return;
	}
	c->sent += n > 0 ? (size_t)n : 0;
	if (c->sent < c->length && event_add(c->writable, NULL)) {
		c->broken = ENOMEM;
		event_active(c->writable, EV_WRITE, 0);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct http_client *c = arg;

	(void)fd, (void)what;
	if (c->state != CLIENT_BUSY)
		return;
	if (c->broken)
		lost(c);
	else if (c->sent < c->length)
		write_on(c);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	failed(arg, -ETIMEDOUT, "did not answer in time");
}

/* --- asking --------------------------------------------------------------------------------------------------------- */

static bool printable(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text <= ' ' || (unsigned char)*text >= 0x7f)
			return false;
	return true;
}

static char *compose(const char *method, const char *host, const char *path, const char *headers, const char *body,
                     size_t length, size_t *total)
{
	const char *more = headers ? headers : "";
	size_t size = strlen(method) + strlen(host) + strlen(path) + strlen(more) + length + 256;
	char *text = malloc(size);
	int n;

	if (!text)
		return NULL;
	n = snprintf(text, size, "%s %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: hermes/" HERMES_VERSION "\r\n%s%s", method,
	             *path == '/' ? "" : "/", path, host, more,
	             strcasestr(more, "accept:") ? "" : "Accept: application/json\r\n");
	if (body)
		n += snprintf(text + n, size - (size_t)n, "%sContent-Length: %zu\r\n",
		              strcasestr(more, "content-type:") ? "" : "Content-Type: application/json\r\n", length);
	n += snprintf(text + n, size - (size_t)n, "\r\n");
	if (body)
		memcpy(text + n, body, length);
	*total = (size_t)n + (body ? length : 0);
	return text;
}

int http_client_request(struct http_client *c, const char *method, const char *host, const char *path, const char *headers,
                        const char *body, size_t length, uint32_t timeout_ms, http_piece *piece, http_answered *done, void *arg)
{
	struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};

	if (c->state != CLIENT_IDLE)
		return c->state == CLIENT_BUSY ? -EBUSY : -ENOTCONN;
	if (!printable(method) || !printable(host) || !printable(path))
		return -EINVAL;
	c->request = compose(method, host, path, headers, body, length, &c->length);
	if (!c->request || evtimer_add(c->timer, &limit)) {
		free(c->request);
		c->request = NULL;
		return -ENOMEM;
	}
	c->sent = 0;
	c->broken = 0;
	c->streamed = piece != NULL;
	c->piece = piece;
	c->done = done;
	c->arg = arg;
	c->reply.piece = piece ? on_piece : NULL;
	c->reply.arg = c;
	http_reply_reset(&c->reply);
	c->state = CLIENT_BUSY;
	write_on(c);
	return 0;
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

struct http_client *http_client_new(struct event_base *base, int fd, size_t body_max)
{
	struct http_client *c = calloc(1, sizeof(*c));

	if (!c || evutil_make_socket_nonblocking(fd) < 0) {
		free(c);
		close(fd);
		return NULL;
	}
	c->fd = fd;
	c->reply.body_max = body_max;
	c->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->writable = event_new(base, fd, EV_WRITE, on_writable, c);
	c->timer = evtimer_new(base, on_timeout, c);
	if (c->readable && c->writable && c->timer && !event_add(c->readable, NULL))
		return c;
	http_client_free(c);
	return NULL;
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	if (c->calling) {
		c->doomed = true;
		return;
	}
	if (c->readable)
		event_free(c->readable);
	if (c->writable)
		event_free(c->writable);
	if (c->timer)
		event_free(c->timer);
	if (c->fd >= 0)
		close(c->fd);
	free(c->request);
	http_reply_clear(&c->reply);
	free(c);
}

bool http_client_usable(const struct http_client *c)
{
	return c->state == CLIENT_IDLE;
}
