/* A worker of any role that does as little as the supervisor lets it, and misbehaves when told: what tests of the
 * supervisor run in the place of the real ones. Its role is the end of its own name (hermes-ROLE).
 *
 * - tunnel: every connection is told "tunnel-N PID\n" and closed; `flows show WHAT@N` makes tunnel N do WHAT: crash, exit,
 *   loop, hang, stop, lie, grow.
 * - config-sync: compiles with the real parser and keeps one version in HERMES_STATE_DIR.
 * - policy, router: allow everything, to the cluster "fake".
 * - A configuration whose node is named refuse-ROLE is refused by that role, die-ROLE ends it while it prepares. */
#include "ipc/json.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SOCKETS_MAX 64

struct held {
	int fd;
	uint64_t generation;
	struct event *event;
};

struct fake {
	struct worker *worker;
	enum ipc_role role;
	const char *name;
	struct held held[SOCKETS_MAX];
	unsigned n_held;
	struct ipc_channel *router;        /* policy's */
	uint64_t version;                  /* config-sync's */
	int file;                          /* where it keeps it: opened before the sandbox */
	char *text, *candidate;
	uint64_t next;
};

/* --- every role ------------------------------------------------------------------------------------------------------ */

static int prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t size)
{
	struct fake *f = arg;
	char refuse[64], die[64];
	(void)generation;
	snprintf(refuse, sizeof(refuse), "refuse-%s", f->name);
	snprintf(die, sizeof(die), "die-%s", f->name);
	bool refused = !strcmp(config->node_name, refuse);
	if (!strcmp(config->node_name, die))
		_exit(9);
	config_free(config);
	if (refused)
		snprintf(error, size, "refused for a test");
	return refused ? -1 : 0;
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct fake *f = arg;
	(void)what;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	char text[64];
	if (client < 0)
		return;
	snprintf(text, sizeof(text), "tunnel-%u %d\n", worker_index(f->worker), (int)getpid());
	send(client, text, strlen(text), MSG_NOSIGNAL);
	close(client);
}

static void commit(void *arg, uint64_t generation)
{
	struct fake *f = arg;
	unsigned kept = 0;
	for (unsigned i = 0; i < f->n_held; i++) {
		struct held h = f->held[i];
		if (h.generation != generation) {
			if (h.event)
				event_free(h.event);
			close(h.fd);
			continue;
		}
		listen(h.fd, 64);
		if (!h.event) {
			h.event = event_new(worker_base(f->worker), h.fd, EV_READ | EV_PERSIST, on_accept, f);
			event_add(h.event, NULL);
		}
		f->held[kept++] = h;
	}
	f->n_held = kept;
}

static void stop(void *arg, unsigned drain_ms)
{
	struct fake *f = arg;
	(void)drain_ms;
	worker_exit(f->worker);
}

static char *volatile grown;   /* what nobody reads, the compiler would not even allocate */

static void misbehave(const char *what)
{
	volatile unsigned sum = 0;
	signal(SIGSEGV, SIG_DFL);          /* a sanitizer's report is not wanted */
	if (!strncmp(what, "crash@", 6))
		raise(SIGSEGV);
	else if (!strncmp(what, "exit@", 5))
		_exit(3);
	else if (!strncmp(what, "stop@", 5))
		raise(SIGSTOP);
	else if (!strncmp(what, "hang@", 5))
		sleep(3600);
	else if (!strncmp(what, "lie@", 4))
		(void)!write(WORKER_SUPERVISOR_FD, "\x91\xcc\xff garbage", 12);
	else if (!strncmp(what, "grow@", 5))
		memset(grown = malloc(80u << 20), 1, 80u << 20);
	else if (!strncmp(what, "loop@", 5))
		for (;;)
			sum++;
}

static void administer(struct fake *f, const struct ipc_admin_request *m)
{
	unsigned index = worker_index(f->worker);
	const char *what = m->args.n ? m->args.v[0] : "";
	const char *at = strchr(what, '@');
	char json[256];
	if (at && (unsigned)atoi(at + 1) == index)
		misbehave(what);
	snprintf(json, sizeof(json), "{\"id\":%u,\"listener\":\"fake\",\"verb\":\"%s\"}", index, m->verb);
	worker_reply(f->worker, m->id, 0, json, NULL);
}

/* --- config-sync ----------------------------------------------------------------------------------------------------- */

static void state_path(char *path, size_t size)
{
	snprintf(path, size, "%s/fake", getenv("HERMES_STATE_DIR"));
}

static void load_state(struct fake *f)
{
	char path[512];
	size_t length;
	state_path(path, sizeof(path));
	f->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (f->file >= 0 && !fd_read_all(f->file, 1 << 20, &f->text, &length) && !length) {
		free(f->text);
		f->text = NULL;
	}
	if (f->text) {
		f->version = strtoull(f->text, NULL, 10);
		memmove(f->text, strchr(f->text, '\n') + 1, strlen(strchr(f->text, '\n')));
	}
	f->next = f->version + 1;
}

static void compiled(struct fake *f, uint64_t id, const char *name, const char *text, uint64_t version)
{
	struct config_report report = {0};
	struct ipc_config_compiled m = {.id = id, .generation = version, .digest = "fake"};
	struct config *config = config_parse(name, text, strlen(text), &report);
	uint8_t *packed = NULL;
	size_t length;
	int fd = -1;
	if (config && !config_pack(config, &packed, &length))
		fd = memfd_sealed("config", packed, length);
	m.errors = (struct ipc_strs){(const char **)report.errors, report.n_errors};
	ipc_send(worker_supervisor(f->worker), IPC_MSG_CONFIG_COMPILED, &m, fd);
	if (fd >= 0)
		close(fd);
	free(packed);
	config_free(config);
	config_report_free(&report);
}

static void submit(struct fake *f, const struct ipc_config_submit *m, int fd)
{
	struct ipc_channel *sup = worker_supervisor(f->worker);
	size_t length;
	if (!strcmp(m->action, "load")) {
		const char *none[] = {"store: nothing is in force"};
		struct ipc_config_compiled answer = {.id = m->id, .errors = {none, 1}};
		if (f->text)
			compiled(f, m->id, "stored", f->text, f->version);
		else
			ipc_send(sup, IPC_MSG_CONFIG_COMPILED, &answer, -1);
		return;
	}
	free(f->candidate);
	f->candidate = NULL;
	if (fd_read_all(fd, 1 << 20, &f->candidate, &length))
		return;
	if (f->text && !strcmp(f->candidate, f->text) && !m->boot) {
		struct ipc_config_compiled answer = {.id = m->id, .generation = f->version, .unchanged = true};
		ipc_send(sup, IPC_MSG_CONFIG_COMPILED, &answer, -1);
		return;
	}
	compiled(f, m->id, m->name, f->candidate, !strcmp(m->action, "check") ? 0 : f->next++);
}

static void store(struct fake *f, const struct ipc_config_store *m)
{
	struct ipc_config_stored answer = {.id = m->id, .generation = m->generation};
	if (!m->refused && f->candidate) {
		free(f->text);
		f->text = strdup(f->candidate);
		f->version = m->generation;
		if (f->file < 0 || ftruncate(f->file, 0) || lseek(f->file, 0, SEEK_SET))
			answer.error = "cannot write";
		else
			dprintf(f->file, "%llu\n%s", (unsigned long long)f->version, f->text);
	}
	ipc_send(worker_supervisor(f->worker), IPC_MSG_CONFIG_STORED, &answer, -1);
}

/* --- policy and router ----------------------------------------------------------------------------------------------- */

static void decide(struct fake *f, const struct ipc_assessed *m)
{
	const char *trace[] = {"policy: fake allows", "route: fake takes all"};
	struct ipc_decision d = {
		.id = m->id, .generation = m->generation, .route = "fake", .cluster = "fake", .trace = {trace, 2},
		.add_headers = m->headers,
	};
	ipc_send(worker_supervisor(f->worker), IPC_MSG_DECISION, &d, -1);
}

static void from_peer(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)channel;
	(void)fd;
	if (type == IPC_MSG_ASSESSED)
		decide(arg, &m->assessed);
}

static void peer_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct fake *f = arg;
	(void)reason;
	if (f->router == channel)
		f->router = NULL;
	ipc_channel_free(channel);
}

static void peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct fake *f = arg;
	(void)index;
	struct ipc_channel *ch = ipc_channel_new(worker_base(f->worker), fd, f->role, worker_index(f->worker), role,
	                                         from_peer, peer_ended, f);
	if (role == IPC_ROUTER && f->role == IPC_POLICY)
		f->router = ch;
}

static void question(struct fake *f, const struct ipc_question *q)
{
	struct ipc_assessed m = {.id = q->id, .generation = q->generation, .tunnel = q->tunnel, .headers = q->headers};
	if (f->router)
		ipc_send(f->router, IPC_MSG_ASSESSED, &m, -1);
}

static void message(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	struct fake *f = arg;
	switch (type) {
	case IPC_MSG_ADMIN_REQUEST: administer(f, &m->admin_request); break;
	case IPC_MSG_CONFIG_SUBMIT: submit(f, &m->config_submit, *fd); break;
	case IPC_MSG_CONFIG_STORE: store(f, &m->config_store); break;
	case IPC_MSG_QUESTION: question(f, &m->question); break;
	case IPC_MSG_LISTENER:
		if (f->n_held < SOCKETS_MAX) {
			f->held[f->n_held++] = (struct held){.fd = *fd, .generation = m->listener.generation};
			*fd = -1;
		}
		break;
	default: break;
	}
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {
		.prepare = prepare, .commit = commit, .peer = peer, .message = message, .stop = stop,
	};
	struct fake f = {.role = IPC_TUNNEL};
	const char *slash = strrchr(argv[0], '/');
	f.name = (slash ? slash + 1 : argv[0]) + strlen("hermes-");
	for (unsigned role = 0; role < IPC_ROLE_COUNT; role++)
		if (!strcmp(f.name, ipc_role_name(role)))
			f.role = (enum ipc_role)role;
	f.worker = worker_start(f.role, argc, argv, 0, &callbacks, &f);
	if (f.role == IPC_CONFIG_SYNC)
		load_state(&f);
	return worker_run(f.worker);
}
