/* SPDX-License-Identifier: Apache-2.0 */
#include "store/config_arena.h"
#include "store/yaml_merge.h"
#include "workers/controller/compose_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- one node ----------------------------------------------------------------------------------------------------- */

struct composing {
	struct compose *c;
	const struct domain_node *node;
	size_t i;
	struct config_arena *arena;
	struct config_parser p;
	struct config_report report;
	struct yaml_node *root;
};

/* A list of the root, of the node's own, to add to. One that is no list stays, for the check to find. */
static struct tree_tail section(struct composing *n, const char *key)
{
	const struct yaml_node *before = config_find(n->root, key);
	struct tree_tail tail = {0};

	if (before && before->kind != YAML_LIST && !before->null)
		return tail;
	tail.list = before && before->n ? tree_copy(n->arena, before) : tree_list(n->arena, n->node->at);
	for (struct yaml_node *k = tail.list ? tail.list->first : NULL; k; k = k->next)
		tail.last = k;
	tree_set(n->arena, n->root, key, tail.list);
	return tail;
}

/* A map within the root, of the node's own. NULL where something else is in its place. */
static struct yaml_node *submap(struct composing *n, const char *key)
{
	const struct yaml_node *before = config_find(n->root, key);
	struct yaml_node *map = before && before->kind == YAML_MAP ? tree_copy(n->arena, before) :
	                        before && !before->null ? NULL : tree_map(n->arena, n->node->at);

	tree_set(n->arena, n->root, key, map);
	return map;
}

static void add_users(struct composing *n)
{
	struct compose *c = n->c;
	struct tree_tail users = {0}, spaces = {0}, policies = {0};

	for (size_t i = 0; i < c->n_entering[n->i]; i++) {
		const struct user_part *u = &c->users[c->entering[n->i][i]];
		if (u->password && !users.list)
			users = section(n, "users");
		if (u->space && !spaces.list)
			spaces = section(n, "address_spaces");
		if (u->policies && !policies.list)
			policies = section(n, "policies");
		tree_push(n->arena, &users, u->password);
		tree_push(n->arena, &spaces, u->space);
		for (const struct yaml_node *k = u->policies ? u->policies->first : NULL; k; k = k->next)
			tree_push(n->arena, &policies, k);
	}
}

static void add_probes(struct composing *n)
{
	struct tree_tail probes = {0};

	for (size_t i = 0; i < n->c->d->n_objectives; i++) {
		const struct domain_objective *o = &n->c->d->objectives[i];
		if (!compose_measures(n->c->d, o, n->node->name))
			continue;
		if (!probes.list)
			probes = section(n, "probes");
		for (size_t w = 0; w < o->n_ways; w++)
			tree_push(n->arena, &probes, compose_probe(n->arena, o, &o->ways[w]));
	}
}

/* --- clusters referred to */

static void want(struct composing *n, const struct yaml_node *user)
{
	const struct yaml_node *name = config_find(user, "cluster");
	ssize_t i = name && name->kind == YAML_SCALAR ? document_cluster(n->c->d, name->text) : -1;

	if (i >= 0)
		n->c->wanted[i] = n->c->stamp;
}

static void want_entries(struct composing *n, const struct yaml_node *map)
{
	for (const struct yaml_node *k = map && map->kind == YAML_MAP ? map->first : NULL; k; k = k->next)
		want(n, k->value);
}

static const struct yaml_node *members(const struct yaml_node *root, const char *key)
{
	const struct yaml_node *list = config_find(root, key);

	return list && list->kind == YAML_LIST ? list->first : NULL;
}

static void find_wanted(struct composing *n)
{
	n->c->stamp++;
	for (const struct yaml_node *k = members(n->root, "routes"); k; k = k->next)
		want(n, k);
	for (const struct yaml_node *k = members(n->root, "probes"); k; k = k->next)
		want(n, k);
	for (const struct yaml_node *k = members(n->root, "address_spaces"); k; k = k->next) {
		want_entries(n, config_find(k, "names"));
		want_entries(n, config_find(k, "prefixes"));
	}
}

static void add_clusters(struct composing *n)
{
	struct compose *c = n->c;
	struct tree_tail tail = {.list = tree_list(n->arena, n->node->at)};
	const struct yaml_node *own = config_find(n->root, "clusters");

	if (own && own->kind != YAML_LIST && !own->null)
		return;
	find_wanted(n);
	for (const struct yaml_node *k = own ? own->first : NULL; k; k = k->next) {
		const struct yaml_node *name = config_find(k, "name");
		ssize_t i = name && name->kind == YAML_SCALAR ? document_cluster(c->d, name->text) : -1;
		const struct yaml_node *all = i >= 0 ? yaml_merge_deep(k, c->d->clusters[i].at, n->arena) : k;
		if (i >= 0)
			c->wanted[i] = 0;
		tree_push(n->arena, &tail, all ? compose_resolve(c, n->arena, &n->p, all) : NULL);
	}
	for (size_t i = 0; i < c->d->n_clusters; i++)
		if (c->wanted[i] == c->stamp)
			tree_push(n->arena, &tail, c->clusters[i]);
	if (tail.list && (tail.list->n || own))
		tree_set(n->arena, n->root, "clusters", tail.list);
}

/* --- overrides */

static void add_overrides(struct composing *n)
{
	json_t *all = json_object_get(n->c->in->overrides, n->node->name), *workers = json_object_get(all, "tunnel_workers");
	json_t *roles = json_object_get(all, "roles"), *on;
	const char *role;
	struct yaml_node *map;

	if (json_is_integer(workers) && (map = submap(n, "node")))
		tree_set_text(n->arena, map, "tunnel_workers",
		              config_arena_format(n->arena, "%lld", (long long)json_integer_value(workers)));
	if (json_object_size(roles) && (map = submap(n, "roles")))
		json_object_foreach(roles, role, on)
			tree_set_text(n->arena, map, config_arena_text(n->arena, role, strlen(role)), json_is_true(on) ? "on" : "off");
	if (n->c->revoked && (map = submap(n, "identity")))
		tree_set(n->arena, map, "revoked", n->c->revoked);
}

/* The document's keys in the order of the schema, then unknown ones; nothing that is nothing. */
static void order(struct composing *n)
{
	struct tree_tail tail = {.list = tree_map(n->arena, n->node->at)};

	for (unsigned pass = 0; pass < 2; pass++)
		for (unsigned i = 0; i < (pass ? 1 : config_document.n_fields); i++)
			for (const struct yaml_node *k = n->root->first; k; k = k->next) {
				const char *key = config_document.fields[i].key;
				bool known = false;
				for (unsigned f = 0; pass && f < config_document.n_fields; f++)
					known |= config_document.fields[f].key && !strcmp(config_document.fields[f].key, k->text);
				if (pass ? !known : key && !strcmp(key, k->text) && !(k->value->kind == YAML_SCALAR && k->value->null))
					tree_push(n->arena, &tail, k);
			}
	n->root = tail.list;
}

/* --- the check ---------------------------------------------------------------------------------------------------- */

static void set_absent(struct config_arena *arena, struct yaml_node *map, const char *key, const char *text)
{
	if (map && !config_find(map, key))
		tree_set_text(arena, map, key, text);
}

/* What only the node has, as it might be. */
static struct yaml_node *with_local(struct composing *n)
{
	static const char key[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
	struct yaml_node *composed = n->root, *whole, *map, *list;

	n->root = whole = tree_copy(n->arena, composed);
	if (!whole)
		return NULL;
	if ((map = submap(n, "node"))) {
		set_absent(n->arena, map, "name", n->node->name);
		set_absent(n->arena, map, "domain", n->c->d->domain);
	}
	if ((map = submap(n, "identity"))) {
		set_absent(n->arena, map, "certificate", "node.crt");
		set_absent(n->arena, map, "key", "node.key");
		set_absent(n->arena, map, "authorities", "authorities.crt");
	}
	if (config_find(whole, "control") && (map = submap(n, "control"))) {
		if (!config_find(map, "endpoints") && (list = tree_list(n->arena, n->node->at))) {
			tree_append(n->arena, list, tree_scalar(n->arena, n->node->at, "controller:8443"));
			tree_set(n->arena, map, "endpoints", list);
		}
		set_absent(n->arena, map, "key", key);
	}
	n->root = composed;
	return whole;
}

static void check(struct composing *n)
{
	const struct yaml_node *whole = with_local(n);
	struct config *config = whole ? config_arena_alloc(n->arena, 1, sizeof(*config)) : NULL;

	if (!config || config_arena_failed(n->arena)) {
		config_error(&n->p, n->node->at, "out of memory");
		return;
	}
	config->arena = n->arena;
	config_parse_object(&n->p, &config_document, config, whole);
	config_check(&n->p, config, whole);
}

/* --- reports ------------------------------------------------------------------------------------------------------ */

/* "NAME:LINE:COLUMN: ..." -> the place, up to the blank. */
static void place_of(const struct compose *c, const char *line, char out[64])
{
	size_t name = strlen(c->d->name);

	snprintf(out, 64, "%.*s", (int)strcspn(line + name, " "), line + name);
}

static void keep(char ***list, size_t *n, char *line)
{
	char **grown = line && *n < 50 ? realloc(*list, (*n + 1) * sizeof(*grown)) : NULL;

	if (!grown) {
		free(line);
		return;
	}
	*list = grown;
	grown[(*n)++] = line;
}

/* A place is told once, and with it the node whose configuration it was found in. */
static void tell(struct composing *n, char **from, size_t count, char ***list, size_t *used)
{
	char place[64], *line;

	for (size_t i = 0; i < count; i++) {
		place_of(n->c, from[i], place);
		if (json_object_get(n->c->reported, place))
			continue;
		json_object_set_new(n->c->reported, place, json_true());
		size_t head = strlen(n->c->d->name) + strlen(place);
		if (!n->node)
			keep(list, used, strdup(from[i]));
		else if (asprintf(&line, "%.*s node %s:%s", (int)head, from[i], n->node->name, from[i] + head) >= 0)
			keep(list, used, line);
	}
}

/* --- the whole ---------------------------------------------------------------------------------------------------- */

static char *text_of(const struct yaml_node *root)
{
	char *text = yaml_write(root, false);

	if (text && strlen(text) <= DOCUMENT_TEXT_MAX)
		return text;
	free(text);
	return NULL;
}

static void build(struct composing *n)
{
	const struct yaml_node *merged = yaml_merge(n->node->config, n->c->bases[n->i], n->arena);

	n->root = merged ? tree_copy(n->arena, merged) : tree_map(n->arena, n->node->at);
	if (!n->root)
		return;
	add_users(n);
	add_probes(n);
	add_clusters(n);
	add_overrides(n);
	order(n);
}

char *compose_node(struct compose *c, size_t i, struct config_report *report)
{
	struct composing n = {.c = c, .node = &c->d->nodes[i], .i = i, .arena = config_arena_new(0)};
	char *text = NULL;

	if (!n.arena)
		return NULL;
	n.p = (struct config_parser){.name = c->d->name, .arena = n.arena, .report = &n.report, .zones = c->zones};
	build(&n);
	if (!n.p.errors)
		check(&n);
	c->zones = n.p.zones;
	if (!n.p.errors && !(text = text_of(n.root)))
		config_error(&n.p, n.node->at, "the configuration grows over 16 MiB; expected less");
	tell(&n, n.report.errors, n.report.n_errors, &report->errors, &report->n_errors);
	tell(&n, n.report.warnings, n.report.n_warnings, &report->warnings, &report->n_warnings);
	config_report_free(&n.report);
	config_arena_free(n.arena);
	return text;
}

struct compose *compose_new(const struct document *d, const struct compose_inputs *inputs, struct config_report *report)
{
	struct compose *c = calloc(1, sizeof(*c));
	struct config_parser p = {.name = d->name, .report = report};

	if (!c)
		return NULL;
	c->d = d;
	c->in = inputs;
	p.arena = c->arena = config_arena_new(0);
	c->reported = json_object();
	if (c->arena && c->reported)
		compose_make_parts(c, &p);
	if (!c->arena || !c->reported || config_arena_failed(c->arena))
		config_error(&p, d->root, "out of memory");
	if (!p.errors)
		return c;
	compose_free(c);
	return NULL;
}

void compose_free(struct compose *c)
{
	if (!c)
		return;
	config_zones_free(c->zones);
	config_arena_free(c->arena);
	json_decref(c->reported);
	free(c);
}

/* Clusters: an error in one would wait for the first node that refers to it. */
void compose_check_rest(struct compose *c, struct config_report *report)
{
	struct composing n = {.c = c, .arena = config_arena_new(0)};
	const struct config_object *cluster = NULL;

	for (unsigned i = 0; i < config_document.n_fields; i++)
		if (config_document.fields[i].key && !strcmp(config_document.fields[i].key, "clusters"))
			cluster = config_document.fields[i].object;
	n.p = (struct config_parser){.name = c->d->name, .arena = n.arena, .report = &n.report};
	config_enter(&n.p, "clusters");
	for (size_t i = 0; n.arena && i < c->d->n_clusters; i++) {
		size_t mark = config_enter_index(&n.p, i);
		void *into = config_arena_alloc(n.arena, 1, cluster->size);
		if (into)
			config_parse_object(&n.p, cluster, into, c->clusters[i]);
		config_leave(&n.p, mark);
	}
	tell(&n, n.report.errors, n.report.n_errors, &report->errors, &report->n_errors);
	config_report_free(&n.report);
	config_arena_free(n.arena);
}

bool compose_check(struct compose *c, struct config_report *report)
{
	for (size_t i = 0; i < c->d->n_nodes && report->n_errors < 50; i++)
		free(compose_node(c, i, report));
	compose_check_rest(c, report);
	return !report->n_errors;
}

char *compose_nothing(const struct compose_inputs *inputs)
{
	static const char empty[] = "domain: none\nnodes: [{name: none}]\n";
	struct config_report report = {0};
	struct document *d = document_parse("none", empty, strlen(empty), NULL, &report);
	struct compose *c = d ? compose_new(d, inputs, &report) : NULL;
	char *text = c ? compose_node(c, 0, &report) : NULL;

	compose_free(c);
	document_free(d);
	config_report_free(&report);
	return text;
}
