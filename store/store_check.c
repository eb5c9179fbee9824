/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store_check.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 20                /* a damaged tree can have loops */

/* Every byte of every record. */
static int walk(MDB_txn *txn, MDB_dbi dbi)
{
	MDB_cursor *cursor = NULL;
	MDB_val key, value;
	volatile unsigned char sum = 0;
	int error = mdb_cursor_open(txn, dbi, &cursor);

	while (!error && !(error = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
		for (size_t i = 0; i < key.mv_size; i++)
			sum ^= ((unsigned char *)key.mv_data)[i];
		for (size_t i = 0; i < value.mv_size; i++)
			sum ^= ((unsigned char *)value.mv_data)[i];
	}
	if (cursor)
		mdb_cursor_close(cursor);
	(void)sum;
	return error == MDB_NOTFOUND ? 0 : error;
}

static int walk_named(MDB_txn *txn, const char *name)
{
	MDB_dbi dbi;
	int error = mdb_dbi_open(txn, name, 0, &dbi);

	return error ? (error == MDB_NOTFOUND ? 0 : error) : walk(txn, dbi);
}

/* A write that is taken back goes through the list of free pages. */
static int try_write(MDB_env *env)
{
	static char data[64 * 1024];
	static char name[] = "~trial";
	MDB_val key = {sizeof(name), name}, value = {sizeof(data), data};
	MDB_txn *txn = NULL;
	MDB_dbi dbi;
	int error = mdb_txn_begin(env, NULL, 0, &txn);

	if (!error)
		error = mdb_dbi_open(txn, "texts", MDB_CREATE, &dbi);
	if (!error)
		error = mdb_put(txn, dbi, &key, &value, 0);
	if (txn)
		mdb_txn_abort(txn);
	return error == MDB_MAP_FULL || error == ENOSPC ? 0 : error;
}

static int check(const char *path, size_t map_size)
{
	MDB_env *env = NULL;
	MDB_txn *txn = NULL;
	int error = mdb_env_create(&env);

	if (!error)
		error = mdb_env_set_mapsize(env, map_size);
	if (!error)
		error = mdb_env_set_maxdbs(env, 4);
	if (!error)
		error = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600);
	if (!error)
		error = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
	if (!error)
		error = walk(txn, 0);                 /* the free pages */
	if (!error)
		error = walk(txn, 1);                 /* the tables' names */
	if (!error)
		error = walk_named(txn, "versions");
	if (!error)
		error = walk_named(txn, "texts");
	if (!error)
		error = walk_named(txn, "facts");
	if (!error)
		error = walk_named(txn, "kv");        /* the controller's (workers/controller/kv_local.c) */
	if (txn)
		mdb_txn_abort(txn);
	return error ? error : try_write(env);
}

static void child(const char *path, size_t map_size)
{
	static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGALRM};
	struct rlimit no_core = {0, 0}, memory = {(rlim_t)4 << 30, (rlim_t)4 << 30};
	int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (unsigned i = 0; i < sizeof(fatal_signals) / sizeof(*fatal_signals); i++)
		signal(fatal_signals[i], SIG_DFL);
	setrlimit(RLIMIT_CORE, &no_core);
#ifndef __SANITIZE_ADDRESS__
	setrlimit(RLIMIT_AS, &memory);
#else
	(void)memory;
#endif
	if (nowhere >= 0)
		dup2(nowhere, STDERR_FILENO);         /* LMDB's assertions speak there */
	alarm(SECONDS);
	_exit(check(path, map_size) ? 1 : 0);
}

int store_check(const char *path, size_t map_size)
{
	int status = 0, fd = open(path, O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (fd < 0)
		return -errno;                        /* somebody else's file is not a damaged one */
	close(fd);
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid)
		child(path, map_size);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EUCLEAN;
}
