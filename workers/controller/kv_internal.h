/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of store share: everything in memory, ordered by key; transactions; watchers. Only for kv*.c. */
#ifndef HERMES_CONTROLLER_KV_INTERNAL_H
#define HERMES_CONTROLLER_KV_INTERNAL_H

#include "workers/controller/kv.h"

#define KV_KEY_MAX 500            /* bytes; LMDB takes 511 */

struct kv_op {
	char *key;
	json_t *json;             /* NULL: to be deleted */
	bool temporary;
};

struct kv_condition {
	char *key;
	uint64_t revision;
};

struct kv_txn {
	struct kv *kv;
	struct kv_op *ops;
	struct kv_condition *conditions;
	size_t n_ops, ops_size, n_conditions, conditions_size;
	int error;                /* the first while it was put together */
};

struct kv_entry {
	char *key;
	json_t *json;
	uint64_t revision;
	uint64_t expires;         /* CLOCK_MONOTONIC, ms; 0: never */
};

struct kv_kind {
	/* Takes over txn, whose own error was looked at. */
	void (*commit)(struct kv *kv, struct kv_txn *txn, kv_done *done, void *arg);
	bool (*leads)(const struct kv *kv);
	void (*free)(struct kv *kv);
};

struct kv_watcher {
	char *prefix;
	void (*changed)(void *arg, const struct kv_value *value);
	void *arg;
};

struct kv {
	const struct kv_kind *kind;
	struct event_base *base;
	kv_state *state_changed;
	void *state_arg;
	bool ready, tell_state;
	struct kv_entry **entries;        /* sorted by key */
	size_t n_entries, entries_size;
	struct kv_watcher *watchers;
	size_t n_watchers;
	char **changes;                   /* keys whose watchers are to be called */
	size_t n_changes, changes_size;
	struct kv_entry *dead;            /* values that somebody may still look at */
	size_t n_dead, dead_size;
	struct event *later;              /* watchers, state, dead values: from the event loop */
};

uint64_t kv_now(void);                    /* CLOCK_MONOTONIC, ms */
/* 0 or -ENOMEM; kv_fini() in either case. */
int kv_init(struct kv *kv, const struct kv_kind *kind, struct event_base *base, kv_state *changed, void *arg);
void kv_fini(struct kv *kv);
/* Calls state_changed from the event loop. */
void kv_tell_state(struct kv *kv);
/* Room for n entries more, so that a put cannot fail once the store has taken it. */
int kv_reserve(struct kv *kv, size_t n);
/* What the store has taken, into memory; takes over json. False: out of memory (of a key's name; not after kv_reserve()). */
bool kv_apply_put(struct kv *kv, const char *key, json_t *json, uint64_t revision, uint64_t expires);
void kv_apply_delete(struct kv *kv, const char *key);
bool kv_txn_holds(const struct kv_txn *txn);
void kv_txn_free(struct kv_txn *txn);

/* kv_local() with another size of the map than usual (bytes; 0: usual). */
struct kv *kv_local_sized(struct event_base *base, const char *folder, size_t map_size, kv_state *changed, void *arg,
                          const char **why);

#endif
