/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-router: decides where. Policy's assessments come in, decisions go out to the tunnel workers (or to the
 * supervisor, which asks for people); beside that it keeps the endpoint tables. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/endpoints.h"
#include "ipc/json.h"
#include "ipc/log.h"
#include "ipc/worker.h"
#include "store/generations.h"
#include "workers/router/answer.h"
#include "workers/router/health.h"

#define TUNNELS_MAX 1024

struct router {
	struct worker *worker;
	struct generations generations;   /* of struct routing */
	struct health *health;
	struct ipc_channel *policy;
	struct ipc_channel *tunnels[TUNNELS_MAX];
	struct answer_room room;
	struct trace trace;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- decisions ------------------------------------------------------------------------------------------------------ */

/* Too many headers for one message: the flow is refused, by name. */
static void send_decision(struct ipc_channel *to, const struct ipc_decision *d)
{
	int error = ipc_send(to, IPC_MSG_DECISION, d, -1);

	if (error == -EMSGSIZE) {
		log_warn("decision too large", "id=%llu", (unsigned long long)d->id);
		struct ipc_decision refusal = { .id = d->id, .generation = d->generation, .status = 431,
			.error = "http_request_error", .detail = "the headers to add are too large",
			.route = d->route, .valid_ms = d->valid_ms };
		error = ipc_send(to, IPC_MSG_DECISION, &refusal, -1);
	}
	if (error)
		log_warn("decision lost", "id=%llu error=%s", (unsigned long long)d->id, log_value(strerror(-error)));
}

static void on_assessed(struct router *r, const struct ipc_assessed *a)
{
	bool explain = a->tunnel == IPC_EXPLAIN;
	struct ipc_channel *to = explain ? worker_supervisor(r->worker)
	                                 : a->tunnel < TUNNELS_MAX ? r->tunnels[a->tunnel] : NULL;
	uint64_t generation;
	const struct routing *routing = generations_find(&r->generations, a->generation, &generation);
	struct ipc_decision decision;

	if (!to || !routing || (a->deadline && now_ms() > a->deadline))
		return;         /* the tunnel worker asks again */
	if (explain) {
		trace_reset(&r->trace);
		for (size_t i = 0; i < a->trace.n; i++)
			trace_add(&r->trace, "%s", a->trace.v[i]);
	}
	if (answer(routing, generation, a, &r->room, explain ? &r->trace : NULL, &decision) < 0) {
		log_error("out of memory", "id=%llu", (unsigned long long)a->id);
		return;
	}
	if (explain)
		decision.trace = (struct ipc_strs){ r->trace.v, r->trace.n };
	send_decision(to, &decision);
}

/* --- endpoints ------------------------------------------------------------------------------------------------------ */

static void kept(const struct router *r, struct generation out[3])
{
	out[0] = r->generations.prepared;
	out[1] = r->generations.committed;
	out[2] = r->generations.previous;
}

static void send_table(struct ipc_channel *tunnel, const struct generation *g)
{
	struct ipc_endpoint_table message = { .generation = g->number };
	const struct routing *routing = g->object;

	if (!tunnel || !routing)
		return;
	int error = ipc_send(tunnel, IPC_MSG_ENDPOINT_TABLE, &message, endpoint_table_fd(routing->endpoints));
	if (error)
		log_warn("endpoint table lost", "tunnel=%u error=%s", ipc_peer_index(tunnel), log_value(strerror(-error)));
}

static bool known(const struct router *r, const char *cluster, const char *endpoint)
{
	struct generation g[3];

	kept(r, g);
	for (int i = 0; i < 3; i++)
		if (g[i].object && health_known(((struct routing *)g[i].object)->config, cluster, endpoint))
			return true;
	return false;
}

/* endpoint NULL: everything. */
static void write_tables(struct router *r, const char *cluster, const char *endpoint)
{
	struct generation g[3];

	kept(r, g);
	for (int i = 0; i < 3; i++) {
		struct routing *routing = g[i].object;
		if (!routing)
			continue;
		if (endpoint)
			health_apply_one(r->health, routing->config, routing->endpoints, cluster, endpoint);
		else
			health_apply(r->health, routing->config, routing->endpoints);
	}
}

static void on_health(struct router *r, unsigned tunnel, const struct ipc_health *m)
{
	bool up;

	if (!m->cluster || !m->endpoint || !m->state)
		return;
	up = !strcmp(m->state, "up");
	/* of an endpoint that was configured away meanwhile, or of nonsense */
	if ((!up && strcmp(m->state, "down")) || !known(r, m->cluster, m->endpoint))
		return;
	if (health_report(r->health, m->cluster, m->endpoint, tunnel, up, m->reason) < 0) {
		log_error("out of memory", "%s", "at=health");
		return;
	}
	write_tables(r, m->cluster, m->endpoint);
	log_info(up ? "endpoint up" : "endpoint down", "cluster=%s endpoint=%s tunnel=%u reason=%s",
	         log_value(m->cluster), log_value(m->endpoint), tunnel, log_value(m->reason ? m->reason : ""));
}

/* --- peers ---------------------------------------------------------------------------------------------------------- */

static void on_peer_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct router *r = arg;

	(void)fd;
	if (type == IPC_MSG_ASSESSED)
		on_assessed(r, &m->assessed);
	/* by the index that the supervisor gave it, not by the one that it claims */
	for (unsigned i = 0; type == IPC_MSG_HEALTH && i < TUNNELS_MAX; i++)
		if (r->tunnels[i] == channel)
			on_health(r, i, &m->health);
}

static void on_peer_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct router *r = arg;

	log_info("peer gone", "role=%s index=%u reason=%s", ipc_role_name(ipc_peer_role(channel)),
	         ipc_peer_index(channel), log_value(reason));
	if (r->policy == channel)
		r->policy = NULL;
	for (unsigned i = 0; i < TUNNELS_MAX; i++)
		if (r->tunnels[i] == channel) {
			r->tunnels[i] = NULL;
			health_forget_tunnel(r->health, i);
			write_tables(r, NULL, NULL);
		}
	ipc_channel_free(channel);
}

/* What the old tunnel worker of that index saw is forgotten: the new one starts by believing in every endpoint. */
static void introduce_tunnel(struct router *r, unsigned index, struct ipc_channel *channel)
{
	ipc_channel_free(r->tunnels[index]);
	r->tunnels[index] = channel;
	health_forget_tunnel(r->health, index);
	write_tables(r, NULL, NULL);
	send_table(channel, &r->generations.committed);
	send_table(channel, &r->generations.prepared);
}

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct router *r = arg;
	/* takes fd over, also when it fails */
	struct ipc_channel *channel = ipc_channel_new(worker_base(r->worker), fd, IPC_ROUTER, worker_index(r->worker), role,
	                                              on_peer_message, on_peer_ended, r);

	if (!channel) {
		log_error("channel to a peer", "role=%s index=%u error=%s", ipc_role_name(role), index,
		          log_value(strerror(errno)));
		return;
	}
	if (role == IPC_POLICY) {
		ipc_channel_free(r->policy);
		r->policy = channel;
	} else if (role == IPC_TUNNEL && index < TUNNELS_MAX) {
		introduce_tunnel(r, index, channel);
	} else {
		ipc_channel_free(channel);   /* telemetry and others: we have nothing to say to them */
	}
}

/* --- generations ---------------------------------------------------------------------------------------------------- */

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct router *r = arg;
	struct routing *routing = routing_new(config);

	if (!routing) {
		snprintf(error, error_size, "router: out of memory or shared memory");
		return -1;
	}
	health_apply(r->health, routing->config, routing->endpoints);
	generations_prepare(&r->generations, generation, routing);
	for (unsigned i = 0; i < TUNNELS_MAX; i++)
		send_table(r->tunnels[i], &r->generations.prepared);
	return 0;
}

static void on_commit(void *arg, uint64_t generation)
{
	struct router *r = arg;
	const struct config *configs[3];
	struct generation g[3];

	generations_commit(&r->generations, generation);
	kept(r, g);
	for (int i = 0; i < 3; i++)
		configs[i] = g[i].object ? ((struct routing *)g[i].object)->config : NULL;
	health_sweep(r->health, configs, 3);
}

static void on_abort(void *arg, uint64_t generation)
{
	struct router *r = arg;

	generations_abort(&r->generations, generation);
}

static void release(void *object)
{
	routing_free(object);
}

/* --- administration ------------------------------------------------------------------------------------------------- */

static void list(struct router *r, uint64_t id, const struct ipc_strs *args)
{
	const struct routing *routing = r->generations.committed.object;
	const char *cluster = args->n ? args->v[0] : NULL;
	struct json json = JSON_INIT;

	if (cluster && (!routing || !health_known(routing->config, cluster, NULL))) {
		worker_reply(r->worker, id, 1, NULL, "no such cluster");
		return;
	}
	if (routing)
		health_list(r->health, routing->config, cluster, &json);
	if (json.failed)
		worker_reply(r->worker, id, 1, NULL, "out of memory");
	else
		worker_reply(r->worker, id, 0, json.data ? json.data : "", NULL);
	json_free(&json);
}

static void drain(struct router *r, uint64_t id, const struct ipc_strs *args, bool on)
{
	if (args->n != 2) {
		worker_reply(r->worker, id, 2, NULL, on ? "usage: clusters drain CLUSTER ENDPOINT"
		                                        : "usage: clusters undrain CLUSTER ENDPOINT");
		return;
	}
	if (!known(r, args->v[0], args->v[1])) {
		worker_reply(r->worker, id, 1, NULL, known(r, args->v[0], NULL) ? "no such endpoint in the cluster"
		                                                                : "no such cluster");
		return;
	}
	if (health_drain(r->health, args->v[0], args->v[1], on) < 0) {
		worker_reply(r->worker, id, 1, NULL, "out of memory");
		return;
	}
	write_tables(r, args->v[0], args->v[1]);
	log_info(on ? "endpoint drained" : "endpoint undrained", "cluster=%s endpoint=%s", log_value(args->v[0]),
	         log_value(args->v[1]));
	worker_reply(r->worker, id, 0, "", NULL);
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	struct router *r = arg;
	const struct ipc_admin_request *q = &m->admin_request;

	(void)fd;
	if (type != IPC_MSG_ADMIN_REQUEST)
		return;
	if (q->verb && !strcmp(q->verb, "clusters list"))
		list(r, q->id, &q->args);
	else if (q->verb && !strcmp(q->verb, "clusters drain"))
		drain(r, q->id, &q->args, true);
	else if (q->verb && !strcmp(q->verb, "clusters undrain"))
		drain(r, q->id, &q->args, false);
	else
		worker_reply(r->worker, q->id, 2, NULL, "the router knows no such verb");
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = { .prepare = on_prepare, .commit = on_commit, .abort = on_abort,
		.peer = on_peer, .message = on_message };
	static struct router r = { .generations.release = release };
	int status;

	r.worker = worker_start(IPC_ROUTER, argc, argv, 0, &callbacks, &r);
	r.health = health_new();
	if (!r.health)
		fatal("out of memory", "%s", "at=start");
	status = worker_run(r.worker);
	generations_clear(&r.generations);
	health_free(r.health);
	answer_room_free(&r.room);
	return status;
}
