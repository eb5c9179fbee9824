/* Questions and the cache of their answers; policy and router are the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <event2/event.h>

#include "workers/tunnel/ask.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/listener.h"

#define ASKERS 40000

struct asker {
	struct ask_query *query;
	struct decision *decision;
	unsigned told;
	bool again;                   /* asks something else as soon as it is told */
};

static struct {
	struct event_base *base;
	struct tunnel tunnel;
	struct generation generation;
	struct config config;
	struct config_listener listener_config;
	struct listener listener;
	struct origin origin;
	struct ask *ask;
	struct head *request;
	uint64_t now, last_id;
	unsigned sent;
	char sent_path[64], sent_user[64];
	uint64_t sent_generation;
	bool sent_inner;
	unsigned sent_protocol, sent_port;
	char sent_source[64], sent_destination[64];
	struct asker askers[ASKERS];
	unsigned n;
} t;

/* --- what ask.c needs of others --------------------------------------------------------------------------------------- */

uint64_t now_us(void) { return t.now; }
unsigned worker_index(const struct worker *worker) { (void)worker; return 3; }

int ipc_send(struct ipc_channel *channel, enum ipc_type type, const void *message, int fd)
{
	const struct ipc_question *q = message;
	assert_ptr_equal(channel, &t);
	assert_true(type == IPC_MSG_QUESTION && fd == -1 && q->tunnel == 3);
	t.sent++;
	t.last_id = q->id;
	t.sent_generation = q->generation;
	snprintf(t.sent_path, sizeof(t.sent_path), "%s", q->path ? q->path : "");
	snprintf(t.sent_user, sizeof(t.sent_user), "%s", q->user ? q->user : "");
	t.sent_inner = q->inner;
	t.sent_protocol = q->ip_protocol;
	t.sent_port = q->ip_port;
	snprintf(t.sent_source, sizeof(t.sent_source), "%s", q->ip_source ? q->ip_source : "");
	snprintf(t.sent_destination, sizeof(t.sent_destination), "%s", q->ip_destination ? q->ip_destination : "");
	return 0;
}

static struct asker *ask_for(const char *user, const char *path);

static void done(void *arg, struct decision *decision)
{
	struct asker *a = arg;
	a->told++;
	a->query = NULL;
	a->decision = decision;
	if (a->again)
		ask_for("another", "/pushes-out");
}

static struct asker *ask_for(const char *user, const char *path)
{
	struct asker *a = &t.askers[t.n++];
	assert_true(t.n < ASKERS);
	t.request->path = path;
	a->decision = ask_decision(t.ask, &t.origin, user, t.request, &a->query, done, a);
	assert_true(!a->decision != !a->query);
	return a;
}

static void answer(uint64_t id, unsigned status, uint32_t valid_ms)
{
	struct ipc_decision d = {.id = id, .generation = t.generation.number, .status = status, .cluster = "c",
	                         .route = "r", .valid_ms = valid_ms, .error = status ? "http_request_denied" : NULL};
	ask_answered(t.ask, &d);
}

static void pass_time(uint64_t ms)
{
	t.now += ms * 1000;
	event_base_loop(t.base, EVLOOP_ONCE);   /* the next tick */
}

static int setup(void **state)
{
	(void)state;
	struct event_base *base = t.base ? t.base : event_base_new();
	memset(&t, 0, sizeof(t));
	t.base = base;
	t.now = 1000000;
	t.config = (struct config){.node_name = (char *)"n", .cache_entries = 100};
	t.config.examines.path = t.config.examines.user = true;
	t.generation = (struct generation){.number = 7, .refs = 1, .config = &t.config};
	t.tunnel = (struct tunnel){.base = base, .current = &t.generation, .stats = stats_new(16),
	                           .policy = (struct ipc_channel *)&t};
	t.tunnel.self = stats_set(t.tunnel.stats, STATS_WORKER, "tunnel-3");
	t.listener_config = (struct config_listener){.name = (char *)"l"};
	t.listener = (struct listener){.name = "l", .config = &t.listener_config,
	                               .stats = stats_set(t.tunnel.stats, STATS_LISTENER, "l")};
	t.origin = (struct origin){.listener = &t.listener, .source_text = "127.0.0.1"};
	t.request = head_new();
	t.request->method = "GET";
	t.request->authority = "video";
	t.ask = ask_new(&t.tunnel);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < t.n; i++)
		if (t.askers[i].query)
			ask_cancel(t.askers[i].query);
	ask_free(t.ask);
	for (unsigned i = 0; i < t.n; i++)
		decision_unref(t.askers[i].decision);
	head_free(t.request);
	stats_free(t.tunnel.stats);
	return 0;
}

/* --- tests ------------------------------------------------------------------------------------------------------------ */

static void asked_once_then_known(void **state)
{
	(void)state;
	struct asker *a = ask_for("alice", "/a"), *b = ask_for("alice", "/a");
	assert_int_equal(t.sent, 1);            /* together */
	assert_string_equal(t.sent_user, "alice");
	assert_int_equal(t.sent_generation, 7);
	answer(t.last_id, 0, UINT32_MAX);
	assert_true(a->told == 1 && b->told == 1 && a->decision == b->decision);
	assert_string_equal(a->decision->cluster, "c");
	struct asker *c = ask_for("alice", "/a");
	assert_ptr_equal(c->decision, a->decision);
	t.now += 3600u * 1000000;
	assert_ptr_equal(ask_for("alice", "/a")->decision, a->decision);
	assert_int_equal(t.sent, 1);
	answer(t.last_id, 403, 0);              /* a second answer finds nobody */
	assert_int_equal(a->told, 1);
}

static void only_what_is_examined_separates(void **state)
{
	(void)state;
	ask_for("alice", "/a");
	ask_for("bob", "/a");
	ask_for("alice", "/b");
	ask_for(NULL, "/a");
	ask_for("", "/a");
	ask_for("alice/", "a");                 /* the same letters, cut elsewhere */
	assert_int_equal(t.sent, 6);
	t.request->method = "POST";             /* nobody looks at it */
	ask_for("alice", "/a");
	assert_int_equal(t.sent, 6);
	t.config.examines.method = true;
	t.request->method = "PUT";
	ask_for("alice", "/a");
	assert_int_equal(t.sent, 7);
}

static void examined_headers_separate(void **state)
{
	(void)state;
	char *names[] = {(char *)"token", (char *)"x"};
	t.config.examined_headers = (struct config_strs){.v = names, .n = 2};
	head_add(t.request, "token", "1");
	ask_for("a", "/");
	head_set(t.request, "token", "2");
	ask_for("a", "/");
	head_remove(t.request, "token");
	head_add(t.request, "x", "1");
	ask_for("a", "/");
	head_add(t.request, "unseen", "1");
	ask_for("a", "/");
	assert_int_equal(t.sent, 3);
}

static void answers_expire(void **state)
{
	(void)state;
	ask_for("a", "/");
	answer(t.last_id, 0, 500);
	t.now += 499 * 1000;
	assert_non_null(ask_for("a", "/")->decision);
	t.now += 1000;
	assert_null(ask_for("a", "/")->decision);
	assert_int_equal(t.sent, 2);
	answer(t.last_id, 403, 0);              /* not to be kept at all */
	assert_null(ask_for("a", "/")->decision);
	assert_int_equal(t.sent, 3);
}

static void asked_again_once_then_given_up(void **state)
{
	(void)state;
	struct asker *a = ask_for("a", "/again");
	uint64_t id = t.last_id;
	pass_time(900);
	assert_int_equal(t.sent, 1);
	pass_time(101);
	assert_int_equal(t.sent, 2);
	assert_int_equal(t.last_id, id);
	assert_string_equal(t.sent_path, "/again");
	pass_time(999);
	assert_int_equal(a->told, 0);
	pass_time(2);
	assert_int_equal(t.sent, 2);
	assert_int_equal(a->told, 1);
	assert_null(a->decision);
	answer(id, 0, 1000);                    /* too late */
	assert_null(ask_for("a", "/again")->decision);
}

static void the_cancelled_hear_nothing(void **state)
{
	(void)state;
	struct asker *askers[3];
	for (int i = 0; i < 3; i++)
		askers[i] = ask_for("a", "/");
	ask_cancel(askers[1]->query);
	askers[1]->query = NULL;
	answer(t.last_id, 0, 1000);
	assert_int_equal(askers[0]->told, 1);
	assert_int_equal(askers[1]->told, 0);
	assert_int_equal(askers[2]->told, 1);
}

static void a_new_generation_asks_anew(void **state)
{
	(void)state;
	ask_for("known", "/");
	answer(t.last_id, 0, UINT32_MAX);
	struct asker *before = ask_for("open", "/");
	uint64_t id = t.last_id;
	struct generation next = t.generation;
	next.number = 8;
	t.tunnel.current = &next;
	ask_commit(t.ask);
	assert_null(ask_for("known", "/")->decision);
	struct asker *after = ask_for("open", "/");
	assert_int_equal(t.sent, 4);            /* not what the old generation is asked */
	assert_int_equal(t.sent_generation, 8);
	answer(id, 0, UINT32_MAX);              /* of generation 7 */
	assert_int_equal(before->told, 1);
	assert_int_equal(after->told, 0);
	answer(t.last_id, 403, UINT32_MAX);     /* still 7: told, but not kept */
	assert_int_equal(after->told, 1);
	assert_null(ask_for("open", "/")->decision);
	t.tunnel.current = &t.generation;
}

static void the_cache_is_bounded(void **state)
{
	(void)state;
	char path[32];
	for (int i = 0; i < 150; i++) {
		snprintf(path, sizeof(path), "/%d", i);
		ask_for("a", path);
		answer(t.last_id, 0, UINT32_MAX);
	}
	assert_non_null(ask_for("a", "/149")->decision);
	assert_non_null(ask_for("a", "/60")->decision);
	assert_null(ask_for("a", "/0")->decision);
}

static void open_questions_are_bounded(void **state)
{
	(void)state;
	char path[32];
	struct asker *last = NULL;
	for (int i = 0; i < 16384; i++) {
		snprintf(path, sizeof(path), "/%d", i);
		last = ask_for("a", path);
	}
	assert_null(last->decision);
	last = ask_for("a", "/one-more");
	assert_int_equal(last->decision->status, 503);
	assert_null(ask_for("a", "/5")->decision);   /* waits with those who asked before */
}

static void long_questions_are_bounded_sooner(void **state)
{
	(void)state;
	static char path[60000];
	struct asker *last = NULL;
	memset(path, 'x', sizeof(path) - 1);
	unsigned n = 0;
	do {
		snprintf(path, sizeof(path), "/%06u", n);
		path[7] = 'x';
		last = ask_for("a", path);
	} while (!last->decision && ++n < 16384);
	assert_int_equal(last->decision->status, 503);
	assert_in_range(n, 100, 2000);
	static char too_long[90000];
	memset(too_long, 'x', sizeof(too_long) - 1);
	assert_int_equal(ask_for("a", too_long)->decision->status, 431);
}

static struct asker *ask_packet(uint8_t protocol, const char *destination, uint16_t port)
{
	struct asker *a = &t.askers[t.n++];
	struct ask_inner inner = {.protocol = protocol, .port = port};
	t.request->path = "/";
	assert_true(inet_pton(AF_INET6, "::ffff:10.0.0.1", &inner.source) && inet_pton(AF_INET6, destination, &inner.destination));
	a->decision = ask_inner(t.ask, &t.origin, "alice", t.request, &inner, &a->query, done, a);
	assert_true(!a->decision != !a->query);
	return a;
}

static void packets_are_asked_about_apart(void **state)
{
	(void)state;
	struct asker *tunnel = ask_for("alice", "/");
	assert_false(t.sent_inner);
	struct asker *packet = ask_packet(6, "::ffff:10.0.0.2", 80);
	assert_true(t.sent_inner && t.sent_protocol == 6 && t.sent_port == 80);
	assert_string_equal(t.sent_source, "10.0.0.1");
	assert_string_equal(t.sent_destination, "10.0.0.2");
	answer(t.last_id, 403, UINT32_MAX);
	assert_true(packet->told == 1 && tunnel->told == 0);
	assert_true(packet->decision->valid_until == UINT64_MAX);
	assert_non_null(ask_packet(6, "::ffff:10.0.0.2", 80)->decision);
	assert_int_equal(t.sent, 2);
	ask_packet(17, "::ffff:10.0.0.2", 80);
	ask_packet(6, "::ffff:10.0.0.2", 81);
	ask_packet(6, "2001:db8::2", 80);
	assert_int_equal(t.sent, 5);
	assert_string_equal(t.sent_destination, "2001:db8::2");
	answer(t.last_id, 0, 500);
	assert_true(t.askers[t.n - 1].decision->valid_until == t.now + 500000);
	uint64_t last = t.last_id;
	ask_packet(132, "::ffff:10.0.0.9", 7);
	t.sent_inner = false, t.sent_port = 0;
	pass_time(1001);                        /* asked again with all that it was asked with */
	assert_true(t.last_id != last && t.sent_inner);
}

/* Who is told may ask at once, and push the very entry out that is being told of. */
static void asking_while_being_told(void **state)
{
	(void)state;
	t.config.cache_entries = 1;
	struct asker *first = ask_for("a", "/"), *second = ask_for("a", "/");
	first->again = second->again = true;
	answer(t.last_id, 0, UINT32_MAX);
	assert_true(first->told == 1 && second->told == 1);
	assert_non_null(first->decision);
	assert_ptr_equal(first->decision, second->decision);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(asked_once_then_known),
		T(only_what_is_examined_separates),
		T(examined_headers_separate),
		T(answers_expire),
		T(asked_again_once_then_given_up),
		T(the_cancelled_hear_nothing),
		T(a_new_generation_asks_anew),
		T(the_cache_is_bounded),
		T(open_questions_are_bounded),
		T(long_questions_are_bounded_sooner),
		T(asking_while_being_told),
		T(packets_are_asked_about_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
