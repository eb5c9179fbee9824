/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/tunnel_header.h"

#define ID "000102030405060708090a0b0c0d0eff"
static const uint8_t id[TUNNEL_ID] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255};

static struct tunnel_header get(const char *first, const char *second)
{
	struct tunnel_header out;
	struct head *head = head_new();
	head_add(head, TUNNEL_HEADER, first);
	if (second)
		head_add(head, TUNNEL_HEADER, second);
	tunnel_header_get(head, &out);
	head_free(head);
	return out;
}

static void absent(void **state)
{
	(void)state;
	struct head *head = head_new();
	struct tunnel_header out = {.present = true};
	tunnel_header_get(head, &out);
	assert_false(out.present);
	head_free(head);
}

static void goes_round(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 16; bits++) {
		struct tunnel_header in = {.present = true, .segments = bits & 1, .has_id = bits & 2, .joined = bits & 4, .stream = bits & 8,
		                           .received = bits * 111111111111111ull, .from = bits & 4 ? 4711 : 0}, out;
		if (in.has_id)
			memcpy(in.id, id, sizeof(id));
		struct head *head = head_new();
		head_add(head, TUNNEL_HEADER, "from-before");
		tunnel_header_set(head, &in);
		assert_int_equal(head->n, 1);
		tunnel_header_get(head, &out);
		assert_memory_equal(&in, &out, sizeof(in));
		head_free(head);
	}
}

static void reads(void **state)
{
	(void)state;
	struct tunnel_header h = get("segments, received=0", NULL);
	assert_true(h.present && h.segments && !h.has_id && !h.joined && h.received == 0);
	h = get("segments, id=\"" ID "\", received=4711", NULL);
	assert_true(h.has_id && h.received == 4711);
	assert_memory_equal(h.id, id, sizeof(id));
	h = get("segments=?0;a=1;b , \t received=7", NULL);
	assert_true(h.present && !h.segments && h.received == 7);
	h = get("segments", "joined, received=9");
	assert_true(h.segments && h.joined && h.received == 9);
	h = get("received=1, received=2", NULL);   /* the last counts, RFC 8941 3.2 */
	assert_int_equal(h.received, 2);
	h = get("later=(1 \"a\";q=1.5 tok);x, *k=:YQ==:, t=a/b:c, n=-1, d=2.50, s=\"a\\\"b\\\\\", segments, i=()", NULL);
	assert_true(h.present && h.segments);
}

static void malformed_is_absent(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "segments,", ",segments", "Segments", "segments received=0", "segments=1", "segments=\"x\"", "received",
		"received=?1", "received=-1", "received=1.0", "received=", "received=12345678901234567890", "id=abc", "id",
		"id=\"\"", "id=\"00\"", "id=\"" "000102030405060708090A0B0C0D0EFF" "\"", "id=\"" ID "00\"", "id=\"" ID, "joined=1",
		"segments;", "segments;=1", "segments;A", "x=(1 2", "x=(1,2)", "x=(1\"a\")", "x=\"a", "x=\"\\a\"", "x=:a", "x=?2", "x=?", "x=%",
		"x=1.", "x=--1", "segments=?1x",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct tunnel_header h = get(bad[i], NULL), none = {0};
		if (memcmp(&h, &none, sizeof(h)) != 0)
			fail_msg("\"%s\" was taken", bad[i]);
	}
	char huge[5000];
	memset(huge, 'a', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	assert_false(get(huge, NULL).present);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent), cmocka_unit_test(goes_round), cmocka_unit_test(reads), cmocka_unit_test(malformed_is_absent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
