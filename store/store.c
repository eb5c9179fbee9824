/* SPDX-License-Identifier: Apache-2.0 */
/* Three tables: "versions" (number -> record), "texts" (number, and number with a 'c' for the controller's layer -> document, checked by the digest in the record), "facts"
 * (name -> record). A transaction keeps its first error and is checked once, at its end. */
#include "store/store.h"
#include "store/digest.h"
#include "store/store_check.h"
#include "store/store_internal.h"
#include "store/store_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define MAP_SIZE ((size_t)256 << 20)
#define NEARLY_FULL ((size_t)4 << 20)     /* bytes left on the disk */

/* LMDB's positive errors are errno's. */
int store_negative(int error)
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

void store_begin(struct txn *t, struct store *store, unsigned flags)
{
	*t = (struct txn){.store = store};
	t->error = store_negative(mdb_txn_begin(store->env, NULL, flags, &t->txn));
}

/* LMDB calls a short write EIO; what it means is mostly a full disk. */
static int disk_error(struct store *store, int error)
{
	struct statvfs fs;
	int fd;

	if (error == -EIO && !mdb_env_get_fd(store->env, &fd) && !fstatvfs(fd, &fs) &&
	    (uint64_t)fs.f_bavail * fs.f_bsize < NEARLY_FULL)
		return -ENOSPC;
	return error;
}

/* Commits where nothing failed. Returns the first error. */
int store_end(struct txn *t)
{
	if (!t->txn)
		return t->error;
	if (t->error)
		mdb_txn_abort(t->txn);
	else
		t->error = disk_error(t->store, store_negative(mdb_txn_commit(t->txn)));
	t->txn = NULL;
	return t->error;
}

/* --- records ---------------------------------------------------------------------------------------------------------- */

void store_number_key(uint64_t version, uint8_t out[8])
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(version >> (56 - 8 * i));
}

void store_layer_key(uint64_t version, uint8_t out[STORE_LAYER_KEY])
{
	store_number_key(version, out);
	out[STORE_LAYER_KEY - 1] = 'c';
}

uint64_t store_key_number(const MDB_val *key)
{
	uint64_t v = 0;

	for (size_t i = 0; i < key->mv_size && i < 8; i++)
		v = v << 8 | ((const uint8_t *)key->mv_data)[i];
	return v;
}

void store_put(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, const void *data, size_t length)
{
	MDB_val k = {key_size, (void *)(uintptr_t)key}, v = {length, (void *)(uintptr_t)data};

	if (!t->error)
		t->error = store_negative(mdb_put(t->txn, dbi, &k, &v, 0));
}

int store_find(struct txn *t, MDB_dbi dbi, const void *key, size_t key_size, MDB_val *value)
{
	MDB_val k = {key_size, (void *)(uintptr_t)key};

	return t->error ? t->error : store_negative(mdb_get(t->txn, dbi, &k, value));
}

void store_put_version(struct txn *t, const struct store_version *v)
{
	uint8_t record[RECORD_MAX], key[8];

	store_number_key(v->version, key);
	store_put(t, t->store->versions, key, sizeof(key), record, record_write_version(v, record));
}

int store_find_version(struct txn *t, uint64_t version, struct store_version *v)
{
	uint8_t key[8];
	MDB_val value;

	memset(v, 0, sizeof(*v));
	store_number_key(version, key);
	int error = store_find(t, t->store->versions, key, sizeof(key), &value);
	return error ? error : record_read_version(value.mv_data, value.mv_size, version, v);
}

/* One text, checked by its digest. */
static int find_text(struct txn *t, const uint8_t *key, size_t key_size, const char *digest, char **text, size_t *length)
{
	uint8_t sum[32];
	char hex[65];
	MDB_val value;
	int error = store_find(t, t->store->texts, key, key_size, &value);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	digest_sha256(value.mv_data, value.mv_size, sum);
	digest_hex(sum, hex);
	if (strcmp(hex, digest))
		return -EUCLEAN;
	*text = malloc(value.mv_size + 1);
	if (!*text)
		return -ENOMEM;
	memcpy(*text, value.mv_data, value.mv_size);
	(*text)[value.mv_size] = '\0';
	*length = value.mv_size;
	return 0;
}

int store_find_text(struct txn *t, struct store_version *v)
{
	uint8_t key[STORE_LAYER_KEY];

	store_layer_key(v->version, key);
	int error = find_text(t, key, 8, v->digest, &v->text, &v->length);
	if (!error && v->controller.number)
		error = find_text(t, key, sizeof(key), v->controller.digest, &v->controller.text, &v->controller.length);
	return error;
}

void store_put_fact(struct txn *t, const char *name, const char *value)
{
	uint8_t record[RECORD_MAX];
	const char *fields[] = {name, value};

	store_put(t, t->store->facts, name, strlen(name), record, record_write('f', fields, 2, record));
}

/* out: empty where there is none. */
int store_find_fact(struct txn *t, const char *name, char *out, size_t size)
{
	char text[RECORD_MAX];
	const char *fields[2];
	MDB_val value;
	int error = store_find(t, t->store->facts, name, strlen(name), &value);

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
	return store_negative(error);
}

/* The format is written when the store is made and must be ours after. */
static int check_format(struct txn *t)
{
	char format[16];
	int error = store_find_fact(t, "format", format, sizeof(format));
	MDB_stat stat;

	if (error == -ENOENT && !(error = store_negative(mdb_stat(t->txn, t->store->versions, &stat))) && !stat.ms_entries) {
		store_put_fact(t, "format", "1");
		return t->error;
	}
	if (error)
		return error;
	return strcmp(format, "1") ? -EPROTONOSUPPORT : 0;
}

static int open_tables(struct store *s)
{
	struct txn t;

	store_begin(&t, s, 0);
	if (!t.error)
		t.error = store_negative(mdb_dbi_open(t.txn, "versions", MDB_CREATE, &s->versions));
	if (!t.error)
		t.error = store_negative(mdb_dbi_open(t.txn, "texts", MDB_CREATE, &s->texts));
	if (!t.error)
		t.error = store_negative(mdb_dbi_open(t.txn, "facts", MDB_CREATE, &s->facts));
	if (!t.error)
		t.error = check_format(&t);
	return store_end(&t);
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
