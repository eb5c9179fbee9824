/* The connections to one endpoint or target, of one kind, and who waits for one. */
#ifndef HERMES_TUNNEL_POOL_H
#define HERMES_TUNNEL_POOL_H

#include "workers/tunnel/dial.h"
#include "workers/tunnel/endpoint.h"

struct pool;
struct conn;

/* CONNECTING: until it can carry something. READY: has room (h2), idle (h1). BUSY: with its one exchange (h1, tcp, udp).
 * CLOSING: takes nothing new. */
enum conn_state { CONN_CONNECTING, CONN_READY, CONN_BUSY, CONN_CLOSING, CONN_STATES };

/* Who waits for a leg; embedded in what it is for. Exactly one of the two is called, once, maybe inside pool_wait(). */
struct pool_waiter {
	TAILQ_ENTRY(pool_waiter) link;
	struct pool *pool;            /* while it waits */
	struct flow *flow;
	void (*opened)(struct pool_waiter *waiter, struct leg *leg, const char *address, bool reused);
	void (*failed)(struct pool_waiter *waiter, enum flow_error error, const char *detail);
};

struct pool {
	struct cluster *cluster;      /* a reference */
	struct endpoint *endpoint;    /* NULL: a target, or the endpoint is configured no more */
	enum pool_kind kind;
	bool target;
	char *name;                   /* the endpoint as configured, or the target's host:port */
	char *host, *unix_path;
	uint16_t port;
	char *key;                    /* of cluster->targets; NULL: not in it */
	UT_hash_handle hh;
	LIST_ENTRY(pool) link;        /* of the cluster */
	TAILQ_HEAD(, conn) conns;     /* idle ones first, newest first */
	unsigned in[CONN_STATES];     /* how many of conns are in each state */
	TAILQ_HEAD(, pool_waiter) waiters;
	unsigned waiting;
	unsigned holds;               /* calls under way that touch it: it stays */
	struct resolved *stale;       /* what its name last resolved to */
	struct resolve_query *query;  /* its name is being asked for again */
	uint64_t ask_at;              /* µs, when it is next */
};

struct pool *pool_for_endpoint(struct endpoint *endpoint, enum pool_kind kind);
struct pool *pool_for_target(struct cluster *cluster, enum pool_kind kind, const char *host, uint16_t port);
/* Queues the waiter and serves the pool. */
void pool_wait(struct pool *pool, struct pool_waiter *waiter);
void pool_leave(struct pool_waiter *waiter);
/* Requests and tunnels on it and waiting for it. */
unsigned pool_load(const struct pool *pool);
/* The endpoint is gone: what is idle closes, what is busy ends with its flows. May free the pool. */
void pool_retire(struct pool *pool);
/* Closes what was idle for too long, and what leads to an address that the endpoint's name has no more. May free the
 * pool. */
void pool_sweep(struct pool *pool, uint64_t now);
/* Everything at once: the worker ends. */
void pool_destroy(struct pool *pool);

#endif
