#include "supervisor/dial.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/bind.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIAL_LIMIT_S 1
#define DIALS_MAX 64

struct attempt {
	struct dialer *dialer;
	struct child *child;      /* who asked; compared with who is there when the answer comes */
	pid_t pid;
	uint64_t id;
	int fd;
	struct event *event;
	LIST_ENTRY(attempt) link;
};

struct dialer {
	struct supervisor *supervisor;
	LIST_HEAD(, attempt) attempts;
	unsigned count;
};

struct dialer *dialer_new(struct supervisor *s)
{
	struct dialer *d = calloc(1, sizeof(*d));
	if (d)
		d->supervisor = s;
	return d;
}

static void attempt_free(struct attempt *a)
{
	LIST_REMOVE(a, link);
	a->dialer->count--;
	if (a->event)
		event_free(a->event);
	if (a->fd >= 0)
		close(a->fd);
	free(a);
}

void dialer_free(struct dialer *d)
{
	if (!d)
		return;
	for (struct attempt *a; (a = LIST_FIRST(&d->attempts));)
		attempt_free(a);
	free(d);
}

static void answer(struct child *child, uint64_t id, const char *error, int fd)
{
	if (error)
		log_debug("authorizer not reached", "error=%s", log_value(error));
	child_send(child, IPC_MSG_DIALED, &(struct ipc_dialed){.id = id, .error = error}, error ? -1 : fd);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct attempt *a = arg;
	int error = ETIMEDOUT;
	socklen_t size = sizeof(error);
	if (what & EV_WRITE && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
		error = errno;
	struct child *now = pool_find(a->dialer->supervisor->pool, IPC_POLICY, 0);
	if (now && now == a->child && now->pid == a->pid)
		answer(now, a->id, error ? strerror(error) : NULL, a->fd);
	attempt_free(a);
}

static void start(struct dialer *d, struct child *child, uint64_t id, const struct bind_address *to)
{
	struct timeval limit = {.tv_sec = DIAL_LIMIT_S};
	struct attempt *a = d->count < DIALS_MAX ? calloc(1, sizeof(*a)) : NULL;
	if (!a) {
		answer(child, id, "too many connections are being made", -1);
		return;
	}
	*a = (struct attempt){.dialer = d, .child = child, .pid = child->pid, .id = id};
	LIST_INSERT_HEAD(&d->attempts, a, link);
	d->count++;
	a->fd = socket(to->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd >= 0)
		privileges_own_socket(&d->supervisor->privileges, a->fd);
	/* a Unix socket whose queue is full says EAGAIN, and would never become writable for it */
	if (a->fd < 0 || (connect(a->fd, (const struct sockaddr *)&to->address, to->length) && errno != EINPROGRESS)) {
		answer(child, id, strerror(errno), -1);
		attempt_free(a);
		return;
	}
	a->event = event_new(d->supervisor->base, a->fd, EV_WRITE, on_connected, a);
	if (!a->event || event_add(a->event, &limit)) {
		answer(child, id, "out of memory", -1);
		attempt_free(a);
	}
}

/* policy runs in a sandbox because it may turn: what it can reach through us is what an administrator wrote. */
static bool configured(const struct supervisor *s, const char *address)
{
	const struct config *c = s->in_force.config;
	for (size_t i = 0; c && i < c->n_policies; i++)
		if (c->policies[i].authorizer.address && strcmp(c->policies[i].authorizer.address, address) == 0)
			return true;
	return false;
}

void dial(struct dialer *d, struct child *child, const struct ipc_dial *m)
{
	struct config_address address = {0};
	struct bind_address to;
	const char *why = NULL;
	char error[256];
	if (!m->address || !configured(d->supervisor, m->address)) {
		answer(child, m->id, "the configuration in force names no such authorizer", -1);
		return;
	}
	if (config_address_parse(m->address, true, NULL, &address, &why)) {
		answer(child, m->id, why ? why : "not an address", -1);
		return;
	}
	if (!address.unix_path && (!address.host || !*address.host))
		answer(child, m->id, "no host given", -1);
	else if (bind_resolve(&address, &to, error, sizeof(error)))
		answer(child, m->id, error, -1);
	else
		start(d, child, m->id, &to);
	config_address_clear(&address);
}
