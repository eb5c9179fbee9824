#include "ipc/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 63u

void json_free(struct json *j)
{
	free(j->data);
	*j = (struct json)JSON_INIT;
}

static void put(struct json *j, const char *text, size_t length)
{
	if (j->failed)
		return;
	if (j->size - j->length <= length) {
		size_t size = j->size ? j->size : 256;
		while (size - j->length <= length)
			size *= 2;
		char *data = realloc(j->data, size);
		if (!data) {
			j->failed = true;
			return;
		}
		j->data = data;
		j->size = size;
	}
	memcpy(j->data + j->length, text, length);
	j->length += length;
	j->data[j->length] = '\0';
}

/* Length of the valid UTF-8 sequence at s (RFC 3629: no overlong forms, no surrogates, up to U+10FFFF), or 0. */
static size_t utf8_length(const unsigned char *s, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (!length || length > left)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	if (s[0] == 0xed)
		high = 0x9f;
	if (s[0] == 0xf0)
		low = 0x90;
	if (s[0] == 0xf4)
		high = 0x8f;
	for (size_t i = 1; i < length; i++, low = 0x80, high = 0xbf)
		if (s[i] < low || s[i] > high)
			return 0;
	return length;
}

/* What a character that may not stand as it is becomes, or NULL. */
static const char *escape(unsigned char c, char buffer[8])
{
	switch (c) {
	case '"': return "\\\"";
	case '\\': return "\\\\";
	case '\n': return "\\n";
	case '\r': return "\\r";
	case '\t': return "\\t";
	}
	if (c >= 0x20 && c != 0x7f)
		return NULL;
	snprintf(buffer, 8, "\\u%04x", c);
	return buffer;
}

static void put_string(struct json *j, const char *value, size_t length)
{
	const unsigned char *s = (const unsigned char *)value, *end = s + length, *from = s;
	char buffer[8];
	put(j, "\"", 1);
	while (s < end) {
		size_t n = utf8_length(s, (size_t)(end - s));
		const char *escaped = n == 0 ? "\xef\xbf\xbd" : n == 1 ? escape(*s, buffer) : NULL;
		if (escaped) {
			put(j, (const char *)from, (size_t)(s - from));
			put(j, escaped, strlen(escaped));
			from = s + 1;
		}
		s += n ? n : 1;
	}
	put(j, (const char *)from, (size_t)(s - from));
	put(j, "\"", 1);
}

/* The comma and the key before a value. */
static void begin(struct json *j, const char *key)
{
	uint64_t bit = UINT64_C(1) << j->depth;
	if (j->comma & bit)
		put(j, ",", 1);
	j->comma |= bit;
	if (key) {
		put_string(j, key, strlen(key));
		put(j, ":", 1);
	}
}

static void open_nested(struct json *j, const char *key, bool array)
{
	begin(j, key);
	if (j->depth == DEPTH_MAX)
		j->failed = true;
	if (j->failed)
		return;
	put(j, array ? "[" : "{", 1);
	j->depth++;
	uint64_t bit = UINT64_C(1) << j->depth;
	j->comma &= ~bit;
	j->arrays = array ? j->arrays | bit : j->arrays & ~bit;
}

void json_begin_object(struct json *j, const char *key)
{
	open_nested(j, key, false);
}

void json_begin_array(struct json *j, const char *key)
{
	open_nested(j, key, true);
}

void json_end(struct json *j)
{
	if (j->failed || !j->depth)
		return;
	put(j, j->arrays & UINT64_C(1) << j->depth ? "]" : "}", 1);
	j->depth--;
}

void json_raw(struct json *j, const char *key, const char *json)
{
	begin(j, key);
	json = json && *json ? json : "null";
	put(j, json, strlen(json));
}

void json_str_n(struct json *j, const char *key, const char *value, size_t length)
{
	if (!value) {
		json_raw(j, key, NULL);
		return;
	}
	begin(j, key);
	put_string(j, value, length);
}

void json_str(struct json *j, const char *key, const char *value)
{
	json_str_n(j, key, value, value ? strlen(value) : 0);
}

void json_int(struct json *j, const char *key, int64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRId64, value);
	json_raw(j, key, text);
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, value);
	json_raw(j, key, text);
}

/* The shortest text that reads back as the same number; JSON has no infinities: null. */
void json_double(struct json *j, const char *key, double value)
{
	char text[40];
	if (!isfinite(value)) {
		json_raw(j, key, NULL);
		return;
	}
	snprintf(text, sizeof(text), "%.15g", value);
	if (strtod(text, NULL) != value)
		snprintf(text, sizeof(text), "%.17g", value);
	json_raw(j, key, text);
}

void json_bool(struct json *j, const char *key, bool value)
{
	json_raw(j, key, value ? "true" : "false");
}
