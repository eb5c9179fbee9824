/* The parser's own parts: YAML nodes into fields by the schema. Internal to store/. */
#ifndef HERMES_STORE_CONFIG_PARSER_H
#define HERMES_STORE_CONFIG_PARSER_H

#include "store/config_schema.h"
#include "store/yaml_tree.h"

struct config_parser {
	const char *name;             /* of the document, for errors */
	struct config_arena *arena;
	struct config_report *report;
	size_t errors;                /* in all, also those over the report's cap */
	char path[256];               /* "listeners[2].tls" */
	size_t path_length;
	unsigned depth;
	bool relative;                /* objects of our own: Unix sockets may lie in the runtime folder */
	struct config_zone_cache *zones;
};

/* "NAME:LINE:COLUMN: PATH: text" */
void config_error(struct config_parser *p, const struct yaml_node *node, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void config_warning(struct config_parser *p, const struct yaml_node *node, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Steps into a key or a list's member; the return value goes to config_leave(). */
size_t config_enter(struct config_parser *p, const char *key);
size_t config_enter_index(struct config_parser *p, size_t index);
void config_leave(struct config_parser *p, size_t mark);

/* config_yaml.c: zeroed memory at base becomes the object that node writes. */
void config_parse_object(struct config_parser *p, const struct config_object *object, void *base,
                         const struct yaml_node *node);
/* Presets of an object that is not written. */
void config_parse_absent(struct config_parser *p, const struct config_object *object, void *base);

/* The document that root is, into p->arena; NULL with errors in the report. */
struct config *config_build(struct config_parser *p, const struct yaml_node *root);

/* config_values.c: scalars and lists of scalars. Errors are reported, then the field stays zero. */
/* How many members a list has, or a single one where that is allowed; vector() makes room for them. */
size_t config_count(const struct yaml_node *node);
void *config_vector(struct config_parser *p, const struct yaml_node *node, size_t n, size_t size);
bool config_scalar(struct config_parser *p, const struct yaml_node *node, const char *expected);
char *config_value_text(struct config_parser *p, const struct yaml_node *node);
void config_value(struct config_parser *p, const struct config_field *f, void *base, const struct yaml_node *node);
void config_value_strings(struct config_parser *p, struct config_strs *out, const struct yaml_node *node, bool lower);
char *config_value_header(struct config_parser *p, const struct yaml_node *node, bool changes);
void config_value_prefixes(struct config_parser *p, struct config_prefixes *out, const struct yaml_node *node);

/* config_forms.c: forms of their own. */
void config_form(struct config_parser *p, const struct config_field *f, void *base, const struct yaml_node *node);

/* config_rules.c: what must hold within one object (called when it had no errors) and in the whole document. */
void config_finish(struct config_parser *p, const struct config_object *object, void *base, const struct yaml_node *node);
/* config_check.c */
void config_check(struct config_parser *p, struct config *config, const struct yaml_node *root);
/* config_tunnels.c: devices, and the clusters that leave through them. */
void config_finish_tunnel(struct config_parser *p, void *base, const struct yaml_node *node);
void config_check_tunnels(struct config_parser *p, const struct config *config, const struct yaml_node *root);
/* config_control.c: control, controller, probes. */
void config_finish_control(struct config_parser *p, void *base, const struct yaml_node *node);
void config_finish_controller(struct config_parser *p, void *base, const struct yaml_node *node);
void config_finish_probe(struct config_parser *p, void *base, const struct yaml_node *node);
void config_check_control(struct config_parser *p, const struct config *config, const struct yaml_node *root);
/* Whether it is a listener that config_imply() will add. */
bool config_is_implied(const struct config *config, const char *listener);
/* Adds the listeners, clusters and routes that control and controller imply, to a checked document. */
void config_imply(struct config_parser *p, struct config *config);
/* config_origins.c: presets of keys that a tree lacks, of the document "default"; and what came from where, as JSON. */
void config_fill(struct config_arena *arena, const struct config_object *object, struct yaml_node *node);
char *config_origins(const struct yaml_node *root);
/* config_derive.c: examines, examined_headers, internal_headers. */
void config_derive(struct config *config);

/* The value of a map's key, or NULL. */
const struct yaml_node *config_find(const struct yaml_node *map, const char *key);

/* config_window.c: "Mon-Fri 08:00-18:00 Europe/Warsaw". */
void config_window_parse(struct config_parser *p, struct config_window *out, const struct yaml_node *node);
void config_zones_free(struct config_zone_cache *zones);

#endif
