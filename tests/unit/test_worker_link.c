/* SPDX-License-Identifier: Apache-2.0 */
/* Streams between the workers of a node: here both ends are one worker, and the socket pair is the test's. */
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
#include <sys/socket.h>
#include <unistd.h>

#include "workers/tunnel/masque.h"
#include "workers/tunnel/worker_link.h"

static struct leg *opened;
static enum flow_error failed;
static char inner_request[1024];

static void on_opened(void *arg, struct leg *leg)
{
	opened = leg;
	flow_opened(arg, leg);
}

static void on_failed(void *arg, enum flow_error error, const char *detail)
{
	failed = error;
	flow_open_failed(arg, error, detail);
}

/* --- a plain leg at the owner that keeps the request ---------------------------------------------------------------------- */

static struct leg far_leg;
static bool far_gone;
static size_t far_got;

static void far_head(struct leg *leg, const struct head *head, bool end)
{
	(void)end;
	inner_request[0] = '\0';
	for (unsigned i = 0; i < head->n; i++)
		snprintf(inner_request + strlen(inner_request), sizeof(inner_request) - strlen(inner_request), "%s: %s\n",
		         head->fields[i].name, head->fields[i].value);
	flow_head(leg->flow, leg, masque_response(), false);
}
static bool far_send(struct leg *leg, struct chunks *chunks)
{
	(void)leg;
	far_got += chunks->bytes;
	chunks_clear(chunks);
	return true;
}
static void far_finish(struct leg *leg, const struct head *trailers) { (void)leg, (void)trailers; }
static void far_taken(struct leg *leg, size_t bytes) { (void)leg, (void)bytes; }
static void far_close(struct leg *leg, enum flow_error error) { (void)error; far_gone = true; leg->flow = NULL; }
static void far_joined(struct leg *leg, const struct join *join) { (void)leg, (void)join; }
static const struct leg_ops far_ops = {.kind = "ip", .head = far_head, .send = far_send, .finish = far_finish,
                                       .taken = far_taken, .close = far_close, .joined = far_joined};

/* --- the link -------------------------------------------------------------------------------------------------------------- */

static void turns(unsigned n)
{
	while (n-- > 0)
		event_base_loop(world.base, EVLOOP_NONBLOCK);
}

static void connect_link(void)
{
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	worker_links_take(world.tunnel.links, 0, false, pair[1]);
	worker_links_take(world.tunnel.links, 1, true, pair[0]);
}

static int setup(void **state)
{
	(void)state;
	world_begin();
	world.tunnel.links = worker_links_new(&world.tunnel);
	world.at_once = decision_new();
	opened = NULL;
	failed = FLOW_NONE;
	far_gone = false;
	far_got = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	while (world.tunnel.flows) {
		struct flow *flow = world.tunnel.flows;
		flow_enter(flow);
		flow_end(flow, FLOW_NONE, FLOW_CANCELLED);
		flow_leave(flow);
	}
	turns(20);
	decision_unref(world.at_once);
	world.at_once = NULL;
	return 0;
}

/* A flow that a program began, on its way to worker 1; what a malicious one puts into its request is there, too. */
static struct flow *outer_flow(void)
{
	struct world_leg *in = leg_make(true);
	struct head *request = masque_udp_request("192.0.2.9:53");
	head_add(request, "hermes-inner-user", "root");
	head_add(request, "hermes-inner-peer", "root");
	head_add(request, "hermes-inner-cluster", "secret");
	world.origin.peer = "bob";
	world.origin.proven_user = "alice";
	flow_new(&world.tunnel, &world.origin, &in->leg, request, false);
	struct flow *flow = in->leg.flow;
	CHECK(world.attempt.open);
	world.attempt.open = false;
	flow->attempt = NULL;
	return flow;
}

static void the_owner_carries_out(void **state)
{
	(void)state;
	struct flow *outer = outer_flow();
	worker_link_open(world.tunnel.links, 1, "c", outer, on_opened, on_failed, outer);
	connect_link();
	for (int i = 0; i < 50 && !world.attempt.open; i++)
		turns(1);
	assert_non_null(opened);
	assert_true(world.attempt.open);
	struct flow *inner = world.attempt.flow;
	assert_ptr_not_equal(inner, outer);
	assert_true(inner->origin->inner);
	assert_string_equal(inner->decision->cluster, "c");
	char *cluster = inner->decision->cluster;   /* the world's decisions own no text */
	assert_string_equal(inner->user, "alice");
	assert_string_equal(inner->origin->peer, "bob");
	assert_string_equal(inner->origin->source_text, "127.0.0.1");
	assert_string_equal(inner->origin->listener->name, "l");
	world.attempt.open = false;
	far_leg = (struct leg){.ops = &far_ops, .flow = inner};
	inner->attempt = NULL;
	flow_opened(inner, &far_leg);
	assert_null(strstr(inner_request, "hermes-inner"));
	assert_non_null(strstr(inner_request, "user: alice\n"));
	for (int i = 0; i < 50 && !outer->head_sent; i++)
		turns(1);
	assert_true(outer->head_sent);
	/* Bytes go over; the end leaves one record, the outer flow's. */
	struct world_leg *in = (struct world_leg *)outer->in;
	give(in, 100000);
	for (int i = 0; i < 100 && far_got < 100000; i++)
		turns(1);
	assert_int_equal(far_got, 100000);
	flow_enter(outer);
	flow_end(outer, FLOW_CANCELLED, FLOW_CANCELLED);
	flow_leave(outer);
	for (int i = 0; i < 50 && !far_gone; i++)
		turns(1);
	assert_true(far_gone);
	assert_int_equal(world.records, 1);
	free(cluster);
}

static void nobody_answers(void **state)
{
	(void)state;
	struct flow *outer = outer_flow();
	worker_link_open(world.tunnel.links, 2, "c", outer, on_opened, on_failed, outer);
	turns(3);
	assert_int_equal(failed, FLOW_NONE);
	world.now += 6000000;
	struct worker_link_wait *other = worker_link_open(world.tunnel.links, 2, "c", NULL, on_opened, on_failed, NULL);
	turns(3);
	assert_int_equal(failed, FLOW_CONNECT_TIMEOUT);
	worker_link_cancel(other);
}

static void what_came_by_a_link_goes_on_no_further(void **state)
{
	(void)state;
	unsigned index = 0;
	struct config_cluster cluster = {.carry = CONFIG_CARRY_UDP};
	struct worker *worker = (struct worker *)&index;
	world.tunnel.worker = worker;
	struct flow *outer = outer_flow();
	struct tunnel_header asked = {.present = true, .has_id = true};
	asked.id[0] = 0;
	tunnel_header_set(outer->request, &asked);
	assert_false(worker_link_owner(outer, &cluster, &index));   /* it lives here */
	asked.id[0] = 7;
	tunnel_header_set(outer->request, &asked);
	assert_false(worker_link_owner(outer, &cluster, &index));   /* there is no such worker */
	struct config_cluster ip = {.carry = CONFIG_CARRY_IP, .device = (char *)"hermes0"};
	struct origin link = *outer->origin;
	link.inner = true;
	outer->origin = &link;
	assert_false(worker_link_owner(outer, &ip, &index));
	outer->origin = &world.origin;
	world.tunnel.worker = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_owner_carries_out, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(what_came_by_a_link_goes_on_no_further, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
