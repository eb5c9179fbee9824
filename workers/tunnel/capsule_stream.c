/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/capsule_stream.h"

#include <assert.h>
#include <string.h>

/* --- reading ---------------------------------------------------------------------------------------------------------- */

static void advance(struct chunk *c, size_t n)
{
	c->data += n;
	c->length -= (uint32_t)n;
	c->headroom = 0;
}

/* The first n bytes of c go on; c is what is left. */
static void pass(struct stream_reader *r, struct chunk *c, size_t n, struct chunks *out)
{
	if (n > 0)
		chunks_append(out, chunk_new(c->slab, c->data, (uint32_t)n, c->headroom));
	r->received += n;
	advance(c, n);
}

/* How much of the mark's beginning the bytes end with that matched m of it and then not `byte`. */
static unsigned shorter(const uint8_t *mark, unsigned m, uint8_t byte)
{
	for (unsigned k = m; k > 0; k--)
		if (mark[k - 1] == byte && memcmp(mark, mark + m - (k - 1), k - 1) == 0)
			return k;
	return 0;
}

/* Plain bytes before the mark; c is what follows it. What may be its beginning waits for more. */
static void read_early(struct stream_reader *r, struct chunk *c, struct chunks *out)
{
	unsigned before = r->marked, m = before;
	size_t at = 0;
	while (at < c->length && m < STREAM_MARK) {
		const uint8_t *next = m ? c->data + at : memchr(c->data + at, r->mark[0], c->length - at);
		if (!next) {
			at = c->length;
			break;
		}
		at = (size_t)(next - c->data) + 1;
		m = *next == r->mark[m] ? m + 1 : shorter(r->mark, m, *next);
	}
	size_t plain = before + at - m, former = plain < before ? plain : before;
	chunks_copy(out, r->mark, former);         /* they came in a chunk before, and are as the mark's */
	r->received += former;
	r->early = m < STREAM_MARK;
	r->marked = (uint8_t)(r->early ? m : 0);
	pass(r, c, plain - former, out);
	advance(c, at - (plain - former));
}

static bool end_capsule(struct stream_reader *r)
{
	uint64_t value = 0;
	bool number = r->type == CAPSULE_HERMES_ACK || r->type == CAPSULE_HERMES_END;
	r->in_value = false;
	r->header_length = 0;
	if (number && varint_get(r->value, r->value_length, &value) != r->value_length)
		return false;
	if (r->type == CAPSULE_HERMES_ACK) {
		r->ack = value;
		r->acked = true;
	} else if (r->type == CAPSULE_HERMES_END) {
		if (value != r->received || r->skip > 0)
			return false;
		r->ended = true;
	} else if (r->type == CAPSULE_HERMES_MOVE) {
		r->move = true;
	}
	return true;
}

static bool read_header(struct stream_reader *r, struct chunk *c)
{
	while (c->length > 0 && !r->in_value) {
		r->header[r->header_length++] = c->data[0];
		advance(c, 1);
		unsigned n = varint_get(r->header, r->header_length, &r->type);
		if (n == 0 || varint_get(r->header + n, r->header_length - n, &r->left) == 0)
			continue;
		r->in_value = true;
		r->value_length = 0;
	}
	bool number = r->type == CAPSULE_HERMES_ACK || r->type == CAPSULE_HERMES_END;
	if (r->in_value && number && (r->left == 0 || r->left > VARINT_MAX))
		return false;
	if (r->in_value && r->type == CAPSULE_HERMES_STREAM && r->ended && r->left > r->skip)
		return false;
	return !r->in_value || r->left > 0 || end_capsule(r);
}

/* At least one byte of a value. */
static bool read_value(struct stream_reader *r, struct chunk *c, struct chunks *out)
{
	size_t n = r->left < c->length ? (size_t)r->left : c->length;
	r->left -= n;
	if (r->type == CAPSULE_HERMES_STREAM) {
		size_t had = r->skip < n ? (size_t)r->skip : n;
		r->skip -= had;
		advance(c, had);
		pass(r, c, n - had, out);
	} else {
		if (r->type == CAPSULE_HERMES_ACK || r->type == CAPSULE_HERMES_END)
			memcpy(r->value + r->value_length, c->data, n), r->value_length += (uint8_t)n;
		advance(c, n);
	}
	return r->left > 0 || end_capsule(r);
}

bool stream_read(struct stream_reader *r, struct chunks *chunks)
{
	struct chunks out = {0};
	bool ok = true;
	for (struct chunk *c; ok && (c = chunks_pop(chunks)); chunk_free(c)) {
		if (r->early)
			read_early(r, c, &out);
		while (ok && c->length > 0)
			ok = r->in_value ? read_value(r, c, &out) : read_header(r, c);
	}
	chunks_clear(chunks);
	chunks_move(chunks, &out);
	return ok;
}

void stream_reader_restart(struct stream_reader *r, uint64_t from)
{
	assert(from <= stream_received(r));
	r->skip = from < r->received ? r->received - from : 0;
	r->early = r->in_value = r->acked = false;
	r->header_length = r->marked = 0;
}

/* --- writing ---------------------------------------------------------------------------------------------------------- */

static void put32(uint8_t *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

void stream_frame(struct chunks *chunks)
{
	struct chunk *first = chunks->head;
	uint8_t header[STRIPE_CAPSULE];
	if (!first)
		return;
	put32(header, 0x80000000u | CAPSULE_HERMES_STREAM);   /* RFC 9000 16: four bytes */
	put32(header + 4, 0x80000000u | (uint32_t)chunks->bytes);
	if (first->headroom >= STRIPE_CAPSULE) {
		first->data -= STRIPE_CAPSULE;
		first->length += STRIPE_CAPSULE;
		first->headroom -= STRIPE_CAPSULE;
		chunks->bytes += STRIPE_CAPSULE;
		memcpy(first->data, header, sizeof(header));
		return;
	}
	struct chunks all = {0};
	chunks_copy(&all, header, sizeof(header));
	chunks_move(&all, chunks);
	*chunks = all;
}

void stream_put_end(struct chunks *to, uint64_t bytes)
{
	uint8_t value[VARINT_MAX];
	capsule_put(to, CAPSULE_HERMES_END, value, varint_put(value, bytes));
}
