/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the packed form strictly: every length is checked against what is left before anything is allocated for it, an
 * object needs at least half of its fields (older releases have fewer), and memory is bounded by the input's length. */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config_parser.h"

#include "ipc/memfd.h"

#include <string.h>

#define DEPTH_MAX 16              /* of fields that we do not know and skip */
#define EXPANSION 64              /* bytes in memory per byte of input, at most */

struct reader {
	const uint8_t *at, *end;
	struct config_arena *arena;
	bool bad;
};

static bool read_object(struct reader *r, const struct config_object *object, char *base);

static size_t left(const struct reader *r)
{
	return (size_t)(r->end - r->at);
}

static uint64_t fail(struct reader *r)
{
	r->bad = true;
	r->at = r->end;
	return 0;
}

static uint64_t take(struct reader *r, unsigned bytes)
{
	uint64_t v = 0;

	if (left(r) < bytes)
		return fail(r);
	for (unsigned i = 0; i < bytes; i++)
		v = v << 8 | *r->at++;
	return v;
}

static uint64_t read_uint(struct reader *r, uint64_t max)
{
	uint8_t tag = (uint8_t)take(r, 1);
	uint64_t v = tag < 0x80 ? tag : tag >= 0xcc && tag <= 0xcf ? take(r, 1u << (tag - 0xcc)) : fail(r);

	return v <= max ? v : fail(r);
}

static int64_t read_int(struct reader *r)
{
	uint8_t tag = left(r) ? *r->at : 0;

	if (tag < 0x80 || (tag >= 0xcc && tag <= 0xcf))
		return (int64_t)read_uint(r, INT64_MAX);
	r->at++;
	switch (tag) {
	case 0xd0: return (int8_t)take(r, 1);
	case 0xd1: return (int16_t)take(r, 2);
	case 0xd2: return (int32_t)take(r, 4);
	case 0xd3: return (int64_t)take(r, 8);
	default: return tag >= 0xe0 ? (int8_t)tag : (int64_t)fail(r);
	}
}

static bool read_bool(struct reader *r)
{
	uint64_t tag = take(r, 1);

	return tag == 0xc3 || (tag != 0xc2 && fail(r));
}

/* Array of at least `cost` bytes each. */
static size_t read_array(struct reader *r, size_t cost)
{
	uint8_t tag = (uint8_t)take(r, 1);
	size_t n = (tag & 0xf0) == 0x90 ? tag & 0x0fu : tag == 0xdc ? take(r, 2) : tag == 0xdd ? take(r, 4) : fail(r);

	return n <= left(r) / (cost ? cost : 1) ? n : fail(r);
}

static size_t text_length(struct reader *r)
{
	uint8_t tag = (uint8_t)take(r, 1);
	size_t n = (tag & 0xe0) == 0xa0 ? tag & 0x1fu : tag >= 0xd9 && tag <= 0xdb ? take(r, 1u << (tag - 0xd9)) : fail(r);

	return n <= left(r) ? n : fail(r);
}

static char *read_text(struct reader *r)
{
	if (left(r) && *r->at == 0xc0) {
		r->at++;
		return NULL;
	}
	size_t n = text_length(r);
	if (r->bad || memchr(r->at, 0, n)) {
		fail(r);
		return NULL;
	}
	char *text = config_arena_text(r->arena, (const char *)r->at, n);
	r->at += n;
	return text;
}

/* An element of a list is never nil. */
static char *read_element(struct reader *r)
{
	char *text = read_text(r);

	if (!text)
		fail(r);
	return text;
}

static void *read_vector(struct reader *r, size_t n, size_t size)
{
	void *v = n ? config_arena_alloc(r->arena, n, size) : NULL;

	if (n && !v)
		fail(r);
	return v;
}

static void read_strs(struct reader *r, struct config_strs *strs)
{
	size_t n = read_array(r, 1);

	strs->v = read_vector(r, n, sizeof(*strs->v));
	for (; !r->bad && strs->n < n; strs->n++)
		strs->v[strs->n] = read_element(r);
}

static void read_pairs(struct reader *r, struct config_pairs *pairs)
{
	size_t n = read_array(r, 1);

	if (n % 2)
		fail(r);
	pairs->v = read_vector(r, n / 2, sizeof(*pairs->v));
	for (; !r->bad && pairs->n < n / 2; pairs->n++) {
		pairs->v[pairs->n].name = read_element(r);
		pairs->v[pairs->n].value = read_element(r);
	}
}

static void read_address(struct reader *r, struct config_address *address)
{
	if (read_array(r, 1) != 4)
		fail(r);
	address->text = read_text(r);
	address->host = read_text(r);
	address->port = (uint16_t)read_uint(r, UINT16_MAX);
	address->unix_path = read_text(r);
}

static void read_prefix(struct reader *r, struct config_prefix *prefix)
{
	if (take(r, 2) != 0xc411 || left(r) < 17 || r->at[16] > 128) {   /* bin 8, 17 bytes */
		fail(r);
		return;
	}
	memcpy(&prefix->address, r->at, 16);
	prefix->bits = r->at[16];
	r->at += 17;
}

static void read_prefixes(struct reader *r, struct config_prefixes *prefixes)
{
	size_t n = read_array(r, 19);

	prefixes->v = read_vector(r, n, sizeof(*prefixes->v));
	for (; !r->bad && prefixes->n < n; prefixes->n++)
		read_prefix(r, &prefixes->v[prefixes->n]);
}

static void read_offsets(struct reader *r, struct config_offset **v, size_t *count)
{
	size_t n = read_array(r, 1);

	if (n % 2)
		fail(r);
	*v = read_vector(r, n / 2, sizeof(**v));
	for (; !r->bad && *count < n / 2; (*count)++) {
		int64_t from = read_int(r), seconds = read_int(r);
		if (seconds < -86400 * 2 || seconds > 86400 * 2)
			fail(r);
		(*v)[*count] = (struct config_offset){.from = from, .seconds = (int32_t)seconds};
	}
}

/* Names and the like that every member of a list has: nobody looks whether they are there. */
static void check_member(struct reader *r, const struct config_object *object, const char *base)
{
	for (unsigned i = 0; i < object->n_fields; i++) {
		const struct config_field *f = &object->fields[i];
		bool text = f->storage == S_STR || f->storage == S_ADDRESS;       /* an address begins with its text */
		if ((f->flags & (F_REQUIRED | F_ALWAYS)) && text && !*(char *const *)(const void *)(base + f->offset))
			fail(r);
	}
}

static void read_list(struct reader *r, const struct config_field *f, char *base)
{
	size_t n = read_array(r, 1 + config_packed_fields(f->object) / 2);
	size_t *count = (size_t *)(void *)(base + f->count_offset);
	char *v = read_vector(r, n, f->object->size);

	*(char **)(void *)(base + f->offset) = v;
	for (; !r->bad && *count < n; (*count)++)
		if (read_object(r, f->object, v + *count * f->object->size))
			check_member(r, f->object, v + *count * f->object->size);
}

static uint64_t enum_max(const struct config_field *f)
{
	uint64_t n = 0;

	if (f->form != W_ENUM)
		return UINT32_MAX;
	while (f->names[n])
		n++;
	return n - 1;
}

static void read_field(struct reader *r, const struct config_field *f, char *base)
{
	void *at = base + f->offset;

	switch (f->storage) {
	case S_STR: *(char **)at = read_text(r); break;
	case S_BOOL: *(bool *)at = read_bool(r); break;
	case S_U8: *(uint8_t *)at = (uint8_t)read_uint(r, UINT8_MAX); break;
	case S_U16: *(uint16_t *)at = (uint16_t)read_uint(r, UINT16_MAX); break;
	case S_U32: *(uint32_t *)at = (uint32_t)read_uint(r, enum_max(f)); break;
	case S_U64: *(uint64_t *)at = read_uint(r, UINT64_MAX); break;
	case S_STRS: read_strs(r, at); break;
	case S_PAIRS: read_pairs(r, at); break;
	case S_ADDRESS: read_address(r, at); break;
	case S_PREFIX: read_prefix(r, at); break;
	case S_PREFIXES: read_prefixes(r, at); break;
	case S_OFFSETS: read_offsets(r, at, (size_t *)(void *)(base + f->count_offset)); break;
	case S_OBJECT: read_object(r, f->object, at); break;
	case S_LIST: read_list(r, f, base); break;
	case S_GROUP: read_object(r, f->object, base); break;
	case S_NONE: break;
	}
}

/* A value of a field that a newer release appended. */
static void skip(struct reader *r, unsigned depth)
{
	uint8_t tag = left(r) ? *r->at : 0xc1;
	size_t n = 0;

	if (depth > DEPTH_MAX || tag == 0xc1)
		fail(r);
	else if ((tag & 0xf0) == 0x90 || tag == 0xdc || tag == 0xdd) {
		for (n = read_array(r, 1); n && !r->bad; n--)
			skip(r, depth + 1);
	} else if ((tag & 0xe0) == 0xa0 || (tag >= 0xd9 && tag <= 0xdb)) {
		n = text_length(r);
		r->at += n;
	} else if (tag == 0xc4 || tag == 0xc5 || tag == 0xc6) {
		r->at++;
		n = take(r, 1u << (tag - 0xc4));
		r->at += n <= left(r) ? n : fail(r);
	} else if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3)
		r->at++;
	else
		read_int(r);
}

/* What an older release's packed form lacks has its preset. */
static void read_absent(struct reader *r, const struct config_field *f, char *base)
{
	struct config_parser p = {.arena = r->arena};
	struct yaml_node node = {.kind = YAML_SCALAR, .plain = true, .text = f->preset};

	if (f->preset && f->storage != S_NONE)
		config_value(&p, f, base, &node);
}

static bool read_object(struct reader *r, const struct config_object *object, char *base)
{
	unsigned known = config_packed_fields(object);
	size_t n = read_array(r, 1);

	if (n < known / 2)
		fail(r);
	for (unsigned i = 0; i < object->n_fields && !r->bad; i++) {
		if (object->fields[i].storage == S_NONE)
			continue;
		if (!n) {
			read_absent(r, &object->fields[i], base);
			continue;
		}
		read_field(r, &object->fields[i], base);
		n--;
	}
	for (; n && !r->bad; n--)
		skip(r, 0);
	return !r->bad;
}

struct config *config_unpack(const uint8_t *data, size_t length)
{
	struct config_arena *arena = config_arena_new((length + 1024) * EXPANSION);
	struct config *config = arena ? config_arena_alloc(arena, 1, sizeof(*config)) : NULL;
	struct reader r = {.at = data, .end = data + length, .arena = arena, .bad = !config};

	if (config && read_array(&r, 1) == 3) {
		const char *magic = read_text(&r);
		if (!magic || strcmp(magic, CONFIG_PACK_MAGIC) || read_uint(&r, UINT32_MAX) != CONFIG_PACK_FORMAT)
			fail(&r);
		else
			read_object(&r, &config_document, (char *)config);
	} else {
		fail(&r);
	}
	if (r.bad || left(&r) || config_arena_failed(arena)) {
		config_arena_free(arena);
		return NULL;
	}
	config->arena = arena;
	config_index(config);
	return config;
}

struct config *config_from_memfd(int fd)
{
	const void *data;
	size_t length;

	if (memfd_map(fd, CONFIG_PACK_MAX, &data, &length))
		return NULL;
	struct config *config = data ? config_unpack(data, length) : NULL;
	memfd_unmap(data, length);
	return config;
}
