/* config-sync as the supervisor sees it: a real worker behind a channel, in its sandbox. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "store/diff.h"
#include "workers/config-sync/sync.h"

static char folder[64];

/* --- the worker -------------------------------------------------------------------------------------------------------- */

/* What the controller's client does when a document has come: an admin request "pend" here. */
static void pend(struct sync *sync, const struct ipc_admin_request *m)
{
	int error = sync_controller_document(sync, (uint64_t)atoll(m->args.v[0]), "ops", "because", m->args.v[1], strlen(m->args.v[1]));

	worker_reply(sync->worker, m->id, error ? 1 : 0, "{}", NULL);
}

static void confirm(struct sync *sync, const struct ipc_admin_request *m)
{
	worker_reply(sync->worker, m->id, store_confirm(sync->store, (uint64_t)atoll(m->args.v[0])) ? 1 : 0, "{}", NULL);
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	if (type == IPC_MSG_ADMIN_REQUEST && !strcmp(m->admin_request.verb, "pend"))
		pend(arg, &m->admin_request);
	else if (type == IPC_MSG_ADMIN_REQUEST && !strcmp(m->admin_request.verb, "confirm"))
		confirm(arg, &m->admin_request);
	else if (type == IPC_MSG_CONFIG_SUBMIT)
		sync_submit(arg, &m->config_submit, *fd);
	else if (type == IPC_MSG_CONFIG_STORE)
		sync_store(arg, &m->config_store);
	else if (type == IPC_MSG_ADMIN_REQUEST)
		sync_admin(arg, &m->admin_request);
}

static void run_worker(int fd)
{
	static const struct worker_callbacks callbacks = {.message = on_message};
	char *argv[] = {(char *)"hermes-config-sync", (char *)"--index=0", NULL};
	struct sync sync = {0};

	alarm(60);
	if (fd != WORKER_SUPERVISOR_FD) {
		dup2(fd, WORKER_SUPERVISOR_FD);
		close(fd);
	}
	setenv("HERMES_STATE_DIR", folder, 1);
	sync.worker = worker_start(IPC_CONFIG_SYNC, 2, argv, 0, &callbacks, &sync);
	if (sync_open(&sync, folder))
		_exit(9);
	int status = worker_run(sync.worker);
	sync_close(&sync);
	_exit(status);
}

/* --- the supervisor ------------------------------------------------------------------------------------------------------ */

static struct event_base *base;
static struct ipc_channel *channel;
static pid_t child;
static bool ended;
static struct {
	bool come, unchanged, compiled;
	uint64_t generation;
	unsigned n_errors, status;
	char error[512], node[64], json[65536];
} got;

static void on_compiled(const struct ipc_config_compiled *m, int fd)
{
	got.generation = m->generation;
	got.unchanged = m->unchanged;
	got.n_errors = (unsigned)m->errors.n;
	snprintf(got.error, sizeof(got.error), "%s", m->errors.n ? m->errors.v[0] : "");
	if (fd < 0)
		return;
	struct config *config = config_from_memfd(fd);
	assert_non_null(config);
	got.compiled = true;
	snprintf(got.node, sizeof(got.node), "%s", config->node_name);
	config_free(config);
}

static void on_answer(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)ch;
	(void)arg;
	got.come = type != IPC_MSG_READY;
	if (type == IPC_MSG_CONFIG_COMPILED)
		on_compiled(&m->config_compiled, *fd);
	else if (type == IPC_MSG_CONFIG_STORED) {
		snprintf(got.error, sizeof(got.error), "%s", m->config_stored.error ? m->config_stored.error : "");
	} else if (type == IPC_MSG_ADMIN_REPLY) {
		got.status = m->admin_reply.status;
		snprintf(got.json, sizeof(got.json), "%s", m->admin_reply.json ? m->admin_reply.json : "");
		snprintf(got.error, sizeof(got.error), "%s", m->admin_reply.error ? m->admin_reply.error : "");
	}
}

static void on_ended(struct ipc_channel *ch, const char *reason, void *arg)
{
	(void)ch;
	(void)reason;
	(void)arg;
	ended = true;
}

static void ask(enum ipc_type type, const void *message, int fd)
{
	memset(&got, 0, sizeof(got));
	assert_int_equal(ipc_send(channel, type, message, fd), 0);
	while (!got.come && !ended)
		event_base_loop(base, EVLOOP_ONCE);
	assert_false(ended);
	if (fd >= 0)
		close(fd);
}

static void start(void)
{
	int fds[2];

	assert_int_equal(ipc_pair(fds), 0);
	child = fork();
	if (!child) {
		close(fds[0]);
		run_worker(fds[1]);
	}
	close(fds[1]);
	ended = false;
	base = event_base_new();
	channel = ipc_channel_new(base, fds[0], IPC_SUPERVISOR, 0, IPC_CONFIG_SYNC, on_answer, on_ended, NULL);
}

static void stop(void)
{
	int status;

	ipc_send(channel, IPC_MSG_STOP, &(struct ipc_stop){0}, -1);
	while (!ended)
		event_base_loop(base, EVLOOP_ONCE);
	ipc_channel_free(channel);
	event_base_free(base);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
}

static int document(const char *text)
{
	int fd = memfd_create("document", MFD_CLOEXEC);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	return fd;
}

static void submit(const char *action, const char *text, bool boot)
{
	struct ipc_config_submit m = {.id = 1, .action = action, .name = "h.yaml", .source = "admin", .author = "root", .boot = boot};

	ask(IPC_MSG_CONFIG_SUBMIT, &m, text ? document(text) : -1);
}

static void store(uint64_t generation, const char *refused)
{
	ask(IPC_MSG_CONFIG_STORE, &(struct ipc_config_store){.generation = generation, .refused = refused}, -1);
	assert_string_equal(got.error, "");
}

static void admin(const char *verb, const char *a, const char *b)
{
	const char *args[] = {a, b};
	struct ipc_admin_request m = {.id = 7, .verb = verb, .args = {.v = args, .n = (size_t)!!a + !!b}};

	ask(IPC_MSG_ADMIN_REQUEST, &m, -1);
}

static void expect(uint64_t generation, const char *node, unsigned errors)
{
	if (got.generation != generation || strcmp(got.node, node) || got.n_errors != errors)
		fail_msg("generation %lu node %s, %u errors %s", (unsigned long)got.generation, got.node, got.n_errors, got.error);
}

#define A "node: {name: a}\n"
#define B "node: {name: b}\n"
#define WINDOW "node: {name: w}\nclusters: [{name: c, carry: h1, endpoints: ['a:1']}]\n" \
	"routes: [{cluster: c, match: {time: 'Mon 08:00-09:00 Europe/Warsaw'}}]\n"

static void test_documents(void **state)
{
	(void)state;
	start();
	submit("load", NULL, false);
	expect(0, "", 1);
	submit("file", "node: {nmae: x}\n", true);
	expect(0, "", 2);
	assert_non_null(strstr(got.error, "h.yaml:1:8: node.nmae: unknown key"));
	submit("file", A, true);
	expect(1, "a", 0);
	store(1, NULL);
	submit("file", A, false);
	assert_true(got.unchanged && !got.compiled);
	submit("check", B, false);
	expect(0, "b", 0);
	submit("apply", B, false);
	expect(2, "b", 0);
	store(2, NULL);
	submit("apply", WINDOW, false);          /* zones are read inside the sandbox */
	expect(3, "w", 0);
	store(3, "tunnel-0: no");
	submit("load", NULL, false);
	expect(2, "b", 0);
	struct ipc_config_submit back = {.action = "rollback", .version = 1};
	ask(IPC_MSG_CONFIG_SUBMIT, &back, -1);
	expect(4, "a", 0);
	store(4, NULL);
	back.version = 77;
	ask(IPC_MSG_CONFIG_SUBMIT, &back, -1);
	assert_non_null(strstr(got.error, "77 is not in the store"));
	stop();
	start();                                  /* again: the file is as last taken, version 4 is in force */
	submit("file", A, true);
	expect(4, "a", 0);
	submit("file", "broken", true);           /* loudly, but with what is in force */
	expect(4, "a", 1);
	admin("config history", NULL, NULL);
	assert_non_null(strstr(got.json, "{\"version\":4,\"state\":\"in force\""));
	assert_non_null(strstr(got.json, "\"reason\":\"tunnel-0: no\""));
	assert_true(got.json[0] == '{' && got.json[strlen(got.json) - 1] == '}');
	admin("config show", "2", "--local");
	assert_non_null(strstr(got.json, "\"document\":\"node: {name: b}\\n\""));
	admin("config show", NULL, NULL);
	assert_non_null(strstr(got.json, "\"config\":{\"node\":{\"name\":\"a\""));
	admin("config diff", "2", NULL);
	assert_non_null(strstr(got.json, "-node: {name: b}\\n+node: {name: a}"));
	admin("config show", "x", NULL);
	assert_int_equal(got.status, 2);
	stop();
}

#define NAMES_CONTROL "identity: {certificate: c, key: k, authorities: [a]}\n" \
	"control: {endpoints: ['c:1'], key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=}\n"
#define BOOT "node: {name: n}\n" NAMES_CONTROL
#define CLUSTER "clusters: [{name: web, carry: h1, endpoints: ['b:80']}]\n"

static void controller(const char *number_, const char *text)
{
	struct ipc_config_submit m = {.action = "controller", .source = "controller", .author = "ops", .version = (uint64_t)atoll(number_)};

	if (text)
		admin("pend", number_, text);
	ask(IPC_MSG_CONFIG_SUBMIT, &m, -1);
}

static void test_controller(void **state)
{
	(void)state;
	start();
	controller("5", "node: {name: x}\n");
	assert_non_null(strstr(got.error, "no configuration is in force"));
	submit("file", A, true);
	store(1, NULL);
	controller("5", "node: {max_hops: 3}\n");
	assert_non_null(strstr(got.error, "names no controllers"));
	submit("file", BOOT, false);
	expect(2, "n", 0);
	store(2, NULL);
	controller("6", "node: {name: other, max_hops: 0}\n");
	assert_string_equal(got.error, "controller 6:1:31: node.max_hops: 0 is out of range; expected a whole number from 1 to 255");
	controller("6", NULL);                    /* once refused it is forgotten */
	assert_non_null(strstr(got.error, "no such document"));
	controller("7", "node: {name: other, max_hops: 3}\n" CLUSTER);
	expect(3, "n", 0);
	store(3, NULL);
	admin("confirm", "3", NULL);
	assert_int_equal(got.status, 0);
	controller("8", "node: {name: other, max_hops: 3}\n" CLUSTER);       /* the same again, by another number */
	assert_true(got.unchanged && got.generation == 3);
	admin("config show", "3", NULL);
	assert_non_null(strstr(got.json, "\"controller\":8,"));
	assert_non_null(strstr(got.json, "\"max_hops\":3"));
	assert_non_null(strstr(got.json, "\"name\":\"hermes-control\""));
	/* the node's own documents keep the controller's under them, and may use what it brings */
	submit("apply", BOOT "routes: [{cluster: web}]\n", false);
	expect(4, "n", 0);
	store(4, NULL);
	submit("check", BOOT "routes: [{cluster: web}]\n", false);
	expect(0, "n", 0);
	submit("apply", BOOT "node2: 1\n", false);
	expect(0, "", 1);
	/* one from the controller that does not fit is refused with its own place */
	controller("9", "\nroutes: [{cluster: web}]\n");
	assert_string_equal(got.error, "h.yaml:4:20: routes[0].cluster: there is no cluster \"web\"; expected the name of one of clusters");
	stop();
	start();                                  /* again: file as last taken */
	submit("file", BOOT, true);
	expect(4, "n", 0);
	submit("file", BOOT "log: {level: debug}\n", true);                    /* changed meanwhile: the controller's part stays */
	expect(5, "n", 0);
	store(5, NULL);
	admin("config show", "--controller", NULL);
	assert_non_null(strstr(got.json, "\"document\":\"node: {name: other, max_hops: 3}"));
	admin("config show", "--origin", NULL);
	assert_non_null(strstr(got.json, "  max_hops: 3  # controller 8\\n"));
	assert_non_null(strstr(got.json, "  level: debug  # local\\n"));
	assert_non_null(strstr(got.json, "  drain_timeout: 30s  # default\\n"));
	assert_non_null(strstr(got.json, "{\"key\":\"clusters[web].carry\",\"value\":\"h1\",\"origin\":\"controller 8\"}"));
	admin("config show", "2", "--controller");
	assert_int_equal(got.status, 1);
	admin("config show", "--local", "--origin");
	assert_int_equal(got.status, 2);
	admin("config diff", "2", "3");
	assert_non_null(strstr(got.json, "+++ version 3, the controller's part\\n"));
	/* back to the last confirmed: both parts */
	ask(IPC_MSG_CONFIG_SUBMIT, &(struct ipc_config_submit){.action = "rollback", .source = "controller"}, -1);
	expect(6, "n", 0);
	store(6, NULL);
	admin("config show", "--local", NULL);
	assert_null(strstr(got.json, "debug"));
	assert_non_null(strstr(got.json, "\"controller\":8,"));
	admin("config history", NULL, NULL);
	assert_non_null(strstr(got.json, "\"version\":3,\"state\":\"superseded\""));
	/* without control the controller's part goes */
	submit("apply", A, false);
	expect(7, "a", 0);
	store(7, NULL);
	admin("config show", NULL, NULL);
	assert_non_null(strstr(got.json, "\"controller\":null"));
	stop();
}

/* At start: a file that does not go together with what the controller sent leaves the version in force in force. */
static void test_boot_misfit(void **state)
{
	(void)state;
	start();
	submit("file", BOOT CLUSTER, true);
	store(1, NULL);
	controller("1", "routes: [{cluster: web}]\n");
	expect(2, "n", 0);
	store(2, NULL);
	stop();
	start();
	submit("file", BOOT, true);
	expect(2, "n", 1);
	assert_string_equal(got.error, "controller 1:1:20: routes[0].cluster: there is no cluster \"web\"; expected the name of one of clusters");
	stop();
}

static void test_bad_documents(void **state)
{
	(void)state;
	start();
	int fd = memfd_create("huge", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 1 << 30), 0);
	ask(IPC_MSG_CONFIG_SUBMIT, &(struct ipc_config_submit){.action = "apply", .name = "h"}, fd);
	assert_non_null(strstr(got.error, "h:1:1: the document is too large; expected at most 16 MiB"));
	submit("apply", NULL, false);
	expect(0, "", 1);
	submit("dance", A, false);
	assert_non_null(strstr(got.error, "unknown action"));
	ask(IPC_MSG_CONFIG_STORE, &(struct ipc_config_store){.generation = 99}, -1);
	assert_string_not_equal(got.error, "");
	stop();
}

/* A store that is no store is moved aside, and the file holds. */
static void test_damaged_store(void **state)
{
	char path[128], command[256];

	(void)state;
	snprintf(path, sizeof(path), "%s/store.mdb", folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(write(fd, "garbage", 7), 7);
	close(fd);
	start();
	submit("file", A, true);
	expect(1, "a", 0);
	store(1, NULL);
	stop();
	snprintf(command, sizeof(command), "ls %s/store.damaged-* >/dev/null", folder);
	assert_int_equal(system(command), 0);
}

static void test_diff(void **state)
{
	char *text = diff_unified("a", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "b", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n");

	(void)state;
	assert_string_equal(text, "--- a\n+++ b\n@@ -2,8 +2,9 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n+10\n");
	free(text);
	text = diff_unified("a", "x\n", "b", "x\n");
	assert_string_equal(text, "");
	free(text);
	text = diff_unified("a", "", "b", "x\n");
	assert_string_equal(text, "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n");
	free(text);
}

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/hermes-sync-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {WITH_FOLDER(test_documents), WITH_FOLDER(test_bad_documents),
	                                   WITH_FOLDER(test_damaged_store), cmocka_unit_test(test_diff),
	                                   WITH_FOLDER(test_controller), WITH_FOLDER(test_boot_misfit)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
