/* Flows between two legs of the test's own: who is asked, what goes over, what happens when something breaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CHECK(condition) assert_true(condition)
#include "tests/unit/flow_world.h"

static int setup(void **state)
{
	(void)state;
	world_begin();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_end();
	return 0;
}

/* A flow that was allowed, with its leg out. */
static struct world_leg *connected(struct world_leg *in)
{
	(void)in;
	decide(decision_new());
	return open_out(false, false);
}

static struct decision *with_retry(unsigned on, unsigned attempts)
{
	struct decision *d = decision_new();
	d->retry = (struct config_retry){.on = on, .attempts = attempts};
	return d;
}

static void over(const struct world_leg *in, enum flow_error error)
{
	assert_true(in->gone);
	assert_int_equal(in->closes, 1);
	assert_int_equal(in->error, error);
	assert_int_equal(world.records, 1);
}

/* --- what goes well --------------------------------------------------------------------------------------------------- */

static void a_request_and_its_response(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("POST"), false);
	assert_false(in->headed);
	give(in, 1000);               /* before anybody decided */
	struct world_leg *out = connected(in);
	assert_true(out->headed && out->got == 1000);
	assert_int_equal(in->taken, 1000);
	respond(out, 103, false);
	give(in, 500);
	give_end(in, true);
	assert_true(out->finished && out->trailers);
	assert_int_equal(out->got, 1500);
	respond(out, 201, false);
	give(out, 70000);
	give_end(out, true);
	assert_int_equal(in->status, 201);
	assert_int_equal(in->informational, 1);
	assert_true(in->got == 70000 && in->finished && in->trailers);
	over(in, FLOW_NONE);
	assert_int_equal(out->error, FLOW_NONE);
	assert_string_equal(world.result, "ok");
	assert_int_equal(world.bytes_in, 1500);
	assert_int_equal(world.bytes_out, 70000);
}

static void a_request_without_body(void **state)
{
	(void)state;
	world.at_once = decision_new();   /* from the cache */
	struct world_leg *in = begin(request_head("GET"), true);
	struct world_leg *out = open_out(false, false);
	assert_true(out->finished);
	respond(out, 204, true);
	assert_true(in->finished);
	over(in, FLOW_NONE);
}

static void what_is_refused_waits(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct world_leg *out = connected(in);
	respond(out, 200, false);
	in->refuse = true;
	give(out, 5000);
	give(out, 5000);
	give_end(out, false);
	assert_int_equal(out->taken, 0);
	assert_false(in->finished);
	take_again(in);
	assert_int_equal(out->taken, 10000);
	assert_int_equal(in->got, 10000);
	over(in, FLOW_NONE);
}

static void a_tunnel_ends_each_way_by_itself(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("CONNECT"), false);
	give(in, 100);                /* optimistic */
	decide(decision_new());
	struct world_leg *out = open_out(true, false);
	assert_int_equal(in->status, 200);
	assert_int_equal(out->got, 100);
	give_end(in, false);
	assert_true(out->finished && !out->gone);
	give(out, 300);
	assert_int_equal(in->got, 300);
	assert_false(in->finished);
	give_end(out, false);
	over(in, FLOW_NONE);
	assert_int_equal(out->error, FLOW_NONE);
}

static void a_refused_tunnel_brings_the_answer(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("CONNECT"), false);
	struct world_leg *out = connected(in);
	respond(out, 403, false);
	give(in, 10);                 /* has nowhere to go, and is credited */
	give(out, 20);
	give_end(out, false);
	assert_int_equal(in->status, 403);
	assert_int_equal(in->taken, 10);
	assert_int_equal(in->got, 20);
	assert_int_equal(out->got, 0);
	over(in, FLOW_NONE);
}

static void an_early_response_ends_the_request(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("POST"), false);
	struct world_leg *out = connected(in);
	give(in, 100);
	respond(out, 413, true);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 413);
	assert_int_equal(out->error, FLOW_CANCELLED);   /* what is left of the body is not wanted */
}

static void a_whole_response_outlives_its_leg(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("POST"), false);
	struct world_leg *out = connected(in);
	respond(out, 200, false);
	in->refuse = true;
	give(out, 100);
	give_end(out, false);
	break_leg(out, FLOW_TERMINATED);
	assert_false(in->gone);
	take_again(in);
	assert_int_equal(in->got, 100);
	over(in, FLOW_NONE);
}

/* --- who is asked ----------------------------------------------------------------------------------------------------- */

static void a_denied_request_is_told_why(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct decision *d = decision_new();
	d->status = 403;
	d->error = (char *)"http_request_denied";
	d->detail = (char *)"policy no-videos";
	decide(d);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 403);
	assert_non_null(strstr(in->proxy_status, "node; error=http_request_denied"));
	assert_non_null(strstr(in->proxy_status, "no-videos"));
	assert_true(in->got > 0 && in->finished);
	assert_string_equal(world.result, "http_request_denied");
	assert_int_equal(world.attempts, 0);
}

static void nobody_decides(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	decide(NULL);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 503);
	assert_non_null(strstr(in->proxy_status, "proxy_internal_error"));
}

static void an_answer_waits_for_room(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	in->refuse = true;            /* responses to pipelined requests wait before it */
	decide(NULL);
	assert_true(in->headed && !in->gone);
	assert_int_equal(world.records, 0);
	take_again(in);
	assert_true(in->got > 0 && in->finished);
	over(in, FLOW_NONE);
}

static void passwords_are_proved_first(void **state)
{
	(void)state;
	world.config.n_users = 1;
	struct head *request = request_head("GET");
	head_add(request, "proxy-authorization", "Basic alice:secret");
	struct world_leg *in = begin(request, true);
	assert_int_equal(world.asked, 0);
	prove_now(true);
	assert_int_equal(world.asked, 1);
	assert_null(head_get(in->leg.flow->request, "proxy-authorization"));
	assert_string_equal(head_get(in->leg.flow->request, "user"), "alice");
	break_leg(in, FLOW_CANCELLED);
	world.records = 0;
	request = request_head("GET");
	head_add(request, "proxy-authorization", "Basic alice:guess");
	in = begin(request, true);
	prove_now(false);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 407);
}

static void loops_are_ended(void **state)
{
	(void)state;
	world.config.max_hops = 2;
	struct head *request = request_head("GET");
	head_add(request, "via", "2 a (hermes), 2 b (hermes)");
	struct world_leg *in = begin(request, true);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 508);
}

/* --- what goes wrong -------------------------------------------------------------------------------------------------- */

static void what_cannot_be_reached(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	decide(decision_new());
	open_fails(FLOW_CONNECT_REFUSED, "e: connection refused");
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 502);
	assert_non_null(strstr(in->proxy_status, "error=connection_refused"));
}

static void a_response_cut_short_breaks_the_client(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct world_leg *out = connected(in);
	respond(out, 200, false);
	give(out, 10);
	break_leg(out, FLOW_TERMINATED);
	over(in, FLOW_TERMINATED);
	assert_string_equal(world.result, "connection_terminated");
}

static void the_client_goes(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	break_leg(in, FLOW_CANCELLED);          /* while asking: the question is withdrawn (world_end) */
	in = begin(request_head("GET"), true);
	decide(decision_new());
	break_leg(in, FLOW_CANCELLED);          /* while connecting */
	in = begin(request_head("GET"), true);
	struct world_leg *out = connected(in);
	respond(out, 200, false);
	break_leg(in, FLOW_CANCELLED);
	assert_int_equal(out->error, FLOW_CANCELLED);
	assert_int_equal(world.records, 3);
	assert_non_null(strstr(world.detail, "client"));
}

static void endless_informational_responses_end(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct world_leg *out = connected(in);
	for (int i = 0; i < 1000 && !out->gone; i++)
		respond(out, 103, false);
	assert_in_range(in->informational, 1, 200);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 502);
}

/* --- again ------------------------------------------------------------------------------------------------------------ */

static void a_retry_sends_everything_again(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("POST"), false);
	decide(with_retry(CONFIG_RETRY_RESET, 3));
	struct world_leg *first = open_out(false, false);
	give(in, 3000);
	break_leg(first, FLOW_TERMINATED);
	assert_false(in->headed);
	give(in, 1000);                         /* meanwhile */
	pass_time(in, 1000);
	struct world_leg *second = open_out(false, false);
	assert_int_equal(second->got, 4000);
	give_end(in, false);
	respond(second, 200, true);
	over(in, FLOW_NONE);
	assert_int_equal(world.attempts, 2);
	assert_int_equal(in->taken, 4000);      /* each byte once */
}

static void too_much_for_a_retry(void **state)
{
	(void)state;
	world.config.replay_bytes = 1000;
	struct world_leg *in = begin(request_head("POST"), false);
	decide(with_retry(CONFIG_RETRY_RESET, 3));
	struct world_leg *out = open_out(false, false);
	give(in, 1001);
	break_leg(out, FLOW_TERMINATED);
	over(in, FLOW_NONE);
	assert_int_equal(in->status, 502);
	assert_int_equal(world.attempts, 1);
}

static void retries_are_counted(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	decide(with_retry(CONFIG_RETRY_CONNECT, 2));
	open_fails(FLOW_CONNECT_REFUSED, "no");
	pass_time(in, 1000);
	open_fails(FLOW_CONNECT_REFUSED, "no");
	over(in, FLOW_NONE);
	assert_int_equal(world.attempts, 2);
}

static void gateway_errors_are_tried_again(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	decide(with_retry(CONFIG_RETRY_GATEWAY, 2));
	struct world_leg *out = open_out(false, false);
	respond(out, 503, false);
	assert_int_equal(out->error, FLOW_CANCELLED);
	pass_time(in, 1000);
	out = open_out(false, false);
	respond(out, 503, true);                /* the last one is passed on as it is */
	assert_int_equal(in->status, 503);
	assert_string_equal(in->proxy_status, "");
	over(in, FLOW_NONE);
}

static void a_dead_pooled_connection_costs_no_attempt(void **state)
{
	(void)state;
	world.used.reused = true;
	struct world_leg *in = begin(request_head("GET"), true);
	decide(decision_new());
	break_leg(open_out(false, false), FLOW_TERMINATED);
	pass_time(in, 0);
	struct world_leg *out = open_out(false, false);
	respond(out, 200, true);
	over(in, FLOW_NONE);
}

static void a_try_has_its_time_also_to_connect(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct decision *d = with_retry(CONFIG_RETRY_RESET, 2);
	d->retry.per_try_timeout = 100;
	decide(d);
	assert_true(world.attempt.open);
	pass_time(in, 101);
	assert_false(world.attempt.open);       /* withdrawn: it must not bring a second leg */
	pass_time(in, 1000);
	struct world_leg *out = open_out(false, false);
	pass_time(in, 101);
	assert_int_equal(in->status, 504);
	assert_true(out->gone);
	over(in, FLOW_NONE);
}

static void requests_and_silence_have_an_end(void **state)
{
	(void)state;
	struct world_leg *in = begin(request_head("GET"), true);
	struct decision *d = decision_new();
	d->timeout.request = 500;
	decide(d);
	struct world_leg *out = open_out(false, false);
	respond(out, 200, false);
	pass_time(in, 300);
	give(out, 1);
	pass_time(in, 201);
	over(in, FLOW_RESPONSE_TIMEOUT);
	world.records = 0;
	in = begin(request_head("CONNECT"), false);
	d = decision_new();
	d->timeout.idle = 500;
	decide(d);
	out = open_out(true, false);
	pass_time(in, 300);
	give(out, 1);
	pass_time(in, 300);
	assert_false(in->gone);
	pass_time(in, 201);
	over(in, FLOW_READ_TIMEOUT);
	assert_true(out->gone);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_request_and_its_response),
		T(a_request_without_body),
		T(what_is_refused_waits),
		T(a_tunnel_ends_each_way_by_itself),
		T(a_refused_tunnel_brings_the_answer),
		T(an_early_response_ends_the_request),
		T(a_whole_response_outlives_its_leg),
		T(a_denied_request_is_told_why),
		T(nobody_decides),
		T(an_answer_waits_for_room),
		T(passwords_are_proved_first),
		T(loops_are_ended),
		T(what_cannot_be_reached),
		T(a_response_cut_short_breaks_the_client),
		T(the_client_goes),
		T(endless_informational_responses_end),
		T(a_retry_sends_everything_again),
		T(too_much_for_a_retry),
		T(retries_are_counted),
		T(gateway_errors_are_tried_again),
		T(a_dead_pooled_connection_costs_no_attempt),
		T(a_try_has_its_time_also_to_connect),
		T(requests_and_silence_have_an_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
