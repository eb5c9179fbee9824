/* SPDX-License-Identifier: Apache-2.0 */
/* YAML trees made of other trees' parts (merging and writing: store/yaml_merge.h): what is shared stays shared, positions stay those of
 * the text that a part came from. A function that finds no memory gives NULL, or leaves out; the arena remembers. */
#ifndef HERMES_CONTROLLER_TREE_H
#define HERMES_CONTROLLER_TREE_H

#include "store/yaml_tree.h"

struct config_arena;

/* at: whose position it bears. The text is not copied. */
struct yaml_node *tree_scalar(struct config_arena *arena, const struct yaml_node *at, const char *text);
struct yaml_node *tree_map(struct config_arena *arena, const struct yaml_node *at);
struct yaml_node *tree_list(struct config_arena *arena, const struct yaml_node *at);
/* Of a map or list of one's own: a copy of the top with the same members, to be changed. */
struct yaml_node *tree_copy(struct config_arena *arena, const struct yaml_node *node);
/* Sets or replaces a key of a map of one's own. */
void tree_set(struct config_arena *arena, struct yaml_node *map, const char *key, const struct yaml_node *value);
void tree_set_text(struct config_arena *arena, struct yaml_node *map, const char *key, const char *text);
void tree_remove(struct yaml_node *map, const char *key);
/* Appends to a list of one's own; costs its length. The list takes a copy of the member's top. */
struct yaml_node *tree_append(struct config_arena *arena, struct yaml_node *list, const struct yaml_node *member);
/* The same for many, one after the other. */
struct tree_tail { struct yaml_node *list, *last; };
struct yaml_node *tree_push(struct config_arena *arena, struct tree_tail *tail, const struct yaml_node *member);

#endif
