/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/sf.h"

static char seen[2048];

static bool note(void *arg, const char *key, size_t n, const struct sf_item *item)
{
	char text[600] = "", line[800];
	(void)arg;
	if (item->kind == SF_STRING)
		assert_true(sf_string(item, text, sizeof(text)));
	else if (item->kind != SF_OTHER)
		snprintf(text, sizeof(text), "%llu", (unsigned long long)item->number);
	snprintf(line, sizeof(line), "%.*s:%c:%s|", (int)n, key, "bis?"[item->kind], text);
	strcat(seen, line);
	return !sf_key_is(key, n, "stop");
}

static bool read_lines(const char *first, const char *second)
{
	struct head *head = head_new();
	head_add(head, "x-other", "a=(");
	head_add(head, "x-field", first);
	if (second)
		head_add(head, "x-field", second);
	seen[0] = '\0';
	bool good = sf_dictionary(head, "x-field", note, NULL);
	head_free(head);
	return good;
}

static void reads(void **state)
{
	(void)state;
	assert_true(read_lines("a, b=?0, c=17;x=\"p,q\";y, d=\"say \\\"hi\\\\\"", "e=tok/en, f=-3, g=1.25, h=:AQ==:, i=(1 \"2\";z 3)"));
	assert_string_equal(seen, "a:b:1|b:b:0|c:i:17|d:s:say \"hi\\|e:?:|f:?:|g:?:|h:?:|i:?:|");
	assert_false(read_lines("a, stop, b", NULL));
	assert_string_equal(seen, "a:b:1|stop:b:1|");
	assert_false(read_lines("", NULL));
	struct head *head = head_new();
	assert_false(sf_dictionary(head, "x-field", note, NULL));
	head_free(head);
}

static void goes_round(void **state)
{
	(void)state;
	char text[200] = "";
	struct sf_writer w = {text, sizeof(text), 0};
	sf_put_string(&w, "a", "quote \" and \\ and \xc3\xa9\n");
	sf_put_string(&w, "none", NULL);
	sf_put_integer(&w, "n", 123456789012345678ull);
	sf_put_true(&w, "t");
	sf_put_string(&w, "e", "");
	assert_true(read_lines(text, NULL));
	assert_string_equal(seen, "a:s:quote \" and \\ and ???|n:i:123456789012345678|t:b:1|e:s:|");
}

/* Whatever the room: no overflow, and whole members only. */
static void what_does_not_fit_is_left_out(void **state)
{
	(void)state;
	for (size_t size = 1; size < 60; size++) {
		char text[64] = "";
		struct sf_writer w = {text, size, 0};
		memset(text + size, 0x55, sizeof(text) - size);
		sf_put_string(&w, "key", "\"\"\"\"");
		sf_put_integer(&w, "number", 1000);
		sf_put_true(&w, "yes");
		assert_true(w.length < size && strlen(text) == w.length);
		for (size_t i = size; i < sizeof(text); i++)
			assert_int_equal(text[i], 0x55);
		assert_true(w.length == 0 || read_lines(text, NULL));
	}
	struct sf_item item = {.kind = SF_STRING, .text = "abc\\\"", .length = 5};
	char out[5];
	assert_true(sf_string(&item, out, 5));
	assert_false(sf_string(&item, out, 4));
	item.kind = SF_OTHER;
	assert_false(sf_string(&item, out, 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads), cmocka_unit_test(goes_round), cmocka_unit_test(what_does_not_fit_is_left_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
