/* Channels: order, descriptors, back-pressure, and what a lying peer gets. */
#include "ipc/channel.h"

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct end {
	struct ipc_channel *channel;
	unsigned messages;
	enum ipc_type last;
	uint64_t sequence;        /* of the last ping or pong */
	int fd;                   /* taken, or -1 */
	char reason[160];         /* why it ended; empty while it lives */
	bool take_fd, free_in_handler, keep_at_end;
};

static struct event_base *base;
static struct end a, b;       /* supervisor and worker */

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct end *end = arg;
	end->messages++;
	end->last = type;
	if (type == IPC_MSG_PING || type == IPC_MSG_PONG)
		end->sequence = type == IPC_MSG_PING ? m->ping.sequence : m->pong.sequence;
	if (end->take_fd && *fd >= 0) {
		end->fd = *fd;
		*fd = -1;
	}
	if (end->free_in_handler) {
		ipc_channel_free(channel);
		end->channel = NULL;
	}
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct end *end = arg;
	snprintf(end->reason, sizeof(end->reason), "%s", reason);
	if (!end->keep_at_end) {
		ipc_channel_free(channel);
		end->channel = NULL;
	}
}

static int count_fds(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int fds_before;

static int set_up(void **state)
{
	(void)state;
	fds_before = count_fds();
	a = b = (struct end){.fd = -1};
	return (base = event_base_new()) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	ipc_channel_free(a.channel);
	ipc_channel_free(b.channel);
	if (b.fd >= 0)
		close(b.fd);
	event_base_free(base);
	return count_fds() == fds_before ? 0 : -1;    /* whatever a test did, no descriptor stays */
}

/* Everything that is ready, until nothing is. */
static void run(void)
{
	for (int i = 0; i < 50; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static struct ipc_channel *open_end(struct end *end, int fd, enum ipc_role self, enum ipc_role peer)
{
	end->channel = ipc_channel_new(base, fd, self, 7, peer, on_message, on_ended, end);
	assert_non_null(end->channel);
	return end->channel;
}

static void open_both(void)
{
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	open_end(&a, fds[0], IPC_SUPERVISOR, IPC_TUNNEL);
	open_end(&b, fds[1], IPC_TUNNEL, IPC_SUPERVISOR);
	run();
}

/* The channel under test is b; the returned descriptor is a liar's end in the supervisor's place. */
static int open_raw(void)
{
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	open_end(&b, fds[1], IPC_TUNNEL, IPC_SUPERVISOR);
	return fds[0];
}

static void send_raw(int fd, const void *data, size_t length, const int *fds, unsigned n)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(8 * sizeof(int))]; } control = {.space = {0}};
	struct iovec iov = {(void *)(uintptr_t)data, length};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	if (n) {
		msg.msg_control = control.space;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		control.h.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.h), fds, n * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &msg, 0), length);
}

static void send_message(int fd, enum ipc_type type, const void *message, const int *fds, unsigned n)
{
	uint8_t data[1024];
	int length = ipc_encode(type, message, data, sizeof(data));
	assert_true(length > 0);
	send_raw(fd, data, (size_t)length, fds, n);
}

static void greet(int fd)
{
	send_message(fd, IPC_MSG_HELLO, &(struct ipc_hello){.schema = 99, .role = IPC_SUPERVISOR, .pid = 5}, NULL, 0);
}

/* The liar's end closes; b must have ended, naming what it should. */
static void expect_end(int fd, const char *part)
{
	run();
	close(fd);
	if (!strstr(b.reason, part))
		fail_msg("ended with \"%s\", expected \"%s\"", b.reason, part);
	assert_null(b.channel);
}

/* --- what should be ------------------------------------------------------------------------------------------------ */

static void hello_introduces(void **state)
{
	(void)state;
	open_both();
	assert_int_equal(ipc_peer_role(a.channel), IPC_TUNNEL);
	assert_int_equal(ipc_peer_index(a.channel), 7);
	assert_int_equal(ipc_peer_pid(b.channel), getpid());
	assert_int_equal(a.messages, 0);      /* handlers never see it */
}

static void messages_arrive_in_order(void **state)
{
	(void)state;
	open_both();
	for (uint64_t i = 1; i <= 200; i++) {
		assert_int_equal(ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){i}, -1), 0);
		run();
		assert_int_equal(b.sequence, i);
	}
	assert_int_equal(b.messages, 200);
}

static void schemas_may_differ(void **state)
{
	(void)state;
	int fd = open_raw();
	greet(fd);
	send_message(fd, IPC_MSG_PING, &(struct ipc_ping){3}, NULL, 0);
	run();
	assert_int_equal(b.sequence, 3);
	assert_string_equal(b.reason, "");
	close(fd);
	run();
	assert_string_equal(b.reason, "closed");
}

static bool same_file(int x, int y)
{
	struct stat s, t;
	assert_int_equal(fstat(x, &s), 0);
	assert_int_equal(fstat(y, &t), 0);
	return s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

static void descriptor_is_handed_over(void **state)
{
	(void)state;
	int pipes[2];
	open_both();
	b.take_fd = true;
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(ipc_send(a.channel, IPC_MSG_PEER, &(struct ipc_peer){.role = IPC_ROUTER}, pipes[0]), 0);
	run();
	assert_true(b.fd >= 0 && b.fd != pipes[0]);
	assert_true(same_file(b.fd, pipes[0]));
	assert_true(fcntl(b.fd, F_GETFD) & FD_CLOEXEC);
	close(pipes[0]);
	close(pipes[1]);
}

static void descriptor_left_is_closed(void **state)
{
	(void)state;
	int pipes[2];
	open_both();
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(ipc_send(a.channel, IPC_MSG_PEER, &(struct ipc_peer){0}, pipes[0]), 0);
	close(pipes[0]);
	run();
	assert_int_equal(b.messages, 1);
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(write(pipes[1], "x", 1), -1);        /* nobody holds the reading end any more */
	close(pipes[1]);
}

static void handler_may_free(void **state)
{
	(void)state;
	open_both();
	b.free_in_handler = true;
	for (int i = 0; i < 3; i++)
		ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){1}, -1);
	run();
	assert_int_equal(b.messages, 1);
	assert_string_equal(a.reason, "closed");
}

static void last_words_are_heard(void **state)
{
	(void)state;
	open_both();
	ipc_send(b.channel, IPC_MSG_PONG, &(struct ipc_pong){8}, -1);
	ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){9}, -1);     /* unread when b closes: ECONNRESET at a */
	ipc_channel_free(b.channel);
	b.channel = NULL;
	a.keep_at_end = true;
	run();
	assert_int_equal(a.sequence, 8);
	assert_string_equal(a.reason, "closed");
	assert_int_equal(ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){1}, -1), 0);    /* silent, not fatal */
}

static void pause_reads_nothing(void **state)
{
	(void)state;
	open_both();
	ipc_pause(b.channel, true);
	ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){1}, -1);
	run();
	assert_int_equal(b.messages, 0);
	ipc_pause(b.channel, false);
	run();
	assert_int_equal(b.messages, 1);
}

/* --- back-pressure ------------------------------------------------------------------------------------------------- */

static void queue_is_bounded_and_drains(void **state)
{
	(void)state;
	char *json = malloc(60001);
	int result = 0, sent = 0, pipes[2];
	open_both();
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	memset(json, 'x', 60000);
	json[60000] = '\0';
	struct ipc_admin_reply reply = {.json = json};
	ipc_pause(a.channel, true);
	while (sent < 5000 && !(result = ipc_send(b.channel, IPC_MSG_ADMIN_REPLY, &reply, pipes[0])))
		sent++;
	assert_int_equal(result, -ENOBUFS);
	assert_true(ipc_backlog(b.channel) > (15u << 20) && ipc_backlog(b.channel) <= (16u << 20));
	close(pipes[0]);          /* what waits has its own duplicates */
	ipc_pause(a.channel, false);
	for (int i = 0; i < 20 && ipc_backlog(b.channel); i++)
		run();
	run();
	assert_int_equal(ipc_backlog(b.channel), 0);
	assert_int_equal(a.messages, sent);
	close(pipes[1]);
	free(json);
}

static void queue_is_bounded_in_messages(void **state)
{
	(void)state;
	int sent = 0;
	open_both();
	ipc_pause(b.channel, true);
	while (!ipc_send(a.channel, IPC_MSG_PING, &(struct ipc_ping){(uint64_t)sent}, -1))
		assert_true(++sent < 100000);
	assert_true(sent >= 4096);
	ipc_channel_free(a.channel);      /* with a full queue */
	a.channel = NULL;
}

static void oversized_is_refused(void **state)
{
	(void)state;
	char *json = malloc(IPC_MESSAGE_MAX + 1);
	open_both();
	memset(json, 'x', IPC_MESSAGE_MAX);
	json[IPC_MESSAGE_MAX] = '\0';
	struct ipc_admin_reply reply = {.json = json};
	assert_int_equal(ipc_send(b.channel, IPC_MSG_ADMIN_REPLY, &reply, -1), -EMSGSIZE);
	run();
	assert_string_equal(a.reason, "");
	free(json);
}

/* --- liars --------------------------------------------------------------------------------------------------------- */

static void hello_must_come_first(void **state)
{
	(void)state;
	int fd = open_raw();
	send_message(fd, IPC_MSG_PING, &(struct ipc_ping){1}, NULL, 0);
	expect_end(fd, "ping (2) from supervisor: before hello");
}

static void hello_must_name_the_role(void **state)
{
	(void)state;
	int fd = open_raw();
	send_message(fd, IPC_MSG_HELLO, &(struct ipc_hello){.role = IPC_ROUTER}, NULL, 0);
	expect_end(fd, "hello (0) from supervisor: it names router");
}

static void hello_comes_once(void **state)
{
	(void)state;
	int fd = open_raw();
	greet(fd);
	greet(fd);
	expect_end(fd, "hello (0) from supervisor: twice");
}

static void role_must_be_allowed(void **state)
{
	(void)state;
	int fd = open_raw();
	greet(fd);
	send_message(fd, IPC_MSG_DECISION, &(struct ipc_decision){.id = 1}, NULL, 0);
	expect_end(fd, "decision (");
	assert_non_null(strstr(b.reason, "not allowed from this role"));
	assert_int_equal(b.messages, 0);
}

static void malformed_is_named(void **state)
{
	(void)state;
	int fd = open_raw();
	greet(fd);
	send_raw(fd, "\x92\x02\xa1x", 4, NULL, 0);
	expect_end(fd, "ping (2) from supervisor: sequence: wrong type");
}

static void oversized_ends(void **state)
{
	(void)state;
	static char data[IPC_MESSAGE_MAX + 1] = "\x92\x02";
	int fd = open_raw();
	greet(fd);
	send_raw(fd, data, sizeof(data), NULL, 0);
	expect_end(fd, "ping (2) from supervisor: over 64 KiB");
}

static void laden(enum ipc_type type, const void *message, unsigned n, const char *reason)
{
	int fd = open_raw(), fds[8];
	greet(fd);
	for (unsigned i = 0; i < n; i++)
		fds[i] = fd;
	send_message(fd, type, message, fds, n);
	expect_end(fd, reason);
	assert_int_equal(b.messages, 0);
}

static void unwanted_descriptor_ends(void **state)
{
	(void)state;
	laden(IPC_MSG_PING, &(struct ipc_ping){1}, 1, "ping (2) from supervisor: a descriptor that it does not carry");
}

static void missing_descriptor_ends(void **state)
{
	(void)state;
	laden(IPC_MSG_PEER, &(struct ipc_peer){.role = 1}, 0, "without its descriptor");
}

static void two_descriptors_end(void **state)
{
	(void)state;
	laden(IPC_MSG_PEER, &(struct ipc_peer){.role = 1}, 2, "more than one descriptor");
}

static void many_descriptors_end(void **state)
{
	(void)state;
	laden(IPC_MSG_PEER, &(struct ipc_peer){.role = 1}, 8, "its descriptors did not fit");
}

static void junk_ends(void **state)
{
	(void)state;
	int fd = open_raw(), fds[2] = {fd, fd};
	send_raw(fd, "junk", 4, fds, 2);
	expect_end(fd, "? (");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(hello_introduces), T(messages_arrive_in_order), T(schemas_may_differ), T(descriptor_is_handed_over),
		T(descriptor_left_is_closed), T(handler_may_free), T(last_words_are_heard), T(pause_reads_nothing),
		T(queue_is_bounded_and_drains), T(queue_is_bounded_in_messages), T(oversized_is_refused),
		T(hello_must_come_first), T(hello_must_name_the_role), T(hello_comes_once), T(role_must_be_allowed),
		T(malformed_is_named), T(oversized_ends), T(unwanted_descriptor_ends), T(missing_descriptor_ends),
		T(two_descriptors_end), T(many_descriptors_end), T(junk_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
