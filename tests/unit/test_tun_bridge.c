/* The worker's checklist (ipc/worker.h), on the real tun-bridge in a process of its own: this test is its supervisor. */
#include "ipc/memfd.h"
#include "store/config.h"
#include "workers/tun-bridge/tun_bridge.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct event_base *base;
static struct ipc_channel *channel;
static pid_t child;
static char got[4096];                /* every message, as text */
static int held[8];                   /* queues' descriptors */
static unsigned n_held;

static void on_message(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	char line[256];
	(void)ch;
	(void)arg;
	snprintf(line, sizeof(line), "%s;", ipc_type_name(type));
	if (type == IPC_MSG_PONG)
		snprintf(line, sizeof(line), "pong %d;", (int)m->pong.sequence);
	if (type == IPC_MSG_CONFIG_PREPARED)
		snprintf(line, sizeof(line), "prepared %d %s;", (int)m->config_prepared.generation,
		         m->config_prepared.error ? m->config_prepared.error : "ok");
	if (type == IPC_MSG_TUN_QUEUE) {
		snprintf(line, sizeof(line), "queue %s %u of %u;", m->tun_queue.device, m->tun_queue.queue, m->tun_queue.queues);
		if (n_held < 8) {
			held[n_held++] = *fd;
			*fd = -1;
		}
	}
	if (type == IPC_MSG_ADMIN_REPLY)
		snprintf(line, sizeof(line), "reply %d status %u json [%s] error [%s] fd %d;", (int)m->admin_reply.id,
		         m->admin_reply.status, m->admin_reply.json ? m->admin_reply.json : "-",
		         m->admin_reply.error ? m->admin_reply.error : "-", *fd >= 0);
	strncat(got, line, sizeof(got) - strlen(got) - 1);
}

static void on_ended(struct ipc_channel *ch, const char *reason, void *arg)
{
	(void)arg;
	strncat(got, "ended ", sizeof(got) - strlen(got) - 1);
	strncat(got, reason, sizeof(got) - strlen(got) - 1);
	ipc_channel_free(ch);
	channel = NULL;
}

static void run_worker(int fd)
{
	char *argv[] = {(char *)"hermes-tun-bridge", (char *)"--index", (char *)"4", NULL};
	alarm(60);
	if (fd != WORKER_SUPERVISOR_FD) {
		dup2(fd, WORKER_SUPERVISOR_FD);
		close(fd);
	}
	struct tun_bridge *bridge = tun_bridge_new();
	struct worker *worker = worker_start(IPC_TUN_BRIDGE, 3, argv, 0, &tun_bridge_callbacks, bridge);
	tun_bridge_use(bridge, worker);
	int status = worker_run(worker);
	tun_bridge_free(bridge);
	_exit(status);
}

static void wait_for(const char *part)
{
	const struct timeval tick = {.tv_usec = 20000};
	for (int i = 0; i < 500 && !strstr(got, part); i++) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
	if (!strstr(got, part))
		fail_msg("\"%s\" lacks \"%s\"", got, part);
}

static int set_up(void **state)
{
	(void)state;
	int fds[2];
	got[0] = '\0';
	setenv("HERMES_LOG_LEVEL", "error", 1);
	if (ipc_pair(fds))
		return -1;
	child = fork();
	if (!child) {
		close(fds[0]);
		run_worker(fds[1]);
	}
	close(fds[1]);
	base = event_base_new();
	channel = ipc_channel_new(base, fds[0], IPC_SUPERVISOR, 0, IPC_TUN_BRIDGE, on_message, on_ended, NULL);
	wait_for("ready;");
	return 0;
}

static int status_of_child(void)
{
	int status = -1;
	assert_int_equal(waitpid(child, &status, 0), child);
	child = 0;
	return status;
}

static int tear_down(void **state)
{
	(void)state;
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	ipc_channel_free(channel);
	channel = NULL;
	event_base_free(base);
	return 0;
}

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

static void prepare(uint64_t generation, int fd)
{
	ipc_send(channel, IPC_MSG_CONFIG_PREPARE, &(struct ipc_config_prepare){.generation = generation, .tunnels = 1}, fd);
	close(fd);
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

/* --- devices: in a network namespace of our own, which the worker inherits ------------------------------------------ */

static int set_up_alone(void **state)
{
	if (geteuid() || unshare(CLONE_NEWNET))
		return 0;
	return set_up(state);
}

static int compiled_device(void)
{
	char *addresses[] = {(char *)(uintptr_t)"10.8.0.2/24", (char *)(uintptr_t)"fd00::2/64"};
	struct config_network network = {.prefix = {.bits = 104}};
	config_prefix_parse("10.0.0.0/8", &network.prefix, &(const char *){NULL});
	struct config_tunnel tunnel = {
		.name = (char *)(uintptr_t)"hermes0", .addresses = {addresses, 2}, .mtu = 1400, .queues = 2, .offload = true,
		.networks = &network, .n_networks = 1,
	};
	const struct config config = {
		.node_name = (char *)(uintptr_t)"alice", .domain = (char *)(uintptr_t)"example.net",
		.log_level = (char *)(uintptr_t)"info", .tunnels = &tunnel, .n_tunnels = 1,
	};
	uint8_t *data = NULL;
	size_t length = 0;
	assert_int_equal(config_pack(&config, &data, &length), 0);
	int fd = memfd_sealed("test", data, length);
	free(data);
	return fd;
}

static void makes_a_device(void **state)
{
	(void)state;
	if (!channel)
		skip();
	prepare(1, compiled_device());
	wait_for("prepared 1 ");
	ipc_send(channel, IPC_MSG_CONFIG_COMMIT, &(struct ipc_config_commit){1}, -1);
	ipc_send(channel, IPC_MSG_PING, &(struct ipc_ping){5}, -1);
	wait_for("pong 5;");
	assert_int_equal(system("ip addr show dev hermes0 | grep -q 10.8.0.2/24"), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(answers_pings), T(stops_at_once), T(ends_with_the_supervisor), T(leaves_a_liar),
		T(terminal_signals_do_nothing), T(lists_no_tunnels), T(takes_configurations),
		T(refuses_what_is_no_configuration), T(ignores_peers),
		cmocka_unit_test_setup_teardown(makes_a_device, set_up_alone, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
