/* SPDX-License-Identifier: Apache-2.0 */
/* Documents, one or several laid over each other, into the model. */
#include "store/config_arena.h"
#include "store/config_parser.h"
#include "store/yaml_merge.h"

#include <stdio.h>

#define DOCUMENT_MAX ((size_t)16 * 1024 * 1024)

/* NULL after an error that names the layer. */
static struct yaml_node *parse_layer(struct config_parser *p, const struct config_layer *layer, struct config_arena *nodes)
{
	struct yaml_node nowhere = {.line = 1, .column = 1};
	struct yaml_fault fault = {0};
	struct yaml_node *root;

	p->name = layer->name;
	if (layer->length > DOCUMENT_MAX) {
		config_error(p, &nowhere, "the document has %zu bytes; expected at most 16 MiB", layer->length);
		return NULL;
	}
	root = yaml_parse(layer->text, layer->length, nodes, &fault);
	if (!root)
		config_error(p, &(struct yaml_node){.line = fault.line, .column = fault.column}, "%s", fault.text);
	else if (root->kind != YAML_MAP)
		config_error(p, root, "not a map; expected a document with its keys");
	else {
		yaml_mark(root, layer->name);
		return root;
	}
	return NULL;
}

/* The layers as one tree in nodes; NULL after errors. Later layers lie under the earlier ones. */
static const struct yaml_node *merge_layers(struct config_parser *p, const struct config_layer *layers, size_t n,
                                            struct config_arena *nodes)
{
	struct yaml_node nowhere = {.line = 1, .column = 1};
	const struct yaml_node *merged = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct yaml_node *root = parse_layer(p, &layers[i], nodes);
		if (!root)
			return NULL;
		merged = yaml_merge(merged, root, nodes);
		if (!merged) {
			config_error(p, &nowhere, "out of memory");
			return NULL;
		}
	}
	p->name = n ? layers[0].name : "document";
	return merged;
}

struct config *config_parse_layers(const struct config_layer *layers, size_t n, struct config_report *report)
{
	struct config_arena *nodes = config_arena_new(0);
	struct config_parser p = {.name = n ? layers[0].name : "document", .arena = config_arena_new(0), .report = report};
	struct yaml_node nowhere = {.line = 1, .column = 1};
	struct config *config = NULL;

	if (!nodes || !p.arena || !n) {
		config_error(&p, &nowhere, n ? "out of memory" : "no document");
	} else {
		const struct yaml_node *root = merge_layers(&p, layers, n, nodes);
		if (root)
			config = config_build(&p, root);
	}
	config_zones_free(p.zones);
	config_arena_free(nodes);
	if (!config)
		config_arena_free(p.arena);
	return config;
}

struct config *config_parse(const char *name, const char *text, size_t length, struct config_report *report)
{
	const struct config_layer layer = {.name = name, .text = text, .length = length};

	return config_parse_layers(&layer, 1, report);
}

char *config_merged(const struct config_layer *layers, size_t n, bool origins, struct config_report *report)
{
	struct config_arena *nodes = config_arena_new(0);
	struct config_parser p = {.name = n ? layers[0].name : "document", .report = report};
	struct yaml_node nowhere = {.line = 1, .column = 1};
	const struct yaml_node *root = nodes && n ? merge_layers(&p, layers, n, nodes) : NULL;
	char *text = root ? yaml_write(root, origins) : NULL;

	if (!text && !p.errors)
		config_error(&p, &nowhere, n ? "out of memory" : "no document");
	config_arena_free(nodes);
	return text;
}

bool config_mentions(const char *text, size_t length, const char *key)
{
	struct config_arena *nodes = config_arena_new(0);
	struct yaml_fault fault;
	const struct yaml_node *root = nodes && length <= DOCUMENT_MAX ? yaml_parse(text, length, nodes, &fault) : NULL;
	const struct yaml_node *value = config_find(root, key);
	bool found = value && !(value->kind == YAML_SCALAR && value->null);

	config_arena_free(nodes);
	return found;
}

char *config_effective(const struct config_layer *layers, size_t n, char **origins, struct config_report *report)
{
	struct config_arena *nodes = config_arena_new(0);
	struct config_parser p = {.name = n ? layers[0].name : "document", .report = report};
	struct yaml_node nowhere = {.line = 1, .column = 1};
	const struct yaml_node *merged = nodes && n ? merge_layers(&p, layers, n, nodes) : NULL;
	struct yaml_node *root = merged ? yaml_copy(nodes, merged) : NULL;
	char *text = NULL;

	if (origins)
		*origins = NULL;
	if (root) {
		config_fill(nodes, &config_document, root);
		text = yaml_write(root, true);
		if (origins && text)
			*origins = config_origins(root);
	}
	if (!text && !p.errors)
		config_error(&p, &nowhere, n ? "out of memory" : "no document");
	config_arena_free(nodes);
	return text;
}
