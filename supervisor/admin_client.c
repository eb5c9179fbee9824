#include "supervisor/admin_client.h"
#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "supervisor/clock.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define REPLY_MAX (96u << 20)
#define RETRY_US 100000

struct admin_client {
	struct event_base *base;
	struct ipc_channel *channel;
	uint64_t id;
	bool done, ended;
	char reason[160];             /* why it ended */
	struct admin_reply *reply;
};

void admin_reply_clear(struct admin_reply *r)
{
	free(r->json);
	free(r->error);
	*r = (struct admin_reply){0};
}

static void fail(struct admin_reply *r, const char *why)
{
	admin_reply_clear(r);
	r->status = 1;
	r->error = strdup(why);
}

static char *read_memfd(int fd)
{
	const void *data;
	size_t length;
	if (memfd_map(fd, REPLY_MAX, &data, &length))
		return NULL;
	char *text = length ? strndup(data, length) : strdup("");
	memfd_unmap(data, length);
	return text;
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct admin_client *c = arg;
	(void)channel;
	if (type != IPC_MSG_ADMIN_REPLY || m->admin_reply.id != c->id || !c->reply)
		return;
	const struct ipc_admin_reply *from = &m->admin_reply;
	*c->reply = (struct admin_reply){.status = from->status};
	if (*fd >= 0)
		c->reply->json = read_memfd(*fd);
	else if (from->json && *from->json)
		c->reply->json = strdup(from->json);
	if (from->error)
		c->reply->error = strdup(from->error);
	if (*fd >= 0 && !c->reply->json)
		fail(c->reply, "the answer could not be read");
	c->done = true;
	event_base_loopbreak(c->base);
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct admin_client *c = arg;
	snprintf(c->reason, sizeof(c->reason), "%s", reason);
	ipc_channel_free(channel);
	c->channel = NULL;
	c->ended = true;
	event_base_loopbreak(c->base);
}

static int try_connect(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return fd;
	int error = errno;
	if (fd >= 0)
		close(fd);
	return -error;
}

static const char *advice(int error)
{
	switch (error) {
	case ENOENT: return "is hermesd running? -s names another socket";
	case ECONNREFUSED: return "hermesd is not running any more";
	case EACCES: return "you may not: root and the group hermes may";
	case EPROTOTYPE: return "this is not hermesd's admin socket";
	default: return "try again";
	}
}

struct admin_client *admin_connect(const char *path, unsigned wait_ms, char *error, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	uint64_t until = clock_ms() + wait_ms;
	int fd;
	if (strlen(path) >= sizeof(address.sun_path)) {
		snprintf(error, size, "%s: longer than a socket's path may be", path);
		return NULL;
	}
	strcpy(address.sun_path, path);
	while ((fd = try_connect(&address)) < 0 && clock_ms() < until && fd != -EACCES)
		usleep(RETRY_US);
	if (fd < 0) {
		snprintf(error, size, "cannot reach hermesd at %s: %s; %s", path, strerror(-fd), advice(-fd));
		return NULL;
	}
	struct admin_client *c = calloc(1, sizeof(*c));
	if (c && (c->base = event_base_new()))
		c->channel = ipc_channel_new(c->base, fd, IPC_ADMIN, 0, IPC_SUPERVISOR, on_message, on_ended, c);
	else
		close(fd);
	if (!c || !c->channel) {
		snprintf(error, size, "out of memory");
		admin_close(c);
		return NULL;
	}
	return c;
}

void admin_close(struct admin_client *c)
{
	if (!c)
		return;
	if (c->channel)
		ipc_channel_free(c->channel);
	if (c->base)
		event_base_free(c->base);
	free(c);
}

static void run_for(struct admin_client *c, unsigned ms, const bool *until)
{
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
	if (*until || c->ended)
		return;
	event_base_loopexit(c->base, &limit);
	event_base_dispatch(c->base);
}

void admin_ask(struct admin_client *c, const char *verb, const struct ipc_strs *args, int fd, unsigned timeout_ms,
               struct admin_reply *reply)
{
	struct ipc_admin_request m = {.id = ++c->id, .verb = verb, .args = *args};
	*reply = (struct admin_reply){0};
	c->reply = reply;
	c->done = false;
	int error = c->channel ? ipc_send(c->channel, IPC_MSG_ADMIN_REQUEST, &m, fd) : 0;
	if (error)
		fail(reply, error == -EMSGSIZE ? "the request is too long" : strerror(-error));
	else
		run_for(c, timeout_ms, &c->done);
	c->reply = NULL;
	if (c->done || error)
		return;
	char why[256];
	if (c->ended)
		snprintf(why, sizeof(why), "hermesd ended the connection (%s): its log says why", c->reason);
	else
		snprintf(why, sizeof(why), "no answer within %u s: hermesd may be stuck, its log says more", timeout_ms / 1000);
	fail(reply, why);
}

bool admin_wait_end(struct admin_client *c, unsigned timeout_ms)
{
	run_for(c, timeout_ms, &c->ended);
	return c->ended;
}
