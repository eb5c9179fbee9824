/* What the store's parts share: a transaction keeps its first error and is checked once, at its end. Internal to store/. */
#ifndef HERMES_STORE_STORE_INTERNAL_H
#define HERMES_STORE_STORE_INTERNAL_H

#include "store/store.h"

#include <lmdb.h>

struct store {
	MDB_env *env;
	size_t map_size;
	MDB_dbi versions, texts, facts;
};

struct txn { struct store *store; MDB_txn *txn; int error; };

/* LMDB's errors as -errno. */
int store_negative(int error);
void store_begin(struct txn *t, struct store *store, unsigned flags);
/* Commits where nothing failed. Returns the first error. */
int store_end(struct txn *t);

void store_number_key(uint64_t version, uint8_t out[8]);
/* Of the controller's layer of a version, in the table of texts. */
#define STORE_LAYER_KEY 9
void store_layer_key(uint64_t version, uint8_t out[STORE_LAYER_KEY]);
uint64_t store_key_number(const MDB_val *key);
/* put: errors stay in t. find: 0, -ENOENT, -EUCLEAN ... */
void store_put(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, const void *data, size_t length);
int store_find(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, MDB_val *value);
void store_put_version(struct txn *t, const struct store_version *v);
int store_find_version(struct txn *t, uint64_t version, struct store_version *v);
/* The texts of a version that was found; malloc'd. */
int store_find_text(struct txn *t, struct store_version *v);
void store_put_fact(struct txn *t, const char *name, const char *value);
/* out: empty where there is none. */
int store_find_fact(struct txn *t, const char *name, char *out, size_t size);

/* The highest number that was given. */
uint64_t store_last_version(struct txn *t);
/* 0: none. */
uint64_t store_in_force_number(struct txn *t);
uint64_t store_confirmed_number(struct txn *t);

#endif
