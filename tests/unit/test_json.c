/* What is written must be what jansson reads. */
#include <jansson.h>

#include "ipc/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static json_t *read_back(struct json *j)
{
	json_error_t error;
	assert_false(j->failed);
	assert_int_equal(strlen(j->data), j->length);
	json_t *value = json_loads(j->data, JSON_DECODE_ANY, &error);
	if (!value)
		fail_msg("%s: %s", error.text, j->data);
	return value;
}

static void structure(void **state)
{
	(void)state;
	struct json j = JSON_INIT;
	json_begin_object(&j, NULL);
	json_str(&j, "a", "b");
	json_begin_array(&j, "list");
	json_int(&j, NULL, INT64_MIN);
	json_uint(&j, NULL, UINT64_MAX);
	json_begin_object(&j, NULL);
	json_end(&j);
	json_begin_array(&j, NULL);
	json_end(&j);
	json_end(&j);
	json_bool(&j, "t", true);
	json_bool(&j, "f", false);
	json_str(&j, "n", NULL);
	json_raw(&j, "raw", "[1,2]");
	json_raw(&j, "nothing", NULL);
	json_end(&j);
	assert_string_equal(j.data, "{\"a\":\"b\",\"list\":[-9223372036854775808,18446744073709551615,{},[]],"
	                            "\"t\":true,\"f\":false,\"n\":null,\"raw\":[1,2],\"nothing\":null}");
	json_free(&j);
	assert_null(j.data);
}

static void sequence_without_brackets(void **state)
{
	(void)state;
	struct json j = JSON_INIT;
	for (int i = 0; i < 2; i++) {
		json_begin_object(&j, NULL);
		json_int(&j, "i", i);
		json_end(&j);
	}
	assert_string_equal(j.data, "{\"i\":0},{\"i\":1}");
	json_free(&j);
}

static void escapes(void **state)
{
	(void)state;
	char all[256];
	struct json j = JSON_INIT;
	for (int i = 1; i < 128; i++)
		all[i - 1] = (char)i;
	all[127] = '\0';
	json_begin_array(&j, NULL);
	json_str(&j, NULL, all);
	json_str_n(&j, NULL, "a\0b", 3);
	json_end(&j);
	for (size_t i = 0; i < j.length; i++)
		assert_in_range(j.data[i], 0x20, 0x7e);
	assert_non_null(strstr(j.data, "a\\u0000b"));
	json_t *value = json_loads(j.data, JSON_ALLOW_NUL, NULL);
	assert_string_equal(json_string_value(json_array_get(value, 0)), all);
	json_decref(value);
	json_free(&j);
}

static void invalid_utf8_is_replaced(void **state)
{
	(void)state;
	static const struct { const char *in, *out; } cases[] = {
		{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
		{"a\xff" "b", "a\xef\xbf\xbd" "b"},
		{"\xc3", "\xef\xbf\xbd"},
		{"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                         /* overlong */
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},         /* a surrogate */
		{"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xe0\x9f\xbf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},                         /* cut */
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct json j = JSON_INIT;
		json_str(&j, NULL, cases[i].in);
		json_t *value = read_back(&j);
		assert_string_equal(json_string_value(value), cases[i].out);
		json_decref(value);
		json_free(&j);
	}
}

static void doubles_survive(void **state)
{
	(void)state;
	static const double values[] = {0, 1, -1.5, 0.1, 1e300, 5e-324, 1.0 / 3, 123456789.123456789};
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		struct json j = JSON_INIT;
		json_double(&j, NULL, values[i]);
		assert_true(strtod(j.data, NULL) == values[i]);
		json_free(&j);
	}
	struct json j = JSON_INIT;
	json_begin_array(&j, NULL);
	json_double(&j, NULL, INFINITY);
	json_double(&j, NULL, NAN);
	json_end(&j);
	assert_string_equal(j.data, "[null,null]");
	json_free(&j);
}

static void too_deep_fails(void **state)
{
	(void)state;
	struct json j = JSON_INIT;
	for (int i = 0; i < 63; i++)
		(i % 2 ? json_begin_array : json_begin_object)(&j, i && i % 2 ? "k" : NULL);
	assert_false(j.failed);
	json_begin_array(&j, "k");
	assert_true(j.failed);
	for (int i = 0; i < 200; i++)
		json_end(&j);     /* harmless */
	json_free(&j);
}

static void grows(void **state)
{
	(void)state;
	struct json j = JSON_INIT;
	json_begin_array(&j, NULL);
	for (int i = 0; i < 20000; i++)
		json_str(&j, NULL, "0123456789");
	json_end(&j);
	json_t *value = read_back(&j);
	assert_int_equal(json_array_size(value), 20000);
	json_decref(value);
	json_free(&j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structure), cmocka_unit_test(sequence_without_brackets), cmocka_unit_test(escapes),
		cmocka_unit_test(invalid_utf8_is_replaced), cmocka_unit_test(doubles_survive), cmocka_unit_test(too_deep_fails),
		cmocka_unit_test(grows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
