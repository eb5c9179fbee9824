#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/store.h"
#include "store/store_record.h"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/hermes-store-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static const char *file(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/store.mdb", folder);
	return path;
}

static struct store *open_store(size_t map)
{
	struct store *s;
	const char *why = "";
	int error = store_open(folder, map, &s, &why);

	if (error)
		fail_msg("store_open: %d %s", error, why);
	return s;
}

static int add(struct store *s, const char *text, size_t length, uint64_t *version)
{
	struct store_version v = {.source = "admin", .author = "root", .name = "x.yaml", .text = (char *)(uintptr_t)text,
	                          .length = length};
	int error = store_add(s, &v);

	if (version)
		*version = v.version;
	return error;
}

static void add_in_force(struct store *s, const char *text)
{
	uint64_t version;

	assert_int_equal(add(s, text, strlen(text), &version), 0);
	assert_int_equal(store_set_in_force(s, version), 0);
}

static void add_layers(struct store *s, const char *text, uint64_t number, const char *layer)
{
	struct store_version v = {.source = "controller", .text = (char *)(uintptr_t)text, .length = strlen(text)};

	v.controller = (struct store_layer){.number = number, .time = 1700000000, .author = "ops", .reason = "rollout",
	                                    .text = (char *)(uintptr_t)layer, .length = strlen(layer)};
	assert_int_equal(store_add(s, &v), 0);
	assert_int_equal(store_set_in_force(s, v.version), 0);
}

static void expect_in_force(struct store *s, uint64_t version, const char *text, unsigned skipped)
{
	struct store_version v;
	unsigned n;

	assert_int_equal(store_in_force(s, &v, &n), 0);
	assert_int_equal(v.version, version);
	assert_int_equal(n, skipped);
	if (version)
		assert_string_equal(v.text, text);
	store_version_clear(&v);
}

static void test_life(void **state)
{
	struct store *s = open_store(0);
	struct store_version v, *all;
	char digest[65];
	size_t n;

	(void)state;
	expect_in_force(s, 0, NULL, 0);
	add_in_force(s, "one");
	add_in_force(s, "two");
	assert_int_equal(add(s, "three", 5, NULL), 0);
	assert_int_equal(store_refuse(s, 3, "tunnel-0: no certificate"), 0);
	assert_int_equal(store_refuse(s, 2, "not a candidate any more"), 0);
	assert_int_equal(store_set_file_digest(s, "abc"), 0);
	store_close(s);
	s = open_store(0);
	expect_in_force(s, 2, "two", 0);
	assert_int_equal(store_get(s, 1, &v), 0);
	assert_string_equal(v.state, "superseded");
	assert_string_equal(v.text, "one");
	assert_string_equal(v.author, "root");
	store_version_clear(&v);
	assert_int_equal(store_get(s, 9, &v), -ENOENT);
	assert_int_equal(store_set_in_force(s, 9), -ENOENT);
	assert_int_equal(store_history(s, 10, &all, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(all[0].state, "refused");
	assert_string_equal(all[0].reason, "tunnel-0: no certificate");
	assert_string_equal(all[1].state, "in force");
	free(all);
	assert_int_equal(store_file_digest(s, digest), 0);
	assert_string_equal(digest, "abc");
	for (int i = 0; i < 10; i++)
		assert_int_equal(add(s, "more", 4, NULL), 0);
	assert_int_equal(store_prune(s, 4), 0);
	assert_int_equal(store_history(s, 100, &all, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(all[4].version, 2);        /* in force: kept */
	free(all);
	store_close(s);
}

/* Writes over a record's value behind the store's back. */
static void spoil(const char *table, uint64_t version, const void *data, size_t length)
{
	uint8_t key[8] = {0};
	MDB_val k = {8, key}, v = {length, (void *)(uintptr_t)data};
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	key[7] = (uint8_t)version;
	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
	assert_int_equal(mdb_env_open(env, file(), MDB_NOSUBDIR, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, table, 0, &dbi), 0);
	assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void test_layers(void **state)
{
	struct store *s = open_store(0);
	struct store_version v, *all;
	unsigned skipped;
	size_t n;

	(void)state;
	add_in_force(s, "file");
	assert_int_equal(store_confirmed(s), 0);
	assert_int_equal(store_confirm(s, 9), -ENOENT);
	add_layers(s, "file", 41, "from the controller");
	assert_int_equal(store_confirm(s, 2), 0);
	add_layers(s, "file", 42, "and another");
	store_close(s);
	s = open_store(0);
	assert_int_equal(store_in_force(s, &v, &skipped), 0);
	assert_int_equal(v.controller.number, 42);
	assert_int_equal(v.controller.time, 1700000000);
	assert_string_equal(v.controller.author, "ops");
	assert_string_equal(v.controller.reason, "rollout");
	assert_string_equal(v.controller.text, "and another");
	assert_string_equal(v.text, "file");
	assert_int_equal(v.confirmed, 0);
	assert_int_equal(store_confirmed(s), 2);
	struct store_layer newer = {.number = 50, .author = "root", .reason = "again"};
	assert_int_equal(store_renumber(s, 3, &newer), 0);
	assert_int_equal(store_renumber(s, 1, &newer), -ENOENT);
	store_version_clear(&v);
	assert_int_equal(store_get(s, 3, &v), 0);
	assert_int_equal(v.controller.number, 50);
	assert_string_equal(v.controller.text, "and another");
	assert_string_equal(v.controller.reason, "again");
	store_version_clear(&v);
	for (int i = 0; i < 5; i++)
		add_in_force(s, "more");
	assert_int_equal(store_prune(s, 2), 0);
	assert_int_equal(store_history(s, 10, &all, &n), 0);
	assert_int_equal(n, 3);                       /* the newest two, and the one that was confirmed */
	assert_int_equal(all[2].version, 2);
	assert_true(all[2].confirmed > 0);
	assert_int_equal(all[2].controller.number, 41);
	free(all);
	assert_int_equal(store_get(s, 2, &v), 0);
	assert_string_equal(v.controller.text, "from the controller");
	store_version_clear(&v);
	assert_int_equal(store_get(s, 3, &v), -ENOENT);
	store_close(s);
}

/* A version as a release before layers wrote it. */
static void test_first_form(void **state)
{
	static const char *const fields[] = {"5", "1600000000", "file", "root", "/etc/hermes/hermes.yaml", "abc", "in force", ""};
	uint8_t record[RECORD_MAX];
	struct store_version v;
	size_t n = record_write('v', fields, 8, record);

	(void)state;
	assert_int_equal(record_read_version(record, n, 5, &v), 0);
	assert_string_equal(v.name, "/etc/hermes/hermes.yaml");
	assert_string_equal(v.state, "in force");
	assert_int_equal(v.controller.number, 0);
	assert_int_equal(v.confirmed, 0);
	for (size_t i = 0; i < n; i++) {
		record[i] ^= 4;
		assert_true(record_read_version(record, n, 5, &v) < 0);
		record[i] ^= 4;
	}
}

static void test_damaged_records(void **state)
{
	struct store *s = open_store(0);
	struct store_version v, *all;
	size_t n;

	(void)state;
	add_in_force(s, "one");
	add_in_force(s, "two");
	add_in_force(s, "three");
	store_close(s);
	spoil("texts", 3, "thref", 5);
	s = open_store(0);
	expect_in_force(s, 2, "two", 1);
	assert_int_equal(store_get(s, 3, &v), -EUCLEAN);
	store_close(s);
	spoil("versions", 2, "x", 1);
	s = open_store(0);
	expect_in_force(s, 1, "one", 2);
	assert_int_equal(store_history(s, 10, &all, &n), 0);
	assert_string_equal(all[1].state, "damaged");
	free(all);
	store_close(s);
}

/* A record of another format is not read, whatever its checksum says. */
static void test_other_format(void **state)
{
	uint8_t record[RECORD_MAX];
	char text[RECORD_MAX];
	const char *fields[] = {"a", "b"}, *out[3];
	size_t n = record_write('f', fields, 2, record);

	(void)state;
	assert_int_equal(record_read('f', record, n, text, out, 2), 0);
	assert_string_equal(out[1], "b");
	assert_int_equal(record_read('v', record, n, text, out, 2), -EUCLEAN);
	assert_int_equal(record_read('f', record, n, text, out, 3), -EUCLEAN);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(record_read('f', record, i, text, out, 2), -EUCLEAN);
	for (size_t i = 0; i < n; i++) {
		record[i] ^= 1;
		assert_int_equal(record_read('f', record, n, text, out, 2), -EUCLEAN);
		record[i] ^= 1;
	}
}

/* A store whose format is an older one's: refused by name, and nothing of it used. */
static void test_older_store(void **state)
{
	uint8_t record[RECORD_MAX];
	const char *fields[] = {"format", "0"}, *why = "";
	struct store *s = open_store(0);
	MDB_val k = {6, (void *)(uintptr_t)"format"}, v = {record_write('f', fields, 2, record), record};
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	char moved[256];

	(void)state;
	add_in_force(s, "one");
	store_close(s);
	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 4);
	assert_int_equal(mdb_env_open(env, file(), MDB_NOSUBDIR, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, "facts", 0, &dbi), 0);
	assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
	assert_int_equal(store_open(folder, 0, &s, &why), -EPROTONOSUPPORT);
	assert_non_null(strstr(why, "another format"));
	assert_int_equal(store_set_aside(folder, moved, sizeof(moved)), 0);
	assert_int_equal(access(moved, F_OK), 0);
	s = open_store(0);
	expect_in_force(s, 0, NULL, 0);
	store_close(s);
}

static void test_full_map(void **state)
{
	static char text[100000];
	struct store *s = open_store(1 << 20);
	uint64_t last = 0;
	int error = 0;

	(void)state;
	add_in_force(s, "good");
	memset(text, 'x', sizeof(text));
	for (int i = 0; i < 100 && !error; i++)
		error = add(s, text, sizeof(text), &last);
	assert_int_equal(error, -ENOSPC);
	expect_in_force(s, 1, "good", 0);
	assert_int_equal(store_prune(s, 2), 0);
	assert_int_equal(add(s, text, sizeof(text), NULL), 0);
	expect_in_force(s, 1, "good", 0);
	store_close(s);
}

static void test_full_disk(void **state)
{
	static char text[100000];
	char mount_at[64];
	struct store *s;
	int error = 0;

	(void)state;
	strcpy(mount_at, folder);
	if (geteuid() || mount("none", mount_at, "tmpfs", 0, "size=512k")) {
		print_message("SKIPPED: a full disk needs root, to mount a small tmpfs\n");
		skip();
	}
	s = open_store(0);
	add_in_force(s, "good");
	memset(text, 'x', sizeof(text));
	for (int i = 0; i < 100 && !error; i++)
		error = add(s, text, sizeof(text), NULL);
	int full = error;
	store_close(s);
	s = open_store(0);
	expect_in_force(s, 1, "good", 0);
	store_close(s);
	assert_int_equal(umount(mount_at), 0);
	assert_int_equal(full, -ENOSPC);
}

/* Adds versions and puts them in force until it is killed; tells each that is in force through the pipe. */
static void writer(int out)
{
	struct store *s = NULL;
	const char *why;
	char text[64];

	if (store_open(folder, 0, &s, &why))
		_exit(1);
	for (;;) {
		struct store_version v = {.source = "admin", .text = text};
		v.length = (size_t)snprintf(text, sizeof(text), "text of some version, %ld", random());
		v.controller = (struct store_layer){.number = v.length, .text = text, .length = v.length - 1};
		if (store_add(s, &v) || store_set_in_force(s, v.version) || store_confirm(s, v.version) || store_prune(s, 20))
			_exit(2);
		if (write(out, &v.version, sizeof(v.version)) < 0)
			_exit(3);
	}
}

static void test_kill(void **state)
{
	uint64_t told = 0, v;
	const char *why;
	struct store *s;
	int pipes[2], status;
	long limit = 12000;               /* µs; about as long as a few versions take, on this machine and today */

	(void)state;
	for (int round = 0; round < 200; round++) {
		assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
		pid_t pid = fork();
		if (!pid) {
			close(pipes[0]);
			writer(pipes[1]);
		}
		close(pipes[1]);
		uint64_t before = told;
		usleep((useconds_t)(random() % limit));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		while (read(pipes[0], &v, sizeof(v)) == sizeof(v))
			told = v;
		close(pipes[0]);
		limit = told > before + 3 ? limit * 9 / 10 + 1000 : told == before && limit < 300000 ? limit * 11 / 10 : limit;
		if (round % 10)
			continue;
		struct store_version now;
		unsigned skipped;
		assert_int_equal(store_open(folder, 0, &s, &why), 0);
		assert_int_equal(store_in_force(s, &now, &skipped), 0);
		assert_int_equal(skipped, 0);
		assert_true(now.version >= told);        /* what was acknowledged is there */
		assert_true(store_confirmed(s) >= told);
		assert_true(!now.version || now.controller.length + 1 == now.length);
		store_version_clear(&now);
		store_close(s);
	}
	assert_true(told > 0);
}

/* In a child: 0: the last good version or an older one; 1: clearly refused; anything else is a fault. */
static int judge(void)
{
	struct store_version v;
	struct store *s;
	const char *why = NULL;
	unsigned skipped;
	int error = store_open(folder, 0, &s, &why);

	if (error)
		return why && (error == -EUCLEAN || error == -EPROTONOSUPPORT) ? 1 : 2;
	error = store_in_force(s, &v, &skipped);
	if (error)
		return error == -EUCLEAN ? 1 : 3;
	if (v.version && strcmp(v.text, v.version == 1 ? "one" : v.version == 2 ? "two" : "three"))
		return 4;
	if ((v.version == 2) != (v.controller.number == 7) || (v.version == 2 && strcmp(v.controller.text, "layer")))
		return 5;
	uint64_t confirmed = store_confirmed(s);
	if (confirmed != 2 && confirmed != 0)
		return 6;
	store_version_clear(&v);
	store_close(s);
	return 0;
}

static int judge_in_child(void)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(judge());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static void write_file(const uint8_t *data, size_t length)
{
	int fd = open(file(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, length), length);
	close(fd);
}

static size_t good_file(uint8_t **data)
{
	struct store *s = open_store(0);
	struct stat st;

	add_in_force(s, "one");
	add_layers(s, "two", 7, "layer");
	assert_int_equal(store_confirm(s, 2), 0);
	add_in_force(s, "three");
	store_close(s);
	int fd = open(file(), O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	*data = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, *data, (size_t)st.st_size), st.st_size);
	close(fd);
	return (size_t)st.st_size;
}

static void test_flipped(void **state)
{
	unsigned outcome[2] = {0, 0}, tried = 0;
	uint8_t *data;
	size_t length = good_file(&data);
	bool every = getenv("HERMES_EVERY_BYTE");    /* takes minutes */

	(void)state;
	for (size_t i = 0; i < length; i++) {
		bool head = i % 4096 < 200, used = data[i] != 0;    /* page heads, and what is not empty */
		if (!(every && used) && !(head && used) && !(used && i % 13 == 0) && i % 1021)
			continue;
		data[i] ^= (uint8_t)(1u << (i % 8));
		write_file(data, length);
		data[i] ^= (uint8_t)(1u << (i % 8));
		int result = judge_in_child();
		if (result > 1)
			fail_msg("byte %zu of %zu: outcome %d", i, length, result);
		outcome[result]++;
		tried++;
	}
	print_message("%u bytes flipped: %u times good or an older version, %u times refused\n", tried, outcome[0], outcome[1]);
	assert_true(outcome[0] && outcome[1]);
	free(data);
}

static void test_truncated(void **state)
{
	uint8_t *data;
	size_t length = good_file(&data);

	(void)state;
	for (size_t n = 0; n < length; n += 997) {
		write_file(data, n);
		int result = judge_in_child();
		if (result > 1)
			fail_msg("cut at %zu of %zu: outcome %d", n, length, result);
	}
	free(data);
}

/* A store that another user left is neither damaged nor lost. */
static void test_not_ours(void **state)
{
	struct store *s = open_store(0);
	const char *why = "";
	bool root = geteuid() == 0;

	(void)state;
	add_in_force(s, "one");
	store_close(s);
	assert_int_equal(chmod(file(), 0), 0);
	if (root)
		assert_int_equal(chown(folder, 65534, 65534) | seteuid(65534), 0);
	int error = store_open(folder, 0, &s, &why);
	if (root)
		assert_int_equal(seteuid(0), 0);
	assert_int_equal(error, -EACCES);
	assert_string_equal(why, "the store's folder may not be written");
	assert_int_equal(chmod(file(), 0600), 0);
	s = open_store(0);
	expect_in_force(s, 1, "one", 0);
	store_close(s);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_FOLDER(test_life), WITH_FOLDER(test_layers), cmocka_unit_test(test_first_form),
		WITH_FOLDER(test_damaged_records), cmocka_unit_test(test_other_format),
		WITH_FOLDER(test_older_store), WITH_FOLDER(test_full_map), WITH_FOLDER(test_full_disk), WITH_FOLDER(test_kill),
		WITH_FOLDER(test_flipped), WITH_FOLDER(test_truncated), WITH_FOLDER(test_not_ours),
	};
	srandom((unsigned)time(NULL));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
