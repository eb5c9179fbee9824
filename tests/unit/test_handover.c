/* SPDX-License-Identifier: Apache-2.0 */
/* Flows go from a worker to its successor: both ends of tunnels, with datagrams under way, over a real channel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CHECK(condition) assert_true(condition)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/flow_world.h"
#include "tests/unit/handover_world.h"
#pragma GCC diagnostic pop

#include "ipc/channel.h"

/* HTTP in between: what one half sends waits until it is carried to the other's flow. */
struct half { struct leg leg; struct link *link; bool gone; struct chunks out; size_t given, taken; };
struct link { struct half a, b; struct head *request, *response; };
static struct link links[PLAINS];
static unsigned n_links;

static void half_head(struct leg *leg, const struct head *head, bool end)
{
	struct half *h = (struct half *)leg;
	(void)end;
	*(h == &h->link->b ? &h->link->response : &h->link->request) = head_clone(head);
}

static bool half_send(struct leg *leg, struct chunks *chunks)
{
	chunks_move(&((struct half *)leg)->out, chunks);
	return true;
}

static void half_taken(struct leg *leg, size_t bytes)
{
	struct half *h = (struct half *)leg;
	h->taken += bytes;
	assert_true(h->taken <= h->given);
}

/* A reset: the other end's flow hears of it; what is under way is lost. */
static void half_close(struct leg *leg, enum flow_error error)
{
	struct half *h = (struct half *)leg, *other = h == &h->link->a ? &h->link->b : &h->link->a;
	struct flow *flow = other->leg.flow;
	(void)error;
	h->gone = true;
	leg->flow = NULL;
	chunks_clear(&h->out);
	chunks_clear(&other->out);
	if (!flow)
		return;
	other->gone = true;
	other->leg.flow = NULL;
	flow_broken(flow, &other->leg, FLOW_TERMINATED, "reset");
}

static const struct leg_ops half_ops = {.kind = "h2", .head = half_head, .send = half_send, .finish = plain_finish,
                                        .taken = half_taken, .close = half_close};

static void carry(struct half *from, struct half *to, size_t bytes)
{
	struct chunks chunks = {0};
	chunks_split(&chunks, &from->out, bytes < from->out.bytes ? bytes : from->out.bytes);
	to->given += chunks.bytes;
	if (chunks.head && to->leg.flow)
		flow_data(to->leg.flow, &to->leg, &chunks);
	chunks_clear(&chunks);
}

static void carry_all(void)
{
	for (unsigned round = 0; round < 4; round++)
		for (unsigned i = 0; i < n_links; i++) {
			carry(&links[i].a, &links[i].b, SIZE_MAX);
			carry(&links[i].b, &links[i].a, SIZE_MAX);
		}
}

/* The client end's wish for a way: a stream to the far end's worker. Returns the target's leg where a new tunnel began. */
static struct plain *connect_to(struct tunnel *far, unsigned number)
{
	struct link *link = &links[n_links++];
	struct plain *target = NULL;
	memset(link, 0, sizeof(*link));
	link->a = (struct half){.leg = {.ops = &half_ops}, .link = link};
	link->b = (struct half){.leg = {.ops = &half_ops}, .link = link};
	assert_true(world.attempt.open);
	world.attempt.open = false;
	struct flow *client = world.attempt.flow;
	link->a.leg.flow = client;
	flow_opened(client, &link->a.leg);
	flow_new(far, &world.origin, &link->b.leg, head_clone(link->request), false);
	if (world.attempt.open) {
		world.attempt.open = false;
		target = plain_new(false, number);
		target->leg.flow = world.attempt.flow;
		flow_opened(world.attempt.flow, &target->leg);
	}
	struct head *response = link->response;
	link->response = NULL;
	if (response)
		flow_head(link->a.leg.flow, &link->a.leg, response, false);
	return target;
}

static struct plain *program_new(unsigned number)
{
	struct plain *p = plain_new(true, number);
	flow_new(&world.tunnel, &world.origin, &p->leg, masque_udp_request("video:7"), false);
	return p;
}

/* The leg that a program or target has now. */
static struct plain *now_of(unsigned number, bool in)
{
	for (unsigned i = n_plains; i-- > 0;)
		if (plains[i].number == number && plains[i].in == in && !plains[i].gone)
			return &plains[i];
	return NULL;
}

static unsigned done, expected;
static void on_done(void *arg) { (void)arg, done++; }
static void on_expected(void *arg) { (void)arg, expected++; }

static void join_workers(void)
{
	int pair[2];
	assert_int_equal(ipc_pair(pair), 0);
	handover_expect(&next, on_expected, NULL);
	handover_peer(&next, pair[0]);
	handover_peer(&world.tunnel, pair[1]);
}

static void turn(void)
{
	for (unsigned i = 0; i < 2000 && (!done || !expected); i++, usleep(500))
		event_base_loop(world.base, EVLOOP_NONBLOCK);
	assert_true(done == 1 && expected == 1);
}

static int setup(void **state)
{
	(void)state;
	handover_world_begin();
	n_links = done = expected = 0;
	padding = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < n_links; i++) {
		links[i].a.leg.flow = links[i].b.leg.flow = NULL;
		chunks_clear(&links[i].a.out), chunks_clear(&links[i].b.out);
		head_free(links[i].request), head_free(links[i].response);
	}
	end_flows(&world.tunnel);
	end_flows(&next);
	handover_free(&world.tunnel);
	handover_free(&next);
	for (unsigned i = 0; i < n_plains; i++)
		assert_true(plains[i].gone);
	assert_int_equal(listener_holds, 0);
	free(world.at_once);
	return 0;
}

static void check_numbers(unsigned number)
{
	const struct program *from = &programs[number], *to = &programs[number + 1];
	assert_int_equal(to->got, from->gave);
	assert_int_equal(from->got, to->gave);
}

/* --- tests --------------------------------------------------------------------------------------------------------------- */

/* Client end and far end both go over, with datagrams on their way everywhere. */
static void test_both_ends(void **state)
{
	(void)state;
	struct plain *in = program_new(0), *out = connect_to(&world.tunnel, 1);
	plain_give(in, 10), plain_give(out, 20);
	carry_all();
	plain_give(in, 5), plain_give(out, 7);         /* in the link */
	carry(&links[0].a, &links[0].b, 11);           /* a part of them, half a capsule */
	join_workers();
	assert_true(handover_awaited(&next));
	assert_true(handover_begin(&world.tunnel, on_done, NULL));
	turn();
	assert_null(world.tunnel.flows);
	assert_int_equal(next.n_flows, 2);
	assert_false(handover_awaited(&next));
	in = now_of(0, true), out = now_of(1, false);
	assert_true(in->leg.flow->state == FLOW_STATE_RESUMING && out->leg.flow->state == FLOW_STATE_PARKED);
	plain_give(in, 3), plain_give(out, 4);         /* while there is no way */
	assert_null(connect_to(&next, 1));
	plain_give(in, 1), plain_give(out, 2);
	carry_all();
	assert_true(in->leg.flow->state == FLOW_STATE_STREAMING && out->leg.flow->state == FLOW_STATE_STREAMING);
	check_numbers(0);
	assert_int_equal(world.records, 0);            /* they have not ended */
}

/* What the plain side had not taken goes over as well. */
static void test_what_was_refused(void **state)
{
	(void)state;
	struct plain *in = program_new(0), *out = connect_to(&world.tunnel, 1);
	out->refuse = in->refuse = true;
	plain_give(in, 10), plain_give(out, 20);
	carry_all();
	plain_give(in, 10), plain_give(out, 20);
	carry_all();
	assert_int_equal(programs[1].got, 0);
	join_workers();
	handover_begin(&world.tunnel, on_done, NULL);
	turn();
	assert_null(connect_to(&next, 1));
	carry_all();
	check_numbers(0);
	assert_int_equal(programs[1].got, 20);
}

/* Only the one end's worker is replaced, again and again. */
static void test_again_and_again(void **state)
{
	(void)state;
	program_new(0), connect_to(&world.tunnel, 1);
	for (unsigned i = 0; i < 5; i++) {
		plain_give(now_of(0, true), 3), plain_give(now_of(1, false), 3);
		carry(&links[n_links - 1].a, &links[n_links - 1].b, 9 * i);
		done = expected = 0;
		join_workers();
		handover_begin(&world.tunnel, on_done, NULL);
		turn();
		plain_give(now_of(0, true), 2), plain_give(now_of(1, false), 2);
		connect_to(&next, 1);
		carry_all();
		/* The successor is the next to go. */
		handover_free(&world.tunnel), handover_free(&next);
		struct tunnel fresh = world.tunnel;
		assert_null(fresh.flows);
		world.tunnel = next;
		next = fresh;
		next.handed = next.draining = false;
		for (struct flow *flow = world.tunnel.flows; flow; flow = flow->next)
			flow->tunnel = &world.tunnel;
	}
	check_numbers(0);
}

/* A stream that comes before the record waits for it; and what never comes is not waited for. */
static void test_streams_wait(void **state)
{
	(void)state;
	struct plain *in = program_new(0);
	connect_to(&world.tunnel, 1);
	plain_give(in, 5);
	carry_all();
	join_workers();
	half_close(&links[0].b.leg, FLOW_TERMINATED);  /* the client end is resuming at the old worker */
	assert_true(world.attempt.open);
	links[0].b.leg.flow = NULL;
	assert_null(connect_to(&next, 1));             /* the far end's record is still to come */
	assert_int_equal(next.n_held, 1);
	assert_null(links[1].response);
	struct flow *client = links[1].a.leg.flow;
	assert_non_null(client);
	handover_begin(&world.tunnel, on_done, NULL);
	turn();
	assert_int_equal(next.n_held, 0);
}

/* A new stream to the one that has handed over is refused, so that it is tried again. */
static void test_streams_to_the_old_one(void **state)
{
	(void)state;
	program_new(0), connect_to(&world.tunnel, 1);
	join_workers();
	handover_begin(&world.tunnel, on_done, NULL);
	turn();
	struct link *link = &links[n_links++];
	memset(link, 0, sizeof(*link));
	link->b = (struct half){.leg = {.ops = &half_ops}, .link = link};
	struct head *request = masque_udp_request("video:7");
	tunnel_header_set(request, &(struct tunnel_header){.present = true, .segments = true});
	flow_new(&world.tunnel, &world.origin, &link->b.leg, request, false);
	assert_true(link->b.gone);
	assert_null(link->response);
}

/* One record that the successor cannot use ends that flow only. */
static void test_a_listener_that_is_gone(void **state)
{
	(void)state;
	program_new(0), connect_to(&world.tunnel, 1);
	no_listener = true;
	join_workers();
	handover_begin(&world.tunnel, on_done, NULL);
	turn();
	assert_int_equal(next.n_flows, 0);
	no_listener = false;
}

static void test_the_channel_breaks(void **state)
{
	(void)state;
	int pair[2];
	program_new(0), connect_to(&world.tunnel, 1);
	assert_int_equal(ipc_pair(pair), 0);
	handover_expect(&next, on_expected, NULL);
	handover_peer(&next, pair[0]);
	close(pair[1]);
	done = 1;
	turn();
	assert_false(handover_awaited(&next));
	assert_false(handover_begin(&world.tunnel, on_done, NULL));   /* nobody to hand over to */
	assert_int_equal(world.tunnel.n_flows, 2);
}

/* More than fits into one message. */
static void test_much(void **state)
{
	(void)state;
	struct plain *in = program_new(0), *out = connect_to(&world.tunnel, 1);
	padding = 200;
	out->refuse = true;
	plain_give(in, 2000), plain_give(out, 3000);
	carry_all();
	plain_give(in, 1500), plain_give(out, 900);
	join_workers();
	handover_begin(&world.tunnel, on_done, NULL);
	turn();
	padding = 0;
	assert_null(connect_to(&next, 1));
	carry_all();
	check_numbers(0);
	assert_int_equal(programs[1].got, 3500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_both_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_was_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_again_and_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_streams_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(test_streams_to_the_old_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_listener_that_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_channel_breaks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_much, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
