#include "workers/tunnel/pool.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/conn.h"

#define H2_CONNECTIONS 4             /* max_connections: 0 */
#define H2_DATAGRAM_CONNECTIONS 64   /* with 1,000 streams each: what a UDP listener takes in */
#define OTHER_CONNECTIONS 1024
#define UDP_SOCKETS 65536
#define ASK_AGAIN_US 5000000         /* a name that did not resolve */

/* --- life -------------------------------------------------------------------------------------------------------- */

static bool pool_idle(const struct pool *pool)
{
	return TAILQ_EMPTY(&pool->conns) && pool->waiting == 0 && pool->holds == 0;
}

bool pool_retired(const struct pool *pool)
{
	return !pool->endpoint && !pool->key;
}

/* Pools of configured endpoints stay; others go when nothing is left in them. */
static void pool_release(struct pool *pool)
{
	if (!pool_idle(pool) || pool->endpoint)
		return;
	if (pool->key)
		HASH_DEL(pool->cluster->targets, pool);
	LIST_REMOVE(pool, link);
	resolve_cancel(pool->query);
	cluster_unref(pool->cluster);
	free(pool->key);
	free(pool->name);
	free(pool->host);
	free(pool->unix_path);
	free(pool->stale);
	free(pool);
}

void pool_hold(struct pool *pool)
{
	pool->holds++;
}

void pool_let(struct pool *pool)
{
	assert(pool->holds > 0);
	pool->holds--;
	pool_release(pool);
}

static char *copy(const char *text)
{
	char *out = text ? strdup(text) : NULL;
	if (text && !out)
		abort();
	return out;
}

static struct pool *pool_new(struct cluster *cluster, enum pool_kind kind, const char *host, uint16_t port,
                             const char *unix_path)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		abort();
	*pool = (struct pool){.cluster = cluster_ref(cluster), .kind = kind, .host = copy(host), .port = port,
	                      .unix_path = copy(unix_path)};
	TAILQ_INIT(&pool->conns);
	TAILQ_INIT(&pool->waiters);
	LIST_INSERT_HEAD(&cluster->pools, pool, link);
	return pool;
}

struct pool *pool_for_endpoint(struct endpoint *endpoint, enum pool_kind kind)
{
	const struct config_address *address = &endpoint->config->address;
	struct pool *pool = endpoint->pools[kind];
	if (pool)
		return pool;
	pool = pool_new(endpoint->cluster, kind, address->host, address->port, address->unix_path);
	pool->endpoint = endpoint;
	pool->name = copy(endpoint->text);
	endpoint->pools[kind] = pool;
	return pool;
}

/* Idle connections of the target that was not used longest make room. */
static void trim_targets(struct cluster *cluster)
{
	struct pool *pool, *next;
	if (HASH_COUNT(cluster->targets) < CLUSTER_TARGETS_MAX)
		return;
	HASH_ITER(hh, cluster->targets, pool, next) {
		if (pool_load(pool) > 0 || pool->in[CONN_CONNECTING] > 0)
			continue;
		pool_hold(pool);
		conns_close_idle(pool, UINT64_MAX);
		pool_let(pool);
		return;
	}
}

struct pool *pool_for_target(struct cluster *cluster, enum pool_kind kind, const char *host, uint16_t port)
{
	static const char names[POOL_KINDS] = {[POOL_TCP] = 't', [POOL_H1] = '1', [POOL_H2] = '2',
		[POOL_H2_DATAGRAMS] = 'd', [POOL_UDP] = 'u'};
	char key[300];
	struct pool *pool;
	const char *format_open = strchr(host, ':') ? "[" : "", *format_close = *format_open ? "]" : "";
	snprintf(key, sizeof(key), "%c%s%s%s:%u", names[kind], format_open, host, format_close, port);
	HASH_FIND_STR(cluster->targets, key, pool);
	if (pool) {
		HASH_DEL(cluster->targets, pool);
	} else {
		trim_targets(cluster);
		pool = pool_new(cluster, kind, host, port, NULL);
		pool->target = true;
		pool->key = copy(key);
		pool->name = copy(key + 1);
	}
	HASH_ADD_KEYPTR(hh, cluster->targets, pool->key, strlen(pool->key), pool);
	return pool;
}

/* --- serving ----------------------------------------------------------------------------------------------------- */

static unsigned connections_max(const struct pool *pool)
{
	static const unsigned presets[POOL_KINDS] = {
		[POOL_TCP] = OTHER_CONNECTIONS, [POOL_H1] = OTHER_CONNECTIONS, [POOL_H2] = H2_CONNECTIONS,
		[POOL_H2_DATAGRAMS] = H2_DATAGRAM_CONNECTIONS, [POOL_UDP] = UDP_SOCKETS};
	unsigned max = pool->cluster->config->max_connections;
	return max ? max : presets[pool->kind];
}

static unsigned usable(const struct pool *pool)
{
	return pool->in[CONN_CONNECTING] + pool->in[CONN_READY] + pool->in[CONN_BUSY];
}

/* Connections being made that the queue justifies. */
static unsigned connecting_wanted(const struct pool *pool)
{
	unsigned streams = pool->cluster->config->max_streams;
	if (!pool_is_h2(pool->kind) || streams == 0)
		return pool_is_h2(pool->kind) && pool->waiting > 0 ? 1 : pool->waiting;
	return pool->waiting / streams + (pool->waiting % streams > 0);
}

static void dequeue(struct pool_waiter *waiter)
{
	struct pool *pool = waiter->pool;
	TAILQ_REMOVE(&pool->waiters, waiter, link);
	pool->waiting--;
	pool->cluster->waiting--;
	waiter->pool = NULL;
}

/* The first waiter takes a leg on a connection that has room. */
static bool serve_first(struct pool *pool)
{
	struct pool_waiter *waiter = TAILQ_FIRST(&pool->waiters);
	enum flow_error error = FLOW_NONE;
	const char *address;
	bool reused;
	struct leg *leg = conns_open(pool, waiter->flow, &address, &reused, &error);
	if (error) {
		dequeue(waiter);
		waiter->failed(waiter, error, "the next hop does not take extended CONNECT (RFC 8441)");
		return true;
	}
	if (!leg)
		return false;
	dequeue(waiter);
	waiter->opened(waiter, leg, address, reused);
	return true;
}

void pool_serve(struct pool *pool)
{
	pool_hold(pool);
	while (pool->waiting > 0 && serve_first(pool))
		;
	while (pool->in[CONN_CONNECTING] < connecting_wanted(pool) && usable(pool) < connections_max(pool))
		conn_dial(pool);
	pool_let(pool);
}

void pool_wait(struct pool *pool, struct pool_waiter *waiter)
{
	waiter->pool = pool;
	TAILQ_INSERT_TAIL(&pool->waiters, waiter, link);
	pool->waiting++;
	pool->cluster->waiting++;
	pool_serve(pool);
}

void pool_leave(struct pool_waiter *waiter)
{
	struct pool *pool = waiter->pool;
	if (!pool)
		return;
	dequeue(waiter);
	pool_release(pool);
}

/* A connection could not be made. With one connection per waiter, one waiter hears of it; those who wait for a shared
 * connection all do, unless another is there or on its way. */
void pool_conn_failed(struct pool *pool, enum flow_error error, const char *detail)
{
	unsigned n = !pool_is_h2(pool->kind) ? 1 : usable(pool) > 0 ? 0 : pool->waiting;
	pool_hold(pool);
	for (; n > 0 && pool->waiting > 0; n--) {
		struct pool_waiter *waiter = TAILQ_FIRST(&pool->waiters);
		dequeue(waiter);
		waiter->failed(waiter, error, detail);
	}
	pool_serve(pool);
	pool_let(pool);
}

unsigned pool_load(const struct pool *pool)
{
	return pool->waiting + (pool_is_h2(pool->kind) ? conns_streams(pool) : pool->in[CONN_BUSY]);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

void pool_retire(struct pool *pool)
{
	pool->endpoint = NULL;
	if (pool->key) {
		HASH_DEL(pool->cluster->targets, pool);
		free(pool->key);
		pool->key = NULL;
	}
	pool_hold(pool);
	conns_retire(pool);
	pool_let(pool);
}

/* --- names whose addresses change -------------------------------------------------------------------------------- */

void pool_resolved(struct pool *pool, const struct resolved *resolved)
{
	if (resolved->ttl == UINT32_MAX) {       /* it is an address */
		pool->ask_at = UINT64_MAX;
		return;
	}
	if (!pool->stale)
		pool->stale = malloc(sizeof(*pool->stale));
	if (pool->stale)
		*pool->stale = *resolved;
	pool->ask_at = now_us() + ((uint64_t)resolved->ttl + 1) * 1000000;
}

static void on_asked(void *arg, const struct resolved *resolved, enum flow_error error)
{
	struct pool *pool = arg;
	(void)error;
	pool->query = NULL;
	if (!resolved) {                         /* what is there goes on */
		pool->ask_at = now_us() + ASK_AGAIN_US;
		return;
	}
	pool_resolved(pool, resolved);
	pool_hold(pool);
	conns_leave(pool, resolved);
	pool_let(pool);
}

static void ask_again(struct pool *pool, uint64_t now)
{
	const struct config_cluster *config = pool->cluster->config;
	struct resolved resolved;
	if (!pool->endpoint || !pool->host || pool->query || now < pool->ask_at || TAILQ_EMPTY(&pool->conns))
		return;
	pool->query = resolve(pool->cluster->all->tunnel->resolver, pool->host, config->ttl_min, config->ttl_max, &resolved,
	                      on_asked, pool);
	if (!pool->query)
		on_asked(pool, &resolved, FLOW_NONE);
}

void pool_sweep(struct pool *pool, uint64_t now)
{
	uint64_t idle = (uint64_t)pool->cluster->config->idle_timeout * 1000;
	pool_hold(pool);
	pool_serve(pool);
	if (idle > 0)
		conns_close_idle(pool, now > idle ? now - idle : 0);
	ask_again(pool, now);
	pool_let(pool);
}

void pool_destroy(struct pool *pool)
{
	pool_hold(pool);
	while (!TAILQ_EMPTY(&pool->waiters)) {
		struct pool_waiter *waiter = TAILQ_FIRST(&pool->waiters);
		dequeue(waiter);
		waiter->failed(waiter, FLOW_INTERNAL, "the worker ends");
	}
	conns_destroy(pool);
	if (pool->endpoint)
		pool->endpoint->pools[pool->kind] = NULL;
	pool->endpoint = NULL;
	pool_let(pool);
}
