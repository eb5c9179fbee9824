/* SPDX-License-Identifier: Apache-2.0 */
#include "store/digest.h"
#include "store/store_internal.h"
#include "store/store_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void store_version_clear(struct store_version *v)
{
	free(v->text);
	free(v->controller.text);
	memset(v, 0, sizeof(*v));
}

/* The highest number that was given. */
uint64_t store_last_version(struct txn *t)
{
	MDB_cursor *cursor = NULL;
	MDB_val key, value;
	uint64_t last = 0;
	int error = t->error ? t->error : store_negative(mdb_cursor_open(t->txn, t->store->versions, &cursor));

	if (!error && !(error = store_negative(mdb_cursor_get(cursor, &key, &value, MDB_LAST))))
		last = store_key_number(&key);
	if (cursor)
		mdb_cursor_close(cursor);
	if (error && error != -ENOENT)
		t->error = error;
	return last;
}

static void digest_of(const char *text, size_t length, char out[65])
{
	uint8_t sum[32];

	digest_sha256(text, length, sum);
	digest_hex(sum, out);
}

int store_add(struct store *store, struct store_version *v)
{
	uint8_t key[STORE_LAYER_KEY];
	struct txn t;

	store_begin(&t, store, 0);
	uint64_t version = store_last_version(&t) + 1;
	struct store_version record = *v;
	record.version = version;
	record.time = v->time ? v->time : (int64_t)time(NULL);
	record.confirmed = 0;
	snprintf(record.state, sizeof(record.state), "candidate");
	record.reason[0] = '\0';
	digest_of(v->text, v->length, record.digest);
	store_layer_key(version, key);
	store_put(&t, store->texts, key, 8, v->text, v->length);
	if (v->controller.number) {
		digest_of(v->controller.text, v->controller.length, record.controller.digest);
		store_put(&t, store->texts, key, sizeof(key), v->controller.text, v->controller.length);
	}
	store_put_version(&t, &record);
	if (store_end(&t))
		return t.error;
	*v = record;
	return 0;
}

uint64_t store_in_force_number(struct txn *t)
{
	char number[24];

	return store_find_fact(t, "in-force", number, sizeof(number)) ? 0 : strtoull(number, NULL, 10);
}

int store_set_in_force(struct store *store, uint64_t version)
{
	struct store_version v, before;
	char number[24];
	struct txn t;

	store_begin(&t, store, 0);
	uint64_t old = store_in_force_number(&t);
	if (!t.error)
		t.error = store_find_version(&t, version, &v);
	if (old && old != version && !t.error && !store_find_version(&t, old, &before)) {
		snprintf(before.state, sizeof(before.state), "superseded");
		store_put_version(&t, &before);
	}
	snprintf(v.state, sizeof(v.state), "in force");
	v.reason[0] = '\0';
	snprintf(number, sizeof(number), "%" PRIu64, version);
	if (!t.error) {
		store_put_version(&t, &v);
		store_put_fact(&t, "in-force", number);
	}
	return store_end(&t);
}

int store_refuse(struct store *store, uint64_t version, const char *why)
{
	struct store_version v;
	struct txn t;

	store_begin(&t, store, 0);
	if (!t.error)
		t.error = store_find_version(&t, version, &v);
	if (!t.error && strcmp(v.state, "candidate"))    /* one that was in force once stays good */
		return mdb_txn_abort(t.txn), 0;
	snprintf(v.state, sizeof(v.state), "refused");
	snprintf(v.reason, sizeof(v.reason), "%s", why ? why : "");
	if (!t.error)
		store_put_version(&t, &v);
	return store_end(&t);
}

static bool was_in_force(const struct store_version *v)
{
	return !strcmp(v->state, "in force") || !strcmp(v->state, "superseded");
}

/* Goes backwards from version `from`; the record that the fact names counts whatever its state says. */
static int newest_good(struct txn *t, uint64_t named, struct store_version *v, unsigned *skipped)
{
	uint64_t n = store_last_version(t);
	int error = -ENOENT;

	for (n = named ? named : n; n && !t->error; n--) {
		error = store_find_version(t, n, v);
		if (!error && n != named && !was_in_force(v))
			continue;
		if (error == -ENOENT && n != named)
			continue;                     /* pruned */
		if (!error)
			error = store_find_text(t, v);
		if (!error)
			return 0;
		store_version_clear(v);
		++*skipped;
	}
	return t->error ? t->error : -ENOENT;
}

int store_in_force(struct store *store, struct store_version *v, unsigned *skipped)
{
	struct txn t;
	char number[24];

	memset(v, 0, sizeof(*v));
	*skipped = 0;
	store_begin(&t, store, MDB_RDONLY);
	int fact = store_find_fact(&t, "in-force", number, sizeof(number));
	int error = t.error;
	if (!error && fact != -ENOENT) {
		*skipped += fact != 0;
		error = newest_good(&t, fact ? 0 : strtoull(number, NULL, 10), v, skipped);
	}
	store_end(&t);
	return error == -ENOENT ? 0 : error;
}

int store_get(struct store *store, uint64_t version, struct store_version *v)
{
	struct txn t;

	store_begin(&t, store, MDB_RDONLY);
	int error = t.error ? t.error : store_find_version(&t, version, v);
	if (!error)
		error = store_find_text(&t, v);
	store_end(&t);
	if (error)
		store_version_clear(v);
	return error;
}

int store_peek(struct store *store, uint64_t version, struct store_version *v)
{
	struct txn t;

	store_begin(&t, store, MDB_RDONLY);
	int error = t.error ? t.error : store_find_version(&t, version, v);
	store_end(&t);
	return error;
}

int store_renumber(struct store *store, uint64_t version, const struct store_layer *layer)
{
	struct store_version v;
	struct txn t;

	store_begin(&t, store, 0);
	if (!t.error)
		t.error = store_find_version(&t, version, &v);
	if (!t.error && !v.controller.number)
		t.error = -ENOENT;
	if (!t.error) {
		v.controller.number = layer->number;
		v.controller.time = layer->time;
		memcpy(v.controller.author, layer->author, sizeof(v.controller.author));
		memcpy(v.controller.reason, layer->reason, sizeof(v.controller.reason));
		store_put_version(&t, &v);
	}
	return store_end(&t);
}

/* The newest that is whole and was confirmed, from the one that the fact names on; that one counts whatever its record says. */
static uint64_t newest_confirmed(struct txn *t, uint64_t named)
{
	struct store_version v;

	for (uint64_t n = named; n && !t->error; n--) {
		int error = store_find_version(t, n, &v);
		if (error || (n != named && !v.confirmed))
			continue;
		error = store_find_text(t, &v);
		store_version_clear(&v);
		if (!error)
			return n;
	}
	return 0;
}

uint64_t store_confirmed(struct store *store)
{
	struct txn t;

	store_begin(&t, store, MDB_RDONLY);
	uint64_t named = t.error ? 0 : store_confirmed_number(&t), version = t.error ? 0 : newest_confirmed(&t, named);
	store_end(&t);
	return version;
}

int store_history(struct store *store, size_t limit, struct store_version **out, size_t *n)
{
	MDB_cursor *cursor = NULL;
	MDB_val key, value;
	struct txn t;

	*n = 0;
	*out = calloc(limit ? limit : 1, sizeof(**out));
	store_begin(&t, store, MDB_RDONLY);
	int error = !*out ? -ENOMEM : t.error ? t.error : store_negative(mdb_cursor_open(t.txn, store->versions, &cursor));
	if (!error)
		error = store_negative(mdb_cursor_get(cursor, &key, &value, MDB_LAST));
	for (; !error && *n < limit; error = store_negative(mdb_cursor_get(cursor, &key, &value, MDB_PREV))) {
		struct store_version *v = &(*out)[(*n)++];
		if (record_read_version(value.mv_data, value.mv_size, store_key_number(&key), v)) {
			*v = (struct store_version){.version = store_key_number(&key)};
			snprintf(v->state, sizeof(v->state), "damaged");
		}
	}
	if (cursor)
		mdb_cursor_close(cursor);
	store_end(&t);
	return error == -ENOENT ? 0 : error;
}
