/* The table of clusters: kept in step with the configuration, choosing among endpoints, their passive health. */
#include "workers/tunnel/cluster.h"

#include <assert.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/endpoints.h"
#include "ipc/json.h"
#include "ipc/log.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/conn.h"
#include "workers/tunnel/health.h"
#include "workers/tunnel/pool.h"

#define EJECTIONS_MAX 10             /* an ejection lasts at most ten times as long as the first */

/* --- counting ---------------------------------------------------------------------------------------------------- */

struct cluster *cluster_find(struct clusters *all, const char *name)
{
	struct cluster *cluster;
	HASH_FIND_STR(all->table, name, cluster);
	return cluster;
}

struct cluster *cluster_ref(struct cluster *cluster)
{
	cluster->refs++;
	return cluster;
}

void cluster_unref(struct cluster *cluster)
{
	assert(cluster->refs > 0);
	if (--cluster->refs > 0)
		return;
	assert(cluster->retired && cluster->n == 0);
	LIST_REMOVE(cluster, retired_link);
	generation_unref(cluster->generation);
	free(cluster->endpoints);
	free(cluster->candidates);
	free(cluster->candidate_numbers);
	free(cluster->name);
	free(cluster);
}

struct stats_set *cluster_stats(struct clusters *all, const char *name)
{
	struct cluster *cluster = cluster_find(all, name);
	return cluster ? cluster->stats : stats_set(all->tunnel->stats, STATS_CLUSTER, name);
}

/* --- endpoints --------------------------------------------------------------------------------------------------- */

static struct endpoint *endpoint_new(struct cluster *cluster, const struct config_endpoint *config)
{
	struct endpoint *e = calloc(1, sizeof(*e));
	if (!e || !(e->text = strdup(config->address.text)))
		abort();
	e->cluster = cluster;
	e->hash = balance_hash(e->text);
	return e;
}

static void endpoint_free(struct endpoint *e)
{
	endpoint_health_free(e->health);
	for (unsigned kind = 0; kind < POOL_KINDS; kind++)
		if (e->pools[kind])
			pool_retire(e->pools[kind]);
	free(e->text);
	free(e);
}

static struct endpoint *take_endpoint(struct endpoint **from, unsigned n, const char *text)
{
	for (unsigned i = 0; i < n; i++) {
		struct endpoint *e = from[i];
		if (e && strcmp(e->text, text) == 0) {
			from[i] = NULL;
			return e;
		}
	}
	return NULL;
}

/* The endpoints of the configuration; those that were there before keep their connections and health. */
static void set_endpoints(struct cluster *cluster, const struct config_cluster *config)
{
	struct endpoint **before = cluster->endpoints;
	unsigned n_before = cluster->n, n = config ? (unsigned)config->n_endpoints : 0;
	cluster->endpoints = calloc(n + 1, sizeof(*cluster->endpoints));
	cluster->n = n;
	free(cluster->candidates);
	free(cluster->candidate_numbers);
	cluster->candidates = calloc(n + 1, sizeof(*cluster->candidates));
	cluster->candidate_numbers = calloc(n + 1, sizeof(*cluster->candidate_numbers));
	if (!cluster->endpoints || !cluster->candidates || !cluster->candidate_numbers)
		abort();
	for (unsigned i = 0; i < n; i++) {
		struct endpoint *e = take_endpoint(before, n_before, config->endpoints[i].address.text);
		if (!e)
			e = endpoint_new(cluster, &config->endpoints[i]);
		e->config = &config->endpoints[i];
		e->number = i;
		cluster->endpoints[i] = e;
	}
	for (unsigned i = 0; i < n_before; i++)
		if (before[i])
			endpoint_free(before[i]);
	free(before);
}

static const struct endpoint_slot *slot_of(const struct endpoint *e)
{
	const struct cluster *cluster = e->cluster;
	struct endpoint_table *table = cluster->generation->endpoints;
	return table ? endpoint_table_slot(table, cluster->number, e->number) : NULL;
}

static uint32_t weight_of(const struct endpoint *e)
{
	const struct endpoint_slot *slot = slot_of(e);
	if (slot)
		return slot->drained ? 0 : slot->weight;
	return e->config->weight;
}

/* What other workers found; of what we found ourselves the table knows later. */
static bool down_elsewhere(const struct endpoint *e)
{
	const struct endpoint_slot *slot = slot_of(e);
	uint32_t own = 1u << (worker_index(e->cluster->all->tunnel->worker) & 31);
	return slot && (slot->down & ~own) != 0;
}

bool endpoint_ejected(const struct endpoint *e)
{
	return e->ejected_until > 0 && now_us() < e->ejected_until;
}

static bool usable(const struct endpoint *e)
{
	return !e->down && !down_elsewhere(e) && !endpoint_ejected(e);
}

static uint32_t endpoint_load(const struct endpoint *e)
{
	uint32_t load = 0;
	for (unsigned kind = 0; kind < POOL_KINDS; kind++)
		if (e->pools[kind])
			load += pool_load(e->pools[kind]);
	return load;
}

/* --- choosing ---------------------------------------------------------------------------------------------------- */

static unsigned gather(struct cluster *cluster, bool panic, uint64_t tried)
{
	unsigned n = 0;
	for (unsigned i = 0; i < cluster->n; i++) {
		struct endpoint *e = cluster->endpoints[i];
		uint32_t weight = weight_of(e);
		if (weight == 0 || (i < 64 && (tried >> i & 1)) || (!panic && !usable(e)))
			continue;
		cluster->candidate_numbers[n] = i;
		cluster->candidates[n++] =
			(struct balance_candidate){.weight = weight, .hash = e->hash, .turn = &e->turn, .load = endpoint_load(e)};
	}
	return n;
}

struct endpoint *cluster_named(struct cluster *cluster, const char *text)
{
	for (unsigned i = 0; text && *text && i < cluster->n; i++) {
		struct endpoint *e = cluster->endpoints[i];
		if (strcmp(e->text, text) == 0 && weight_of(e) > 0 && usable(e))
			return e;
	}
	return NULL;
}

/* Healthy ones not tried before, else healthy ones; when none is healthy, any that is not drained ("panic": the checks
 * may be what is wrong). */
struct endpoint *cluster_choose(struct cluster *cluster, uint64_t key, uint64_t tried)
{
	unsigned n = gather(cluster, false, tried);
	if (n == 0 && tried)
		n = gather(cluster, false, 0);
	if (n == 0)
		n = gather(cluster, true, tried);
	if (n == 0 && tried)
		n = gather(cluster, true, 0);
	if (n == 0)
		return NULL;
	unsigned i = balance_pick(cluster->config->balance, cluster->candidates, n, key);
	return cluster->endpoints[cluster->candidate_numbers[i]];
}

/* --- passive health ---------------------------------------------------------------------------------------------- */

static bool may_eject(const struct cluster *cluster)
{
	unsigned out = 1;
	for (unsigned i = 0; i < cluster->n; i++)
		out += endpoint_ejected(cluster->endpoints[i]);
	return out * 100 <= cluster->config->ejection.max_percent * cluster->n;
}

static void eject(struct endpoint *e, const char *reason)
{
	const struct config_ejection *config = &e->cluster->config->ejection;
	uint64_t now = now_us();
	/* One that did well for as long as it was out begins anew. */
	uint64_t last = (uint64_t)config->time * 1000 * e->ejections;
	if (e->ejected_until && now - e->ejected_until > last)
		e->ejections = 0;
	if (e->ejections < EJECTIONS_MAX)
		e->ejections++;
	e->ejected_until = now + (uint64_t)config->time * 1000 * e->ejections;
	snprintf(e->reason, sizeof(e->reason), "%s", reason);
	stats_add(e->cluster->stats, STATS_CLUSTER_EJECTIONS, 1);
	log_warn("endpoint ejected", "cluster=%s endpoint=%s failures=%u for_ms=%llu reason=%s", e->cluster->name, e->text,
	         e->failures, (unsigned long long)config->time * e->ejections, log_value(reason));
	e->failures = 0;
}

void endpoint_report(struct endpoint *e, bool ok, const char *reason)
{
	const struct config_ejection *config = &e->cluster->config->ejection;
	if (ok) {
		e->failures = 0;
		return;
	}
	e->failures++;
	if (config->failures > 0 && e->failures >= config->failures && !endpoint_ejected(e) && may_eject(e->cluster))
		eject(e, reason);
}

void cluster_report(struct clusters *all, const char *name, int number, bool ok)
{
	struct cluster *cluster = cluster_find(all, name);
	if (cluster && number >= 0 && (unsigned)number < cluster->n)
		endpoint_report(cluster->endpoints[number], ok, "failed on flows");
}

/* --- what router hears ------------------------------------------------------------------------------------------- */

static void tell_router(struct endpoint *e)
{
	struct tunnel *tunnel = e->cluster->all->tunnel;
	struct ipc_health message = {
		.generation = e->cluster->generation->number,
		.cluster = e->cluster->name,
		.endpoint = e->text,
		.state = e->down ? "down" : "up",
		.reason = e->down ? e->reason : NULL,
	};
	if (tunnel->router && !e->cluster->retired)
		ipc_send(tunnel->router, IPC_MSG_HEALTH, &message, -1);
}

void endpoint_set_down(struct endpoint *e, bool down, const char *reason)
{
	if (e->down == down)
		return;
	e->down = down;
	snprintf(e->reason, sizeof(e->reason), "%s", reason);
	if (down)
		log_warn("endpoint down", "cluster=%s endpoint=%s reason=%s", e->cluster->name, e->text, log_value(reason));
	else
		log_info("endpoint up", "cluster=%s endpoint=%s", e->cluster->name, e->text);
	tell_router(e);
}

/* A router that began anew, or a new table, knows nothing yet. */
static void tell_all(struct clusters *all)
{
	struct cluster *cluster, *next;
	all->told = all->tunnel->router;
	all->told_pid = all->told ? ipc_peer_pid(all->told) : 0;
	HASH_ITER(hh, all->table, cluster, next)
		for (unsigned i = 0; i < cluster->n; i++)
			if (cluster->endpoints[i]->down)
				tell_router(cluster->endpoints[i]);
}

/* --- the configuration ------------------------------------------------------------------------------------------- */

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_tls(const struct config_tls *a, const struct config_tls *b)
{
	if (a->enabled != b->enabled || a->no_identity != b->no_identity || a->min_version != b->min_version ||
	    !same_text(a->server_name, b->server_name) || !same_text(a->certificate, b->certificate) ||
	    !same_text(a->key, b->key) || !same_text(a->crl, b->crl) || a->authorities.n != b->authorities.n)
		return false;
	for (size_t i = 0; i < a->authorities.n; i++)
		if (strcmp(a->authorities.v[i], b->authorities.v[i]) != 0)
			return false;
	return true;
}

/* Whether connections made under one may serve under the other. What a target may be is checked when it is dialled. */
static bool same_connections(const struct config_cluster *a, const struct config_cluster *b)
{
	return a->carry == b->carry && a->target == b->target && a->max_streams == b->max_streams && same_tls(&a->tls, &b->tls);
}

/* What targets may be has changed: what is pooled was checked by the old rules. */
static void retire_targets(struct cluster *cluster)
{
	struct pool *pool, *next;
	HASH_ITER(hh, cluster->targets, pool, next)
		pool_retire(pool);
}

static void cluster_update(struct cluster *cluster, struct generation *generation, unsigned number)
{
	const struct config_cluster *config = &generation->config->clusters[number];
	struct generation *before = cluster->generation;
	cluster->generation = generation_ref(generation);
	cluster->config = config;
	cluster->number = number;
	set_endpoints(cluster, config);
	retire_targets(cluster);
	for (unsigned i = 0; i < cluster->n; i++)
		endpoint_health_update(cluster->endpoints[i]);
	generation_unref(before);
}

static void cluster_new(struct clusters *all, struct generation *generation, unsigned number)
{
	const char *name = generation->config->clusters[number].name;
	struct cluster *cluster = calloc(1, sizeof(*cluster));
	if (!cluster || !(cluster->name = strdup(name)))
		abort();
	cluster->all = all;
	cluster->refs = 1;
	cluster->stats = stats_set(all->tunnel->stats, STATS_CLUSTER, name);
	LIST_INIT(&cluster->pools);
	HASH_ADD_KEYPTR(hh, all->table, cluster->name, strlen(cluster->name), cluster);
	cluster_update(cluster, generation, number);
}

static void cluster_retire(struct cluster *cluster)
{
	struct clusters *all = cluster->all;
	HASH_DEL(all->table, cluster);
	cluster->retired = true;
	LIST_INSERT_HEAD(&all->retired, cluster, retired_link);
	set_endpoints(cluster, NULL);
	retire_targets(cluster);
	cluster_unref(cluster);
}

static int cluster_number(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_clusters; i++)
		if (strcmp(config->clusters[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void revoke_peers(const struct cluster *cluster)
{
	struct pool *pool;
	LIST_FOREACH(pool, &cluster->pools, link)
		conns_revoke(pool);
}

void clusters_commit(struct clusters *all)
{
	attempts_start_due(all);   /* decided before the change: they go by the clusters of their decision */
	struct generation *generation = all->tunnel->current;
	const struct config *config = generation->config;
	struct cluster *cluster, *next;
	HASH_ITER(hh, all->table, cluster, next) {
		int number = cluster_number(config, cluster->name);
		if (number >= 0 && same_connections(cluster->config, &config->clusters[number]))
			cluster_update(cluster, generation, (unsigned)number);
		else
			cluster_retire(cluster);
	}
	for (unsigned i = 0; i < config->n_clusters; i++)
		if (!cluster_find(all, config->clusters[i].name))
			cluster_new(all, generation, i);
	HASH_ITER(hh, all->table, cluster, next)
		revoke_peers(cluster);
	LIST_FOREACH(cluster, &all->retired, retired_link)
		revoke_peers(cluster);
	tell_all(all);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static void sweep_cluster(struct cluster *cluster, uint64_t now)
{
	struct pool *pool, *next;
	cluster_ref(cluster);
	for (pool = LIST_FIRST(&cluster->pools); pool; pool = next) {
		next = LIST_NEXT(pool, link);
		pool_sweep(pool, now);
	}
	cluster_unref(cluster);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct clusters *all = arg;
	struct cluster *cluster, *next;
	uint64_t now = now_us();
	(void)fd, (void)what;
	HASH_ITER(hh, all->table, cluster, next)
		sweep_cluster(cluster, now);
	for (cluster = LIST_FIRST(&all->retired); cluster; cluster = next) {
		next = LIST_NEXT(cluster, retired_link);
		sweep_cluster(cluster, now);
	}
	const struct ipc_channel *router = all->tunnel->router;
	if (all->told != router || (router && all->told_pid != ipc_peer_pid(router)))
		tell_all(all);
}

struct clusters *clusters_new(struct tunnel *tunnel)
{
	static const struct timeval second = {.tv_sec = 1};
	struct clusters *all = calloc(1, sizeof(*all));
	if (!all)
		abort();
	all->tunnel = tunnel;
	all->random = now_us();
	LIST_INIT(&all->retired);
	attempts_init(all);
	all->sweep = event_new(tunnel->base, -1, EV_PERSIST, on_sweep, all);
	if (!all->sweep || event_add(all->sweep, &second) < 0)
		abort();
	return all;
}

static void destroy_pools(struct cluster *cluster)
{
	cluster_ref(cluster);
	while (!LIST_EMPTY(&cluster->pools))
		pool_destroy(LIST_FIRST(&cluster->pools));
	cluster_unref(cluster);
}

void clusters_free(struct clusters *all)
{
	struct cluster *cluster, *next;
	if (!all)
		return;
	attempts_free(all);
	event_free(all->sweep);
	HASH_ITER(hh, all->table, cluster, next) {
		destroy_pools(cluster);
		cluster_retire(cluster);
	}
	while ((cluster = LIST_FIRST(&all->retired)))
		destroy_pools(cluster);
	free(all);
}

/* --- what is there ----------------------------------------------------------------------------------------------- */

static void endpoint_json(const struct endpoint *e, struct json *j)
{
	unsigned in[CONN_STATES] = {0};
	for (unsigned kind = 0; kind < POOL_KINDS; kind++)
		for (unsigned s = 0; e->pools[kind] && s < CONN_STATES; s++)
			in[s] += e->pools[kind]->in[s];
	const struct endpoint_slot *slot = slot_of(e);
	const char *state = slot && slot->drained ? "drained" : e->down || down_elsewhere(e) ? "down" :
	                    endpoint_ejected(e) ? "ejected" : "up";
	json_object(j, NULL);
	json_uint(j, "worker", worker_index(e->cluster->all->tunnel->worker));
	json_str(j, "cluster", e->cluster->name);
	json_str(j, "endpoint", e->text);
	json_uint(j, "weight", slot ? slot->weight : e->config->weight);
	json_str(j, "state", state);
	json_str(j, "reason", e->down || endpoint_ejected(e) ? e->reason : NULL);
	json_uint(j, "connections", in[CONN_READY] + in[CONN_BUSY] + in[CONN_CLOSING]);
	json_uint(j, "connecting", in[CONN_CONNECTING]);
	json_uint(j, "active", endpoint_load(e));
	json_end(j);
}

static void targets_json(const struct cluster *cluster, struct json *j)
{
	unsigned in[CONN_STATES] = {0}, load = 0;
	const struct pool *pool;
	LIST_FOREACH(pool, &cluster->pools, link) {
		for (unsigned s = 0; s < CONN_STATES; s++)
			in[s] += pool->in[s];
		load += pool_load(pool);
	}
	json_object(j, NULL);
	json_uint(j, "worker", worker_index(cluster->all->tunnel->worker));
	json_str(j, "cluster", cluster->name);
	json_str(j, "endpoint", "target");
	json_uint(j, "weight", 1);
	json_str(j, "state", "up");
	json_str(j, "reason", NULL);
	json_uint(j, "connections", in[CONN_READY] + in[CONN_BUSY] + in[CONN_CLOSING]);
	json_uint(j, "connecting", in[CONN_CONNECTING]);
	json_uint(j, "active", load);
	json_end(j);
}

void clusters_json(struct clusters *all, struct json *j)
{
	struct cluster *cluster, *next;
	HASH_ITER(hh, all->table, cluster, next) {
		if (cluster->config->target)
			targets_json(cluster, j);
		for (unsigned i = 0; i < cluster->n; i++)
			endpoint_json(cluster->endpoints[i], j);
	}
}
