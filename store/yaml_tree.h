/* A YAML document as a small tree with positions. Refused: aliases, anchors, tags, merge keys, duplicate keys, several
 * documents, directives, depth over 32, more than a million nodes. Internal to store/. */
#ifndef HERMES_STORE_YAML_TREE_H
#define HERMES_STORE_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

struct config_arena;

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	bool plain;                   /* scalar without quotes */
	bool null;                    /* a plain scalar that is empty, ~ or null */
	unsigned line, column;        /* from 1 */
	const char *text;             /* scalar; NUL-terminated, may hold no NUL itself */
	size_t n;                     /* children */
	struct yaml_node *first, *next;
	struct yaml_node *value;      /* of a map's child (the child itself is the key) */
	const char *document;         /* that it came from (yaml_merge.h); NULL: there is only one */
};

struct yaml_fault { unsigned line, column; char text[256]; };

/* Parses text; the tree lives in arena. NULL with *fault filled: nothing usable. */
struct yaml_node *yaml_parse(const char *text, size_t length, struct config_arena *arena, struct yaml_fault *fault);

#endif
