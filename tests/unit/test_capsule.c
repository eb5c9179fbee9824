/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/capsule.h"

/* What a reader told, as text. */
struct told {
	char text[16384];
	size_t used;
	bool no, pause;               /* what callbacks answer */
	struct capsule_reader reader;
};

static void tell(struct told *t, const char *what, uint64_t id, const uint8_t *data, size_t length)
{
	t->used += (size_t)snprintf(t->text + t->used, sizeof(t->text) - t->used, "%s%llx:%zu:", what, (unsigned long long)id,
	                            length);
	for (size_t i = 0; i < length && i < 24; i++)
		t->used += (size_t)snprintf(t->text + t->used, sizeof(t->text) - t->used, "%02x", data[i]);
	t->used += (size_t)snprintf(t->text + t->used, sizeof(t->text) - t->used, " ");
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct told *t = arg;
	uint8_t *whole = malloc(length + 1);
	size_t used = 0;
	assert_true(n <= CAPSULE_PIECES);
	for (unsigned i = 0; i < n; i++) {
		memcpy(whole + used, pieces[i].data, pieces[i].length);
		used += pieces[i].length;
	}
	assert_int_equal(used, length);
	tell(t, "d", context, whole, length);
	free(whole);
	t->reader.paused = t->pause;
	return !t->no;
}

static bool on_capsule(void *arg, uint64_t type, const uint8_t *value, size_t length)
{
	struct told *t = arg;
	tell(t, "c", type, value, length);
	return !t->no;
}

static const struct capsule_callbacks callbacks = {.datagram = on_datagram, .capsule = on_capsule};

static void begin(struct told *t)
{
	*t = (struct told){.reader = {.callbacks = &callbacks, .arg = t, .control_max = 100}};
}

static enum capsule_result feed(struct told *t, const void *data, size_t length)
{
	struct chunks chunks = {0};
	chunks_copy(&chunks, data, length);
	enum capsule_result result = capsule_read(&t->reader, &chunks);
	assert_null(chunks.head);
	return result;
}

/* Two datagrams, an empty payload, an unknown capsule, lengths written longer than needed, a control capsule. */
static const uint8_t stream[] = {
	0x00, 0x04, 0x00, 'a', 'b', 'c',
	0x40, 0x00, 0x80, 0x00, 0x00, 0x03, 0x40, 0x00, 'x',
	0x00, 0x01, 0x00,
	0xa8, 0x48, 0x4d, 0x09, 0x03, 1, 2, 3,
	0x17, 0x00,
	0x02, 0x04, 9, 8, 7, 6,
	0x00, 0x05, 0x42, 0x34, 'x', 'y', 'z',
};
static const char told_of_stream[] = "d0:3:616263 d0:1:78 d0:0: c2:4:09080706 d234:3:78797a ";

static void every_cut_reads_the_same(void **state)
{
	(void)state;
	struct told t;
	for (size_t i = 0; i <= sizeof(stream); i++)
		for (size_t j = i; j <= sizeof(stream); j++) {
			begin(&t);
			assert_int_equal(feed(&t, stream, i), CAPSULE_OK);
			assert_int_equal(feed(&t, stream + i, j - i), CAPSULE_OK);
			assert_int_equal(feed(&t, stream + j, sizeof(stream) - j), CAPSULE_OK);
			assert_string_equal(t.text, told_of_stream);
			assert_true(capsule_read_end(&t.reader));
		}
	begin(&t);
	for (size_t i = 0; i < sizeof(stream); i++)
		assert_int_equal(feed(&t, stream + i, 1), CAPSULE_OK);
	assert_string_equal(t.text, told_of_stream);
	assert_int_equal(slab_in_use(), SLAB_SIZE);   /* nothing but the current one */
}

static void chunks_of_any_size_read_the_same(void **state)
{
	(void)state;
	for (size_t step = 1; step < sizeof(stream); step++) {
		struct told t;
		struct chunks chunks = {0};
		begin(&t);
		for (size_t at = 0; at < sizeof(stream); at += step)
			chunks_copy(&chunks, stream + at, sizeof(stream) - at < step ? sizeof(stream) - at : step);
		assert_int_equal(capsule_read(&t.reader, &chunks), CAPSULE_OK);
		assert_string_equal(t.text, told_of_stream);
	}
}

static void an_end_inside_a_capsule_is_seen(void **state)
{
	(void)state;
	static const size_t ends[] = {0, 6, 15, 18, 26, 28, 34, 41};
	for (size_t i = 0; i <= sizeof(stream); i++) {
		struct told t;
		bool whole = false;
		for (size_t e = 0; e < sizeof(ends) / sizeof(ends[0]); e++)
			whole |= ends[e] == i;
		begin(&t);
		feed(&t, stream, i);
		assert_int_equal(capsule_read_end(&t.reader), whole);
		capsule_reader_reset(&t.reader);
		assert_true(capsule_read_end(&t.reader));
		assert_int_equal(feed(&t, "\0\2\0r", 4), CAPSULE_OK);   /* a new capsule begins */
		assert_non_null(strstr(t.text, "d0:1:72 "));
	}
}

static void malformed_is_told(void **state)
{
	(void)state;
	struct told t;
	begin(&t);
	assert_int_equal(feed(&t, "\0\0", 2), CAPSULE_ABORT);             /* no context id */
	begin(&t);
	assert_int_equal(feed(&t, "\0\1\x40", 3), CAPSULE_ABORT);         /* half of one */
	begin(&t);
	assert_int_equal(feed(&t, "\0\x80\x01\x00\x12", 5), CAPSULE_TOO_LONG);   /* 65,554: whatever the context id's length */
	begin(&t);
	assert_int_equal(feed(&t, "\2\x40\x65", 3), CAPSULE_TOO_LONG);    /* 101 */
	begin(&t);
	t.no = true;
	assert_int_equal(feed(&t, stream, sizeof(stream)), CAPSULE_ABORT);
	assert_string_equal(t.text, "d0:3:616263 ");
	capsule_reader_reset(&t.reader);
}

static void a_long_datagram_is_too_long_by_one(void **state)
{
	(void)state;
	static uint8_t payload[CAPSULE_DATAGRAM_MAX + 1];
	for (unsigned extra = 0; extra < 2; extra++) {
		struct told t;
		struct chunks chunks = {0};
		begin(&t);
		capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, payload, CAPSULE_DATAGRAM_MAX + extra);
		assert_int_equal(capsule_read(&t.reader, &chunks), extra ? CAPSULE_TOO_LONG : CAPSULE_OK);
		assert_int_equal(strncmp(t.text, "d0:65545:0000", 13) == 0, !extra);
		capsule_reader_reset(&t.reader);
	}
}

static void unknown_types_are_not_kept(void **state)
{
	(void)state;
	static const uint8_t head[] = {0x21, 0xc0, 0, 0, 0, 0x10, 0, 0, 0};   /* 256 MiB */
	static uint8_t noise[STRIPE_PAYLOAD];
	struct told t;
	begin(&t);
	feed(&t, head, sizeof(head));
	for (uint64_t left = 256u << 20; left > 0;) {
		size_t n = left < sizeof(noise) ? (size_t)left : sizeof(noise);
		assert_int_equal(feed(&t, noise, n), CAPSULE_OK);
		left -= n;
	}
	assert_true(capsule_read_end(&t.reader));
	assert_int_equal(slab_in_use(), SLAB_SIZE);
	assert_int_equal(feed(&t, "\0\2\0r", 4), CAPSULE_OK);
	assert_string_equal(t.text, "d0:1:72 ");
	static const struct capsule_callbacks no_control = {.datagram = on_datagram};
	begin(&t);
	t.reader.callbacks = &no_control;
	assert_int_equal(feed(&t, "\1\x41\0", 3), CAPSULE_OK);   /* longer than control_max: nobody wants it */
	capsule_reader_reset(&t.reader);
}

static void a_pause_leaves_the_rest(void **state)
{
	(void)state;
	struct told t;
	struct chunks chunks = {0}, consumed = {0};
	begin(&t);
	t.pause = true;
	t.reader.consumed = &consumed;
	chunks_copy(&chunks, stream, sizeof(stream));
	unsigned rounds = 0;
	while (chunks.head) {
		assert_int_equal(capsule_read(&t.reader, &chunks), CAPSULE_OK);
		rounds++;
	}
	assert_int_equal(rounds, 4);
	assert_string_equal(t.text, told_of_stream);
	chunks_clear(&consumed);
	assert_int_equal(slab_in_use(), SLAB_SIZE);
}

/* Pieces that a callee keeps pointing at, until the caller clears `consumed`. */
struct kept { struct capsule_reader reader; struct capsule_piece pieces[64]; unsigned n; };

static bool keep_pieces(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct kept *k = arg;
	(void)context, (void)length;
	for (unsigned i = 0; i < n; i++)
		k->pieces[k->n++] = pieces[i];
	return true;
}

static void pieces_live_as_long_as_what_was_consumed(void **state)
{
	(void)state;
	static const struct capsule_callbacks keep = {.datagram = keep_pieces};
	uint8_t data[8 * 103], junk[64];
	for (unsigned i = 0; i < 8; i++) {
		memcpy(data + i * 103, (uint8_t[]){0, 0x40, 100, 0}, 4);
		memset(data + i * 103 + 4, 'a' + (int)i, 99);
	}
	memset(junk, 'J', sizeof(junk));
	for (size_t cut = 1; cut < sizeof(data); cut++) {
		struct chunks chunks = {0}, consumed = {0};
		struct kept k = {.reader = {.callbacks = &keep, .consumed = &consumed}};
		k.reader.arg = &k;
		for (size_t at = 0; at < sizeof(data); at += cut) {
			chunks_copy(&chunks, data + at, sizeof(data) - at < cut ? sizeof(data) - at : cut);
			assert_int_equal(capsule_read(&k.reader, &chunks), CAPSULE_OK);
			chunks_copy(&chunks, junk, sizeof(junk));   /* whoever reuses memory too early is found out */
			chunks_clear(&chunks);
			if (k.n > 40)
				break;
		}
		unsigned expected = 0, length = 0;
		for (unsigned i = 0; i < k.n; i++)
			for (uint32_t b = 0; b < k.pieces[i].length; b++) {
				assert_int_equal(k.pieces[i].data[b], 'a' + expected);
				if (++length == 99)
					length = 0, expected++;
			}
		chunks_clear(&consumed);
		capsule_reader_reset(&k.reader);
		assert_int_equal(slab_in_use(), SLAB_SIZE);
	}
}

static void a_batch_fills_stripes(void **state)
{
	(void)state;
	uint8_t payload[1200];
	struct chunks chunks = {0};
	memset(payload, 'p', sizeof(payload));
	for (unsigned i = 0; i < 100; i++)
		capsule_put_datagram(&chunks, CONTEXT_PAYLOAD, NULL, 0, payload, sizeof(payload));
	assert_int_equal(chunks.bytes, 100 * (1200 + 4));
	unsigned n = 0;
	for (const struct chunk *c = chunks.head; c; c = c->next, n++) {
		assert_int_equal(c->headroom, STRIPE_HEADROOM);
		if (c->next) {
			assert_int_equal(c->length, STRIPE_PAYLOAD);
			if (c->next->slab == c->slab)
				assert_ptr_equal(c->next->data, c->data + c->length + STRIPE_HEADROOM);
		}
	}
	assert_int_equal(n, (100 * 1204 + STRIPE_PAYLOAD - 1) / STRIPE_PAYLOAD);
	struct told t;
	begin(&t);
	assert_int_equal(capsule_read(&t.reader, &chunks), CAPSULE_OK);
	unsigned found = 0;
	for (const char *at = t.text; (at = strstr(at, "d0:1200:")); at++)
		found++;
	assert_int_equal(found, 100);
}

static void a_batch_leaves_others_bytes_alone(void **state)
{
	(void)state;
	struct chunks mine = {0}, other = {0};
	capsule_put_datagram(&mine, CONTEXT_SEGMENTS, "\0\2", 2, "one", 3);
	chunks_copy(&other, "other", 5);
	capsule_put_datagram(&mine, CONTEXT_SEGMENTS, "\0\2", 2, "two", 3);
	capsule_put(&mine, CAPSULE_HERMES_ACK, "\x05", 1);
	assert_memory_equal(other.head->data, "other", 5);
	struct told t;
	begin(&t);
	assert_int_equal(capsule_read(&t.reader, &mine), CAPSULE_OK);
	assert_string_equal(t.text, "d2:5:00026f6e65 d2:5:000274776f ");
	chunks_clear(&other);
}

static void varints_go_both_ways(void **state)
{
	(void)state;
	static const struct { uint64_t value; unsigned bytes; } cases[] = {{0, 1}, {63, 1}, {64, 2}, {16383, 2}, {16384, 4},
		{(1u << 30) - 1, 4}, {1u << 30, 8}, {((uint64_t)1 << 62) - 1, 8}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t bytes[VARINT_MAX];
		uint64_t back;
		assert_int_equal(varint_put(bytes, cases[i].value), cases[i].bytes);
		assert_int_equal(varint_get(bytes, cases[i].bytes - 1, &back), 0);
		assert_int_equal(varint_get(bytes, cases[i].bytes, &back), cases[i].bytes);
		assert_int_equal(back, cases[i].value);
	}
}

static void the_cursor_knows_boundaries(void **state)
{
	(void)state;
	static const size_t ends[] = {0, 6, 15, 18, 26, 28, 34, 41};
	struct chunks rest = {0};
	capsule_put(&rest, CAPSULE_HERMES_ACK, "\x7f\xff", 2);
	capsule_put(&rest, CAPSULE_HERMES_MOVE, NULL, 0);
	for (size_t step = 1; step <= sizeof(stream); step++) {
		struct capsule_cursor cursor = {0};
		for (size_t at = 0; at < sizeof(stream); at += step) {
			size_t n = sizeof(stream) - at < step ? sizeof(stream) - at : step, last = 0;
			struct chunks chunks = {0};
			chunks_copy(&chunks, stream + at, n);
			capsule_follow(&cursor, &chunks);
			chunks_clear(&chunks);
			for (size_t e = 0; e < sizeof(ends) / sizeof(ends[0]); e++)
				last = ends[e] <= at + n ? ends[e] : last;
			assert_int_equal(cursor.offset, at + n);
			assert_int_equal(cursor.boundary, last);
			assert_int_equal(capsule_at_boundary(&cursor), last == at + n);
		}
		assert_int_equal(cursor.ack, 0);
		assert_false(cursor.move);
		capsule_follow(&cursor, &rest);
		assert_int_equal(cursor.ack, 0x3fff);
		assert_true(cursor.move);
		assert_true(capsule_at_boundary(&cursor));
	}
	chunks_clear(&rest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut_reads_the_same),
		cmocka_unit_test(chunks_of_any_size_read_the_same),
		cmocka_unit_test(an_end_inside_a_capsule_is_seen),
		cmocka_unit_test(malformed_is_told),
		cmocka_unit_test(a_long_datagram_is_too_long_by_one),
		cmocka_unit_test(unknown_types_are_not_kept),
		cmocka_unit_test(a_pause_leaves_the_rest),
		cmocka_unit_test(pieces_live_as_long_as_what_was_consumed),
		cmocka_unit_test(a_batch_fills_stripes),
		cmocka_unit_test(a_batch_leaves_others_bytes_alone),
		cmocka_unit_test(varints_go_both_ways),
		cmocka_unit_test(the_cursor_knows_boundaries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
