#include "workers/telemetry/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static void assert_logfmt(const char *value, const char *expected)
{
	struct text out = {0};
	text_logfmt(&out, value);
	assert_string_equal(out.data, expected);
	text_free(&out);
}

static void logfmt_values(void **state)
{
	(void)state;
	assert_logfmt("plain-1.2:3/x", "plain-1.2:3/x");
	assert_logfmt("", "\"\"");
	assert_logfmt("two words", "\"two words\"");
	assert_logfmt("a=b", "\"a=b\"");
	assert_logfmt("say \"hi\\\"", "\"say \\\"hi\\\\\\\"\"");
	assert_logfmt("line\nline\r\t", "\"line\\nline\\r\\t\"");
	assert_logfmt("\x1b[31mred\x7f", "\"\\x1b[31mred\\x7f\"");
	assert_logfmt("\xc3\xa9t\xc3\xa9", "\"\xc3\xa9t\xc3\xa9\"");
	assert_logfmt("\xc2\x9b", "\"\\xc2\\x9b\"");                   /* C1: CSI */
	assert_logfmt("\xe2\x80\xaetxt", "\"\\xe2\\x80\\xaetxt\"");    /* right-to-left override */
	assert_logfmt("\xff\xc3", "\"\\xff\\xc3\"");                   /* no UTF-8 */
	assert_logfmt("\xc0\x8a", "\"\\xc0\\x8a\"");                   /* an overlong newline */
}

static void utf8_is_strict(void **state)
{
	(void)state;
	uint32_t c;
	assert_int_equal(text_utf8("\xe2\x82\xac", 3, &c), 3);
	assert_int_equal(c, 0x20ac);
	assert_int_equal(text_utf8("\xf0\x9f\x98\x80", 4, &c), 4);
	assert_int_equal(c, 0x1f600);
	assert_int_equal(text_utf8("\xe2\x82\xac", 2, &c), 0);          /* cut */
	assert_int_equal(text_utf8("\xed\xa0\x80", 3, &c), 0);          /* surrogate */
	assert_int_equal(text_utf8("\xf4\x90\x80\x80", 4, &c), 0);      /* past U+10FFFF */
	assert_int_equal(text_utf8("\xe0\x80\xaf", 3, &c), 0);          /* overlong */
	assert_int_equal(text_utf8("\xf8\x88\x80\x80\x80", 5, &c), 0);
	assert_int_equal(text_utf8("\x80", 1, &c), 0);
}

static struct ipc_flow_record example(void)
{
	static const char *policies[] = {"video", "a b"};
	return (struct ipc_flow_record){
		.event = "end", .time = INT64_C(1763728869123456), .id = 42, .listener = "apps", .carry_in = "h1",
		.source = "127.0.0.1", .user = "al\"ice", .method = "GET", .authority = "VIDEO", .path = "/a?b=c\n", .status = 200,
		.route = "routes[0]", .policies = {policies, 2}, .cluster = "ingress", .bytes_in = 1, .bytes_out = 2,
		.attempts = 1, .ask = 10, .connect = 20, .first = 30, .total = 40, .result = "ok",
	};
}

static void text_record(void **state)
{
	(void)state;
	struct text out = {0};
	struct ipc_flow_record record = example();
	record_text(&record, &out);
	assert_string_equal(out.data,
		"time=2025-11-21T12:41:09.123Z event=end id=42 listener=apps in=h1 source=127.0.0.1 user=\"al\\\"ice\" method=GET "
		"authority=VIDEO path=\"/a?b=c\\n\" status=200 route=routes[0] policies=\"video,a b\" cluster=ingress bytes_in=1 "
		"bytes_out=2 attempts=1 ask_us=10 connect_us=20 first_us=30 total_us=40 result=ok\n");
	text_free(&out);
}

static void json_record(void **state)
{
	(void)state;
	struct text out = {0};
	struct ipc_flow_record record = example();
	record.detail = "\x1b[0m\xc2\x9b\xe2\x80\xae\xff\x7f";
	record_json(&record, &out);
	assert_non_null(strstr(out.data, "\"detail\":\"\\u001b[0m\\u009b\\u202e\xef\xbf\xbd\\u007f\"}\n"));
	json_error_t error;
	json_t *object = json_loads(out.data, 0, &error);
	assert_non_null(object);
	assert_string_equal(json_string_value(json_object_get(object, "time")), "2025-11-21T12:41:09.123Z");
	assert_string_equal(json_string_value(json_object_get(object, "path")), "/a?b=c\n");
	assert_int_equal(json_array_size(json_object_get(object, "policies")), 2);
	assert_null(json_object_get(object, "peer"));
	assert_int_equal(json_integer_value(json_object_get(object, "total_us")), 40);
	json_decref(object);
	text_free(&out);
}

static void odd_times_do_not_break(void **state)
{
	(void)state;
	static const struct { int64_t time; const char *text; } cases[] = {
		{0, "time=1970-01-01T00:00:00.000Z"}, {-1, "time=1970-01-01T00:00:00.000Z"},
		{INT64_MIN, "time=1970-01-01T00:00:00.000Z"}, {INT64_MAX, "time=9999-12-31T23:59:59."},
	};
	struct text out = {0};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		record_text(&(struct ipc_flow_record){.time = cases[i].time}, &out);
		assert_int_equal(strncmp(out.data, cases[i].text, strlen(cases[i].text)), 0);
		assert_int_equal(out.data[out.length - 1], '\n');
	}
	text_free(&out);
}

/* name, newline, length as 64 bits little-endian, value, newline: so that a newline in a value begins no field. */
static void journal_record(void **state)
{
	(void)state;
	struct text out = {0};
	struct ipc_flow_record record = example();
	record_journal(&record, false, &out);
	static const char path[] = "HERMES_PATH\n\x07\0\0\0\0\0\0\0/a?b=c\n\nHERMES_STATUS\n\x03\0\0\0\0\0\0\0" "200\n";
	assert_non_null(memmem(out.data, out.length, path, sizeof(path) - 1));
	assert_int_equal(strncmp(out.data, "PRIORITY=6\nSYSLOG_IDENTIFIER=hermes-access\nMESSAGE_ID=", 54), 0);
	assert_non_null(memmem(out.data, out.length, "HERMES_POLICIES\n\x09\0\0\0\0\0\0\0video,a b\n", 34));
	text_free(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logfmt_values), cmocka_unit_test(utf8_is_strict), cmocka_unit_test(text_record),
		cmocka_unit_test(json_record), cmocka_unit_test(odd_times_do_not_break), cmocka_unit_test(journal_record),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
