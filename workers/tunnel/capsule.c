/* SPDX-License-Identifier: Apache-2.0 */
/* The Capsule Protocol: varints, reading and writing. capsule_cursor.c follows a stream without opening it. */
#include "workers/tunnel/capsule.h"

#include <assert.h>
#include <string.h>

/* --- varints (RFC 9000 16) ----------------------------------------------------------------------------------------- */

unsigned varint_get(const uint8_t *data, size_t length, uint64_t *value)
{
	if (length == 0)
		return 0;
	unsigned n = 1u << (data[0] >> 6);
	if (length < n)
		return 0;
	uint64_t v = data[0] & 0x3f;
	for (unsigned i = 1; i < n; i++)
		v = v << 8 | data[i];
	*value = v;
	return n;
}

unsigned varint_put(uint8_t *out, uint64_t value)
{
	unsigned log = value < 1u << 6 ? 0 : value < 1u << 14 ? 1 : value < 1u << 30 ? 2 : 3;
	unsigned n = 1u << log;
	assert(value < (uint64_t)1 << 62);
	for (unsigned i = 0; i < n; i++)
		out[i] = (uint8_t)(value >> 8 * (n - 1 - i));
	out[0] |= (uint8_t)(log << 6);
	return n;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

/* What the callee may still point into goes to reader->consumed. */
static void release(struct capsule_reader *reader, struct chunk *chunk)
{
	if (reader->consumed)
		chunks_append(reader->consumed, chunk);
	else
		chunk_free(chunk);
}

/* Takes bytes off the front. */
static void consume(struct capsule_reader *reader, struct chunks *chunks, size_t bytes)
{
	while (bytes > 0) {
		struct chunk *head = chunks->head;
		if (head->length > bytes)
			return chunks_drop(chunks, bytes);
		bytes -= head->length;
		release(reader, chunks_pop(chunks));
	}
}

static bool wants(const struct capsule_reader *reader, uint64_t type)
{
	return type >= CAPSULE_ADDRESS_ASSIGN && type <= CAPSULE_ROUTE_ADVERTISEMENT && reader->callbacks->capsule;
}

/* A capsule's header is known: what becomes of its value. */
static enum capsule_result begin(struct capsule_reader *reader, uint64_t type, uint64_t length)
{
	reader->type = type;
	reader->left = length;
	reader->header_length = 0;
	if (type == CAPSULE_DATAGRAM) {
		reader->state = CAPSULE_IN_DATAGRAM;
		return length > CAPSULE_DATAGRAM_MAX + VARINT_MAX ? CAPSULE_TOO_LONG : CAPSULE_OK;
	}
	if (wants(reader, type)) {
		reader->state = CAPSULE_IN_CONTROL;
		return length > reader->control_max || length > SLAB_SIZE ? CAPSULE_TOO_LONG : CAPSULE_OK;
	}
	reader->state = CAPSULE_IN_SKIPPED;
	return CAPSULE_OK;
}

/* A whole DATAGRAM in pieces; the first ones may hold no more than a part of the context id. */
static enum capsule_result deliver_datagram(struct capsule_reader *reader, struct capsule_piece *pieces, unsigned n,
                                            size_t length)
{
	uint8_t start[VARINT_MAX];
	size_t known = 0;
	uint64_t context;
	for (unsigned i = 0; i < n && known < sizeof(start); i++) {
		size_t part = pieces[i].length < sizeof(start) - known ? pieces[i].length : sizeof(start) - known;
		memcpy(start + known, pieces[i].data, part);
		known += part;
	}
	unsigned skip = varint_get(start, known, &context);
	if (skip == 0)
		return CAPSULE_ABORT;   /* no room for the context id (RFC 9298 5) */
	length -= skip;
	if (length > CAPSULE_DATAGRAM_MAX)
		return CAPSULE_TOO_LONG;
	while (n > 0 && skip >= pieces->length) {
		skip -= pieces->length;
		pieces++, n--;
	}
	if (n > 0) {
		pieces->data += skip;
		pieces->length -= skip;
	}
	return reader->callbacks->datagram(reader->arg, context, pieces, n, length) ? CAPSULE_OK : CAPSULE_ABORT;
}

/* Many tiny frames make up a capsule: one piece of memory instead. */
static void gather(struct capsule_reader *reader)
{
	struct slab *slab = slab_get();
	for (struct chunk *c; (c = chunks_pop(&reader->held)); release(reader, c)) {
		memcpy(slab->data + slab->used, c->data, c->length);
		slab->used += c->length;
	}
	chunks_append(&reader->held, chunk_new(slab, slab->data, slab->used, 0));
	slab_unref(slab);
}

/* The capsule under way is whole in held. */
static enum capsule_result deliver_held(struct capsule_reader *reader)
{
	struct capsule_piece pieces[CAPSULE_PIECES];
	unsigned n = 0, most = reader->state == CAPSULE_IN_DATAGRAM ? CAPSULE_PIECES : 1;
	enum capsule_result result;
	for (const struct chunk *c = reader->held.head; c; c = c->next)
		n++;
	if (n > most)
		gather(reader);
	n = 0;
	for (const struct chunk *c = reader->held.head; c; c = c->next)
		pieces[n++] = (struct capsule_piece){.data = c->data, .length = c->length};
	size_t length = reader->held.bytes;
	bool datagram = reader->state == CAPSULE_IN_DATAGRAM;
	reader->state = CAPSULE_IN_HEADER;
	if (datagram)
		result = deliver_datagram(reader, pieces, n, length);
	else
		result = reader->callbacks->capsule(reader->arg, reader->type, n ? pieces[0].data : (const uint8_t *)"", length) ?
		         CAPSULE_OK : CAPSULE_ABORT;
	consume(reader, &reader->held, reader->held.bytes);
	return result;
}

/* Header bytes, which a chunk's end may divide. */
static enum capsule_result read_header(struct capsule_reader *reader, struct chunks *chunks)
{
	uint64_t type, length;
	while (chunks->head) {
		if (chunks->head->length > 0) {
			reader->header[reader->header_length++] = chunks->head->data[0];
			consume(reader, chunks, 1);
		} else {
			chunk_free(chunks_pop(chunks));
			continue;
		}
		unsigned n = varint_get(reader->header, reader->header_length, &type);
		if (n > 0 && varint_get(reader->header + n, reader->header_length - n, &length) > 0)
			return begin(reader, type, length);
	}
	return CAPSULE_OK;
}

static enum capsule_result read_value(struct capsule_reader *reader, struct chunks *chunks)
{
	size_t n = reader->left < chunks->bytes ? (size_t)reader->left : chunks->bytes;
	reader->left -= n;
	if (reader->state == CAPSULE_IN_SKIPPED) {
		consume(reader, chunks, n);
		if (reader->left == 0)
			reader->state = CAPSULE_IN_HEADER;
		return CAPSULE_OK;
	}
	chunks_split(&reader->held, chunks, n);
	return reader->left == 0 ? deliver_held(reader) : CAPSULE_OK;
}

/* The usual: DATAGRAMs that lie whole in the first chunk. Leaves everything else alone. */
static enum capsule_result read_run(struct capsule_reader *reader, struct chunks *chunks)
{
	const uint8_t *start = chunks->head->data, *at = start, *end = start + chunks->head->length;
	enum capsule_result result = CAPSULE_OK;
	while (result == CAPSULE_OK && !reader->paused) {
		uint64_t length;
		if (end - at < 2 || at[0] != CAPSULE_DATAGRAM)
			break;
		unsigned n = varint_get(at + 1, (size_t)(end - at - 1), &length);
		const uint8_t *value = at + 1 + n;
		if (n == 0 || length > (size_t)(end - value) || length > CAPSULE_DATAGRAM_MAX)
			break;
		struct capsule_piece piece = {.data = value, .length = (uint32_t)length};
		at = value + length;
		result = deliver_datagram(reader, &piece, 1, (size_t)length);
	}
	consume(reader, chunks, (size_t)(at - start));
	return result;
}

/* Half a capsule waits for the rest: it should not pin slabs for a few bytes, but what the callee still points into, by
 * capsules before it, must stay. */
static void settle(struct capsule_reader *reader)
{
	struct chunk *head = reader->held.head;
	if (!head)
		return;
	if (reader->consumed)
		chunks_append(reader->consumed, chunk_new(head->slab, head->data, 0, 0));
	chunks_settle(&reader->held);
}

enum capsule_result capsule_read(struct capsule_reader *reader, struct chunks *chunks)
{
	enum capsule_result result = CAPSULE_OK;
	reader->paused = false;
	while (result == CAPSULE_OK && !reader->paused) {
		/* An empty value is whole without another byte. */
		if (reader->state != CAPSULE_IN_HEADER && (chunks->head || reader->left == 0)) {
			result = read_value(reader, chunks);
			continue;
		}
		if (!chunks->head)
			break;
		const struct chunk *head = chunks->head;
		if (reader->header_length == 0)
			result = read_run(reader, chunks);
		if (result == CAPSULE_OK && !reader->paused && (chunks->head == head || !chunks->head))
			result = read_header(reader, chunks);
	}
	if (result != CAPSULE_OK)
		consume(reader, chunks, chunks->bytes);
	settle(reader);
	return result;
}

bool capsule_read_end(const struct capsule_reader *reader)
{
	return reader->state == CAPSULE_IN_HEADER && reader->header_length == 0;
}

void capsule_reader_reset(struct capsule_reader *reader)
{
	chunks_clear(&reader->held);
	reader->state = CAPSULE_IN_HEADER;
	reader->header_length = 0;
	reader->left = 0;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

/* The last chunk, if it ends where the worker's current slab is free and has room for more; NULL: a new one is needed. */
static struct chunk *open_chunk(const struct chunks *to, const struct slab *slab)
{
	struct chunk *last = to->tail ? (struct chunk *)((char *)to->tail - offsetof(struct chunk, next)) : NULL;
	if (!last || last->slab != slab || last->data + last->length != slab->data + slab->used)
		return NULL;
	return last->headroom == STRIPE_HEADROOM && last->length < STRIPE_PAYLOAD ? last : NULL;
}

/* Stripes lie side by side, so that a TLS record takes the one chunk's frame behind the other without gathering. */
static struct chunk *new_chunk(struct chunks *to, size_t want)
{
	uint32_t room = STRIPE_HEADROOM + (want < STRIPE_PAYLOAD ? (uint32_t)want : STRIPE_PAYLOAD);
	struct slab *slab = slab_current(room);
	slab->used += STRIPE_HEADROOM;
	struct chunk *chunk = chunk_new(slab, slab->data + slab->used, 0, STRIPE_HEADROOM);
	chunks_append(to, chunk);
	return chunk;
}

static void put(struct chunks *to, const void *data, size_t length)
{
	const uint8_t *from = data;
	while (length > 0) {
		struct chunk *chunk = open_chunk(to, slab_current(1));
		if (!chunk)
			chunk = new_chunk(to, length);
		struct slab *slab = chunk->slab;
		uint32_t room = slab->size - slab->used, n = STRIPE_PAYLOAD - chunk->length;
		n = n < room ? n : room;
		n = n < length ? n : (uint32_t)length;
		memcpy(slab->data + slab->used, from, n);
		slab->used += n;
		chunk->length += n;
		to->bytes += n;
		from += n;
		length -= n;
	}
}

void capsule_put_datagram(struct chunks *to, uint64_t context, const void *prefix, size_t prefix_length,
                          const void *payload, size_t length)
{
	uint8_t head[3 * VARINT_MAX], id[VARINT_MAX];
	unsigned n_id = varint_put(id, context), n = varint_put(head, CAPSULE_DATAGRAM);
	n += varint_put(head + n, n_id + prefix_length + length);
	memcpy(head + n, id, n_id);
	put(to, head, n + n_id);
	put(to, prefix, prefix_length);
	put(to, payload, length);
}

void capsule_put(struct chunks *to, uint64_t type, const void *value, size_t length)
{
	uint8_t head[CAPSULE_HEADER_MAX];
	unsigned n = varint_put(head, type);
	n += varint_put(head + n, length);
	put(to, head, n);
	put(to, value, length);
}
