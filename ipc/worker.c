#include "ipc/worker.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/sandbox.h"
#include "store/config.h"

#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORKERS_MAX 1024          /* of one role */
#define REPLY_INLINE (48u * 1024) /* a longer answer goes as a memfd */

struct worker {
	enum ipc_role role;
	unsigned index;
	const struct worker_callbacks *callbacks;
	void *arg;
	struct event_base *base;
	struct event *drain;      /* armed by STOP */
	struct ipc_channel *supervisor;
	struct stats *stats;
	uint64_t prepared;        /* generation that waits for COMMIT or ABORT; 0: none */
	unsigned tunnels, tunnels_prepared;
	bool predecessor;
};

/* A program that was executed by its descriptor is called by that number. */
static void take_name(enum ipc_role role)
{
	char name[32];
	snprintf(name, sizeof(name), "hermes-%s", ipc_role_name(role));
	prctl(PR_SET_NAME, name, 0, 0, 0);
}

/* There is one; kept here so that no leak checker misses it. volatile: the compiler drops what nobody reads. */
static struct worker *volatile self;

/* --- configuration ------------------------------------------------------------------------------------------------- */

static void abort_prepared(struct worker *w)
{
	uint64_t generation = w->prepared;
	w->prepared = 0;
	if (generation && w->callbacks->abort)
		w->callbacks->abort(w->arg, generation);
}

/* Returns whether the role took the configuration; error says why not. */
static bool prepare(struct worker *w, uint64_t generation, int fd, char *error, size_t size)
{
	struct config *config = config_from_memfd(fd);
	if (!config) {
		snprintf(error, size, "the compiled configuration could not be read");
		return false;
	}
	if (!w->callbacks->prepare) {
		config_free(config);
		return true;
	}
	return w->callbacks->prepare(w->arg, generation, config, error, size) == 0;
}

/* One generation is prepared at a time: a second one takes the place of a first that was never decided. */
static void on_prepare(struct worker *w, const struct ipc_config_prepare *m, int fd)
{
	uint64_t generation = m->generation;
	char error[512] = "";
	abort_prepared(w);
	w->predecessor = m->predecessor;
	bool ok = prepare(w, generation, fd, error, sizeof(error));
	if (ok) {
		w->prepared = generation;
		w->tunnels_prepared = m->tunnels;
	} else if (!*error)
		snprintf(error, sizeof(error), "refused");
	struct ipc_config_prepared answer = {.generation = generation, .error = ok ? NULL : error};
	ipc_send(w->supervisor, IPC_MSG_CONFIG_PREPARED, &answer, -1);
}

static void on_commit(struct worker *w, uint64_t generation)
{
	if (!generation || generation != w->prepared) {
		log_warn("commit of what is not prepared", "generation=%llu", (unsigned long long)generation);
		return;
	}
	w->prepared = 0;
	w->tunnels = w->tunnels_prepared;
	if (w->callbacks->commit)
		w->callbacks->commit(w->arg, generation);
}

/* --- the supervisor's messages ------------------------------------------------------------------------------------- */

static void on_drained(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	log_warn("drain limit reached", "%s", "");
	worker_exit(arg);
}

static void on_stop(struct worker *w, unsigned drain_ms)
{
	struct timeval limit = {.tv_sec = drain_ms / 1000, .tv_usec = (drain_ms % 1000) * 1000};
	log_debug("stopping", "drain_ms=%u", drain_ms);
	if (!w->callbacks->stop || !drain_ms) {
		worker_exit(w);
		return;
	}
	evtimer_add(w->drain, &limit);
	w->callbacks->stop(w->arg, drain_ms);
}

static void on_peer(struct worker *w, const struct ipc_peer *peer, int *fd)
{
	if (peer->role >= IPC_ROLE_COUNT || peer->index >= WORKERS_MAX) {
		log_warn("peer unknown", "role=%u index=%u", peer->role, peer->index);
		return;
	}
	if (!w->callbacks->peer)
		return;
	int taken = *fd;
	*fd = -1;
	w->callbacks->peer(w->arg, (enum ipc_role)peer->role, peer->index, taken);
}

static void on_message(struct ipc_channel *ch, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct worker *w = arg;
	switch (type) {
	case IPC_MSG_PING: ipc_send(ch, IPC_MSG_PONG, &(struct ipc_pong){.sequence = m->ping.sequence}, -1); break;
	case IPC_MSG_STOP: on_stop(w, m->stop.drain_ms); break;
	case IPC_MSG_LOG_LEVEL:
		if (log_set_level(m->log_level.level))
			log_warn("log level unknown", "value=%s", log_value(m->log_level.level));
		break;
	case IPC_MSG_PEER: on_peer(w, &m->peer, fd); break;
	case IPC_MSG_CONFIG_PREPARE: on_prepare(w, &m->config_prepare, *fd); break;
	case IPC_MSG_CONFIG_COMMIT: on_commit(w, m->config_commit.generation); break;
	case IPC_MSG_CONFIG_ABORT:
		if (m->config_abort.generation == w->prepared)
			abort_prepared(w);
		break;
	default:
		if (w->callbacks->message)
			w->callbacks->message(w->arg, type, m, fd);
	}
}

static void on_ended(struct ipc_channel *ch, const char *reason, void *arg)
{
	(void)ch;
	log_info("supervisor gone", "reason=%s", log_value(reason));
	worker_exit(arg);
}

/* --- start, run, end ----------------------------------------------------------------------------------------------- */

static unsigned parse_index(int argc, char **argv)
{
	static const struct option options[] = {{"index", required_argument, NULL, 'i'}, {NULL, 0, NULL, 0}};
	unsigned long index = 0;
	optind = 1;
	for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		char *end = NULL;
		if (c == 'i')
			index = strtoul(optarg, &end, 10);
		if (c != 'i' || *end || end == optarg || index >= WORKERS_MAX)
			fatal("usage", "text=%s", log_value("hermesd starts this program: hermes-ROLE --index N"));
	}
	return (unsigned)index;
}

static void check_supervisor(void)
{
	int type = 0;
	socklen_t size = sizeof(type);
	if (getsockopt(WORKER_SUPERVISOR_FD, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_SEQPACKET)
		fatal("not started by hermesd", "%s", "reason=\"descriptor 3 is not a channel\"");
}

/* The terminal's signals go to all processes of the foreground: the supervisor decides what they mean. */
static void ignore_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGHUP, SIGQUIT};
	for (unsigned i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
}

/* Mind, with the changelist, that event_del() reaches the kernel when the loop goes on: a descriptor whose socket another
 * process holds too (a listener) stays in the epoll set when it is closed right after. */
static struct event_base *make_base(void)
{
	struct event_config *config = event_config_new();
	if (!config)
		return NULL;
	event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	struct event_base *base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

struct worker *worker_start(enum ipc_role role, int argc, char **argv, unsigned stats_sets,
                            const struct worker_callbacks *callbacks, void *arg)
{
	struct worker *w = self = calloc(1, sizeof(*w));
	take_name(role);
	log_open(ipc_role_name(role));
	if (!w)
		fatal("out of memory", "%s", "at=start");
	*w = (struct worker){.role = role, .callbacks = callbacks, .arg = arg};
	w->index = parse_index(argc, argv);
	check_supervisor();
	ignore_signals();
	w->base = make_base();
	if (w->base)
		w->drain = evtimer_new(w->base, on_drained, w);
	if (!w->drain)
		fatal("event loop", "error=%s", log_value(strerror(errno)));
	if (stats_sets && !(w->stats = stats_new(stats_sets)))
		fatal("shared counters", "error=%s", log_value(strerror(errno)));
	w->supervisor = ipc_channel_new(w->base, WORKER_SUPERVISOR_FD, role, w->index, IPC_SUPERVISOR, on_message,
	                                on_ended, w);
	if (!w->supervisor)
		fatal("channel to the supervisor", "error=%s", log_value(strerror(errno)));
	return w;
}

struct event_base *worker_base(struct worker *w)
{
	return w->base;
}

struct ipc_channel *worker_supervisor(struct worker *w)
{
	return w->supervisor;
}

struct stats *worker_stats(struct worker *w)
{
	return w->stats;
}

unsigned worker_index(const struct worker *w)
{
	return w->index;
}

unsigned worker_tunnels(const struct worker *w)
{
	return w->tunnels ? w->tunnels : 1;      /* a release that did not say had no devices */
}

bool worker_predecessor(const struct worker *w)
{
	return w->predecessor;
}

int worker_send_stats(struct worker *w, struct ipc_channel *telemetry)
{
	struct ipc_stats_region region = {.role = w->role, .index = w->index};
	return w->stats ? ipc_send(telemetry, IPC_MSG_STATS_REGION, &region, stats_fd(w->stats)) : 0;
}

int worker_run(struct worker *w)
{
	int error = sandbox_enter(w->role);
	if (error)
		fatal("sandbox", "error=%s", log_value(strerror(-error)));
	ipc_send(w->supervisor, IPC_MSG_READY, &(struct ipc_ready){.pid = (uint32_t)getpid()}, -1);
	return event_base_dispatch(w->base) < 0;
}

void worker_exit(struct worker *w)
{
	event_base_loopexit(w->base, NULL);
}

/* --- replies ------------------------------------------------------------------------------------------------------- */

void worker_reply(struct worker *w, uint64_t id, unsigned status, const char *json, const char *error)
{
	struct ipc_admin_reply reply = {.id = id, .status = status, .json = json, .error = error};
	size_t length = json ? strlen(json) : 0;
	int fd = -1;
	if (length > REPLY_INLINE) {
		fd = memfd_sealed("hermes-reply", json, length);
		reply.json = "";
	}
	if (length > REPLY_INLINE && fd < 0)
		reply = (struct ipc_admin_reply){.id = id, .status = 1, .error = "the answer could not be passed on"};
	int result = ipc_send(w->supervisor, IPC_MSG_ADMIN_REPLY, &reply, fd);
	if (result)
		log_warn("reply lost", "id=%llu error=%s", (unsigned long long)id, log_value(strerror(-result)));
	if (fd >= 0)
		close(fd);
}
