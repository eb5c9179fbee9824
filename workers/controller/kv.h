/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller keeps: keys and JSON values, read from memory, written by transactions. Two kinds behind it: the local store
 * (LMDB, synced before done is called) and etcd, where several controllers share one state. Every value is in memory; changes, our own
 * and others', come by kv_watch().
 *
 *   document/0000000042      {"version", "time", "author", "comment", "digest", "text"}   the domain's documents
 *   document-head            {"version"}                               the one that is rolled out or to be
 *   node/NAME                {"name", "serial" (its certificate's), "enrolled", "controller", "revoked",
 *                            "begins" (Unix time: earlier certificates of that name were another machine's)}
 *   want/NAME                {"number", "version", "reason", "author", "time", "text", "digest", "signature"}   what a node is to run
 *   state/NAME               its last report (volatile)
 *   override/NAME            {"drained", "tunnel_workers", "roles"}    maintenance, laid over what the documents say
 *   steer/OBJECTIVE          {"choice", "since", "reason", "from"}
 *   rollout                  {"version", "from", "stage", "state", "nodes", "reason", ...}
 *   token/ID                 {"id", "hash", "node", "controller", "expires", "author"}
 *   number                   {"last"}                                  of want/..., rising over the whole domain */
#ifndef HERMES_CONTROLLER_KV_H
#define HERMES_CONTROLLER_KV_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kv;
struct kv_value {
	const char *key;
	json_t *json;             /* kv's; do not change it; lives until the next return to the event loop */
	uint64_t revision;        /* of its last change; 0: there is none such key */
};

/* A transaction: all or nothing. `if` conditions are checked when it is committed. */
struct kv_txn;
struct kv_txn *kv_txn_new(struct kv *kv);
/* Key still has this revision (0: does not exist). */
void kv_txn_if(struct kv_txn *txn, const char *key, uint64_t revision);
/* Takes over the reference to json. temporary: not kept over a restart, goes after 60 s unless written again (reports). */
void kv_txn_put(struct kv_txn *txn, const char *key, json_t *json, bool temporary);
void kv_txn_delete(struct kv_txn *txn, const char *key);
/* error: 0, -EAGAIN (a condition did not hold: read again and decide anew), or why the store did not take it. */
typedef void kv_done(void *arg, int error);
/* At most so many keys in one: etcd's own limit (--max-txn-ops) is 128, and all of it may be 1.5 MiB (--max-request-bytes). Of larger
 * ones nothing is written (-E2BIG): what concerns many nodes goes in several. */
#define KV_TXN_MAX 100
/* Takes over txn. done (may be NULL) is called once, at once or later; by then kv_get() shows what was written. */
void kv_commit(struct kv_txn *txn, kv_done *done, void *arg);

/* revision 0 where there is none. */
struct kv_value kv_get(struct kv *kv, const char *key);
/* In the order of keys; false from visit ends it. */
void kv_each(struct kv *kv, const char *prefix, bool (*visit)(void *arg, const struct kv_value *value), void *arg);
size_t kv_count(struct kv *kv, const char *prefix);
/* A key changed: value->revision 0: it is gone. As many watchers as wanted; called from the event loop. */
void kv_watch(struct kv *kv, const char *prefix, void (*changed)(void *arg, const struct kv_value *value), void *arg);

/* Loaded, and in touch with the store. Before that nothing is served. */
bool kv_ready(const struct kv *kv);
/* Whether this controller acts (rollouts, objectives): with etcd by a lease, one of all; alone always. */
bool kv_leads(const struct kv *kv);
void kv_free(struct kv *kv);

/* Kinds. on_ready is called when it is loaded, and again whenever readiness or leadership changes. */
struct event_base;
typedef void kv_state(void *arg);
/* folder: STATE/controller. NULL with why (static) and errno. */
struct kv *kv_local(struct event_base *base, const char *folder, kv_state *changed, void *arg, const char **why);
/* dial: asks the supervisor for a connection to an endpoint (kv_etcd_dialed() brings it). */
typedef int kv_dial(void *arg, uint64_t id, const char *address);
struct kv *kv_etcd(struct event_base *base, char *const *endpoints, size_t n, const char *prefix, kv_dial *dial,
                   kv_state *changed, void *arg);
void kv_etcd_dialed(struct kv *kv, uint64_t id, int fd, const char *error);

#endif
