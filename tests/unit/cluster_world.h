/* What test_cluster.c stands on: servers on the loopback, flows of its own, configurations. Included once. */
#ifndef HERMES_TESTS_CLUSTER_WORLD_H
#define HERMES_TESTS_CLUSTER_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/endpoints.h"
#include "ipc/json.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/worker_link.h"
#include "workers/tunnel/resolve.h"

#define FLOWS 64
#define SERVERS 4

static struct tunnel tunnel;

/* Other workers and devices: there are none. */
bool worker_link_owner(const struct flow *flow, const struct config_cluster *cluster, unsigned *index)
{
	(void)flow, (void)cluster, (void)index;
	return false;
}

struct worker_link_wait *worker_link_open(struct worker_links *links, unsigned index, const char *cluster, struct flow *flow,
                                          void (*opened)(void *arg, struct leg *leg),
                                          void (*failed)(void *arg, enum flow_error error, const char *detail), void *arg)
{
	(void)links, (void)index, (void)cluster, (void)flow, (void)opened, (void)failed, (void)arg;
	return NULL;
}

void worker_link_cancel(struct worker_link_wait *wait)
{
	(void)wait;
}

struct leg *ip_exit_new(struct tunnel *worker, const struct config_cluster *config, struct flow *flow, enum flow_error *error,
                        const char **detail)
{
	(void)worker, (void)config, (void)flow, (void)error, (void)detail;
	return NULL;
}

unsigned worker_index(const struct worker *worker)
{
	(void)worker;
	return 0;
}

/* --- servers ----------------------------------------------------------------------------------------------------- */

enum speak { SPEAK_NOTHING, SPEAK_H1, SPEAK_H2, SPEAK_ECHO };

struct server {
	int fd;
	uint16_t port;
	struct event *event;
	enum speak speak;
	unsigned accepted, requests, open;
	unsigned status;
	bool hold;                    /* h1: no answers */
	uint32_t streams;             /* h2: SETTINGS_MAX_CONCURRENT_STREAMS */
	char text[32];
};
static struct server servers[SERVERS];
static unsigned n_peers;
static struct peer { struct server *server; int fd; struct event *event; nghttp2_session *h2; struct peer *next; } *peers;

static void peer_close(struct peer *p)
{
	for (struct peer **at = &peers; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	event_free(p->event);
	close(p->fd);
	nghttp2_session_del(p->h2);
	p->server->open--;
	n_peers--;
	free(p);
}

static void peer_write(struct peer *p, const void *data, size_t length)
{
	ssize_t n = send(p->fd, data, length, MSG_NOSIGNAL);
	(void)n;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct peer *p = arg;
	char status[4];
	if (frame->hd.type != NGHTTP2_HEADERS || p->server->hold)
		return 0;
	snprintf(status, sizeof(status), "%u", p->server->status % 1000);
	nghttp2_nv nv = {(uint8_t *)":status", (uint8_t *)status, 7, 3, 0};
	p->server->requests++;
	return nghttp2_submit_response(session, frame->hd.stream_id, &nv, 1, NULL);
}

static void peer_start_h2(struct peer *p)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, p->server->streams};
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_server_new(&p->h2, callbacks, p);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(p->h2, 0, &entry, 1);
}

static void peer_h2(struct peer *p, const uint8_t *data, size_t n)
{
	const uint8_t *out;
	ssize_t length;
	assert_true(nghttp2_session_mem_recv(p->h2, data, n) >= 0);
	while ((length = nghttp2_session_mem_send(p->h2, &out)) > 0)
		peer_write(p, out, (size_t)length);
}

static void peer_h1(struct peer *p, const char *data)
{
	char out[128];
	for (const char *at = data; (at = strstr(at, "\r\n\r\n")); at += 4) {
		p->server->requests++;
		if (p->server->hold)
			continue;
		int n = snprintf(out, sizeof(out), "HTTP/1.1 %u x\r\nContent-Length: 0\r\n\r\n", p->server->status);
		peer_write(p, out, (size_t)n);
	}
}

static void on_peer(evutil_socket_t fd, short what, void *arg)
{
	struct peer *p = arg;
	char data[8193];
	ssize_t n = recv(fd, data, sizeof(data) - 1, 0);
	(void)what;
	if (n <= 0)
		return peer_close(p);
	data[n] = 0;
	if (p->server->speak == SPEAK_H2)
		peer_h2(p, (uint8_t *)data, (size_t)n);
	else if (p->server->speak == SPEAK_H1)
		peer_h1(p, data);
	else if (p->server->speak == SPEAK_ECHO)
		peer_write(p, data, (size_t)n);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct server *s = arg;
	(void)what;
	int accepted = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (accepted < 0)
		return;
	struct peer *p = calloc(1, sizeof(*p));
	*p = (struct peer){.server = s, .fd = accepted, .next = peers};
	peers = p;
	n_peers++;
	s->accepted++;
	s->open++;
	if (s->speak == SPEAK_H2)
		peer_start_h2(p);
	p->event = event_new(tunnel.base, accepted, EV_READ | EV_PERSIST, on_peer, p);
	event_add(p->event, NULL);
}

static void serve(unsigned i, enum speak speak)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	struct server *s = &servers[i];
	*s = (struct server){.speak = speak, .status = 200, .streams = 100};
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(s->fd, 100), 0);
	getsockname(s->fd, (struct sockaddr *)&address, &size);
	s->port = ntohs(address.sin_port);
	snprintf(s->text, sizeof(s->text), "127.0.0.1:%u", s->port);
	s->event = event_new(tunnel.base, s->fd, EV_READ | EV_PERSIST, on_accept, s);
	event_add(s->event, NULL);
}

static void stop_serving(struct server *s)
{
	if (!s->event)
		return;
	event_free(s->event);
	close(s->fd);
	s->event = NULL;
	for (struct peer *p = peers, *next; p; p = next) {
		next = p->next;
		if (p->server == s)
			peer_close(p);
	}
}

/* --- flows ------------------------------------------------------------------------------------------------------- */

struct flow {
	struct head *request;
	struct attempt *attempt;
	struct leg *leg;
	enum flow_error error;
	char detail[256];
	struct endpoint_used used;
	unsigned opened, failed, broken, status;
	bool keep;                    /* stays open after the response */
	bool ended;
};
static struct flow flows[FLOWS];
static unsigned awaited;              /* flows that are to end, or open */

static void one_less(void)
{
	if (awaited > 0 && --awaited == 0)
		event_base_loopbreak(tunnel.base);
}

const struct head *flow_request(const struct flow *flow)
{
	return flow->request;
}

static void take_used(struct flow *flow)
{
	cluster_used(tunnel.clusters, &flow->used);
}

void flow_opened(struct flow *flow, struct leg *leg)
{
	flow->opened++;
	flow->attempt = NULL;
	flow->leg = leg;
	take_used(flow);
	leg->ops->head(leg, flow->request, strcmp(flow->request->method, "CONNECT") != 0);
}

void flow_open_failed(struct flow *flow, enum flow_error error, const char *detail)
{
	flow->failed++;
	flow->attempt = NULL;
	flow->error = error;
	take_used(flow);
	snprintf(flow->detail, sizeof(flow->detail), "%s", detail);
	one_less();
}

static void finish(struct flow *flow)
{
	struct leg *leg = flow->leg;
	flow->leg = NULL;
	leg->ops->close(leg, flow->ended ? FLOW_NONE : FLOW_CANCELLED);
}

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	(void)leg;
	flow->status = response->status;
	head_free(response);
	flow->ended = end;
	if (end && !flow->keep)
		finish(flow);
	one_less();
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	(void)flow;
	leg->ops->taken(leg, chunks->bytes);
	chunks_clear(chunks);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	(void)leg;
	head_free(trailers);
	flow->ended = true;
	if (flow->leg && !flow->keep)
		finish(flow);
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	(void)flow, (void)leg;
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	(void)leg;
	flow->leg = NULL;
	flow->broken++;
	flow->error = error;
	snprintf(flow->detail, sizeof(flow->detail), "%s", detail);
	one_less();
}

struct flow *flow_new(struct tunnel *t, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	(void)t, (void)origin, (void)leg, (void)request, (void)end;
	abort();
}

static struct flow *make_flow(unsigned i, const char *method, const char *authority)
{
	struct flow *flow = &flows[i];
	head_free(flow->request);
	*flow = (struct flow){.request = head_new()};
	flow->request->method = head_string(flow->request, method, -1);
	flow->request->scheme = head_string(flow->request, "http", -1);
	flow->request->authority = head_string(flow->request, authority, -1);
	flow->request->path = head_string(flow->request, "/", -1);
	return flow;
}

static struct cluster_request request_of(struct flow *flow, const char *cluster)
{
	return (struct cluster_request){.flow = flow, .cluster = cluster, .target = flow->request->authority,
	                                .scheme = flow->request->scheme, .tunnel = strcmp(flow->request->method, "CONNECT") == 0};
}

static struct flow *begin(unsigned i, const char *method, const char *cluster)
{
	struct flow *flow = make_flow(i, method, "example.com:80");
	struct cluster_request request = request_of(flow, cluster);
	flow->attempt = cluster_open(tunnel.clusters, &request);
	assert_int_equal(flow->opened + flow->failed, 0);
	return flow;
}

static void await(unsigned n)
{
	struct timeval limit = {.tv_sec = 20};
	awaited = n;
	event_base_loopexit(tunnel.base, &limit);
	event_base_dispatch(tunnel.base);
	if (awaited > 0)
		fail_msg("%u flows did not get on", awaited);
}

static struct flow *run(unsigned i, const char *method, const char *cluster)
{
	struct flow *flow = begin(i, method, cluster);
	await(1);
	return flow;
}

static void spin(void)
{
	for (unsigned i = 0; i < 20; i++) {
		event_base_loop(tunnel.base, EVLOOP_NONBLOCK);
		usleep(1000);
	}
}

/* However slow the machine is. */
#define UNTIL(condition)                                                                                              \
	do {                                                                                                          \
		for (unsigned i_ = 0; i_ < 500 && !(condition); i_++)                                                 \
			spin();                                                                                       \
		assert_true(condition);                                                                               \
	} while (0)

/* --- configuration ----------------------------------------------------------------------------------------------- */

static struct config_cluster clusters[3];
static struct config_endpoint endpoints[3][SERVERS];
static char names[3][2] = {"a", "b", "c"}, loopback[] = "127.0.0.1", nowhere[] = "nowhere.invalid", up[] = "/up";
static uint64_t generation;

static struct config_cluster *cluster(unsigned i, enum config_carry carry, unsigned n)
{
	struct config_cluster *c = &clusters[i];
	*c = (struct config_cluster){.name = names[i], .carry = carry, .endpoints = endpoints[i], .n_endpoints = n,
	                             .connect_timeout = 5000, .idle_timeout = 60000, .max_streams = 100, .ttl_max = 300,
	                             .ejection = {.max_percent = 50}};
	for (unsigned e = 0; e < n; e++)
		endpoints[i][e] = (struct config_endpoint){
			.address = {.text = servers[e].text, .host = loopback, .port = servers[e].port}, .weight = 1};
	return c;
}

/* The library's own copy: what the test changes later does not change it. */
static void commit(unsigned n)
{
	struct config config = {.clusters = clusters, .n_clusters = n};
	uint8_t *data;
	size_t length;
	assert_int_equal(config_pack(&config, &data, &length), 0);
	struct generation *g = calloc(1, sizeof(*g));
	*g = (struct generation){.number = ++generation, .refs = 1, .config = config_unpack(data, length)};
	assert_non_null(g->config);
	free(data);
	generation_unref(tunnel.current);
	tunnel.current = g;
	clusters_commit(tunnel.clusters);
}

static int setup(void **state)
{
	(void)state;
	memset(servers, 0, sizeof(servers));
	static struct event_base *base;              /* transports know only one */
	base = base ? base : event_base_new();
	tunnel = (struct tunnel){.base = base, .stats = stats_new(16)};
	tunnel.resolver = resolver_new(tunnel.base);
	tunnel.clusters = clusters_new(&tunnel);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	clusters_free(tunnel.clusters);
	for (unsigned i = 0; i < SERVERS; i++)
		stop_serving(&servers[i]);
	spin();
	resolver_free(tunnel.resolver);
	generation_unref(tunnel.current);
	for (unsigned i = 0; i < FLOWS; i++) {
		head_free(flows[i].request);
		flows[i] = (struct flow){0};
	}
	stats_free(tunnel.stats);
	return 0;
}

static uint64_t metric(const char *name, enum stats_metric which)
{
	struct stats_view *view = stats_view_new(stats_fd(tunnel.stats));
	enum stats_scope scope;
	const char *set;
	uint64_t value = UINT64_MAX;
	for (unsigned i = 0; (set = stats_view_set(view, i, &scope)); i++)
		if (scope == STATS_CLUSTER && strcmp(set, name) == 0)
			value = stats_view_value(view, i, which);
	stats_view_free(view);
	return value;
}

#endif
