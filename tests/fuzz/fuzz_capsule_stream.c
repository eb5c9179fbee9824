/* SPDX-License-Identifier: Apache-2.0 */
/* Byte streams from hostile ends: the same is read however the bytes are cut, never more than came, and after a restart no byte
 * twice. The first byte says how the second reader gets its bytes, the second where it begins: with plain bytes before a mark, or
 * behind bytes that came before. */
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/capsule_stream.h"

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a reader told, as a digest. */
struct heard { struct stream_reader reader; uint64_t digest, bytes; bool ok, moved; };

static void listen_to(struct heard *h, const uint8_t *data, size_t size, size_t step, uint8_t begin)
{
	*h = (struct heard){.ok = true, .reader = {.early = begin & 1, .received = begin & 2 ? 1000 : 0}};
	memcpy(h->reader.mark, "mmmarkmmmarkmmmm", STREAM_MARK);
	if (begin & 2 && !(begin & 1))
		stream_reader_restart(&h->reader, 1000 - (begin >> 2));
	uint64_t before = h->reader.received;
	for (size_t at = 0; at < size && h->ok;) {
		struct chunks chunks = {0};
		size_t n = size - at < step ? size - at : step;
		chunks_copy(&chunks, data + at, n);
		at += n;
		h->ok = stream_read(&h->reader, &chunks);
		h->moved |= h->reader.move;
		CHECK(h->reader.marked < STREAM_MARK && h->reader.header_length <= CAPSULE_HEADER_MAX && h->reader.value_length <= VARINT_MAX);
		for (struct chunk *c; (c = chunks_pop(&chunks)); chunk_free(c)) {
			for (uint32_t i = 0; i < c->length; i++)
				h->digest = (h->digest ^ c->data[i]) * 0x100000001b3u;
			h->bytes += c->length;
		}
	}
	CHECK(h->bytes <= size && h->reader.received == before + h->bytes);
}

/* What is framed is read as it was. */
static void there_and_back(const uint8_t *data, size_t size)
{
	struct stream_reader reader = {0};
	struct chunks chunks = {0};
	chunks_copy(&chunks, data, size);
	stream_frame(&chunks);
	stream_put_end(&chunks, size);
	CHECK(stream_read(&reader, &chunks) && reader.ended && reader.received == size && chunks.bytes == size);
	const uint8_t *at = data;
	for (struct chunk *c; (c = chunks_pop(&chunks)); at += c->length, chunk_free(c))
		CHECK(memcmp(c->data, at, c->length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct heard whole, cut;
	if (size < 2)
		return 0;
	listen_to(&whole, data + 2, size - 2, SIZE_MAX, data[1]);
	listen_to(&cut, data + 2, size - 2, data[0] % 32 + 1u, data[1]);
	CHECK(whole.ok == cut.ok);
	if (whole.ok) {
		CHECK(whole.digest == cut.digest && whole.bytes == cut.bytes && whole.moved == cut.moved);
		CHECK(whole.reader.ack == cut.reader.ack && whole.reader.ended == cut.reader.ended);
		CHECK(whole.reader.skip == cut.reader.skip && whole.reader.early == cut.reader.early);
	}
	there_and_back(data, size);
	return 0;
}
