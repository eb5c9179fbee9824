/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#include "workers/policy/assess.h"

#define LIST1(a) { .v = (char *[]){ a }, .n = 1 }

static struct config_header_match admin = { .name = "token", .match = { .exact = "admin" } };
static struct config_pair secure = { "x-secure", "admin" }, plain = { "x-secure", "user" };
static struct config_rule video_rules[] = {
	{ .allow = true, .match = { .headers = &admin, .n_headers = 1 }, .add_headers = { &secure, 1 } },
	{ .allow = false, .match = { .methods = LIST1("DELETE") } },
	{ .allow = true, .match = { .users = LIST1("bob") } },
};
static struct config_rule all_rules[] = { { .allow = true, .add_headers = { &plain, 1 } } };
static struct config_policy policies[] = {
	{ .name = "video", .match = { .authorities = LIST1("video") }, .rules = video_rules, .n_rules = 3 },
	{ .name = "all", .match = { .authorities = LIST1("*") }, .rules = all_rules, .n_rules = 1 },
};
static struct config config = { .policies = policies, .n_policies = 2 };
static struct match_header token = { "token", "admin" };

static struct assess_verdict v;
static struct trace trace;

static enum assess_step run(const struct match_input *in, const struct assess_answer *answers)
{
	trace_reset(&trace);
	return assess(&config, in, answers, &v, &trace);
}

static bool told(const char *part)
{
	for (size_t i = 0; i < trace.n; i++)
		if (strstr(trace.v[i], part))
			return true;
	return false;
}

static void allowed_by_a_rule(void **state)
{
	struct match_input in = { .method = "GET", .authority = "video", .headers = &token, .n_headers = 1 };

	(void)state;
	assert_int_equal(run(&in, NULL), ASSESS_DONE);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.n_policies, 2);
	assert_int_equal(v.n_added, 1);          /* the later policy's value wins */
	assert_string_equal(v.added[0].value, "user");
	assert_true(v.valid_ms == ASSESS_FOREVER);
	assert_true(told("policy video: rule 1 allows"));
}

static void denied_by_rule_and_by_default(void **state)
{
	struct match_input in = { .method = "DELETE", .user = "bob", .authority = "video" };

	(void)state;
	assert_int_equal(run(&in, NULL), ASSESS_DONE);
	assert_int_equal(v.status, 403);
	assert_string_equal(v.error, "http_request_denied");
	assert_string_equal(v.detail, "policy video: rule 2 denies");
	in.method = "GET";
	run(&in, NULL);
	assert_int_equal(v.status, 0);
	in.user = "eve";
	run(&in, NULL);
	assert_string_equal(v.detail, "policy video: no rule allows (default deny)");
	assert_true(told("rule 1 does not match: header token is absent"));
	assert_int_equal(v.n_policies, 1);
	in.authority = NULL;                     /* governed by nobody */
	run(&in, NULL);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.n_policies, 0);
	assert_true(told("none governs"));
}

static void policies_do_not_see_each_others_headers(void **state)
{
	struct config_header_match secured = { .name = "x-secure", .match = { .present = true } };
	struct config_policy two[] = { policies[1], { .name = "second", .match = { .headers = &secured, .n_headers = 1 } } };
	struct config c = { .policies = two, .n_policies = 2 };
	struct match_input in = { .authority = "a" };

	(void)state;
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_DONE);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.n_policies, 1);
}

static void windows_bound_validity(void **state)
{
	struct config_window morning = { .days = 0x7f, .from = 8 * 60, .to = 9 * 60 };
	struct config_rule rule = { .allow = true, .match = { .times = &morning, .n_times = 1 } };
	struct config_policy p = { .name = "p", .rules = &rule, .n_rules = 1 };
	struct config c = { .policies = &p, .n_policies = 1 };
	struct match_input in = { .now = 8 * 3600 + 3590 };

	(void)state;
	assess(&c, &in, NULL, &v, NULL);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.valid_ms, 9001);
	in.now = 8 * 3600 - 1;                   /* closed, but about to open */
	assess(&c, &in, NULL, &v, NULL);
	assert_int_equal(v.status, 403);
	assert_int_equal(v.valid_ms, 1);
}

static void authorizer(void **state)
{
	struct config_policy p = { .name = "opa", .authorizer = { .address = "unix:/s", .path = "/v1" } };
	struct config c = { .policies = &p, .n_policies = 1 };
	struct match_input in = { .method = "GET" };
	struct match_header h = { "x-role", "boss" };
	struct assess_answer yes = { .policy = "opa", .allowed = true, .headers = &h, .n_headers = 1, .valid_ms = 5 };
	struct assess_answer no = { .policy = "opa" }, late = { .policy = "opa", .failed = "timeout" };

	(void)state;
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_ASK);
	assert_ptr_equal(v.ask, &p);
	assert_int_equal(assess(&c, &in, &yes, &v, NULL), ASSESS_DONE);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.valid_ms, 5);
	assert_string_equal(v.added[0].name, "x-role");
	assess(&c, &in, &no, &v, NULL);
	assert_string_equal(v.detail, "policy opa: authorizer unix:/s: refused");
	assess(&c, &in, &late, &v, NULL);
	assert_int_equal(v.status, 403);
	assert_string_equal(v.detail, "policy opa: authorizer unix:/s: timeout");
	p.authorizer.fail_open = true;
	assess(&c, &in, &late, &v, NULL);
	assert_int_equal(v.status, 0);
	assert_int_equal(v.valid_ms, 0);
	assess(&c, &in, &no, &v, NULL);          /* open is for failures, not for a plain no */
	assert_int_equal(v.status, 403);
}

static void authorizer_only_takes_away(void **state)
{
	struct config_policy p = { .name = "opa", .rules = video_rules, .n_rules = 3,
		.authorizer = { .address = "a:1", .path = "/" } };
	struct config c = { .policies = &p, .n_policies = 1 };
	struct match_input in = { .method = "GET", .user = "eve" };

	(void)state;
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_DONE);   /* denied without asking */
	assert_int_equal(v.status, 403);
	in.user = "bob";
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_ASK);
	in.method = "DELETE";
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_DONE);
	p.default_allow = true;
	in.method = "GET";
	in.user = "eve";
	assert_int_equal(assess(&c, &in, NULL, &v, NULL), ASSESS_ASK);
}

static void too_many_headers_deny(void **state)
{
	static char names[300][16];
	struct config_pair pairs[300];
	struct config_rule rule = { .allow = true, .add_headers = { pairs, 300 } };
	struct config_policy p = { .name = "p", .rules = &rule, .n_rules = 1 };
	struct config c = { .policies = &p, .n_policies = 1 };
	struct match_input in = { 0 };

	(void)state;
	for (int i = 0; i < 300; i++) {
		snprintf(names[i], sizeof(names[i]), "h%d", i);
		pairs[i] = (struct config_pair){ names[i], names[i] };
	}
	assess(&c, &in, NULL, &v, NULL);
	assert_int_equal(v.status, 403);
}

/* Policies with `ip:` anywhere are about packets, all others about what carries them. */
static void packets(void **state)
{
	struct config_rule web[] = { { .allow = true, .match = { .ip = { .present = true, .protocol = 6, .port_low = 80,
		.port_high = 80 } } } };
	struct config_rule ping[] = { { .allow = false, .match = { .users = LIST1("bob") } }, { .allow = true } };
	struct config_policy three[] = {
		{ .name = "tunnel", .match = { .authorities = LIST1("*") } },                /* denies every tunnel */
		{ .name = "web", .match = { .users = LIST1("alice") }, .rules = web, .n_rules = 1 },
		{ .name = "icmp", .match = { .ip = { .present = true, .protocol = 1 } }, .rules = ping, .n_rules = 2 },
	};
	struct config c = { .policies = three, .n_policies = 3, .examines.ip = true };
	struct match_input in = { .user = "alice", .authority = "10.0.0.0/8" };

	(void)state;
	trace_reset(&trace);
	assert_int_equal(assess(&c, &in, NULL, &v, &trace), ASSESS_DONE);
	assert_string_equal(v.detail, "policy tunnel: no rule allows (default deny)");
	assert_int_equal(v.n_policies, 1);
	three[0].default_allow = true;
	trace_reset(&trace);
	assess(&c, &in, NULL, &v, &trace);
	assert_true(v.status == 0 && v.n_policies == 1);
	assert_true(told("policy web: not asked: it governs packets inside tunnels"));
	three[0].default_allow = false;
	in.ip = (struct match_packet){ .present = true, .protocol = 6, .port = 80 };
	trace_reset(&trace);
	assess(&c, &in, NULL, &v, &trace);
	assert_true(v.status == 0 && v.n_policies == 1);
	assert_true(told("policy tunnel: not asked: it governs tunnels, not their packets"));
	in.ip.port = 22;
	assess(&c, &in, NULL, &v, NULL);
	assert_string_equal(v.detail, "policy web: no rule allows (default deny)");
	in.ip = (struct match_packet){ .present = true, .protocol = 1 };
	assess(&c, &in, NULL, &v, NULL);
	assert_int_equal(v.status, 403);        /* icmp would allow it: one deny is enough */
	in.user = "carol";
	assess(&c, &in, NULL, &v, NULL);
	assert_true(v.status == 0 && v.n_policies == 1);
	in.user = "bob";
	assess(&c, &in, NULL, &v, NULL);
	assert_string_equal(v.detail, "policy icmp: rule 1 denies");
	in.ip.protocol = 17;
	trace_reset(&trace);
	assess(&c, &in, NULL, &v, &trace);
	assert_true(v.status == 0 && v.n_policies == 0 && told("none governs this packet: allowed"));
}

static void trace_is_bounded(void **state)
{
	(void)state;
	trace_reset(&trace);
	for (int i = 0; i < 1000; i++)
		trace_add(&trace, "%0300d", i);
	assert_true(trace.n <= TRACE_MAX && trace.n > 100);
	assert_string_equal(trace.v[trace.n - 1], "... and more that is not shown");
	trace_reset(&trace);
	for (int i = 0; i < 1000; i++)
		trace_add(&trace, "%d", i);
	assert_int_equal(trace.n, TRACE_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allowed_by_a_rule), cmocka_unit_test(denied_by_rule_and_by_default),
		cmocka_unit_test(policies_do_not_see_each_others_headers), cmocka_unit_test(windows_bound_validity),
		cmocka_unit_test(authorizer), cmocka_unit_test(authorizer_only_takes_away),
		cmocka_unit_test(too_many_headers_deny), cmocka_unit_test(trace_is_bounded), cmocka_unit_test(packets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
