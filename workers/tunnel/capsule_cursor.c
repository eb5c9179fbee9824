/* SPDX-License-Identifier: Apache-2.0 */
/* Where a passing capsule stream stands. */
#include <string.h>

#include "workers/tunnel/capsule.h"

static void end_capsule(struct capsule_cursor *cursor, uint64_t offset)
{
	uint64_t value;
	if (cursor->type == CAPSULE_HERMES_ACK && varint_get(cursor->value, cursor->value_length, &value) > 0)
		cursor->ack = value;
	if (cursor->type == CAPSULE_HERMES_MOVE)
		cursor->move = true;
	if (cursor->type == CAPSULE_HERMES_ACK || cursor->type == CAPSULE_HERMES_MOVE)
		cursor->own += offset - cursor->boundary;
	cursor->header_length = 0;
	cursor->boundary = offset;
}

/* Bytes of one header; returns how many were used. */
static size_t take_header(struct capsule_cursor *cursor, const uint8_t *data, size_t length)
{
	size_t used = 0;
	while (used < length) {
		cursor->header[cursor->header_length++] = data[used++];
		unsigned n = varint_get(cursor->header, cursor->header_length, &cursor->type);
		if (n == 0 || varint_get(cursor->header + n, cursor->header_length - n, &cursor->left) == 0)
			continue;
		cursor->value_length = 0;
		cursor->in_value = true;
		break;
	}
	return used;
}

static size_t take_value(struct capsule_cursor *cursor, const uint8_t *data, size_t length)
{
	size_t n = cursor->left < length ? (size_t)cursor->left : length;
	size_t room = sizeof(cursor->value) - cursor->value_length, keep = n < room ? n : room;
	if (cursor->type == CAPSULE_HERMES_ACK) {
		memcpy(cursor->value + cursor->value_length, data, keep);
		cursor->value_length += (uint8_t)keep;
	}
	cursor->left -= n;
	return n;
}

static void follow(struct capsule_cursor *cursor, const uint8_t *data, size_t length)
{
	for (size_t at = 0; at < length;) {
		if (!cursor->in_value)
			at += take_header(cursor, data + at, length - at);
		if (!cursor->in_value)
			break;
		at += take_value(cursor, data + at, length - at);
		if (cursor->left > 0)
			break;
		cursor->in_value = false;
		end_capsule(cursor, cursor->offset + at);
	}
	cursor->offset += length;
}

void capsule_follow(struct capsule_cursor *cursor, const struct chunks *chunks)
{
	for (const struct chunk *c = chunks->head; c; c = c->next)
		follow(cursor, c->data, c->length);
}
