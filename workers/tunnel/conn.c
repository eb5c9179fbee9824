#include "workers/tunnel/conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/h1.h"
#include "workers/tunnel/h2.h"
#include "workers/tunnel/hop_watch.h"
#include "workers/tunnel/leg_tcp.h"
#include "workers/tunnel/leg_udp.h"
#include "workers/tunnel/tls.h"

#define CONNECT_TIMEOUT 5000

struct conn {
	TAILQ_ENTRY(conn) link;
	struct pool *pool;            /* NULL: the pool is gone, the connection about to be */
	enum conn_state state;
	struct dial *dial;            /* CONNECTING, until there is a socket */
	struct event *timer;          /* CONNECTING */
	struct generation *generation;   /* CONNECTING: the TLS handshake looks into its configuration */
	int fd;                       /* the transport's; udp: until the leg has it */
	struct transport *transport;  /* tcp: until the leg has it */
	struct h1_client *h1;
	struct h2 *h2;
	bool counted;                 /* among the open connections */
	SSL *ssl;                     /* the transport's; CONNECTING */
	char *node;                   /* of the own domain, as its certificate says; NULL: none */
	unsigned uses;
	uint64_t started, idle_since; /* µs; idle_since 0: not idle when last looked at */
	char address[64];
};

static const char *const state_names[CONN_STATES] = {"connecting", "ready", "busy", "closing"};

/* --- state ------------------------------------------------------------------------------------------------------------ */

static void conn_set(struct conn *c, enum conn_state state)
{
	if (c->state == state)
		return;
	log_debug("connection state", "cluster=%s endpoint=%s address=%s from=%s to=%s", c->pool->cluster->name,
	          c->pool->name, c->address, state_names[c->state], state_names[state]);
	c->pool->in[c->state]--;
	c->pool->in[state]++;
	c->state = state;
	if (c->timer) {
		event_free(c->timer);
		c->timer = NULL;
	}
	/* Where the handshake is cut short, the SSL may still look until it goes. */
	if (state != CONN_CLOSING) {
		generation_unref(c->generation);
		c->generation = NULL;
	}
	c->idle_since = state == CONN_READY ? now_us() : 0;
	/* Those with room come first, the last used of them foremost. */
	TAILQ_REMOVE(&c->pool->conns, c, link);
	if (state == CONN_READY)
		TAILQ_INSERT_HEAD(&c->pool->conns, c, link);
	else
		TAILQ_INSERT_TAIL(&c->pool->conns, c, link);
}

/* Out of its pool: nothing reaches it from there any more. The caller holds the pool. */
static void conn_detach(struct conn *c)
{
	if (c->timer)
		event_free(c->timer);
	c->timer = NULL;
	if (!c->pool)
		return;
	TAILQ_REMOVE(&c->pool->conns, c, link);
	c->pool->in[c->state]--;
	if (c->counted)
		stats_add(c->pool->cluster->stats, STATS_CLUSTER_CONNECTIONS_OPEN, -1);
	c->pool = NULL;
}

static void conn_free(struct conn *c)
{
	struct pool *pool = c->pool;
	if (pool)
		pool_hold(pool);
	conn_detach(c);
	dial_cancel(c->dial);
	generation_unref(c->generation);
	free(c->node);
	free(c);
	if (pool)
		pool_let(pool);
}

/* --- its beginning ---------------------------------------------------------------------------------------------------- */

/* Frees it, or leaves it CLOSING where an HTTP connection still has to notice. */
static void conn_abandon(struct conn *c)
{
	if (c->h1 || c->h2) {
		conn_set(c, CONN_CLOSING);
		shutdown(c->fd, SHUT_RDWR);
		return;
	}
	if (c->transport)
		transport_free(c->transport, true);
	else if (c->pool->kind == POOL_UDP && c->fd >= 0)
		close(c->fd);
	conn_free(c);
}

static void conn_failed(struct conn *c, enum flow_error error, const char *reason, bool gone)
{
	struct pool *pool = c->pool;
	char detail[320];
	snprintf(detail, sizeof(detail), "%s%s%s", c->address, *c->address ? ": " : "", reason);
	log_debug("connection failed", "cluster=%s endpoint=%s reason=%s", pool->cluster->name, pool->name, log_value(detail));
	pool_hold(pool);
	if (gone)
		conn_free(c);
	else
		conn_abandon(c);
	/* What the guard refuses says nothing of an endpoint. */
	if (pool->endpoint && error != FLOW_TARGET_REFUSED)
		endpoint_report(pool->endpoint, false, detail);
	pool_conn_failed(pool, error, detail);
	pool_let(pool);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	const char *phase = c->dial ? "no connection in time" : "connected, but not ready in time";
	(void)fd, (void)what;
	conn_failed(c, FLOW_CONNECT_TIMEOUT, phase, false);
}

static void close_idle(struct conn *c);

static bool conn_idle(const struct conn *c)
{
	return c->state == CONN_READY && (!c->h2 || h2_streams(c->h2) == 0);
}

/* It can carry something (again). */
static void conn_ready(struct conn *c)
{
	struct pool *pool = c->pool;
	pool_hold(pool);
	conn_set(c, CONN_READY);
	pool_serve(pool);
	/* Serving may have ended any connection: this one is looked for. */
	struct conn *still;
	TAILQ_FOREACH(still, &pool->conns, link)   /* among the READY, which come first */
		if (still == c || still->state != CONN_READY)
			break;
	if (still == c && conn_idle(c) && (pool->kind == POOL_TCP || pool->kind == POOL_UDP || pool_retired(pool)))
		close_idle(c);
	pool_let(pool);
}

static bool revoked(const struct conn *c)
{
	const struct config *config = c->pool->cluster->all->tunnel->current->config;
	return c->node && tls_revoked(config, c->node, config->domain);
}

static void on_ready(void *arg)
{
	struct conn *c = arg;
	if (!c->pool || c->state != CONN_CONNECTING)
		return;
	if (c->ssl)
		c->node = tls_own_node(c->ssl, c->pool->cluster->all->tunnel->current->config);
	c->ssl = NULL;
	if (revoked(c))                /* since the handshake began */
		return conn_failed(c, FLOW_TLS_CERTIFICATE, "certificate: revoked", false);
	c->counted = true;
	stats_add(c->pool->cluster->stats, STATS_CLUSTER_CONNECTIONS, 1);
	stats_add(c->pool->cluster->stats, STATS_CLUSTER_CONNECTIONS_OPEN, 1);
	stats_observe(c->pool->cluster->stats, STATS_CLUSTER_CONNECT_TIME, now_us() - c->started);
	conn_ready(c);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct conn *c = arg;
	conn_failed(c, error, detail ? detail : "broken", false);
}

static const struct transport_callbacks tcp_callbacks = {.ready = on_ready, .broken = on_broken};

/* --- HTTP connections ------------------------------------------------------------------------------------------------- */

static void on_gone(void *arg, enum flow_error error, const char *detail)
{
	struct conn *c = arg;
	c->h1 = NULL;
	c->h2 = NULL;
	if (c->pool && c->state == CONN_CONNECTING)
		return conn_failed(c, error ? error : FLOW_TERMINATED, detail && *detail ? detail : "closed before it was ready", true);
	struct pool *pool = c->pool;
	if (pool)
		pool_hold(pool);
	conn_free(c);
	if (pool) {
		pool_serve(pool);
		pool_let(pool);
	}
}

static void on_closing(void *arg)
{
	struct conn *c = arg;
	struct pool *pool = c->pool;
	if (!pool || c->state == CONN_CONNECTING)
		return;
	conn_set(c, CONN_CLOSING);
	pool_serve(pool);
}

static void on_room(void *arg)
{
	struct conn *c = arg;
	if (!c->pool)
		return;
	if (c->state == CONN_CLOSING && h2_streams(c->h2) == 0)
		h2_drain(c->h2, false);
	else if (c->state == CONN_READY)
		conn_ready(c);
}

static void on_idle(void *arg)
{
	struct conn *c = arg;
	if (c->pool && c->state == CONN_BUSY)
		conn_ready(c);
}

static const struct h2_pool_callbacks h2_callbacks = {
	.ready = on_ready,
	.room = on_room,
	.closing = on_closing,
	.gone = on_gone,
};

static const struct h1_pool_callbacks h1_callbacks = {.ready = on_ready, .idle = on_idle, .gone = on_gone};

static void on_leg_gone(void *arg)
{
	struct conn *c = arg;
	struct pool *pool = c->pool;
	if (pool)
		pool_hold(pool);
	conn_free(c);
	if (pool) {
		pool_serve(pool);
		pool_let(pool);
	}
}

/* --- making one ------------------------------------------------------------------------------------------------------- */

static void on_dialled(void *arg, const struct dial_result *result)
{
	struct conn *c = arg;
	struct pool *pool = c->pool;
	const struct config_cluster *config = pool->cluster->config;
	struct tunnel *tunnel = pool->cluster->all->tunnel;
	const char *host = tls_host(config, pool->host);
	char authority[300];
	SSL *ssl = NULL;
	c->dial = NULL;
	if (result->resolved && !pool->target)
		pool_resolved(pool, result->resolved);
	generation_unref(c->generation);
	c->generation = generation_ref(pool->cluster->generation);
	if (result->fd < 0)
		return conn_failed(c, result->error, result->detail, false);
	c->fd = result->fd;
	dial_address_text((const struct sockaddr *)&result->address, c->address, sizeof(c->address));
	if (pool->kind == POOL_UDP)
		return on_ready(c);
	if (config->tls.enabled && !(ssl = tls_connect(pool->cluster->generation->tls, config, host))) {
		close(c->fd);
		return conn_failed(c, FLOW_TLS_PROTOCOL, "no TLS context could be made", false);
	}
	c->ssl = ssl;
	struct transport *transport =
		transport_new(tunnel->base, c->fd, ssl, TRANSPORT_CONNECTING, pool->kind == POOL_TCP ? &tcp_callbacks : NULL, c);
	snprintf(authority, sizeof(authority), strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, pool->port ? pool->port : 443);
	if (pool_is_h2(pool->kind))
		transport_watch(transport, pool->kind == POOL_H2_DATAGRAMS ? HOP_LOST_DATAGRAMS_MS : HOP_LOST_MS);
	if (pool_is_h2(pool->kind))
		h2_client_authority(c->h2 = h2_client_new(tunnel, transport, config->max_streams, &h2_callbacks, c), authority);
	else if (pool->kind == POOL_H1)
		h1_client_authority(c->h1 = h1_client_new(tunnel, transport, &h1_callbacks, c), authority);
	else
		c->transport = transport;
}

void conn_dial(struct pool *pool)
{
	struct cluster *cluster = pool->cluster;
	struct tunnel *tunnel = cluster->all->tunnel;
	struct conn *c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	*c = (struct conn){.pool = pool, .fd = -1, .started = now_us()};
	TAILQ_INSERT_TAIL(&pool->conns, c, link);
	pool->in[CONN_CONNECTING]++;
	struct dial_target target = {
		.host = pool->host,
		.port = pool->port,
		.unix_path = pool->unix_path,
		.hop = pool_is_h2(pool->kind),
		.udp = pool->kind == POOL_UDP,
		.ttl_min = cluster->config->ttl_min,
		.ttl_max = cluster->config->ttl_max,
		.guard = pool->target ? cluster->config : NULL,
		.generation = cluster->generation,
		.stale = pool->stale,
	};
	uint32_t ms = cluster->config->connect_timeout ? cluster->config->connect_timeout : CONNECT_TIMEOUT;
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	c->timer = evtimer_new(tunnel->base, on_timeout, c);
	if (!c->timer || event_add(c->timer, &limit) < 0)
		abort();
	c->dial = dial_new(tunnel, &target, on_dialled, c);
}

/* --- using them ------------------------------------------------------------------------------------------------------- */

static struct leg *open_h2(struct pool *pool, struct flow *flow, struct conn **on, enum flow_error *error)
{
	struct conn *c, *best = NULL;
	unsigned fewest = UINT32_MAX;
	TAILQ_FOREACH(c, &pool->conns, link) {
		if (c->state != CONN_READY)
			break;
		if (h2_room(c->h2) > 0 && h2_streams(c->h2) < fewest) {
			best = c;
			fewest = h2_streams(c->h2);
		}
	}
	if (!best)
		return NULL;
	if (flow_request(flow)->protocol && !h2_extended_connect(best->h2)) {
		*error = FLOW_UPGRADE;
		return NULL;
	}
	*on = best;
	best->idle_since = 0;
	return h2_open(best->h2, flow);
}

static struct leg *open_other(struct pool *pool, struct flow *flow, struct conn **on)
{
	struct conn *c = TAILQ_FIRST(&pool->conns);
	struct leg *leg;
	if (!c || c->state != CONN_READY)
		return NULL;
	*on = c;
	conn_set(c, CONN_BUSY);
	if (pool->kind == POOL_H1)
		return h1_client_open(c->h1, flow);
	if (pool->kind == POOL_UDP) {
		leg = udp_leg_new(pool->cluster->all->tunnel, c->fd, flow, pool->cluster->stats, on_leg_gone, c);
		c->fd = -1;
		return leg;
	}
	leg = tcp_leg_new(pool->cluster->all->tunnel, c->transport, flow, on_leg_gone, c);
	c->transport = NULL;
	return leg;
}

struct leg *conns_open(struct pool *pool, struct flow *flow, const char **address, bool *reused, enum flow_error *error)
{
	static char dialled[64];
	struct conn *c = NULL;
	struct leg *leg = pool_is_h2(pool->kind) ? open_h2(pool, flow, &c, error) : open_other(pool, flow, &c);
	if (!leg)
		return NULL;
	memcpy(dialled, c->address, sizeof(dialled));
	*address = dialled;
	*reused = c->uses++ > 0;
	return leg;
}

unsigned conns_streams(const struct pool *pool)
{
	const struct conn *c;
	unsigned n = 0;
	TAILQ_FOREACH(c, &pool->conns, link)
		n += c->h2 ? h2_streams(c->h2) : 0;
	return n;
}

/* --- ends ------------------------------------------------------------------------------------------------------------- */

/* May free it at once. */
static void close_idle(struct conn *c)
{
	conn_set(c, CONN_CLOSING);
	if (c->h2)
		h2_drain(c->h2, false);
	else if (c->h1)
		h1_client_close(c->h1);
	else
		conn_abandon(c);
}

/* Returns whether it was READY (those come first) and is now to be closed. */
static bool idle_since(struct conn *c, uint64_t since)
{
	if (!conn_idle(c))
		c->idle_since = 0;
	else if (!c->idle_since)
		c->idle_since = now_us();
	return c->idle_since && c->idle_since <= since;
}

void conns_close_idle(struct pool *pool, uint64_t since)
{
	struct conn *c, *next;
	for (c = TAILQ_FIRST(&pool->conns); c && c->state == CONN_READY; c = next) {
		next = TAILQ_NEXT(c, link);
		if (idle_since(c, since))
			close_idle(c);
	}
}

/* Nothing new goes there; what is under way ends by itself. */
static void conn_retire(struct conn *c)
{
	if (conn_idle(c)) {
		close_idle(c);
	} else if (c->state == CONN_READY) {
		conn_set(c, CONN_CLOSING);
		h2_drain(c->h2, false);
	} else if (c->state == CONN_BUSY && c->h1) {
		conn_set(c, CONN_CLOSING);
		h1_client_close(c->h1);
	} else if (c->state == CONN_CONNECTING && c->pool->waiting == 0) {
		conn_abandon(c);
	}
}

void conns_retire(struct pool *pool)
{
	struct conn *c, *next;
	for (c = TAILQ_FIRST(&pool->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state != CONN_READY || conn_idle(c) || pool->waiting == 0)
			conn_retire(c);
	}
}

void conns_revoke(struct pool *pool)
{
	struct conn *c;
	TAILQ_FOREACH(c, &pool->conns, link)
		if (c->state != CONN_CONNECTING && c->fd >= 0 && revoked(c)) {
			log_warn("peer refused", "cluster=%s endpoint=%s address=%s peer=%s reason=revoked", pool->cluster->name, pool->name,
			         c->address, log_value(c->node));
			shutdown(c->fd, SHUT_RDWR);
		}
}

static bool leads_to(const struct conn *c, const struct resolved *addresses)
{
	for (unsigned i = 0; i < addresses->n; i++) {
		union resolve_address address = addresses->v[i];
		char text[64];
		if (address.sa.sa_family == AF_INET)
			((struct sockaddr_in *)&address)->sin_port = htons(c->pool->port);
		else
			((struct sockaddr_in6 *)&address)->sin6_port = htons(c->pool->port);
		dial_address_text((const struct sockaddr *)&address, text, sizeof(text));
		if (strcmp(text, c->address) == 0)
			return true;
	}
	return false;
}

void conns_leave(struct pool *pool, const struct resolved *addresses)
{
	struct conn *c, *next;
	for (c = TAILQ_FIRST(&pool->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if ((c->state == CONN_READY || c->state == CONN_BUSY) && !leads_to(c, addresses))
			conn_retire(c);
	}
}

/* HTTP connections free it when they are gone, at once or later; a busy TCP leg when it ends. */
void conns_destroy(struct pool *pool)
{
	struct conn *c;
	while ((c = TAILQ_FIRST(&pool->conns))) {
		conn_detach(c);
		dial_cancel(c->dial);
		c->dial = NULL;
		if (c->h2) {
			h2_drain(c->h2, true);
		} else if (c->h1) {
			h1_client_close(c->h1);
		} else if (c->state != CONN_BUSY) {
			if (c->transport)
				transport_free(c->transport, true);
			else if (c->fd >= 0)
				close(c->fd);
			conn_free(c);
		}
	}
}
