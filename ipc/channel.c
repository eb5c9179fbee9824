/* Channels: what comes in is checked in the order of accept_datagram(), what goes out in ipc_send(). */
#include "ipc/channel.h"
#include "ipc/tables.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCKET_BUFFER (4 << 20)
#define QUEUE_MESSAGES 4096u
#define QUEUE_BYTES (16u << 20)
#define READS_PER_WAKEUP 64       /* then the other channels of the loop have their turn */
#define FDS_MAX 4                 /* room for more than is ever legal, so that what was sent too much can be closed */

/* One message that the socket did not take. */
struct queued {
	STAILQ_ENTRY(queued) link;
	int fd;                   /* our duplicate, or -1 */
	size_t length;
	uint8_t data[];
};

enum state { CHANNEL_GREETING, CHANNEL_OPEN, CHANNEL_ENDED };

struct ipc_channel {
	int fd;
	enum state state;
	enum ipc_role self, peer;
	uint32_t peer_index, peer_pid;
	char peer_version[32];
	struct event *read_event, *write_event;
	ipc_handler *handler;
	ipc_ended *ended;
	void *arg;
	STAILQ_HEAD(, queued) queue;
	unsigned queued;          /* messages */
	size_t backlog;           /* bytes */
	bool paused;
	bool busy, freed;         /* in a callback; freed meanwhile: memory goes when the callback returns */
};

/* What reading needs, large and needed only while a datagram is being handled: so a process has one, unless a handler
 * runs the loop from within, which then makes another. */
struct scratch {
	struct scratch *next;
	struct ipc_arena *arena;
	uint8_t data[IPC_MESSAGE_MAX];
};
static struct scratch *idle_scratch;

static struct scratch *scratch_take(void)
{
	struct scratch *s = idle_scratch;
	if (s) {
		idle_scratch = s->next;
		return s;
	}
	if (!(s = malloc(sizeof(*s))))
		return NULL;
	s->arena = ipc_arena_new();
	if (!s->arena) {
		free(s);
		return NULL;
	}
	return s;
}

static void scratch_give(struct scratch *s)
{
	s->next = idle_scratch;
	idle_scratch = s;
}

/* --- sockets ------------------------------------------------------------------------------------------------------- */

/* Above the system's maximum where we are privileged, else as far as it goes. */
static void raise_buffer(int fd, int force, int plain)
{
	int size = SOCKET_BUFFER;
	if (setsockopt(fd, SOL_SOCKET, force, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, plain, &size, sizeof(size));
}

int ipc_pair(int fds[2])
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
		return -errno;
	for (int i = 0; i < 2; i++) {
		raise_buffer(fds[i], SO_SNDBUFFORCE, SO_SNDBUF);
		raise_buffer(fds[i], SO_RCVBUFFORCE, SO_RCVBUF);
	}
	return 0;
}

/* 0 or -errno; -EAGAIN: later. */
static int send_datagram(int socket, const uint8_t *data, size_t length, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.space = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fd >= 0) {
		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	for (;;) {
		if (sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* Takes the descriptors out of a received message: the first stays in *fd, further ones are closed. Returns how many. */
static unsigned take_fds(struct msghdr *msg, int *fd)
{
	unsigned n = 0;
	*fd = -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
			int received;
			memcpy(&received, (char *)c + at, sizeof(int));
			if (n++)
				close(received);
			else
				*fd = received;
		}
	}
	return n;
}

/* --- the end ------------------------------------------------------------------------------------------------------- */

static void dequeue(struct ipc_channel *ch)
{
	struct queued *q = STAILQ_FIRST(&ch->queue);
	STAILQ_REMOVE_HEAD(&ch->queue, link);
	ch->queued--;
	ch->backlog -= q->length;
	if (q->fd >= 0)
		close(q->fd);
	free(q);
}

/* Silent from here on; safe to call twice. */
static void shut(struct ipc_channel *ch)
{
	ch->state = CHANNEL_ENDED;
	if (ch->read_event)
		event_free(ch->read_event);
	if (ch->write_event)
		event_free(ch->write_event);
	ch->read_event = ch->write_event = NULL;
	while (!STAILQ_EMPTY(&ch->queue))
		dequeue(ch);
	if (ch->fd >= 0)
		close(ch->fd);
	ch->fd = -1;
}

void ipc_channel_free(struct ipc_channel *ch)
{
	if (!ch)
		return;
	shut(ch);
	if (ch->busy)
		ch->freed = true;
	else
		free(ch);
}

/* Callers hold ch->busy, and let go of it through release(). */
static void end(struct ipc_channel *ch, const char *reason)
{
	if (ch->state == CHANNEL_ENDED)
		return;
	shut(ch);
	ch->ended(ch, reason, ch->arg);
}

static void release(struct ipc_channel *ch)
{
	ch->busy = false;
	if (ch->freed)
		free(ch);
}

static void end_lied(struct ipc_channel *ch, unsigned type, const char *fault)
{
	char reason[192];
	snprintf(reason, sizeof(reason), "%s (%u) from %s: %s", ipc_type_name(type), type, ipc_role_name(ch->peer),
	         fault);
	end(ch, reason);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static const char *check_fd(enum ipc_type type, unsigned fds)
{
	enum ipc_fd_rule rule = ipc_fd_rule(type);
	if (fds > 1)
		return "more than one descriptor";
	if (fds && rule == IPC_FD_NONE)
		return "a descriptor that it does not carry";
	if (!fds && rule == IPC_FD_ONE)
		return "without its descriptor";
	return NULL;
}

/* The schema's version is not compared: neighbouring releases understand each other. */
static const char *accept_hello(struct ipc_channel *ch, const struct ipc_hello *hello)
{
	static char text[96];
	if (hello->role != (uint32_t)ch->peer) {
		snprintf(text, sizeof(text), "it names %s", ipc_role_name(hello->role));
		return text;
	}
	ch->peer_index = hello->index;
	ch->peer_pid = hello->pid;
	snprintf(ch->peer_version, sizeof(ch->peer_version), "%s", hello->version ? hello->version : "");
	ch->state = CHANNEL_OPEN;
	return NULL;
}

/* Whether the type may come now from this peer, and with that many descriptors. */
static const char *check_message(const struct ipc_channel *ch, enum ipc_type type, unsigned fds)
{
	if (ch->state == CHANNEL_GREETING && type != IPC_MSG_HELLO)
		return "before hello";
	if (ch->state == CHANNEL_OPEN && type == IPC_MSG_HELLO)
		return "twice";
	if (!ipc_allowed(type, ch->peer, ch->self))
		return "not allowed from this role";
	return check_fd(type, fds);
}

static void accept_message(struct ipc_channel *ch, struct scratch *s, size_t length, unsigned fds, int *fd)
{
	union ipc_any message;
	const char *why = NULL;
	int type = ipc_decode(s->data, length, s->arena, &message, &why);
	if (type < 0) {
		end_lied(ch, ipc_peek_type(s->data, length), why);
		return;
	}
	why = check_message(ch, (enum ipc_type)type, fds);
	if (!why && type == IPC_MSG_HELLO)
		why = accept_hello(ch, &message.hello);
	else if (!why)
		ch->handler(ch, (enum ipc_type)type, &message, fd, ch->arg);
	if (why)
		end_lied(ch, (unsigned)type, why);
}

static void accept_datagram(struct ipc_channel *ch, struct scratch *s, struct msghdr *msg, size_t length)
{
	int fd;
	unsigned fds = take_fds(msg, &fd);
	if (msg->msg_flags & MSG_TRUNC)
		end_lied(ch, ipc_peek_type(s->data, IPC_MESSAGE_MAX), "over 64 KiB");
	else if (msg->msg_flags & MSG_CTRUNC)
		end_lied(ch, ipc_peek_type(s->data, length), "its descriptors did not fit");
	else if (!length)
		end(ch, "closed");
	else
		accept_message(ch, s, length, fds, &fd);
	if (fd >= 0)
		close(fd);
}

/* Returns whether there may be more. */
static bool read_datagram(struct ipc_channel *ch, struct scratch *s)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = s->data, .iov_len = sizeof(s->data)};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space),
	};
	ssize_t n = recvmsg(ch->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n >= 0) {
		accept_datagram(ch, s, &msg, (size_t)n);
		return ch->state != CHANNEL_ENDED && !ch->paused;
	}
	/* ECONNRESET comes once, before what the peer still sent, where it closed without reading all of ours. */
	if (errno == EINTR || errno == ECONNRESET)
		return true;
	if (errno != EAGAIN && errno != EWOULDBLOCK) {
		char reason[96];
		snprintf(reason, sizeof(reason), "recvmsg: %s", strerror(errno));
		end(ch, reason);
	}
	return false;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct ipc_channel *ch = arg;
	struct scratch *s = scratch_take();
	if (!s)
		return;           /* level-triggered: tried again */
	ch->busy = true;
	for (int i = 0; i < READS_PER_WAKEUP && read_datagram(ch, s); i++)
		;
	release(ch);
	scratch_give(s);
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

/* Errors that pass by themselves, but without the socket becoming writable for it. */
static bool scarce(int error)
{
	return error == -ENOBUFS || error == -ENOMEM || error == -ETOOMANYREFS;
}

static void on_writable(evutil_socket_t fd, short what, void *arg);

/* Has the queue tried again: when the socket is writable, or, where it was not the socket that refused, in a while. */
static int arm(struct ipc_channel *ch, int error)
{
	static const struct timeval soon = {.tv_usec = 10000};
	int fd = error == -EAGAIN ? ch->fd : -1;
	short what = error == -EAGAIN ? EV_WRITE : 0;
	event_del(ch->write_event);
	if (event_assign(ch->write_event, event_get_base(ch->write_event), fd, what, on_writable, ch))
		return -ENOBUFS;
	return event_add(ch->write_event, error == -EAGAIN ? NULL : &soon) ? -ENOBUFS : 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	struct ipc_channel *ch = arg;
	while (!STAILQ_EMPTY(&ch->queue)) {
		struct queued *q = STAILQ_FIRST(&ch->queue);
		int error = send_datagram(ch->fd, q->data, q->length, q->fd);
		if (error == -EAGAIN || scarce(error)) {
			arm(ch, error);
			return;
		}
		dequeue(ch);      /* sent, or the peer is gone, which reading will tell */
	}
}

static int enqueue(struct ipc_channel *ch, const uint8_t *data, size_t length, int fd, int error)
{
	if (ch->queued >= QUEUE_MESSAGES || ch->backlog + length > QUEUE_BYTES)
		return -ENOBUFS;
	struct queued *q = malloc(sizeof(*q) + length);
	if (!q)
		return -ENOBUFS;
	q->fd = -1;
	if (fd >= 0 && (q->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0) {
		free(q);
		return -ENOBUFS;
	}
	q->length = length;
	memcpy(q->data, data, length);
	bool first = STAILQ_EMPTY(&ch->queue);
	STAILQ_INSERT_TAIL(&ch->queue, q, link);
	ch->queued++;
	ch->backlog += length;
	return first ? arm(ch, error) : 0;
}

int ipc_send(struct ipc_channel *ch, enum ipc_type type, const void *message, int fd)
{
	static uint8_t buffer[IPC_MESSAGE_MAX];
	assert(ipc_allowed(type, ch->self, ch->peer));
	assert(!check_fd(type, fd >= 0));
	if (ch->state == CHANNEL_ENDED)
		return 0;         /* as for a peer that died with our message unread */
	int length = ipc_encode(type, message, buffer, sizeof(buffer));
	if (length < 0)
		return length;
	int error = -EAGAIN;
	if (STAILQ_EMPTY(&ch->queue)) {
		error = send_datagram(ch->fd, buffer, (size_t)length, fd);
		if (error == -EMSGSIZE)
			return error;
		if (error != -EAGAIN && !scarce(error))
			return 0;
	}
	return enqueue(ch, buffer, (size_t)length, fd, error);
}

/* --- the rest ------------------------------------------------------------------------------------------------------ */

static struct ipc_channel *make(struct event_base *base, int fd, enum ipc_role self, enum ipc_role peer, ipc_handler *handler,
                                ipc_ended *ended, void *arg)
{
	struct ipc_channel *ch = calloc(1, sizeof(*ch));
	if (!ch) {
		close(fd);
		return NULL;
	}
	*ch = (struct ipc_channel){
		.fd = fd, .self = self, .peer = peer, .handler = handler, .ended = ended, .arg = arg,
		.queue = STAILQ_HEAD_INITIALIZER(ch->queue),
	};
	evutil_make_socket_nonblocking(fd);
	raise_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	ch->read_event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, ch);
	ch->write_event = event_new(base, fd, EV_WRITE, on_writable, ch);
	if (ch->read_event && ch->write_event && !event_add(ch->read_event, NULL))
		return ch;
	ipc_channel_free(ch);
	return NULL;
}

struct ipc_channel *ipc_channel_new(struct event_base *base, int fd, enum ipc_role self, unsigned self_index,
                                    enum ipc_role peer, ipc_handler *handler, ipc_ended *ended, void *arg)
{
	struct ipc_channel *ch = make(base, fd, self, peer, handler, ended, arg);
	struct ipc_hello hello = {
		.schema = IPC_SCHEMA, .version = HERMES_VERSION, .role = self, .index = self_index,
		.pid = (uint32_t)getpid(),
	};
	if (!ch)
		return NULL;
	evutil_make_socket_closeonexec(fd);
	if (!ipc_send(ch, IPC_MSG_HELLO, &hello, -1))
		return ch;
	ipc_channel_free(ch);
	return NULL;
}

struct ipc_channel *ipc_channel_adopt(struct event_base *base, int fd, enum ipc_role self, const struct ipc_adopted *peer,
                                      ipc_handler *handler, ipc_ended *ended, void *arg)
{
	struct ipc_channel *ch = make(base, fd, self, peer->role, handler, ended, arg);
	if (!ch)
		return NULL;
	ch->state = CHANNEL_OPEN;
	ch->peer_index = peer->index;
	ch->peer_pid = peer->pid;
	snprintf(ch->peer_version, sizeof(ch->peer_version), "%s", peer->version ? peer->version : "");
	return ch;
}

int ipc_channel_fd(const struct ipc_channel *ch)
{
	return ch->fd;
}

unsigned ipc_peer_index(const struct ipc_channel *ch)
{
	return ch->peer_index;
}

enum ipc_role ipc_peer_role(const struct ipc_channel *ch)
{
	return ch->peer;
}

unsigned ipc_peer_pid(const struct ipc_channel *ch)
{
	return ch->peer_pid;
}

const char *ipc_peer_version(const struct ipc_channel *ch)
{
	return ch->peer_version;
}

size_t ipc_backlog(const struct ipc_channel *ch)
{
	return ch->backlog;
}

void ipc_pause(struct ipc_channel *ch, bool pause)
{
	if (ch->state == CHANNEL_ENDED || ch->paused == pause)
		return;
	ch->paused = pause;
	if (pause)
		event_del(ch->read_event);
	else
		event_add(ch->read_event, NULL);
}
