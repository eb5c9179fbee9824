/* An HTTP/2 connection, server's or client's, fed through its transport's callbacks in pieces of any size; the flows behind it
 * answer, pause, fail and close as the input says. The transport is the fuzzer's own: it takes what is written, now or later.
 *
 * Input: the first byte chooses side and limits, then records of a control byte: events of flows and transport, or so many
 * bytes of the peer's (below 0x80: as many as it says; frames with a repaired length where bit 6 is set). */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/generation.h"
#include "workers/tunnel/h2.h"
#include "workers/tunnel/listener.h"

#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)
#define FLOWS 64

struct flow {
	struct leg *leg;
	struct head *request;
	bool tunnel, headed, finished, ended, refused;
	size_t given, taken;
};

struct transport {
	const struct transport_callbacks *callbacks;
	void *arg;
	size_t pending;
	bool want, freed, blocked;
};

static struct {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct listener listener;
	struct origin origin;
	struct transport transport;
	struct h2 *h2;
	struct flow flows[FLOWS];
	unsigned n_flows, gone, ready;
	uint64_t now;
	bool server, eager;           /* eager: flows answer as soon as they begin */
} w;

uint64_t now_us(void) { return w.now; }
uint64_t wall_us(void) { return w.now; }

/* --- the transport ------------------------------------------------------------------------------------------------------- */

void transport_set_callbacks(struct transport *t, const struct transport_callbacks *callbacks, void *arg)
{
	t->callbacks = callbacks;
	t->arg = arg;
}

bool transport_send(struct transport *t, struct chunks *chunks, bool force)
{
	CHECK(!t->freed && force);
	if (t->blocked)
		t->pending += chunks->bytes;
	chunks_clear(chunks);
	return true;
}

void transport_want(struct transport *t) { t->want = true; }
size_t transport_pending(const struct transport *t) { return t->pending; }
void transport_unread(struct transport *t, struct chunks *chunks) { (void)t; chunks_clear(chunks); }

void transport_free(struct transport *t, bool reset)
{
	(void)reset;
	CHECK(!t->freed);
	t->freed = true;
}

void transport_linger(struct transport *t) { transport_free(t, false); }

/* What transport.c does once per turn. */
static void turn(void)
{
	struct transport *t = &w.transport;
	for (int i = 0; i < 100 && !t->freed && t->want && t->pending < 128 * 1024; i++) {
		t->want = false;
		bool more = t->callbacks->fill(t->arg);
		t->want |= more;
		if (more && t->blocked)
			break;
	}
}

/* --- flows --------------------------------------------------------------------------------------------------------------- */

static void flow_answer(struct flow *f, unsigned status, bool end)
{
	struct head *head = head_new();
	head->status = status;
	head_add(head, "server", "fuzz");
	if (status >= 200) {
		f->headed = true;
		f->finished = end;
	}
	f->leg->ops->head(f->leg, head, end);
	head_free(head);
}

static void flow_close(struct flow *f, enum flow_error error)
{
	struct leg *leg = f->leg;
	f->leg = NULL;
	leg->ops->close(leg, error);
}

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request, bool end)
{
	struct flow *f = &w.flows[w.n_flows++ % FLOWS];
	CHECK(tunnel == &w.tunnel && origin == &w.origin && request->method);
	if (f->leg)
		flow_close(f, FLOW_INTERNAL);
	head_free(f->request);
	*f = (struct flow){.leg = leg, .request = request, .tunnel = head_is_connect(request), .ended = end};
	CHECK(request->authority && (f->tunnel || request->path));
	leg->flow = f;
	if (w.eager)
		flow_answer(f, 200, false);
	return f;
}

const struct head *flow_request(const struct flow *f) { return f->request; }

void flow_head(struct flow *f, struct leg *leg, struct head *response, bool end)
{
	CHECK(f->leg == leg && response->status >= 100 && !f->ended);
	f->ended = end;
	head_free(response);
}

void flow_data(struct flow *f, struct leg *leg, struct chunks *chunks)
{
	CHECK(f->leg == leg && !f->ended && chunks->bytes > 0);
	f->given += chunks->bytes;
	CHECK(f->given - f->taken <= 8 * 1024 * 1024);
	chunks_clear(chunks);
}

void flow_finish(struct flow *f, struct leg *leg, struct head *trailers)
{
	CHECK(f->leg == leg && !f->ended);
	f->ended = true;
	head_free(trailers);
}

void flow_writable(struct flow *f, struct leg *leg)
{
	CHECK(f->leg == leg && f->refused);
	f->refused = false;
}

void flow_broken(struct flow *f, struct leg *leg, enum flow_error error, const char *detail)
{
	CHECK(f->leg == leg && error != FLOW_NONE && detail);
	f->leg = NULL;
}

static void flow_send(struct flow *f, size_t bytes)
{
	static const uint8_t block[20000];
	struct chunks chunks = {0};
	chunks_copy(&chunks, block, bytes);
	if (f->leg->ops->send(f->leg, &chunks)) {
		CHECK(!chunks.head);
		return;
	}
	CHECK(chunks.bytes == bytes);
	f->refused = true;
	chunks_clear(&chunks);
}

/* --- the input ------------------------------------------------------------------------------------------------------------ */

static const uint8_t *input;
static size_t left;

static uint8_t next(void)
{
	if (!left)
		return 0;
	left--;
	return *input++;
}

static void receive(const uint8_t *data, size_t length)
{
	struct chunks chunks = {0};
	if (w.transport.freed || !length)
		return;
	chunks_copy(&chunks, data, length);
	w.transport.callbacks->received(w.transport.arg, &chunks);
	CHECK(!chunks.head);
}

/* A frame whose length is right: type, flags, stream, payload from the input. */
static void receive_frame(size_t length)
{
	uint8_t frame[9 + 64] = {0, 0, (uint8_t)length};
	frame[3] = next() % 11;
	frame[4] = next();
	frame[8] = next() & 31;
	for (size_t i = 0; i < length; i++)
		frame[9 + i] = next();
	receive(frame, 9 + length);
}

static void open_stream(void)
{
	if (!w.h2 || !h2_room(w.h2))
		return;
	struct flow *f = &w.flows[w.n_flows++ % FLOWS];
	if (f->leg)
		flow_close(f, FLOW_CANCELLED);
	if (!w.h2 || !h2_room(w.h2))
		return;
	head_free(f->request);
	uint8_t what = next();
	struct head *head = head_new();
	head->method = what & 1 ? "CONNECT" : what & 2 ? "POST" : "GET";
	head->authority = "video:80";
	head->protocol = (what & 5) == 5 ? "websocket" : NULL;
	if (!(what & 1) || head->protocol) {
		head->scheme = "http";
		head->path = "/";
	}
	head_add(head, "user", "alice");
	*f = (struct flow){.request = head, .tunnel = what & 1, .headed = true, .finished = (what & 8) && !(what & 1)};
	f->leg = h2_open(w.h2, f);
	CHECK(f->leg);
	f->leg->flow = f;
	f->leg->ops->head(f->leg, head, f->finished);
}

static void flow_event(uint8_t op)
{
	struct flow *f = &w.flows[next() % FLOWS];
	if (!f->leg)
		f = &w.flows[(w.n_flows + FLOWS - 1) % FLOWS];
	if (!f->leg)
		return;
	switch (op % 8) {
	case 0:
		if (w.server && !f->headed)
			flow_answer(f, 103, false);
		break;
	case 1:
		if (w.server && !f->headed)
			flow_answer(f, f->tunnel && next() & 1 ? 200 : 404, !f->tunnel && next() & 1);
		break;
	case 2:
	case 3:
		if (f->headed && !f->finished && !f->refused)
			flow_send(f, 1 + (size_t)next() * (op & 8 ? 1 : 77));
		break;
	case 4:
		if (f->headed && !f->finished) {
			struct head *trailers = head_new();
			head_add(trailers, "checksum", "42");
			f->finished = true;
			f->leg->ops->finish(f->leg, op & 8 ? trailers : NULL);
			head_free(trailers);
		}
		break;
	case 5:
		if (f->given > f->taken) {
			size_t n = f->given - f->taken;
			f->taken += n;
			f->leg->ops->taken(f->leg, n);
		}
		break;
	case 6:
		flow_close(f, (enum flow_error)(1 + next() % (FLOW_ERROR_COUNT - 1)));
		break;
	default:
		if (f->headed && f->finished)
			flow_close(f, FLOW_NONE);
	}
}

static void other_event(uint8_t op)
{
	switch (op % 8) {
	case 0:
	case 1:
		turn();
		break;
	case 2:
		w.transport.blocked = true;
		break;
	case 3:
		w.transport.blocked = false;
		w.transport.pending = 0;
		w.transport.want = true;
		break;
	case 4:
		if (!w.server)
			open_stream();
		break;
	case 5:
		if (w.h2 && next() > 200)
			h2_drain(w.h2, op & 8);
		break;
	case 6:
		w.now += (uint64_t)next() * (op & 8 ? 100000 : 100);
		break;
	default:
		if (!w.transport.freed && next() > 200) {
			if (op & 8)
				w.transport.callbacks->ended(w.transport.arg);
			else
				w.transport.callbacks->broken(w.transport.arg, FLOW_TERMINATED, "reset");
		}
	}
}

static void step(void)
{
	uint8_t op = next();
	if (op >= 0xc0)
		flow_event(op & 31);
	else if (op >= 0x80)
		other_event(op & 31);
	else if (op & 0x40)
		receive_frame(op & 0x3f);
	else {
		size_t n = (op & 0x3fu) < left ? (op & 0x3fu) : left;
		receive(input, n);
		input += n;
		left -= n;
	}
}

/* --- set-up --------------------------------------------------------------------------------------------------------------- */

static void server_gone(void *arg) { (void)arg; w.gone++; w.h2 = NULL; }
static void client_gone(void *arg, enum flow_error error, const char *detail) { (void)error, (void)detail; server_gone(arg); }
static void ready(void *arg) { (void)arg; w.ready++; }
static void room(void *arg) { (void)arg; }
static void closing(void *arg) { (void)arg; CHECK(w.h2 && h2_room(w.h2) == 0); }

static void begin(uint8_t first)
{
	static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\6\4\0\0\0\0\0\0\10\0\0\0\1";
	static const struct h2_pool_callbacks pool = {ready, room, closing, client_gone};
	struct event_base *base = w.base ? w.base : event_base_new();
	struct stats *stats = w.tunnel.stats ? w.tunnel.stats : stats_new(8);
	memset(&w, 0, sizeof(w));
	w.base = base;
	w.now = 1000000;
	w.config.node_name = (char *)"fuzz";
	w.generation = (struct generation){.number = 1, .refs = 1, .config = &w.config};
	w.tunnel = (struct tunnel){.base = base, .current = &w.generation, .stats = stats};
	w.listener_config = (struct config_listener){.name = (char *)"l", .accept = first & 2 ? CONFIG_OVERLAY : CONFIG_HTTP,
		.limits = {.connections = 10, .streams = first & 4 ? 3 : 50, .header_bytes = 2000, .header_timeout = 1000,
		           .idle_timeout = 1000, .abuse_events = first & 8 ? 20 : 1000}};
	w.listener = (struct listener){.name = "l", .config = &w.listener_config, .stats = stats_set(stats, STATS_LISTENER, "l")};
	w.origin = (struct origin){.listener = &w.listener, .source_text = "127.0.0.1", .carry = "h2"};
	w.server = first & 1;
	w.eager = first & 16;
	if (w.server)
		w.h2 = h2_server_new(&w.tunnel, &w.transport, &w.origin, NULL, server_gone, NULL);
	else
		w.h2 = h2_client_new(&w.tunnel, &w.transport, first & 4 ? 3 : 0, &pool, NULL);
	if (first & 32)
		return;
	if (w.server)
		receive(preface, sizeof(preface) - 1);
	else
		receive(preface + 24, sizeof(preface) - 25);
}

static void end(void)
{
	if (!w.transport.freed)
		w.transport.callbacks->broken(w.transport.arg, FLOW_TERMINATED, "the end");
	CHECK(w.transport.freed);
	for (unsigned i = 0; i < FLOWS; i++) {
		if (w.flows[i].leg)
			flow_close(&w.flows[i], FLOW_CANCELLED);
		head_free(w.flows[i].request);
	}
	CHECK(!w.h2 && w.gone == 1);
	CHECK(slab_in_use() <= SLAB_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	left = size;
	begin(next());
	while (left > 0)
		step();
	turn();
	end();
	return 0;
}
