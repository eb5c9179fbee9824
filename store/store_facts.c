/* SPDX-License-Identifier: Apache-2.0 */
/* Facts, notes, and what is forgotten. */
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOTE_MAX 500              /* of a record */
#define SPARE ((size_t)4 << 20)   /* to forget versions in a full map takes pages too */

int store_file_digest(struct store *store, char digest[65])
{
	struct txn t;

	store_begin(&t, store, MDB_RDONLY);
	int error = store_find_fact(&t, "file-digest", digest, 65);
	store_end(&t);
	return error == -ENOENT || error == -EUCLEAN ? 0 : error;
}

int store_set_file_digest(struct store *store, const char *digest)
{
	struct txn t;

	store_begin(&t, store, 0);
	if (!t.error)
		store_put_fact(&t, "file-digest", digest);
	return store_end(&t);
}

uint64_t store_confirmed_number(struct txn *t)
{
	char number[24];

	return store_find_fact(t, "confirmed", number, sizeof(number)) ? 0 : strtoull(number, NULL, 10);
}

int store_confirm(struct store *store, uint64_t version)
{
	struct store_version v;
	char number[24];
	struct txn t;

	store_begin(&t, store, 0);
	if (!t.error)
		t.error = store_find_version(&t, version, &v);
	if (!t.error) {
		snprintf(number, sizeof(number), "%" PRIu64, version);
		v.confirmed = (int64_t)time(NULL);
		store_put_version(&t, &v);
		store_put_fact(&t, "confirmed", number);
	}
	return store_end(&t);
}

static void note_key(const char *name, char key[64])
{
	snprintf(key, 64, "note-%s", name);
}

int store_note(struct store *store, const char *name, char *out, size_t size)
{
	char key[64];
	struct txn t;

	note_key(name, key);
	*out = '\0';
	store_begin(&t, store, MDB_RDONLY);
	int error = t.error ? t.error : store_find_fact(&t, key, out, size);
	store_end(&t);
	return error == -ENOENT ? 0 : error;
}

int store_set_note(struct store *store, const char *name, const char *text)
{
	char key[64];
	struct txn t;

	if (strlen(text) > NOTE_MAX)
		return -EMSGSIZE;
	note_key(name, key);
	store_begin(&t, store, 0);
	if (!t.error)
		store_put_fact(&t, key, text);
	return store_end(&t);
}

static void forget(struct txn *t, uint64_t version)
{
	uint8_t key[STORE_LAYER_KEY];
	MDB_val layer = {sizeof(key), key}, own = {8, key};
	int error;

	store_layer_key(version, key);
	error = store_negative(mdb_del(t->txn, t->store->texts, &layer, NULL));
	if (!error || error == -ENOENT)
		error = store_negative(mdb_del(t->txn, t->store->texts, &own, NULL));
	if (!error || error == -ENOENT)
		error = store_negative(mdb_del(t->txn, t->store->versions, &own, NULL));
	if (error && error != -ENOENT)
		t->error = error;
}

/* The newest `keep` of all, the one in force and the last confirmed stay. */
static int forget_old(struct store *store, const struct store_version *all, size_t n, size_t keep)
{
	struct txn t;

	store_begin(&t, store, 0);
	uint64_t in_force = t.error ? 0 : store_in_force_number(&t), confirmed = t.error ? 0 : store_confirmed_number(&t);
	for (size_t i = keep; i < n && !t.error; i++)
		if (all[i].version != in_force && all[i].version != confirmed)
			forget(&t, all[i].version);
	return store_end(&t);
}

/* LMDB reuses pages only two commits after the one that freed them. */
static int settle(struct store *store)
{
	char number[24];
	struct txn t;

	store_begin(&t, store, 0);
	snprintf(number, sizeof(number), "%" PRIu64, t.error ? 0 : store_last_version(&t));
	if (!t.error)
		store_put_fact(&t, "pruned", number);
	return store_end(&t);
}

int store_prune(struct store *store, size_t keep)
{
	struct store_version *all = NULL;
	size_t n = 0;
	int error = store_history(store, 4096, &all, &n);

	if (!error && n > keep) {
		error = forget_old(store, all, n, keep);
		if (error == -ENOSPC && !mdb_env_set_mapsize(store->env, store->map_size + SPARE))
			error = forget_old(store, all, n, keep);
		if (!error)
			error = settle(store);
	}
	free(all);
	return error;
}
