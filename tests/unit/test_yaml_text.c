/* What is refused before the YAML parser sees it, and what is not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/config.h"
#include "store/config_arena.h"
#include "store/yaml_text.h"
#include "store/yaml_tree.h"

static void test_good(void **state)
{
	static const char *const good[] = {
		"", "a: b\n", "a: \"\\u0001 %\"\r\n# 100 % é \xe2\x82\xac \xf0\x9f\x98\x80\n", "\xef\xbb\xbf" "a: b\n", "a:\n  %b: c\n",
		"\xc2\x85\xc2\xa0\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbd\xf4\x8f\xbf\xbf",
	};
	struct yaml_fault fault;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_true(yaml_text_check(good[i], strlen(good[i]), &fault));
}

static void test_bad(void **state)
{
	static const struct { const char *text; unsigned line, column; const char *fault; } bad[] = {
		{"%YAML 1.2\n---\na: b\n", 1, 1, "directive"}, {"a: b\n%\n", 2, 1, "directive"}, {"a\r\n%", 2, 1, "directive"},
		{"a\r%", 2, 1, "directive"}, {"é\xff", 1, 2, "UTF-8"}, {"\xc3", 1, 1, "UTF-8"}, {"a\n\xc0\x80", 2, 1, "UTF-8"},
		{"\xe0\x80\x80", 1, 1, "UTF-8"}, {"\xed\xa0\x80", 1, 1, "UTF-8"}, {"\xf4\x90\x80\x80", 1, 1, "UTF-8"},
		{"\xf8\x88\x80\x80\x80", 1, 1, "UTF-8"}, {"a: \x1f", 1, 4, "control"}, {"\x7f", 1, 1, "control"},
		{"\xc2\x9f", 1, 1, "control"}, {"a\xef\xbb\xbf", 1, 2, "control"}, {"\xef\xbf\xbe", 1, 1, "control"},
	};
	struct yaml_fault fault;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		size_t n = strlen(bad[i].text);
		char *exact = malloc(n);             /* for AddressSanitizer */
		memcpy(exact, bad[i].text, n);
		assert_false(yaml_text_check(exact, n, &fault));
		free(exact);
		if (fault.line != bad[i].line || fault.column != bad[i].column || !strstr(fault.text, bad[i].fault))
			fail_msg("%u: %u:%u: %s", i, fault.line, fault.column, fault.text);
	}
	assert_false(yaml_text_check("a\0b", 3, &fault));
	assert_non_null(strstr(fault.text, "NUL"));
}

/* Runs of blanks of any kind, and the brackets that libfyaml looks ahead over. */
static void test_bounds(void **state)
{
	struct yaml_fault fault;
	size_t n = 1000002;
	char *text = malloc(n);

	(void)state;
	memset(text, ' ', 300);
	assert_true(yaml_text_check(text, 256, &fault));
	assert_false(yaml_text_check(text, 257, &fault));
	assert_int_equal(fault.column, 257);
	memset(text + 100, '\n', 200);
	text[50] = '\t';
	assert_false(yaml_text_check(text, 257, &fault));
	assert_int_equal(fault.line, 157);
	memset(text, '{', n);
	assert_true(yaml_text_check(text, n - 2, &fault));
	assert_false(yaml_text_check(text, n, &fault));
	assert_non_null(strstr(fault.text, "million"));
	free(text);
}

/* Inputs on which libfyaml 0.7.12 loops for ever: the test would not end. */
static void test_loops(void **state)
{
	static const char *const loops[] = {"a: b\n% \xfe\n", "%\xff", "a: [b]\n%YAML \xfe"};

	(void)state;
	for (unsigned i = 0; i < sizeof(loops) / sizeof(*loops); i++) {
		struct config_report report = {0};
		assert_null(config_parse("t", loops[i], strlen(loops[i]), &report));
		assert_int_equal(report.n_errors, 1);
		assert_non_null(strstr(report.errors[0], ": a directive (a line that begins with %); expected the configuration alone"));
		config_report_free(&report);
	}
}

/* Single quotes are undone by our own code: it must say what YAML says. No leak, however many quotes. */
static void test_single_quotes(void **state)
{
	static const struct { const char *text, *is; } all[] = {
		{"''", ""}, {"'a'", "a"}, {"' a '", " a "}, {"''''", "'"}, {"'a''b'", "a'b"}, {"'''a'''", "'a'"},
		{"''''''''''''''''''''''''''''''''''''''''", "'''''''''''''''''''"}, {"'a \t\n \t b'", "a b"}, {"'a\n\n  b'", "a\nb"},
		{"'a\r\n \r\n\r\n b'", "a\n\nb"}, {"'a\r b'", "a b"}, {"'\n '", " "}, {"' \n a''\n '", " a' "}, {"'é''%'", "é'%"},
		{"'a\\n'", "a\\n"}, {"'#a: [b, c]'", "#a: [b, c]"},
	};
	struct yaml_fault fault = {0};
	char text[256];

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		for (unsigned bom = 0; bom < 2; bom++) {
			struct config_arena *arena = config_arena_new(0);
			snprintf(text, sizeof(text), "%sé: [x, %s, '']\n", bom ? "\xef\xbb\xbf" : "", all[i].text);
			struct yaml_node *root = yaml_parse(text, strlen(text), arena, &fault);
			if (!root || root->first->value->n != 3)
				fail_msg("%s: %s", text, fault.text);
			assert_string_equal(root->first->value->first->next->text, all[i].is);
			assert_string_equal(root->first->value->first->next->next->text, "");
			config_arena_free(arena);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad), cmocka_unit_test(test_bounds),
	                                   cmocka_unit_test(test_loops), cmocka_unit_test(test_single_quotes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
