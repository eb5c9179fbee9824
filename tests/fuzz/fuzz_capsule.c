/* SPDX-License-Identifier: Apache-2.0 */
/* Capsule streams from hostile peers: the same is read however the bytes are cut, nothing is kept beyond a capsule, and
 * the cursor sees the same boundaries as a plain decoder. The first byte says how the second reader gets its bytes. */
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/capsule.h"

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)
#define CONTROL_MAX 64u

/* What a reader told, as a digest. */
struct heard {
	struct capsule_reader reader;
	uint64_t digest;
	unsigned datagrams, capsules;
	enum capsule_result result;
};

static void mix(struct heard *h, const void *data, size_t length)
{
	const uint8_t *at = data;
	for (size_t i = 0; i < length; i++)
		h->digest = (h->digest ^ at[i]) * 0x100000001b3u;
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct heard *h = arg;
	size_t sum = 0;
	CHECK(n <= CAPSULE_PIECES && length <= CAPSULE_DATAGRAM_MAX && context < (uint64_t)1 << 62);
	mix(h, &context, sizeof(context));
	mix(h, &length, sizeof(length));
	for (unsigned i = 0; i < n; i++) {
		mix(h, pieces[i].data, pieces[i].length);
		sum += pieces[i].length;
	}
	CHECK(sum == length);
	h->datagrams++;
	return context != 0x3f;        /* some callees find a stream malformed */
}

static bool on_capsule(void *arg, uint64_t type, const uint8_t *value, size_t length)
{
	struct heard *h = arg;
	CHECK(type >= CAPSULE_ADDRESS_ASSIGN && type <= CAPSULE_ROUTE_ADVERTISEMENT && length <= CONTROL_MAX);
	mix(h, &type, sizeof(type));
	mix(h, &length, sizeof(length));
	mix(h, value, length);
	h->capsules++;
	return true;
}

static const struct capsule_callbacks callbacks = {.datagram = on_datagram, .capsule = on_capsule};

static void listen_to(struct heard *h, const uint8_t *data, size_t size, size_t step, size_t per_call)
{
	struct chunks consumed = {0}, chunks = {0};
	unsigned held = 0;
	*h = (struct heard){.reader = {.callbacks = &callbacks, .arg = h, .control_max = CONTROL_MAX, .consumed = &consumed}};
	for (size_t at = 0; at < size && h->result == CAPSULE_OK;) {
		size_t n = size - at < step ? size - at : step;
		chunks_copy(&chunks, data + at, n);
		at += n;
		if (++held < per_call && at < size)
			continue;
		held = 0;
		h->result = capsule_read(&h->reader, &chunks);
		CHECK(!chunks.head);
		chunks_clear(&consumed);
		CHECK(h->reader.held.bytes <= CAPSULE_DATAGRAM_MAX + VARINT_MAX);
	}
}

/* Where capsules end, by the plainest decoder there is. Returns the last end. */
static size_t plain_boundary(const uint8_t *data, size_t size)
{
	size_t at = 0;
	for (;;) {
		uint64_t type, length;
		unsigned n = varint_get(data + at, size - at, &type);
		unsigned m = n ? varint_get(data + at + n, size - at - n, &length) : 0;
		if (m == 0 || length > size - at - n - m)
			return at;
		at += n + m + (size_t)length;
	}
}

static void check_cursor(const uint8_t *data, size_t size, size_t step)
{
	struct capsule_cursor cursor = {0};
	for (size_t at = 0; at < size; at += step) {
		size_t n = size - at < step ? size - at : step;
		struct chunks chunks = {0};
		chunks_copy(&chunks, data + at, n);
		capsule_follow(&cursor, &chunks);
		chunks_clear(&chunks);
	}
	CHECK(cursor.offset == size);
	CHECK(cursor.boundary == plain_boundary(data, size));
	CHECK(cursor.own <= cursor.boundary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct heard whole, cut;
	if (size < 1)
		return 0;
	size_t step = (data[0] & 0x1f) + 1, per_call = (data[0] >> 5) + 1;
	data++, size--;
	listen_to(&whole, data, size, SIZE_MAX, 1);
	listen_to(&cut, data, size, step, per_call);
	CHECK(whole.digest == cut.digest && whole.datagrams == cut.datagrams && whole.capsules == cut.capsules);
	CHECK(whole.result == cut.result);
	if (whole.result == CAPSULE_OK) {
		CHECK(capsule_read_end(&whole.reader) == capsule_read_end(&cut.reader));
		CHECK(capsule_read_end(&whole.reader) == (plain_boundary(data, size) == size));
	}
	check_cursor(data, size, step);
	check_cursor(data, size, SIZE_MAX / 2);
	capsule_reader_reset(&whole.reader);
	capsule_reader_reset(&cut.reader);
	CHECK(slab_in_use() <= SLAB_SIZE);
	return 0;
}
