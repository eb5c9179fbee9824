/* SPDX-License-Identifier: Apache-2.0 */
/* The store in etcd. kv_etcd.c: connections to one member at a time, loading, watching. kv_etcd_calls.c: what is asked for: transactions,
 * leases, leadership. Memory follows the watch and nothing else, so that everybody sees changes in one order; a transaction is done when
 * the watch has brought it. */
#ifndef HERMES_CONTROLLER_KV_ETCD_INTERNAL_H
#define HERMES_CONTROLLER_KV_ETCD_INTERNAL_H

#include "ipc/http_client.h"
#include "workers/controller/kv_etcd_wire.h"

#include <sys/queue.h>

#define ETCD_CALL_MS 4000             /* for one answer */
#define ETCD_COMMIT_MS 6000           /* for a transaction, over members that die meanwhile */
#define ETCD_LEASE_S 10               /* of leadership */
#define ETCD_BEAT_MS 2500             /* between its renewals */
#define ETCD_TEMPORARY_S 90           /* of the lease under temporary keys ... */
#define ETCD_TEMPORARY_MS 30000       /* ... of which there is a new one as often as this */
#define ETCD_BATCH_MS 100             /* reports wait for each other so long */
#define ETCD_LEADER "leader"          /* the key that says which controller leads */

struct etcd;

enum etcd_state {
	ETCD_DOWN,                    /* waits before it tries the next member */
	ETCD_DIALING, ETCD_LOADING, ETCD_WATCHING, ETCD_UP
};

/* One question to etcd, and for transactions who waits for it. */
struct etcd_call {
	TAILQ_ENTRY(etcd_call) link;
	const char *path;
	char *body;                   /* NULL: made when it is sent */
	/* json NULL: error. The callee frees the call. */
	void (*answered)(struct etcd *e, struct etcd_call *call, const json_t *json, int error);
	struct kv_txn *txn;
	kv_done *done;
	void *arg;
	uint64_t deadline;            /* CLOCK_MONOTONIC, ms */
	uint64_t revision;            /* done, and waits for the watch to come so far */
	bool sent;                    /* once, and nobody knows what became of it */
	uint64_t sent_at;
};
TAILQ_HEAD(etcd_queue, etcd_call);

struct etcd_waiter { kv_done *done; void *arg; };

struct etcd {
	struct kv kv;                 /* first: the one is the other */
	char **endpoints, *prefix;
	size_t n_endpoints, next;
	kv_dial *dial;
	void *dial_arg;
	enum etcd_state state;
	uint64_t dial_id, wanted;     /* wanted: the dial that is waited for; 0: none */
	struct http_client *rpc, *watch;
	struct event *retry, *beat, *flush, *kick;
	uint64_t changed_at;          /* when the state was set, ms */
	unsigned failures;            /* in a row */
	bool away;                    /* was logged */

	uint64_t revision;            /* memory is as of this */
	uint64_t load_revision;
	char load_after[KV_KEY_MAX + 1];
	json_t *loaded;               /* keys, while loading */
	char *line;                   /* of the watch, unfinished */
	size_t n_line, line_size;

	struct etcd_queue calls;      /* to be sent, the first maybe under way */
	struct etcd_call *current;
	struct etcd_queue settled;    /* done in etcd, to be told when the watch is so far */
	uint64_t lease, lease_until;  /* of leadership; 0: none */
	uint64_t temporary, temporary_until;
	uint64_t next_beat;
	bool campaigning, leads;
	struct kv_txn *batch;         /* temporary values that wait for each other */
	struct etcd_waiter *waiters;
	size_t n_waiters;
};

/* kv_etcd.c */
/* The member is of no use: on to the next. */
void etcd_fail(struct etcd *e, const char *why);

/* kv_etcd_calls.c */
struct etcd_call *etcd_call_new(const char *path, char *body,
                                void (*answered)(struct etcd *e, struct etcd_call *call, const json_t *json, int error));
void etcd_call_free(struct etcd_call *call);
/* In front of all that wait. Takes over call. */
void etcd_ask_first(struct etcd *e, struct etcd_call *call);
/* Sends the next, where the connection is free. Loading may ask before the state is ETCD_UP. */
void etcd_ask_next(struct etcd *e);
/* The connection is gone: what was under way is asked again, or given up. */
void etcd_calls_lost(struct etcd *e);
/* The watch has come further: tells who waited for it. */
void etcd_calls_settle(struct etcd *e);
void etcd_calls_expire(struct etcd *e);
void etcd_commit(struct kv *kv, struct kv_txn *txn, kv_done *done, void *arg);
void etcd_flush(struct etcd *e);
/* Leases and leadership, as time goes by and keys change. */
void etcd_lead(struct etcd *e);
void etcd_calls_end(struct etcd *e);

#endif
