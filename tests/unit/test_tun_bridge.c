/* The worker's checklist (ipc/worker.h), on the real tun-bridge in a process of its own: this test is its supervisor. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/tun_bridge_world.h"

static void answers_pings(void **state)
{
	(void)state;
	assert_int_equal(ipc_peer_index(channel), 4);
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){17}, -1);
	wait_for("pong 17;");
}

static void stops_at_once(void **state)
{
	(void)state;
	ipc_send(channel, IPC_MSG_STOP, &(struct ipc_stop){10000}, -1);
	assert_int_equal(status_of_child(), 0);
}

static void ends_with_the_supervisor(void **state)
{
	(void)state;
	ipc_channel_free(channel);
	channel = NULL;
	assert_int_equal(status_of_child(), 0);
}

static void leaves_a_liar(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	child = (tear_down(state), base = event_base_new(), fork());
	if (!child) {
		close(fds[0]);
		run_worker(fds[1]);
	}
	close(fds[1]);
	assert_int_equal(send(fds[0], "junk", 4, 0), 4);
	assert_int_equal(status_of_child(), 0);
	close(fds[0]);
}

static void terminal_signals_do_nothing(void **state)
{
	(void)state;
	kill(child, SIGINT);
	kill(child, SIGHUP);
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){1}, -1);
	wait_for("pong 1;");
}

static void lists_no_tunnels(void **state)
{
	(void)state;
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 5, .verb = "tunnels list"}, -1);
	wait_for("reply 5 status 0 json [] error [-] fd 0;");
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 6, .verb = "dance"}, -1);
	wait_for("reply 6 status 2 json [-]");
	ipc_send(channel, IPC_MSG_ADMIN_REQUEST, &(struct ipc_admin_request){.id = 7}, -1);
	wait_for("reply 7 status 2");
}

static int compiled(void)
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
	return fd;
}

static void takes_configurations(void **state)
{
	(void)state;
	prepare(1, compiled());
	wait_for("prepared 1 ok;");
	prepare(2, compiled());           /* the first was never decided */
	wait_for("prepared 2 ok;");
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){1}, -1);     /* no longer prepared: ignored */
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){2}, -1);
	prepare(3, compiled());
	ipc_send(channel, IPC_MSG_CONFIG_ABORT, &(struct ipc_config_abort){3}, -1);
	ipc_send(channel, IPC_MSG_CONFIG_ABORT, &(struct ipc_config_abort){3}, -1);
	prepare(4, compiled());
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){4}, -1);
	wait_for("prepared 4 ok;");
	ipc_send(channel, IPC_MSG_STOP, &(struct ipc_stop){0}, -1);
	assert_int_equal(status_of_child(), 0);
}

static void refuses_what_is_no_configuration(void **state)
{
	(void)state;
	prepare(8, memfd_sealed("test", "junk", 4));
	wait_for("prepared 8 the compiled configuration could not be read;");
	prepare(9, open("/dev/null", O_RDONLY));
	wait_for("prepared 9 the compiled");
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){2}, -1);
	wait_for("pong 2;");
}

static void ignores_peers(void **state)
{
	(void)state;
	int fds[2];
	char byte;
	assert_int_equal(ipc_pair(fds), 0);
	ipc_send(channel, IPC_MSG_PEER, &(struct ipc_peer){.role = IPC_TELEMETRY}, fds[1]);
	ipc_send(channel, IPC_MSG_PEER, &(struct ipc_peer){.role = 99}, fds[1]);
	close(fds[1]);
	ipc_send(channel, IPC_MSG_LOG_LEVEL, &(struct ipc_log_level){"error"}, -1);
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){3}, -1);
	wait_for("pong 3;");
	assert_int_equal(recv(fds[0], &byte, 1, 0), 0);   /* closed, not kept */
	close(fds[0]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(answers_pings), T(stops_at_once), T(ends_with_the_supervisor), T(leaves_a_liar),
		T(terminal_signals_do_nothing), T(lists_no_tunnels), T(takes_configurations),
		T(refuses_what_is_no_configuration), T(ignores_peers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
