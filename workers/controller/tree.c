/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/tree.h"
#include "store/config_arena.h"

#include <string.h>

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
