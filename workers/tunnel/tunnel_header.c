/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/tunnel_header.h"

#include <string.h>

#include "workers/tunnel/sf.h"

static const char digits[] = "0123456789abcdef";

static bool read_id(const struct sf_item *item, struct tunnel_header *out)
{
	if (item->kind != SF_STRING || item->length != 2 * TUNNEL_ID)
		return false;
	for (unsigned i = 0; i < TUNNEL_ID; i++) {
		const char *high = memchr(digits, item->text[2 * i], 16), *low = memchr(digits, item->text[2 * i + 1], 16);
		if (!high || !low)
			return false;
		out->id[i] = (uint8_t)((high - digits) << 4 | (low - digits));
	}
	out->has_id = true;
	return true;
}

static bool member(void *arg, const char *name, size_t n, const struct sf_item *item)
{
	struct tunnel_header *out = arg;
	if (sf_key_is(name, n, "segments")) {
		out->segments = item->number != 0;
		return item->kind == SF_BOOLEAN;
	}
	if (sf_key_is(name, n, "stream")) {
		out->stream = item->number != 0;
		return item->kind == SF_BOOLEAN;
	}
	if (sf_key_is(name, n, "joined")) {
		out->joined = item->number != 0;
		return item->kind == SF_BOOLEAN;
	}
	if (sf_key_is(name, n, "received")) {
		out->received = item->number;
		return item->kind == SF_INTEGER;
	}
	if (sf_key_is(name, n, "from")) {
		out->from = item->number;
		return item->kind == SF_INTEGER;
	}
	return !sf_key_is(name, n, "id") || read_id(item, out);
}

void tunnel_header_get(const struct head *head, struct tunnel_header *out)
{
	*out = (struct tunnel_header){0};
	if (sf_dictionary(head, TUNNEL_HEADER, member, out))
		out->present = true, out->from = out->joined ? out->from : 0;
	else
		*out = (struct tunnel_header){0};
}

void tunnel_header_set(struct head *head, const struct tunnel_header *header)
{
	char value[160], id[2 * TUNNEL_ID + 1] = "";
	struct sf_writer writer = {value, sizeof(value), 0};
	for (unsigned i = 0; i < TUNNEL_ID; i++) {
		id[2 * i] = digits[header->id[i] >> 4];
		id[2 * i + 1] = digits[header->id[i] & 15];
	}
	if (header->segments)
		sf_put_true(&writer, "segments");
	if (header->stream)
		sf_put_true(&writer, "stream");
	if (header->has_id)
		sf_put_string(&writer, "id", id);
	sf_put_integer(&writer, "received", header->received);
	if (header->joined) {
		sf_put_true(&writer, "joined");
		sf_put_integer(&writer, "from", header->from);
	}
	head_set(head, TUNNEL_HEADER, value);
}
