/* The tunnel worker: the data path. Start, what the supervisor and the other workers say, stop. */
#include <errno.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/endpoints.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "workers/tunnel/ask.h"
#include "workers/tunnel/auth.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/connection.h"
#include "workers/tunnel/device.h"
#include "workers/tunnel/files.h"
#include "workers/tunnel/flow_drain.h"
#include "workers/tunnel/flow_json.h"
#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/handover.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/pressure.h"
#include "workers/tunnel/probe.h"
#include "workers/tunnel/probes.h"
#include "workers/tunnel/records.h"
#include "workers/tunnel/resolve.h"
#include "workers/tunnel/slab.h"
#include "workers/tunnel/tls.h"
#include "workers/tunnel/transparent.h"
#include "workers/tunnel/transport.h"
#include "workers/tunnel/udp_io.h"
#include "workers/tunnel/worker_link.h"

#define STATS_SETS 4096
#define FLOWS_LISTED 10000
#define TICK_MS 1000
#define DRAIN_CHECK_MS 50
#define FRESH_MS 1500
#define FLOW_ID_SHIFT 40          /* a worker's flows are numbered from its index on: below 2^53, for JSON */

struct state {
	struct tunnel tunnel;
	struct files *files;
	int table_fd;                 /* an endpoint table that came before its generation */
	uint64_t table_generation;
	struct event *tick, *drain;
	uint64_t drain_until;
	uint64_t fresh_until;         /* connections that just came may say so long what they want */
	int64_t buffered;
};

static void on_handed_over(void *arg);

/* --- configuration --------------------------------------------------------------------------------------------------- */

static void use_table(struct generation *g, int fd)
{
	struct endpoint_table *table = endpoint_table_map(fd, g->config);
	if (!table) {
		log_warn("endpoint table does not fit", "generation=%llu", (unsigned long long)g->number);
		return;
	}
	if (g->endpoints)
		endpoint_table_free(g->endpoints);
	g->endpoints = table;
}

static int prepare(void *arg, uint64_t number, struct config *config, char *error, size_t size)
{
	struct state *s = arg;
	struct tunnel *t = &s->tunnel;
	size_t n;
	if (worker_predecessor(t->worker) && !t->current && !t->handover)
		handover_expect(t, on_handed_over, s);
	const struct tls_file *files = files_of(s->files, number, &n);
	struct tls *tls = tls_new(config, files, n, error, size);
	files_forget(s->files, number);
	if (!tls || listeners_prepare(t->listeners, config, number, error, size) < 0) {
		tls_free(tls);
		config_free(config);
		return -1;
	}
	struct generation *g = calloc(1, sizeof(*g));
	if (!g)
		abort();
	*g = (struct generation){.number = number, .refs = 1, .config = config, .tls = tls};
	generation_unref(t->next);
	t->next = g;
	if (s->table_fd >= 0 && s->table_generation == number) {
		use_table(g, s->table_fd);
		close(s->table_fd);
		s->table_fd = -1;
	}
	return 0;
}

static void commit(void *arg, uint64_t number)
{
	struct state *s = arg;
	struct tunnel *t = &s->tunnel;
	if (!t->next || t->next->number != number)
		return;
	tls_in_force(t->next->config);
	generation_unref(t->current);
	t->current = t->next;
	t->next = NULL;
	slab_budget(t->current->config->memory);
	auth_set_users(t->auth, t->current->config);
	ask_commit(t->ask);
	clusters_commit(t->clusters);
	listeners_commit(t->listeners, number);
	devices_commit(t->devices);
	redecide_commit(t->redecide);
	probes_commit(t->probes);
	log_info("configuration in force", "generation=%llu", (unsigned long long)number);
}

static void abort_(void *arg, uint64_t number)
{
	struct state *s = arg;
	listeners_abort(s->tunnel.listeners, number);
	devices_abort(s->tunnel.devices, number);
	files_forget(s->files, number);
	if (!s->tunnel.next || s->tunnel.next->number != number)
		return;
	generation_unref(s->tunnel.next);
	s->tunnel.next = NULL;
}

/* --- other workers --------------------------------------------------------------------------------------------------- */

static void take_table(struct state *s, uint64_t generation, int *fd)
{
	struct tunnel *t = &s->tunnel;
	struct generation *g = t->next && t->next->number == generation ? t->next :
	                       t->current && t->current->number == generation ? t->current : NULL;
	if (g)
		return use_table(g, *fd);
	if (s->table_fd >= 0)
		close(s->table_fd);
	s->table_fd = *fd;
	s->table_generation = generation;
	*fd = -1;
}

static void from_worker(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	struct state *s = arg;
	(void)channel;
	if (type == IPC_MSG_DECISION)
		ask_answered(s->tunnel.ask, &message->decision);
	else if (type == IPC_MSG_ENDPOINT_TABLE)
		take_table(s, message->endpoint_table.generation, fd);
}

static struct ipc_channel **peer_slot(struct tunnel *t, enum ipc_role role)
{
	return role == IPC_POLICY ? &t->policy : role == IPC_ROUTER ? &t->router :
	       role == IPC_TELEMETRY ? &t->telemetry : NULL;
}

static void peer_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct state *s = arg;
	struct ipc_channel **slot = peer_slot(&s->tunnel, ipc_peer_role(channel));
	log_info("peer gone", "peer=%s reason=%s", ipc_role_name(ipc_peer_role(channel)), log_value(reason));
	if (slot && *slot == channel)
		*slot = NULL;
	ipc_channel_free(channel);
}

static void introduce(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct state *s = arg;
	struct ipc_channel **slot = peer_slot(&s->tunnel, role);
	if (role == IPC_TUNNEL && index == worker_index(s->tunnel.worker))
		return handover_peer(&s->tunnel, fd);
	if (!slot) {
		close(fd);
		return;
	}
	/* an old policy or router may still answer what it was asked: its channel ends with it */
	if (*slot && role == IPC_TELEMETRY)
		ipc_channel_free(*slot);
	*slot = ipc_channel_new(s->tunnel.base, fd, IPC_TUNNEL, worker_index(s->tunnel.worker), role, from_worker, peer_ended, s);
	if (role == IPC_TELEMETRY && *slot)
		worker_send_stats(s->tunnel.worker, *slot);
}

/* --- the supervisor -------------------------------------------------------------------------------------------------- */

static void administer(struct state *s, const struct ipc_admin_request *request)
{
	struct json json = JSON_INIT;
	struct tunnel *t = &s->tunnel;
	unsigned status = 0;
	if (strcmp(request->verb, "probe") == 0)
		return probe_ask(t, request);
	if (strcmp(request->verb, "flows list") == 0)
		flows_json(t, FLOWS_LISTED, &json);
	else if (strcmp(request->verb, "flows show") == 0 && request->args.n == 1)
		flow_json(t, strtoull(request->args.v[0], NULL, 10), &json);
	else if (strcmp(request->verb, "clusters pools") == 0)
		clusters_json(t->clusters, &json);
	else if (strcmp(request->verb, "probes list") == 0)
		probes_json(t->probes, &json);
	else if (strcmp(request->verb, "tunnels list") == 0)
		devices_json(t->devices, &json);
	else
		status = 2;
	worker_reply(t->worker, request->id, status, json.data ? json.data : "", status ? "unknown verb" : NULL);
	json_free(&json);
}

static void take_file(struct state *s, const struct ipc_file *file, int fd)
{
	char *data = NULL;
	size_t length = 0;
	int error = fd >= 0 ? fd_read_all(fd, FILES_MAX, &data, &length) : -ENOENT;
	if (error < 0) {
		log_warn("file not read", "kind=%s path=%s error=%s", file->kind, log_value(file->path),
		         log_value(file->error ? file->error : strerror(-error)));
		return;
	}
	if (strcmp(file->kind, "resolv_conf") == 0)
		resolver_set_resolv_conf(s->tunnel.resolver, data);
	else if (strcmp(file->kind, "hosts") == 0)
		resolver_set_hosts(s->tunnel.resolver, data);
	else
		files_add(s->files, file->generation, file->kind, file->path, data, length);
	OPENSSL_cleanse(data, length);
	free(data);
}

static void from_supervisor(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	struct state *s = arg;
	switch (type) {
	case IPC_MSG_LISTENER:
		listeners_add(s->tunnel.listeners, message->listener.generation, message->listener.name, *fd);
		*fd = -1;
		break;
	case IPC_MSG_FILE:
		take_file(s, &message->file, *fd);
		break;
	case IPC_MSG_TUN_QUEUE:
		devices_add_queue(s->tunnel.devices, &message->tun_queue, *fd);
		*fd = -1;
		break;
	case IPC_MSG_WORKER_LINK:
		worker_links_take(s->tunnel.links, message->worker_link.index, message->worker_link.client, *fd);
		*fd = -1;
		break;
	case IPC_MSG_SOCKET_MADE:
		transparent_socket_made(&s->tunnel, &message->socket_made, *fd);
		*fd = -1;
		break;
	case IPC_MSG_ADMIN_REQUEST:
		administer(s, &message->admin_request);
		break;
	default:
		break;
	}
}

/* --- time and the end ------------------------------------------------------------------------------------------------ */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct state *s = arg;
	(void)fd, (void)what;
	int64_t now = (int64_t)slab_in_use();
	stats_add(s->tunnel.self, STATS_WORKER_BUFFERED, now - s->buffered);
	s->buffered = now;
	if (s->tunnel.current)
		pressure_relieve(&s->tunnel, s->tunnel.current->config->memory);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
	struct state *s = arg;
	(void)fd, (void)what;
	bool busy = s->tunnel.n_flows > 0 || handover_running(&s->tunnel) || transport_unsent();
	if (busy ? now_us() < s->drain_until : connections_fresh() && now_us() < s->fresh_until)
		return;
	records_flush(s->tunnel.records);
	worker_exit(s->tunnel.worker);
}

/* What a successor has not got ends as it can. */
static void drain(void *arg)
{
	struct state *s = arg;
	listeners_drain(s->tunnel.listeners);
	devices_drain(s->tunnel.devices);
	flows_drain(&s->tunnel);
}

/* The predecessor's flows are here. */
static void on_handed_over(void *arg)
{
	struct state *s = arg;
	if (s->tunnel.draining)
		return;
	devices_start(s->tunnel.devices);
	listeners_start(s->tunnel.listeners);
}

static void stop(void *arg, unsigned drain_ms)
{
	struct state *s = arg;
	if (s->tunnel.draining)
		return;
	s->tunnel.draining = true;
	s->drain_until = now_us() + (uint64_t)drain_ms * 1000;
	s->fresh_until = now_us() + (drain_ms < FRESH_MS ? drain_ms : FRESH_MS) * 1000u;
	probes_stop(s->tunnel.probes);
	listeners_pause(s->tunnel.listeners);
	worker_links_drain(s->tunnel.links);
	if (handover_begin(&s->tunnel, drain, s))
		devices_pause(s->tunnel.devices);
	else
		drain(s);
	struct timeval check = {.tv_usec = DRAIN_CHECK_MS * 1000};
	event_add(s->drain, &check);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {
		.prepare = prepare, .commit = commit, .abort = abort_, .peer = introduce, .message = from_supervisor, .stop = stop};
	static struct state s = {.table_fd = -1};
	struct tunnel *t = &s.tunnel;
	char name[32];
	t->worker = worker_start(IPC_TUNNEL, argc, argv, STATS_SETS, &callbacks, &s);
	t->base = worker_base(t->worker);
	t->stats = worker_stats(t->worker);
	t->flow_id = (uint64_t)worker_index(t->worker) << FLOW_ID_SHIFT;
	snprintf(name, sizeof(name), "tunnel-%u", worker_index(t->worker));
	t->self = stats_set(t->stats, STATS_WORKER, name);
	s.files = files_new();
	t->ask = ask_new(t);
	t->redecide = redecide_new(t);
	t->probes = probes_new(t);
	t->resolver = resolver_new(t->base);
	t->clusters = clusters_new(t);
	t->listeners = listeners_new(t);
	t->devices = devices_new(t);
	t->links = worker_links_new(t);
	t->udp = udp_sender_new();
	t->records = records_new(t);
	t->auth = auth_new(t->base);
	s.tick = event_new(t->base, -1, EV_PERSIST, on_tick, &s);
	s.drain = event_new(t->base, -1, EV_PERSIST, on_drain, &s);
	struct timeval tick = {.tv_sec = TICK_MS / 1000};
	event_add(s.tick, &tick);
	return worker_run(t->worker);
}
