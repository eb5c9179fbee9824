/* SPDX-License-Identifier: Apache-2.0 */
/* The store in etcd against a real one (etcd-server), of one member, that is killed and comes back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers/controller/kv_internal.h"

#define LIMIT_MS 20000

static struct event_base *base;
static char folder[64];
static unsigned short client_port, peer_port;
static pid_t member;

/* --- a member --------------------------------------------------------------------------------------------------------- */

static int bound(unsigned short port, unsigned short *found)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	*found = ntohs(a.sin_port);
	return fd;
}

static int dial_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(client_port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	close(fd);
	return -1;
}

static void start_member(void)
{
	char data[80], client[40], peer[40], cluster[60];
	snprintf(data, sizeof(data), "%s/data", folder);
	snprintf(client, sizeof(client), "http://127.0.0.1:%u", client_port);
	snprintf(peer, sizeof(peer), "http://127.0.0.1:%u", peer_port);
	snprintf(cluster, sizeof(cluster), "m=%s", peer);
	member = fork();
	if (!member) {
		int log = open("/dev/null", O_RDWR);
		dup2(log, 1);
		dup2(log, 2);
		execlp("etcd", "etcd", "--name", "m", "--data-dir", data, "--listen-client-urls", client, "--advertise-client-urls",
		       client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster,
		       "--unsafe-no-fsync", (char *)NULL);
		_exit(127);
	}
	for (int i = 0; i < LIMIT_MS / 20; i++) {
		int fd = dial_port(), status;
		if (fd >= 0) {
			close(fd);
			return;
		}
		assert_int_equal(waitpid(member, &status, WNOHANG), 0);       /* 127: there is no etcd (apt install etcd-server) */
		usleep(20000);
	}
	fail_msg("etcd did not start");
}

static void kill_member(void)
{
	if (member > 0) {
		kill(member, SIGKILL);
		waitpid(member, NULL, 0);
	}
	member = 0;
}

static int set_up(void **state)
{
	int a, b;
	(void)state;
	strcpy(folder, "/tmp/hermes-etcd-XXXXXX");
	base = event_base_new();
	a = bound(0, &client_port);
	b = bound(0, &peer_port);
	close(a);
	close(b);
	if (!mkdtemp(folder))
		return -1;
	start_member();
	return 0;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	kill_member();
	event_base_free(base);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

/* --- stores ----------------------------------------------------------------------------------------------------------- */

/* What the supervisor does: dials, and answers later. */
struct side { struct kv *kv; unsigned told; char seen[400]; };
struct dialing { struct side *side; uint64_t id; };

static void on_dial(evutil_socket_t fd, short what, void *arg)
{
	struct dialing *d = arg;
	(void)fd, (void)what;
	int found = dial_port();
	kv_etcd_dialed(d->side->kv, d->id, found, found < 0 ? "refused" : NULL);
	free(d);
}

static int dial(void *arg, uint64_t id, const char *address)
{
	static const struct timeval now = {0};
	struct dialing *d = malloc(sizeof(*d));
	(void)address;
	*d = (struct dialing){arg, id};
	return event_base_once(base, -1, EV_TIMEOUT, on_dial, d, &now);
}

static void on_state(void *arg)
{
	struct side *s = arg;
	s->told++;
}

static void on_change(void *arg, const struct kv_value *v)
{
	struct side *s = arg;
	char text[80];
	snprintf(text, sizeof(text), "%s%s ", v->revision ? "" : "-", v->key);
	if (strlen(s->seen) + strlen(text) < sizeof(s->seen))
		strcat(s->seen, text);
}

static void run(int ms)
{
	const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
	event_base_loopexit(base, &time);
	event_base_dispatch(base);
}

#define UNTIL(condition)                                                                                               \
	do {                                                                                                           \
		for (int ms_ = 0; !(condition); ms_ += 5) {                                                            \
			if (ms_ > LIMIT_MS)                                                                            \
				fail_msg("not within %d ms: %s", LIMIT_MS, #condition);                                \
			run(5);                                                                                        \
		}                                                                                                      \
	} while (0)

static void open_side(struct side *s)
{
	static char endpoint[] = "etcd";
	char *endpoints[] = {endpoint};
	*s = (struct side){0};
	s->kv = kv_etcd(base, endpoints, 1, "hermes/test/", dial, on_state, s);
	assert_non_null(s->kv);
	UNTIL(kv_ready(s->kv));
}

static void on_done(void *arg, int error)
{
	*(int *)arg = error;
}

static int commit(struct kv_txn *txn)
{
	int error = 1;
	kv_commit(txn, on_done, &error);
	UNTIL(error != 1);
	return error;
}

static int put(struct kv *kv, const char *key, int n, bool temporary)
{
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_put(txn, key, json_pack("{s:i}", "n", n), temporary);
	return commit(txn);
}

static int value(struct kv *kv, const char *key)
{
	struct kv_value v = kv_get(kv, key);
	return v.revision ? (int)json_integer_value(json_object_get(v.json, "n")) : -1;
}

/* --- tests ------------------------------------------------------------------------------------------------------------ */

static void test_two_share(void **state)
{
	struct side a, b;
	(void)state;
	open_side(&a);
	assert_int_equal(put(a.kv, "x/1", 1, false), 0);
	assert_int_equal(value(a.kv, "x/1"), 1);
	open_side(&b);
	assert_int_equal(value(b.kv, "x/1"), 1);
	kv_watch(b.kv, "x/", on_change, &b);
	assert_int_equal(put(a.kv, "x/2", 2, false), 0);
	UNTIL(value(b.kv, "x/2") == 2);
	assert_true(kv_get(a.kv, "x/2").revision == kv_get(b.kv, "x/2").revision);
	struct kv_txn *txn = kv_txn_new(b.kv);
	kv_txn_if(txn, "x/2", kv_get(b.kv, "x/2").revision);
	kv_txn_if(txn, "x/3", 0);
	kv_txn_delete(txn, "x/1");
	kv_txn_put(txn, "x/2", json_pack("{s:i}", "n", 3), false);
	assert_int_equal(commit(txn), 0);
	assert_int_equal(value(b.kv, "x/1"), -1);
	UNTIL(value(a.kv, "x/1") == -1 && value(a.kv, "x/2") == 3);
	UNTIL(strstr(b.seen, "x/2 -x/1 x/2") || strstr(b.seen, "x/2 x/2 -x/1"));
	txn = kv_txn_new(a.kv);
	kv_txn_if(txn, "x/2", 1);
	kv_txn_put(txn, "x/9", json_pack("{s:i}", "n", 9), false);
	assert_int_equal(commit(txn), -EAGAIN);
	txn = kv_txn_new(a.kv);
	kv_txn_delete(txn, "never");
	assert_int_equal(commit(txn), 0);
	assert_int_equal(put(a.kv, "state/n", 5, true), 0);
	UNTIL(value(b.kv, "state/n") == 5);
	kv_free(a.kv);
	kv_free(b.kv);
}

/* One leads; when it is gone without a word, the other does. */
static void test_leadership(void **state)
{
	struct side a, b;
	(void)state;
	open_side(&a);
	UNTIL(kv_leads(a.kv));
	open_side(&b);
	run(300);
	assert_true(kv_leads(a.kv) && !kv_leads(b.kv));
	kv_free(a.kv);
	UNTIL(kv_leads(b.kv));
	assert_true(b.told >= 2);
	kv_free(b.kv);
}

/* Reading goes on, what is written waits a while and is refused then; when it is back, all goes on, with what others did. */
static void test_outage(void **state)
{
	struct side a;
	(void)state;
	open_side(&a);
	assert_int_equal(put(a.kv, "x", 1, false), 0);
	kill_member();
	assert_int_equal(put(a.kv, "x", 2, false), -ETIMEDOUT);
	assert_int_equal(put(a.kv, "x", 3, false), -ENOTCONN);
	assert_int_equal(value(a.kv, "x"), 1);
	assert_true(kv_ready(a.kv));
	UNTIL(!kv_leads(a.kv));
	start_member();
	int error = 1;
	for (int i = 0; i < 100 && error; i++) {
		error = put(a.kv, "x", 4, false);
		run(50);
	}
	assert_int_equal(error, 0);
	assert_int_equal(value(a.kv, "x"), 4);
	UNTIL(kv_leads(a.kv));
	kv_free(a.kv);
}

/* Killed for a moment: a transaction under way is done once it is back, and once only. */
static void test_short_outage(void **state)
{
	struct side a;
	int error = 1;
	(void)state;
	open_side(&a);
	assert_int_equal(put(a.kv, "x", 1, false), 0);
	struct kv_txn *txn = kv_txn_new(a.kv);
	kv_txn_if(txn, "x", kv_get(a.kv, "x").revision);
	kv_txn_put(txn, "x", json_pack("{s:i}", "n", 2), false);
	kv_commit(txn, on_done, &error);
	kill_member();
	start_member();
	UNTIL(error != 1);
	assert_int_equal(error, 0);
	assert_int_equal(value(a.kv, "x"), 2);
	kv_free(a.kv);
}

/* Many keys are loaded in pages; one that goes while we are away, and whose events are compacted, is gone after. */
static void test_compaction(void **state)
{
	struct side a, b;
	char key[16], command[400];
	(void)state;
	open_side(&a);
	for (int i = 0; i < 450; i += 90) {
		struct kv_txn *txn = kv_txn_new(a.kv);
		for (int k = i; k < i + 90; k++) {
			snprintf(key, sizeof(key), "many/%04d", k);
			kv_txn_put(txn, key, json_pack("{s:i}", "n", k), false);
		}
		assert_int_equal(commit(txn), 0);
	}
	open_side(&b);
	assert_int_equal(kv_count(b.kv, "many/"), 450);
	assert_int_equal(value(b.kv, "many/0449"), 449);
	kill_member();
	run(300);
	start_member();
	/* behind its back: one key less, one changed, and the events forgotten */
	snprintf(command, sizeof(command),
	         "exec >/dev/null; U=http://127.0.0.1:%u/v3/kv; K=$(printf hermes/test/many/0007 | base64); "
	         "for i in 1 2 3 4 5 6 7 8 9; do curl -sf $U/deleterange -d '{\"key\":\"'$K'\"}' && break; sleep 0.3; done; "
	         "R=$(curl -sf $U/range -d '{\"key\":\"'$K'\"}' | sed 's/.*\"revision\":\"\\([0-9]*\\).*/\\1/'); "
	         "curl -sf $U/compaction -d '{\"revision\":\"'$R'\"}'", client_port);
	assert_int_equal(system(command), 0);
	UNTIL(value(b.kv, "many/0007") == -1);
	UNTIL(value(a.kv, "many/0007") == -1);
	assert_int_equal(kv_count(b.kv, "many/"), 449);
	kv_free(a.kv);
	kv_free(b.kv);
}

static void test_too_large(void **state)
{
	struct side a;
	char *text = malloc(3 << 20);
	(void)state;
	memset(text, 'x', 3 << 20);
	text[(3 << 20) - 1] = '\0';
	open_side(&a);
	struct kv_txn *txn = kv_txn_new(a.kv);
	kv_txn_put(txn, "large", json_pack("{s:s}", "text", text), false);
	assert_int_equal(commit(txn), -E2BIG);
	assert_int_equal(put(a.kv, "x", 1, false), 0);
	free(text);
	kv_free(a.kv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_two_share, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_leadership, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_outage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_short_outage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_compaction, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_large, set_up, tear_down),
	};
	if (sodium_init() < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
