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
#include <sys/un.h>
#include <unistd.h>

#define DIAL_LIMIT_S 1
#define DIALS_MAX 64

struct attempt {
	struct dialer *dialer;
	pid_t pid;                /* who asked */
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

bool dialer_idle(const struct dialer *d)
{
	return !d->count;
}

static void answer(struct child *child, uint64_t id, const char *error, int fd)
{
	if (error)
		log_debug("not dialled", "worker=%s error=%s", child->slot->name, log_value(error));
	child_send(child, IPC_MSG_DIALED, &(struct ipc_dialed){.id = id, .error = error}, error ? -1 : fd);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct attempt *a = arg;
	int error = ETIMEDOUT;
	socklen_t size = sizeof(error);
	if (what & EV_WRITE && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
		error = errno;
	struct child *asker = pool_find_pid(a->dialer->supervisor->pool, a->pid);
	if (asker)
		answer(asker, a->id, error ? strerror(error) : NULL, a->fd);
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
	*a = (struct attempt){.dialer = d, .pid = child->pid, .id = id};
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

static bool names_authorizer(const struct config *c, const char *address)
{
	for (size_t i = 0; i < c->n_policies; i++)
		if (c->policies[i].authorizer.address && strcmp(c->policies[i].authorizer.address, address) == 0)
			return true;
	return false;
}

static bool names_store(const struct config *c, const char *address)
{
	for (size_t i = 0; i < c->controller.etcd.n; i++)
		if (strcmp(c->controller.etcd.v[i], address) == 0)
			return true;
	return false;
}

/* Workers run in a sandbox because they may turn: what they can reach through us is what an administrator wrote. */
static bool configured(const struct supervisor *s, enum ipc_role role, const char *address)
{
	const struct config *c = s->in_force.config;
	if (!c || !address)
		return false;
	if (role == IPC_CONFIG_SYNC)
		return strcmp(address, "control") == 0 && c->control.n_endpoints;
	return role == IPC_CONTROLLER ? names_store(c, address) : role == IPC_POLICY && names_authorizer(c, address);
}

/* config-sync's way to the controllers: the listener CONFIG_CONTROL of our own tunnel workers. */
static int resolve_control(const struct supervisor *s, struct bind_address *to, char *error, size_t size)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	if (snprintf(path, sizeof(path), "%s/control.sock", s->options->runtime_dir) >= (int)sizeof(path)) {
		snprintf(error, size, "the runtime folder's path is too long");
		return -1;
	}
	return bind_resolve(&(struct config_address){.unix_path = path}, to, error, size);
}

static int resolve(const struct supervisor *s, enum ipc_role role, const char *text, struct bind_address *to, char *error, size_t size)
{
	struct config_address address = {0};
	const char *why = NULL;
	if (role == IPC_CONFIG_SYNC)
		return resolve_control(s, to, error, size);
	if (config_address_parse(text, true, NULL, &address, &why)) {
		snprintf(error, size, "%s", why ? why : "not an address");
		return -1;
	}
	int result = -1;
	if (!address.unix_path && (!address.host || !*address.host))
		snprintf(error, size, "no host given");
	else
		result = bind_resolve(&address, to, error, size);
	config_address_clear(&address);
	return result;
}

void dial(struct dialer *d, struct child *child, const struct ipc_dial *m)
{
	enum ipc_role role = child->slot->role;
	struct bind_address to;
	char error[256];
	if (!configured(d->supervisor, role, m->address))
		answer(child, m->id, role == IPC_POLICY ? "the configuration in force names no such authorizer" :
		       "the configuration in force names no such address", -1);
	else if (resolve(d->supervisor, role, m->address, &to, error, sizeof(error)))
		answer(child, m->id, error, -1);
	else
		start(d, child, m->id, &to);
}
