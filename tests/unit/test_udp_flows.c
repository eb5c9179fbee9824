/* SPDX-License-Identifier: Apache-2.0 */
/* UDP flows of programs as in legs: flows and the sending socket are the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <event2/event.h>

#include "workers/tunnel/udp_flows_internal.h"

/* --- flows that the test plays ------------------------------------------------------------------------------------ */

#define FLOWS 64

struct flow {
	struct leg *in;
	struct head *request;
	struct chunks up;             /* what the leg gave */
	bool hold, finished, broken;  /* hold: nothing is taken */
	enum flow_error error;
	unsigned writable;
	struct chunks down;           /* refused by the leg, sent again when it is writable */
};

static struct {
	struct flow flows[FLOWS];
	unsigned n;
	bool deny;                    /* flow_new() answers 403 */
} far;

struct flow *flow_new(struct tunnel *tunnel, const struct origin *origin, struct leg *leg, struct head *request,
                      bool end)
{
	struct flow *flow = &far.flows[far.n++];
	(void)tunnel, (void)origin;
	assert_false(end);
	assert_true(far.n <= FLOWS);
	*flow = (struct flow){.in = leg, .request = request};
	leg->flow = flow;
	if (far.deny) {
		struct head *head = head_new();
		struct chunks text = {0};
		head->status = 403;
		leg->ops->head(leg, head, false);
		head_free(head);
		chunks_copy(&text, "no", 2);
		assert_true(leg->ops->send(leg, &text));
		leg->ops->finish(leg, NULL);
		leg->ops->close(leg, FLOW_NONE);
		flow->in = NULL;
	}
	return flow;
}

void flow_data(struct flow *flow, struct leg *leg, struct chunks *chunks)
{
	size_t bytes = chunks->bytes;
	assert_ptr_equal(flow->in, leg);
	assert_false(flow->finished);
	chunks_move(&flow->up, chunks);
	if (!flow->hold)
		leg->ops->taken(leg, bytes);
}

void flow_finish(struct flow *flow, struct leg *leg, struct head *trailers)
{
	assert_ptr_equal(flow->in, leg);
	assert_null(trailers);
	flow->finished = true;
}

void flow_writable(struct flow *flow, struct leg *leg)
{
	flow->writable++;
	if (flow->down.head)
		leg->ops->send(leg, &flow->down);
}

void flow_broken(struct flow *flow, struct leg *leg, enum flow_error error, const char *detail)
{
	assert_ptr_equal(flow->in, leg);
	assert_non_null(detail);
	flow->in = NULL;
	flow->broken = true;
	flow->error = error;
}

static void open_flow(struct flow *flow, bool segments)
{
	struct join join = {.fresh = true, .segments = segments};
	struct head *head = head_new();
	head->status = 200;
	flow->in->ops->head(flow->in, head, false);
	head_free(head);
	flow->in->ops->joined(flow->in, &join);
}

static void close_flow(struct flow *flow, enum flow_error error)
{
	flow->in->ops->close(flow->in, error);
	flow->in = NULL;
}

/* --- the socket that the test plays ------------------------------------------------------------------------------- */

struct udp_sender { unsigned n; };
struct udp_kept { unsigned n; struct { char data[64]; } v[64]; };

static struct {
	struct udp_kept batch;        /* added, not flushed */
	char sent[8192];              /* all that left, a space behind each */
	unsigned room;                /* datagrams until the socket is full; UINT_MAX: never */
	unsigned batch_max, calls;
} wire;

static struct udp_sender sender;

bool udp_add(struct udp_sender *s, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
             const struct iovec *pieces, unsigned n, uint32_t segment)
{
	char *at;
	(void)s, (void)from;
	assert_non_null(to);
	if (wire.batch.n == wire.batch_max)
		return false;
	at = wire.batch.v[wire.batch.n++].data;
	if (segment > 0)
		at += sprintf(at, "%u/", segment);
	for (unsigned i = 0; i < n; i++) {
		memcpy(at, pieces[i].iov_base, pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	*at = '\0';
	return true;
}

int udp_flush(struct udp_sender *s, int fd, unsigned *taken, unsigned *sent, unsigned *too_long)
{
	unsigned i = 0;
	(void)s, (void)fd;
	wire.calls += wire.batch.n > 0;
	for (; i < wire.batch.n && wire.room > 0; i++) {
		strcat(strcat(wire.sent, wire.batch.v[i].data), " ");
		wire.room -= wire.room != UINT_MAX;
	}
	*taken = *sent = i;
	*too_long = 0;
	memmove(wire.batch.v, wire.batch.v + i, (wire.batch.n - i) * sizeof(wire.batch.v[0]));
	wire.batch.n -= i;
	return wire.batch.n > 0 ? -EAGAIN : 0;
}

struct udp_kept *udp_keep(struct udp_sender *s)
{
	(void)s;
	if (wire.batch.n == 0)
		return NULL;
	struct udp_kept *kept = malloc(sizeof(*kept));
	*kept = wire.batch;
	wire.batch.n = 0;
	return kept;
}

int udp_flush_kept(struct udp_sender *s, struct udp_kept **kept, int fd, unsigned *sent, unsigned *too_long)
{
	unsigned taken;
	assert_int_equal(wire.batch.n, 0);
	wire.batch = **kept;
	free(*kept);
	int error = udp_flush(s, fd, &taken, sent, too_long);
	*kept = udp_keep(s);
	return error;
}

struct udp_sender *udp_sender_new(void) { return &sender; }
void udp_sender_free(struct udp_sender *s) { (void)s; }

/* --- the rest of the world ---------------------------------------------------------------------------------------- */

static struct {
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct listener listener;
	struct udp_flows *flows;
	struct udp_socket *socket;
	int held;
} world;

static void on_held(void *arg, int change)
{
	(void)arg;
	world.held += change;
}

static int set_up(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	memset(&far, 0, sizeof(far));
	memset(&wire, 0, sizeof(wire));
	wire.room = UINT_MAX;
	wire.batch_max = 8;
	world.config = (struct config){.datagram_queue = 1 << 20, .datagram_age = 2000, .memory = 64 << 20};
	world.generation.config = &world.config;
	world.tunnel = (struct tunnel){.base = event_base_new(), .current = &world.generation, .udp = &sender,
	                               .stats = stats_new(8)};
	world.listener_config.limits.flows = 8;
	world.listener = (struct listener){.name = "l", .config = &world.listener_config,
	                                   .stats = stats_set(world.tunnel.stats, STATS_LISTENER, "l")};
	world.flows = udp_flows_new(&world.tunnel, &world.listener, UINT32_MAX, on_held, NULL);
	world.socket = udp_socket_new(&world.tunnel, world.listener.stats,
	                              socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	return 0;
}

static void turn(void)
{
	event_base_loop(world.tunnel.base, EVLOOP_NONBLOCK | EVLOOP_ONCE);
}

static int tear_down(void **state)
{
	(void)state;
	if (world.flows)
		udp_flows_free(world.flows);
	udp_socket_unref(world.socket);
	turn();
	assert_int_equal(world.held, 0);
	assert_int_equal(world.listener.udp_flows, 0);
	for (unsigned i = 0; i < far.n; i++) {
		head_free(far.flows[i].request);
		chunks_clear(&far.flows[i].up);
		chunks_clear(&far.flows[i].down);
	}
	event_base_free(world.tunnel.base);
	stats_free(world.tunnel.stats);
	return 0;
}

static struct udp_flow *begin_with(char key, struct udp_socket *socket, const char *header)
{
	static struct sockaddr_storage client = {.ss_family = AF_INET};
	struct udp_begin how = {.key = &key, .key_length = 1, .target = "t:1", .carry = "udp", .client = &client,
	                        .socket = socket, .header = header, .header_length = header ? strlen(header) : 0};
	return udp_flows_begin(world.flows, &how);
}

static struct udp_flow *begin(char key)
{
	return begin_with(key, world.socket, NULL);
}

static void take(struct udp_flow *flow, const char *text, uint32_t segment)
{
	udp_flow_take(flow, (const uint8_t *)text, strlen(text), segment);
}

static char seen[8192];

static bool on_seen(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	(void)arg, (void)length;
	char *at = seen + strlen(seen);
	at += sprintf(at, "%u:", (unsigned)context);
	for (unsigned i = 0; i < n; i++) {
		memcpy(at, pieces[i].data, pieces[i].length);
		at += pieces[i].length;
	}
	strcpy(at, " ");
	return true;
}

/* Everything that a flow was given since the last look. */
static const char *given(struct flow *flow)
{
	static const struct capsule_callbacks callbacks = {.datagram = on_seen};
	struct capsule_reader reader = {.callbacks = &callbacks};
	seen[0] = '\0';
	assert_int_equal(capsule_read(&reader, &flow->up), CAPSULE_OK);
	assert_true(capsule_read_end(&reader));
	return seen;
}

static void answer(struct flow *flow, const char *text)
{
	capsule_put_datagram(&flow->down, CONTEXT_PAYLOAD, NULL, 0, text, strlen(text));
	flow->in->ops->send(flow->in, &flow->down);
}

static uint64_t dropped(enum stats_metric reason)
{
	struct stats_view *view = stats_view_new(stats_fd(world.tunnel.stats));
	uint64_t value = stats_view_value(view, 0, reason);
	stats_view_free(view);
	return value;
}

/* --- up ----------------------------------------------------------------------------------------------------------- */

static void waits_until_joined(void **state)
{
	(void)state;
	struct udp_flow *f = begin('a');
	assert_string_equal(far.flows[0].request->authority, "t:1");
	assert_string_equal(far.flows[0].request->protocol, "connect-udp");
	take(f, "one", 3), take(f, "two", 3), take(f, "", 0), take(f, "aabbc", 2);
	udp_flows_give(world.flows);
	assert_null(far.flows[0].up.head);
	open_flow(&far.flows[0], false);
	assert_string_equal(given(&far.flows[0]), "0:one 0:two 0: 0:aa 0:bb 0:c ");
	take(f, "x", 1), take(f, "yyzz", 2);
	assert_null(far.flows[0].up.head);      /* gathered */
	udp_flows_give(world.flows);
	assert_string_equal(given(&far.flows[0]), "0:x 0:yy 0:zz ");
	assert_ptr_equal(udp_flows_find(world.flows, "a", 1), f);
	assert_null(udp_flows_find(world.flows, "b", 1));
	close_flow(&far.flows[0], FLOW_NONE);
	assert_null(udp_flows_find(world.flows, "a", 1));
}

static void runs_go_whole(void **state)
{
	(void)state;
	struct udp_flow *f = begin('a');
	take(f, "AABBC", 2);
	open_flow(&far.flows[0], true);
	take(f, "xxyy", 2), take(f, "lone", 4);
	udp_flows_give(world.flows);
	struct chunks up = {0};
	chunks_move(&up, &far.flows[0].up);
	uint8_t bytes[64], *at = bytes;
	for (struct chunk *c; (c = chunks_pop(&up)); chunk_free(c))
		at = mempcpy(at, c->data, c->length);
	static const char expected[] = "\0\x08\x02\0\x02" "AABBC" "\0\x07\x02\0\x02" "xxyy" "\0\x05\0" "lone";
	assert_int_equal(at - bytes, sizeof(expected) - 1);
	assert_memory_equal(bytes, expected, sizeof(expected) - 1);
	close_flow(&far.flows[0], FLOW_NONE);
}

/* What the far leg has not taken is bounded; the rest waits in the queue and keeps its order. */
static void far_leg_is_slow(void **state)
{
	static char text[1025];
	(void)state;
	struct udp_flow *f = begin('a');
	struct flow *flow = &far.flows[0];
	memset(text, 'x', 1024);
	open_flow(flow, false);
	flow->hold = true;
	for (unsigned i = 0; i < 600; i++) {
		memcpy(text, (char[]){(char)('0' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10)}, 3);
		take(f, text, 1024);
		udp_flows_give(world.flows);
	}
	assert_true(flow->up.bytes > SLAB_SIZE / 2 && flow->up.bytes < SLAB_SIZE + 8 * 1024);
	assert_true(f->queue.bytes > 100 * 1024);
	assert_int_equal(dropped(STATS_LISTENER_DROP_QUEUE_FULL), 0);
	flow->hold = false;
	flow->in->ops->taken(flow->in, flow->up.bytes);
	assert_int_equal(f->queue.bytes, 0);
	size_t at = 0;
	for (unsigned i = 0; i < 600; i++, at += 1028) {
		struct chunks one = {0};
		uint8_t start[7], *to = start;
		chunks_split(&one, &flow->up, 7);
		for (struct chunk *c; (c = chunks_pop(&one)); chunk_free(c))
			to = mempcpy(to, c->data, c->length);
		assert_memory_equal(start, ((uint8_t[]){0, 0x44, 0x01, 0, (uint8_t)('0' + i / 100), (uint8_t)('0' + i / 10 % 10),
		                                        (uint8_t)('0' + i % 10)}), 7);
		chunks_drop(&flow->up, 1028 - 7);
	}
	assert_null(flow->up.head);
	close_flow(flow, FLOW_NONE);
}

static void refusals_are_remembered(void **state)
{
	(void)state;
	far.deny = true;
	struct udp_flow *f = begin('a');
	take(f, "one", 3);
	take(f, "aabb", 2);
	udp_flows_give(world.flows);
	assert_ptr_equal(udp_flows_find(world.flows, "a", 1), f);
	assert_int_equal(dropped(STATS_LISTENER_DROP_NO_TUNNEL), 3);
	assert_int_equal(world.listener.udp_flows, 1);
	f->forget_at = now_us() - 1;
	assert_null(udp_flows_find(world.flows, "a", 1));
	assert_int_equal(world.listener.udp_flows, 0);
}

static void tables_are_bounded(void **state)
{
	(void)state;
	for (char key = 'a'; key < 'a' + 8; key++)
		assert_non_null(begin(key));
	assert_null(begin('z'));
	assert_int_equal(dropped(STATS_LISTENER_DROP_TABLE_FULL), 1);
	assert_non_null(udp_flows_find(world.flows, "a", 1));
	close_flow(&far.flows[3], FLOW_NONE);
	far.deny = true;
	assert_non_null(begin('y'));            /* refused, but in the table */
	far.deny = false;
	assert_non_null(begin('z'));            /* takes its place */
	assert_null(udp_flows_find(world.flows, "y", 1));
	assert_null(begin('w'));
	struct udp_flows *other = udp_flows_new(&world.tunnel, &world.listener, UINT32_MAX, NULL, NULL), *own = world.flows;
	world.flows = other;
	assert_null(begin('q'));                /* the listener's limit holds over all its tables */
	world.flows = own;
	udp_flows_free(other);
}

static void closing_delivers(void **state)
{
	(void)state;
	struct udp_flow *f = begin('a');
	begin('b');
	take(f, "queued", 6);
	udp_flows_close(world.flows);
	world.flows = NULL;
	assert_false(far.flows[0].finished);
	open_flow(&far.flows[0], false);
	assert_string_equal(given(&far.flows[0]), "0:queued ");
	assert_true(far.flows[0].finished);
	answer(&far.flows[0], "late");
	turn();
	assert_string_equal(wire.sent, "late ");
	close_flow(&far.flows[0], FLOW_NONE);
	close_flow(&far.flows[1], FLOW_TERMINATED);
}

static void freeing_ends_at_once(void **state)
{
	(void)state;
	begin('a');
	open_flow(&far.flows[0], false);
	begin('b');
	udp_flows_free(world.flows);
	world.flows = NULL;
	assert_true(far.flows[0].broken && far.flows[1].broken);
	assert_int_equal(world.held, 0);
}

/* --- the way back ------------------------------------------------------------------------------------------------- */

static void answers_leave_together(void **state)
{
	(void)state;
	begin('a'), begin('b');
	open_flow(&far.flows[0], true), open_flow(&far.flows[1], true);
	answer(&far.flows[0], "1"), answer(&far.flows[1], "2"), answer(&far.flows[0], "3");
	capsule_put_datagram(&far.flows[1].down, CONTEXT_SEGMENTS, "\0\2", 2, "aabbc", 5);
	capsule_put_datagram(&far.flows[1].down, 77, NULL, 0, "unknown", 7);
	answer(&far.flows[1], "");
	assert_int_equal(wire.calls, 0);
	turn();
	assert_int_equal(wire.calls, 1);
	assert_string_equal(wire.sent, "1 3 2 2/aabbc  ");
	close_flow(&far.flows[0], FLOW_NONE), close_flow(&far.flows[1], FLOW_NONE);
}

static void headers_go_before_each(void **state)
{
	(void)state;
	begin_with('a', world.socket, "H");
	open_flow(&far.flows[0], true);
	answer(&far.flows[0], "1");
	capsule_put_datagram(&far.flows[0].down, CONTEXT_SEGMENTS, "\0\2", 2, "aabbc", 5);
	answer(&far.flows[0], "");
	turn();
	assert_string_equal(wire.sent, "H1 Haa Hbb Hc H ");
	close_flow(&far.flows[0], FLOW_NONE);
}

/* The socket takes `room` datagrams, then none, then all: nothing is lost or passes another, whatever the batch. */
static void full_socket(unsigned room, unsigned batch)
{
	char expected[512] = "";
	begin_with('a', world.socket, NULL);
	begin_with('b', world.socket, "H");
	struct flow *a = &far.flows[0], *b = &far.flows[1];
	open_flow(a, true), open_flow(b, true);
	wire.room = room;
	wire.batch_max = batch;
	for (char c = '0'; c < '9'; c++) {
		capsule_put_datagram(&a->down, CONTEXT_PAYLOAD, NULL, 0, &c, 1);
		sprintf(expected + strlen(expected), "%c ", c);
	}
	capsule_put_datagram(&b->down, CONTEXT_SEGMENTS, "\0\1", 2, "uvwxyz", 6);
	strcat(expected, "Hu Hv Hw Hx Hy Hz ");
	a->in->ops->send(a->in, &a->down);
	b->in->ops->send(b->in, &b->down);
	turn();
	if (room < 15) {
		assert_int_equal(strlen(wire.sent) > 0, room > 0);
		answer(a, "more");
		assert_non_null(a->down.head);  /* refused */
		assert_int_equal(a->writable, 0);
	} else {
		answer(a, "more");
	}
	strcat(expected, "more ");
	wire.room = 2;                          /* its end is writable all the time, but it takes little */
	turn();
	wire.room = UINT_MAX;
	for (int i = 0; i < 8; i++)
		turn();
	assert_string_equal(wire.sent, expected);
	assert_null(a->down.head);
	close_flow(a, FLOW_NONE), close_flow(b, FLOW_NONE);
	turn();
	assert_int_equal(world.held, 0);
}

static void full_sockets_keep_the_order(void **state)
{
	for (unsigned room = 0; room < 17; room++)
		for (unsigned batch = 1; batch < 17; batch++) {
			tear_down(state);
			set_up(state);
			full_socket(room, batch);
		}
}

/* What a flow's end leaves behind still leaves; after a reset it does not. */
static void ends_deliver(void **state)
{
	(void)state;
	begin('a'), begin('b');
	open_flow(&far.flows[0], false), open_flow(&far.flows[1], false);
	answer(&far.flows[0], "last");
	answer(&far.flows[1], "reset");
	close_flow(&far.flows[0], FLOW_NONE);
	close_flow(&far.flows[1], FLOW_TERMINATED);
	turn();
	assert_string_equal(wire.sent, "last ");
	assert_int_equal(world.held, 0);
}

static void the_far_end_finishes(void **state)
{
	(void)state;
	begin('a'), begin('b');
	open_flow(&far.flows[0], false), open_flow(&far.flows[1], false);
	answer(&far.flows[0], "last");
	far.flows[0].in->ops->finish(far.flows[0].in, NULL);
	chunks_copy(&far.flows[1].down, "\0\x05\0x", 4);
	far.flows[1].in->ops->send(far.flows[1].in, &far.flows[1].down);
	far.flows[1].in->ops->finish(far.flows[1].in, NULL);
	assert_false(far.flows[0].finished);
	turn();
	assert_string_equal(wire.sent, "last ");
	assert_true(far.flows[0].finished && !far.flows[0].broken);
	assert_true(far.flows[1].broken);       /* inside a capsule */
	assert_int_equal(far.flows[1].error, FLOW_RESPONSE_INCOMPLETE);
	close_flow(&far.flows[0], FLOW_NONE);
}

/* Idle for too long: the next datagram begins another flow, what is still under way arrives. */
static void idle_flows_end(void **state)
{
	(void)state;
	struct udp_flow *old = begin('a');
	open_flow(&far.flows[0], false);
	far.flows[0].in->ops->idle(far.flows[0].in);
	assert_true(far.flows[0].finished);
	assert_null(udp_flows_find(world.flows, "a", 1));
	assert_ptr_not_equal(begin('a'), old);
	answer(&far.flows[0], "late");
	far.flows[0].in->ops->finish(far.flows[0].in, NULL);
	turn();
	assert_string_equal(wire.sent, "late ");
	close_flow(&far.flows[0], FLOW_NONE);
	begin('b');
	open_flow(&far.flows[2], false);
	far.flows[2].in->ops->idle(far.flows[2].in);   /* and ends with all others */
	udp_flows_free(world.flows);
	world.flows = NULL;
	assert_true(far.flows[1].broken && far.flows[2].broken);
	assert_int_equal(world.held, 0);
}

static void malformed_streams_break(void **state)
{
	static uint8_t long_[UDP_PAYLOAD_MAX + 1];
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		begin((char)('a' + i));
		struct flow *flow = &far.flows[i];
		open_flow(flow, true);
		answer(flow, "before");
		if (i == 0)
			capsule_put_datagram(&flow->down, CONTEXT_PAYLOAD, NULL, 0, long_, sizeof(long_));
		else if (i == 1)
			capsule_put_datagram(&flow->down, CONTEXT_SEGMENTS, "\0\0", 2, "x", 1);
		else if (i == 2)
			capsule_put_datagram(&flow->down, CONTEXT_SEGMENTS, NULL, 0, "x", 1);
		else
			chunks_copy(&flow->down, "\0\0", 2);    /* no context id */
		flow->in->ops->send(flow->in, &flow->down);
		turn();
		assert_true(flow->broken);
		assert_int_equal(flow->error, FLOW_RESPONSE);
	}
	assert_string_equal(wire.sent, "before before before before ");
	assert_int_equal(world.held, 0);
}

/* A tunnel that goes on over another way: what the old one brought is read, half a capsule of it forgotten. */
static void joined_again(void **state)
{
	(void)state;
	begin('a');
	struct flow *flow = &far.flows[0];
	open_flow(flow, false);
	answer(flow, "old");
	chunks_copy(&flow->down, "\0\x05\0x", 4);
	flow->in->ops->send(flow->in, &flow->down);
	flow->in->ops->joined(flow->in, &(struct join){.fresh = true, .segments = true});
	answer(flow, "new");
	turn();
	assert_string_equal(wire.sent, "old new ");
	close_flow(flow, FLOW_NONE);
}

static void sockets_may_come_later(void **state)
{
	(void)state;
	struct udp_flow *a = udp_flow_ref(begin_with('a', NULL, NULL)), *b = udp_flow_ref(begin_with('b', NULL, NULL));
	open_flow(&far.flows[0], false), open_flow(&far.flows[1], false);
	answer(&far.flows[0], "waits");
	assert_non_null(far.flows[0].down.head);
	udp_flow_set_socket(a, world.socket);
	udp_flow_set_socket(b, NULL);
	turn();
	assert_string_equal(wire.sent, "waits ");
	assert_true(far.flows[1].broken);
	close_flow(&far.flows[0], FLOW_NONE);
	udp_flow_unref(a), udp_flow_unref(b);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(waits_until_joined), CASE(runs_go_whole), CASE(far_leg_is_slow), CASE(refusals_are_remembered),
		CASE(tables_are_bounded), CASE(closing_delivers), CASE(freeing_ends_at_once), CASE(answers_leave_together),
		CASE(headers_go_before_each), CASE(full_sockets_keep_the_order), CASE(ends_deliver), CASE(the_far_end_finishes),
		CASE(idle_flows_end), CASE(malformed_streams_break), CASE(joined_again), CASE(sockets_may_come_later),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
