/* YAML trees laid over each other, and written as text. Internal to store/, and for workers/controller, which composes nodes'
 * configurations of fragments. */
#ifndef HERMES_STORE_YAML_MERGE_H
#define HERMES_STORE_YAML_MERGE_H

#include <stdbool.h>
#include <stddef.h>

#include "store/yaml_tree.h"

struct config_arena;

/* Says of the whole tree which document it came from (for errors and origins); the name must outlive it. */
void yaml_mark(struct yaml_node *root, const char *document);

/* `over` laid over `under`: maps key by key; the lists listeners, tunnels, clusters, address_spaces, policies, users, routes, probes (and
 * groups, nodes, objectives of a domain) at the top by their members' names, over's members first, where both name one key by key;
 * every other value and list is over's. A value that is null says nothing. Either may be NULL. Parts that only one has are shared with
 * it, so arena must not outlive the two (nor they be changed). NULL: out of memory. */
const struct yaml_node *yaml_merge(const struct yaml_node *over, const struct yaml_node *under, struct config_arena *arena);
/* The same, but of two members or fragments that lie deeper: no list is merged by names. */
const struct yaml_node *yaml_merge_deep(const struct yaml_node *over, const struct yaml_node *under, struct config_arena *arena);

/* The tree as YAML text, always the same for the same tree (order as it is). origins: each line that holds a value says in a comment
 * which document it came from. malloc'd; NULL: out of memory. */
char *yaml_write(const struct yaml_node *root, bool origins);
/* As JSON on one line: scalars that are not quoted come out as they are where they are numbers, true, false or null. */
char *yaml_write_json(const struct yaml_node *root);

/* Making nodes: all in arena, texts copied; NULL: out of memory (and adding NULL does nothing). */
struct yaml_node *yaml_map(struct config_arena *arena);
struct yaml_node *yaml_list(struct config_arena *arena);
/* quoted: a text that must not be read as a number or the like. */
struct yaml_node *yaml_scalar(struct config_arena *arena, const char *text, bool quoted);
/* Appends; value becomes part of the map (a value has one place: use yaml_copy() for what is part of another tree already). A key that
 * is there gets the new value. */
void yaml_set(struct config_arena *arena, struct yaml_node *map, const char *key, const struct yaml_node *value);
void yaml_add(struct yaml_node *list, struct yaml_node *member);
struct yaml_node *yaml_copy(struct config_arena *arena, const struct yaml_node *node);

#endif
