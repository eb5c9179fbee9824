/* SPDX-License-Identifier: Apache-2.0 */
#include "store/yaml_merge.h"
#include "store/config_arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void yaml_mark(struct yaml_node *root, const char *document)
{
	for (struct yaml_node *k = root; k; k = k->next) {    /* the root has no next */
		k->document = document;
		if (k->first)
			yaml_mark(k->first, document);
		if (k->value)
			yaml_mark(k->value, document);
	}
}

/* --- finding by name ------------------------------------------------------------------------------------------------------ */

/* The children of a map by their keys, or the members of a list by their names; those without are left out. */
struct named { const char *name; const struct yaml_node *node; size_t i; };
struct names { struct named *v; size_t n; };

static const char *name_of(const struct yaml_node *member)
{
	for (const struct yaml_node *k = member->kind == YAML_MAP ? member->first : NULL; k; k = k->next)
		if (!strcmp(k->text, "name") && k->value && k->value->kind == YAML_SCALAR && !k->value->null)
			return k->value->text;
	return NULL;
}

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->i > y->i) - (x->i < y->i);
}

static bool index_children(const struct yaml_node *node, struct names *out)
{
	*out = (struct names){.v = calloc(node->n + 1, sizeof(*out->v))};
	for (const struct yaml_node *k = node->first; out->v && k; k = k->next) {
		const char *name = node->kind == YAML_MAP ? k->text : name_of(k);
		if (name) {
			out->v[out->n] = (struct named){.name = name, .node = k, .i = out->n};
			out->n++;
		}
	}
	if (out->v)
		qsort(out->v, out->n, sizeof(*out->v), by_name);
	return out->v;
}

/* The first of that name. */
static const struct yaml_node *find(const struct names *names, const char *name)
{
	size_t low = 0, high = names->n;

	while (name && low < high) {
		size_t middle = (low + high) / 2;
		if (strcmp(names->v[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return name && low < names->n && !strcmp(names->v[low].name, name) ? names->v[low].node : NULL;
}

/* --- merging --------------------------------------------------------------------------------------------------------------- */

enum { TOP, DEEP };

struct merge { struct config_arena *arena; bool failed; };

static const struct yaml_node *merge(struct merge *m, const struct yaml_node *over, const struct yaml_node *under, int level);

static struct yaml_node *copy_of(struct merge *m, const struct yaml_node *node)
{
	struct yaml_node *copy = config_arena_alloc(m->arena, 1, sizeof(*copy));

	m->failed |= !copy;
	if (copy)
		*copy = *node;
	return copy;
}

static struct yaml_node *append(struct merge *m, struct yaml_node *to, struct yaml_node **last, const struct yaml_node *child)
{
	struct yaml_node *copy = copy_of(m, child);

	if (!copy)
		return NULL;
	copy->next = NULL;
	if (*last)
		(*last)->next = copy;
	else
		to->first = copy;
	*last = copy;
	to->n++;
	return copy;
}

static bool by_names(const char *key, int level)
{
	static const char *const keys[] = {"listeners", "tunnels", "clusters", "address_spaces", "policies", "users", "routes", "probes",
	                                   "groups", "nodes", "objectives"};

	for (unsigned i = 0; level == TOP && i < sizeof(keys) / sizeof(*keys); i++)
		if (!strcmp(keys[i], key))
			return true;
	return false;
}

static const struct yaml_node *merge_lists(struct merge *m, const struct yaml_node *over, const struct yaml_node *under)
{
	struct yaml_node *out = copy_of(m, over), *last = NULL, *at;
	struct names ours = {0}, theirs = {0};
	const struct yaml_node *other;

	if (!index_children(over, &ours) || !index_children(under, &theirs) || !out) {
		m->failed = true;
		goto out;
	}
	out->first = NULL;
	out->n = 0;
	for (const struct yaml_node *k = over->first; k && !m->failed; k = k->next) {
		other = find(&theirs, name_of(k));
		at = append(m, out, &last, k);
		const struct yaml_node *both = at && other ? merge(m, k, other, DEEP) : NULL;
		if (both) {
			*at = *both;
			at->next = NULL;
		}
	}
	for (const struct yaml_node *k = under->first; k && !m->failed; k = k->next)
		if (!find(&ours, name_of(k)))
			append(m, out, &last, k);
out:
	free(ours.v);
	free(theirs.v);
	return out;
}

static const struct yaml_node *merge_maps(struct merge *m, const struct yaml_node *over, const struct yaml_node *under, int level)
{
	struct yaml_node *out = copy_of(m, over), *last = NULL, *at;
	struct names ours = {0}, theirs = {0};
	const struct yaml_node *other;

	if (!index_children(over, &ours) || !index_children(under, &theirs) || !out) {
		m->failed = true;
		goto out;
	}
	out->first = NULL;
	out->n = 0;
	for (const struct yaml_node *k = over->first; k && !m->failed; k = k->next) {
		other = find(&theirs, k->text);
		at = append(m, out, &last, k);
		if (!at || !other)
			continue;
		if (k->value->kind == YAML_LIST && other->value->kind == YAML_LIST && by_names(k->text, level))
			at->value = (struct yaml_node *)(uintptr_t)merge_lists(m, k->value, other->value);
		else
			at->value = (struct yaml_node *)(uintptr_t)merge(m, k->value, other->value, DEEP);
	}
	for (const struct yaml_node *k = under->first; k && !m->failed; k = k->next)
		if (!find(&ours, k->text))
			append(m, out, &last, k);
out:
	free(ours.v);
	free(theirs.v);
	return out;
}

static const struct yaml_node *merge(struct merge *m, const struct yaml_node *over, const struct yaml_node *under, int level)
{
	if (over->kind == YAML_SCALAR && over->null)
		return under;
	if (over->kind == YAML_MAP && under->kind == YAML_MAP)
		return merge_maps(m, over, under, level);
	return over;
}

static const struct yaml_node *merge_two(const struct yaml_node *over, const struct yaml_node *under, struct config_arena *arena,
                                         int level)
{
	struct merge m = {.arena = arena};

	if (!over || !under)
		return over ? over : under;
	const struct yaml_node *out = merge(&m, over, under, level);
	return m.failed ? NULL : out;
}

const struct yaml_node *yaml_merge(const struct yaml_node *over, const struct yaml_node *under, struct config_arena *arena)
{
	return merge_two(over, under, arena, TOP);
}

const struct yaml_node *yaml_merge_deep(const struct yaml_node *over, const struct yaml_node *under, struct config_arena *arena)
{
	return merge_two(over, under, arena, DEEP);
}

/* --- making ---------------------------------------------------------------------------------------------------------------- */

static struct yaml_node *make(struct config_arena *arena, enum yaml_kind kind)
{
	struct yaml_node *node = config_arena_alloc(arena, 1, sizeof(*node));

	if (node)
		*node = (struct yaml_node){.kind = kind, .line = 1, .column = 1, .text = ""};
	return node;
}

struct yaml_node *yaml_map(struct config_arena *arena)
{
	return make(arena, YAML_MAP);
}

struct yaml_node *yaml_list(struct config_arena *arena)
{
	return make(arena, YAML_LIST);
}

struct yaml_node *yaml_scalar(struct config_arena *arena, const char *text, bool quoted)
{
	struct yaml_node *node = make(arena, YAML_SCALAR);
	char *copy = node ? config_arena_text(arena, text, strlen(text)) : NULL;

	if (!copy)
		return NULL;
	node->text = copy;
	node->plain = !quoted;
	node->null = !quoted && (!*text || !strcmp(text, "~") || !strcmp(text, "null"));
	return node;
}

static void append_child(struct yaml_node *to, struct yaml_node *child)
{
	struct yaml_node **at = &to->first;

	while (*at)
		at = &(*at)->next;
	*at = child;
	to->n++;
}

void yaml_set(struct config_arena *arena, struct yaml_node *map, const char *key, const struct yaml_node *value)
{
	struct yaml_node *k = map && value ? map->first : NULL;

	while (k && strcmp(k->text, key))
		k = k->next;
	if (map && value && !k && (k = yaml_scalar(arena, key, false)))
		append_child(map, k);
	if (k)
		k->value = (struct yaml_node *)(uintptr_t)value;
}

void yaml_add(struct yaml_node *list, struct yaml_node *member)
{
	if (list && member)
		append_child(list, member);
}

struct yaml_node *yaml_copy(struct config_arena *arena, const struct yaml_node *node)
{
	struct yaml_node *copy = config_arena_alloc(arena, 1, sizeof(*copy)), **at = copy ? &copy->first : NULL;

	if (!copy)
		return NULL;
	*copy = *node;
	copy->next = copy->first = NULL;
	if (node->value && !(copy->value = yaml_copy(arena, node->value)))
		return NULL;
	for (const struct yaml_node *k = node->first; k; k = k->next, at = &(*at)->next)
		if (!(*at = yaml_copy(arena, k)))
			return NULL;
	return copy;
}
