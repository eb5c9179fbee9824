/* What hermes-admin shows to people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "supervisor/admin_bootstrap.h"
#include "supervisor/admin_options.h"
#include "supervisor/admin_table.h"
#include "supervisor/admin_verbs.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void cell_is(const char *json, const char *key, enum admin_format format, const char *expected)
{
	json_t *row = json_loads(json, 0, NULL);
	struct admin_column column = {"T", key, format};
	assert_non_null(row);
	char *cell = admin_cell(row, &column);
	assert_string_equal(cell, expected);
	free(cell);
	json_decref(row);
}

static void cells(void **state)
{
	(void)state;
	cell_is("{\"a\":\"x\"}", "a", ADMIN_TEXT, "x");
	cell_is("{\"a\":\"\"}", "a", ADMIN_TEXT, "-");
	cell_is("{\"a\":null}", "a", ADMIN_TEXT, "-");
	cell_is("{}", "a", ADMIN_COUNT, "-");
	cell_is("{\"a\":true}", "a", ADMIN_TEXT, "yes");
	cell_is("{\"a\":7}", "a", ADMIN_COUNT, "7");
	cell_is("{\"a\":{\"b\":{\"c\":1}}}", "a.b.c", ADMIN_TEXT, "1");
	cell_is("{\"a\":3}", "a.b", ADMIN_TEXT, "-");
	cell_is("{\"a\":[\"x\",2]}", "a", ADMIN_TEXT, "x,2");
	cell_is("{\"a\":[]}", "a", ADMIN_TEXT, "-");
	cell_is("{\"a\":{\"x\":\"1\",\"y\":\"2\"}}", "a", ADMIN_TEXT, "x=1 y=2");
	/* a name from a peer must not steer the terminal */
	cell_is("{\"a\":\"\\u001b[2Jx\"}", "a", ADMIN_TEXT, "?[2Jx");
}

static void units(void **state)
{
	(void)state;
	cell_is("{\"a\":0}", "a", ADMIN_BYTES, "0 B");
	cell_is("{\"a\":1023}", "a", ADMIN_BYTES, "1023 B");
	cell_is("{\"a\":1024}", "a", ADMIN_BYTES, "1.0 KiB");
	cell_is("{\"a\":1610612736}", "a", ADMIN_BYTES, "1.5 GiB");
	cell_is("{\"a\":0.25}", "a", ADMIN_SECONDS, "0.25s");
	cell_is("{\"a\":59}", "a", ADMIN_SECONDS, "59s");
	cell_is("{\"a\":61}", "a", ADMIN_SECONDS, "1m01s");
	cell_is("{\"a\":3660}", "a", ADMIN_SECONDS, "1h01m");
	cell_is("{\"a\":90000}", "a", ADMIN_SECONDS, "1d1h");
	cell_is("{\"a\":5}", "a", ADMIN_MS, "5 ms");
	cell_is("{\"a\":4294967295}", "a", ADMIN_MS, "ever");
	cell_is("{\"a\":0}", "a", ADMIN_TIME, "-");
}

static char *table_of(const char *json, const struct admin_column *columns)
{
	char *text = NULL;
	size_t size;
	json_t *rows = json_loads(json, 0, NULL);
	FILE *out = open_memstream(&text, &size);
	admin_table(out, rows, columns);
	fclose(out);
	json_decref(rows);
	return text;
}

static void tables_align(void **state)
{
	static const struct admin_column columns[] = {
		{"NAME", "n", ADMIN_TEXT}, {"BYTES", "b", ADMIN_BYTES}, {"LAST", "l", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
	};
	(void)state;
	char *text = table_of("[{\"n\":\"a\",\"b\":1,\"l\":\"x\"},{\"n\":\"zażółć\",\"b\":2048,\"l\":\"yy\"}]", columns);
	assert_string_equal(text, "NAME      BYTES  LAST\n"
	                          "a           1 B  x\n"
	                          "zażółć  2.0 KiB  yy\n");
	free(text);
	text = table_of("[]", columns);
	assert_string_equal(text, "NAME  BYTES  LAST\n");
	free(text);
}

static void verbs_are_found(void **state)
{
	char *flows[] = {(char *)"flows", (char *)"show", (char *)"7"}, *stats[] = {(char *)"stats", (char *)"x"};
	int matched = 0;
	(void)state;
	assert_string_equal(admin_verb_find(3, flows, &matched)->verb, "show");
	assert_int_equal(matched, 2);
	assert_null(admin_verb_find(1, flows, &matched));
	assert_null(admin_verb_find(2, stats, &matched)->verb);
	assert_int_equal(matched, 1);
	assert_null(admin_verb_find(0, NULL, &matched));
}

static void options(void **state)
{
	char w0[] = "a", w1[] = "--node", w2[] = "x", w3[] = "--force", w4[] = "b", w5[] = "--other", w6[] = "--node";
	char *argv[] = {w0, w1, w2, w3, w4}, *unknown[] = {w5}, *short_of[] = {w0, w6};
	const char *node = NULL;
	bool force = false;
	const struct admin_option known[] = {{"--node", &node, NULL}, {"--force", NULL, &force}, {NULL, NULL, NULL}};
	(void)state;
	assert_int_equal(admin_options(5, argv, known), 2);
	assert_string_equal(node, "x");
	assert_true(force);
	assert_ptr_equal(argv[0], w0);
	assert_ptr_equal(argv[1], w4);
	assert_int_equal(admin_options(1, unknown, known), -1);
	assert_int_equal(admin_options(2, short_of, known), -1);
}

static void seconds(void **state)
{
	(void)state;
	assert_true(admin_seconds("30") == 30 && admin_seconds("10m") == 600 && admin_seconds("1h") == 3600);
	assert_true(admin_seconds("2d") == 172800 && admin_seconds("0.5s") == 0.5 && admin_seconds("100ms") == 0.1);
	assert_true(admin_seconds("") < 0 && admin_seconds("x") < 0 && admin_seconds("-1s") < 0 && admin_seconds("1y") < 0);
}

static void three_words(void **state)
{
	char *argv[] = {(char[]){"controller"}, (char[]){"token"}, (char[]){"create"}, (char[]){"--node"}};
	int matched = 0;
	(void)state;
	const struct admin_verb *v = admin_verb_find(4, argv, &matched);
	assert_non_null(v);
	assert_string_equal(v->verb, "token create");
	assert_int_equal(matched, 3);
	assert_null(admin_verb_find(2, argv, &matched));
}

static int exists(const char *folder, const char *name)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return access(path, F_OK) == 0;
}

static int removed(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st, (void)type, (void)where;
	return remove(path);
}

/* What cannot be written as a whole is not begun. */
static void all_or_nothing(void **state)
{
	char folder[] = "/tmp/test-admin-XXXXXX", config[64], kept[80], where[64];
	const char *controllers[] = {"192.0.2.1:9443"};
	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(where, sizeof(where), "%s/state", folder);
	snprintf(config, sizeof(config), "%s/hermes.yaml", folder);
	struct bootstrap b = {.config = config, .state = where, .node = "a", .domain = "example.net", .controllers = controllers,
	                      .n_controllers = 1, .key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
	bootstrap_add(&b, "node.key", "key");
	bootstrap_add(&b, "node.crt", "crt");
	mkdir(config, 0755);                        /* a folder in the file's place */
	snprintf(kept, sizeof(kept), "%s/x", config);
	mkdir(kept, 0755);
	assert_int_equal(bootstrap_write(&b), 1);
	assert_false(exists(folder, "state/keys"));
	rmdir(kept);
	rmdir(config);
	assert_int_equal(bootstrap_write(&b), 0);
	assert_true(exists(folder, "state/keys/node.key"));
	assert_int_equal(bootstrap_write(&b), 1);   /* it is a node */
	b.force = true;
	assert_int_equal(bootstrap_write(&b), 0);
	b.key = "nonsense";                         /* would not be valid */
	assert_int_equal(bootstrap_write(&b), 1);
	assert_true(exists(folder, "state/keys/node.key"));
	nftw(folder, removed, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cells), cmocka_unit_test(units), cmocka_unit_test(tables_align),
		cmocka_unit_test(verbs_are_found), cmocka_unit_test(options), cmocka_unit_test(seconds), cmocka_unit_test(three_words),
		cmocka_unit_test(all_or_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
