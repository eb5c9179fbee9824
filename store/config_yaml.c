/* SPDX-License-Identifier: Apache-2.0 */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config_parser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR 3                    /* edits that still make a suggestion */
#define KEY_MAX 40

/* --- unknown keys ----------------------------------------------------------------------------------------------------- */

/* Levenshtein's distance of short words. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[KEY_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > KEY_MAX || m > KEY_MAX)
		return KEY_MAX;
	for (unsigned j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		unsigned corner = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned above = row[j], best = corner + (a[i - 1] != b[j - 1]);
			best = above + 1 < best ? above + 1 : best;
			row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			corner = above;
		}
	}
	return row[m];
}

static void unknown_key(struct config_parser *p, const struct config_object *object, const struct yaml_node *key)
{
	const char *nearest = NULL;
	unsigned least = NEAR + 1;
	char known[512] = "";
	size_t used = 0;

	for (unsigned i = 0; i < object->n_fields; i++) {
		const char *name = object->fields[i].key;
		if (!name)
			continue;
		unsigned d = distance(key->text, name);
		if (d < least && d < strlen(name)) {
			least = d;
			nearest = name;
		}
		used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", name);
		if (used >= sizeof(known))
			used = sizeof(known) - 1;
	}
	if (nearest)
		config_error(p, key, "unknown key in %s; did you mean \"%s\"?", object->name, nearest);
	else
		config_error(p, key, "unknown key in %s; expected one of %s", object->name, known);
}

/* --- objects ---------------------------------------------------------------------------------------------------------- */

static void preset(struct config_parser *p, const struct config_field *f, void *base)
{
	struct yaml_node udp = {.kind = YAML_SCALAR, .plain = true, .text = "udp"};
	struct yaml_node tcp = {.kind = YAML_SCALAR, .plain = true, .text = "tcp", .next = &udp};
	struct yaml_node both = {.kind = YAML_LIST, .n = 2, .first = &tcp};
	struct yaml_node node = {.kind = YAML_SCALAR, .plain = true, .text = f->preset};

	if (f->form == W_STATUS || f->form == W_CAPTURED)
		config_form(p, f, base, f->form == W_STATUS ? &node : &both);
	else
		config_value(p, f, base, &node);
}

static void absent_field(struct config_parser *p, const struct config_field *f, void *base)
{
	if (f->preset)
		preset(p, f, base);
	else if (f->storage == S_GROUP)
		config_parse_absent(p, f->object, base);
	else if (f->storage == S_OBJECT && !f->object->absent_is_zero)
		config_parse_absent(p, f->object, (char *)base + f->offset);
}

void config_parse_absent(struct config_parser *p, const struct config_object *object, void *base)
{
	for (unsigned i = 0; i < object->n_fields; i++)
		absent_field(p, &object->fields[i], base);
}

static void parse_objects(struct config_parser *p, const struct config_field *f, char *base, const struct yaml_node *node)
{
	size_t *count = (size_t *)(void *)(base + f->count_offset);
	char *v;

	if (node->kind == YAML_SCALAR && node->null)
		return;
	if (node->kind != YAML_LIST) {
		config_error(p, node, "not a list; expected a list, each member a %s", f->object->name);
		return;
	}
	v = config_vector(p, node, node->n, f->object->size);
	*(char **)(void *)(base + f->offset) = v;
	for (const struct yaml_node *k = node->first; v && k; k = k->next, (*count)++) {
		size_t mark = config_enter_index(p, *count);
		config_parse_object(p, f->object, v + *count * f->object->size, k);
		config_leave(p, mark);
	}
}

/* A map whose keys are names: only address spaces have them. */
static void parse_keyed(struct config_parser *p, const struct config_field *f, char *base, const struct yaml_node *node)
{
	size_t *count = (size_t *)(void *)(base + f->count_offset);
	struct config_space_entry *v;

	if (node->kind == YAML_SCALAR && node->null)
		return;
	if (node->kind != YAML_MAP) {
		config_error(p, node, "not a map; expected a map of %s to {cluster: NAME}", f->key);
		return;
	}
	v = config_vector(p, node, node->n, f->object->size);
	*(void **)(void *)(base + f->offset) = v;
	for (const struct yaml_node *k = node->first; v && k; k = k->next, (*count)++) {
		size_t mark = config_enter(p, k->text);
		v[*count].key = config_value_text(p, k);
		config_parse_object(p, f->object, &v[*count], k->value);
		config_leave(p, mark);
	}
}

static void parse_field(struct config_parser *p, const struct config_field *f, char *base, const struct yaml_node *node)
{
	switch (f->form) {
	case W_OBJECT:
		config_parse_object(p, f->object, base + (f->storage == S_GROUP ? 0 : f->offset), node);
		break;
	case W_OBJECTS: parse_objects(p, f, base, node); break;
	case W_KEYED: parse_keyed(p, f, base, node); break;
	case W_TLS: case W_ENDPOINTS: case W_TARGETS: case W_PATHS: case W_HEADER_MATCHES: case W_TIMES: case W_PROTOCOL:
	case W_PORTS: case W_STATUS: case W_CAPTURED: case W_ALLOW: case W_DENY: case W_SPEAKS: case W_DEVICE_ADDRESSES:
	case W_HOPS:
		config_form(p, f, base, node);
		break;
	default: config_value(p, f, base, node);
	}
}

static const struct config_field *find_field(const struct config_object *object, const char *key)
{
	for (unsigned i = 0; i < object->n_fields; i++)
		if (object->fields[i].key && !strcmp(object->fields[i].key, key))
			return &object->fields[i];
	return NULL;
}

static void absent_fields(struct config_parser *p, const struct config_object *object, void *base, uint64_t seen,
                          const struct yaml_node *node)
{
	for (unsigned i = 0; i < object->n_fields; i++) {
		const struct config_field *f = &object->fields[i];
		if (seen >> i & 1)
			continue;
		if (f->flags & F_REQUIRED) {
			size_t mark = config_enter(p, f->key);
			config_error(p, node, "missing in %s; expected: %s", object->name, f->doc);
			config_leave(p, mark);
		}
		absent_field(p, f, base);
	}
}

void config_parse_object(struct config_parser *p, const struct config_object *object, void *base,
                         const struct yaml_node *node)
{
	size_t errors = p->errors;
	uint64_t seen = 0;

	if (node->kind != YAML_MAP) {
		config_error(p, node, "not a map; expected a %s with its keys", object->name);
		return;
	}
	for (const struct yaml_node *k = node->first; k; k = k->next) {
		const struct config_field *f = find_field(object, k->text);
		size_t mark = config_enter(p, k->text);
		if (!f)
			unknown_key(p, object, k);
		else {
			seen |= 1ull << (f - object->fields);
			parse_field(p, f, base, k->value);
		}
		config_leave(p, mark);
	}
	absent_fields(p, object, base, seen, node);
	if (p->errors == errors)
		config_finish(p, object, base, node);
}

const struct yaml_node *config_find(const struct yaml_node *map, const char *key)
{
	if (!map || map->kind != YAML_MAP)
		return NULL;
	for (const struct yaml_node *k = map->first; k; k = k->next)
		if (!strcmp(k->text, key))
			return k->value;
	return NULL;
}

/* --- the document ------------------------------------------------------------------------------------------------------ */

struct config *config_build(struct config_parser *p, const struct yaml_node *root)
{
	struct config *config = config_arena_alloc(p->arena, 1, sizeof(*config));

	if (!config) {
		config_error(p, root, "out of memory");
		return NULL;
	}
	config->arena = p->arena;
	config_parse_object(p, &config_document, config, root);
	config_check(p, config, root);
	if (!p->errors)
		config_imply(p, config);
	if (!p->errors)
		config_derive(config);
	if (!p->errors && config_arena_failed(p->arena))
		config_error(p, root, "out of memory");
	if (p->errors)
		return NULL;
	config_index(config);
	return config;
}
