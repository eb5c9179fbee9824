/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/document.h"
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <stdlib.h>
#include <string.h>

enum { GROUPS, NODES, USERS, CLUSTERS };

/* --- look-ups ----------------------------------------------------------------------------------------------------- */

struct named { const char *name; size_t i; };

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->i > y->i) - (x->i < y->i);
}

static ssize_t look_up(const struct document *d, int kind, size_t n, const char *name)
{
	const struct named *v = d->indexes[kind];
	size_t low = 0, high = v ? n : 0;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int order = strcmp(v[middle].name, name);
		if (!order)
			return (ssize_t)v[middle].i;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

ssize_t document_node(const struct document *d, const char *name)
{
	return look_up(d, NODES, d->n_nodes, name);
}

ssize_t document_group(const struct document *d, const char *name)
{
	return look_up(d, GROUPS, d->n_groups, name);
}

ssize_t document_user(const struct document *d, const char *name)
{
	return look_up(d, USERS, d->n_users, name);
}

ssize_t document_cluster(const struct document *d, const char *name)
{
	return look_up(d, CLUSTERS, d->n_clusters, name);
}

/* Names lie at base + i * size + at their offset 0; their YAML map at node_offset. */
static void *make_index(struct config_parser *p, const char *key, const void *base, size_t n, size_t size,
                        size_t node_offset)
{
	struct named *v = config_arena_alloc(p->arena, n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++)
		v[i] = (struct named){.name = *(char *const *)(const void *)((const char *)base + i * size), .i = i};
	if (v)
		qsort(v, n, sizeof(*v), by_name);
	for (size_t i = 1; v && i < n; i++) {
		if (strcmp(v[i].name, v[i - 1].name))
			continue;
		const struct yaml_node *at =
			*(const struct yaml_node *const *)(const void *)((const char *)base + v[i].i * size + node_offset);
		size_t mark = config_enter(p, key);
		config_enter_index(p, v[i].i);
		config_error(p, config_find(at, "name"), "\"%s\" is taken by %s[%zu]; expected a name of its own", v[i].name, key,
		             v[i - 1].i);
		config_leave(p, mark);
	}
	return v;
}

/* --- shares ------------------------------------------------------------------------------------------------------- */

/* "5", "10%", "2.5%" */
static bool read_share(const char *text, struct domain_share *out)
{
	char *end;

	if (*text < '0' || *text > '9' || strlen(text) > 12)
		return false;
	double value = strtod(text, &end);
	if (!*end && strspn(text, "0123456789") == strlen(text)) {
		*out = (struct domain_share){.n = (uint32_t)(value > 1e6 ? 1e6 : value)};
		return true;
	}
	if (strcmp(end, "%") || strspn(text, "0123456789.%") != strlen(text) || value > 100)
		return false;
	*out = (struct domain_share){.percent = true, .n = (uint32_t)(value * 100 + 0.5)};
	return true;
}

size_t domain_share_of(struct domain_share share, size_t of)
{
	if (!share.percent)
		return share.n < of ? share.n : of;
	return ((size_t)share.n * of + 9999) / 10000;
}

static void share(struct config_parser *p, const struct yaml_node *map, const char *key, const char *text, bool percent,
                  struct domain_share *out)
{
	const struct yaml_node *at = config_find(map, key);

	if (!text || (read_share(text, out) && (out->percent || !percent)))
		return;
	size_t mark = config_enter(p, key);
	config_error(p, at ? at : map, "\"%.40s\" is no share; expected %s", text,
	             percent ? "a percentage such as 1%" : "a number or a percentage such as 10%");
	config_leave(p, mark);
}

/* --- fragments ---------------------------------------------------------------------------------------------------- */

/* A fragment of a node's configuration, or NULL. */
static const struct yaml_node *fragment(struct config_parser *p, const struct yaml_node *map, const char *key)
{
	static const char *const own[] = {"name", "domain"};
	const struct yaml_node *node = config_find(map, key), *inner;
	size_t mark = config_enter(p, key);

	if (node && node->kind == YAML_SCALAR && node->null)
		node = NULL;
	if (node && node->kind != YAML_MAP) {
		config_error(p, node, "not a map; expected a fragment of a node's configuration");
		node = NULL;
	}
	inner = config_find(node, "node");
	for (size_t i = 0; i < 2; i++)
		if (config_find(inner, own[i]))
			config_error(p, config_find(inner, own[i]), "node.%s is the node's own; expected none here", own[i]);
	config_leave(p, mark);
	return node;
}

static const struct yaml_node *raw(struct config_parser *p, const struct yaml_node *map, const char *key, enum yaml_kind kind)
{
	const struct yaml_node *node = config_find(map, key);

	if (!node || (node->kind == YAML_SCALAR && node->null))
		return NULL;
	if (node->kind == kind)
		return node;
	size_t mark = config_enter(p, key);
	config_error(p, node, "expected a %s", kind == YAML_MAP ? "map" : "list");
	config_leave(p, mark);
	return NULL;
}

static const struct yaml_node *user_space(struct config_parser *p, const struct yaml_node *user)
{
	const struct yaml_node *space = raw(p, user, "address_space", YAML_MAP);

	for (const struct yaml_node *k = space ? space->first : NULL; k; k = k->next) {
		size_t mark = config_enter(p, "address_space");
		config_enter(p, k->text);
		if (strcmp(k->text, "names") && strcmp(k->text, "prefixes"))
			config_error(p, k, "unknown key in a user's address space; expected names or prefixes");
		else if (k->value->kind != YAML_MAP && !k->value->null)
			config_error(p, k->value, "not a map; expected a map of %s to {cluster: NAME}", k->text);
		config_leave(p, mark);
	}
	return space;
}

/* The parsed lists lie beside the YAML ones, member by member. */
#define EACH(d, member, key, ...)                                                                                     \
	do {                                                                                                          \
		const struct yaml_node *list_ = config_find((d)->root, key), *k = list_ ? list_->first : NULL;        \
		for (size_t i = 0; k && i < (d)->n_##member; i++, k = k->next) {                                      \
			size_t mark_ = config_enter(p, key);                                                          \
			config_enter_index(p, i);                                                                     \
			__VA_ARGS__;                                                                                  \
			config_leave(p, mark_);                                                                       \
		}                                                                                                     \
	} while (0)

static void attach(struct config_parser *p, struct document *d)
{
	d->defaults = fragment(p, d->root, "defaults");
	EACH(d, groups, "groups", {
		d->groups[i].at = k;
		d->groups[i].config = fragment(p, k, "config");
	});
	EACH(d, nodes, "nodes", {
		d->nodes[i].at = k;
		d->nodes[i].config = fragment(p, k, "config");
		d->nodes[i].labels = raw(p, k, "labels", YAML_MAP);
	});
	EACH(d, users, "users", {
		d->users[i].at = k;
		d->users[i].space = user_space(p, k);
		d->users[i].policies = raw(p, k, "policies", YAML_LIST);
	});
	EACH(d, objectives, "objectives", {
		const struct yaml_node *ways = config_find(k, "ways"), *w = ways ? ways->first : NULL;
		d->objectives[i].at = k;
		for (size_t j = 0; w && j < d->objectives[i].n_ways; j++, w = w->next)
			d->objectives[i].ways[j].at = w;
	});
}

static void read_clusters(struct config_parser *p, struct document *d)
{
	const struct yaml_node *list = raw(p, d->root, "clusters", YAML_LIST);

	d->clusters = list ? config_vector(p, list, list->n, sizeof(*d->clusters)) : NULL;
	for (const struct yaml_node *k = d->clusters ? list->first : NULL; k; k = k->next) {
		const struct yaml_node *name = config_find(k, "name");
		size_t mark = config_enter(p, "clusters");
		config_enter_index(p, d->n_clusters);
		if (name && name->kind == YAML_SCALAR && !name->null)
			d->clusters[d->n_clusters++] = (struct domain_cluster){.name = (char *)name->text, .at = k};
		else
			config_error(p, name ? name : k, "a cluster without name; expected a map with name, carry and endpoints");
		config_leave(p, mark);
	}
}

/* --- references --------------------------------------------------------------------------------------------------- */

typedef ssize_t finder(const struct document *d, const char *name);

static void check_names(struct config_parser *p, const struct document *d, const struct yaml_node *map, const char *key,
                        const struct config_strs *names, finder *find, const char *what)
{
	const struct yaml_node *list = config_find(map, key), *k;
	size_t i = 0, mark = config_enter(p, key);

	for (k = list && list->kind == YAML_LIST ? list->first : list; k && i < names->n; k = k->next, i++) {
		if (find(d, names->v[i]) < 0)
			config_error(p, k, "there is no %s \"%.80s\"; expected the name of one", what, names->v[i]);
		if (k == list)
			break;
	}
	config_leave(p, mark);
}

static void check_user(struct config_parser *p, const struct document *d, const struct domain_user *u)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+";
	size_t length = strlen(u->name);

	if (length > 60 || strspn(u->name, allowed) != length)
		config_error(p, config_find(u->at, "name"), "\"%.80s\" is no user name here; expected 1 to 60 letters, digits, '.', '_', "
		             "'-', '@' or '+'", u->name);
	if (!u->nodes.n && !u->groups.n)
		config_error(p, u->at, "the user enters nowhere; expected nodes: [...] or groups: [...]");
	check_names(p, d, u->at, "nodes", &u->nodes, document_node, "node");
	check_names(p, d, u->at, "groups", &u->groups, document_group, "group");
}

static void check_objective(struct config_parser *p, const struct document *d, struct domain_objective *o)
{
	share(p, o->at, "loss", o->loss_text, true, &o->loss);
	if (document_user(d, o->user) < 0)
		config_error(p, config_find(o->at, "user"), "there is no user \"%.80s\"; expected the name of one", o->user);
	check_names(p, d, o->at, "nodes", &o->nodes, document_node, "node");
	if (!o->limit && !o->loss.n)
		config_error(p, o->at, "neither limit nor loss; expected what is to be kept");
	if (!o->n_ways || o->n_ways > DOCUMENT_WAYS_MAX)
		config_error(p, config_find(o->at, "ways"), "%zu ways; expected 1 to %d", o->n_ways, DOCUMENT_WAYS_MAX);
	for (size_t i = 0; i < o->n_ways; i++) {
		for (size_t j = 0; j < i; j++)
			if (!strcmp(o->ways[i].cluster, o->ways[j].cluster))
				config_error(p, o->ways[i].at, "the way by \"%s\" is given twice; expected each cluster once", o->ways[i].cluster);
	}
}

static void check_references(struct config_parser *p, struct document *d)
{
	EACH(d, nodes, "nodes", check_names(p, d, k, "groups", &d->nodes[i].groups, document_group, "group"));
	EACH(d, users, "users", check_user(p, d, &d->users[i]));
	EACH(d, objectives, "objectives", check_objective(p, d, &d->objectives[i]));
}

static void check_objective_names(struct config_parser *p, struct document *d)
{
	make_index(p, "objectives", d->objectives, d->n_objectives, sizeof(*d->objectives), offsetof(struct domain_objective, at));
}

static void make_indexes(struct config_parser *p, struct document *d)
{
	d->indexes[GROUPS] = make_index(p, "groups", d->groups, d->n_groups, sizeof(*d->groups), offsetof(struct domain_group, at));
	d->indexes[NODES] = make_index(p, "nodes", d->nodes, d->n_nodes, sizeof(*d->nodes), offsetof(struct domain_node, at));
	d->indexes[USERS] = make_index(p, "users", d->users, d->n_users, sizeof(*d->users), offsetof(struct domain_user, at));
	d->indexes[CLUSTERS] =
		make_index(p, "clusters", d->clusters, d->n_clusters, sizeof(*d->clusters), offsetof(struct domain_cluster, at));
	check_objective_names(p, d);
}

/* --- the rollout -------------------------------------------------------------------------------------------------- */

static void check_canary(struct config_parser *p, const struct document *d, struct domain_rollout *r,
                         const struct yaml_node *at)
{
	if (r->canary.n == 1 && document_node(d, r->canary.v[0]) < 0 && read_share(r->canary.v[0], &r->canary_share))
		r->canary.n = 0;
	check_names(p, d, at, "canary", &r->canary, document_node, "node");
}

static bool rises(struct domain_share from, struct domain_share to)
{
	return from.percent != to.percent || to.n > from.n;
}

static void check_steps(struct config_parser *p, struct domain_rollout *r, const struct yaml_node *at)
{
	const struct yaml_node *list = config_find(at, "steps");
	struct domain_share *v = config_arena_alloc(p->arena, r->steps.n + 1, sizeof(*v)), all = {.percent = true, .n = 10000};

	for (size_t i = 0; v && i < r->steps.n; i++) {
		size_t mark = config_enter(p, "steps");
		if (!read_share(r->steps.v[i], &v[i]) || !v[i].n || (i && !rises(v[i - 1], v[i])))
			config_error(p, list, "\"%.40s\" is no further step; expected rising shares such as [10%%, 50%%, 100%%]",
			             r->steps.v[i]);
		config_leave(p, mark);
	}
	r->stages = (struct domain_shares){.v = v, .n = v ? r->steps.n : 0};
	if (v && (!r->steps.n || !v[r->steps.n - 1].percent || v[r->steps.n - 1].n != all.n))
		v[r->stages.n++] = all;
}

static void check_rollout(struct config_parser *p, struct document *d)
{
	static const struct yaml_node nothing = {.kind = YAML_MAP, .line = 1, .column = 1, .text = ""};
	const struct yaml_node *at = config_find(d->root, "rollout"), *health;
	struct domain_rollout *r = &d->rollout;
	size_t mark = config_enter(p, "rollout");

	r->staged = at && at->kind == YAML_MAP;
	if (!r->staged) {
		at = &nothing;
		r->stay = true;
		r->text.rejected = (char *)"10%";     /* all at once: what the rest does says more than the first */
		r->text.not_ready = (char *)"10%";
		r->text.silent = (char *)"100%";
		r->wait = 0;
	}
	health = config_find(at, "health");
	check_canary(p, d, r, at);
	check_steps(p, r, at);
	share(p, health ? health : at, "rejected", r->text.rejected, false, &r->health.rejected);
	share(p, health ? health : at, "not_ready", r->text.not_ready, false, &r->health.not_ready);
	share(p, health ? health : at, "silent", r->text.silent, false, &r->health.silent);
	share(p, health ? health : at, "probe_loss", r->text.probe_loss, true, &r->health.probe_loss);
	config_leave(p, mark);
}

/* --- the document ------------------------------------------------------------------------------------------------- */

static void check(struct config_parser *p, struct document *d, const char *domain)
{
	if (d->n_nodes > DOCUMENT_MEMBERS_MAX || d->n_users > DOCUMENT_MEMBERS_MAX)
		config_error(p, config_find(d->root, d->n_nodes > DOCUMENT_MEMBERS_MAX ? "nodes" : "users"),
		             "too many; expected at most %d nodes and as many users", DOCUMENT_MEMBERS_MAX);
	if (d->n_objectives > DOCUMENT_OBJECTIVES_MAX)
		config_error(p, config_find(d->root, "objectives"), "too many; expected at most %d", DOCUMENT_OBJECTIVES_MAX);
	if (domain && strcmp(domain, d->domain))
		config_error(p, config_find(d->root, "domain"), "\"%s\" is another domain; expected %s", d->domain, domain);
	make_indexes(p, d);
	if (p->errors)
		return;
	check_references(p, d);
	check_rollout(p, d);
}

struct document *document_parse(const char *name, const char *text, size_t length, const char *domain,
                                struct config_report *report)
{
	struct config_arena *arena = config_arena_new(0);
	struct config_parser p = {.name = name, .arena = arena, .report = report};
	struct yaml_node nowhere = {.line = 1, .column = 1};
	struct yaml_fault fault = {0};
	struct document *d = arena ? config_arena_alloc(arena, 1, sizeof(*d)) : NULL;

	if (!d)
		config_error(&p, &nowhere, "out of memory");
	else if (length > DOCUMENT_TEXT_MAX)
		config_error(&p, &nowhere, "the document has %zu bytes; expected at most 16 MiB", length);
	else if (!(d->root = yaml_parse(text, length, arena, &fault)))
		config_error(&p, &(struct yaml_node){.line = fault.line, .column = fault.column}, "%s", fault.text);
	if (!p.errors)
		config_parse_object(&p, &domain_document, d, d->root);
	if (!p.errors) {
		attach(&p, d);
		read_clusters(&p, d);
	}
	if (!p.errors)
		check(&p, d, domain);
	if (!p.errors && config_arena_failed(arena))
		config_error(&p, &nowhere, "out of memory");
	if (p.errors) {
		config_arena_free(arena);
		return NULL;
	}
	d->name = config_arena_text(arena, name, strlen(name));
	d->arena = arena;
	return d;
}

void document_free(struct document *d)
{
	if (d)
		config_arena_free(d->arena);
}
