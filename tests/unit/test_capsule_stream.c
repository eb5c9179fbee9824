/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams as capsules: what is framed comes out again however it is cut, before and behind the mark, and after a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/capsule_stream.h"

static uint8_t bytes[300000];

static void fill(void)
{
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 131 + (i >> 9) + 3);
}

static void check(struct chunks *chunks, size_t from, size_t length)
{
	size_t at = from;
	assert_int_equal(chunks->bytes, length);
	for (struct chunk *c; (c = chunks_pop(chunks)); chunk_free(c)) {
		assert_memory_equal(c->data, bytes + at, c->length);
		at += c->length;
	}
	assert_int_equal(at, from + length);
}

static void put(struct chunks *to, size_t from, size_t length)
{
	struct chunks piece = {0};
	chunks_copy(&piece, bytes + from, length);
	stream_frame(&piece);
	chunks_move(to, &piece);
}

/* Reads all of wire in pieces of `step`. Returns whether it was well-formed. */
static bool read_in(struct stream_reader *r, struct chunks *wire, size_t step, struct chunks *out)
{
	bool ok = true;
	while (wire->head && ok) {
		struct chunks piece = {0};
		chunks_split(&piece, wire, step);
		ok = stream_read(r, &piece);
		chunks_move(out, &piece);
	}
	chunks_clear(wire);
	return ok;
}

static void test_any_cut(void **state)
{
	(void)state;
	for (size_t step = 1; step < 40000; step = step * 3 + 1) {
		struct stream_reader r = {0};
		struct chunks wire = {0}, out = {0};
		put(&wire, 0, 1);
		put(&wire, 1, 70000);
		capsule_put(&wire, CAPSULE_HERMES_ACK, "\x41\x02", 2);
		capsule_put(&wire, 0x1234, "unknown", 7);
		capsule_put(&wire, CAPSULE_HERMES_STREAM, NULL, 0);
		put(&wire, 70001, 9999);
		capsule_put(&wire, CAPSULE_HERMES_MOVE, NULL, 0);
		stream_put_end(&wire, 80000);
		capsule_put(&wire, CAPSULE_HERMES_ACK, "\x41\x03", 2);
		assert_true(read_in(&r, &wire, step, &out));
		check(&out, 0, 80000);
		assert_true(r.ended && r.move && r.acked);
		assert_int_equal(r.ack, 0x103);
		assert_int_equal(r.received, 80000);
		assert_int_equal(stream_received(&r), 80001);
	}
}

static void test_in_the_headroom(void **state)
{
	struct slab *slab = slab_get();
	struct chunks chunks = {0};
	(void)state;
	memcpy(slab->data + STRIPE_CAPSULE + STRIPE_HEADROOM, bytes, 100);
	chunks_append(&chunks, chunk_new(slab, slab->data + STRIPE_CAPSULE + STRIPE_HEADROOM, 100, STRIPE_CAPSULE + STRIPE_HEADROOM));
	stream_frame(&chunks);
	assert_ptr_equal(chunks.head->data, slab->data + STRIPE_HEADROOM);
	assert_int_equal(chunks.head->length, 100 + STRIPE_CAPSULE);
	assert_int_equal(chunks.head->headroom, STRIPE_HEADROOM);
	assert_null(chunks.head->next);
	struct stream_reader r = {0};
	assert_true(stream_read(&r, &chunks));
	assert_ptr_equal(chunks.head->data, slab->data + STRIPE_CAPSULE + STRIPE_HEADROOM);
	check(&chunks, 0, 100);
	slab_unref(slab);
}

/* The mark of which the plain bytes before it hold any number of beginnings. */
static void mark_test(const char *mark, const char *plain, size_t step)
{
	struct stream_reader r = {.early = true};
	struct chunks wire = {0}, out = {0};
	char got[256] = "";
	memcpy(r.mark, mark, STREAM_MARK);
	chunks_copy(&wire, plain, strlen(plain));
	chunks_copy(&wire, mark, STREAM_MARK);
	struct chunks tail = {0};
	chunks_copy(&tail, "tail", 4);
	stream_frame(&tail);
	chunks_move(&wire, &tail);
	assert_true(read_in(&r, &wire, step, &out));
	assert_false(r.early);
	assert_int_equal(out.bytes, strlen(plain) + 4);
	for (struct chunk *c; (c = chunks_pop(&out)); chunk_free(c))
		strncat(got, (char *)c->data, c->length);
	assert_memory_equal(got, plain, strlen(plain));
	assert_string_equal(got + strlen(plain), "tail");
	assert_int_equal(r.received, strlen(plain) + 4);
}

static void test_mark(void **state)
{
	static const char *const plain[] = {"", "x", "abab", "ababababababababcdefghijabababababcdefghi", "abababababcdefghij",
	                                    "zzzababababababcdzz", "aaaaaaaaaaaaaaaaaaaaaac", "aaaa"};
	(void)state;
	for (size_t step = 1; step < 60; step++)
		for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
			mark_test("abababababcdefgh", i == 3 || i == 4 ? "abababababcdefgababababababcdefg" : plain[i], step);
			mark_test("aaaaaaaaaaaaaaab", plain[i], step);
		}
}

static void test_restart(void **state)
{
	(void)state;
	for (size_t had = 0; had <= 5000; had += 1000)
		for (size_t step = 1; step < 9000; step = step * 5 + 2) {
			struct stream_reader r = {0};
			struct chunks wire = {0}, out = {0};
			put(&wire, 0, had ? had : 1);
			if (!had)
				chunks_clear(&wire);
			struct chunks half = {0};
			put(&half, had, 2000);
			chunks_split(&wire, &half, 1000);      /* a half capsule's bytes count */
			chunks_clear(&half);
			assert_true(read_in(&r, &wire, step, &out));
			check(&out, 0, had + 1000 - STRIPE_CAPSULE);
			size_t now = r.received, from = now > 700 ? now - 700 : 0;
			stream_reader_restart(&r, from);
			put(&wire, from, 300);
			put(&wire, from + 300, 20000);
			stream_put_end(&wire, from + 20300);
			assert_true(read_in(&r, &wire, step, &out));
			check(&out, now, from + 20300 - now);
			/* and with the end known already */
			stream_reader_restart(&r, from + 20000);
			put(&wire, from + 20000, 300);
			stream_put_end(&wire, from + 20300);
			assert_true(read_in(&r, &wire, step, &out));
			assert_int_equal(out.bytes, 0);
		}
}

static bool takes(uint64_t type, const void *value, size_t length, bool ended)
{
	struct stream_reader r = {.received = 100, .ended = ended};
	struct chunks wire = {0};
	capsule_put(&wire, type, value, length);
	bool ok = stream_read(&r, &wire);
	chunks_clear(&wire);
	return ok;
}

static void test_malformed(void **state)
{
	(void)state;
	assert_true(takes(CAPSULE_HERMES_END, "\x40\x64", 2, false));
	assert_true(takes(CAPSULE_HERMES_END, "\x40\x64", 2, true));
	assert_false(takes(CAPSULE_HERMES_END, "\x40\x65", 2, false));
	assert_false(takes(CAPSULE_HERMES_END, "\x40\x63", 2, true));
	assert_false(takes(CAPSULE_HERMES_END, "", 0, false));
	assert_false(takes(CAPSULE_HERMES_END, "\x40\x64\x00", 3, false));
	assert_false(takes(CAPSULE_HERMES_END, "\x40", 1, false));
	assert_false(takes(CAPSULE_HERMES_ACK, "123456789", 9, false));
	assert_false(takes(CAPSULE_HERMES_ACK, "", 0, false));
	assert_true(takes(CAPSULE_HERMES_STREAM, "x", 1, false));
	assert_false(takes(CAPSULE_HERMES_STREAM, "x", 1, true));
	assert_true(takes(CAPSULE_HERMES_STREAM, "", 0, true));
	assert_true(takes(CAPSULE_DATAGRAM, "x", 1, true));
}

int main(void)
{
	fill();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_cut),
		cmocka_unit_test(test_in_the_headroom),
		cmocka_unit_test(test_mark),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_malformed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
