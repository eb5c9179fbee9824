/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/tree.h"
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <stdlib.h>
#include <string.h>

/* --- making ---------------------------------------------------------------------------------------------------------------- */

static struct yaml_node *new_node(struct config_arena *arena, enum yaml_kind kind, const struct yaml_node *at)
{
	struct yaml_node *node = config_arena_alloc(arena, 1, sizeof(*node));

	if (node)
		*node = (struct yaml_node){.kind = kind, .line = at->line, .column = at->column, .text = ""};
	return node;
}

struct yaml_node *tree_scalar(struct config_arena *arena, const struct yaml_node *at, const char *text)
{
	struct yaml_node *node = new_node(arena, YAML_SCALAR, at);

	if (node) {
		node->plain = true;
		node->text = text;
	}
	return node;
}

struct yaml_node *tree_map(struct config_arena *arena, const struct yaml_node *at)
{
	return new_node(arena, YAML_MAP, at);
}

struct yaml_node *tree_list(struct config_arena *arena, const struct yaml_node *at)
{
	return new_node(arena, YAML_LIST, at);
}

struct yaml_node *tree_push(struct config_arena *arena, struct tree_tail *tail, const struct yaml_node *member)
{
	struct yaml_node *copy = member ? new_node(arena, YAML_SCALAR, member) : NULL;

	if (!copy || !tail->list)
		return NULL;
	*copy = *member;
	copy->next = NULL;
	if (tail->last)
		tail->last->next = copy;
	else
		tail->list->first = copy;
	tail->last = copy;
	tail->list->n++;
	return copy;
}

static struct tree_tail tail_of(struct yaml_node *list)
{
	struct tree_tail tail = {.list = list};

	for (struct yaml_node *k = list ? list->first : NULL; k; k = k->next)
		tail.last = k;
	return tail;
}

struct yaml_node *tree_append(struct config_arena *arena, struct yaml_node *list, const struct yaml_node *member)
{
	struct tree_tail tail = tail_of(list);

	return tree_push(arena, &tail, member);
}

struct yaml_node *tree_copy(struct config_arena *arena, const struct yaml_node *node)
{
	struct yaml_node *copy = new_node(arena, node->kind, node);
	struct tree_tail tail = {.list = copy};

	for (const struct yaml_node *k = copy ? node->first : NULL; k; k = k->next)
		tree_push(arena, &tail, k);
	return copy;
}

void tree_set(struct config_arena *arena, struct yaml_node *map, const char *key, const struct yaml_node *value)
{
	if (!map || !value)
		return;
	for (struct yaml_node *k = map->first; k; k = k->next)
		if (!strcmp(k->text, key)) {
			k->value = (struct yaml_node *)value;
			return;
		}
	struct yaml_node *k = tree_scalar(arena, value, key);
	if (k && (k = tree_append(arena, map, k)))
		k->value = (struct yaml_node *)value;
}

void tree_set_text(struct config_arena *arena, struct yaml_node *map, const char *key, const char *text)
{
	if (map)
		tree_set(arena, map, key, tree_scalar(arena, map, text));
}

void tree_remove(struct yaml_node *map, const char *key)
{
	for (struct yaml_node **k = &map->first; *k; k = &(*k)->next)
		if (!strcmp((*k)->text, key)) {
			*k = (*k)->next;
			map->n--;
			return;
		}
}

/* --- merging --------------------------------------------------------------------------------------------------------------- */

#define DEPTH_MAX 32

struct named { const char *name; const struct yaml_node *node; bool taken; };

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static const char *name_of(const struct yaml_node *member)
{
	const struct yaml_node *name = config_find(member, "name");

	return name && name->kind == YAML_SCALAR ? name->text : "";
}

static const struct yaml_node *merge(struct config_arena *arena, const struct yaml_node *over, const struct yaml_node *under,
                                     unsigned depth);

/* Members of over first, in their order; then those of under that over does not name. */
static const struct yaml_node *merge_named(struct config_arena *arena, const struct yaml_node *over,
                                           const struct yaml_node *under)
{
	struct tree_tail tail = {.list = tree_list(arena, over)};
	struct named *v = calloc(under->n + 1, sizeof(*v)), *found;
	size_t n = 0;

	for (const struct yaml_node *k = v ? under->first : NULL; k; k = k->next)
		if (*name_of(k))
			v[n++] = (struct named){.name = name_of(k), .node = k};
	if (v)
		qsort(v, n, sizeof(*v), by_name);
	for (const struct yaml_node *k = over->first; v && k; k = k->next) {
		struct named key = {.name = name_of(k)};
		found = *key.name ? bsearch(&key, v, n, sizeof(*v), by_name) : NULL;
		tree_push(arena, &tail, found ? merge(arena, k, found->node, 2) : k);
		if (found)
			found->taken = true;
	}
	for (const struct yaml_node *k = v ? under->first : NULL; k; k = k->next) {
		struct named key = {.name = name_of(k)};
		found = *key.name ? bsearch(&key, v, n, sizeof(*v), by_name) : NULL;
		if (!found || !found->taken)
			tree_push(arena, &tail, k);
	}
	free(v);
	return tail.list;
}

static bool is_named_list(const char *key)
{
	static const char *const lists[] = {"listeners", "tunnels", "clusters", "address_spaces", "policies", "users", "routes",
	                                    "probes"};

	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		if (!strcmp(lists[i], key))
			return true;
	return false;
}

static const struct yaml_node *merge_value(struct config_arena *arena, const char *key, const struct yaml_node *over,
                                           const struct yaml_node *under, unsigned depth)
{
	if (over->kind == YAML_MAP && under->kind == YAML_MAP && depth < DEPTH_MAX)
		return merge(arena, over, under, depth + 1);
	if (!depth && over->kind == YAML_LIST && under->kind == YAML_LIST && is_named_list(key))
		return merge_named(arena, over, under);
	return over;
}

static const struct yaml_node *merge(struct config_arena *arena, const struct yaml_node *over, const struct yaml_node *under,
                                     unsigned depth)
{
	struct tree_tail tail = {.list = tree_map(arena, over)};
	struct yaml_node *copy;

	for (const struct yaml_node *k = over->first; k; k = k->next) {
		const struct yaml_node *other = config_find(under, k->text);
		if ((copy = tree_push(arena, &tail, k)) && other)
			copy->value = (struct yaml_node *)merge_value(arena, k->text, k->value, other, depth);
	}
	for (const struct yaml_node *k = under->first; k; k = k->next)
		if (!config_find(over, k->text))
			tree_push(arena, &tail, k);
	return tail.list;
}

const struct yaml_node *tree_merge(struct config_arena *arena, const struct yaml_node *over, const struct yaml_node *under)
{
	if (!over || !over->n)
		return under ? under : over;
	if (!under || !under->n)
		return over;
	return merge(arena, over, under, 0);
}

/* --- writing --------------------------------------------------------------------------------------------------------------- */

/* Whether YAML 1.2.2 7.3.3 reads it as it stands, also by older readers. */
static bool is_plain(const char *text)
{
	size_t n = strlen(text);

	if (!n || strchr("-?:,[]{}#&*!|>'\"%@` \t", *text) || text[n - 1] == ' ' || text[n - 1] == ':')
		return false;
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f || (*c == ':' && c[1] == ' ') || (*c == ' ' && c[1] == '#'))
			return false;
	return true;
}

static void write_quoted(FILE *out, const char *text)
{
	fputc('"', out);
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		unsigned point = (c[0] & 0xf0) == 0xe0 && c[1] && c[2] ? (c[0] & 0xfu) << 12 | (c[1] & 0x3fu) << 6 | (c[2] & 0x3fu) : 0;
		if (*c == '"' || *c == '\\')
			fprintf(out, "\\%c", *c);
		else if (*c < 0x20 || *c == 0x7f)
			fprintf(out, "\\x%02X", *c);
		else if (c[0] == 0xc2 && c[1] < 0xa0 && c[1])      /* C1 controls, the next line character among them */
			fprintf(out, "\\x%02X", *++c);
		else if (point == 0x2028 || point == 0x2029 || point == 0xfeff) {
			fprintf(out, "\\u%04X", point);
			c += 2;
		} else
			fputc(*c, out);
	}
	fputc('"', out);
}

static void write_scalar(FILE *out, const struct yaml_node *node)
{
	if (node->null)
		fputs("null", out);
	else if (node->plain && is_plain(node->text))
		fputs(node->text, out);
	else
		write_quoted(out, node->text);
}

static void write_key(FILE *out, const struct yaml_node *key)
{
	if (key->plain && is_plain(key->text))
		fputs(key->text, out);
	else
		write_quoted(out, key->text);
}

static void write_node(FILE *out, const struct yaml_node *node, int depth, bool inline_first);

/* What follows "key:" or "-". */
static void write_value(FILE *out, const struct yaml_node *value, int depth)
{
	if (value->kind == YAML_SCALAR || !value->n) {
		fputc(' ', out);
		if (value->kind == YAML_SCALAR)
			write_scalar(out, value);
		else
			fputs(value->kind == YAML_MAP ? "{}" : "[]", out);
		fputc('\n', out);
	} else {
		fputc('\n', out);
		write_node(out, value, depth + 1, false);
	}
}

static void write_node(FILE *out, const struct yaml_node *node, int depth, bool inline_first)
{
	for (const struct yaml_node *k = node->first; k; k = k->next, inline_first = false) {
		fprintf(out, "%*s", inline_first ? 0 : 2 * depth, "");
		if (node->kind == YAML_MAP) {
			write_key(out, k);
			fputc(':', out);
			write_value(out, k->value, depth);
		} else if (k->kind != YAML_SCALAR && k->n) {
			fputs("- ", out);
			write_node(out, k, depth + 1, true);
		} else {
			fputc('-', out);
			write_value(out, k, depth);
		}
	}
}

void tree_write(FILE *out, const struct yaml_node *root)
{
	if (root->kind == YAML_SCALAR || !root->n) {
		fputs(root->kind == YAML_MAP ? "{}\n" : root->kind == YAML_LIST ? "[]\n" : "null\n", out);
		return;
	}
	write_node(out, root, 0, false);
}
