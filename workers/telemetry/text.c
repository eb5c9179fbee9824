#include "workers/telemetry/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_free(struct text *text)
{
	free(text->data);
	*text = (struct text){0};
}

void text_clear(struct text *text)
{
	text->length = 0;
	text->failed = false;
	if (text->data)
		text->data[0] = '\0';
}

/* Room for length bytes and a NUL. */
static bool reserve(struct text *text, size_t length)
{
	size_t size = text->size ? text->size : 512;
	if (text->failed)
		return false;
	while (size - text->length <= length)
		size *= 2;
	if (size == text->size)
		return true;
	char *data = realloc(text->data, size);
	if (!data) {
		text->failed = true;
		return false;
	}
	text->data = data;
	text->size = size;
	return true;
}

void text_put(struct text *text, const char *data, size_t length)
{
	if (!reserve(text, length))
		return;
	memcpy(text->data + text->length, data, length);
	text->length += length;
	text->data[text->length] = '\0';
}

void text_puts(struct text *text, const char *string)
{
	text_put(text, string, strlen(string));
}

void text_printf(struct text *text, const char *format, ...)
{
	va_list args;
	if (!reserve(text, 255))
		return;
	size_t room = text->size - text->length;
	va_start(args, format);
	int n = vsnprintf(text->data + text->length, room, format, args);
	va_end(args);
	if (n < 0)
		return;
	if ((size_t)n >= room) {
		if (!reserve(text, (size_t)n))
			return;
		va_start(args, format);
		vsnprintf(text->data + text->length, (size_t)n + 1, format, args);
		va_end(args);
	}
	text->length += (size_t)n;
}

size_t text_utf8(const char *s, size_t left, uint32_t *character)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned char first = (unsigned char)s[0];
	size_t length = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf8 ? 4 : 0;
	if (!length || length > left)
		return 0;
	uint32_t c = length == 1 ? first : first & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | ((unsigned char)s[i] & 0x3f);
	}
	if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*character = c;
	return length;
}

bool text_is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0x200e || c == 0x200f ||
	       (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

static void put_hex(struct text *text, const char *prefix, const char *s, size_t length)
{
	for (size_t i = 0; i < length; i++)
		text_printf(text, "%s%02x", prefix, (unsigned char)s[i]);
}

static const char *short_escape(uint32_t c)
{
	switch (c) {
	case '"': return "\\\"";
	case '\\': return "\\\\";
	case '\n': return "\\n";
	case '\r': return "\\r";
	case '\t': return "\\t";
	}
	return NULL;
}

/* Without blanks, quotes and anything else that a reader of key=value would stumble over. */
static bool is_bare(const char *value)
{
	if (!*value)
		return false;
	for (const char *s = value; *s; s++)
		if (*s <= ' ' || *s >= 0x7f || *s == '"' || *s == '\\' || *s == '=')
			return false;
	return true;
}

void text_logfmt(struct text *text, const char *value)
{
	if (is_bare(value)) {
		text_puts(text, value);
		return;
	}
	text_put(text, "\"", 1);
	for (size_t left = strlen(value), n; left; value += n, left -= n) {
		uint32_t c = 0;
		n = text_utf8(value, left, &c);
		const char *escape = n ? short_escape(c) : NULL;
		if (escape)
			text_puts(text, escape);
		else if (n && !text_is_control(c))
			text_put(text, value, n);
		else
			put_hex(text, "\\x", value, n = n ? n : 1);
	}
	text_put(text, "\"", 1);
}

void text_label(struct text *text, const char *value)
{
	for (size_t left = strlen(value), n; left; value += n, left -= n) {
		uint32_t c = 0;
		n = text_utf8(value, left, &c);
		if (n && (c == '"' || c == '\\' || c == '\n'))
			text_puts(text, short_escape(c));
		else if (n && !text_is_control(c))
			text_put(text, value, n);
		else
			put_hex(text, "\\\\x", value, n = n ? n : 1);
	}
}
