/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/sf.h"

#include <stdio.h>
#include <string.h>

#define VALUE_MAX 4096u       /* bytes of all lines of a field that are looked at */
#define DIGITS_MAX 18         /* RFC 8941 stops at 15, a petabyte; we go on where only our own ends read it */

/* --- reading --------------------------------------------------------------------------------------------------------------- */

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

/* 3.3.1, 3.3.2 */
static bool number(const char **at, struct sf_item *item)
{
	unsigned digits = 0;
	*item = (struct sf_item){.kind = SF_INTEGER};
	if (**at == '-') {
		item->kind = SF_OTHER;
		++*at;
	}
	for (; is_digit(**at); ++*at) {
		item->number = item->number * 10 + (unsigned)(**at - '0');
		if (++digits > DIGITS_MAX)
			return false;
	}
	if (digits > 0 && **at == '.' && is_digit((*at)[1])) {
		item->kind = SF_OTHER;
		++*at;
		while (is_digit(**at))
			++*at;
	}
	return digits > 0;
}

/* 3.3.3 */
static bool string(const char **at, struct sf_item *item)
{
	*item = (struct sf_item){.kind = SF_STRING, .text = ++*at};
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

static bool boolean(const char **at, struct sf_item *item)
{
	*item = (struct sf_item){.kind = SF_BOOLEAN, .number = (*at)[1] == '1'};
	if ((*at)[1] != '0' && (*at)[1] != '1')
		return false;
	*at += 2;
	return true;
}

/* Tokens (3.3.4) and byte sequences (3.3.5) */
static bool other(const char **at, struct sf_item *item)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
	*item = (struct sf_item){.kind = SF_OTHER};
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

static bool bare_item(const char **at, struct sf_item *item)
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
	struct sf_item unused;
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
static bool inner_list(const char **at, struct sf_item *item)
{
	struct sf_item unused;
	*item = (struct sf_item){.kind = SF_OTHER};
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

static bool member_value(const char **at, struct sf_item *item)
{
	*item = (struct sf_item){.kind = SF_BOOLEAN, .number = 1};
	if (**at == '=') {
		++*at;
		if (!(**at == '(' ? inner_list(at, item) : bare_item(at, item)))
			return false;
	}
	return parameters(at);
}

/* 4.2.2 */
static bool dictionary(const char *at, sf_member *member, void *arg)
{
	struct sf_item item;
	skip(&at, " ");
	while (*at) {
		const char *name = at;
		size_t n = key(&at);
		if (n == 0 || !member_value(&at, &item) || !member(arg, name, n, &item))
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

bool sf_dictionary(const struct head *head, const char *name, sf_member *member, void *arg)
{
	char value[VALUE_MAX];
	size_t used = 0;
	bool found = false;
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		if (strcmp(field->name, name) != 0)
			continue;
		if (used + field->value_length + 3 > VALUE_MAX || strlen(field->value) != field->value_length)
			return false;
		if (used > 0)                 /* several lines are one (4.2) */
			used = (size_t)(stpcpy(value + used, ", ") - value);
		used = (size_t)(stpcpy(value + used, field->value) - value);
		found = true;
	}
	return found && used > 0 && dictionary(value, member, arg);
}

bool sf_key_is(const char *name, size_t length, const char *wanted)
{
	return strlen(wanted) == length && memcmp(name, wanted, length) == 0;
}

bool sf_string(const struct sf_item *item, char *out, size_t size)
{
	size_t n = 0;
	if (item->kind != SF_STRING)
		return false;
	for (size_t i = 0; i < item->length; i++) {
		if (item->text[i] == '\\')
			i++;
		if (n + 1 >= size)
			return false;
		out[n++] = item->text[i];
	}
	out[n] = '\0';
	return true;
}

/* --- writing --------------------------------------------------------------------------------------------------------------- */

static size_t begin(const struct sf_writer *w, const char *member_key, size_t value)
{
	size_t need = (w->length ? 2 : 0) + strlen(member_key) + value;
	return w->length + need < w->size ? need : 0;
}

static void put(struct sf_writer *w, const char *text)
{
	w->length = (size_t)(stpcpy(w->text + w->length, text) - w->text);
}

static void put_key(struct sf_writer *w, const char *member_key)
{
	if (w->length)
		put(w, ", ");
	put(w, member_key);
}

void sf_put_string(struct sf_writer *w, const char *member_key, const char *value)
{
	if (!value || !begin(w, member_key, 2 * strlen(value) + 3))
		return;
	put_key(w, member_key);
	put(w, "=\"");
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			w->text[w->length++] = '\\';
		w->text[w->length++] = *value >= ' ' && *value <= '~' ? *value : '?';
	}
	w->text[w->length] = '\0';
	put(w, "\"");
}

void sf_put_integer(struct sf_writer *w, const char *member_key, uint64_t value)
{
	char digits[24];
	snprintf(digits, sizeof(digits), "=%llu", (unsigned long long)value);
	if (!begin(w, member_key, strlen(digits)))
		return;
	put_key(w, member_key);
	put(w, digits);
}

void sf_put_true(struct sf_writer *w, const char *member_key)
{
	if (begin(w, member_key, 0))
		put_key(w, member_key);
}
