/* SPDX-License-Identifier: Apache-2.0 */
/* Three tables: "versions" (number -> record), "texts" (number -> document, checked by the digest in the record), "facts"
 * (name -> record). A transaction keeps its first error and is checked once, at its end. */
#include "store/store.h"
#include "store/digest.h"
#include "store/store_check.h"
#include "store/store_record.h"

#include <errno.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAP_SIZE ((size_t)256 << 20)
#define NOTE_MAX 500              /* of a record */
#define SPARE ((size_t)4 << 20)   /* to forget versions in a full map takes pages too */

struct store {
	MDB_env *env;
	size_t map_size;
	MDB_dbi versions, texts, facts;
};

struct txn { struct store *store; MDB_txn *txn; int error; };

/* LMDB's positive errors are errno's. */
static int negative(int error)
{
	switch (error) {
	case 0: return 0;
	case MDB_NOTFOUND: return -ENOENT;
	case MDB_MAP_FULL: case MDB_TXN_FULL: return -ENOSPC;
	case MDB_CORRUPTED: case MDB_PAGE_NOTFOUND: case MDB_INVALID: case MDB_VERSION_MISMATCH: case MDB_PANIC:
	case MDB_INCOMPATIBLE: case MDB_BAD_TXN: return -EUCLEAN;
	default: return error > 0 ? -error : -EIO;
	}
}

static void begin(struct txn *t, struct store *store, unsigned flags)
{
	*t = (struct txn){.store = store};
	t->error = negative(mdb_txn_begin(store->env, NULL, flags, &t->txn));
}

/* LMDB calls a short write EIO; what it means is mostly a full disk. */
static int disk_error(struct store *store, int error)
{
	struct statvfs fs;
	int fd;

	if (error == -EIO && !mdb_env_get_fd(store->env, &fd) && !fstatvfs(fd, &fs) &&
	    (uint64_t)fs.f_bavail * fs.f_bsize < SPARE)
		return -ENOSPC;
	return error;
}

/* Commits where nothing failed. Returns the first error. */
static int end(struct txn *t)
{
	if (!t->txn)
		return t->error;
	if (t->error)
		mdb_txn_abort(t->txn);
	else
		t->error = disk_error(t->store, negative(mdb_txn_commit(t->txn)));
	t->txn = NULL;
	return t->error;
}

/* --- records ---------------------------------------------------------------------------------------------------------- */

static void number_key(uint64_t version, uint8_t out[8])
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(version >> (56 - 8 * i));
}

static uint64_t key_number(const MDB_val *key)
{
	uint64_t v = 0;

	for (size_t i = 0; i < key->mv_size && i < 8; i++)
		v = v << 8 | ((const uint8_t *)key->mv_data)[i];
	return v;
}

static void put(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, const void *data, size_t length)
{
	MDB_val k = {key_size, (void *)(uintptr_t)key}, v = {length, (void *)(uintptr_t)data};

	if (!t->error)
		t->error = negative(mdb_put(t->txn, dbi, &k, &v, 0));
}

static int get(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, MDB_val *value)
{
	MDB_val k = {key_size, (void *)(uintptr_t)key};

	return t->error ? t->error : negative(mdb_get(t->txn, dbi, &k, value));
}

static void put_version(struct txn *t, const struct store_version *v)
{
	uint8_t record[RECORD_MAX], key[8];

	number_key(v->version, key);
	put(t, t->store->versions, key, sizeof(key), record, record_write_version(v, record));
}

static int get_version(struct txn *t, uint64_t version, struct store_version *v)
{
	uint8_t key[8];
	MDB_val value;

	memset(v, 0, sizeof(*v));
	number_key(version, key);
	int error = get(t, t->store->versions, key, sizeof(key), &value);
	return error ? error : record_read_version(value.mv_data, value.mv_size, version, v);
}

static int get_text(struct txn *t, struct store_version *v)
{
	uint8_t key[8], sum[32];
	char hex[65];
	MDB_val value;

	number_key(v->version, key);
	int error = get(t, t->store->texts, key, sizeof(key), &value);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	digest_sha256(value.mv_data, value.mv_size, sum);
	digest_hex(sum, hex);
	if (strcmp(hex, v->digest))
		return -EUCLEAN;
	v->text = malloc(value.mv_size + 1);
	if (!v->text)
		return -ENOMEM;
	memcpy(v->text, value.mv_data, value.mv_size);
	v->text[value.mv_size] = '\0';
	v->length = value.mv_size;
	return 0;
}

static void put_fact(struct txn *t, const char *name, const char *value)
{
	uint8_t record[RECORD_MAX];
	const char *fields[] = {name, value};

	put(t, t->store->facts, name, strlen(name), record, record_write('f', fields, 2, record));
}

/* out: empty where there is none. */
static int get_fact(struct txn *t, const char *name, char *out, size_t size)
{
	char text[RECORD_MAX];
	const char *fields[2];
	MDB_val value;
	int error = get(t, t->store->facts, name, strlen(name), &value);

	*out = '\0';
	if (!error)
		error = record_read('f', value.mv_data, value.mv_size, text, fields, 2);
	if (!error && strcmp(fields[0], name))
		error = -EUCLEAN;
	if (!error)
		snprintf(out, size, "%s", fields[1]);
	return error;
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static int open_env(const char *path, size_t map_size, struct store *s)
{
	int dead, error = mdb_env_create(&s->env);

	if (!error)
		error = mdb_env_set_mapsize(s->env, map_size);
	if (!error)
		error = mdb_env_set_maxdbs(s->env, 4);
	if (!error)
		error = mdb_env_open(s->env, path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
	if (!error)
		mdb_reader_check(s->env, &dead);
	return negative(error);
}

/* The format is written when the store is made and must be ours after. */
static int check_format(struct txn *t)
{
	char format[16];
	int error = get_fact(t, "format", format, sizeof(format));
	MDB_stat stat;

	if (error == -ENOENT && !(error = negative(mdb_stat(t->txn, t->store->versions, &stat))) && !stat.ms_entries) {
		put_fact(t, "format", "1");
		return t->error;
	}
	if (error)
		return error;
	return strcmp(format, "1") ? -EPROTONOSUPPORT : 0;
}

static int open_tables(struct store *s)
{
	struct txn t;

	begin(&t, s, 0);
	if (!t.error)
		t.error = negative(mdb_dbi_open(t.txn, "versions", MDB_CREATE, &s->versions));
	if (!t.error)
		t.error = negative(mdb_dbi_open(t.txn, "texts", MDB_CREATE, &s->texts));
	if (!t.error)
		t.error = negative(mdb_dbi_open(t.txn, "facts", MDB_CREATE, &s->facts));
	if (!t.error)
		t.error = check_format(&t);
	return end(&t);
}

static const char *reason(int error)
{
	switch (error) {
	case -EUCLEAN: return "the store's file is damaged";
	case -EPROTONOSUPPORT: return "the store was written in another format";
	case -ENOSPC: return "the disk is full";
	case -EACCES: case -EPERM: return "the store's folder may not be written";
	default: return "the store cannot be opened";
	}
}

int store_open(const char *folder, size_t map_size, struct store **store, const char **why)
{
	struct store *s = calloc(1, sizeof(*s));
	char path[4096];
	struct stat st;
	int error = s ? 0 : -ENOMEM;

	*store = NULL;
	map_size = map_size ? map_size : MAP_SIZE;
	if (!error && (size_t)snprintf(path, sizeof(path), "%s/" STORE_FILE, folder) >= sizeof(path))
		error = -ENAMETOOLONG;
	if (!error && mkdir(folder, 0700) && errno != EEXIST)
		error = -errno;
	if (!error && !stat(path, &st) && st.st_size)
		error = store_check(path, map_size);
	if (!error)
		error = open_env(path, map_size, s);
	if (!error)
		s->map_size = map_size;
	if (!error)
		error = open_tables(s);
	if (error) {
		store_close(s);
		*why = reason(error);
		return error;
	}
	*store = s;
	return 0;
}

void store_close(struct store *store)
{
	if (store && store->env)
		mdb_env_close(store->env);
	free(store);
}

int store_set_aside(const char *folder, char *moved, size_t size)
{
	char from[4096], lock[4200];
	int n = snprintf(from, sizeof(from), "%s/" STORE_FILE, folder);

	if (n < 0 || (size_t)n >= sizeof(from))
		return -ENAMETOOLONG;
	for (unsigned i = 0; i < 100; i++) {
		snprintf(moved, size, "%s/store.damaged-%" PRId64, folder, (int64_t)time(NULL) + i);
		if (access(moved, F_OK)) {
			snprintf(lock, sizeof(lock), "%s-lock", from);
			unlink(lock);
			return rename(from, moved) ? -errno : 0;
		}
	}
	return -EEXIST;
}

/* --- versions -------------------------------------------------------------------------------------------------------------- */

void store_version_clear(struct store_version *v)
{
	free(v->text);
	memset(v, 0, sizeof(*v));
}

/* The highest number that was given. */
static uint64_t last_version(struct txn *t)
{
	MDB_cursor *cursor = NULL;
	MDB_val key, value;
	uint64_t last = 0;
	int error = t->error ? t->error : negative(mdb_cursor_open(t->txn, t->store->versions, &cursor));

	if (!error && !(error = negative(mdb_cursor_get(cursor, &key, &value, MDB_LAST))))
		last = key_number(&key);
	if (cursor)
		mdb_cursor_close(cursor);
	if (error && error != -ENOENT)
		t->error = error;
	return last;
}

int store_add(struct store *store, struct store_version *v)
{
	uint8_t key[8], sum[32];
	struct txn t;

	begin(&t, store, 0);
	uint64_t version = last_version(&t) + 1;
	struct store_version record = *v;
	record.version = version;
	record.time = v->time ? v->time : (int64_t)time(NULL);
	snprintf(record.state, sizeof(record.state), "candidate");
	record.reason[0] = '\0';
	digest_sha256(v->text, v->length, sum);
	digest_hex(sum, record.digest);
	number_key(version, key);
	put(&t, store->texts, key, sizeof(key), v->text, v->length);
	put_version(&t, &record);
	if (end(&t))
		return t.error;
	*v = record;
	return 0;
}

static uint64_t in_force_number(struct txn *t)
{
	char number[24];

	return get_fact(t, "in-force", number, sizeof(number)) ? 0 : strtoull(number, NULL, 10);
}

int store_set_in_force(struct store *store, uint64_t version)
{
	struct store_version v, before;
	char number[24];
	struct txn t;

	begin(&t, store, 0);
	uint64_t old = in_force_number(&t);
	if (!t.error)
		t.error = get_version(&t, version, &v);
	if (old && old != version && !t.error && !get_version(&t, old, &before)) {
		snprintf(before.state, sizeof(before.state), "superseded");
		put_version(&t, &before);
	}
	snprintf(v.state, sizeof(v.state), "in force");
	v.reason[0] = '\0';
	snprintf(number, sizeof(number), "%" PRIu64, version);
	if (!t.error) {
		put_version(&t, &v);
		put_fact(&t, "in-force", number);
	}
	return end(&t);
}

int store_refuse(struct store *store, uint64_t version, const char *why)
{
	struct store_version v;
	struct txn t;

	begin(&t, store, 0);
	if (!t.error)
		t.error = get_version(&t, version, &v);
	if (!t.error && strcmp(v.state, "candidate"))    /* one that was in force once stays good */
		return mdb_txn_abort(t.txn), 0;
	snprintf(v.state, sizeof(v.state), "refused");
	snprintf(v.reason, sizeof(v.reason), "%s", why ? why : "");
	if (!t.error)
		put_version(&t, &v);
	return end(&t);
}

static bool was_in_force(const struct store_version *v)
{
	return !strcmp(v->state, "in force") || !strcmp(v->state, "superseded");
}

/* Goes backwards from version `from`; the record that the fact names counts whatever its state says. */
static int newest_good(struct txn *t, uint64_t named, struct store_version *v, unsigned *skipped)
{
	uint64_t n = last_version(t);
	int error = -ENOENT;

	for (n = named ? named : n; n && !t->error; n--) {
		error = get_version(t, n, v);
		if (!error && n != named && !was_in_force(v))
			continue;
		if (error == -ENOENT && n != named)
			continue;                     /* pruned */
		if (!error)
			error = get_text(t, v);
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
	begin(&t, store, MDB_RDONLY);
	int fact = get_fact(&t, "in-force", number, sizeof(number));
	int error = t.error;
	if (!error && fact != -ENOENT) {
		*skipped += fact != 0;
		error = newest_good(&t, fact ? 0 : strtoull(number, NULL, 10), v, skipped);
	}
	end(&t);
	return error == -ENOENT ? 0 : error;
}

int store_get(struct store *store, uint64_t version, struct store_version *v)
{
	struct txn t;

	begin(&t, store, MDB_RDONLY);
	int error = t.error ? t.error : get_version(&t, version, v);
	if (!error)
		error = get_text(&t, v);
	end(&t);
	if (error)
		memset(v, 0, sizeof(*v));
	return error;
}

int store_history(struct store *store, size_t limit, struct store_version **out, size_t *n)
{
	MDB_cursor *cursor = NULL;
	MDB_val key, value;
	struct txn t;

	*n = 0;
	*out = calloc(limit ? limit : 1, sizeof(**out));
	begin(&t, store, MDB_RDONLY);
	int error = !*out ? -ENOMEM : t.error ? t.error : negative(mdb_cursor_open(t.txn, store->versions, &cursor));
	if (!error)
		error = negative(mdb_cursor_get(cursor, &key, &value, MDB_LAST));
	for (; !error && *n < limit; error = negative(mdb_cursor_get(cursor, &key, &value, MDB_PREV))) {
		struct store_version *v = &(*out)[(*n)++];
		if (record_read_version(value.mv_data, value.mv_size, key_number(&key), v)) {
			*v = (struct store_version){.version = key_number(&key)};
			snprintf(v->state, sizeof(v->state), "damaged");
		}
	}
	if (cursor)
		mdb_cursor_close(cursor);
	end(&t);
	return error == -ENOENT ? 0 : error;
}

/* --- facts and pruning ------------------------------------------------------------------------------------------------------ */

int store_file_digest(struct store *store, char digest[65])
{
	struct txn t;

	begin(&t, store, MDB_RDONLY);
	int error = get_fact(&t, "file-digest", digest, 65);
	end(&t);
	return error == -ENOENT || error == -EUCLEAN ? 0 : error;
}

int store_set_file_digest(struct store *store, const char *digest)
{
	struct txn t;

	begin(&t, store, 0);
	if (!t.error)
		put_fact(&t, "file-digest", digest);
	return end(&t);
}

static uint64_t confirmed_number(struct txn *t)
{
	char number[24];

	return get_fact(t, "confirmed", number, sizeof(number)) ? 0 : strtoull(number, NULL, 10);
}

int store_confirm(struct store *store, uint64_t version)
{
	char number[24];
	struct txn t;

	begin(&t, store, 0);
	snprintf(number, sizeof(number), "%" PRIu64, version);
	if (!t.error)
		put_fact(&t, "confirmed", number);
	return end(&t);
}

uint64_t store_confirmed(struct store *store)
{
	struct txn t;

	begin(&t, store, MDB_RDONLY);
	uint64_t version = t.error ? 0 : confirmed_number(&t);
	end(&t);
	return version;
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
	begin(&t, store, MDB_RDONLY);
	int error = t.error ? t.error : get_fact(&t, key, out, size);
	end(&t);
	return error == -ENOENT ? 0 : error;
}

int store_set_note(struct store *store, const char *name, const char *text)
{
	char key[64];
	struct txn t;

	if (strlen(text) > NOTE_MAX)
		return -EMSGSIZE;
	note_key(name, key);
	begin(&t, store, 0);
	if (!t.error)
		put_fact(&t, key, text);
	return end(&t);
}

static void forget(struct txn *t, uint64_t version)
{
	uint8_t key[8];
	MDB_val k = {sizeof(key), key};

	number_key(version, key);
	int error = negative(mdb_del(t->txn, t->store->texts, &k, NULL));
	if (!error || error == -ENOENT)
		error = negative(mdb_del(t->txn, t->store->versions, &k, NULL));
	if (error && error != -ENOENT)
		t->error = error;
}

/* The newest `keep` of all, the one in force and the last confirmed stay. */
static int forget_old(struct store *store, const struct store_version *all, size_t n, size_t keep)
{
	struct txn t;

	begin(&t, store, 0);
	uint64_t in_force = t.error ? 0 : in_force_number(&t), confirmed = t.error ? 0 : confirmed_number(&t);
	for (size_t i = keep; i < n && !t.error; i++)
		if (all[i].version != in_force && all[i].version != confirmed)
			forget(&t, all[i].version);
	return end(&t);
}

/* LMDB reuses pages only two commits after the one that freed them. */
static int settle(struct store *store)
{
	char number[24];
	struct txn t;

	begin(&t, store, 0);
	snprintf(number, sizeof(number), "%" PRIu64, t.error ? 0 : last_version(&t));
	if (!t.error)
		put_fact(&t, "pruned", number);
	return end(&t);
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
