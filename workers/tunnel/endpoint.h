/* What the files of the clusters share: cluster.c (the table of clusters, choosing), attempt.c (attempts), pool.c
 * (connections), health.c (active checks). */
#ifndef HERMES_TUNNEL_ENDPOINT_H
#define HERMES_TUNNEL_ENDPOINT_H

#include <event2/event_struct.h>
#include <sys/queue.h>
#include <uthash.h>

#include "workers/tunnel/balance.h"
#include "workers/tunnel/cluster.h"

#define CLUSTER_WAITING_MAX 4096     /* attempts that wait for a connection, per cluster */
#define CLUSTER_TARGETS_MAX 1024     /* target pools that are kept for their idle connections, per cluster */

struct cluster;
struct health;

/* How a connection is used. */
enum pool_kind { POOL_TCP, POOL_H1, POOL_H2, POOL_H2_DATAGRAMS, POOL_UDP, POOL_KINDS };

/* UDP and IP tunnels have connections of their own, so that no bulk transfer stands before their packets. */
static inline bool pool_is_h2(enum pool_kind kind) { return kind == POOL_H2 || kind == POOL_H2_DATAGRAMS; }

struct endpoint {
	struct cluster *cluster;
	unsigned number;              /* its position in the configuration in force */
	const struct config_endpoint *config;
	char *text;                   /* as configured */
	uint64_t hash;
	int64_t turn;                 /* balance.h */
	struct pool *pools[POOL_KINDS];   /* NULL until needed */
	/* passive health */
	uint32_t failures;            /* in a row */
	uint32_t ejections;           /* in a row: each lasts longer */
	uint64_t ejected_until;       /* µs, 0: not out */
	uint64_t returned;            /* µs, when it last came back */
	/* active health */
	bool down;
	char reason[96];              /* of being down or out */
	struct health *health;        /* NULL: no checks */
};

/* A cluster as configured. Counted: by the table, pools, attempts. Its pools live on when it is gone from the table. */
struct cluster {
	UT_hash_handle hh;
	struct clusters *all;
	char *name;
	unsigned refs;
	bool retired;                 /* no longer in the table */
	struct generation *generation;
	const struct config_cluster *config;   /* of generation */
	unsigned number;              /* position in it */
	struct endpoint **endpoints;
	unsigned n;
	struct balance_candidate *candidates;  /* room for n: choosing allocates nothing */
	unsigned *candidate_numbers;
	struct pool *targets;         /* by kind and host:port; the first was not used longest */
	unsigned waiting;             /* attempts in the queues of all its pools */
	struct stats_set *stats;
	LIST_HEAD(, pool) pools;      /* all, those of lost endpoints too */
	LIST_ENTRY(cluster) retired_link;
};

TAILQ_HEAD(attempt_list, attempt);

struct clusters {
	struct tunnel *tunnel;
	struct cluster *table;
	LIST_HEAD(, cluster) retired;
	struct attempt_list due, waiting;
	struct attempt *spare;        /* freed ones, for the next */
	unsigned spares;
	struct event *run;            /* attempts are due */
	struct event *sweep;          /* every second */
	struct ipc_channel *told;     /* the router that knows what is down, and its process */
	unsigned told_pid;
	struct endpoint_used used;
	uint64_t random;
};

/* cluster.c */
struct cluster *cluster_find(struct clusters *clusters, const char *name);
struct cluster *cluster_ref(struct cluster *cluster);
void cluster_unref(struct cluster *cluster);
/* The one that is configured so, if it may be used; else NULL. */
struct endpoint *cluster_named(struct cluster *cluster, const char *text);
/* The endpoint for a request; NULL: none may be used. */
struct endpoint *cluster_choose(struct cluster *cluster, uint64_t key, uint64_t tried);
/* A connection to the endpoint could not be made, or could: passive health. */
void endpoint_report(struct endpoint *endpoint, bool ok, const char *reason);
bool endpoint_ejected(const struct endpoint *endpoint);
/* Active health found it up or down. */
void endpoint_set_down(struct endpoint *endpoint, bool down, const char *reason);

/* attempt.c */
void attempts_init(struct clusters *clusters);
/* Begins now what would begin in the next turn. */
void attempts_start_due(struct clusters *clusters);
void attempts_free(struct clusters *clusters);

#endif
