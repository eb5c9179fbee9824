/* What worker.c does for every role, seen from a supervisor's side: the worker is a router that does nothing. */
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"

#include <event2/event.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* --- the worker ---------------------------------------------------------------------------------------------------- */

static struct worker *worker;

static void no_message(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)ch;
	(void)type;
	(void)m;
	(void)fd;
	(void)arg;
}

static void peer_gone(struct ipc_channel *ch, const char *reason, void *arg)
{
	(void)reason;
	(void)arg;
	ipc_channel_free(ch);
}

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	(void)arg;
	(void)index;
	struct ipc_channel *ch = ipc_channel_new(worker_base(worker), fd, IPC_ROUTER, 0, role, no_message, peer_gone, NULL);
	stats_add(stats_set(worker_stats(worker), STATS_WORKER, "router"), STATS_WORKER_QUESTIONS, 7);
	worker_send_stats(worker, ch);
}

/* Answers with as many bytes as the verb says. */
static void on_request(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	(void)arg;
	(void)type;
	(void)fd;
	size_t n = strtoul(m->admin_request.verb, NULL, 10);
	char *json = malloc(n + 1);
	memset(json, '7', n);
	json[n] = '\0';
	worker_reply(worker, m->admin_request.id, 0, json, "note");
	free(json);
}

static int refuse(void *arg, uint64_t generation, struct config *config, char *error, size_t size)
{
	(void)arg;
	config_free(config);
	if (generation == 1)
		snprintf(error, size, "not this one");
	return generation <= 2 ? -1 : 0;
}

static void never_stop(void *arg, unsigned drain_ms)
{
	(void)arg;
	(void)drain_ms;
}

static const struct worker_callbacks callbacks = {
	.prepare = refuse, .peer = on_peer, .message = on_request, .stop = never_stop,
};

static void run_worker(int fd)
{
	char *argv[] = {(char *)"hermes-router", (char *)"--index=0", NULL};
	alarm(60);
	if (fd != WORKER_SUPERVISOR_FD) {
		dup2(fd, WORKER_SUPERVISOR_FD);
		close(fd);
	}
	worker = worker_start(IPC_ROUTER, 2, argv, 8, &callbacks, NULL);
	_exit(worker_run(worker));
}

/* --- the supervisor ------------------------------------------------------------------------------------------------ */

static struct event_base *base;
static struct ipc_channel *channel;
static pid_t child;
static bool ready;
static unsigned replies;
static size_t reply_length;           /* of the last reply's JSON */
static bool reply_by_memfd;
static char prepared[256];
static uint64_t questions;            /* as read from the region that telemetry got */

static void on_reply(const struct ipc_admin_reply *reply, int fd)
{
	const void *data = NULL;
	size_t length = 0;
	replies++;
	assert_string_equal(reply->error, "note");
	reply_by_memfd = fd >= 0;
	reply_length = strlen(reply->json);
	if (fd < 0)
		return;
	assert_int_equal(reply_length, 0);
	assert_int_equal(memfd_map(fd, 10u << 20, &data, &length), 0);
	assert_int_equal(((const char *)data)[length - 1], '7');
	reply_length = length;
	memfd_unmap(data, length);
}

static void on_message(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)ch;
	(void)arg;
	if (type == IPC_MSG_READY)
		ready = m->ready.pid == (uint32_t)child;
	if (type == IPC_MSG_ADMIN_REPLY)
		on_reply(&m->admin_reply, *fd);
	if (type == IPC_MSG_CONFIG_PREPARED)
		snprintf(prepared, sizeof(prepared), "%d %s", (int)m->config_prepared.generation,
		         m->config_prepared.error ? m->config_prepared.error : "ok");
	if (type == IPC_MSG_STATS_REGION) {
		struct stats_view *view = stats_view_new(*fd);
		assert_non_null(view);
		assert_int_equal(m->stats_region.role, IPC_ROUTER);
		questions = stats_view_value(view, 0, STATS_WORKER_QUESTIONS);
		stats_view_free(view);
	}
}

static void on_ended(struct ipc_channel *ch, const char *reason, void *arg)
{
	(void)ch;
	(void)arg;
	fail_msg("ended: %s", reason);
}

static void run(void)
{
	const struct timeval tick = {.tv_usec = 10000};
	event_base_loopexit(base, &tick);
	event_base_dispatch(base);
}
#define RUN_UNTIL(condition)                                                                                          \
	do {                                                                                                          \
		for (int i = 0; i < 1000 && !(condition); i++)                                                        \
			run();                                                                                        \
		assert_true(condition);                                                                               \
	} while (0)

static int set_up(void **state)
{
	(void)state;
	int fds[2];
	ready = false;
	replies = 0;
	setenv("HERMES_LOG_LEVEL", "error", 1);
	if (ipc_pair(fds) || (child = fork()) < 0)
		return -1;
	if (!child) {
		close(fds[0]);
		run_worker(fds[1]);
	}
	close(fds[1]);
	base = event_base_new();
	channel = ipc_channel_new(base, fds[0], IPC_SUPERVISOR, 0, IPC_ROUTER, on_message, on_ended, NULL);
	RUN_UNTIL(ready);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	int status;
	ipc_channel_free(channel);
	if (child > 0)
		waitpid(child, &status, 0);
	event_base_free(base);
	return 0;
}

static void ask(const char *size)
{
	unsigned before = replies;
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 1, .verb = size}, -1);
	RUN_UNTIL(replies > before);
}

static void large_replies_go_as_memfd(void **state)
{
	(void)state;
	ask("40000");
	assert_false(reply_by_memfd);
	assert_int_equal(reply_length, 40000);
	ask("65536");
	assert_true(reply_by_memfd);
	assert_int_equal(reply_length, 65536);
	ask("3000000");
	assert_int_equal(reply_length, 3000000);
}

static void counters_reach_telemetry(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	ipc_send(channel, IPC_MSG_PEER, &(struct ipc_peer){.role = IPC_TELEMETRY}, fds[1]);
	close(fds[1]);
	struct ipc_channel *telemetry = ipc_channel_new(base, fds[0], IPC_TELEMETRY, 0, IPC_ROUTER, on_message, on_ended,
	                                                NULL);
	RUN_UNTIL(questions);
	assert_int_equal(questions, 7);
	ipc_channel_free(telemetry);
}

static void prepare(uint64_t generation)
{
	const struct config config = {
		.node_name = (char *)(uintptr_t)"alice", .domain = (char *)(uintptr_t)"example.net",
		.log_level = (char *)(uintptr_t)"info",
		.identity = {.certificate = (char *)(uintptr_t)"a.crt", .key = (char *)(uintptr_t)"a.key"},
	};
	uint8_t *data = NULL;
	size_t length = 0;
	assert_int_equal(config_pack(&config, &data, &length), 0);
	int fd = memfd_sealed("test", data, length);
	free(data);
	prepared[0] = '\0';
	ipc_send(channel, IPC_MSG_CONFIG_PREPARE, &(struct ipc_config_prepare){.generation = generation, .tunnels = 1}, fd);
	close(fd);
	RUN_UNTIL(prepared[0]);
}

static void refusals_carry_a_reason(void **state)
{
	(void)state;
	prepare(1);
	assert_string_equal(prepared, "1 not this one");
	prepare(2);
	assert_string_equal(prepared, "2 refused");
	prepare(3);
	assert_string_equal(prepared, "3 ok");
}

static void drain_has_a_limit(void **state)
{
	(void)state;
	int status;
	ipc_send(channel, IPC_MSG_STOP, &(struct ipc_stop){50}, -1);      /* its stop callback never ends it */
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	child = 0;
}

/* --- wrong starts -------------------------------------------------------------------------------------------------- */

static int start_status(int argc, char **argv, bool supervised)
{
	int fds[2], status;
	assert_int_equal(ipc_pair(fds), 0);
	pid_t pid = fork();
	if (!pid) {
		if (supervised)
			dup2(fds[1], WORKER_SUPERVISOR_FD);
		else
			close(WORKER_SUPERVISOR_FD);
		close(STDERR_FILENO);
		alarm(30);
		worker_start(IPC_ROUTER, argc, argv, 0, &callbacks, NULL);
		_exit(77);
	}
	waitpid(pid, &status, 0);
	close(fds[0]);
	close(fds[1]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void wrong_starts_end_at_once(void **state)
{
	(void)state;
	char *good[] = {(char *)"x", (char *)"--index", (char *)"3", NULL};
	char *junk[] = {(char *)"x", (char *)"--index", (char *)"3x", NULL};
	char *far[] = {(char *)"x", (char *)"--index", (char *)"99999", NULL};
	char *unknown[] = {(char *)"x", (char *)"--verbose", NULL};
	assert_int_equal(start_status(3, good, true), 77);
	assert_int_equal(start_status(3, good, false), 1);
	assert_int_equal(start_status(3, junk, true), 1);
	assert_int_equal(start_status(3, far, true), 1);
	assert_int_equal(start_status(2, unknown, true), 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(large_replies_go_as_memfd), T(counters_reach_telemetry), T(refusals_carry_a_reason), T(drain_has_a_limit),
		cmocka_unit_test(wrong_starts_end_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
