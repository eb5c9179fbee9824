/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers/controller/kv_internal.h"

static char folder[64];
static struct event_base *base;

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/hermes-kv-XXXXXX");
	base = event_base_new();
	return mkdtemp(folder) && base ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	event_base_free(base);
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static struct kv *open_sized(size_t size)
{
	const char *why = "";
	struct kv *kv = kv_local_sized(base, folder, size, NULL, NULL, &why);
	if (!kv)
		fail_msg("kv_local: %s", why);
	assert_true(kv_ready(kv) && kv_leads(kv));
	return kv;
}

static struct kv *open_kv(void)
{
	return open_sized(0);
}

static void on_done(void *arg, int error)
{
	*(int *)arg = error;
}

static int commit(struct kv_txn *txn)
{
	int error = 1;
	kv_commit(txn, on_done, &error);
	return error;
}

static int put(struct kv *kv, const char *key, int number, bool temporary)
{
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_put(txn, key, json_pack("{s:i}", "n", number), temporary);
	return commit(txn);
}

static int value(struct kv *kv, const char *key)
{
	struct kv_value v = kv_get(kv, key);
	return v.revision ? (int)json_integer_value(json_object_get(v.json, "n")) : -1;
}

static void test_life(void **state)
{
	struct kv *kv = open_kv();
	(void)state;
	assert_int_equal(value(kv, "a"), -1);
	assert_int_equal(put(kv, "a", 1, false), 0);
	assert_int_equal(put(kv, "b", 2, false), 0);
	assert_int_equal(put(kv, "a", 3, false), 0);
	assert_int_equal(put(kv, "gone", 4, false), 0);
	assert_int_equal(put(kv, "state/x", 5, true), 0);
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_delete(txn, "gone");
	assert_int_equal(commit(txn), 0);
	uint64_t revision = kv_get(kv, "a").revision;
	assert_true(revision > kv_get(kv, "b").revision);
	assert_int_equal(value(kv, "state/x"), 5);
	kv_free(kv);
	kv = open_kv();
	assert_int_equal(value(kv, "a"), 3);
	assert_int_equal(value(kv, "b"), 2);
	assert_int_equal(value(kv, "gone"), -1);
	assert_int_equal(value(kv, "state/x"), -1);
	assert_true(kv_get(kv, "a").revision == revision);
	assert_int_equal(put(kv, "c", 1, false), 0);
	assert_true(kv_get(kv, "c").revision > revision + 3);
	kv_free(kv);
}

static void test_conditions(void **state)
{
	struct kv *kv = open_kv();
	(void)state;
	put(kv, "a", 1, false);
	uint64_t seen = kv_get(kv, "a").revision;
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, "a", seen);
	kv_txn_if(txn, "new", 0);
	kv_txn_put(txn, "a", json_pack("{s:i}", "n", 2), false);
	kv_txn_put(txn, "new", json_pack("{s:i}", "n", 3), false);
	assert_int_equal(commit(txn), 0);
	assert_true(kv_get(kv, "a").revision == kv_get(kv, "new").revision);
	txn = kv_txn_new(kv);
	kv_txn_if(txn, "a", seen);
	kv_txn_put(txn, "a", json_pack("{s:i}", "n", 9), false);
	kv_txn_put(txn, "other", json_pack("{s:i}", "n", 9), false);
	assert_int_equal(commit(txn), -EAGAIN);
	txn = kv_txn_new(kv);
	kv_txn_if(txn, "new", 0);
	kv_txn_delete(txn, "a");
	assert_int_equal(commit(txn), -EAGAIN);
	assert_int_equal(value(kv, "a"), 2);
	assert_int_equal(value(kv, "other"), -1);
	kv_free(kv);
}

static void test_odd_transactions(void **state)
{
	struct kv *kv = open_kv();
	char name[KV_KEY_MAX + 2], key[16];
	(void)state;
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(put(kv, name, 1, false), -EINVAL);
	assert_int_equal(put(kv, "", 1, false), -EINVAL);
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_put(txn, "a", NULL, false);
	assert_int_equal(commit(txn), -ENOMEM);
	txn = kv_txn_new(kv);
	kv_txn_put(txn, "a", json_pack("{s:i}", "n", 1), false);
	kv_txn_put(txn, "a", json_pack("{s:i}", "n", 2), false);
	kv_txn_delete(txn, "b");
	assert_int_equal(commit(txn), 0);
	assert_int_equal(value(kv, "a"), 2);
	txn = kv_txn_new(kv);
	for (int i = 0; i <= KV_TXN_MAX; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		kv_txn_put(txn, key, json_pack("{s:i}", "n", i), false);
	}
	assert_int_equal(commit(txn), -E2BIG);
	assert_int_equal(value(kv, "k0"), -1);
	kv_txn_free(kv_txn_new(kv));
	kv_free(kv);
}

static bool collect(void *arg, const struct kv_value *v)
{
	strcat(arg, v->key);
	strcat(arg, " ");
	return strcmp(v->key, "p/stop");
}

struct deleter { struct kv *kv; char seen[64]; };

/* Takes away itself and its neighbour while it is walked. */
static bool delete_some(void *arg, const struct kv_value *v)
{
	struct deleter *d = arg;
	strcat(d->seen, v->key);
	if (!strcmp(v->key, "p/b")) {
		struct kv_txn *txn = kv_txn_new(d->kv);
		kv_txn_delete(txn, "p/b");
		kv_txn_delete(txn, "p/c");
		kv_txn_put(txn, "p/a1", json_true(), false);
		assert_int_equal(commit(txn), 0);
		assert_string_equal(v->key, "p/b");
		assert_int_equal(json_integer_value(json_object_get(v->json, "n")), 2);
	}
	return true;
}

static void test_each(void **state)
{
	static const char *const keys[] = {"p/c", "o", "p/a", "p0", "p/b", "p/d"};
	struct kv *kv = open_kv();
	struct deleter d = {.kv = kv};
	char seen[64] = "";
	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		put(kv, keys[i], strcmp(keys[i], "p/b") ? 0 : 2, false);
	kv_each(kv, "p/", collect, seen);
	assert_string_equal(seen, "p/a p/b p/c p/d ");
	assert_int_equal(kv_count(kv, "p/"), 4);
	assert_int_equal(kv_count(kv, ""), 6);
	kv_each(kv, "p/", delete_some, &d);
	assert_string_equal(d.seen, "p/ap/bp/d");
	put(kv, "p/stop", 0, false);
	put(kv, "p/t", 0, false);
	*seen = '\0';
	kv_each(kv, "p/", collect, seen);
	assert_string_equal(seen, "p/a p/a1 p/d p/stop ");
	kv_free(kv);
}

struct watch { struct kv *kv; char seen[128]; };

static void on_change(void *arg, const struct kv_value *v)
{
	struct watch *w = arg;
	char text[40];
	snprintf(text, sizeof(text), "%s%s ", v->revision ? "" : "-", v->key);
	strcat(w->seen, text);
	if (v->revision && !strcmp(v->key, "w/first"))
		put(w->kv, "w/second", 1, false);
}

static void test_watch(void **state)
{
	struct kv *kv = open_kv();
	struct watch all = {.kv = kv}, none = {.kv = kv};
	(void)state;
	kv_watch(kv, "w/", on_change, &all);
	kv_watch(kv, "x/", on_change, &none);
	put(kv, "w/first", 1, false);
	put(kv, "v", 1, true);
	assert_string_equal(all.seen, "");      /* from the event loop, and not before */
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_string_equal(all.seen, "w/first w/second ");
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_delete(txn, "w/first");
	kv_txn_delete(txn, "w/never");
	commit(txn);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_string_equal(all.seen, "w/first w/second -w/first ");
	assert_string_equal(none.seen, "");
	kv_free(kv);
}

/* A lasting value that a temporary one replaces does not come back. */
static void test_temporary_replaces(void **state)
{
	struct kv *kv = open_kv();
	(void)state;
	put(kv, "a", 1, false);
	put(kv, "a", 2, true);
	assert_int_equal(value(kv, "a"), 2);
	put(kv, "b", 1, true);
	put(kv, "b", 2, false);
	kv_free(kv);
	kv = open_kv();
	assert_int_equal(value(kv, "a"), -1);
	assert_int_equal(value(kv, "b"), 2);
	kv_free(kv);
}

static json_t *large(size_t size)
{
	char *text = malloc(size + 1);
	memset(text, 'y', size);
	text[size] = '\0';
	json_t *json = json_pack("{s:s}", "text", text);
	free(text);
	return json;
}

static void test_full(void **state)
{
	struct kv *kv = open_sized(256 << 10);
	struct kv_txn *txn;
	char key[16];
	int error = 0, n = 0;
	(void)state;
	for (; !error && n < 100; n++) {
		txn = kv_txn_new(kv);
		snprintf(key, sizeof(key), "k%02d", n);
		kv_txn_put(txn, key, large(16 << 10), false);
		kv_txn_put(txn, "last", json_pack("{s:i}", "n", n), false);
		error = commit(txn);
	}
	assert_int_equal(error, -ENOSPC);
	assert_int_equal(value(kv, "last"), n - 2);
	assert_true(kv_get(kv, key).revision == 0);
	assert_int_equal(kv_count(kv, "k"), n - 1);
	kv_free(kv);
	kv = open_sized(256 << 10);
	assert_int_equal(value(kv, "last"), n - 2);
	assert_int_equal(kv_count(kv, "k"), n - 1);
	kv_free(kv);
}

static const char *file(void)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/controller.mdb", folder);
	return path;
}

static int set_asides(void)
{
	DIR *d = opendir(folder);
	int n = 0;
	for (struct dirent *e; (e = readdir(d));)
		n += strstr(e->d_name, "damaged") != NULL;
	closedir(d);
	return n;
}

/* Changes each place where the file holds `text`. */
static int spoil(const char *text)
{
	struct stat st;
	int fd = open(file(), O_RDWR | O_CLOEXEC), found = 0;
	assert_int_equal(fstat(fd, &st), 0);
	char *all = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
	for (char *at = all; (at = memmem(at, (size_t)(all + st.st_size - at), text, strlen(text))); at++, found++)
		assert_int_equal(pwrite(fd, "X", 1, at - all), 1);
	free(all);
	close(fd);
	return found;
}

static void test_damaged_record(void **state)
{
	struct kv *kv = open_kv();
	(void)state;
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_put(txn, "bad", json_pack("{s:i}", "n", 4711), false);
	kv_txn_put(txn, "good", json_pack("{s:i}", "n", 1), false);
	assert_int_equal(commit(txn), 0);
	kv_free(kv);
	assert_true(spoil("4711") > 0);
	kv = open_kv();
	assert_int_equal(value(kv, "good"), 1);
	assert_int_equal(value(kv, "bad"), -1);
	assert_int_equal(set_asides(), 1);
	assert_int_equal(put(kv, "more", 2, false), 0);
	kv_free(kv);
	kv = open_kv();
	assert_int_equal(value(kv, "good"), 1);
	assert_int_equal(value(kv, "more"), 2);
	assert_int_equal(set_asides(), 1);
	kv_free(kv);
}

static void test_damaged_file(void **state)
{
	struct kv *kv = open_kv();
	char waste[4096];
	(void)state;
	put(kv, "a", 1, false);
	kv_free(kv);
	memset(waste, 0xa5, sizeof(waste));
	int fd = open(file(), O_WRONLY | O_CLOEXEC);
	for (int i = 0; i < 16; i++)
		assert_int_equal(pwrite(fd, waste, sizeof(waste), i * 4096), sizeof(waste));
	close(fd);
	kv = open_kv();
	assert_int_equal(value(kv, "a"), -1);
	assert_int_equal(set_asides(), 1);
	assert_int_equal(put(kv, "a", 2, false), 0);
	kv_free(kv);
}

static void test_truncated_file(void **state)
{
	struct kv *kv = open_kv();
	(void)state;
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_put(txn, "a", large(64 << 10), false);
	commit(txn);
	kv_free(kv);
	assert_int_equal(truncate(file(), 3 * 4096), 0);
	kv = open_kv();
	assert_int_equal(set_asides(), 1);
	kv_free(kv);
}

static void test_no_folder(void **state)
{
	const char *why = NULL;
	(void)state;
	assert_null(kv_local(base, "/nowhere/at/all", NULL, NULL, &why));
	assert_int_equal(errno, ENOENT);
	assert_non_null(why);
}

/* One controller at a time. */
static void test_locked(void **state)
{
	const char *why = NULL;
	struct kv *kv = open_kv();
	(void)state;
	assert_null(kv_local(base, folder, NULL, NULL, &why));
	assert_int_equal(errno, EBUSY);
	kv_free(kv);
	kv_free(open_kv());
}

static void write_until_killed(int out)
{
	struct kv *kv = open_kv();
	for (int n = 1;; n++) {
		struct kv_txn *txn = kv_txn_new(kv);
		kv_txn_put(txn, "a", json_pack("{s:i}", "n", n), false);
		kv_txn_put(txn, "b", json_pack("{s:i,s:o}", "n", n, "x", large(3000)), false);
		if (commit(txn) || write(out, &n, sizeof(n)) != sizeof(n))
			_exit(1);
	}
}

/* Killed in the midst of commits: what was acknowledged is there, and never half of a transaction. */
static void test_killed(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		int ends[2], last = 0, n;
		assert_int_equal(pipe(ends), 0);
		pid_t pid = fork();
		if (!pid)
			write_until_killed(ends[1]);
		close(ends[1]);
		for (int i = 0; i < 3 + round && read(ends[0], &n, sizeof(n)) == sizeof(n); i++)
			last = n;
		usleep((useconds_t)(round * 137));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(ends[0], &n, sizeof(n)) == sizeof(n))
			last = n;
		close(ends[0]);
		struct kv *kv = open_kv();
		assert_true(last > 0 && value(kv, "a") >= last);
		assert_int_equal(value(kv, "a"), value(kv, "b"));
		kv_free(kv);
	}
	assert_int_equal(set_asides(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_conditions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_odd_transactions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_each, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_watch, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_temporary_replaces, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_record, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damaged_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_truncated_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_folder, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_locked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
