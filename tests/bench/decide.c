/* SPDX-License-Identifier: Apache-2.0 */
/* What deciding a new flow costs: the real policy and router workers, their real channels, everything on one core.
 *
 *   decide LIBEXEC [ROUTES [USERS [QUESTIONS]]]
 *
 * We are supervisor and tunnel worker at once: introduce the two to each other, give them a configuration of ROUTES
 * routes and USERS users (spread over address spaces), and ask QUESTIONS times, one after the other. Prints one line of
 * JSON; times in µs. `cpu` is the processor time of all three per question. */
#include <errno.h>
#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc/channel.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"

/* The model's strings are char *: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#define SPACE_USERS 100      /* users of one address space */
#define SPACE_NAMES 10
#define WARM_UP 2000

static struct {
	struct event_base *base;
	struct ipc_channel *supervisor[2], *policy, *router;   /* supervisor: to policy, to router */
	pid_t pids[2];
	unsigned ready, prepared;
	uint64_t answered;
	char *cluster;           /* of the last decision */
	unsigned routes, users, questions;
} b = { .routes = 10000, .users = 10000, .questions = 20000 };

static void die(const char *what)
{
	fprintf(stderr, "decide: %s\n", what);
	for (int i = 0; i < 2; i++)
		if (b.pids[i] > 0)
			kill(b.pids[i], SIGKILL);
	exit(1);
}

static void *make(size_t n, size_t size)
{
	void *p = calloc(n + 1, size);

	if (!p)
		die("out of memory");
	return p;
}

/* prefix, number, suffix */
static char *text(const char *before, unsigned n, const char *behind)
{
	char *out = NULL;

	if (asprintf(&out, "%s%u%s", before, n, behind) < 0)
		die("out of memory");
	return out;
}

/* --- the configuration: half of the questions are answered by a route, half by an address space ----------------------- */

static struct config_strs list(char *one)
{
	struct config_strs l = { make(1, sizeof(char *)), 1 };

	l.v[0] = one;
	return l;
}

static void make_routes(struct config *c)
{
	c->n_routes = b.routes;
	c->routes = make(b.routes, sizeof(*c->routes));
	for (unsigned i = 0; i < b.routes; i++)
		c->routes[i] = (struct config_route){ .name = text("route-", i, ""), .cluster = "web",
			.match.authorities = list(text("host", i, ".example.net")) };
}

static void make_spaces(struct config *c)
{
	c->n_spaces = (b.users + SPACE_USERS - 1) / SPACE_USERS;
	c->spaces = make(c->n_spaces, sizeof(*c->spaces));
	for (unsigned s = 0; s < c->n_spaces; s++) {
		struct config_space *space = &c->spaces[s];
		*space = (struct config_space){ .name = text("space-", s, ""), .n_names = SPACE_NAMES,
			.names = make(SPACE_NAMES, sizeof(*space->names)) };
		space->users.v = make(SPACE_USERS, sizeof(char *));
		for (unsigned u = s * SPACE_USERS; u < (s + 1) * SPACE_USERS && u < b.users; u++)
			space->users.v[space->users.n++] = text("user", u, "");
		for (unsigned n = 0; n < SPACE_NAMES; n++)
			space->names[n] = (struct config_space_entry){ .name = text("service", n, ""), .key = text("SERVICE", n, ""),
				.cluster = "far" };
	}
}

static void make_policies(struct config *c)
{
	static struct config_header_match token = { .name = "token", .match.exact = "admin" };
	static struct config_pair secure = { "x-secure", "admin" };

	c->n_policies = 4;
	c->policies = make(4, sizeof(*c->policies));
	for (unsigned i = 0; i < 4; i++) {
		struct config_rule *rule = make(1, sizeof(*rule));
		*rule = (struct config_rule){ .allow = true, .add_headers = { &secure, 1 },
			.match = { .methods = list("GET"), .headers = &token, .n_headers = 1 } };
		c->policies[i] = (struct config_policy){ .name = text("policy-", i, ""), .rules = rule, .n_rules = 1 };
		if (i < 3)           /* three that govern others, one that governs all */
			c->policies[i].match.authorities = list(text("guarded", i, ""));
	}
}

static int config_memfd(void)
{
	static struct config_cluster clusters[] = { { .name = "web", .carry = CONFIG_H1, .target = true },
		{ .name = "far", .carry = CONFIG_H2, .target = true } };
	struct config c = { .node_name = "bench", .domain = "example.net", .clusters = clusters, .n_clusters = 2 };
	uint8_t *data;
	size_t length;
	int fd;

	make_routes(&c);
	make_spaces(&c);
	make_policies(&c);
	if (config_pack(&c, &data, &length) || (fd = memfd_sealed("config", data, length)) < 0)
		die("cannot pack the configuration");
	free(data);
	return fd;
}

/* --- the other end of both workers ------------------------------------------------------------------------------------- */

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)channel, (void)fd, (void)arg;
	b.ready += type == IPC_MSG_READY;
	if (type == IPC_MSG_CONFIG_PREPARED) {
		if (m->config_prepared.error)
			die(m->config_prepared.error);
		b.prepared++;
	}
	if (type != IPC_MSG_DECISION)
		return;
	if (m->decision.status)
		die(m->decision.detail ? m->decision.detail : "refused");
	b.answered = m->decision.id;
	snprintf(b.cluster, 16, "%s", m->decision.cluster);
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	(void)channel, (void)arg;
	die(reason);
}

static pid_t start(const char *libexec, const char *role, int fd)
{
	char path[4096];
	pid_t pid = fork();

	if (pid)
		return pid;
	snprintf(path, sizeof(path), "%s/hermes-%s", libexec, role);
	/* dup2 clears close-on-exec; fd 3 itself would keep it */
	if (fd == WORKER_SUPERVISOR_FD)
		fd = dup(fd);
	dup2(fd, WORKER_SUPERVISOR_FD);
	execl(path, path, "--index", "0", (char *)NULL);
	_exit(127);
}

static struct ipc_channel *channel(int fd, enum ipc_role self, enum ipc_role peer)
{
	struct ipc_channel *c = ipc_channel_new(b.base, fd, self, 0, peer, on_message, on_ended, NULL);

	if (!c)
		die("cannot make a channel");
	return c;
}

static void begin(const char *libexec)
{
	static const struct { const char *name; enum ipc_role role; } roles[] = { { "policy", IPC_POLICY },
		{ "router", IPC_ROUTER } };
	int fds[2];

	for (int i = 0; i < 2; i++) {
		if (ipc_pair(fds))
			die("cannot make a pair");
		b.pids[i] = start(libexec, roles[i].name, fds[1]);
		close(fds[1]);
		b.supervisor[i] = channel(fds[0], IPC_SUPERVISOR, roles[i].role);
	}
	while (b.ready < 2)
		event_base_loop(b.base, EVLOOP_ONCE);
}

static void introduce(int to, enum ipc_role role, int fd)
{
	struct ipc_peer peer = { .role = role };

	if (ipc_send(b.supervisor[to], IPC_MSG_PEER, &peer, fd))
		die("cannot introduce");
	close(fd);
}

static void connect_all(void)
{
	int round_way[2], ask[2], answer[2];

	if (ipc_pair(round_way) || ipc_pair(ask) || ipc_pair(answer))
		die("cannot make a pair");
	introduce(0, IPC_ROUTER, round_way[0]);
	introduce(1, IPC_POLICY, round_way[1]);
	introduce(0, IPC_TUNNEL, ask[1]);
	introduce(1, IPC_TUNNEL, answer[1]);
	b.policy = channel(ask[0], IPC_TUNNEL, IPC_POLICY);
	b.router = channel(answer[0], IPC_TUNNEL, IPC_ROUTER);
}

static void configure(void)
{
	struct ipc_config_prepare prepare = { .generation = 1 };
	struct ipc_config_commit commit = { .generation = 1 };
	int fd = config_memfd();

	for (int i = 0; i < 2; i++)
		ipc_send(b.supervisor[i], IPC_MSG_CONFIG_PREPARE, &prepare, fd);
	close(fd);
	while (b.prepared < 2)
		event_base_loop(b.base, EVLOOP_ONCE);
	for (int i = 0; i < 2; i++)
		ipc_send(b.supervisor[i], IPC_MSG_CONFIG_COMMIT, &commit, -1);
}

/* --- asking ------------------------------------------------------------------------------------------------------------ */

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static double ask(uint64_t id)
{
	char user[32], authority[64];
	struct ipc_pair token = { "token", "admin" };
	struct ipc_question q = { .id = id, .generation = 1, .listener = "apps", .user = user, .method = "GET",
		.scheme = "http", .authority = authority, .path = "/index.html", .source = "127.0.0.1", .headers = { &token, 1 },
		.now = 1767916800 };
	double began;

	snprintf(user, sizeof(user), "user%u", (unsigned)(id * 7919 % b.users));
	if (id % 2)
		snprintf(authority, sizeof(authority), "host%u.example.net:80", (unsigned)(id * 7919 % b.routes));
	else
		snprintf(authority, sizeof(authority), "service%u", (unsigned)(id / 2 % SPACE_NAMES));
	began = now_us();
	q.deadline = (uint64_t)(began / 1e3) + 5000;
	if (ipc_send(b.policy, IPC_MSG_QUESTION, &q, -1))
		die("cannot ask");
	while (b.answered != id)
		event_base_loop(b.base, EVLOOP_ONCE);
	if (strcmp(b.cluster, id % 2 ? "web" : "far"))
		die("a wrong answer");
	return now_us() - began;
}

static int by_time(const void *x, const void *y)
{
	double difference = *(const double *)x - *(const double *)y;

	return difference > 0 ? 1 : difference < 0 ? -1 : 0;
}

/* µs of processor time of the workers (from /proc, in ticks) would be too coarse: what they used is known when they end. */
static double cpu_us(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void pin(void)
{
	cpu_set_t set;
	int cpu = sched_getcpu();

	CPU_ZERO(&set);
	CPU_SET(cpu < 0 ? 0 : cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("cannot stay on one core");
}

/* The workers' time includes their start and reading the configuration; asking dominates from some 10,000 on. */
static void report(double *times, double own)
{
	double workers;

	for (int i = 0; i < 2; i++) {
		struct ipc_stop stop = { 0 };
		ipc_send(b.supervisor[i], IPC_MSG_STOP, &stop, -1);
		waitpid(b.pids[i], NULL, 0);
	}
	workers = cpu_us(RUSAGE_CHILDREN);
	qsort(times, b.questions, sizeof(*times), by_time);
	printf("{\"bench\":\"decide\",\"routes\":%u,\"users\":%u,\"questions\":%u,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,"
	       "\"max\":%.1f,\"cpu\":%.1f}\n", b.routes, b.users, b.questions, times[b.questions / 2],
	       times[b.questions * 9 / 10], times[b.questions * 99 / 100], times[b.questions - 1],
	       (own + workers) / (b.questions + WARM_UP));
}

static unsigned number(const char *argument)
{
	long n = strtol(argument, NULL, 10);

	if (n < 1 || n > 10000000)
		die("numbers are 1 to 10000000");
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	double *times, before;

	if (argc < 2 || argc > 5) {
		fprintf(stderr, "usage: decide LIBEXEC [ROUTES [USERS [QUESTIONS]]]\n");
		return 2;
	}
	b.routes = argc > 2 ? number(argv[2]) : b.routes;
	b.users = argc > 3 ? number(argv[3]) : b.users;
	b.questions = argc > 4 ? number(argv[4]) : b.questions;
	signal(SIGPIPE, SIG_IGN);
	pin();
	b.base = event_base_new();
	b.cluster = make(16, 1);
	times = make(b.questions, sizeof(*times));
	begin(argv[1]);
	connect_all();
	configure();
	before = cpu_us(RUSAGE_SELF);
	for (unsigned i = 0; i < WARM_UP; i++)
		ask(i + 1);
	for (unsigned i = 0; i < b.questions; i++)
		times[i] = ask(WARM_UP + i + 1);
	report(times, cpu_us(RUSAGE_SELF) - before);
	return 0;
}
