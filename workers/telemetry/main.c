/* hermes-telemetry: counts, logs, serves metrics. Reads the other workers' shared counters, writes the access logs from
 * the tunnel workers' records, and answers scrapes on the metrics listener. */
#include "ipc/log.h"
#include "ipc/log_sink.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "workers/telemetry/http.h"
#include "workers/telemetry/peers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct telemetry {
	struct worker *worker;
	struct regions *regions;
	struct access_log *log;
	struct peers *peers;
	struct http_server *http;
	uint64_t generation;      /* in force; 0: none yet */
	struct config *prepared;
	int socket;               /* the metrics listener's that waits for its generation, or -1 */
	uint64_t socket_generation;
	char *address;            /* that is listened on, NULL: none */
};

static bool current_metrics(void *arg, struct metrics *out)
{
	struct telemetry *t = arg;
	*out = (struct metrics){
		.regions = t->regions, .generation = t->generation, .records = peers_records(t->peers),
	};
	out->n_logs = access_log_counts(t->log, &out->logs);
	return t->generation != 0;
}

/* --- configuration ------------------------------------------------------------------------------------------------- */

static void drop_socket(struct telemetry *t)
{
	if (t->socket >= 0)
		close(t->socket);
	t->socket = -1;
}

static const char *metrics_address(const struct config *config)
{
	return config->telemetry.metrics.text;
}

static int prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t size)
{
	struct telemetry *t = arg;
	const char *address = metrics_address(config);
	bool kept = address && t->address && !strcmp(address, t->address);
	bool came = t->socket >= 0 && t->socket_generation == generation;
	int rc = -1;
	if (address && !kept && !came)
		snprintf(error, size, "telemetry: metrics: no socket for %s was handed over", address);
	else
		rc = access_log_prepare(t->log, generation, config, error, size);
	if (rc) {
		config_free(config);
		return rc;
	}
	t->prepared = config;
	return 0;
}

static void commit_listener(struct telemetry *t, uint64_t generation)
{
	const char *address = metrics_address(t->prepared);
	int fd = -1, rc = 0;
	if (address && t->socket >= 0 && t->socket_generation == generation) {
		fd = t->socket;
		t->socket = -1;
	}
	if (fd >= 0 || !address)
		rc = http_listen(t->http, fd);
	drop_socket(t);
	if (rc) {
		log_error("metrics listener not opened", "address=%s error=%s", log_value(address), log_value(strerror(-rc)));
		return;
	}
	free(t->address);
	t->address = address ? strdup(address) : NULL;
}

static void commit(void *arg, uint64_t generation)
{
	struct telemetry *t = arg;
	commit_listener(t, generation);
	access_log_commit(t->log, generation);
	config_free(t->prepared);
	t->prepared = NULL;
	t->generation = generation;
}

static void abort_prepared(void *arg, uint64_t generation)
{
	struct telemetry *t = arg;
	access_log_abort(t->log, generation);
	if (t->socket_generation == generation)
		drop_socket(t);
	config_free(t->prepared);
	t->prepared = NULL;
}

/* --- messages ------------------------------------------------------------------------------------------------------ */

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct telemetry *t = arg;
	peers_add(t->peers, role, index, fd);
}

static void on_listener(struct telemetry *t, const struct ipc_listener *listener, int *fd)
{
	if (!listener->name || strcmp(listener->name, "metrics")) {
		log_warn("listener not ours", "name=%s", log_value(listener->name));
		return;
	}
	drop_socket(t);
	t->socket = *fd;
	t->socket_generation = listener->generation;
	*fd = -1;
}

static void on_file(struct telemetry *t, const struct ipc_file *file, int *fd)
{
	if (!file->kind || strcmp(file->kind, "log") || !file->path)
		return;
	access_log_file(t->log, file->generation, file->path, *fd, file->error);
	*fd = -1;
}

static void on_admin(struct telemetry *t, const struct ipc_admin_request *request)
{
	struct metrics metrics;
	const char *verb = request->verb ? request->verb : "";
	if (strcmp(verb, "stats")) {
		worker_reply(t->worker, request->id, 2, NULL, "telemetry answers `stats` only");
		return;
	}
	current_metrics(t, &metrics);
	char *json = metrics_json(&metrics, request->args.n ? request->args.v[0] : NULL);
	worker_reply(t->worker, request->id, json ? 0 : 1, json, json ? NULL : "out of memory");
	free(json);
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	struct telemetry *t = arg;
	switch (type) {
	case IPC_MSG_LISTENER: on_listener(t, &message->listener, fd); break;
	case IPC_MSG_FILE: on_file(t, &message->file, fd); break;
	case IPC_MSG_ADMIN_REQUEST: on_admin(t, &message->admin_request); break;
	default: log_warn("message not expected", "type=%s", ipc_type_name(type));
	}
}

static void on_drained(void *arg)
{
	struct telemetry *t = arg;
	worker_exit(t->worker);
}

/* The tunnel workers' last records come until their channels end. */
static void on_stop(void *arg, unsigned drain_ms)
{
	struct telemetry *t = arg;
	(void)drain_ms;
	peers_on_drained(t->peers, on_drained, t);
}

static const struct worker_callbacks callbacks = {
	.prepare = prepare, .commit = commit, .abort = abort_prepared,
	.peer = on_peer, .message = on_message, .stop = on_stop,
};

int main(int argc, char **argv)
{
	static struct telemetry t = {.socket = -1};
	const char *journal = getenv("HERMES_JOURNAL_FD");
	signal(SIGXFSZ, SIG_IGN);     /* a log at its size limit is an error to count, not an end */
	t.worker = worker_start(IPC_TELEMETRY, argc, argv, 0, &callbacks, &t);
	struct event_base *base = worker_base(t.worker);
	t.regions = regions_new();
	t.log = access_log_new(base, journal ? log_sink_journal(journal) : -1);
	if (t.regions && t.log)
		t.peers = peers_new(base, worker_index(t.worker), t.regions, t.log);
	t.http = http_new(base, current_metrics, &t);
	if (!t.peers || !t.http)
		fatal("out of memory", "at=%s", "start");
	int status = worker_run(t.worker);
	access_log_last(t.log);
	return status;
}
