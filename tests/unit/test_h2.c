/* A client and a server connection face to face on a socket pair; the flows behind them are the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "workers/tunnel/h2.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/masque.h"

/* One side of an exchange, as the test sees it. */
struct flow {
	struct leg *leg;
	struct head *request, *response;
	unsigned informational;
	struct chunks got;
	size_t received, keep_after, kept_from;
	bool end, broken, trailers, keep;   /* keep: does not take what comes */
	enum flow_error error;
	char trailer[32];
};

static struct {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct listener listener;
	struct origin origin;
	struct h2 *client, *server;
	struct flow flows[300];
	unsigned n_flows;
	unsigned client_gone, server_gone, ready, closing;
	void (*on_request)(struct flow *flow);
	size_t to_send, sent;
	struct flow *sender;
} t;

/* --- the flow's side of the contract --------------------------------------------------------------------------------- */

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	(void)tunnel, (void)origin;
	struct flow *flow = &t.flows[t.n_flows++];
	*flow = (struct flow){.leg = leg, .request = request, .end = end};
	leg->flow = flow;
	if (t.on_request)
		t.on_request(flow);
	return flow;
}

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	(void)leg;
	if (response->status < 200) {
		flow->informational++;
		return head_free(response);
	}
	flow->response = response;
	flow->end |= end;
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	if (flow->keep_after && flow->received >= flow->keep_after && !flow->keep) {
		flow->keep = true;
		flow->kept_from = flow->received;
	}
	flow->received += chunks->bytes;
	if (flow->keep)
		return chunks_clear(chunks);
	leg->ops->taken(leg, chunks->bytes);
	chunks_move(&flow->got, chunks);
	if (flow->received > 1000)
		chunks_clear(&flow->got);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	(void)leg;
	flow->end = true;
	if (!trailers)
		return;
	snprintf(flow->trailer, sizeof(flow->trailer), "%s", head_get(trailers, "checksum") ? head_get(trailers, "checksum") : "");
	head_free(trailers);
}

static void pump(void)
{
	static uint8_t block[40000];
	struct leg *leg = t.sender->leg;
	while (t.sent < t.to_send) {
		struct chunks chunks = {0};
		chunks_copy(&chunks, block, sizeof(block));
		if (!leg->ops->send(leg, &chunks)) {
			chunks_clear(&chunks);
			return;
		}
		t.sent += sizeof(block);
	}
	leg->ops->finish(leg, NULL);
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	(void)leg;
	if (flow == t.sender)
		pump();
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	(void)leg, (void)detail;
	flow->broken = true;
	flow->error = error;
	flow->leg = NULL;
}

/* --- set-up ---------------------------------------------------------------------------------------------------------- */

static void run(void)
{
	for (int i = 0; i < 60; i++) {
		struct timeval wait = {.tv_usec = 500};
		event_base_loopexit(t.base, &wait);
		event_base_loop(t.base, 0);
	}
}

static void client_gone(void *arg, enum flow_error error, const char *detail)
{
	(void)arg, (void)error, (void)detail;
	t.client_gone++;
	t.client = NULL;
}

static void server_gone(void *arg)
{
	(void)arg;
	t.server_gone++;
	t.server = NULL;
}

static void ready(void *arg) { (void)arg; t.ready++; }
static void room(void *arg) { (void)arg; }
static void closing(void *arg) { (void)arg; t.closing++; }

static const struct transport_callbacks nothing = {0};

static struct transport *transport_on(int fd)
{
	return transport_new(t.base, fd, NULL, TRANSPORT_ACCEPTED, &nothing, NULL);
}

static void connect_both(int *raw)
{
	static const struct h2_pool_callbacks pool = {ready, room, closing, client_gone};
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	t.server = h2_server_new(&t.tunnel, transport_on(fds[0]), &t.origin, NULL, server_gone, NULL);
	if (raw)
		*raw = fds[1];
	else
		t.client = h2_client_new(&t.tunnel, transport_on(fds[1]), 0, &pool, NULL);
	run();
}

static int setup(void **state)
{
	(void)state;
	struct event_base *base = t.base ? t.base : event_base_new();
	memset(&t, 0, sizeof(t));
	t.base = base;
	t.config.node_name = (char *)"test";
	t.generation = (struct generation){.number = 1, .refs = 1, .config = &t.config};
	t.tunnel = (struct tunnel){.base = base, .current = &t.generation, .stats = stats_new(8)};
	t.listener_config = (struct config_listener){.name = (char *)"l", .accept = CONFIG_HTTP,
		.limits = {.connections = 10, .streams = 100, .header_bytes = 65536, .header_timeout = 10000,
		           .idle_timeout = 10000, .abuse_events = 200}};
	t.listener = (struct listener){.name = "l", .config = &t.listener_config,
	                               .stats = stats_set(t.tunnel.stats, STATS_LISTENER, "l")};
	t.origin = (struct origin){.listener = &t.listener, .source_text = "127.0.0.1", .carry = "h2"};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (t.client)
		h2_drain(t.client, true);
	if (t.server)
		h2_drain(t.server, true);
	run();
	for (unsigned i = 0; i < t.n_flows; i++) {
		if (t.flows[i].leg && t.flows[i].leg->flow)
			t.flows[i].leg->ops->close(t.flows[i].leg, FLOW_CANCELLED);
	}
	run();
	for (unsigned i = 0; i < t.n_flows; i++) {
		head_free(t.flows[i].request);
		head_free(t.flows[i].response);
		chunks_clear(&t.flows[i].got);
	}
	stats_free(t.tunnel.stats);
	return 0;
}

static struct flow *request(const char *method, const char *path, bool end)
{
	struct flow *flow = &t.flows[t.n_flows++];
	struct head *head = head_new();
	head->method = method;
	head->authority = "video:80";
	if (path) {
		head->scheme = "http";
		head->path = path;
	}
	head_add(head, "user", "alice");
	flow->request = head;
	flow->leg = h2_open(t.client, flow);
	assert_non_null(flow->leg);
	flow->leg->flow = flow;
	flow->leg->ops->head(flow->leg, head, end);
	run();
	return flow;
}

static void answer(struct flow *flow, unsigned status, bool end)
{
	struct head *head = head_new();
	head->status = status;
	head_add(head, "server", "test");
	flow->leg->ops->head(flow->leg, head, end);
	head_free(head);
}

static void say(struct flow *flow, const char *text)
{
	struct chunks chunks = {0};
	chunks_copy(&chunks, text, strlen(text));
	assert_true(flow->leg->ops->send(flow->leg, &chunks));
}

static void is(const struct flow *flow, const char *text)
{
	char got[1200] = "";
	size_t n = 0;
	for (const struct chunk *c = flow->got.head; c; c = c->next) {
		memcpy(got + n, c->data, c->length);
		n += c->length;
	}
	assert_string_equal(got, text);
}

static void close_flow(struct flow *flow, enum flow_error error)
{
	flow->leg->ops->close(flow->leg, error);
	flow->leg = NULL;
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

static void a_request_and_its_answer(void **state)
{
	(void)state;
	connect_both(NULL);
	assert_int_equal(t.ready, 1);
	assert_true(h2_extended_connect(t.client));
	struct flow *c = request("POST", "/a", false), *s = &t.flows[1];
	assert_int_equal(t.n_flows, 2);
	assert_string_equal(s->request->method, "POST");
	assert_string_equal(s->request->authority, "video:80");
	assert_string_equal(head_get(s->request, "user"), "alice");
	assert_false(s->end);
	say(c, "ping");
	run();
	is(s, "ping");
	answer(s, 103, false);
	answer(s, 200, false);
	say(s, "pong");
	struct head *trailers = head_new();
	head_add(trailers, "checksum", "42");
	s->leg->ops->finish(s->leg, trailers);
	c->leg->ops->finish(c->leg, NULL);
	run();
	assert_int_equal(c->informational, 1);
	assert_int_equal(c->response->status, 200);
	is(c, "pong");
	assert_string_equal(c->trailer, "42");
	assert_true(c->end && s->end);
	assert_int_equal(h2_streams(t.client), 1);   /* until the flow lets go */
	close_flow(c, FLOW_NONE);
	close_flow(s, FLOW_NONE);
	head_free(trailers);
	run();
	assert_int_equal(h2_streams(t.client), 0);
	assert_int_equal(h2_streams(t.server), 0);
	assert_false(c->broken || s->broken);
}

/* A request for a UDP tunnel on its way from the client's connection to the server's. */
static struct flow *udp_request(const char *target)
{
	struct flow *flow = &t.flows[t.n_flows++];
	flow->request = masque_udp_request(target);
	flow->leg = h2_open(t.client, flow);
	flow->leg->flow = flow;
	flow->leg->ops->head(flow->leg, flow->request, false);
	run();
	return flow;
}

static void udp_response(struct flow *flow, const char *name, const char *value, unsigned status)
{
	struct head *head = masque_response();
	head->status = status;
	if (name)
		head_add(head, name, value);
	flow->leg->ops->head(flow->leg, head, false);
	head_free(head);
	run();
}

static void udp_tunnels(void **state)
{
	(void)state;
	connect_both(NULL);
	h2_client_authority(t.client, "next.example:8443");
	struct flow *c = udp_request("[2001:db8::1]:53"), *s = &t.flows[1];
	assert_int_equal(t.n_flows, 2);
	assert_true(masque_is_udp(s->request));
	assert_string_equal(s->request->authority, "[2001:db8::1]:53");   /* the target again, not the hop's own */
	assert_string_equal(s->request->path, "/.well-known/masque/udp/2001%3Adb8%3A%3A1/53/");
	assert_string_equal(head_get(s->request, "capsule-protocol"), "?1");
	/* what must not be said on a tunnel's 2xx is not said (RFC 9297 3.2) */
	udp_response(s, "content-length", "0", 200);
	assert_int_equal(c->response->status, 200);
	assert_null(head_get(c->response, "content-length"));
	assert_string_equal(head_get(c->response, "capsule-protocol"), "?1");
	say(c, "up");
	say(s, "down");
	run();
	is(s, "up");
	is(c, "down");
	close_flow(s, FLOW_REQUEST);
	run();
	assert_true(c->broken);
}

static void udp_refused(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = udp_request("a:1"), *s = &t.flows[1];
	udp_response(s, "proxy-status", "far; error=http_request_denied", 403);
	assert_int_equal(c->response->status, 403);
	assert_string_equal(head_get(c->response, "proxy-status"), "far; error=http_request_denied");
	assert_null(head_get(c->response, "capsule-protocol"));
	assert_false(c->broken);
}

static void udp_opened_badly(void **state)
{
	(void)state;
	connect_both(NULL);
	for (unsigned status = 204; status <= 206; status++) {
		struct flow *c = udp_request("a:1"), *s = &t.flows[t.n_flows - 1];
		udp_response(s, NULL, NULL, status);
		assert_true(c->broken);
		assert_int_equal(c->error, FLOW_RESPONSE);
		assert_null(c->response);
		assert_true(s->broken);
	}
}

static void a_tunnel_closes_each_way_by_itself(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("CONNECT", NULL, false), *s = &t.flows[1];
	assert_null(s->request->path);
	answer(s, 200, false);
	say(c, "up");
	c->leg->ops->finish(c->leg, NULL);
	run();
	assert_true(s->end);
	assert_false(c->end);
	is(s, "up");
	say(s, "down");
	run();
	is(c, "down");
	s->leg->ops->finish(s->leg, NULL);
	run();
	assert_true(c->end);
	close_flow(c, FLOW_NONE);
	close_flow(s, FLOW_NONE);
	run();
	assert_int_equal(h2_streams(t.client) + h2_streams(t.server), 0);
}

static void bulk_moves_and_waits_for_the_reader(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("POST", "/big", false), *s = &t.flows[1];
	s->keep = true;
	t.sender = c;
	t.to_send = 20u << 20;
	pump();
	run();
	assert_true(s->received <= 1u << 20);        /* the stream's window, no more */
	assert_true(t.sent < t.to_send);
	struct flow *other = request("GET", "/small", true);   /* a neighbour is not stalled */
	assert_int_equal(t.n_flows, 4);
	s->keep = false;
	s->leg->ops->taken(s->leg, s->received);
	for (int i = 0; i < 200 && !s->end; i++)
		run();
	assert_true(s->end);
	assert_int_equal(s->received, t.sent);
	(void)other;
}

static void the_window_grows_with_use_up_to_a_limit(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("POST", "/big", false), *s = &t.flows[1];
	t.sender = c;
	t.to_send = 80u << 20;
	s->keep_after = 40u << 20;
	pump();
	for (int i = 0; i < 400 && !s->keep; i++)
		run();
	for (int i = 0; i < 20; i++)
		run();
	assert_true(s->received - s->kept_from > 2u << 20);    /* more than it began with */
	assert_true(s->received - s->kept_from <= 8u << 20);
}

static void an_answer_before_the_request_ends_stops_it(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("POST", "/early", false), *s = &t.flows[1];
	answer(s, 413, true);
	close_flow(s, FLOW_NONE);
	run();
	assert_int_equal(c->response->status, 413);
	assert_true(c->end);
	assert_false(c->broken);
	close_flow(c, FLOW_NONE);
	run();
	assert_int_equal(h2_streams(t.server) + h2_streams(t.client), 0);
}

static void a_reset_reaches_the_other_side(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("GET", "/x", true), *s = &t.flows[1];
	close_flow(s, FLOW_TERMINATED);
	run();
	assert_true(c->broken);
	assert_int_equal(c->error, FLOW_TERMINATED);
	struct flow *c2 = request("GET", "/y", true), *s2 = &t.flows[3];
	close_flow(c2, FLOW_CANCELLED);
	run();
	assert_true(s2->broken);
	assert_int_equal(s2->error, FLOW_CANCELLED);
}

static void a_lost_connection_breaks_every_stream(void **state)
{
	(void)state;
	int raw;
	connect_both(&raw);
	close(raw);
	run();
	assert_int_equal(t.server_gone, 1);
}

static void draining_ends_when_streams_have(void **state)
{
	(void)state;
	connect_both(NULL);
	struct flow *c = request("GET", "/x", true), *s = &t.flows[1];
	h2_drain(t.server, false);
	run();
	for (int i = 0; i < 10; i++)
		run();
	assert_int_equal(t.closing, 1);
	assert_int_equal(h2_room(t.client), 0);
	answer(s, 204, true);
	close_flow(s, FLOW_NONE);
	run();
	assert_int_equal(c->response->status, 204);
	close_flow(c, FLOW_NONE);
	run();
	assert_int_equal(t.server_gone, 1);
	assert_int_equal(t.client_gone, 1);
}

static void raw_request(int fd, const char *frames, size_t length)
{
	static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
	assert_int_equal(write(fd, preface, sizeof(preface) - 1), (ssize_t)sizeof(preface) - 1);
	assert_int_equal(write(fd, frames, length), (ssize_t)length);
	run();
}

/* Whether a GOAWAY with this code is among the frames that came. */
static bool goaway_came(int fd, uint8_t code)
{
	uint8_t in[65536];
	ssize_t n = read(fd, in, sizeof(in));
	for (ssize_t at = 0; at + 9 <= n; at += 9 + (in[at] << 16 | in[at + 1] << 8 | in[at + 2]))
		if (in[at + 3] == 7 && at + 17 <= n && in[at + 16] == code)
			return true;
	return false;
}

static void floods_are_answered_with_calm(void **state)
{
	(void)state;
	static const char ping[] = "\0\0\10\6\0\0\0\0\0ABCDEFGH";
	static char many[250 * 17];
	int fd;
	for (int i = 0; i < 250; i++)
		memcpy(many + i * 17, ping, 17);
	connect_both(&fd);
	raw_request(fd, many, sizeof(many));
	assert_true(goaway_came(fd, 0xb));
	assert_int_equal(t.server_gone, 1);
	close(fd);
}

static void nonsense_is_a_protocol_error(void **state)
{
	(void)state;
	int fd;
	connect_both(&fd);
	raw_request(fd, "\0\0\1\0\0\0\0\0\1x", 10);   /* DATA on an idle stream */
	assert_true(goaway_came(fd, 1));
	close(fd);
}

/* A client connection with a stream open, and the other end in the test's hand. */
static struct flow *raw_client(int *fd)
{
	static const struct h2_pool_callbacks pool = {ready, room, closing, client_gone};
	static const char settings[] = "\0\0\0\4\0\0\0\0\0";
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	t.client = h2_client_new(&t.tunnel, transport_on(fds[0]), 0, &pool, NULL);
	*fd = fds[1];
	assert_int_equal(write(*fd, settings, sizeof(settings) - 1), (ssize_t)sizeof(settings) - 1);
	run();
	return request("GET", "/", true);
}

static void a_status_that_is_none_breaks_the_stream(void **state)
{
	(void)state;
	int fd;
	struct flow *c = raw_client(&fd);
	assert_int_equal(write(fd, "\0\0\5\1\4\0\0\0\1\x48\3" "003", 14), 14);
	run();
	assert_null(c->response);
	assert_int_equal(c->informational, 0);
	assert_true(c->broken);
	assert_int_equal(c->error, FLOW_RESPONSE);
	close(fd);
}

static void trailers_have_a_limit(void **state)
{
	(void)state;
	int fd;
	static char field[9 + 16000] = "\0\x3e\x80\1\1\0\0\0\1\0\1a\x7f\xfb\x7b";
	struct flow *c = raw_client(&fd);
	assert_int_equal(write(fd, "\0\0\1\1\4\0\0\0\1\x88", 10), 10);
	memset(field + 15, 'v', sizeof(field) - 15);
	for (int i = 0; i < 5; i++) {           /* one of 16,000 bytes in each frame, 64 KiB are allowed */
		field[3] = i ? 9 : 1;
		field[4] = (char)(i ? (i == 4 ? 4 : 0) : 1);
		assert_int_equal(write(fd, field, sizeof(field)), (ssize_t)sizeof(field));
		run();
	}
	assert_int_equal(c->response->status, 200);
	assert_true(c->broken);
	assert_int_equal(c->error, FLOW_RESPONSE);
	close(fd);
}

static void what_is_reset_at_once_is_asked_of_nobody(void **state)
{
	(void)state;
	int fd;
	connect_both(&fd);
	raw_request(fd, "\0\0\12\1\5\0\0\0\1\x82\x86\x84\x41\5video" "\0\0\4\3\0\0\0\0\1\0\0\0\x8", 19 + 13);
	assert_int_equal(t.n_flows, 0);
	close(fd);
}

static void resets_wait_for_nobody_who_does_not_read(void **state)
{
	(void)state;
	static char many[250 * 18];
	int fd;
	for (int i = 0; i < 250; i++) {
		memcpy(many + i * 18, "\0\0\11\1\5\0\0\0\1\x82\x86\x84\x84\x41\3" "a:1", 18);   /* two paths */
		many[i * 18 + 7] = (char)((1 + 2 * i) >> 8);
		many[i * 18 + 8] = (char)(1 + 2 * i);
	}
	connect_both(&fd);
	raw_request(fd, many, sizeof(many));
	assert_true(goaway_came(fd, 0xb));
	assert_int_equal(t.server_gone, 1);
	close(fd);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_request_and_its_answer),
		T(udp_tunnels), T(udp_refused), T(udp_opened_badly),
		T(a_tunnel_closes_each_way_by_itself),
		T(bulk_moves_and_waits_for_the_reader),
		T(the_window_grows_with_use_up_to_a_limit),
		T(an_answer_before_the_request_ends_stops_it),
		T(a_reset_reaches_the_other_side),
		T(a_lost_connection_breaks_every_stream),
		T(draining_ends_when_streams_have),
		T(floods_are_answered_with_calm),
		T(nonsense_is_a_protocol_error),
		T(a_status_that_is_none_breaks_the_stream),
		T(trailers_have_a_limit),
		T(what_is_reset_at_once_is_asked_of_nobody),
		T(resets_wait_for_nobody_who_does_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
