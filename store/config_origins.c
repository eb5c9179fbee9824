/* SPDX-License-Identifier: Apache-2.0 */
/* A document with everything filled in that is preset, and where each value came from. */
#include "store/config_parser.h"
#include "store/yaml_merge.h"

#include "ipc/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT "default"

/* --- presets ---------------------------------------------------------------------------------------------------------------- */

static struct yaml_node *preset_node(struct config_arena *arena, const struct config_field *f)
{
	struct yaml_node *node;

	if (f->form != W_CAPTURED)
		return yaml_scalar(arena, f->preset, false);
	node = yaml_list(arena);
	yaml_add(node, yaml_scalar(arena, "tcp", false));
	yaml_add(node, yaml_scalar(arena, "udp", false));
	return node;
}

static void fill_absent(struct config_arena *arena, const struct config_field *f, struct yaml_node *node)
{
	struct yaml_node *value = NULL;

	if (f->preset) {
		value = preset_node(arena, f);
	} else if (f->form == W_OBJECT && f->object && !f->object->absent_is_zero) {
		value = yaml_map(arena);
		if (value)
			config_fill(arena, f->object, value);
		if (value && !value->n)
			return;
	}
	if (value) {
		yaml_mark(value, DEFAULT);
		yaml_set(arena, node, f->key, value);
	}
}

/* Members of a list, or values of a map by names. */
static void fill_members(struct config_arena *arena, const struct config_object *object, struct yaml_node *node)
{
	for (struct yaml_node *k = node->first; k; k = k->next)
		config_fill(arena, object, node->kind == YAML_MAP ? k->value : k);
}

static void fill_present(struct config_arena *arena, const struct config_field *f, struct yaml_node *value)
{
	switch (f->form) {
	case W_OBJECT: case W_TLS: case W_ALLOW: case W_DENY: config_fill(arena, f->object, value); break;
	case W_OBJECTS: case W_ENDPOINTS: case W_HOPS: case W_KEYED: fill_members(arena, f->object, value); break;
	default: break;
	}
}

void config_fill(struct config_arena *arena, const struct config_object *object, struct yaml_node *node)
{
	if (node->kind != YAML_MAP)
		return;                           /* `off`, an endpoint's address and the like */
	for (unsigned i = 0; i < object->n_fields; i++) {
		const struct config_field *f = &object->fields[i];
		const struct yaml_node *value = f->key ? config_find(node, f->key) : NULL;
		if (value)
			fill_present(arena, f, (struct yaml_node *)(uintptr_t)value);
		else if (f->key)
			fill_absent(arena, f, node);
	}
}

/* --- origins ------------------------------------------------------------------------------------------------------------------ */

struct origins { struct json json; char path[1024]; size_t used; };

static size_t enter(struct origins *o, const char *before, const char *text, const char *after)
{
	size_t mark = o->used, room = sizeof(o->path) - o->used;
	int n = snprintf(o->path + o->used, room, "%s%s%s", before, text, after);

	o->used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
	return mark;
}

static void leave(struct origins *o, size_t mark)
{
	o->used = mark;
	o->path[mark] = '\0';
}

static void walk(struct origins *o, const struct yaml_node *node)
{
	size_t i = 0;

	if (node->kind == YAML_SCALAR || !node->n) {
		char *value = yaml_write_json(node);
		json_object(&o->json, NULL);
		json_str(&o->json, "key", o->path);
		json_raw(&o->json, "value", value ? value : "null");
		json_str(&o->json, "origin", node->document);
		json_end(&o->json);
		free(value);
		return;
	}
	for (const struct yaml_node *k = node->first; k; k = k->next, i++) {
		char number[24];
		const struct yaml_node *name = config_find(k, "name");
		size_t mark;
		snprintf(number, sizeof(number), "%zu", i);
		if (node->kind == YAML_MAP)
			mark = enter(o, o->used ? "." : "", k->text, "");
		else
			mark = enter(o, "[", name && name->kind == YAML_SCALAR ? name->text : number, "]");
		walk(o, node->kind == YAML_MAP ? k->value : k);
		leave(o, mark);
	}
}

char *config_origins(const struct yaml_node *root)
{
	struct origins o = {.json = JSON_INIT};

	json_array(&o.json, NULL);
	walk(&o, root);
	json_end(&o.json);
	if (!o.json.failed)
		return o.json.data;
	json_free(&o.json);
	return NULL;
}
