/* SPDX-License-Identifier: Apache-2.0 */
/* Inner flows: asked about once, remembered as long as they may be. Policy and router are the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "workers/tunnel/head.h"
#include "workers/tunnel/inner_flows.h"
#include "workers/tunnel/listener.h"

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#define SECOND 1000000ull
#define QUERIES 8192

struct ask_query { bool open; struct ask_inner inner; void (*done)(void *, struct decision *); void *arg; };

static struct {
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_policy policy;
	struct head *request;
	struct config_pair headers[2];
	struct config_listener listener_config;
	struct listener listener;
	struct origin origin;
	const char *user;
	struct inner_flows *flows;
	uint64_t now;
	struct ask_query queries[QUERIES];
	unsigned asked, cancelled, ready, decisions;
	struct ip_packet *retry;      /* tried again when told */
	bool at_once, free_when_told;
	enum inner_verdict retried;
	struct decision at_once_decision;
} t;

/* --- what inner_flows.c needs of others --------------------------------------------------------------------------- */

uint64_t now_us(void) { return t.now; }

void decision_unref(struct decision *d)
{
	if (d && --d->refs == 0) {
		t.decisions--;
		free(d);
	}
}

static struct decision *decision(unsigned status, uint64_t valid_until)
{
	struct decision *d = calloc(1, sizeof(*d));

	*d = (struct decision){ .refs = 1, .status = status, .valid_until = valid_until };
	t.decisions++;
	return d;
}

struct decision *ask_inner(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                           const struct ask_inner *inner, struct ask_query **query,
                           void (*done)(void *arg, struct decision *decision), void *arg)
{
	assert_true(ask == (struct ask *)&t && origin == &t.origin && t.asked < QUERIES);
	assert_string_equal(user, t.user);
	assert_string_equal(head_get(request, "zone"), "dmz");
	assert_null(head_get(request, "secret"));
	assert_string_equal(request->authority, "10.0.0.0/8");
	*query = NULL;
	t.queries[t.asked] = (struct ask_query){ true, *inner, done, arg };
	if (t.at_once) {
		t.queries[t.asked++].open = false;
		return decision(t.at_once_decision.status, t.at_once_decision.valid_until);
	}
	*query = &t.queries[t.asked++];
	return NULL;
}

void ask_cancel(struct ask_query *query)
{
	assert_true(query->open);
	query->open = false;
	t.cancelled++;
}

static void answer(unsigned i, unsigned status, uint64_t valid_until)
{
	assert_true(i < t.asked && t.queries[i].open);
	t.queries[i].open = false;
	t.queries[i].done(t.queries[i].arg, status == 1 ? NULL : decision(status, valid_until));
}

static void on_ready(void *arg)
{
	assert_ptr_equal(arg, &t.ready);
	t.ready++;
	if (t.retry)
		t.retried = inner_flows_check(t.flows, t.retry);
	if (t.free_when_told) {
		inner_flows_free(t.flows);
		t.flows = NULL;
	}
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	t.now = 50 * SECOND;
	t.policy = (struct config_policy){ .name = "p",
		.match = { .ip = { .present = true, .port_low = 80, .port_high = 80 } } };
	t.config = (struct config){ .cache_entries = 65536, .policies = &t.policy, .n_policies = 1, .examines.ip = true };
	t.generation = (struct generation){ .number = 3, .refs = 1, .config = &t.config };
	t.tunnel = (struct tunnel){ .current = &t.generation, .ask = (struct ask *)&t };
	t.request = head_new();
	t.request->authority = "10.0.0.0/8";
	head_add(t.request, "zone", "its own");
	head_add(t.request, "secret", "1");
	t.headers[0] = (struct config_pair){ "zone", "dmz" };
	t.headers[1] = (struct config_pair){ "user", "bob" };
	static char *removed[] = { "secret" };
	t.listener_config = (struct config_listener){ .name = "hermes0", .add_headers = { t.headers, 2 },
		.remove_headers = { removed, 1 } };
	t.listener = (struct listener){ .name = "hermes0", .config = &t.listener_config };
	t.origin = (struct origin){ .listener = &t.listener };
	t.user = "alice";
	t.flows = inner_flows_new(&t.tunnel, &t.origin, "alice", t.request, on_ready, &t.ready);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	inner_flows_free(t.flows);
	for (unsigned i = 0; i < t.asked; i++)
		assert_false(t.queries[i].open);
	assert_int_equal(t.decisions, 0);
	head_free(t.request);
	return 0;
}

static struct ip_packet packet(uint8_t protocol, const char *source, uint16_t from, const char *destination,
                               uint16_t to)
{
	struct ip_packet p = { .version = 4, .protocol = protocol, .first = true, .ports = true, .source_port = from,
		.destination_port = to };

	assert_true(inet_pton(AF_INET6, source, &p.source) && inet_pton(AF_INET6, destination, &p.destination));
	return p;
}

static struct ip_packet back(const struct ip_packet *p)
{
	struct ip_packet r = *p;

	r.source = p->destination, r.destination = p->source;
	r.source_port = p->destination_port, r.destination_port = p->source_port;
	return r;
}

static enum inner_verdict check(const struct ip_packet *p)
{
	return inner_flows_check(t.flows, p);
}

#define A "::ffff:10.0.0.1"
#define B "::ffff:10.0.0.2"

/* --- tests -------------------------------------------------------------------------------------------------------- */

static void asked_once(void **state)
{
	struct ip_packet p = packet(6, A, 5000, B, 80), other = packet(6, A, 5001, B, 80);

	(void)state;
	assert_int_equal(check(&p), INNER_PENDING);
	assert_int_equal(check(&p), INNER_PENDING);
	assert_int_equal(t.asked, 1);
	assert_true(t.queries[0].inner.protocol == 6 && t.queries[0].inner.port == 80);
	assert_memory_equal(&t.queries[0].inner.destination, &p.destination, 16);
	t.retry = &p;
	answer(0, 0, UINT64_MAX);
	assert_int_equal(t.ready, 1);
	assert_int_equal(t.retried, INNER_ALLOW);
	assert_int_equal(check(&p), INNER_ALLOW);
	assert_int_equal(t.asked, 1);
	assert_int_equal(check(&other), INNER_PENDING);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&other), INNER_DENY);
	t.at_once = true;
	t.at_once_decision.status = 403;
	p.protocol = 17;
	assert_int_equal(check(&p), INNER_DENY);        /* ask knew it */
	assert_int_equal(t.ready, 2);
}

/* Who is not named is whom the listener's headers name. */
static void the_listener_names_the_user(void **state)
{
	struct ip_packet p = packet(6, A, 5000, B, 80);

	(void)state;
	inner_flows_free(t.flows);
	t.flows = inner_flows_new(&t.tunnel, &t.origin, NULL, t.request, on_ready, &t.ready);
	t.user = "bob";
	check(&p);
	answer(0, 0, UINT64_MAX);
	assert_int_equal(t.asked, 1);
}

static void nothing_examines_packets(void **state)
{
	struct ip_packet p = packet(6, A, 5000, B, 22);

	(void)state;
	t.config.examines.ip = false;
	assert_int_equal(check(&p), INNER_ALLOW);
	assert_int_equal(t.asked, 0);
}

/* What answers an allowed flow passes; who begins from the other end is asked about as such. */
static void both_directions(void **state)
{
	struct ip_packet there = packet(6, A, 5000, B, 80), here = back(&there);
	struct ip_packet begun = packet(6, B, 80, A, 5001), its = back(&begun);

	(void)state;
	assert_int_equal(check(&there), INNER_PENDING);
	assert_int_equal(check(&here), INNER_PENDING);
	assert_int_equal(t.asked, 1);
	answer(0, 0, UINT64_MAX);
	assert_int_equal(check(&here), INNER_ALLOW);
	assert_int_equal(check(&begun), INNER_PENDING);
	assert_int_equal(t.queries[1].inner.port, 5001);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&begun), INNER_DENY);
	assert_int_equal(check(&its), INNER_PENDING);   /* that one's denial is not the other's */
	answer(2, 0, UINT64_MAX);
	assert_int_equal(check(&its), INNER_ALLOW);
	assert_int_equal(check(&begun), INNER_ALLOW);   /* and now it is an answer */
}

static void pings(void **state)
{
	struct ip_packet p = packet(1, A, 0xbeef, B, 0xbeef), reply = back(&p);

	(void)state;
	p.ports = reply.ports = false;
	assert_int_equal(check(&p), INNER_PENDING);
	assert_int_equal(t.queries[0].inner.port, 0);
	answer(0, 0, UINT64_MAX);
	assert_int_equal(check(&reply), INNER_ALLOW);
	assert_int_equal(t.asked, 1);
}

static void icmp_errors(void **state)
{
	struct ip_packet flow = packet(17, A, 5000, B, 53), error = packet(1, "::ffff:10.9.9.9", 0, A, 0);

	(void)state;
	error.ports = false;
	error.icmp_type = 3;
	error.quoted = (struct ip_quoted){ true, 17, 5000, 53, flow.source, flow.destination };
	assert_int_equal(check(&flow), INNER_PENDING);
	assert_int_equal(check(&error), INNER_PENDING);
	assert_int_equal(t.asked, 1);
	answer(0, 0, UINT64_MAX);
	assert_int_equal(check(&error), INNER_ALLOW);
	assert_int_equal(t.asked, 1);
	error.quoted.destination_port = 54;             /* about nothing that passed */
	assert_int_equal(check(&error), INNER_PENDING);
	assert_int_equal(t.queries[1].inner.protocol, 1);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&error), INNER_DENY);
	error = packet(1, "::ffff:10.9.9.9", 0, "::ffff:10.0.0.3", 0);
	error.quoted = (struct ip_quoted){ true, 17, 5000, 53, flow.source, flow.destination };
	assert_int_equal(check(&error), INNER_PENDING);     /* not to the one whose packet it was */
	answer(2, 403, UINT64_MAX);
}

static void verdicts_expire(void **state)
{
	struct ip_packet p = packet(6, A, 5000, B, 80), q = packet(6, A, 5001, B, 80);

	(void)state;
	check(&p);
	answer(0, 0, t.now + 20 * SECOND);
	t.now += 20 * SECOND - 1;
	assert_int_equal(check(&p), INNER_ALLOW);
	t.now += 1;
	assert_int_equal(check(&p), INNER_PENDING);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&p), INNER_DENY);
	check(&q);
	answer(2, 0, t.now);                            /* must not be kept: 5 s for this flow */
	t.now += 5 * SECOND - 1;
	assert_int_equal(check(&q), INNER_ALLOW);
	t.now += 1;
	assert_int_equal(check(&q), INNER_PENDING);
	answer(3, 0, UINT64_MAX);
}

/* Nobody answered, or could not: denied, and asked again after a second. */
static void silence_denies(void **state)
{
	static const unsigned silent[] = { 1, 503 };
	struct ip_packet p = packet(6, A, 5000, B, 80);
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(check(&p), INNER_PENDING);
		answer(n++, silent[i], UINT64_MAX);
		assert_int_equal(check(&p), INNER_DENY);
		t.now += SECOND;
	}
	assert_int_equal(check(&p), INNER_PENDING);
	answer(n, 0, UINT64_MAX);
	assert_int_equal(check(&p), INNER_ALLOW);
}

static void a_new_generation_asks_anew(void **state)
{
	struct ip_packet p = packet(6, A, 5000, B, 80), answer_to_it = back(&p);
	struct generation next = t.generation;

	(void)state;
	check(&p);
	answer(0, 0, UINT64_MAX);
	next.number = 4;
	t.tunnel.current = &next;
	assert_int_equal(check(&answer_to_it), INNER_PENDING);  /* the flow is asked about, not its answer */
	assert_int_equal(t.asked, 2);
	assert_int_equal(t.queries[1].inner.port, 80);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&p), INNER_DENY);
	next.number = 5;
	check(&p);
	next.number = 6;                                /* while it is asked about */
	answer(t.asked - 1, 0, UINT64_MAX);
	assert_int_equal(check(&p), INNER_PENDING);
	answer(t.asked - 1, 403, UINT64_MAX);
	assert_int_equal(check(&p), INNER_DENY);
}

static void idle_flows_go(void **state)
{
	struct ip_packet udp = packet(17, A, 1, B, 53), tcp = packet(6, A, 1, B, 80);

	(void)state;
	check(&udp), check(&tcp);
	answer(0, 0, UINT64_MAX), answer(1, 0, UINT64_MAX);
	for (int i = 0; i < 5; i++) {
		t.now += 179 * SECOND;
		assert_int_equal(check(&udp), INNER_ALLOW);
	}
	t.now += 180 * SECOND;
	assert_int_equal(check(&udp), INNER_PENDING);
	answer(2, 0, UINT64_MAX);
	assert_int_equal(check(&tcp), INNER_ALLOW);     /* two hours */
	t.now += 7200 * SECOND;
	assert_int_equal(check(&tcp), INNER_PENDING);
	answer(3, 0, UINT64_MAX);
}

static void the_table_is_bounded(void **state)
{
	struct ip_packet p = packet(6, A, 1, B, 80), first = p;

	(void)state;
	t.config.cache_entries = 100;                   /* then 1,024 */
	t.at_once = true;
	t.at_once_decision.valid_until = UINT64_MAX;
	check(&first);
	for (uint16_t i = 2; i <= 3000; i++) {
		p.source_port = i;
		assert_int_equal(check(&p), INNER_ALLOW);
		assert_int_equal(check(&first), INNER_ALLOW);   /* in use: stays */
	}
	assert_int_equal(t.asked, 3000);
	p.source_port = 2500;
	check(&p);
	assert_int_equal(t.asked, 3000);
	p.source_port = 1500;
	check(&p);
	assert_int_equal(t.asked, 3001);
}

static void questions_are_bounded(void **state)
{
	struct ip_packet p = packet(6, A, 0, B, 80);

	(void)state;
	for (uint16_t i = 1; i <= 300; i++) {
		p.source_port = i;
		assert_int_equal(check(&p), INNER_PENDING);
	}
	assert_int_equal(t.asked, 256);
	t.retry = &p;
	answer(17, 0, UINT64_MAX);                      /* then there is room for the one that waited unasked */
	assert_int_equal(t.retried, INNER_PENDING);
	assert_int_equal(t.asked, 257);
	inner_flows_free(t.flows);
	t.flows = NULL;
	assert_int_equal(t.cancelled, 256);
}

static void freed_when_told(void **state)
{
	struct ip_packet p = packet(6, A, 1, B, 80), q = packet(6, A, 2, B, 80);

	(void)state;
	check(&p), check(&q);
	t.free_when_told = true;
	answer(0, 0, UINT64_MAX);
	assert_int_equal(t.cancelled, 1);
}

/* --- fragments ---------------------------------------------------------------------------------------------------- */

static struct ip_packet fragment(const struct ip_packet *of, uint32_t id, bool first)
{
	struct ip_packet p = *of;

	p.fragment = true;
	p.first = first;
	p.fragment_id = id;
	if (!first)
		p.ports = false, p.source_port = p.destination_port = 0;
	return p;
}

static void fragments_follow_the_first(void **state)
{
	struct ip_packet web = packet(17, A, 1, B, 80), ssh = packet(17, A, 1, B, 22);
	struct ip_packet f1 = fragment(&web, 7, true), f2 = fragment(&web, 7, false);
	struct ip_packet g1 = fragment(&ssh, 8, true), g2 = fragment(&ssh, 8, false), unknown = fragment(&web, 9, false);

	(void)state;
	assert_int_equal(check(&f2), INNER_DENY);       /* before the first one */
	assert_int_equal(check(&f1), INNER_PENDING);
	assert_int_equal(check(&f2), INNER_PENDING);
	assert_int_equal(t.asked, 1);
	answer(0, 0, UINT64_MAX);
	check(&g1);
	answer(1, 403, UINT64_MAX);
	assert_int_equal(check(&f1), INNER_ALLOW);
	assert_int_equal(check(&f2), INNER_ALLOW);
	assert_int_equal(check(&g2), INNER_DENY);
	assert_int_equal(check(&unknown), INNER_DENY);
	ssh = fragment(&ssh, 7, true);                  /* overlaps the allowed one's beginning: what follows is judged by it */
	assert_int_equal(check(&ssh), INNER_DENY);
	assert_int_equal(check(&f2), INNER_DENY);
	assert_int_equal(check(&f1), INNER_ALLOW);
	assert_int_equal(check(&f2), INNER_ALLOW);
	t.now += 5 * SECOND;
	assert_int_equal(check(&f2), INNER_DENY);
	assert_int_equal(t.asked, 2);
	for (uint32_t id = 100; id < 164; id++) {       /* others push it out */
		f1.fragment_id = id;
		check(&f1);
	}
	g2.fragment_id = 100;
	assert_int_equal(check(&g2), INNER_ALLOW);
	f1.fragment_id = 164;
	check(&f1);
	assert_int_equal(check(&g2), INNER_DENY);
}

/* Where no policy looks at ports they are judged by the rest. */
static void fragments_without_ports(void **state)
{
	struct ip_packet web = packet(17, A, 1, B, 80), later = fragment(&web, 7, false);

	(void)state;
	t.policy.match.ip.port_low = t.policy.match.ip.port_high = 0;
	t.generation.number++;
	assert_int_equal(check(&later), INNER_PENDING);
	assert_int_equal(t.queries[0].inner.port, 0);
	answer(0, 0, UINT64_MAX);
	assert_int_equal(check(&later), INNER_ALLOW);
	t.policy.authorizer.address = "unix:/opa";      /* may look at everything */
	t.generation.number++;
	assert_int_equal(check(&later), INNER_DENY);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(asked_once), T(the_listener_names_the_user),
		T(nothing_examines_packets), T(both_directions), T(pings), T(icmp_errors), T(verdicts_expire),
		T(silence_denies), T(a_new_generation_asks_anew), T(idle_flows_go), T(the_table_is_bounded),
		T(questions_are_bounded), T(freed_when_told), T(fragments_follow_the_first), T(fragments_without_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
