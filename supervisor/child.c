#include "supervisor/child.h"
#include "ipc/log.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control.h"
#include "supervisor/dial.h"
#include "supervisor/links.h"
#include "supervisor/explain.h"
#include "supervisor/inquire.h"
#include "supervisor/pool.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"
#include "supervisor/tun_queues.h"
#include "supervisor/wanted.h"
#include "supervisor/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_LIMIT_MS 10000    /* from fork to READY */
#define ATTACH_LIMIT_MS 10000   /* from PREPARE to PREPARED, of a replacement */
#define STOP_GRACE_MS 1000      /* on top of the drain */
#define SEATS 16                /* of a place; policy and router know 1,024 numbers (ipc/worker.c) */

static const char *const state_names[] = {
	[CHILD_STARTING] = "starting", [CHILD_READY] = "ready",       [CHILD_PREPARING] = "preparing",
	[CHILD_SERVING] = "serving",   [CHILD_STOPPING] = "stopping", [CHILD_DEAD] = "dead",
};

const char *child_state_name(enum child_state state)
{
	return state_names[state];
}

void child_set_state(struct child *c, enum child_state state)
{
	log_debug("worker state", "worker=%s worker_pid=%d from=%s to=%s", c->slot->name, (int)c->pid,
	          state_names[c->state], state_names[state]);
	c->state = state;
	c->since = clock_ms();
	c->deadline = state == CHILD_STARTING    ? c->since + START_LIMIT_MS
	              : state == CHILD_PREPARING ? c->since + ATTACH_LIMIT_MS
	                                         : 0;
}

/* --- messages from the worker --------------------------------------------------------------------------------------- */

static void on_ready(struct child *c)
{
	if (c->state == CHILD_STOPPING)
		return;
	if (c->state != CHILD_STARTING) {
		child_kill(c, "it said ready twice");
		return;
	}
	watch_pong(c, 0);
	child_set_state(c, CHILD_READY);
	log_info("worker ready", "worker=%s worker_pid=%d start_ms=%llu", c->slot->name, (int)c->pid,
	         (unsigned long long)(clock_ms() - c->started));
	pool_child_ready(c);
}

static void on_prepared(struct child *c, const struct ipc_config_prepared *m)
{
	if (c->state == CHILD_STOPPING || c->state == CHILD_DEAD)
		return;
	if (!m->error)
		c->prepared = m->generation;
	if (c->state == CHILD_PREPARING)
		pool_child_prepared(c, m->generation, m->error);
	else
		change_prepared(c->supervisor->change, c, m->generation, m->error);
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct child *c = arg;
	struct supervisor *s = c->supervisor;
	(void)channel;
	switch (type) {
	case IPC_MSG_READY: on_ready(c); break;
	case IPC_MSG_PONG: watch_pong(c, m->pong.sequence); break;
	case IPC_MSG_CONFIG_PREPARED: on_prepared(c, &m->config_prepared); break;
	case IPC_MSG_CONFIG_COMPILED: change_compiled(s->change, c, &m->config_compiled, fd); break;
	case IPC_MSG_CONFIG_STORED: change_stored(s->change, c, &m->config_stored); break;
	case IPC_MSG_LINK_WANTED: links_wanted(c, &m->link_wanted); break;
	case IPC_MSG_DIAL: dial(s->dialer, c, &m->dial); break;
	case IPC_MSG_TUN_QUEUE: tun_queues_take(s->tun_queues, c, &m->tun_queue, fd); break;
	case IPC_MSG_TUN_ADDRESSES: tun_queues_addresses(s->tun_queues, c, &m->tun_addresses); break;
	case IPC_MSG_SOCKET_WANTED: tun_queues_socket_wanted(s->tun_queues, c, &m->socket_wanted); break;
	case IPC_MSG_SOCKET_MADE: tun_queues_socket_made(s->tun_queues, c, &m->socket_made, *fd); break;
	case IPC_MSG_DECISION: explain_decided(s->explain, &m->decision); break;
	case IPC_MSG_KEYS_CHANGED: supervisor_keys_changed(s, m->keys_changed.why); break;
	case IPC_MSG_CONFIG_WANTED: wanted_change(s->wanted, c, &m->config_wanted); break;
	case IPC_MSG_ADMIN_REQUEST: wanted_report(s->wanted, c, &m->admin_request); break;
	case IPC_MSG_ADMIN_REPLY:
		if (!inquire_replied(s->inquiries, c, &m->admin_reply, *fd))
			control_worker_replied(s->control, c, &m->admin_reply, *fd);
		break;
	default: break;          /* the channel lets nothing else through */
	}
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct child *c = arg;
	ipc_channel_free(channel);
	c->channel = NULL;
	if (strcmp(reason, "closed") == 0) {
		if (c->state == CHILD_STOPPING)
			c->deadline = clock_ms() + STOP_GRACE_MS;     /* it ends now, as it was told */
		else
			child_kill(c, "its channel closed");
		return;
	}
	log_error("worker lied", "worker=%s worker_pid=%d fault=%s", c->slot->name, (int)c->pid, log_value(reason));
	child_kill(c, reason);
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

struct child *child_start(struct supervisor *s, struct slot *slot, bool fresh, char *error, size_t size)
{
	int fd = -1, executable = -1;
	struct child *c = calloc(1, sizeof(*c));
	pid_t pid = c ? spawn_worker(&s->spawner, slot->role, slot->index, fresh, &fd, &executable) : -ENOMEM;
	if (pid < 0) {
		log_error("worker not started", "worker=%s error=%s", slot->name, log_value(strerror((int)-pid)));
		snprintf(error, size, "%s", strerror((int)-pid));
		free(c);
		return NULL;
	}
	*c = (struct child){
		.supervisor = s, .slot = slot, .pid = pid, .started = clock_ms(), .pong_at = clock_ms(), .executable = executable,
		.seat = slot->index + POOL_TUNNELS_MAX * (slot->incarnations++ % SEATS),
	};
	child_set_state(c, CHILD_STARTING);
	c->channel = ipc_channel_new(s->base, fd, IPC_SUPERVISOR, 0, slot->role, on_message, on_ended, c);
	log_info("worker started", "worker=%s worker_pid=%d", slot->name, (int)pid);
	return c;
}

/* The channel's descriptor is named; who saved goes on with it where the other image does not come up. */
void child_save(const struct child *c, struct state_child *out)
{
	*out = (struct state_child){
		.role = c->slot->role, .index = c->slot->index, .seat = c->seat, .pid = c->pid,
		.peer_pid = c->channel ? ipc_peer_pid(c->channel) : 0, .channel = c->channel ? ipc_channel_fd(c->channel) : -1,
		.state = state_names[c->state], .version = child_version(c), .current = c->slot->child == c,
		.generation = c->generation, .prepared = c->prepared, .started = c->started, .deadline = c->deadline,
		.stop_at = c->stop_at, .ping = c->ping,
	};
}

static enum child_state state_named(const char *name)
{
	for (unsigned i = 0; i < sizeof(state_names) / sizeof(*state_names); i++)
		if (strcmp(state_names[i], name) == 0)
			return (enum child_state)i;
	return CHILD_DEAD;
}

struct child *child_adopt(struct supervisor *s, struct slot *slot, const struct state_child *from)
{
	const struct ipc_adopted peer = {.role = slot->role, .index = slot->index, .pid = (unsigned)from->peer_pid, .version = from->version};
	struct child *c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct child){
		.supervisor = s, .slot = slot, .pid = (pid_t)from->pid, .started = from->started, .pong_at = clock_ms(),
		.state = state_named(from->state), .since = clock_ms(), .generation = from->generation, .prepared = from->prepared,
		.deadline = from->deadline, .stop_at = from->stop_at, .ping = from->ping, .seat = from->seat, .executable = -1,
	};
	if (from->channel >= 0 && fcntl(from->channel, F_GETFD) >= 0)
		c->channel = ipc_channel_adopt(s->base, from->channel, IPC_SUPERVISOR, &peer, on_message, on_ended, c);
	watch_pong(c, 0);             /* its silence until now is ours */
	if (c->channel || c->state == CHILD_STOPPING)
		return c;
	c->state = CHILD_DEAD;
	kill(c->pid, SIGKILL);
	return c;
}

void child_free(struct child *c)
{
	if (!c)
		return;
	if (c->channel)
		ipc_channel_free(c->channel);
	if (c->executable >= 0)
		close(c->executable);
	free(c);
}

const char *child_version(const struct child *c)
{
	return c->channel ? ipc_peer_version(c->channel) : "";
}

bool child_send(struct child *c, enum ipc_type type, const void *message, int fd)
{
	if (!c->channel || c->state == CHILD_DEAD)
		return false;
	int error = ipc_send(c->channel, type, message, fd);
	if (!error)
		return true;
	log_error("message not sent", "worker=%s message=%s error=%s", c->slot->name, ipc_type_name(type),
	          log_value(strerror(-error)));
	if (error == -ENOBUFS)
		child_kill(c, "it does not read its channel");
	return false;
}

void child_stop(struct child *c, unsigned drain_ms)
{
	if (c->state == CHILD_DEAD)
		return;
	child_set_state(c, CHILD_STOPPING);
	c->stop_at = 0;
	c->deadline = clock_ms() + drain_ms + STOP_GRACE_MS;
	child_send(c, IPC_MSG_STOP, &(struct ipc_stop){.drain_ms = drain_ms}, -1);
}

void child_retire(struct child *c, unsigned linger_ms)
{
	if (c->state == CHILD_DEAD)
		return;
	child_set_state(c, CHILD_STOPPING);
	c->stop_at = clock_ms() + linger_ms;
}

void child_kill(struct child *c, const char *why)
{
	if (c->state == CHILD_DEAD)
		return;
	bool stopping = c->state == CHILD_STOPPING;
	if (*why)
		snprintf(c->end, sizeof(c->end), "%s", why);
	if (c->channel)
		ipc_channel_free(c->channel);
	c->channel = NULL;
	child_set_state(c, CHILD_DEAD);
	kill(c->pid, SIGKILL);
	if (!stopping)
		pool_child_lost(c);
}
