/* SPDX-License-Identifier: Apache-2.0 */
/* The store of a controller that is alone: LMDB in STATE/controller/controller.mdb. Table "kv": key -> SHA-256 of key and rest,
 * revision (big endian), JSON text; table "meta": "format", "revision". What is temporary lies in memory only. */
#include "store/digest.h"
#include "store/store_check.h"
#include "workers/controller/kv_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <lmdb.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "ipc/log.h"

#define FILE_NAME "controller.mdb"
#define MAP_SIZE ((size_t)1 << 30)
#define SPARE ((size_t)4 << 20)       /* a disk with less is full; a full map's deletions take pages too */
#define HEAD 40                       /* digest, revision */
#define TEMPORARY_MS 60000
#define SWEEP_S 5
#define LOCK_MS 5000                  /* for one before us to end */

static char revision_name[] = "revision";

struct local {
	struct kv kv;                 /* first: the one is the other */
	MDB_env *env;
	MDB_dbi table, meta;
	size_t map_size;
	uint64_t revision;            /* the last that was given */
	struct event *sweep;
	int lock;                     /* -1: not held */
	int trouble;                  /* why the last transaction was not written, which is told once */
};

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

/* LMDB calls a short write EIO; what it means is mostly a full disk. */
static int disk_error(const struct local *l, int error)
{
	struct statvfs fs;
	int fd;
	if (error == -EIO && !mdb_env_get_fd(l->env, &fd) && !fstatvfs(fd, &fs) &&
	    (uint64_t)fs.f_bavail * fs.f_bsize < SPARE)
		return -ENOSPC;
	return error;
}

/* --- records ------------------------------------------------------------------------------------------------------- */

static void write_revision(uint8_t out[8], uint64_t revision)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(revision >> (56 - 8 * i));
}

static uint64_t read_revision(const uint8_t in[8])
{
	uint64_t revision = 0;
	for (int i = 0; i < 8; i++)
		revision = revision << 8 | in[i];
	return revision;
}

/* The key goes in, so that a record cannot stand in another's place. rest: revision and text. */
static int record_digest(const char *key, const uint8_t *rest, size_t length, uint8_t out[32])
{
	size_t key_length = strlen(key) + 1;
	uint8_t *all = malloc(key_length + length);
	if (!all)
		return -ENOMEM;
	memcpy(all, key, key_length);
	memcpy(all + key_length, rest, length);
	digest_sha256(all, key_length + length, out);
	free(all);
	return 0;
}

static int put_record(const struct local *l, MDB_txn *txn, const char *key, const json_t *json, uint64_t revision)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	size_t length = text ? strlen(text) : 0;
	uint8_t *record = text ? malloc(HEAD + length) : NULL;
	MDB_val k = {strlen(key), (void *)(uintptr_t)key}, v = {HEAD + length, record};
	int error = record ? 0 : -ENOMEM;
	if (!error) {
		write_revision(record + 32, revision);
		memcpy(record + HEAD, text, length);
		error = record_digest(key, record + 32, length + 8, record);
	}
	if (!error)
		error = negative(mdb_put(txn, l->table, &k, &v, 0));
	free(record);
	free(text);
	return error;
}

/* Into memory. -EUCLEAN: it does not check. */
static int load_record(struct local *l, const MDB_val *k, const MDB_val *v)
{
	const uint8_t *record = v->mv_data;
	uint8_t digest[32];
	char key[KV_KEY_MAX + 1];
	if (k->mv_size > KV_KEY_MAX || v->mv_size < HEAD)
		return -EUCLEAN;
	memcpy(key, k->mv_data, k->mv_size);
	key[k->mv_size] = '\0';
	int error = record_digest(key, record + 32, v->mv_size - 32, digest);
	if (error || memcmp(digest, record, sizeof(digest)))
		return error ? error : -EUCLEAN;
	json_t *json = json_loadb((const char *)record + HEAD, v->mv_size - HEAD, JSON_DECODE_ANY, NULL);
	uint64_t revision = read_revision(record + 32);
	if (!json)
		return -EUCLEAN;
	if (revision > l->revision)
		l->revision = revision;
	return kv_apply_put(&l->kv, key, json, revision, 0) ? 0 : -ENOMEM;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */

static int open_env(struct local *l, const char *path)
{
	int dead, error = mdb_env_create(&l->env);
	if (!error)
		error = mdb_env_set_mapsize(l->env, l->map_size);
	if (!error)
		error = mdb_env_set_maxdbs(l->env, 4);
	if (!error)
		error = mdb_env_open(l->env, path, MDB_NOSUBDIR | MDB_NOTLS, 0600);
	if (!error)
		mdb_reader_check(l->env, &dead);
	return negative(error);
}

static int check_format(struct local *l, MDB_txn *txn)
{
	static char name[] = "format", format[] = "1";
	MDB_val key = {sizeof(name) - 1, name}, value, one = {1, format};
	int error = negative(mdb_get(txn, l->meta, &key, &value));
	if (error == -ENOENT)
		return negative(mdb_put(txn, l->meta, &key, &one, 0));
	if (error)
		return error;
	return value.mv_size == 1 && !memcmp(value.mv_data, "1", 1) ? 0 : -EPROTONOSUPPORT;
}

static int open_tables(struct local *l)
{
	MDB_val key = {sizeof(revision_name) - 1, revision_name}, value;
	MDB_txn *txn = NULL;
	int error = negative(mdb_txn_begin(l->env, NULL, 0, &txn));
	if (!error)
		error = negative(mdb_dbi_open(txn, "kv", MDB_CREATE, &l->table));
	if (!error)
		error = negative(mdb_dbi_open(txn, "meta", MDB_CREATE, &l->meta));
	if (!error)
		error = check_format(l, txn);
	if (!error && !mdb_get(txn, l->meta, &key, &value) && value.mv_size == 8)
		l->revision = read_revision(value.mv_data);
	if (!error)
		return disk_error(l, negative(mdb_txn_commit(txn)));
	if (txn)
		mdb_txn_abort(txn);
	return error;
}

/* bad counts records that do not check; they stay out. */
static int load(struct local *l, unsigned *bad)
{
	MDB_cursor *cursor = NULL;
	MDB_txn *txn = NULL;
	MDB_val key, value;
	int error = negative(mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn));
	if (!error)
		error = negative(mdb_cursor_open(txn, l->table, &cursor));
	while (!error && !(error = negative(mdb_cursor_get(cursor, &key, &value, MDB_NEXT)))) {
		error = load_record(l, &key, &value);
		if (error == -EUCLEAN) {
			log_error("record of the controller's store damaged", "key=%.*s effect=\"left out\"",
			          (int)(key.mv_size > 200 ? 200 : key.mv_size), (const char *)key.mv_data);
			++*bad;
			error = 0;
		}
	}
	if (cursor)
		mdb_cursor_close(cursor);
	if (txn)
		mdb_txn_abort(txn);
	return error == -ENOENT ? 0 : error;
}

/* Renames the file, so that nothing of it is lost, and a new one can be made. */
static int set_aside(const char *path)
{
	char moved[4300], lock[4300];
	for (unsigned i = 0; i < 100; i++) {
		snprintf(moved, sizeof(moved), "%s.damaged-%lld", path, (long long)time(NULL) + i);
		if (!access(moved, F_OK))
			continue;
		snprintf(lock, sizeof(lock), "%s-lock", path);
		unlink(lock);
		if (rename(path, moved))
			return -errno;
		log_error("controller's store damaged", "moved=%s", log_value(moved));
		return 0;
	}
	return -EEXIST;
}

/* A new file with all that is in memory. */
static int write_all(struct local *l)
{
	MDB_txn *txn = NULL;
	int error = negative(mdb_txn_begin(l->env, NULL, 0, &txn));
	for (size_t i = 0; !error && i < l->kv.n_entries; i++)
		error = put_record(l, txn, l->kv.entries[i]->key, l->kv.entries[i]->json, l->kv.entries[i]->revision);
	if (!error)
		return disk_error(l, negative(mdb_txn_commit(txn)));
	if (txn)
		mdb_txn_abort(txn);
	return error;
}

static int open_file(struct local *l, const char *path)
{
	int error = open_env(l, path);
	return error ? error : open_tables(l);
}

static int open_fresh(struct local *l, const char *path)
{
	if (l->env)
		mdb_env_close(l->env);
	l->env = NULL;
	int error = set_aside(path);
	return error ? error : open_file(l, path);
}

/* A damaged file goes aside; what of it still checks is carried over. */
static int open_store(struct local *l, const char *path)
{
	struct stat st;
	unsigned bad = 0;
	int error = !stat(path, &st) && st.st_size ? store_check(path, l->map_size) : 0;
	if (!error)
		error = open_file(l, path);
	if (!error)
		error = load(l, &bad);
	if (error == -EUCLEAN)
		error = open_fresh(l, path);
	else if (!error && bad && !(error = open_fresh(l, path)))
		error = write_all(l);
	return error;
}

/* --- transactions -------------------------------------------------------------------------------------------------- */

static int store_revision(const struct local *l, MDB_txn *txn, uint64_t revision)
{
	uint8_t number[8];
	MDB_val key = {sizeof(revision_name) - 1, revision_name}, value = {sizeof(number), number};
	write_revision(number, revision);
	return negative(mdb_put(txn, l->meta, &key, &value, 0));
}

static int store_op(const struct local *l, MDB_txn *txn, const struct kv_op *op, uint64_t revision)
{
	MDB_val key = {strlen(op->key), op->key};
	if (op->json && !op->temporary)
		return put_record(l, txn, op->key, op->json, revision);
	int error = negative(mdb_del(txn, l->table, &key, NULL));
	return error == -ENOENT ? 0 : error;
}

static int store_ops(struct local *l, const struct kv_txn *t, uint64_t revision)
{
	MDB_txn *txn = NULL;
	int error = negative(mdb_txn_begin(l->env, NULL, 0, &txn));
	for (size_t i = 0; !error && i < t->n_ops; i++)
		error = store_op(l, txn, &t->ops[i], revision);
	if (!error)
		error = store_revision(l, txn, revision);
	if (!error)
		return disk_error(l, negative(mdb_txn_commit(txn)));
	if (txn)
		mdb_txn_abort(txn);
	return error;
}

/* Whether the disk knows of it: a temporary value may take a lasting one's place. */
static bool is_kept(struct local *l, const struct kv_op *op)
{
	MDB_val key = {strlen(op->key), op->key}, value;
	MDB_txn *txn = NULL;
	if (op->json && !op->temporary)
		return true;
	if (mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn))
		return true;
	bool found = mdb_get(txn, l->table, &key, &value) != MDB_NOTFOUND;
	mdb_txn_abort(txn);
	return found;
}

static bool any_kept(struct local *l, const struct kv_txn *txn)
{
	for (size_t i = 0; i < txn->n_ops; i++)
		if (is_kept(l, &txn->ops[i]))
			return true;
	return false;
}

static void apply(struct local *l, struct kv_txn *txn, uint64_t revision)
{
	for (size_t i = 0; i < txn->n_ops; i++) {
		struct kv_op *op = &txn->ops[i];
		json_t *json = op->json;
		op->json = NULL;
		if (json)
			kv_apply_put(&l->kv, op->key, json, revision, op->temporary ? kv_now() + TEMPORARY_MS : 0);
		else
			kv_apply_delete(&l->kv, op->key);
	}
	l->revision = revision;
}

static void local_commit(struct kv *kv, struct kv_txn *txn, kv_done *done, void *arg)
{
	struct local *l = (struct local *)kv;
	uint64_t revision = l->revision + 1;
	int error = kv_txn_holds(txn) ? kv_reserve(kv, txn->n_ops) : -EAGAIN;
	if (!error && any_kept(l, txn))
		error = store_ops(l, txn, revision);
	if (!error)
		apply(l, txn, revision);
	else if (error != -EAGAIN && error != l->trouble)
		log_error("controller's store not written", "error=%s", log_value(strerror(-error)));
	l->trouble = error == -EAGAIN ? l->trouble : error;
	kv_txn_free(txn);
	if (done)
		done(arg, error);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct local *l = arg;
	uint64_t now = kv_now();
	(void)fd, (void)what;
	for (size_t i = 0; i < l->kv.n_entries;) {
		const struct kv_entry *entry = l->kv.entries[i];
		if (entry->expires && entry->expires <= now)
			kv_apply_delete(&l->kv, entry->key);
		else
			i++;
	}
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static bool local_leads(const struct kv *kv)
{
	return kv->ready;
}

static void local_free(struct kv *kv)
{
	struct local *l = (struct local *)kv;
	if (l->sweep)
		event_free(l->sweep);
	if (l->env)
		mdb_env_close(l->env);
	if (l->lock >= 0)
		close(l->lock);
	kv_fini(kv);
	free(l);
}

static const struct kv_kind kind = {.commit = local_commit, .leads = local_leads, .free = local_free};

static const char *reason(int error)
{
	switch (error) {
	case -EUCLEAN: return "the store's file is damaged";
	case -EPROTONOSUPPORT: return "the store was written in another format";
	case -ENOSPC: return "the disk is full";
	case -EBUSY: return "another controller has it open";
	case -EACCES: case -EPERM: return "the store's folder may not be written";
	default: return "the store cannot be opened";
	}
}

/* Two at a time would not know of each other's changes, since reading is from memory. One whose supervisor was killed ends by itself. */
static int lock_folder(struct local *l, const char *folder)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/lock", folder) >= sizeof(path))
		return -ENAMETOOLONG;
	l->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (l->lock < 0)
		return -errno;
	for (uint64_t end = kv_now() + LOCK_MS; flock(l->lock, LOCK_EX | LOCK_NB);) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (kv_now() > end)
			return -EBUSY;
		usleep(20000);
	}
	return 0;
}

static int begin(struct local *l, const char *folder)
{
	static const struct timeval every = {.tv_sec = SWEEP_S};
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/" FILE_NAME, folder) >= sizeof(path))
		return -ENAMETOOLONG;
	if (mkdir(folder, 0700) && errno != EEXIST)
		return -errno;
	int error = lock_folder(l, folder);
	if (!error)
		error = open_store(l, path);
	if (error)
		return error;
	l->sweep = event_new(l->kv.base, -1, EV_PERSIST, on_sweep, l);
	return l->sweep && !event_add(l->sweep, &every) ? 0 : -ENOMEM;
}

struct kv *kv_local_sized(struct event_base *base, const char *folder, size_t map_size, kv_state *changed, void *arg,
                          const char **why)
{
	struct local *l = calloc(1, sizeof(*l));
	int error = l ? kv_init(&l->kv, &kind, base, changed, arg) : -ENOMEM;
	if (l) {
		l->map_size = map_size ? map_size : MAP_SIZE;
		l->lock = -1;
	}
	if (!error)
		error = begin(l, folder);
	if (error) {
		if (l)
			local_free(&l->kv);
		*why = reason(error);
		errno = -error;
		return NULL;
	}
	l->kv.ready = true;
	kv_tell_state(&l->kv);
	return &l->kv;
}

struct kv *kv_local(struct event_base *base, const char *folder, kv_state *changed, void *arg, const char **why)
{
	return kv_local_sized(base, folder, 0, changed, arg, why);
}
