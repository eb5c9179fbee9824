/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/tunnel_header.h"

#include <stdio.h>
#include <string.h>

#define VALUE_MAX 2048u       /* bytes of all lines of the field that are looked at */
#define DIGITS_MAX 18         /* RFC 8941 stops at 15, a petabyte; we go on where only our own ends read it */

/* --- RFC 8941 dictionaries: no further than needed to pass over what we do not know -------------------------------------- */

enum kind { BOOLEAN, INTEGER, STRING, OTHER };
struct item { enum kind kind; uint64_t number; const char *text; size_t length; };

static bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return is_lower((char)(c | 0x20)); }

static void skip(const char **at, const char *blanks)
{
	*at += strspn(*at, blanks);
}

/* 3.1.2. Returns the key's length, 0: there is none. */
static size_t key(const char **at)
{
	const char *start = *at;
	if (!is_lower(*start) && *start != '*')
		return 0;
	while (is_lower(**at) || is_digit(**at) || (**at && strchr("_-.*", **at)))
		++*at;
	return (size_t)(*at - start);
}

/* 3.3.1, 3.3.2. A sign or a fraction makes it something that no member of ours is. */
static bool number(const char **at, struct item *item)
{
	unsigned digits = 0;
	*item = (struct item){.kind = INTEGER};
	if (**at == '-') {
		item->kind = OTHER;
		++*at;
	}
	for (; is_digit(**at); ++*at) {
		item->number = item->number * 10 + (unsigned)(**at - '0');
		if (++digits > DIGITS_MAX)
			return false;
	}
	if (digits > 0 && **at == '.' && is_digit((*at)[1])) {
		item->kind = OTHER;
		++*at;
		while (is_digit(**at))
			++*at;
	}
	return digits > 0;
}

/* 3.3.3 */
static bool string(const char **at, struct item *item)
{
	*item = (struct item){.kind = STRING, .text = ++*at};
	for (; **at != '"'; ++*at) {
		if (**at == '\\' && *++*at != '"' && **at != '\\')
			return false;
		if (**at < ' ' || **at > '~')
			return false;
	}
	item->length = (size_t)(*at - item->text);
	++*at;
	return true;
}

static bool boolean(const char **at, struct item *item)
{
	*item = (struct item){.kind = BOOLEAN, .number = (*at)[1] == '1'};
	if ((*at)[1] != '0' && (*at)[1] != '1')
		return false;
	*at += 2;
	return true;
}

/* Tokens (3.3.4) and byte sequences (3.3.5) */
static bool other(const char **at, struct item *item)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
	*item = (struct item){.kind = OTHER};
	if (**at == ':') {
		++*at;
		skip(at, base64);
		return *(*at)++ == ':';
	}
	if (!is_alpha(**at) && **at != '*')
		return false;
	while (is_alpha(**at) || is_digit(**at) || (**at && strchr("!#$%&'*+-.^_`|~:/", **at)))
		++*at;
	return true;
}

static bool bare_item(const char **at, struct item *item)
{
	if (**at == '"')
		return string(at, item);
	if (**at == '?')
		return boolean(at, item);
	return is_digit(**at) || **at == '-' ? number(at, item) : other(at, item);
}

/* 3.1.2: none of ours has any, all are passed over. */
static bool parameters(const char **at)
{
	struct item unused;
	while (**at == ';') {
		++*at;
		skip(at, " ");
		if (key(at) == 0)
			return false;
		if (**at == '=' && (++*at, !bare_item(at, &unused)))
			return false;
	}
	return true;
}

/* 3.1.1 */
static bool inner_list(const char **at, struct item *item)
{
	struct item unused;
	*item = (struct item){.kind = OTHER};
	++*at;
	for (;;) {
		skip(at, " ");
		if (**at == ')') {
			++*at;
			return true;
		}
		if (!bare_item(at, &unused) || !parameters(at) || (**at != ' ' && **at != ')'))
			return false;
	}
}

static bool member_value(const char **at, struct item *item)
{
	*item = (struct item){.kind = BOOLEAN, .number = 1};
	if (**at == '=') {
		++*at;
		if (!(**at == '(' ? inner_list(at, item) : bare_item(at, item)))
			return false;
	}
	return parameters(at);
}

/* --- the field ------------------------------------------------------------------------------------------------------------ */

static bool read_id(const struct item *item, struct tunnel_header *out)
{
	static const char digits[] = "0123456789abcdef";
	if (item->kind != STRING || item->length != 2 * TUNNEL_ID)
		return false;
	for (unsigned i = 0; i < TUNNEL_ID; i++) {
		const char *high = strchr(digits, item->text[2 * i]), *low = strchr(digits, item->text[2 * i + 1]);
		if (!high || !low)
			return false;
		out->id[i] = (uint8_t)((high - digits) << 4 | (low - digits));
	}
	out->has_id = true;
	return true;
}

static bool member(const char *name, size_t n, const struct item *item, struct tunnel_header *out)
{
	if (n == 8 && memcmp(name, "segments", n) == 0) {
		out->segments = item->number != 0;
		return item->kind == BOOLEAN;
	}
	if (n == 6 && memcmp(name, "joined", n) == 0) {
		out->joined = item->number != 0;
		return item->kind == BOOLEAN;
	}
	if (n == 8 && memcmp(name, "received", n) == 0) {
		out->received = item->number;
		return item->kind == INTEGER;
	}
	if (n == 4 && memcmp(name, "from", n) == 0) {
		out->from = item->number;
		return item->kind == INTEGER;
	}
	return n != 2 || memcmp(name, "id", n) != 0 || read_id(item, out);
}

/* 4.2.2 */
static bool dictionary(const char *at, struct tunnel_header *out)
{
	struct item item;
	skip(&at, " ");
	while (*at) {
		const char *name = at;
		size_t n = key(&at);
		if (n == 0 || !member_value(&at, &item) || !member(name, n, &item, out))
			return false;
		skip(&at, " \t");
		if (!*at)
			return true;
		if (*at++ != ',')
			return false;
		skip(&at, " \t");
		if (!*at)
			return false;
	}
	return true;
}

/* Several lines are one (4.2). */
static bool joined_lines(const struct head *head, char value[VALUE_MAX])
{
	size_t used = 0;
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		if (strcmp(field->name, TUNNEL_HEADER) != 0)
			continue;
		if (used + field->value_length + 3 > VALUE_MAX || strlen(field->value) != field->value_length)
			return false;
		if (used > 0)
			used = (size_t)(stpcpy(value + used, ", ") - value);
		used = (size_t)(stpcpy(value + used, field->value) - value);
	}
	return used > 0;
}

void tunnel_header_get(const struct head *head, struct tunnel_header *out)
{
	char value[VALUE_MAX];
	*out = (struct tunnel_header){.present = joined_lines(head, value)};
	if (out->present && !dictionary(value, out))
		*out = (struct tunnel_header){0};
}

void tunnel_header_set(struct head *head, const struct tunnel_header *header)
{
	char value[160];
	int n = snprintf(value, sizeof(value), "%s", header->segments ? "segments, " : "");
	if (header->has_id) {
		n += sprintf(value + n, "id=\"");
		for (unsigned i = 0; i < TUNNEL_ID; i++)
			n += sprintf(value + n, "%02x", header->id[i]);
		n += sprintf(value + n, "\", ");
	}
	n += sprintf(value + n, "received=%llu", (unsigned long long)header->received);
	if (header->joined)
		sprintf(value + n, ", joined, from=%llu", (unsigned long long)header->from);
	head_set(head, TUNNEL_HEADER, value);
}
