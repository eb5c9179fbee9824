/* Messages to bytes and back: see codec.h for the contract and messages.h for what is on the wire. */
#include "ipc/codec.h"
#include "ipc/tables.h"

#include <assert.h>
#include <errno.h>
#include <msgpack.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A string's decoded size is at most its wire size (NUL for the header byte), so strings need IPC_MESSAGE_MAX at most.
 * A list's members are pointers, many times their wire size: hence the cap, the same for both directions, and room for
 * the lists of the message that has the most (assessed: two STRS, two PAIRS). */
#define LIST_MAX 4096u
#define ARENA_SIZE (IPC_MESSAGE_MAX + LIST_MAX * 2 * (sizeof(char *) + sizeof(struct ipc_pair)))
#define DEPTH_MAX 8u      /* of fields that we do not know and skip */

struct ipc_arena {
	size_t used;
	alignas(max_align_t) unsigned char memory[ARENA_SIZE];
};

struct ipc_arena *ipc_arena_new(void)
{
	struct ipc_arena *arena = malloc(sizeof(*arena));
	if (arena)
		arena->used = 0;
	return arena;
}

void ipc_arena_free(struct ipc_arena *arena)
{
	free(arena);
}

static void *arena_take(struct ipc_arena *arena, size_t size, size_t align)
{
	size_t start = (arena->used + align - 1) & ~(align - 1);
	if (start > ARENA_SIZE || size > ARENA_SIZE - start)
		return NULL;
	arena->used = start + size;
	return arena->memory + start;
}

/* --- encoding ------------------------------------------------------------------------------------------------------ */

struct sink {
	uint8_t *data;
	size_t length, size;
};

static int sink_write(void *arg, const char *data, size_t length)
{
	struct sink *sink = arg;
	if (length > sink->size - sink->length)
		return -1;
	if (length)
		memcpy(sink->data + sink->length, data, length);
	sink->length += length;
	return 0;
}

static int pack_str(msgpack_packer *pk, const char *s)
{
	size_t length = s ? strlen(s) : 0;
	if (msgpack_pack_str(pk, length))
		return -1;
	return msgpack_pack_str_body(pk, s ? s : "", length);
}

static int pack_strs(msgpack_packer *pk, const struct ipc_strs *strs)
{
	if (strs->n > LIST_MAX || msgpack_pack_array(pk, strs->n))
		return -1;
	for (size_t i = 0; i < strs->n; i++)
		if (pack_str(pk, strs->v[i]))
			return -1;
	return 0;
}

static int pack_pairs(msgpack_packer *pk, const struct ipc_pairs *pairs)
{
	if (pairs->n > LIST_MAX || msgpack_pack_array(pk, pairs->n))
		return -1;
	for (size_t i = 0; i < pairs->n; i++)
		if (msgpack_pack_array(pk, 2) || pack_str(pk, pairs->v[i].name) || pack_str(pk, pairs->v[i].value))
			return -1;
	return 0;
}

static int pack_bytes(msgpack_packer *pk, const struct ipc_bytes *bytes)
{
	if (bytes->length > IPC_MESSAGE_MAX || msgpack_pack_bin(pk, bytes->length))
		return -1;
	return msgpack_pack_bin_body(pk, bytes->data, bytes->length);
}

static int pack_field(msgpack_packer *pk, enum ipc_field_type type, const void *member)
{
	switch (type) {
	case IPC_U32: return msgpack_pack_uint32(pk, *(const uint32_t *)member);
	case IPC_U64: return msgpack_pack_uint64(pk, *(const uint64_t *)member);
	case IPC_I64: return msgpack_pack_int64(pk, *(const int64_t *)member);
	case IPC_BOOL: return *(const bool *)member ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
	case IPC_STR: {
		const char *s = *(const char *const *)member;
		return s ? pack_str(pk, s) : msgpack_pack_nil(pk);
	}
	case IPC_BYTES: return pack_bytes(pk, member);
	case IPC_STRS: return pack_strs(pk, member);
	case IPC_PAIRS: return pack_pairs(pk, member);
	}
	return -1;
}

int ipc_encode(enum ipc_type type, const void *message, uint8_t *out, size_t size)
{
	const struct ipc_description *d = ipc_describe(type);
	assert(d);
	struct sink sink = {.data = out, .size = size < IPC_MESSAGE_MAX ? size : IPC_MESSAGE_MAX};
	msgpack_packer pk;
	msgpack_packer_init(&pk, &sink, sink_write);
	if (msgpack_pack_array(&pk, d->n_fields + 1) || msgpack_pack_uint32(&pk, type))
		return -EMSGSIZE;
	for (unsigned i = 0; i < d->n_fields; i++)
		if (pack_field(&pk, d->fields[i].type, (const char *)message + d->fields[i].offset))
			return -EMSGSIZE;
	return (int)sink.length;
}

/* --- decoding ------------------------------------------------------------------------------------------------------ */

/* Reads msgpack strictly and without allocating; the first fault stays in `why`. */
struct cursor {
	const uint8_t *at, *end;
	struct ipc_arena *arena;
	const char *why;
	const char *field;        /* being read */
};

/* What one head says: a scalar's value, or the length or count of what follows. */
enum kind {
	KIND_NONE, KIND_UINT, KIND_NEGATIVE, KIND_NIL, KIND_BOOL, KIND_STR, KIND_BIN, KIND_ARRAY, KIND_MAP, KIND_OTHER
};
struct head {
	enum kind kind;
	uint64_t value;           /* KIND_NEGATIVE: two's complement; KIND_OTHER: bytes of body (ext type, float) */
};

static bool fault(struct cursor *c, const char *why)
{
	if (!c->why)
		c->why = why;
	return false;
}

static size_t left(const struct cursor *c)
{
	return (size_t)(c->end - c->at);
}

static bool read_be(struct cursor *c, unsigned bytes, uint64_t *value)
{
	if (left(c) < bytes)
		return fault(c, "truncated");
	*value = 0;
	for (unsigned i = 0; i < bytes; i++)
		*value = *value << 8 | *c->at++;
	return true;
}

/* The heads 0xc0...0xdf: `width` bytes of value or length follow. */
static const struct { uint8_t kind, width; } heads[32] = {
	[0x00] = {KIND_NIL, 0},
	[0x02] = {KIND_BOOL, 0}, [0x03] = {KIND_BOOL, 0},
	[0x04] = {KIND_BIN, 1}, [0x05] = {KIND_BIN, 2}, [0x06] = {KIND_BIN, 4},
	[0x07] = {KIND_OTHER, 1}, [0x08] = {KIND_OTHER, 2}, [0x09] = {KIND_OTHER, 4},   /* ext: + 1 of type */
	[0x0a] = {KIND_OTHER, 0}, [0x0b] = {KIND_OTHER, 0},                             /* float, double */
	[0x0c] = {KIND_UINT, 1}, [0x0d] = {KIND_UINT, 2}, [0x0e] = {KIND_UINT, 4}, [0x0f] = {KIND_UINT, 8},
	[0x10] = {KIND_NEGATIVE, 1}, [0x11] = {KIND_NEGATIVE, 2}, [0x12] = {KIND_NEGATIVE, 4},
	[0x13] = {KIND_NEGATIVE, 8},
	[0x14] = {KIND_OTHER, 0}, [0x15] = {KIND_OTHER, 0}, [0x16] = {KIND_OTHER, 0}, [0x17] = {KIND_OTHER, 0},
	[0x18] = {KIND_OTHER, 0},                                                       /* fixext 1...16 */
	[0x19] = {KIND_STR, 1}, [0x1a] = {KIND_STR, 2}, [0x1b] = {KIND_STR, 4},
	[0x1c] = {KIND_ARRAY, 2}, [0x1d] = {KIND_ARRAY, 4},
	[0x1e] = {KIND_MAP, 2}, [0x1f] = {KIND_MAP, 4},
};

/* Body bytes of floats and extensions after their head. */
static uint64_t other_body(uint8_t byte, uint64_t length)
{
	if (byte <= 0xc9)
		return length + 1;
	if (byte <= 0xcb)
		return byte == 0xca ? 4 : 8;
	return (UINT64_C(1) << (byte - 0xd4)) + 1;
}

static bool read_wide_head(struct cursor *c, uint8_t byte, struct head *head)
{
	head->kind = heads[byte - 0xc0].kind;
	unsigned width = heads[byte - 0xc0].width;
	if (head->kind == KIND_NONE)
		return fault(c, "a byte that msgpack does not use");
	if (!read_be(c, width, &head->value))
		return false;
	if (head->kind == KIND_BOOL)
		head->value = byte & 1;
	if (head->kind == KIND_OTHER)
		head->value = other_body(byte, head->value);
	if (head->kind == KIND_NEGATIVE) {      /* signed forms: sign-extend; those not below zero are plain numbers */
		if (width < 8 && head->value >> (width * 8 - 1))
			head->value |= UINT64_MAX << (width * 8);
		if (!(head->value >> 63))
			head->kind = KIND_UINT;
	}
	return true;
}

/* Also sees to it that what the head announces can be there at all: every member takes a byte at least. */
static bool read_head(struct cursor *c, struct head *head)
{
	if (!left(c))
		return fault(c, "truncated");
	uint8_t byte = *c->at++;
	*head = (struct head){.kind = KIND_UINT, .value = byte};
	if (byte >= 0xe0)
		*head = (struct head){.kind = KIND_NEGATIVE, .value = UINT64_MAX << 8 | byte};
	else if (byte >= 0xc0) {
		if (!read_wide_head(c, byte, head))
			return false;
	} else if (byte >= 0xa0)
		*head = (struct head){.kind = KIND_STR, .value = byte & 0x1f};
	else if (byte >= 0x90)
		*head = (struct head){.kind = KIND_ARRAY, .value = byte & 0x0f};
	else if (byte >= 0x80)
		*head = (struct head){.kind = KIND_MAP, .value = byte & 0x0f};
	if (head->kind >= KIND_STR && head->value > left(c))
		return fault(c, "truncated");
	return true;
}

static bool skip(struct cursor *c, unsigned depth)
{
	struct head head;
	if (depth > DEPTH_MAX)
		return fault(c, "nested too deeply");
	if (!read_head(c, &head))
		return false;
	if (head.kind == KIND_STR || head.kind == KIND_BIN || head.kind == KIND_OTHER)
		c->at += head.value;
	if (head.kind != KIND_ARRAY && head.kind != KIND_MAP)
		return true;
	for (uint64_t n = head.kind == KIND_MAP ? head.value * 2 : head.value; n; n--)
		if (!skip(c, depth + 1))
			return false;
	return true;
}

static bool read_number(struct cursor *c, uint64_t max, uint64_t *value)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_UINT)
		return fault(c, head.kind == KIND_NEGATIVE ? "negative number" : "wrong type, number expected");
	if (head.value > max)
		return fault(c, "number out of range");
	*value = head.value;
	return true;
}

static bool read_signed(struct cursor *c, int64_t *value)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_UINT && head.kind != KIND_NEGATIVE)
		return fault(c, "wrong type, number expected");
	if (head.kind == KIND_UINT && head.value > INT64_MAX)
		return fault(c, "number out of range");
	*value = (int64_t)head.value;
	return true;
}

static bool read_bool(struct cursor *c, bool *value)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_BOOL)
		return fault(c, "wrong type, boolean expected");
	*value = head.value;
	return true;
}

static bool copy_str(struct cursor *c, size_t length, const char **value)
{
	if (memchr(c->at, 0, length))
		return fault(c, "NUL in a string");
	char *s = arena_take(c->arena, length + 1, 1);
	if (!s)
		return fault(c, "too large decoded");
	memcpy(s, c->at, length);
	s[length] = '\0';
	c->at += length;
	*value = s;
	return true;
}

static bool read_str(struct cursor *c, bool nil_allowed, const char **value)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind == KIND_NIL && nil_allowed)
		return true;
	if (head.kind != KIND_STR)
		return fault(c, "wrong type, string expected");
	return copy_str(c, head.value, value);
}

static bool read_bytes(struct cursor *c, struct ipc_bytes *value)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_BIN)
		return fault(c, "wrong type, bytes expected");
	uint8_t *data = arena_take(c->arena, head.value, 1);
	if (!data)
		return fault(c, "too large decoded");
	memcpy(data, c->at, head.value);
	c->at += head.value;
	*value = (struct ipc_bytes){.data = data, .length = head.value};
	return true;
}

/* A list's head, and room for its members (NULL when it is empty). */
static bool read_list(struct cursor *c, size_t member, void **v, size_t *n)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_ARRAY)
		return fault(c, "wrong type, list expected");
	if (head.value > LIST_MAX)
		return fault(c, "list too long");
	*n = head.value;
	*v = NULL;
	if (*n && !(*v = arena_take(c->arena, *n * member, alignof(void *))))
		return fault(c, "too large decoded");
	return true;
}

static bool read_strs(struct cursor *c, struct ipc_strs *value)
{
	void *v;
	size_t n;
	if (!read_list(c, sizeof(char *), &v, &n))
		return false;
	*value = (struct ipc_strs){.v = v, .n = n};
	for (size_t i = 0; i < n; i++)
		if (!read_str(c, false, &value->v[i]))
			return false;
	return true;
}

static bool read_pair(struct cursor *c, struct ipc_pair *pair)
{
	struct head head;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_ARRAY || head.value != 2)
		return fault(c, "wrong type, pair expected");
	return read_str(c, false, &pair->name) && read_str(c, false, &pair->value);
}

static bool read_pairs(struct cursor *c, struct ipc_pairs *value)
{
	void *v;
	size_t n;
	if (!read_list(c, sizeof(struct ipc_pair), &v, &n))
		return false;
	*value = (struct ipc_pairs){.v = v, .n = n};
	for (size_t i = 0; i < n; i++)
		if (!read_pair(c, &value->v[i]))
			return false;
	return true;
}

static bool read_field(struct cursor *c, enum ipc_field_type type, void *member)
{
	uint64_t number = 0;
	switch (type) {
	case IPC_U32:
		if (!read_number(c, UINT32_MAX, &number))
			return false;
		*(uint32_t *)member = (uint32_t)number;
		return true;
	case IPC_U64: return read_number(c, UINT64_MAX, member);
	case IPC_I64: return read_signed(c, member);
	case IPC_BOOL: return read_bool(c, member);
	case IPC_STR: return read_str(c, true, member);
	case IPC_BYTES: return read_bytes(c, member);
	case IPC_STRS: return read_strs(c, member);
	case IPC_PAIRS: return read_pairs(c, member);
	}
	return fault(c, "unknown field type");
}

static bool read_message(struct cursor *c, void *out, unsigned *type)
{
	struct head head;
	uint64_t number = 0;
	if (!read_head(c, &head))
		return false;
	if (head.kind != KIND_ARRAY || !head.value)
		return fault(c, "not a message");
	if (!read_number(c, UINT32_MAX, &number))
		return false;
	const struct ipc_description *d = ipc_describe((unsigned)number);
	if (!d)
		return fault(c, "unknown message");
	*type = (unsigned)number;
	memset(out, 0, d->size);
	for (uint64_t i = 0; i + 1 < head.value; i++) {
		const struct ipc_field *f = i < d->n_fields ? &d->fields[i] : NULL;
		c->field = f ? f->name : "a field unknown here";
		if (!(f ? read_field(c, f->type, (char *)out + f->offset) : skip(c, 0)))
			return false;
	}
	c->field = NULL;
	return left(c) ? fault(c, "trailing bytes") : true;
}

int ipc_decode(const uint8_t *data, size_t length, struct ipc_arena *arena, void *out, const char **why)
{
	struct cursor c = {.at = data, .end = data + length, .arena = arena};
	unsigned type = 0;
	arena->used = 0;
	if (length > IPC_MESSAGE_MAX)
		fault(&c, "over 64 KiB");
	else if (read_message(&c, out, &type))
		return (int)type;
	static char text[96];     /* one event loop per process: good until the next fault */
	snprintf(text, sizeof(text), "%s%s%s", c.field ? c.field : "", c.field ? ": " : "", c.why);
	*why = text;
	return -EBADMSG;
}

unsigned ipc_peek_type(const uint8_t *data, size_t length)
{
	struct cursor c = {.at = data, .end = data + length};
	struct head head;
	uint64_t type = 0;
	if (!read_head(&c, &head) || head.kind != KIND_ARRAY || !read_number(&c, UINT32_MAX, &type))
		return IPC_MSG_COUNT;
	return (unsigned)type;
}
