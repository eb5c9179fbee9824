#include "workers/telemetry/http.h"
#include "ipc/log.h"
#include "workers/telemetry/http_request.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 64
#define ACCEPT_PAUSE 1        /* s after accept() failed for want of descriptors or memory */

/* An exposition that one or more connections are sending. */
struct body {
	unsigned users;
	uint64_t made;            /* CLOCK_MONOTONIC, s */
	enum metrics_format format;
	struct text text;
};

struct connection {
	TAILQ_ENTRY(connection) link;
	struct http_server *server;
	int fd;
	struct event *readable, *writable;
	bool sending, close;
	char in[HTTP_HEAD_MAX];
	size_t in_length;
	char head[1024];          /* of the answer, with its short body; then `body` follows */
	size_t head_length, sent;
	struct body *body;
	uint64_t deadline;        /* of a whole head, or of the answer; CLOCK_MONOTONIC, s */
};

struct http_server {
	struct event_base *base;
	http_metrics *metrics;
	void *arg;
	int fd;
	struct event *acceptable, *pause;
	TAILQ_HEAD(, connection) connections;
	unsigned n;
	struct body *last;        /* the newest exposition that is still being sent; not counted as its user */
};

static uint64_t now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec;
}

/* --- bodies -------------------------------------------------------------------------------------------------------- */

/* Those who ask within a second share one exposition while it is being sent: many slow readers do not multiply memory. */
static struct body *body_get(struct http_server *server, const struct metrics *metrics, enum metrics_format format)
{
	struct body *body = server->last;
	if (body && body->format == format && body->made == now()) {
		body->users++;
		return body;
	}
	body = calloc(1, sizeof(*body));
	if (!body)
		return NULL;
	*body = (struct body){.users = 1, .made = now(), .format = format};
	if (metrics_exposition(metrics, format, &body->text)) {
		text_free(&body->text);
		free(body);
		return NULL;
	}
	server->last = body;
	return body;
}

static void body_release(struct http_server *server, struct body *body)
{
	if (!body || --body->users)
		return;
	if (server->last == body)
		server->last = NULL;
	text_free(&body->text);
	free(body);
}

/* --- connections --------------------------------------------------------------------------------------------------- */

static void resume_accepting(struct http_server *server)
{
	if (server->acceptable && !evtimer_pending(server->pause, NULL))
		event_add(server->acceptable, NULL);
}

static void connection_free(struct connection *c)
{
	struct http_server *server = c->server;
	event_free(c->readable);
	event_free(c->writable);
	close(c->fd);
	body_release(server, c->body);
	TAILQ_REMOVE(&server->connections, c, link);
	server->n--;
	free(c);
	resume_accepting(server);
}

static void wait_for(struct event *event)
{
	static const struct timeval limit = {.tv_sec = HTTP_WAIT};
	event_add(event, &limit);
}

static void wait_for_request(struct connection *c)
{
	c->deadline = now() + HTTP_WAIT;
	wait_for(c->readable);
}

static const char *reason_phrase(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 431: return "Request Header Fields Too Large";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	}
	return "Internal Server Error";
}

/* Starts the answer. text: its body where c->body is not set. */
static void answer(struct connection *c, int status, const char *type, const char *text, bool without_body)
{
	char date[40] = "";
	struct tm tm;
	time_t t = time(NULL);
	if (gmtime_r(&t, &tm))
		strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	size_t length = c->body ? c->body->text.length : strlen(text);
	int n = snprintf(c->head, sizeof(c->head),
	                 "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
	                 "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n%s%s\r\n%s",
	                 status, reason_phrase(status), date, type, length, status == 405 ? "Allow: GET, HEAD\r\n" : "",
	                 c->close ? "Connection: close\r\n" : "", c->body || without_body ? "" : text);
	c->head_length = (size_t)n < sizeof(c->head) ? (size_t)n : sizeof(c->head) - 1;
	c->sent = 0;
	if (without_body) {
		body_release(c->server, c->body);
		c->body = NULL;
	}
	c->sending = true;
	c->deadline = now() + HTTP_WRITE_TOTAL;
}

static void answer_error(struct connection *c, int status, bool without_body)
{
	char text[64];
	snprintf(text, sizeof(text), "%d %s\n", status, reason_phrase(status));
	answer(c, status, "text/plain; charset=utf-8", text, without_body);
}

static bool path_is(const struct http_request *request, const char *path)
{
	return request->path_length == strlen(path) && !memcmp(request->path, path, request->path_length);
}

static void serve(struct connection *c, const struct http_request *request)
{
	struct metrics metrics;
	bool in_force = c->server->metrics(c->server->arg, &metrics), bare = request->method == HTTP_HEAD;
	enum metrics_format format = request->plain ? METRICS_PROMETHEUS : METRICS_OPENMETRICS;
	if (request->method == HTTP_OTHER)
		answer_error(c, 405, bare);
	else if (path_is(request, "/health"))
		answer(c, in_force ? 200 : 503, "text/plain; charset=utf-8", in_force ? "ok\n" : "no configuration is in force\n",
		       bare);
	else if (!path_is(request, "/metrics"))
		answer_error(c, 404, bare);
	else if (!(c->body = body_get(c->server, &metrics, format)))
		answer_error(c, 503, bare);
	else
		answer(c, 200, metrics_content_type(format), "", bare);
}

/* Answers the next request in the buffer, if there is a whole one. */
static void next_request(struct connection *c)
{
	struct http_request request;
	int n = http_request_parse(c->in, c->in_length, &request);
	if (n < 0) {
		c->close = true;
		answer_error(c, -n, false);
	} else if (n) {
		c->close = request.close || request.method == HTTP_OTHER;
		serve(c, &request);
		c->in_length -= (size_t)n;
		memmove(c->in, c->in + n, c->in_length);
	}
}

/* The part of the answer that is to be sent next; 0: all is sent. */
static size_t unsent(const struct connection *c, const char **data)
{
	if (c->sent < c->head_length) {
		*data = c->head + c->sent;
		return c->head_length - c->sent;
	}
	if (!c->body)
		return 0;
	*data = c->body->text.data + (c->sent - c->head_length);
	return c->body->text.length - (c->sent - c->head_length);
}

/* 1: sent; 0: the peer does not take more now; -1: the connection is broken */
static int push(struct connection *c)
{
	const char *data;
	for (size_t left; (left = unsent(c, &data));) {
		ssize_t n = send(c->fd, data, left, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		c->sent += (size_t)n;
	}
	body_release(c->server, c->body);
	c->body = NULL;
	c->sending = false;
	return 1;
}

/* After a refusal the peer may still be sending: closing with unread data would reset what we answered. */
static void finish(struct connection *c)
{
	char waste[4096];
	shutdown(c->fd, SHUT_WR);
	for (int i = 0; i < 16 && recv(c->fd, waste, sizeof(waste), MSG_DONTWAIT) > 0; i++)
		;
	connection_free(c);
}

/* Moves the connection on as far as it goes; may free it. */
static void advance(struct connection *c)
{
	for (;;) {
		if (!c->sending)
			next_request(c);
		if (!c->sending) {
			wait_for_request(c);
			return;
		}
		int rc = push(c);
		if (rc == 0) {
			wait_for(c->writable);
			return;
		}
		if (rc < 0 || c->close) {
			if (rc < 0)
				connection_free(c);
			else
				finish(c);
			return;
		}
	}
}

static void read_more(struct connection *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_length, sizeof(c->in) - c->in_length, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		connection_free(c);
		return;
	}
	c->in_length += (size_t)n;
	next_request(c);
	if (c->sending) {
		event_del(c->readable);
		advance(c);
	}
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;
	(void)fd;
	if (what & EV_TIMEOUT || now() > c->deadline)    /* some bytes of a head do not prolong its time */
		connection_free(c);
	else
		read_more(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;
	(void)fd;
	if (what & EV_TIMEOUT || now() > c->deadline)
		connection_free(c);
	else
		advance(c);
}

/* --- listening ----------------------------------------------------------------------------------------------------- */

/* Makes room by closing whoever has waited longest without asking; false: all are being answered. */
static bool make_room(struct http_server *server)
{
	struct connection *c;
	if (server->n < HTTP_CONNECTIONS_MAX)
		return true;
	TAILQ_FOREACH(c, &server->connections, link)
		if (!c->sending) {
			connection_free(c);
			return true;
		}
	return false;
}

static void connection_new(struct http_server *server, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	if (c) {
		*c = (struct connection){.server = server, .fd = fd};
		c->readable = event_new(server->base, fd, EV_READ | EV_PERSIST, on_readable, c);
		c->writable = event_new(server->base, fd, EV_WRITE, on_writable, c);
	}
	if (!c || !c->readable || !c->writable) {
		if (c && c->readable)
			event_free(c->readable);
		free(c);
		close(fd);
		return;
	}
	TAILQ_INSERT_TAIL(&server->connections, c, link);
	server->n++;
	wait_for_request(c);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	static const struct timeval pause = {.tv_sec = ACCEPT_PAUSE};
	struct http_server *server = arg;
	(void)what;
	if (!make_room(server)) {
		event_del(server->acceptable);
		return;
	}
	int client = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client >= 0) {
		connection_new(server, client);
		return;
	}
	if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
		log_warn("metrics connection not accepted", "error=%s", log_value(strerror(errno)));
		event_del(server->acceptable);
		evtimer_add(server->pause, &pause);
	}
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	resume_accepting(arg);
}

struct http_server *http_new(struct event_base *base, http_metrics *metrics, void *arg)
{
	struct http_server *server = calloc(1, sizeof(*server));
	if (!server)
		return NULL;
	*server = (struct http_server){.base = base, .metrics = metrics, .arg = arg, .fd = -1};
	TAILQ_INIT(&server->connections);
	server->pause = evtimer_new(base, on_pause_over, server);
	if (server->pause)
		return server;
	free(server);
	return NULL;
}

static void on_close_later(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	close((int)(intptr_t)arg);
}

/* The supervisor holds the same socket: it has to leave the epoll set, which happens in the loop's next round, before our
 * descriptor of it closes. */
static void close_later(struct event_base *base, int fd)
{
	static const struct timeval soon = {.tv_usec = 1000};
	if (event_base_once(base, -1, EV_TIMEOUT, on_close_later, (void *)(intptr_t)fd, &soon))
		close(fd);
}

static void stop_listening(struct http_server *server)
{
	if (!server->acceptable)
		return;
	event_free(server->acceptable);
	server->acceptable = NULL;
	close_later(server->base, server->fd);
	server->fd = -1;
}

int http_listen(struct http_server *server, int fd)
{
	struct event *acceptable = NULL;
	if (fd >= 0) {
		int flags = fcntl(fd, F_GETFL);
		int rc = flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || listen(fd, BACKLOG) ? -errno : 0;
		acceptable = rc ? NULL : event_new(server->base, fd, EV_READ | EV_PERSIST, on_acceptable, server);
		if (!acceptable) {
			close(fd);
			return rc ? rc : -ENOMEM;
		}
	}
	stop_listening(server);
	server->fd = fd;
	server->acceptable = acceptable;
	if (acceptable)
		event_add(acceptable, NULL);
	return 0;
}

unsigned http_connections(const struct http_server *server)
{
	return server->n;
}

void http_free(struct http_server *server)
{
	if (!server)
		return;
	if (server->acceptable) {
		event_free(server->acceptable);
		server->acceptable = NULL;
		close(server->fd);
	}
	while (!TAILQ_EMPTY(&server->connections))
		connection_free(TAILQ_FIRST(&server->connections));
	event_free(server->pause);
	free(server);
}
