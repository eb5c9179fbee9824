/* SPDX-License-Identifier: Apache-2.0 */
/* Scalars and lists of scalars. */
#include "store/config_address.h"
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TEXT_MAX 8192
#define NAME_MAX_ 63
#define HEADERS_MAX 100

size_t config_count(const struct yaml_node *node)
{
	return node->kind == YAML_SCALAR ? 1 : node->n;
}

void *config_vector(struct config_parser *p, const struct yaml_node *node, size_t n, size_t size)
{
	void *v = n ? config_arena_alloc(p->arena, n, size) : NULL;

	if (n && !v)
		config_error(p, node, "out of memory");
	return v;
}

bool config_scalar(struct config_parser *p, const struct yaml_node *node, const char *expected)
{
	if (node->kind != YAML_SCALAR)
		config_error(p, node, "a %s; expected %s", node->kind == YAML_LIST ? "list" : "map", expected);
	else if (node->null)
		config_error(p, node, "nothing given; expected %s", expected);
	else
		return true;
	return false;
}

/* --- text -------------------------------------------------------------------------------------------------------------- */

static bool printable(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

char *config_value_text(struct config_parser *p, const struct yaml_node *node)
{
	if (!config_scalar(p, node, "a text"))
		return NULL;
	if (!*node->text || strlen(node->text) > TEXT_MAX || !printable(node->text)) {
		config_error(p, node, "%s; expected 1 to %d characters without control characters",
		             *node->text ? "not a usable text" : "an empty text", TEXT_MAX);
		return NULL;
	}
	return config_arena_text(p->arena, node->text, strlen(node->text));
}

static char *value_name(struct config_parser *p, const struct yaml_node *node)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

	if (!config_scalar(p, node, "a name"))
		return NULL;
	size_t n = strlen(node->text);
	if (n && n <= NAME_MAX_ && strspn(node->text, allowed) == n)
		return config_arena_text(p->arena, node->text, n);
	config_error(p, node, "\"%.80s\" is no name; expected 1 to %d letters, digits, '.', '_' or '-'", node->text, NAME_MAX_);
	return NULL;
}

/* crypt(5): $ID$... with nothing that a shadow file could not hold. */
static char *value_secret(struct config_parser *p, const struct yaml_node *node)
{
	if (!config_scalar(p, node, "crypt(5) text"))
		return NULL;
	const char *t = node->text, *second = *t == '$' ? strchr(t + 1, '$') : NULL;
	if (second && second > t + 1 && strlen(second) > 10 && strlen(t) < 512 && printable(t) && !strpbrk(t, " :*!"))
		return config_arena_text(p->arena, t, strlen(t));
	config_error(p, node, "not a hashed password; expected crypt(5) text such as $y$j9T$...: use `mkpasswd` to make it");
	return NULL;
}

/* --- words ------------------------------------------------------------------------------------------------------------- */

static void name_list(const char *const *names, char *out, size_t size)
{
	size_t used = 0;

	*out = '\0';
	for (unsigned i = 0; names[i] && used < size; i++)
		used += (size_t)snprintf(out + used, size - used, "%s%s", !i ? "" : names[i + 1] ? ", " : " or ", names[i]);
}

/* Position in names, or -1 after an error. */
static int value_word(struct config_parser *p, const char *const *names, const struct yaml_node *node)
{
	char expected[256];

	for (int i = 0; node->kind == YAML_SCALAR && !node->null && names[i]; i++)
		if (!strcmp(names[i], node->text))
			return i;
	name_list(names, expected, sizeof(expected));
	if (!config_scalar(p, node, expected))
		return -1;
	config_error(p, node, "\"%.80s\" is not known; expected %s", node->text, expected);
	return -1;
}

static void value_words(struct config_parser *p, const struct config_field *f, uint32_t *bits, const struct yaml_node *node)
{
	if (node->kind == YAML_SCALAR) {
		int i = value_word(p, f->names, node);
		*bits |= i < 0 ? 0 : 1u << i;
		return;
	}
	if (node->kind != YAML_LIST) {
		config_error(p, node, "a map; expected a list");
		return;
	}
	for (const struct yaml_node *k = node->first; k; k = k->next) {
		int i = value_word(p, f->names, k);
		*bits |= i < 0 ? 0 : 1u << i;
	}
}

static bool value_bool(struct config_parser *p, const struct yaml_node *node, bool *out)
{
	if (!config_scalar(p, node, "true or false"))
		return false;
	*out = !strcmp(node->text, "true");
	if (node->plain && (*out || !strcmp(node->text, "false")))
		return true;
	config_error(p, node, "\"%.80s\" is neither; expected true or false", node->text);
	return false;
}

/* --- numbers ------------------------------------------------------------------------------------------------------------ */

struct unit { const char *name; uint64_t factor; };
static const struct unit units_none[] = {{"", 1}, {NULL, 0}};
static const struct unit units_size[] = {{"", 1}, {"B", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30},
                                         {"TiB", 1ull << 40}, {NULL, 0}};
static const struct unit units_time[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0}};

static bool read_number(const char *text, const struct unit *units, uint64_t *out)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 18)
		return false;
	*out = strtoull(text, NULL, 10);
	if (!*out && !text[digits])               /* 0 needs no unit */
		return true;
	for (; units->name; units++)
		if (!strcmp(units->name, text + digits))
			return !__builtin_mul_overflow(*out, units->factor, out);
	return false;
}

/* The largest unit that leaves a whole number. */
static void write_number(uint64_t value, const struct unit *units, char out[32])
{
	const struct unit *best = units;

	for (const struct unit *u = units; u->name; u++)
		if (value && value % u->factor == 0 && u->factor >= best->factor)
			best = u;
	snprintf(out, 32, "%llu%s", (unsigned long long)(value / best->factor), value ? best->name : "");
}

/* What is right is taken without a word: most values are, and there are many of them. */
static bool value_number(struct config_parser *p, const struct config_field *f, const struct unit *units, const char *what,
                         const struct yaml_node *node, uint64_t *out)
{
	uint64_t max = f->max ? f->max : f->storage == S_U64 ? INT64_MAX : UINT32_MAX;
	char low[32], high[32], expected[160];

	if (node->kind == YAML_SCALAR && !node->null && (units != units_none || node->plain) && read_number(node->text, units, out) &&
	    *out >= f->min && *out <= max)
		return true;
	write_number(f->min, units, low);
	write_number(max, units, high);
	snprintf(expected, sizeof(expected), "%s from %s to %s", what, low, high);
	if (!config_scalar(p, node, expected))
		return false;
	if ((units == units_none && !node->plain) || !read_number(node->text, units, out))
		config_error(p, node, "\"%.80s\" is not %s; expected %s", node->text, what, expected);
	else if (*out < f->min || *out > max)
		config_error(p, node, "%s is out of range; expected %s", node->text, expected);
	else
		return true;
	return false;
}

static void store_number(const struct config_field *f, void *at, uint64_t value)
{
	switch (f->storage) {
	case S_U8: *(uint8_t *)at = (uint8_t)value; break;
	case S_U16: *(uint16_t *)at = (uint16_t)value; break;
	case S_U32: *(uint32_t *)at = (uint32_t)value; break;
	case S_U64: *(uint64_t *)at = value; break;
	default: break;
	}
}

static void value_numeric(struct config_parser *p, const struct config_field *f, void *at, const struct yaml_node *node)
{
	uint64_t v = 0;

	switch (f->form) {
	case W_INT:
		if (value_number(p, f, units_none, "a whole number", node, &v))
			store_number(f, at, v);
		break;
	case W_SIZE:
	case W_MIB:
		if (value_number(p, f, units_size, "a size (KiB, MiB, GiB)", node, &v))
			store_number(f, at, f->form == W_MIB ? (v + (1 << 20) - 1) >> 20 : v);
		break;
	default:
		if (value_number(p, f, units_time, "a duration (ms, s, m, h, d)", node, &v))
			store_number(f, at, f->form == W_SECONDS ? (v + 999) / 1000 : v);
	}
}

/* --- lists of text ------------------------------------------------------------------------------------------------------- */

static void lower(char *text)
{
	for (; text && *text; text++)
		*text = (char)tolower((unsigned char)*text);
}

void config_value_strings(struct config_parser *p, struct config_strs *out, const struct yaml_node *node, bool lowered)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;

	if (node->kind == YAML_MAP) {
		config_error(p, node, "a map; expected a list of texts");
		return;
	}
	out->v = config_vector(p, node, config_count(node), sizeof(*out->v));
	for (; out->v && k; k = node->kind == YAML_LIST ? k->next : NULL) {
		size_t mark = node->kind == YAML_LIST ? config_enter_index(p, out->n) : p->path_length;
		char *text = config_value_text(p, k);
		if (lowered)
			lower(text);
		if (text)
			out->v[out->n++] = text;
		config_leave(p, mark);
	}
}

static void value_some(struct config_parser *p, const struct config_field *f, struct config_strs *out,
                       const struct yaml_node *node)
{
	if (node->kind == YAML_LIST && !node->n && f->form != W_STRINGS)
		config_error(p, node, "an empty list; expected at least one text");
	else
		config_value_strings(p, out, node, f->form == W_LOWER);
}

static void value_prefix(struct config_parser *p, struct config_prefix *out, const struct yaml_node *node)
{
	const char *why;

	if (config_scalar(p, node, "a prefix such as 10.0.0.0/8") && config_prefix_parse(node->text, out, &why))
		config_error(p, node, "\"%.80s\": %s; expected a prefix such as 10.0.0.0/8", node->text, why);
}

void config_value_prefixes(struct config_parser *p, struct config_prefixes *out, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;
	const char *why;

	if (node->kind == YAML_MAP || (node->kind == YAML_LIST && !node->n)) {
		config_error(p, node, "%s; expected a list of prefixes such as 10.0.0.0/8", node->n ? "a map" : "nothing in it");
		return;
	}
	out->v = config_vector(p, node, config_count(node), sizeof(*out->v));
	for (; out->v && k; k = node->kind == YAML_LIST ? k->next : NULL) {
		if (!config_scalar(p, k, "a prefix such as 10.0.0.0/8"))
			continue;
		if (config_prefix_parse(k->text, &out->v[out->n], &why))
			config_error(p, k, "\"%.80s\": %s; expected a prefix such as 10.0.0.0/8", k->text, why);
		else
			out->n++;
	}
}

/* --- headers -------------------------------------------------------------------------------------------------------------- */

/* RFC 9110 5.6.2 */
static bool is_token(const char *text)
{
	size_t n = strlen(text);

	return n && n <= 256 &&
	       strspn(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == n;
}

/* What frames a message, names its target or guards against loops is the proxy's own (RFC 9110 7.6.1, RFC 9113 8.2.2). */
static bool is_reserved(const char *name)
{
	static const char *const reserved[] = {
		"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"transfer-encoding", "upgrade", "host", "content-length", "expect", "http2-settings", "via", "capsule-protocol"};

	for (unsigned i = 0; i < sizeof(reserved) / sizeof(*reserved); i++)
		if (!strcasecmp(name, reserved[i]))
			return true;
	return false;
}

char *config_value_header(struct config_parser *p, const struct yaml_node *node, bool changes)
{
	if (!config_scalar(p, node, "the name of a header"))
		return NULL;
	if (!is_token(node->text)) {
		config_error(p, node, "\"%.80s\" is no header name; expected letters, digits and '-'", node->text);
		return NULL;
	}
	if (changes && is_reserved(node->text)) {
		config_error(p, node, "the header %s is the proxy's own; expected one that is not hop-by-hop, Host or Content-Length",
		             node->text);
		return NULL;
	}
	char *name = config_arena_text(p->arena, node->text, strlen(node->text));
	lower(name);
	return name;
}

static void value_headers(struct config_parser *p, struct config_strs *out, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;

	if (node->kind == YAML_MAP || config_count(node) > HEADERS_MAX) {
		config_error(p, node, "not a list of names; expected at most %d names of headers", HEADERS_MAX);
		return;
	}
	out->v = config_vector(p, node, config_count(node), sizeof(*out->v));
	for (; out->v && k; k = node->kind == YAML_LIST ? k->next : NULL) {
		char *name = config_value_header(p, k, true);
		if (name)
			out->v[out->n++] = name;
	}
}

static char *header_value(struct config_parser *p, const struct yaml_node *node)
{
	if (node->kind == YAML_SCALAR && !node->plain && !*node->text)
		return config_arena_text(p->arena, "", 0);
	if (!config_scalar(p, node, "the header's value"))
		return NULL;
	size_t n = strlen(node->text);
	if (n > TEXT_MAX || !printable(node->text) || strchr(" \t", node->text[0]) || strchr(" \t", node->text[n - 1])) {
		config_error(p, node, "not a header's value; expected at most %d characters without control characters or blanks "
		             "around them", TEXT_MAX);
		return NULL;
	}
	return config_arena_text(p->arena, node->text, n);
}

static bool has_pair(const struct config_pairs *pairs, const char *name)
{
	for (size_t i = 0; i < pairs->n; i++)
		if (!strcmp(pairs->v[i].name, name))
			return true;
	return false;
}

static void value_add_headers(struct config_parser *p, struct config_pairs *out, const struct yaml_node *node)
{
	if (node->kind != YAML_MAP || node->n > HEADERS_MAX) {
		config_error(p, node, "not a map of headers; expected at most %d pairs NAME: VALUE", HEADERS_MAX);
		return;
	}
	out->v = config_vector(p, node, node->n, sizeof(*out->v));
	for (const struct yaml_node *k = node->first; out->v && k; k = k->next) {
		size_t mark = config_enter(p, k->text);
		struct config_pair pair = {.name = config_value_header(p, k, true), .value = header_value(p, k->value)};
		if (pair.name && has_pair(out, pair.name))
			config_error(p, k, "given twice; expected each header once (names compare without case)");
		else if (pair.name && pair.value)
			out->v[out->n++] = pair;
		config_leave(p, mark);
	}
}

/* --- addresses ------------------------------------------------------------------------------------------------------------ */

static void value_address(struct config_parser *p, const struct config_field *f, struct config_address *out,
                          const struct yaml_node *node)
{
	const char *why = NULL;
	const char *expected = f->form == W_LISTEN ? "ADDRESS:PORT, [V6]:PORT, :PORT or unix:/PATH"
	                       : f->form == W_TARGET ? "HOST:PORT" : "HOST:PORT or unix:/PATH";

	if (!config_scalar(p, node, expected))
		return;
	if (p->relative && !strncmp(node->text, "unix:", 5)) {
		out->text = config_arena_text(p->arena, node->text, strlen(node->text));
		out->unix_path = config_arena_text(p->arena, node->text + 5, strlen(node->text + 5));
		return;
	}
	if (!config_address_parse(node->text, true, p->arena, out, &why)) {
		if (f->form == W_LISTEN && !out->unix_path && *out->host && !config_address_is_literal(out))
			why = "a name, not an address";
		else if (f->form != W_LISTEN && !out->unix_path && !*out->host)
			why = "the host is missing";
		else if (f->form == W_TARGET && out->unix_path)
			why = "a Unix socket cannot be asked for";
		else
			return;
	}
	config_error(p, node, "\"%.120s\": %s; expected %s", node->text, why, expected);
}

void config_value(struct config_parser *p, const struct config_field *f, void *base, const struct yaml_node *node)
{
	void *at = (char *)base + f->offset;
	bool flag = false;
	int word;

	switch (f->form) {
	case W_TEXT: *(char **)at = config_value_text(p, node); break;
	case W_NAME: *(char **)at = value_name(p, node); break;
	case W_SECRET: *(char **)at = value_secret(p, node); break;
	case W_HEADER: *(char **)at = config_value_header(p, node, false); break;
	case W_BOOL:
	case W_NOT:
		if (value_bool(p, node, &flag))
			*(bool *)at = flag != (f->form == W_NOT);
		break;
	case W_WORD:
	case W_FLAG:
	case W_ENUM:
		word = value_word(p, f->names, node);
		if (word >= 0 && f->form == W_WORD)
			*(char **)at = config_arena_text(p->arena, f->names[word], strlen(f->names[word]));
		else if (word >= 0 && f->form == W_FLAG)
			*(bool *)at = word;
		else if (word >= 0)
			store_number(f, at, (uint64_t)word);
		break;
	case W_INT: case W_SIZE: case W_MIB: case W_DURATION: case W_SECONDS: value_numeric(p, f, at, node); break;
	case W_STRINGS: case W_SOME: case W_LOWER: value_some(p, f, at, node); break;
	case W_WORDS: value_words(p, f, at, node); break;
	case W_HEADERS: value_headers(p, at, node); break;
	case W_ADD_HEADERS: value_add_headers(p, at, node); break;
	case W_ADDRESS: case W_TARGET: case W_LISTEN: value_address(p, f, at, node); break;
	case W_PREFIX: value_prefix(p, at, node); break;
	case W_PREFIXES: config_value_prefixes(p, at, node); break;
	default: break;
	}
}
