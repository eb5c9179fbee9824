/* What hermes-admin shows to people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "supervisor/admin_table.h"
#include "supervisor/admin_verbs.h"

#include <stdlib.h>
#include <string.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cells), cmocka_unit_test(units), cmocka_unit_test(tables_align),
		cmocka_unit_test(verbs_are_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
