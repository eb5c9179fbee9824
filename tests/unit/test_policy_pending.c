/* SPDX-License-Identifier: Apache-2.0 */
/* Questions on their way through the policy worker, with real channels: the test is supervisor, router and authorizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>

#include "workers/policy/policy.h"

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#define YES "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n{\"result\":{\"allowed\":true,\"headers\":{\"x-role\":\"boss\"}}}"

static struct event_base *base;
static struct ipc_channel *to_supervisor, *as_supervisor, *as_router;
static struct policy p;
static int opa = -1;             /* the authorizer's end */
static unsigned dials, verdicts;
static struct { uint32_t status, valid; uint64_t id, generation; char detail[256], header[64]; unsigned trace; } last;

static struct config_policy policies[] = {
	{ .name = "first", .authorizer = { .address = "unix:/opa", .path = "/v1", .timeout = 60000, .cache = 5000 } },
	{ .name = "second", .authorizer = { .address = "unix:/opa", .path = "/v2", .timeout = 60000 } },
};
static struct config config = { .policies = policies, .n_policies = 1 };

/* In place of ipc/worker.c, which wants to be a process of its own. */
struct event_base *worker_base(struct worker *worker)
{
	(void)worker;
	return base;
}

struct ipc_channel *worker_supervisor(struct worker *worker)
{
	(void)worker;
	return to_supervisor;
}

uint64_t policy_now(void)
{
	return 1000;
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	int fds[2];

	(void)channel, (void)fd, (void)arg;
	if (type == IPC_MSG_DIAL) {
		dials++;
		assert_string_equal(m->dial.address, "unix:/opa");
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		opa = fds[1];
		pending_dialed(&p, m->dial.id, &fds[0], NULL);
		assert_int_equal(fds[0], -1);
	} else if (type == IPC_MSG_ASSESSED) {
		verdicts++;
		last.status = m->assessed.status;
		last.valid = m->assessed.valid_ms;
		last.id = m->assessed.id;
		last.generation = m->assessed.generation;
		last.trace = (unsigned)m->assessed.trace.n;
		snprintf(last.detail, sizeof(last.detail), "%s", m->assessed.detail ? m->assessed.detail : "");
		snprintf(last.header, sizeof(last.header), "%s",
		         m->assessed.add_headers.n ? m->assessed.add_headers.v[0].value : "");
	}
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	(void)channel, (void)arg;
	fail_msg("%s", reason);
}

static void turn(void)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void release(void *object)
{
	(void)object;
}

static int setup(void **state)
{
	int sup[2], way[2];

	(void)state;
	base = event_base_new();
	ipc_pair(sup);
	ipc_pair(way);
	to_supervisor = ipc_channel_new(base, sup[0], IPC_POLICY, 0, IPC_SUPERVISOR, on_message, on_ended, NULL);
	as_supervisor = ipc_channel_new(base, sup[1], IPC_SUPERVISOR, 0, IPC_POLICY, on_message, on_ended, NULL);
	p = (struct policy){ .generations.release = release, .answers = answers_new() };
	p.router = ipc_channel_new(base, way[0], IPC_POLICY, 0, IPC_ROUTER, on_message, on_ended, NULL);
	as_router = ipc_channel_new(base, way[1], IPC_ROUTER, 0, IPC_POLICY, on_message, on_ended, NULL);
	dials = verdicts = 0;
	memset(&last, 0, sizeof(last));
	config.n_policies = 1;
	generations_prepare(&p.generations, 7, &config);
	generations_commit(&p.generations, 7);
	turn();
	return 0;
}

/* Nothing names the authorizer any more, so that the sweep must free it. */
static int teardown(void **state)
{
	(void)state;
	generations_clear(&p.generations);
	pending_sweep(&p);
	assert_null(p.authorizers);
	assert_null(p.pending);
	answers_free(p.answers);
	ipc_channel_free(p.router);
	ipc_channel_free(as_router);
	ipc_channel_free(to_supervisor);
	ipc_channel_free(as_supervisor);
	if (opa >= 0)
		close(opa);
	opa = -1;
	event_base_free(base);
	return 0;
}

static void ask(uint64_t id, uint32_t tunnel)
{
	struct ipc_question q = { .id = id, .generation = 7, .tunnel = tunnel, .deadline = 2000, .method = "GET" };
	const struct config_policy *policy;

	if (!pending_repeat(&p, &q) && verdict_give(&p, &q, NULL, &policy) == ASSESS_ASK)
		pending_begin(&p, &q, policy);
	turn();
}

static void respond(const char *text)
{
	char buffer[4096];

	assert_true(read(opa, buffer, sizeof(buffer)) > 0);
	assert_int_equal(write(opa, text, strlen(text)), strlen(text));
	turn();
}

static void asked_then_known(void **state)
{
	(void)state;
	ask(1, 0);
	assert_true(dials == 1 && verdicts == 0 && p.pending);
	respond(YES);
	assert_true(verdicts == 1 && last.status == 0 && last.id == 1 && last.valid == 5000);
	assert_string_equal(last.header, "boss");
	assert_null(p.pending);
	ask(2, 0);                       /* from the cache, without a word to the authorizer */
	assert_true(verdicts == 2 && last.id == 2 && last.status == 0);
	assert_string_equal(last.header, "boss");
}

static void one_after_the_other(void **state)
{
	(void)state;
	config.n_policies = 2;
	ask(1, 0);
	respond(YES);
	assert_true(verdicts == 0 && p.pending);
	respond("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
	assert_true(verdicts == 1 && last.status == 403 && last.valid == 0);
	assert_string_equal(last.detail, "policy second: authorizer unix:/opa: refused");
	assert_string_equal(last.header, "");
}

static void failure_denies(void **state)
{
	(void)state;
	ask(1, 0);
	respond("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}");
	assert_true(verdicts == 1 && last.status == 403 && last.valid == 0);
	ask(2, 0);                       /* a failure is not kept */
	assert_int_equal(verdicts, 1);
	respond(YES);
	assert_true(verdicts == 2 && last.status == 0);
}

static void a_repeated_question_is_asked_once(void **state)
{
	(void)state;
	ask(1, 0);
	ask(1, 0);
	respond(YES);
	assert_int_equal(verdicts, 1);
	assert_null(p.pending);
}

static void a_new_tunnel_worker_is_not_answered_for_the_old(void **state)
{
	int old;

	(void)state;
	ask(1, 0);
	old = opa;
	pending_forget(&p, 0);
	ask(1, 0);                       /* the same number, but another's */
	assert_int_equal(dials, 2);
	respond(YES);
	assert_int_equal(verdicts, 1);
	close(opa);
	opa = old;
	respond(YES);
	assert_int_equal(verdicts, 1);
}

static void explained(void **state)
{
	(void)state;
	ask(1, IPC_EXPLAIN);
	respond(YES);
	assert_true(verdicts == 1 && last.trace >= 2);
}

static void nobody_to_tell(void **state)
{
	(void)state;
	ask(1, 0);
	ipc_channel_free(p.router);
	ipc_channel_free(as_router);
	p.router = as_router = NULL;
	respond(YES);
	assert_int_equal(verdicts, 0);
	assert_null(p.pending);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(asked_then_known), T(one_after_the_other), T(failure_denies),
		T(a_repeated_question_is_asked_once), T(a_new_tunnel_worker_is_not_answered_for_the_old), T(explained),
		T(nobody_to_tell) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
