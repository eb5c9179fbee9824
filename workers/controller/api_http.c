/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/api_http.h"
#include "ipc/log.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENERS_MAX 8
#define BODY_MAX ((size_t)16 << 20)    /* until it is known who asks */
#define BACKLOG 1024
#define IDLE_S 600                    /* between requests: longer than the tunnel worker keeps a connection in its pool */
#define REQUEST_S 60                  /* a whole request, from its first byte */
#define WRITE_S 60                    /* without any progress */
#define AHEAD (64u * 1024)            /* read while a request is being answered, so that its end is seen */
#define PAUSE_S 1                     /* after accept() failed for want of descriptors */

struct connection {
	TAILQ_ENTRY(connection) link;
	struct http_server *server;
	struct bufferevent *bev;
	struct event *timer;
	struct api_parse parse;
	struct api_request *request;  /* being answered; NULL: one is being read */
	uid_t uid;
	bool last;                    /* to be closed once all is written */
	bool begun;                   /* of the request that is being read, something has come */
	bool known, stranger;         /* its head has come, and says who asks: nobody by name */
};

struct http_server {
	struct event_base *base;
	struct api *api;
	http_limit *limit;
	http_handle *handle;
	struct evconnlistener *listeners[LISTENERS_MAX];
	unsigned n_listeners, n, strangers;
	struct event *pause;
	bool paused;
	TAILQ_HEAD(, connection) connections;
};

static void read_on(struct connection *c);

/* --- connections ---------------------------------------------------------------------------------------------------- */

static void request_free(struct api_request *r)
{
	json_decref(r->call.body);
	api_parse_clear(&r->parse);
	free(r->path);
	free(r->query);
	free(r->text);
	free(r);
}

static void accept_again(struct http_server *s)
{
	if (!s->paused || s->n >= API_CONNECTIONS_MAX || evtimer_pending(s->pause, NULL))
		return;
	s->paused = false;
	for (unsigned i = 0; i < s->n_listeners; i++)
		evconnlistener_enable(s->listeners[i]);
}

static void pause_accepting(struct http_server *s)
{
	s->paused = true;
	for (unsigned i = 0; i < s->n_listeners; i++)
		evconnlistener_disable(s->listeners[i]);
}

/* It does not count any more. */
static void not_strange(struct connection *c)
{
	c->server->strangers -= c->stranger;
	c->stranger = false;
}

/* Who waits for its answer is told, or the answer is dropped when it comes. */
static void let_go(struct connection *c)
{
	struct api_request *r = c->request;
	c->request = NULL;
	if (!r)
		return;
	r->connection = NULL;
	if (!r->gone)
		return;
	r->answered = true;
	r->gone(r->gone_arg);
	if (!r->handling)
		request_free(r);
}

static void connection_free(struct connection *c)
{
	struct http_server *s = c->server;
	TAILQ_REMOVE(&s->connections, c, link);
	s->n--;
	not_strange(c);
	let_go(c);
	api_parse_clear(&c->parse);
	event_free(c->timer);
	bufferevent_free(c->bev);
	free(c);
	accept_again(s);
}

static void set_timer(struct connection *c, int seconds)
{
	evtimer_add(c->timer, &(struct timeval){.tv_sec = seconds});
}

static bool next_request(struct connection *c)
{
	c->begun = c->known = false;
	set_timer(c, IDLE_S);
	return api_parse_reset(&c->parse, BODY_MAX);
}

/* --- requests and answers ------------------------------------------------------------------------------------------- */

static const char *phrase(unsigned status)
{
	switch (status) {
	case 200: return "OK";
	case 201: return "Created";
	case 202: return "Accepted";
	case 204: return "No Content";
	case 400: return "Bad Request";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 409: return "Conflict";
	case 413: return "Content Too Large";
	case 415: return "Unsupported Media Type";
	case 422: return "Unprocessable Content";
	case 429: return "Too Many Requests";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 501: return "Not Implemented";
	case 503: return "Service Unavailable";
	case 505: return "HTTP Version Not Supported";
	}
	return "Status";
}

static void write_answer(struct connection *c, unsigned status, const char *type, const char *body, size_t length)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	evbuffer_add_printf(out, "HTTP/1.1 %u %s\r\n", status, phrase(status));
	if (type)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	if (status != 204)
		evbuffer_add_printf(out, "Content-Length: %zu\r\n", type ? length : 0);
	evbuffer_add_printf(out, "Cache-Control: no-store\r\n%s\r\n", c->last ? "Connection: close\r\n" : "");
	if (type && evbuffer_add(out, body, length)) {
		log_error("answer dropped", "error=\"out of memory\" bytes=%zu", length);
		c->last = true;
	}
}

/* The connection goes on with the next request, from the event loop: the caller may be deep in a handler. */
void http_answer(struct api_request *r, unsigned status, const char *type, const char *body, size_t length)
{
	struct connection *c = r->connection;
	if (!r->answered && c) {
		write_answer(c, status, type, body, length);
		not_strange(c);
		c->request = NULL;
		set_timer(c, 0);
	}
	r->answered = true;
	r->connection = NULL;
	if (!r->handling)
		request_free(r);
}

void api_on_gone(struct api_request *r, void (*gone)(void *arg), void *arg)
{
	r->gone = gone;
	r->gone_arg = arg;
}

static void refuse(struct connection *c)
{
	char body[200];
	int n = snprintf(body, sizeof(body), "{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"details\":[]}}\n",
	                 c->parse.status == 413 ? "too-large" : c->parse.status == 503 ? "too-many" : "bad-request", c->parse.error);
	c->last = true;
	write_answer(c, c->parse.status, "application/json", body, (size_t)n);
	set_timer(c, 2);              /* reads on until then: closing with unread data would take back what we answered */
	api_parse_clear(&c->parse);
	c->parse.state = PARSE_FAILED;
}

static void handle(struct connection *c)
{
	struct http_server *s = c->server;
	struct api_request *r = calloc(1, sizeof(*r));
	if (!r) {
		c->parse.status = 503;
		c->parse.error = "out of memory";
		refuse(c);
		return;
	}
	r->api = s->api;
	r->connection = c;
	r->parse = c->parse;
	c->parse = (struct api_parse){0};
	c->last = c->last || !r->parse.keep_alive;
	c->request = r;
	r->handling = true;
	evtimer_del(c->timer);
	s->handle(s->api, r, c->uid);
	r->handling = false;
	if (r->answered)
		request_free(r);
}

/* Strangers, who may send what they like, neither take nodes' connections away nor much memory. */
static void know(struct connection *c)
{
	struct http_server *s = c->server;
	c->known = true;
	api_parse_limit(&c->parse, s->limit(s->api, c->uid, c->parse.peer, &c->stranger));
	s->strangers += c->stranger;
	if (s->strangers <= API_STRANGERS_MAX || !c->stranger || c->parse.state == PARSE_FAILED)
		return;
	not_strange(c);
	c->parse.state = PARSE_FAILED;
	c->parse.status = 503;
	c->parse.error = "too many requests at once by who is no node";
}

static void read_on(struct connection *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	if (c->parse.state == PARSE_FAILED) {
		evbuffer_drain(in, evbuffer_get_length(in));
		return;
	}
	if (c->request || c->last || !evbuffer_get_length(in))
		return;
	if (!c->begun)
		set_timer(c, REQUEST_S);
	c->begun = true;
	api_parse_feed(&c->parse, in);
	if (!c->known && c->parse.state > PARSE_FIELDS && c->parse.state != PARSE_FAILED)
		know(c);
	if (c->parse.expect && c->parse.state > PARSE_FIELDS && c->parse.state < PARSE_DONE) {
		c->parse.expect = false;
		evbuffer_add_printf(bufferevent_get_output(c->bev), "HTTP/1.1 100 Continue\r\n\r\n");
	}
	if (c->parse.state == PARSE_FAILED)
		refuse(c);
	else if (c->parse.state == PARSE_DONE)
		handle(c);
}

/* --- events --------------------------------------------------------------------------------------------------------- */

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	read_on(arg);
}

/* All is written. */
static void on_written(struct bufferevent *bev, void *arg)
{
	struct connection *c = arg;
	(void)bev;
	if (c->last && !c->request && c->parse.state != PARSE_FAILED)
		connection_free(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	(void)bev, (void)what;
	connection_free(arg);
}

/* Either its time is over, or an answer was given and it is to go on. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;
	(void)fd, (void)what;
	bool answered = !c->request && !c->parse.body && c->parse.state != PARSE_FAILED;
	if (!answered || (c->last && !evbuffer_get_length(bufferevent_get_output(c->bev)))) {
		connection_free(c);
		return;
	}
	if (c->last)
		set_timer(c, WRITE_S);        /* on_written() closes */
	else if (next_request(c))
		read_on(c);
	else
		connection_free(c);
}

static uid_t peer_uid(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) ? (uid_t)-1 : peer.uid;
}

static void drop_half_made(struct connection *c, int fd)
{
	if (c && c->timer)
		event_free(c->timer);
	if (c && c->bev)
		bufferevent_free(c->bev);
	else
		close(fd);
	free(c);
}

void http_server_take(struct http_server *s, int fd)
{
	static const struct timeval write_limit = {.tv_sec = WRITE_S};
	struct connection *c = calloc(1, sizeof(*c));
	if (c) {
		*c = (struct connection){.server = s, .uid = peer_uid(fd)};
		c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
		c->timer = evtimer_new(s->base, on_timer, c);
	}
	if (!c || !c->bev || !c->timer || !next_request(c)) {
		drop_half_made(c, fd);
		return;
	}
	TAILQ_INSERT_TAIL(&s->connections, c, link);
	if (++s->n >= API_CONNECTIONS_MAX) {
		log_warn("controller's connections at their limit", "n=%u", s->n);
		pause_accepting(s);
	}
	bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
	bufferevent_setwatermark(c->bev, EV_READ, 0, AHEAD);
	bufferevent_set_timeouts(c->bev, NULL, &write_limit);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *arg)
{
	(void)listener, (void)address, (void)size;
	http_server_take(arg, fd);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	accept_again(arg);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	struct http_server *s = arg;
	(void)listener;
	log_warn("connection not accepted", "error=%s", log_value(strerror(errno)));
	evtimer_add(s->pause, &(struct timeval){.tv_sec = PAUSE_S});
	pause_accepting(s);
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

struct http_server *http_server_new(struct event_base *base, struct api *api, http_limit *limit, http_handle *handler)
{
	struct http_server *s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct http_server){.base = base, .api = api, .limit = limit, .handle = handler};
	TAILQ_INIT(&s->connections);
	s->pause = evtimer_new(base, on_pause_over, s);
	if (s->pause)
		return s;
	free(s);
	return NULL;
}

int http_server_listen(struct http_server *s, int fd)
{
	if (s->n_listeners == LISTENERS_MAX || listen(fd, BACKLOG) || evutil_make_socket_nonblocking(fd)) {
		int error = s->n_listeners == LISTENERS_MAX ? EMFILE : errno;
		close(fd);
		return -error;
	}
	/* backlog 0: it listens already */
	struct evconnlistener *l = evconnlistener_new(s->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (!l) {
		close(fd);
		return -ENOMEM;
	}
	evconnlistener_set_error_cb(l, on_accept_error);
	s->listeners[s->n_listeners++] = l;
	return 0;
}

void http_server_unlisten(struct http_server *s)
{
	while (s->n_listeners)
		evconnlistener_free(s->listeners[--s->n_listeners]);
}

unsigned http_server_connections(const struct http_server *s)
{
	return s->n;
}

void http_server_free(struct http_server *s)
{
	if (!s)
		return;
	http_server_unlisten(s);
	for (struct connection *c; (c = TAILQ_FIRST(&s->connections));)
		connection_free(c);
	event_free(s->pause);
	free(s);
}
