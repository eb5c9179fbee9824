/* SPDX-License-Identifier: Apache-2.0 */
/* TCP tunnels between two ends, both real flows, with links between them that break at any moment: every byte and both ends
 * arrive once and in order, what is kept and unread is bounded, and where it cannot go on the plain legs are reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CHECK(condition) assert_true(condition)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/flow_world.h"
#pragma GCC diagnostic pop
#include "workers/tunnel/flow_resume.h"

/* --- plain legs: a connection that gives at most what was taken of it ---------------------------------------------------- */

#define PIECE_MAX 60000u

struct plain {
	struct leg leg;
	struct flow *flow;            /* as leg.flow, for after the end */
	bool in, refuse, refused, ended, finished, gone;
	enum flow_error error;
	size_t gave, got, untaken, limit;
};
static struct plain client, far;

static void plain_head(struct leg *leg, const struct head *head, bool end)
{
	struct plain *p = (struct plain *)leg;
	(void)end;
	if (p->in) {
		CHECK(!head_get(head, TUNNEL_HEADER));
		p->refused = head->status != 200;
		return;
	}
	CHECK(!head_get(head, TUNNEL_HEADER) || p == &far);
	struct head *response = head_new();
	response->status = 200;
	flow_head(leg->flow, leg, response, false);
}

static bool plain_send(struct leg *leg, struct chunks *chunks)
{
	struct plain *p = (struct plain *)leg;
	CHECK(!p->finished && !p->gone);
	if (p->refuse)
		return false;
	if (p->refused)                /* Hermes' own words about it */
		chunks_clear(chunks);
	for (struct chunk *c; (c = chunks_pop(chunks)); chunk_free(c)) {
		for (uint32_t at = 0, n; at < c->length; at += n) {
			n = c->length - at < PERIOD ? c->length - at : PERIOD;
			CHECK(memcmp(c->data + at, bytes_at(p->got), n) == 0);
			p->got += n;
		}
	}
	return true;
}

static void plain_finish(struct leg *leg, const struct head *trailers)
{
	struct plain *p = (struct plain *)leg;
	(void)trailers;
	CHECK(!p->finished);
	p->finished = true;
}

static void plain_taken(struct leg *leg, size_t bytes)
{
	struct plain *p = (struct plain *)leg;
	CHECK(bytes <= p->untaken);
	p->untaken -= bytes;
}

static void plain_close(struct leg *leg, enum flow_error error)
{
	struct plain *p = (struct plain *)leg;
	CHECK(!p->gone);
	p->gone = true;
	p->error = error;
	leg->flow = NULL;
}

static const struct leg_ops plain_ops = {.kind = "tcp", .raw = true, .head = plain_head, .send = plain_send,
                                         .finish = plain_finish, .taken = plain_taken, .close = plain_close};

static void plain_give(struct plain *p, size_t bytes)
{
	struct chunks chunks = {0};
	CHECK(!p->ended && p->untaken == 0 && bytes <= PIECE_MAX);
	chunks_copy(&chunks, bytes_at(p->gave), bytes);
	p->gave += bytes;
	p->untaken = bytes;
	flow_data(p->leg.flow, &p->leg, &chunks);
}

static void plain_end(struct plain *p)
{
	p->ended = true;
	flow_finish(p->leg.flow, &p->leg, NULL);
}

/* --- the link: HTTP in between, as far as flows see it ------------------------------------------------------------------- */

struct half { struct leg leg; bool in, gone, refuse, ended, told; size_t given, taken; struct chunks out; };
static struct { struct half a, b; struct head *request, *response; bool there; } at[512], *now_;
static unsigned n_links;

static void half_head(struct leg *leg, const struct head *head, bool end)
{
	struct half *h = (struct half *)leg;
	(void)end;
	for (unsigned i = 0; i < n_links; i++) {
		if (h == &at[i].a)
			at[i].request = head_clone(head);
		else if (h == &at[i].b)
			at[i].response = head_clone(head);
	}
}

static bool half_send(struct leg *leg, struct chunks *chunks)
{
	struct half *h = (struct half *)leg;
	CHECK(!h->gone && !h->ended);
	if (h->refuse)
		return false;
	chunks_move(&h->out, chunks);
	return true;
}

static void half_finish(struct leg *leg, const struct head *trailers)
{
	struct half *h = (struct half *)leg;
	(void)trailers;
	CHECK(!h->ended);
	h->ended = true;
}

static void half_taken(struct leg *leg, size_t bytes)
{
	struct half *h = (struct half *)leg;
	h->taken += bytes;
	CHECK(h->taken <= h->given);
}

/* NONE: what was sent still arrives, and an end behind it. */
static void half_close(struct leg *leg, enum flow_error error)
{
	struct half *h = (struct half *)leg;
	CHECK(!h->gone);
	h->gone = true;
	h->ended |= error == FLOW_NONE;
	leg->flow = NULL;
}

static const struct leg_ops half_ops = {.kind = "h2", .carries = true, .head = half_head, .send = half_send,
                                        .finish = half_finish, .taken = half_taken, .close = half_close};

static void link_open(void)
{
	CHECK(world.attempt.open && n_links < 512);
	now_ = &at[n_links++];
	memset(now_, 0, sizeof(*now_));
	now_->a.leg.ops = now_->b.leg.ops = &half_ops;
	now_->b.in = now_->there = true;
	world.attempt.open = false;
	now_->a.leg.flow = world.attempt.flow;
	flow_opened(world.attempt.flow, &now_->a.leg);
}

/* The request reaches the far end, which dials where it begins a tunnel. */
static void link_arrive(void)
{
	struct head *request = now_->request;
	now_->request = NULL;
	flow_new(&world.tunnel, &world.origin, &now_->b.leg, request, false);
	if (!world.attempt.open)
		return;
	world.attempt.open = false;
	CHECK(!far.leg.ops);
	far.leg.ops = &plain_ops;
	far.leg.flow = far.flow = world.attempt.flow;
	flow_opened(world.attempt.flow, &far.leg);
}

static void link_respond(void)
{
	struct head *response = now_->response;
	now_->response = NULL;
	flow_head(now_->a.leg.flow, &now_->a.leg, response, false);
}

/* Bytes of one half reach the other's flow, and the end behind the last. */
static void carry(struct half *from, struct half *to, size_t bytes)
{
	struct chunks chunks = {0};
	chunks_split(&chunks, &from->out, bytes);
	to->given += chunks.bytes;
	if (chunks.head && to->leg.flow)
		flow_data(to->leg.flow, &to->leg, &chunks);
	chunks_clear(&chunks);
	if (from->ended && !from->out.head && !from->told && to->leg.flow) {
		from->told = true;
		flow_finish(to->leg.flow, &to->leg, NULL);
	}
}

static void half_break(struct half *h)
{
	struct flow *flow = h->leg.flow;
	chunks_clear(&h->out);
	h->gone = true;
	h->leg.flow = NULL;
	if (flow)
		flow_broken(flow, &h->leg, h->in ? FLOW_CANCELLED : FLOW_TERMINATED, "it broke");
}

static void link_break(void)
{
	if (!now_ || !now_->there)
		return;
	now_->there = false;
	half_break(&now_->a);
	half_break(&now_->b);
	head_free(now_->request);
	head_free(now_->response);
	now_->request = now_->response = NULL;
}

/* --- set-up ---------------------------------------------------------------------------------------------------------------- */

static void hold(struct listener *listener, int change)
{
	(void)listener;
	world.reports_bad += (unsigned)change;
}

static int setup(void **state)
{
	(void)state;
	world_begin();
	world.config.resume_timeout = 30000;
	world.config.resume_bytes = 100000;
	world.origin.hold = hold;
	world.at_once = decision_new();
	client = (struct plain){.leg = {.ops = &plain_ops}, .in = true};
	far = (struct plain){0};
	now_ = NULL;
	n_links = 0;
	return 0;
}

static void time_passes(struct plain *p, uint64_t ms)
{
	struct flow *flow = p->leg.flow;
	world.now += ms * 1000;
	if (!flow || !flow->going || !event_pending(&flow->going->timer, EV_TIMEOUT, NULL))
		return;
	event_del(&flow->going->timer);
	event_get_callback(&flow->going->timer)(-1, 0, flow->going);
}

static int teardown(void **state)
{
	(void)state;
	link_break();
	for (unsigned i = 0; world.tunnel.flows && i < 16; i++) {
		struct flow *flow = world.tunnel.flows;
		flow_enter(flow);
		flow_end(flow, FLOW_NONE, FLOW_NONE);
		flow_leave(flow);
	}
	for (unsigned i = 0; i < n_links; i++) {
		half_break(&at[i].a);
		half_break(&at[i].b);
		head_free(at[i].request);
		head_free(at[i].response);
	}
	assert_int_equal(world.tunnel.n_parked, 0);
	assert_null(world.tunnel.going);
	assert_int_equal(world.reports_bad, 0);
	world_end();
	return 0;
}

static void begin_client(void)
{
	flow_new(&world.tunnel, &world.origin, &client.leg, request_head("CONNECT"), false);
	client.flow = client.leg.flow;
}

static void begin_tunnel(void)
{
	begin_client();
	link_open();
	link_arrive();
	link_respond();
}

static void carry_all(void)
{
	for (int i = 0; i < 6 && now_->there; i++) {
		carry(&now_->a, &now_->b, SIZE_MAX);
		carry(&now_->b, &now_->a, SIZE_MAX);
	}
}

/* --- the tests -------------------------------------------------------------------------------------------------------------- */

static unsigned dice(unsigned sides)
{
	static uint64_t seed = 1;
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(seed >> 33) % sides;
}

static void move_plain(struct plain *p)
{
	if (!p->leg.flow)
		return;
	if (p->refuse && dice(4) == 0) {
		p->refuse = false;
		flow_writable(p->leg.flow, &p->leg);
	} else if (!p->refuse && dice(20) == 0) {
		p->refuse = true;
	} else if (p->untaken == 0 && p->gave < p->limit) {
		size_t n = dice(3) ? dice(200) + 1 : dice(PIECE_MAX) + 1;
		plain_give(p, n < p->limit - p->gave ? n : p->limit - p->gave);
	} else if (p->untaken == 0 && p->gave == p->limit && !p->ended) {
		plain_end(p);
	}
}

static void move_half(struct half *from, struct half *to)
{
	if (from->refuse && from->leg.flow && dice(4) == 0) {
		from->refuse = false;
		flow_writable(from->leg.flow, &from->leg);
	} else if (dice(30) == 0) {
		from->refuse = true;
	}
	carry(from, to, dice(3) ? SIZE_MAX : dice(5000) + 1);
}

/* One step of the way between the two ends. */
static void move_link(unsigned breaks)
{
	if (client.leg.flow && client.leg.flow->state == FLOW_STATE_RESUMING && !world.attempt.open && (!now_ || !now_->there))
		time_passes(&client, 1000);
	if (world.attempt.open && (!now_ || !now_->there))
		return link_open();
	if (!now_ || !now_->there)
		return;
	if (breaks && dice(breaks) == 0 && far.leg.ops)
		return dice(3) ? link_break() : half_break(&now_->a);
	if (now_->request)
		return link_arrive();
	if (now_->response && now_->a.leg.flow)
		return link_respond();
	move_half(&now_->a, &now_->b);
	if (now_->there && !now_->response)
		move_half(&now_->b, &now_->a);
	if (now_->there && !now_->a.leg.flow && !now_->b.leg.flow)
		now_->there = false;
	else if (now_->there && !now_->a.leg.flow)
		link_break();
}

static void bounded(const struct plain *p)
{
	if (!p->leg.flow || !p->leg.flow->going)
		return;
	assert_true(p->leg.flow->going->kept.bytes <= 100000 + PIECE_MAX);
	assert_true(p->leg.flow->up.held.bytes <= 100000 + 3 * PIECE_MAX && p->leg.flow->down.held.bytes <= 100000 + 3 * PIECE_MAX);
}

static void any_order(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		if (round)
			teardown(NULL), setup(NULL);
		client.limit = dice(4) ? dice(600000) : dice(3);
		begin_client();
		unsigned breaks = round % 3 == 0 ? 0 : round % 3 == 1 ? 200 : 40;
		for (unsigned step = 0; step < 20000 && (!client.gone || !far.gone); step++) {
			if (far.leg.ops && !far.limit)
				far.limit = dice(4) ? dice(600000) + 1 : dice(3) + 1;
			if (n_links > 500)
				breaks = 0;
			move_plain(&client);
			if (far.leg.ops)
				move_plain(&far);
			move_link(breaks);
			if (dice(10) == 0) {
				time_passes(&client, 100);
				time_passes(&far, 100);
			}
			bounded(&client);
			bounded(&far);
		}
		assert_true(client.gone && far.gone);
		assert_int_equal(client.error, FLOW_NONE);
		assert_int_equal(far.error, FLOW_NONE);
		assert_true(client.finished && far.finished);
		assert_int_equal(client.got, far.gave);
		assert_int_equal(far.got, client.gave);
		assert_int_equal(client.gave, client.limit);
		assert_int_equal(far.gave, far.limit);
	}
}

static void early_bytes_wait_for_nothing(void **state)
{
	(void)state;
	begin_client();
	plain_give(&client, 5000);
	link_open();
	plain_give(&client, 7000);
	assert_int_equal(client.untaken, 0);
	assert_int_equal(now_->a.out.bytes, 12000);     /* plain */
	link_arrive();
	carry(&now_->a, &now_->b, 6000);
	assert_int_equal(far.got, 6000);
	plain_give(&client, 100);
	link_break();                                   /* the client end never heard of it */
	assert_true(client.gone && client.error == FLOW_NONE);     /* it was answered 502 */
}

static void answered_plainly(void **state)
{
	(void)state;
	begin_client();
	link_open();
	plain_give(&client, 5000);
	struct head *response = head_new();
	response->status = 200;
	flow_head(now_->a.leg.flow, &now_->a.leg, response, false);
	plain_give(&client, 5000);
	assert_null(client.leg.flow->going);
	assert_int_equal(now_->a.out.bytes, 10000);
	plain_end(&client);
	assert_true(now_->a.ended);
}

static void too_much_is_not_read(void **state)
{
	(void)state;
	begin_tunnel();
	while (client.untaken == 0)
		plain_give(&client, 10000);
	assert_in_range(client.gave, 100001, 110000);
	link_break();
	assert_int_equal(client.leg.flow->state, FLOW_STATE_RESUMING);
	link_open();
	link_arrive();
	link_respond();
	carry_all();
	assert_int_equal(client.untaken, 0);
	assert_int_equal(far.got, client.gave);
}

static void refused(void **state)
{
	(void)state;
	begin_tunnel();
	plain_give(&client, 10);
	carry_all();
	link_break();
	link_open();
	struct head *response = head_new();
	response->status = 410;
	flow_head(now_->a.leg.flow, &now_->a.leg, response, true);
	assert_true(client.gone && client.error == FLOW_TERMINATED);
	for (int i = 0; i < 2; i++)
		time_passes(&far, 31000);
	assert_true(far.gone && far.error == FLOW_TERMINATED);
}

static void another_tunnel_is_no_tunnel(void **state)
{
	(void)state;
	begin_tunnel();
	link_break();
	link_open();
	struct head *response = head_new();
	response->status = 200;
	flow_head(now_->a.leg.flow, &now_->a.leg, response, false);
	assert_true(client.gone && client.error == FLOW_TERMINATED);
}

static void a_side_breaks_off(void **state)
{
	(void)state;
	begin_tunnel();
	plain_give(&client, 10);
	struct flow *flow = client.leg.flow;
	client.gone = true;
	client.leg.flow = NULL;
	flow_broken(flow, &client.leg, FLOW_CANCELLED, "reset");
	carry_all();
	assert_true(far.gone && far.error == FLOW_TERMINATED);
	assert_int_equal(world.tunnel.n_flows, 0);

	teardown(NULL), setup(NULL);
	begin_tunnel();
	plain_give(&far, 10);
	flow = far.leg.flow;
	far.gone = true;
	far.leg.flow = NULL;
	flow_broken(flow, &far.leg, FLOW_TERMINATED, "reset");
	carry_all();
	assert_true(client.gone && client.error == FLOW_TERMINATED);
	assert_int_equal(world.tunnel.n_flows, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(any_order), T(early_bytes_wait_for_nothing), T(answered_plainly), T(too_much_is_not_read), T(refused),
		T(another_tunnel_is_no_tunnel), T(a_side_breaks_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
