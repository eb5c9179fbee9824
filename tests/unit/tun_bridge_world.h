/* What test_tun_bridge.c and test_tun_bridge_net.c stand on: the real tun-bridge in a process of its own, whose supervisor the test
 * is. Included once, after cmocka.h. */
#ifndef HERMES_TESTS_TUN_BRIDGE_WORLD_H
#define HERMES_TESTS_TUN_BRIDGE_WORLD_H

#include "ipc/memfd.h"
#include "store/config.h"
#include "workers/tun-bridge/tun_bridge.h"

#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct event_base *base;
static struct ipc_channel *channel;
static pid_t child;
static char got[16384];               /* every message, as text */
static struct { char device[16]; int fd; unsigned queues; uint32_t offload; } held[8];   /* as the supervisor keeps them */
static unsigned n_held;
static int made = -1;                 /* the last socket */

static void on_message(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	char line[4096];
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
		if (n_held < 8 && *fd >= 0) {
			snprintf(held[n_held].device, sizeof(held->device), "%s", m->tun_queue.device);
			held[n_held].queues = m->tun_queue.queues;
			held[n_held].offload = m->tun_queue.offload;
			held[n_held++].fd = *fd;
			*fd = -1;
		}
	}
	if (type == IPC_MSG_SOCKET_MADE) {
		snprintf(line, sizeof(line), "socket %d for %u: %s;", (int)m->socket_made.id, m->socket_made.tunnel,
		         m->socket_made.error ? m->socket_made.error : "made");
		made = *fd;
		*fd = -1;
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
	static bool alone;
	int fds[2];
	/* what it does to routes and rules, it does in a network namespace that is the test's own */
	if (!alone && geteuid() == 0)
		alone = unshare(CLONE_NEWNET) == 0 && system("ip link set lo up") == 0;
	setenv("HERMES_NET_SLOT", "0", 1);
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
	while (n_held)
		close(held[--n_held].fd);
	return 0;
}

static void prepare(uint64_t generation, int fd)
{
	ipc_send(channel, IPC_MSG_CONFIG_PREPARE, &(struct ipc_config_prepare){.generation = generation, .tunnels = 1}, fd);
	close(fd);
}

#endif
