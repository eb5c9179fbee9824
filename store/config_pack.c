/* SPDX-License-Identifier: Apache-2.0 */
/* The packed form: ["hermes-config", FORMAT, object]; an object is an array of its fields in the order of its table. */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config_schema.h"

#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

static void pack_object(msgpack_packer *pk, const struct config_object *object, const char *base);

static void pack_text(msgpack_packer *pk, const char *text)
{
	if (!text) {
		msgpack_pack_nil(pk);
		return;
	}
	size_t length = strlen(text);
	msgpack_pack_str(pk, length);
	msgpack_pack_str_body(pk, text, length);
}

static void pack_strs(msgpack_packer *pk, const struct config_strs *strs)
{
	msgpack_pack_array(pk, strs->n);
	for (size_t i = 0; i < strs->n; i++)
		pack_text(pk, strs->v[i]);
}

static void pack_pairs(msgpack_packer *pk, const struct config_pairs *pairs)
{
	msgpack_pack_array(pk, pairs->n * 2);
	for (size_t i = 0; i < pairs->n; i++) {
		pack_text(pk, pairs->v[i].name);
		pack_text(pk, pairs->v[i].value);
	}
}

static void pack_address(msgpack_packer *pk, const struct config_address *address)
{
	msgpack_pack_array(pk, 4);
	pack_text(pk, address->text);
	pack_text(pk, address->host);
	msgpack_pack_uint16(pk, address->port);
	pack_text(pk, address->unix_path);
}

/* 17 bytes: address, bits */
static void pack_prefix(msgpack_packer *pk, const struct config_prefix *prefix)
{
	msgpack_pack_bin(pk, 17);
	msgpack_pack_bin_body(pk, &prefix->address, 16);
	msgpack_pack_bin_body(pk, &prefix->bits, 1);
}

static void pack_prefixes(msgpack_packer *pk, const struct config_prefixes *prefixes)
{
	msgpack_pack_array(pk, prefixes->n);
	for (size_t i = 0; i < prefixes->n; i++)
		pack_prefix(pk, &prefixes->v[i]);
}

static void pack_offsets(msgpack_packer *pk, const struct config_offset *v, size_t n)
{
	msgpack_pack_array(pk, n * 2);
	for (size_t i = 0; i < n; i++) {
		msgpack_pack_int64(pk, v[i].from);
		msgpack_pack_int32(pk, v[i].seconds);
	}
}

static void pack_list(msgpack_packer *pk, const struct config_field *f, const char *base)
{
	const char *v = *(char *const *)(base + f->offset);
	size_t n = *(const size_t *)(base + f->count_offset);

	msgpack_pack_array(pk, n);
	for (size_t i = 0; i < n; i++)
		pack_object(pk, f->object, v + i * f->object->size);
}

static void pack_field(msgpack_packer *pk, const struct config_field *f, const char *base)
{
	const void *at = base + f->offset;

	switch (f->storage) {
	case S_STR: pack_text(pk, *(char *const *)at); break;
	case S_BOOL: *(const bool *)at ? msgpack_pack_true(pk) : msgpack_pack_false(pk); break;
	case S_U8: msgpack_pack_uint8(pk, *(const uint8_t *)at); break;
	case S_U16: msgpack_pack_uint16(pk, *(const uint16_t *)at); break;
	case S_U32: msgpack_pack_uint32(pk, *(const uint32_t *)at); break;
	case S_U64: msgpack_pack_uint64(pk, *(const uint64_t *)at); break;
	case S_STRS: pack_strs(pk, at); break;
	case S_PAIRS: pack_pairs(pk, at); break;
	case S_ADDRESS: pack_address(pk, at); break;
	case S_PREFIX: pack_prefix(pk, at); break;
	case S_PREFIXES: pack_prefixes(pk, at); break;
	case S_OFFSETS: pack_offsets(pk, *(struct config_offset *const *)at, *(const size_t *)(base + f->count_offset)); break;
	case S_OBJECT: pack_object(pk, f->object, at); break;
	case S_LIST: pack_list(pk, f, base); break;
	case S_GROUP: pack_object(pk, f->object, base); break;
	case S_NONE: break;
	}
}

static void pack_object(msgpack_packer *pk, const struct config_object *object, const char *base)
{
	msgpack_pack_array(pk, config_packed_fields(object));
	for (unsigned i = 0; i < object->n_fields; i++)
		pack_field(pk, &object->fields[i], base);
}

unsigned config_packed_fields(const struct config_object *object)
{
	unsigned n = 0;

	for (unsigned i = 0; i < object->n_fields; i++)
		n += object->fields[i].storage != S_NONE;
	return n;
}

struct growing {
	uint8_t *data;
	size_t length, size;
	bool failed;              /* checked once, at the end */
};

static int grow_write(void *arg, const char *data, size_t length)
{
	struct growing *g = arg;

	if (g->failed)
		return -1;
	if (length > g->size - g->length) {
		size_t size = (g->size + length) * 2 + 4096;
		uint8_t *p = realloc(g->data, size);
		g->failed = !p;
		if (!p)
			return -1;
		g->data = p;
		g->size = size;
	}
	memcpy(g->data + g->length, data, length);
	g->length += length;
	return 0;
}

int config_pack(const struct config *config, uint8_t **data, size_t *length)
{
	struct growing g = {0};
	msgpack_packer pk;

	msgpack_packer_init(&pk, &g, grow_write);
	msgpack_pack_array(&pk, 3);
	pack_text(&pk, CONFIG_PACK_MAGIC);
	msgpack_pack_uint32(&pk, CONFIG_PACK_FORMAT);
	pack_object(&pk, &config_document, (const char *)config);
	*data = NULL;
	*length = 0;
	if (g.failed) {
		free(g.data);
		return -ENOMEM;
	}
	*data = g.data;
	*length = g.length;
	return 0;
}
