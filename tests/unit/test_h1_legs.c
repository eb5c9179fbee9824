/* The server's and the client's side of HTTP/1.1, joined by a small flow of our own, with raw bytes at both ends. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "ipc/stats.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/h1.h"
#include "workers/tunnel/listener.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* --- the flow ------------------------------------------------------------------------------------------------------------ */

struct flow {
	struct leg *in, *out;
	struct head *request;
	struct chunks up, down;       /* refused, waiting */
	bool end, connect, up_ended, down_ended, answered;
	struct head *up_trailers;
};

static struct world {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct listener listener;
	struct origin origin;
	struct h1_server *server;
	struct h1_client *client;
	int user, hop;                /* the raw ends: whoever asks, whoever answers */
	bool server_gone, client_gone, client_idle, client_ready;
	unsigned flows, flows_broken;
	enum flow_error error;
	char detail[128];
	bool refuse_up;               /* the flow answers 403 itself */
	bool hold_up;                 /* takes, but does not credit */
} w;

static void relay(struct leg *near, struct leg *far, struct chunks *chunks)
{
	size_t n = chunks->bytes;
	if (far && n && far->ops->send(far, chunks) && near && !w.hold_up)
		near->ops->taken(near, n);
}

static void end_flow(struct flow *flow, enum flow_error in, enum flow_error out)
{
	struct leg *a = flow->in, *b = flow->out;
	flow->in = flow->out = NULL;
	if (a)
		a->ops->close(a, in);
	if (b)
		b->ops->close(b, out);
	chunks_clear(&flow->up);
	chunks_clear(&flow->down);
	head_free(flow->request);
	free(flow);
}

static void answer(struct flow *flow, unsigned status, enum flow_error error, const char *detail)
{
	char body[128];
	struct chunks chunks = {0};
	struct head *head = fields_error_response(error, status, "test", detail, true, body, sizeof(body));
	flow->in->ops->head(flow->in, head, false);
	head_free(head);
	chunks_copy(&chunks, body, strlen(body));
	flow->in->ops->send(flow->in, &chunks);
	flow->in->ops->finish(flow->in, NULL);
	end_flow(flow, FLOW_NONE, FLOW_CANCELLED);
}

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	struct flow *flow = calloc(1, sizeof(*flow));
	(void)tunnel, (void)origin;
	w.flows++;
	*flow = (struct flow){.in = leg, .request = request, .end = end, .connect = head_is_connect(request), .up_ended = end};
	leg->flow = flow;
	if (w.refuse_up) {
		answer(flow, 403, FLOW_DENIED, "no");
		return flow;
	}
	assert_true(w.client_ready && !w.client_gone);
	flow->out = h1_client_open(w.client, flow);
	w.client_idle = false;
	flow->out->ops->head(flow->out, request, end);
	return flow;
}

static void check_end(struct flow *flow)
{
	if (flow->down_ended && !flow->down.head && ((flow->up_ended && !flow->up.head) || !flow->connect))
		end_flow(flow, FLOW_NONE, flow->up_ended ? FLOW_NONE : FLOW_CANCELLED);
}

void flow_head(struct flow *flow, struct leg *leg, struct head *response, bool end)
{
	(void)leg;
	flow->in->ops->head(flow->in, response, end);
	if (response->status >= 200) {
		flow->answered = true;
		flow->up_ended |= flow->connect && response->status >= 300;
		flow->connect &= response->status < 300;
		flow->down_ended = end;
		check_end(flow);
	}
	head_free(response);
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	bool up = leg == flow->in;
	struct chunks *queue = up ? &flow->up : &flow->down;
	chunks_move(queue, chunks);
	relay(leg, up ? flow->out : flow->in, queue);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	struct leg *far = leg == flow->in ? flow->out : flow->in;
	*(leg == flow->in ? &flow->up_ended : &flow->down_ended) = true;
	if (far)
		far->ops->finish(far, trailers);
	head_free(trailers);
	check_end(flow);
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	if (leg == flow->out)
		relay(flow->in, leg, &flow->up);
	else
		relay(flow->out, leg, &flow->down);
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	w.flows_broken++;
	w.error = error;
	snprintf(w.detail, sizeof(w.detail), "%s", detail);
	if (leg == flow->in) {
		flow->in = NULL;
		end_flow(flow, FLOW_NONE, FLOW_CANCELLED);
	} else {
		flow->out = NULL;
		if (flow->answered)
			end_flow(flow, error, error);
		else
			answer(flow, 0, error, detail);
	}
}

const struct head *flow_request(const struct flow *flow)
{
	return flow->request;
}

/* --- the world ----------------------------------------------------------------------------------------------------------- */

static void on_server_gone(void *arg) { (void)arg; w.server_gone = true; }
static void on_ready(void *arg) { (void)arg; w.client_ready = true; }
static void on_idle(void *arg) { (void)arg; w.client_idle = true; }
static void on_gone(void *arg, enum flow_error error, const char *detail)
{
	(void)arg, (void)error, (void)detail;
	w.client_gone = true;
}
static const struct h1_pool_callbacks pool = {.ready = on_ready, .idle = on_idle, .gone = on_gone};

static void turn(void)
{
	for (int i = 0; i < 20; i++)
		event_base_loop(w.base, EVLOOP_NONBLOCK);
}

static struct transport *end_of_pair(int *other, enum transport_start start)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	*other = fds[1];
	return transport_new(w.base, fds[0], NULL, start, NULL, NULL);
}

/* The same over TCP, for what Unix sockets do otherwise: resets. */
static struct transport *end_of_tcp(int *other)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
	*other = accept(listener, NULL, NULL);
	assert_true(*other >= 0);
	close(listener);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return transport_new(w.base, fd, NULL, TRANSPORT_CONNECTING, NULL, NULL);
}

static void client_on(struct transport *transport)
{
	w.client_ready = w.client_gone = false;
	w.client = h1_client_new(&w.tunnel, transport, &pool, NULL);
	turn();
	assert_true(w.client_ready);
}

static void new_client(void)
{
	if (w.hop >= 0)
		close(w.hop);
	client_on(end_of_pair(&w.hop, TRANSPORT_CONNECTING));
}

static int set_up(void **state)
{
	(void)state;
	static struct stats *stats;
	struct event_base *base = w.base;
	w = (struct world){.user = -1, .hop = -1};
	w.base = base ? base : event_base_new();      /* one: transports keep theirs */
	stats = stats ? stats : stats_new(4);
	w.config.node_name = (char *)"node";
	w.generation.config = &w.config;
	w.tunnel.base = w.base;
	w.tunnel.current = &w.generation;
	w.listener_config.limits = (struct config_limits){.header_bytes = 2048, .header_timeout = 60000, .idle_timeout = 60000};
	w.listener = (struct listener){.name = "l", .config = &w.listener_config, .stats = stats_set(stats, STATS_LISTENER, "l")};
	w.origin.listener = &w.listener;
	w.server = h1_server_new(&w.tunnel, end_of_pair(&w.user, TRANSPORT_ACCEPTED), &w.origin, NULL, on_server_gone, NULL);
	new_client();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(w.user);
	close(w.hop);
	turn();
	if (!w.client_gone)
		h1_client_close(w.client);
	turn();
	assert_true(w.server_gone);
	assert_true(w.client_gone);
	return 0;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
	turn();
}

/* What came meanwhile; "" nothing. "<end>" is appended for an orderly end, "<reset>" for the other. */
static const char *hear(int fd)
{
	static char text[8192];
	size_t n = 0;
	for (;;) {
		ssize_t got = recv(fd, text + n, sizeof(text) - n - 16, MSG_DONTWAIT);
		if (got > 0) {
			n += (size_t)got;
			continue;
		}
		strcpy(text + n, got == 0 ? "<end>" : errno == EAGAIN ? "" : "<reset>");
		return text;
	}
}

static void expect(int fd, const char *text)
{
	assert_string_equal(hear(fd), text);
}

#define USER(text) say(w.user, text)
#define HOP(text) say(w.hop, text)
#define USER_HEARS(text) expect(w.user, text)
#define HOP_HEARS(text) expect(w.hop, text)

static void get_and_back(void)
{
	USER("GET http://A/x HTTP/1.1\r\nHost: b\r\nX: 1\r\n\r\n");
	HOP_HEARS("GET /x HTTP/1.1\r\nhost: a\r\nx: 1\r\n\r\n");
	HOP("HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nY: 2\r\n\r\nok");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ny: 2\r\n\r\nok");
	assert_true(w.client_idle);
}

/* --- requests and responses ---------------------------------------------------------------------------------------------- */

static void keeps_alive(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++)
		get_and_back();
	assert_int_equal(w.flows, 3);
	assert_false(w.server_gone);
}

static void pipelines(void **state)
{
	(void)state;
	USER("\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHo");
	HOP_HEARS("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n");
	HOP("HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n");
	USER_HEARS("HTTP/1.1 204 No Content\r\n\r\n");
	HOP_HEARS("POST /2 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
	HOP("HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\n");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
	USER("st: a\r\nConnection: close\r\n\r\n");
	HOP_HEARS("GET /3 HTTP/1.1\r\nhost: a\r\n\r\n");
	HOP("HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n");
	USER_HEARS("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\nconnection: close\r\n\r\n<end>");
}

static void chunked_with_trailers(void **state)
{
	(void)state;
	USER("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab");
	HOP_HEARS("POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\nconnection: te\r\n\r\n2\r\nab\r\n");
	USER("c\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n");
	HOP_HEARS("1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n");
	HOP("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n");
	HOP("2\r\nhi\r\n");
	HOP("0\r\nX-T: 2\r\n\r\n");
	USER_HEARS("HTTP/1.1 200 OK\r\ntrailer: X-T\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-t: 2\r\n\r\n");
	get_and_back();
}

static void informational_and_expect(void **state)
{
	(void)state;
	USER("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
	HOP_HEARS("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n");
	HOP("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
	USER_HEARS("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
	USER("ab");
	HOP_HEARS("ab");
	HOP("HTTP/1.1 201 C\r\nContent-Length: 0\r\n\r\n");
	USER_HEARS("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");
	assert_true(w.client_idle);
}

static void bodiless(void **state)
{
	(void)state;
	USER("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
	HOP("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
	hear(w.hop);
	USER("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
	HOP("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	USER_HEARS("HTTP/1.1 200 OK\r\n\r\n");
	hear(w.hop);
	USER("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
	HOP_HEARS("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
	HOP("HTTP/1.1 205 x\r\nContent-Length: 0\r\n\r\n");
	USER_HEARS("HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n");
	get_and_back();
}

static void until_close(void **state)
{
	(void)state;
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	HOP("HTTP/1.0 200 OK\r\n\r\nabc");
	USER_HEARS("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
	hear(w.hop);
	shutdown(w.hop, SHUT_WR);
	turn();
	USER_HEARS("0\r\n\r\n");
	assert_true(w.client_gone);
	assert_int_equal(w.flows_broken, 0);
	new_client();
	get_and_back();
}

static void http_1_0_client(void **state)
{
	(void)state;
	USER("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
	HOP("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: 1\r\n\r\n");
	USER_HEARS("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nx<end>");
}

static void half_closed_client_gets_its_answer(void **state)
{
	(void)state;
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(w.user, SHUT_WR);
	turn();
	HOP("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx<end>");
	assert_true(w.server_gone);
}

static void early_response(void **state)
{
	(void)state;
	USER("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
	HOP("HTTP/1.1 413 x\r\nContent-Length: 2\r\n\r\nno");
	USER_HEARS("HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno<end>");
	assert_true(w.server_gone);
	assert_true(w.client_gone);
}

static void refused_by_the_flow(void **state)
{
	(void)state;
	w.refuse_up = true;
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
	const char *answer = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 32\r\n"
	                     "proxy-status: test; error=http_request_denied; details=\"no\"\r\n\r\n"
	                     "hermes: http_request_denied: no\n";
	char twice[1024];
	snprintf(twice, sizeof(twice), "%s%s", answer, answer);
	USER_HEARS(twice);
	assert_int_equal(w.flows, 2);
	w.refuse_up = false;
	get_and_back();
}

/* --- tunnels ------------------------------------------------------------------------------------------------------------- */

static void connect_tunnels(void **state)
{
	(void)state;
	USER("CONNECT Db:3306 HTTP/1.1\r\nHost: x\r\n\r\nearly");
	HOP_HEARS("CONNECT db:3306 HTTP/1.1\r\nhost: db:3306\r\n\r\n");
	HOP("HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\nVia: x\r\n\r\nhello");
	USER_HEARS("HTTP/1.1 200 OK\r\nvia: x\r\n\r\nhello");
	HOP_HEARS("early");
	USER("GET / HTTP/1.1\r\n\r\n");
	HOP_HEARS("GET / HTTP/1.1\r\n\r\n");
	shutdown(w.user, SHUT_WR);
	turn();
	HOP_HEARS("<end>");
	HOP("late");
	USER_HEARS("late");
	shutdown(w.hop, SHUT_WR);
	turn();
	USER_HEARS("<end>");
	assert_true(w.server_gone && w.client_gone);
	assert_int_equal(w.flows_broken, 0);
}

static void connect_refused_lives_on(void **state)
{
	(void)state;
	USER("CONNECT db:3306 HTTP/1.1\r\nHost: x\r\n\r\n");
	hear(w.hop);
	HOP("HTTP/1.1 403 no\r\nContent-Length: 2\r\n\r\nno");
	USER_HEARS("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
	get_and_back();
}

static void reset_of_a_tunnel(void **state)
{
	(void)state;
	USER("CONNECT db:3306 HTTP/1.1\r\nHost: x\r\n\r\n");
	HOP("HTTP/1.1 200 x\r\n\r\n");
	hear(w.user);
	close(w.user);
	turn();
	USER_HEARS("<reset>");
	hear(w.hop);
	assert_string_equal(hear(w.hop), "<end>");
	w.user = dup(w.hop);
}

#define UPGRADE "GET /c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " KEY \
	"\r\nSec-WebSocket-Version: 13\r\n\r\n"

/* The key that the client side made, from what the hop heard. */
static void accept_of(const char *heard, char *response, size_t size)
{
	char key[25] = "", accept[32];
	const char *at = strstr(heard, "sec-websocket-key: ");
	assert_non_null(at);
	memcpy(key, at + 19, 24);
	assert_string_not_equal(key, KEY);
	void ws_accept(const char *, char *);
	ws_accept(key, accept);
	snprintf(response, size, "HTTP/1.1 101 S\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
}

static void websocket_tunnels(void **state)
{
	(void)state;
	char response[256];
	USER(UPGRADE);
	const char *heard = hear(w.hop);
	assert_memory_equal(heard, "GET /c HTTP/1.1\r\nhost: a\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\n"
	                    "connection: upgrade\r\nsec-websocket-key: ", 112);
	accept_of(heard, response, sizeof(response));
	HOP(response);
	USER_HEARS("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
	           "sec-websocket-accept: " ACCEPT "\r\n\r\n");
	USER("up");
	HOP_HEARS("up");
	HOP("down");
	USER_HEARS("down");
}

static void websocket_refused(void **state)
{
	(void)state;
	USER(UPGRADE);
	hear(w.hop);
	HOP("HTTP/1.1 403 no\r\nContent-Length: 2\r\n\r\nno");
	USER_HEARS("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
	/* not upgraded, badly upgraded */
	USER(UPGRADE);
	HOP("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno");
	assert_memory_equal(hear(w.user), "HTTP/1.1 502", 12);
	assert_int_equal(w.error, FLOW_UPGRADE);
	new_client();
	USER(UPGRADE);
	HOP("HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n");
	assert_memory_equal(hear(w.user), "HTTP/1.1 502", 12);
	assert_int_equal(w.error, FLOW_UPGRADE);
}

/* RFC 9298 3.2, 3.3: the target is in the path, the next hop's own name in Host. */
#define UDP_PATH "/.well-known/masque/udp/"
#define ASK_UDP(path, more) "GET " path " HTTP/1.1\r\nHost: Proxy.example\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n" more "\r\n"
#define TELLS_UDP "GET " UDP_PATH "2001%3Adb8%3A%3A1/53/ HTTP/1.1\r\nhost: next.example:8443\r\nx: 1\r\ncapsule-protocol: ?1\r\n" \
	"upgrade: connect-udp\r\nconnection: upgrade\r\n\r\n"

static void udp_tunnels(void **state)
{
	(void)state;
	h1_client_authority(w.client, "next.example:8443");
	/* what is sent before the answer waits, and none of it goes on before the next hop's own */
	USER(ASK_UDP("http://proxy.example" UDP_PATH "2001%3adb8%3A%3A1/53/", "X: 1\r\nCapsule-Protocol: ?0\r\n") "early");
	HOP_HEARS(TELLS_UDP);
	HOP("HTTP/1.1 103 E\r\nLink: x\r\n\r\n");
	USER_HEARS("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
	HOP_HEARS("");
	HOP("HTTP/1.1 101 S\r\nUpgrade: Connect-UDP\r\nConnection: Upgrade\r\n\r\ndown");
	USER_HEARS("HTTP/1.1 101 Switching Protocols\r\ncapsule-protocol: ?1\r\nupgrade: connect-udp\r\nconnection: upgrade\r\n\r\ndown");
	HOP_HEARS("early");
	USER("up");
	HOP_HEARS("up");
}

static void udp_refused(void **state)
{
	(void)state;
	/* the next hop's own words reach the client; what the client had sent ahead is not taken for a request */
	USER(ASK_UDP(UDP_PATH "a/1/", "") "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
	hear(w.hop);
	HOP("HTTP/1.1 403 no\r\nProxy-Status: far; error=http_request_denied\r\nCapsule-Protocol: ?1\r\nContent-Length: 2\r\n\r\nno");
	USER_HEARS("HTTP/1.1 403 Forbidden\r\nproxy-status: far; error=http_request_denied\r\ncontent-length: 2\r\n"
	           "connection: close\r\n\r\nno<end>");
	assert_int_equal(w.flows, 1);
}

static void udp_opened_badly(void **state)
{
	static const char *const bad[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
		"HTTP/1.1 204 No\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-ip\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-udp, x\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-udp\r\n\r\n",
		"HTTP/1.1 101 S\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-udp\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-udp\r\nConnection: upgrade\r\nContent-Type: a/b\r\n\r\n",
		"HTTP/1.1 101 S\r\nUpgrade: connect-udp\r\nConnection: upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		if (i > 0)
			assert_int_equal(tear_down(state) + set_up(state), 0);
		USER(ASK_UDP(UDP_PATH "a/1/", ""));
		hear(w.hop);
		HOP(bad[i]);
		assert_memory_equal(hear(w.user), "HTTP/1.1 502", 12);
		assert_int_equal(w.error, FLOW_UPGRADE);
		assert_true(w.client_gone);
	}
}

static void udp_asked_badly(void **state)
{
	(void)state;
	USER(ASK_UDP(UDP_PATH "a/0/", ""));
	const char *heard = hear(w.user);
	assert_memory_equal(heard, "HTTP/1.1 400", 12);
	assert_non_null(strstr(heard, "proxy-status: node; error=http_request_error"));
	assert_true(w.server_gone);
	assert_int_equal(w.flows, 0);
}

/* --- what goes wrong ----------------------------------------------------------------------------------------------------- */

static void malformed_requests(void **state)
{
	(void)state;
	USER("GET / HTTP/1.1\r\nHost : a\r\n\r\n");
	USER_HEARS("HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 44\r\nproxy-status: "
	           "node; error=http_request_error; details=\"bad header name\"\r\nconnection: close\r\n\r\n"
	           "hermes: http_request_error: bad header name\n<end>");
	assert_true(w.server_gone);
	assert_int_equal(w.flows, 0);
}

static void malformed_body(void **state)
{
	(void)state;
	USER("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n");
	assert_memory_equal(hear(w.user), "HTTP/1.1 400", 12);
	assert_true(w.server_gone && w.client_gone);
	assert_int_equal(w.flows_broken, 1);
}

static void client_aborts(void **state)
{
	(void)state;
	USER("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc");
	shutdown(w.user, SHUT_WR);
	turn();
	assert_int_equal(w.error, FLOW_CANCELLED);
	assert_true(w.server_gone && w.client_gone);
}

static void bad_responses(void **state)
{
	(void)state;
	static const struct { const char *text; bool end; enum flow_error error; } cases[] = {
		{"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", false, FLOW_RESPONSE}, {"SSH-2.0", false, FLOW_RESPONSE},
		{"HTTP/1.1 101 x\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n", false, FLOW_RESPONSE},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", false, FLOW_RESPONSE},
		{"HTTP/1.1 200 OK\r\nConte", true, FLOW_RESPONSE_INCOMPLETE}, {"", true, FLOW_TERMINATED},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
		hear(w.hop);
		HOP(cases[i].text);
		if (cases[i].end)
			shutdown(w.hop, SHUT_WR);
		turn();
		assert_memory_equal(hear(w.user), "HTTP/1.1 502", 12);
		assert_int_equal(w.error, cases[i].error);
		assert_true(w.client_gone);
		new_client();
	}
	assert_false(w.server_gone);
}

static void cut_response_is_cut_for_the_client(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
	};
	for (size_t i = 0; i < 2; i++) {
		USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
		HOP(cases[i]);
		hear(w.user);
		shutdown(w.hop, SHUT_WR);
		turn();
		assert_int_equal(w.error, FLOW_RESPONSE_INCOMPLETE);
		assert_true(strstr(hear(w.user), "<") != NULL);      /* ends without a last chunk */
		assert_true(w.server_gone);
		tear_down(NULL);
		set_up(NULL);
	}
}

/* Bytes and a reset that come together, seen in one event: the reset must not be missed. */
static void reset_behind_a_short_read(void **state)
{
	(void)state;
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
	struct linger at_once = {.l_onoff = 1};
	h1_client_close(w.client);
	close(w.hop);
	client_on(end_of_tcp(&w.hop));
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	setsockopt(w.hop, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	assert_int_equal(send(w.hop, text, sizeof(text) - 1, 0), sizeof(text) - 1);
	close(w.hop);
	w.hop = -1;
	for (int i = 0; i < 1000 && !w.client_gone; i++) {
		usleep(5000);
		turn();
	}
	assert_true(w.client_gone);
	assert_int_equal(w.flows_broken, 1);
	assert_true(w.server_gone);
}

static void dead_idle_connections(void **state)
{
	(void)state;
	get_and_back();
	HOP("HTTP/1.1 408 x\r\n\r\n");
	assert_true(w.client_gone);
	new_client();
	get_and_back();
	shutdown(w.hop, SHUT_WR);
	turn();
	assert_true(w.client_gone);
	new_client();
	get_and_back();
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	shutdown(w.hop, SHUT_RDWR);
	turn();
	assert_int_equal(w.error, FLOW_TERMINATED);
	assert_string_equal(w.detail, "idle connection closed");
}

static void surplus_after_a_response(void **state)
{
	(void)state;
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	HOP("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx");
	assert_true(w.client_gone);
}

static void backpressure_pauses(void **state)
{
	(void)state;
	static char block[65536];
	size_t sent = 0;
	memset(block, 'x', sizeof(block));
	w.hold_up = true;
	USER("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
	for (int i = 0; i < 200; i++) {
		ssize_t n = send(w.user, block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
		turn();
		while (recv(w.hop, block, sizeof(block), MSG_DONTWAIT) > 0)
			;
	}
	/* what the socket holds, and what may be outstanding with one read more */
	assert_true(sent > 200000);
	assert_true(sent < 2000000);
}

static void drains(void **state)
{
	(void)state;
	USER("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	h1_server_drain(w.server);
	h1_client_close(w.client);
	HOP("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
	USER_HEARS("HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx<end>");
	assert_true(w.server_gone && w.client_gone);
}

static void slow_head_times_out(void **state)
{
	(void)state;
	w.listener_config.limits.header_timeout = 1;
	USER("GET / HTTP");
	struct timeval later = {.tv_usec = 50000};
	event_base_loopexit(w.base, &later);
	event_base_dispatch(w.base);
	turn();
	assert_memory_equal(hear(w.user), "HTTP/1.1 408", 12);
	assert_true(w.server_gone);
}

#define T(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(keeps_alive), T(pipelines), T(chunked_with_trailers), T(informational_and_expect), T(bodiless), T(until_close),
		T(http_1_0_client), T(half_closed_client_gets_its_answer), T(early_response), T(refused_by_the_flow),
		T(connect_tunnels), T(connect_refused_lives_on), T(reset_of_a_tunnel), T(websocket_tunnels), T(websocket_refused), T(udp_tunnels), T(udp_refused), T(udp_opened_badly), T(udp_asked_badly),
		T(malformed_requests), T(malformed_body), T(client_aborts), T(bad_responses),
		T(cut_response_is_cut_for_the_client), T(reset_behind_a_short_read), T(dead_idle_connections), T(surplus_after_a_response),
		T(backpressure_pauses), T(drains), T(slow_head_times_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
