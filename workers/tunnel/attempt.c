/* Attempts: from a flow's wish to a leg. All that happens, happens in a turn of its own, never inside cluster_open(). */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/conn.h"
#include "workers/tunnel/guard.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/worker_link.h"

#define SPARES_MAX 256
#define CONNECT_TIMEOUT 5000
#define GRACE 50                     /* ms: the connection's own time limit knows more of the reason */

struct attempt {
	struct pool_waiter waiter;    /* first */
	TAILQ_ENTRY(attempt) link;    /* of due or waiting */
	struct clusters *all;
	struct cluster *cluster;      /* a reference, once started */
	struct cluster_request request;
	const char *name;             /* the pool's, once it has one; else "" */
	int number;                   /* of the endpoint; -1: target or none */
	struct event timer;
	bool timed;                   /* timer was set up */
	bool started;                 /* on the list of the waiting */
	bool *ended;                  /* set when it ends; NULL: nobody looks */
	struct worker_link_wait *inner;  /* while another worker of this node is asked */
};

/* --- life -------------------------------------------------------------------------------------------------------- */

static struct attempt *attempt_new(struct clusters *all)
{
	struct attempt *a = all->spare;
	if (a) {
		all->spare = TAILQ_NEXT(a, link);
		all->spares--;
	} else {
		a = malloc(sizeof(*a));
		if (!a)
			abort();
	}
	a->waiter = (struct pool_waiter){0};
	a->all = all;
	a->cluster = NULL;
	a->timed = a->started = false;
	a->ended = NULL;
	a->inner = NULL;
	return a;
}

static void attempt_free(struct attempt *a)
{
	struct clusters *all = a->all;
	if (a->ended)
		*a->ended = true;
	if (a->timed)
		evtimer_del(&a->timer);
	if (a->started)
		TAILQ_REMOVE(&all->waiting, a, link);
	else
		TAILQ_REMOVE(&all->due, a, link);
	if (a->cluster)
		cluster_unref(a->cluster);
	if (all->spares >= SPARES_MAX) {
		free(a);
		return;
	}
	TAILQ_NEXT(a, link) = all->spare;
	all->spare = a;
	all->spares++;
}

void attempt_cancel(struct attempt *a)
{
	if (!a)
		return;
	pool_leave(&a->waiter);
	if (a->inner)
		worker_link_cancel(a->inner);
	attempt_free(a);
}

/* --- ends -------------------------------------------------------------------------------------------------------- */

static void copy_cut(char *out, size_t size, const char *text)
{
	size_t length = strnlen(text, size - 1);
	memcpy(out, text, length);
	out[length] = 0;
}

static void set_used(struct attempt *a, const char *address, bool reused)
{
	struct endpoint_used *used = &a->all->used;
	*used = (struct endpoint_used){.number = a->number, .reused = reused};
	copy_cut(used->endpoint, sizeof(used->endpoint), a->name);
	copy_cut(used->address, sizeof(used->address), address);
}

static void attempt_failed(struct attempt *a, enum flow_error error, const char *detail)
{
	struct flow *flow = a->request.flow;
	struct clusters *all = a->all;
	char text[400];
	bool bare = !*a->name || strncmp(detail, a->name, strlen(a->name)) == 0;
	snprintf(text, sizeof(text), "%s%s%s", bare ? "" : a->name, bare ? "" : ": ", detail);
	set_used(a, "", false);
	attempt_free(a);
	flow_open_failed(flow, error, text);
	all->used = (struct endpoint_used){.number = -1};
}

static void on_failed(struct pool_waiter *waiter, enum flow_error error, const char *detail)
{
	attempt_failed((struct attempt *)waiter, error, detail);
}

static void on_opened(struct pool_waiter *waiter, struct leg *leg, const char *address, bool reused)
{
	struct attempt *a = (struct attempt *)waiter;
	struct clusters *all = a->all;
	struct flow *flow = a->request.flow;
	set_used(a, address, reused);
	attempt_free(a);
	flow_opened(flow, leg);
	all->used = (struct endpoint_used){.number = -1};
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct attempt *a = arg;
	struct pool *pool = a->waiter.pool;
	bool connecting = pool && pool->in[CONN_CONNECTING] > 0;
	(void)fd, (void)what;
	/* The attempt's name is the pool's. */
	pool_hold(pool);
	pool_leave(&a->waiter);
	if (connecting)
		attempt_failed(a, FLOW_CONNECT_TIMEOUT, "no connection in time");
	else
		attempt_failed(a, FLOW_CONNECTION_LIMIT, "no connection became free in time");
	pool_let(pool);
}

/* --- the way ----------------------------------------------------------------------------------------------------- */

/* What a tunnel of datagrams leaves as; NULL, or why the cluster does not carry it. */
static const char *kind_of_datagrams(const struct config_cluster *config, bool udp, enum pool_kind *kind)
{
	switch (config->carry) {
	case CONFIG_H1:
	case CONFIG_H2:
		*kind = config->carry == CONFIG_H1 ? POOL_H1 : POOL_H2_DATAGRAMS;
		return config->target ? "UDP and IP tunnels go on over HTTP to fixed endpoints only" : NULL;
	case CONFIG_CARRY_UDP:
		*kind = POOL_UDP;
		return udp ? NULL : "the cluster carries UDP, no IP packets";
	default:
		return "the cluster carries neither UDP nor IP";
	}
}

static const char *kind_of(const struct config_cluster *config, const struct cluster_request *request, enum pool_kind *kind)
{
	const struct head *head = flow_request(request->flow);
	if (head && masque_is(head))
		return kind_of_datagrams(config, masque_is_udp(head), kind);
	switch (config->carry) {
	case CONFIG_H1:
		*kind = config->target && request->tunnel ? POOL_TCP : POOL_H1;
		return NULL;
	case CONFIG_H2:
		*kind = config->target && request->tunnel ? POOL_TCP : POOL_H2;
		return NULL;
	case CONFIG_CARRY_TCP:
		*kind = request->tunnel ? POOL_TCP : POOL_H1;
		return NULL;
	case CONFIG_CARRY_UDP:
		return "the cluster carries UDP only";
	case CONFIG_CARRY_IP:
		return "the cluster carries IP packets only";
	default:
		return "this version does not carry what the cluster says";
	}
}

static struct pool *target_pool(struct attempt *a, enum pool_kind kind)
{
	const struct cluster_request *request = &a->request;
	bool https = request->scheme && strcmp(request->scheme, "https") == 0;
	uint16_t port, preset = request->tunnel || kind == POOL_UDP ? 0 : https || a->cluster->config->tls.enabled ? 443 : 80;
	char host[256];
	const char *why;
	if (https && !request->tunnel && kind != POOL_UDP && !a->cluster->config->tls.enabled) {
		attempt_failed(a, FLOW_TLS_PROTOCOL, "an https target needs a cluster with tls");
		return NULL;
	}
	if (guard_split(request->target, preset, host, sizeof(host), &port, &why) != 0) {
		attempt_failed(a, FLOW_REQUEST, why);
		return NULL;
	}
	a->number = -1;
	return pool_for_target(a->cluster, kind, host, port);
}

static struct pool *endpoint_pool(struct attempt *a, enum pool_kind kind)
{
	const struct cluster_request *request = &a->request;
	uint64_t key = request->hash_key ? balance_hash(request->hash_key) : ++a->all->random;
	struct endpoint *endpoint = cluster_named(a->cluster, request->prefer);
	if (!endpoint)
		endpoint = cluster_choose(a->cluster, key, request->tried ? request->tried_endpoints : 0);
	if (!endpoint) {
		attempt_failed(a, FLOW_NO_ENDPOINT, "no endpoint of the cluster may be used");
		return NULL;
	}
	a->number = (int)endpoint->number;
	return pool_for_endpoint(endpoint, kind);
}

static void set_timer(struct attempt *a)
{
	uint32_t ms = a->request.connect_timeout;
	if (ms == 0)
		ms = (a->cluster->config->connect_timeout ? a->cluster->config->connect_timeout : CONNECT_TIMEOUT) + GRACE;
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	evtimer_assign(&a->timer, a->all->tunnel->base, on_timeout, a);
	a->timed = true;
	event_add(&a->timer, &limit);
}

static void on_inner_opened(void *arg, struct leg *leg)
{
	struct attempt *a = arg;
	a->inner = NULL;
	on_opened(&a->waiter, leg, "", true);
}

static void on_inner_failed(void *arg, enum flow_error error, const char *detail)
{
	struct attempt *a = arg;
	a->inner = NULL;
	attempt_failed(a, error, detail);
}

/* Another worker of this node has the device, or the tunnel that is to go on. */
static bool inner(struct attempt *a)
{
	struct flow *flow = a->request.flow;
	unsigned index;
	if (!worker_link_owner(flow, a->cluster->config, &index))
		return false;
	a->inner = worker_link_open(a->all->tunnel->links, index, a->request.cluster, flow, on_inner_opened, on_inner_failed, a);
	return true;
}

/* IP packets leave by a device of this worker. */
static void exit_by_device(struct attempt *a)
{
	enum flow_error error = FLOW_NO_ENDPOINT;
	const char *detail = "the device is not there";
	struct leg *leg = ip_exit_new(a->all->tunnel, a->cluster->config, a->request.flow, &error, &detail);
	if (leg)
		on_opened(&a->waiter, leg, "", false);
	else
		attempt_failed(a, error, detail);
}

static void attempt_start(struct attempt *a)
{
	const struct head *head = flow_request(a->request.flow);
	enum pool_kind kind;
	a->cluster = cluster_find(a->all, a->request.cluster);
	if (!a->cluster)
		return attempt_failed(a, FLOW_NO_ENDPOINT, "the configuration has no such cluster");
	cluster_ref(a->cluster);
	if (inner(a))
		return;
	if (a->cluster->config->carry == CONFIG_CARRY_IP && head && masque_is(head))
		return exit_by_device(a);
	const char *why = kind_of(a->cluster->config, &a->request, &kind);
	if (why)
		return attempt_failed(a, FLOW_NO_ENDPOINT, why);
	if (a->cluster->waiting >= CLUSTER_WAITING_MAX)
		return attempt_failed(a, FLOW_CONNECTION_LIMIT, "too many requests wait for a connection");
	struct pool *pool = a->cluster->config->target ? target_pool(a, kind) : endpoint_pool(a, kind);
	if (!pool)
		return;
	a->name = pool->name;
	a->waiter.flow = a->request.flow;
	a->waiter.opened = on_opened;
	a->waiter.failed = on_failed;
	/* Most are served at once and need no timer. */
	bool ended = false;
	a->ended = &ended;
	pool_wait(pool, &a->waiter);
	if (ended)
		return;
	a->ended = NULL;
	set_timer(a);
}

/* Those that are due now; what they bring about comes in the next turn. */
static void on_run(evutil_socket_t fd, short what, void *arg)
{
	struct clusters *all = arg;
	struct attempt *a, *last = TAILQ_LAST(&all->due, attempt_list);
	(void)fd, (void)what;
	while ((a = TAILQ_FIRST(&all->due))) {
		bool end = a == last;
		TAILQ_REMOVE(&all->due, a, link);
		TAILQ_INSERT_TAIL(&all->waiting, a, link);
		a->started = true;
		attempt_start(a);
		if (end)
			break;
	}
	if (!TAILQ_EMPTY(&all->due))
		event_active(all->run, EV_TIMEOUT, 0);
}

void attempts_start_due(struct clusters *all)
{
	on_run(-1, 0, all);
}

struct attempt *cluster_open(struct clusters *all, const struct cluster_request *request)
{
	struct attempt *a = attempt_new(all);
	a->request = *request;
	a->name = "";
	a->number = -1;
	if (TAILQ_EMPTY(&all->due))
		event_active(all->run, EV_TIMEOUT, 0);
	TAILQ_INSERT_TAIL(&all->due, a, link);
	return a;
}

void cluster_used(struct clusters *all, struct endpoint_used *used)
{
	*used = all->used;
}

/* --- set-up ------------------------------------------------------------------------------------------------------ */

void attempts_init(struct clusters *all)
{
	TAILQ_INIT(&all->due);
	TAILQ_INIT(&all->waiting);
	all->used.number = -1;
	all->run = event_new(all->tunnel->base, -1, EV_PERSIST, on_run, all);
	if (!all->run)
		abort();
}

static void fail_all(struct attempt_list *list)
{
	struct attempt *a;
	while ((a = TAILQ_FIRST(list))) {
		a->name = "";
		pool_leave(&a->waiter);
		if (a->inner)
			worker_link_cancel(a->inner);
		attempt_failed(a, FLOW_INTERNAL, "the worker ends");
	}
}

void attempts_free(struct clusters *all)
{
	event_free(all->run);
	fail_all(&all->due);
	fail_all(&all->waiting);
	while (all->spare) {
		struct attempt *a = all->spare;
		all->spare = TAILQ_NEXT(a, link);
		free(a);
	}
}
