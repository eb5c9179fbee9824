/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes share: clusters with the addresses of nodes, users' spaces and policies, groups over defaults. */
#include "store/config_arena.h"
#include "store/yaml_merge.h"
#include "workers/controller/compose_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOWHERE "127.0.0.1:9"         /* discard: a cluster must have an endpoint; nothing answers there */
#define NAMES_MAX 4000                /* characters of server_name that list nodes */

/* --- clusters ----------------------------------------------------------------------------------------------------- */

static bool is_drained(const struct compose *c, const char *node)
{
	return json_is_true(json_object_get(json_object_get(c->in->overrides, node), "drained"));
}

static bool is_revoked(const struct compose *c, const char *node)
{
	return json_object_get(c->in->revoked, node);
}

struct resolving {
	struct compose *c;
	struct config_arena *arena;
	struct config_parser *p;
	const struct yaml_node *cluster;
	struct tree_tail out, drained;
	struct { const char *v[64]; size_t n; bool more; } names;   /* whose certificates count */
	bool others;                             /* endpoints that are no nodes */
};

static void bad_endpoint(struct resolving *r, const struct yaml_node *at, const char *what, const char *name)
{
	const struct yaml_node *cluster = config_find(r->cluster, "name");
	size_t mark = config_enter(r->p, "clusters");

	config_enter(r->p, cluster && cluster->kind == YAML_SCALAR ? cluster->text : "?");
	config_enter(r->p, "endpoints");
	config_error(r->p, at, "%s \"%.80s\"; expected {node: NAME} of a node with an address, and weight", what, name);
	config_leave(r->p, mark);
}

static void resolve_node(struct resolving *r, const struct yaml_node *endpoint)
{
	const struct yaml_node *name = config_find(endpoint, "node"), *weight = config_find(endpoint, "weight");
	ssize_t i = name->kind == YAML_SCALAR ? document_node(r->c->d, name->text) : -1;
	const struct domain_node *node = i >= 0 ? &r->c->d->nodes[i] : NULL;

	for (const struct yaml_node *k = endpoint->first; k; k = k->next)
		if (strcmp(k->text, "node") && strcmp(k->text, "weight"))
			bad_endpoint(r, k, "unknown key", k->text);
	if (!node || !node->address.text) {
		bad_endpoint(r, name, node ? "there is no address of node" : "there is no node", name->text);
		return;
	}
	if (is_revoked(r->c, node->name))
		return;
	if (r->names.n < 64)
		r->names.v[r->names.n++] = node->name;
	else
		r->names.more = true;
	struct yaml_node *out = tree_map(r->arena, endpoint);
	tree_set_text(r->arena, out, "address", node->address.text);
	if (weight)
		tree_set(r->arena, out, "weight", weight);
	tree_push(r->arena, is_drained(r->c, node->name) ? &r->drained : &r->out, out);
}

static bool is_one_of(const struct yaml_node *node, const char *a, const char *b)
{
	return node && node->kind == YAML_SCALAR && (!strcmp(node->text, a) || !strcmp(node->text, b));
}

/* Certificates name nodes: what is not said otherwise is that it must be one of these, whatever of them is drained. */
static void add_name(struct resolving *r, struct yaml_node *cluster)
{
	const struct yaml_node *tls = config_find(cluster, "tls");
	char text[NAMES_MAX];
	size_t n = (size_t)snprintf(text, sizeof(text), "hermes://%s/node/", r->c->d->domain), start = n;
	struct yaml_node *map;

	if (r->others || !r->names.n || (tls && (tls->kind != YAML_MAP || config_find(tls, "server_name"))) ||
	    (!tls && !is_one_of(config_find(cluster, "carry"), "h2", "h3")))
		return;
	for (size_t i = 0; i < r->names.n && n < sizeof(text); i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i ? "," : "", r->names.v[i]);
	if (r->names.more || n >= sizeof(text))
		snprintf(text + start, sizeof(text) - start, "*");
	map = tls ? tree_copy(r->arena, tls) : tree_map(r->arena, cluster);
	tree_set_text(r->arena, map, "server_name", config_arena_text(r->arena, text, strlen(text)));
	tree_set(r->arena, cluster, "tls", map);
}

static bool names_nodes(const struct yaml_node *endpoints)
{
	for (const struct yaml_node *k = endpoints && endpoints->kind == YAML_LIST ? endpoints->first : NULL; k; k = k->next)
		if (config_find(k, "node"))
			return true;
	return false;
}

const struct yaml_node *compose_resolve(struct compose *c, struct config_arena *arena, struct config_parser *p,
                                        const struct yaml_node *cluster)
{
	const struct yaml_node *endpoints = config_find(cluster, "endpoints");
	struct resolving r = {.c = c, .arena = arena, .p = p, .cluster = cluster};
	struct yaml_node *copy;

	if (!names_nodes(endpoints))
		return cluster;
	r.out.list = tree_list(arena, endpoints);
	r.drained.list = tree_list(arena, endpoints);
	for (const struct yaml_node *k = endpoints->first; k; k = k->next) {
		if (config_find(k, "node")) {
			resolve_node(&r, k);
			continue;
		}
		r.others = true;
		tree_push(arena, &r.out, k);
	}
	copy = tree_copy(arena, cluster);
	if (!copy || !r.out.list || !r.drained.list)
		return NULL;
	if (!r.out.list->n && r.drained.list->n)         /* better those than none */
		r.out = r.drained;
	else if (!r.out.list->n)
		tree_push(arena, &r.out, tree_scalar(arena, endpoints, NOWHERE));
	tree_set(arena, copy, "endpoints", r.out.list);
	add_name(&r, copy);
	return copy;
}

static void make_clusters(struct compose *c, struct config_parser *p)
{
	c->clusters = config_arena_alloc(c->arena, c->d->n_clusters + 1, sizeof(*c->clusters));
	c->wanted = config_arena_alloc(c->arena, c->d->n_clusters + 1, sizeof(*c->wanted));
	for (size_t i = 0; c->clusters && i < c->d->n_clusters; i++)
		c->clusters[i] = compose_resolve(c, c->arena, p, c->d->clusters[i].at);
}

/* --- users -------------------------------------------------------------------------------------------------------- */

/* '@' and '+' are no part of the configuration's names. */
static char *plain_name(struct config_arena *arena, const char *user, const char *more)
{
	char *name = config_arena_format(arena, "%s%s%s", user, more ? "." : "", more ? more : "");

	for (char *k = name; k && *k; k++)
		if (*k == '@' || *k == '+')
			*k = '_';
	return name;
}

static struct yaml_node *one_user(struct config_arena *arena, const struct yaml_node *at, const char *user)
{
	struct yaml_node *list = tree_list(arena, at);

	if (list)
		tree_append(arena, list, tree_scalar(arena, at, user));
	return list;
}

static bool is_prefix(const char *service)
{
	struct config_prefix prefix;
	const char *why;

	return !config_prefix_parse(service, &prefix, &why);
}

/* "VIDEO:443": an address space knows names without port. */
static char *host_of(struct config_arena *arena, const char *service)
{
	const char *colon = strrchr(service, ':');

	return config_arena_text(arena, service, colon ? (size_t)(colon - service) : strlen(service));
}

static void steer_service(struct compose *c, const struct domain_objective *o, const char *service, struct yaml_node *space)
{
	const char *kind = is_prefix(service) ? "prefixes" : "names", *choice = compose_choice(o, c->in);
	const char *key = *kind == 'p' ? service : host_of(c->arena, service);
	const struct yaml_node *before = config_find(space, kind), *own = key ? config_find(before, key) : NULL;
	struct yaml_node *map = before && before->kind == YAML_MAP ? tree_copy(c->arena, before) : tree_map(c->arena, o->at);
	struct yaml_node *entry = tree_map(c->arena, o->at), *headers;

	for (size_t i = 0; i < o->n_ways; i++) {
		if (strcmp(o->ways[i].cluster, choice))
			continue;
		headers = tree_map(c->arena, o->ways[i].at);
		tree_set(c->arena, entry, "cluster", tree_scalar(c->arena, o->ways[i].at, o->ways[i].cluster));
		for (size_t h = 0; h < o->ways[i].add_headers.n; h++)
			tree_set_text(c->arena, headers, o->ways[i].add_headers.v[h].name, o->ways[i].add_headers.v[h].value);
		if (headers && headers->n)
			tree_set(c->arena, entry, "add_headers", headers);
	}
	tree_set(c->arena, map, key ? key : "", yaml_merge_deep(entry, own && own->kind == YAML_MAP ? own : NULL, c->arena));
	tree_set(c->arena, space, kind, map);
}

static void user_space(struct compose *c, size_t user)
{
	const struct domain_user *u = &c->d->users[user];
	struct yaml_node *space = tree_map(c->arena, u->space ? u->space : u->at);
	bool any = u->space && u->space->n;

	tree_set_text(c->arena, space, "name", plain_name(c->arena, u->name, NULL));
	tree_set(c->arena, space, "users", one_user(c->arena, u->at, u->name));
	for (const struct yaml_node *k = u->space ? u->space->first : NULL; k; k = k->next)
		tree_set(c->arena, space, k->text, k->value);
	for (size_t i = 0; i < c->d->n_objectives; i++) {
		const struct domain_objective *o = &c->d->objectives[i];
		if (strcmp(o->user, u->name))
			continue;
		any = true;
		for (size_t s = 0; s < o->services.n; s++)
			steer_service(c, o, o->services.v[s], space);
	}
	c->users[user].space = any ? space : NULL;
}

/* The policy asked about this user only. */
static const struct yaml_node *restricted(struct compose *c, struct config_parser *p, const struct domain_user *u,
                                          const struct yaml_node *policy)
{
	const struct yaml_node *match = config_find(policy, "match"), *name = config_find(policy, "name");
	const struct yaml_node *user = match ? config_find(match, "user") : NULL;
	struct yaml_node *copy = tree_copy(c->arena, policy), *own = NULL;

	if (policy->kind != YAML_MAP || (match && match->kind != YAML_MAP && !match->null) || (name && name->kind != YAML_SCALAR)) {
		config_error(p, policy, "not a policy; expected a map with name, match and rules");
		return NULL;
	}
	if (user && (user->kind != YAML_SCALAR || strcmp(user->text, u->name))) {
		config_error(p, user, "a policy of the user \"%s\" is about others; expected match without user", u->name);
		return NULL;
	}
	own = match && match->kind == YAML_MAP ? tree_copy(c->arena, match) : tree_map(c->arena, policy);
	tree_set_text(c->arena, own, "user", u->name);
	tree_set(c->arena, copy, "match", own);
	if (name)
		tree_set(c->arena, copy, "name", tree_scalar(c->arena, name, plain_name(c->arena, u->name, name->text)));
	return copy;
}

static void user_policies(struct compose *c, struct config_parser *p, size_t user)
{
	const struct domain_user *u = &c->d->users[user];
	struct tree_tail tail = {.list = u->policies ? tree_list(c->arena, u->policies) : NULL};
	size_t i = 0, mark = config_enter(p, "users");

	config_enter_index(p, user);
	config_enter(p, "policies");
	for (const struct yaml_node *k = tail.list ? u->policies->first : NULL; k; k = k->next) {
		size_t inner = config_enter_index(p, i++);
		tree_push(c->arena, &tail, restricted(c, p, u, k));
		config_leave(p, inner);
	}
	config_leave(p, mark);
	c->users[user].policies = tail.list && tail.list->n ? tail.list : NULL;
}

static void make_users(struct compose *c, struct config_parser *p)
{
	c->users = config_arena_alloc(c->arena, c->d->n_users + 1, sizeof(*c->users));
	for (size_t i = 0; c->users && i < c->d->n_users; i++) {
		const struct domain_user *u = &c->d->users[i];
		if (u->password) {
			struct yaml_node *user = tree_map(c->arena, u->at);
			tree_set_text(c->arena, user, "name", u->name);
			tree_set(c->arena, user, "password", config_find(u->at, "password"));
			c->users[i].password = user;
		}
		user_space(c, i);
		user_policies(c, p, i);
	}
}

/* --- who enters where --------------------------------------------------------------------------------------------- */

struct entries { size_t *user, *node; size_t n, room; bool failed; };

static void enter(struct entries *e, size_t user, size_t node)
{
	if (e->n == e->room && e->room < COMPOSE_ENTRIES_MAX) {
		size_t room = e->room ? 2 * e->room : 1024;
		size_t *users = realloc(e->user, room * sizeof(*users)), *nodes;
		e->user = users ? users : e->user;
		nodes = realloc(e->node, room * sizeof(*nodes));
		e->node = nodes ? nodes : e->node;
		e->room = users && nodes ? room : e->room;
	}
	if (e->n == e->room) {
		e->failed = true;
		return;
	}
	e->user[e->n] = user;
	e->node[e->n++] = node;
}

/* Members of each group, one after the other: of g from members[first[g + 1]] up to members[first[g + 2]]. */
static void list_members(const struct document *d, size_t *first, size_t *members)
{
	for (size_t i = 0; i < d->n_nodes; i++)
		for (size_t g = 0; g < d->nodes[i].groups.n; g++)
			first[document_group(d, d->nodes[i].groups.v[g]) + 1]++;
	for (size_t g = 0; g < d->n_groups; g++)
		first[g + 1] += first[g];
	for (size_t i = d->n_nodes; i-- > 0;)
		for (size_t g = 0; g < d->nodes[i].groups.n; g++)
			members[--first[document_group(d, d->nodes[i].groups.v[g]) + 1]] = i;
}

static void collect(const struct document *d, const size_t *first, const size_t *members, size_t *last, struct entries *e)
{
	for (size_t u = 0; u < d->n_users && !e->failed; u++) {
		const struct domain_user *user = &d->users[u];
		for (size_t i = 0; i < user->nodes.n; i++) {
			size_t node = (size_t)document_node(d, user->nodes.v[i]);
			if (last[node] != u + 1)
				enter(e, u, node);
			last[node] = u + 1;
		}
		for (size_t i = 0; i < user->groups.n; i++) {
			size_t g = (size_t)document_group(d, user->groups.v[i]);
			for (size_t m = first[g + 1]; m < first[g + 2]; m++) {
				if (last[members[m]] != u + 1)
					enter(e, u, members[m]);
				last[members[m]] = u + 1;
			}
		}
	}
}

static void make_entries(struct compose *c, struct config_parser *p)
{
	const struct document *d = c->d;
	size_t total = 0;
	struct entries e = {0};

	for (size_t i = 0; i < d->n_nodes; i++)
		total += d->nodes[i].groups.n;
	size_t *first = calloc(d->n_groups + 2, sizeof(*first)), *members = calloc(total + 1, sizeof(*members));
	size_t *last = calloc(d->n_nodes + 1, sizeof(*last));
	c->entering = config_arena_alloc(c->arena, d->n_nodes + 1, sizeof(*c->entering));
	c->n_entering = config_arena_alloc(c->arena, d->n_nodes + 1, sizeof(*c->n_entering));
	if (!first || !members || !last || !c->entering || !c->n_entering)
		goto out;
	list_members(d, first, members);
	first[d->n_groups + 1] = total;
	collect(d, first, members, last, &e);
	if (e.failed)
		config_error(p, config_find(d->root, "users"), "the users enter at too many places; expected at most %zu in all",
		             COMPOSE_ENTRIES_MAX);
	for (size_t i = 0; i < e.n; i++)
		c->n_entering[e.node[i]]++;
	for (size_t i = 0; i < d->n_nodes; i++) {
		c->entering[i] = config_arena_alloc(c->arena, c->n_entering[i] + 1, sizeof(**c->entering));
		c->n_entering[i] = 0;
	}
	for (size_t i = 0; i < e.n; i++)
		if (c->entering[e.node[i]])
			c->entering[e.node[i]][c->n_entering[e.node[i]]++] = e.user[i];
out:
	free(e.user);
	free(e.node);
	free(first);
	free(members);
	free(last);
}

/* --- groups ------------------------------------------------------------------------------------------------------- */

static const struct yaml_node *base_of(struct compose *c, const struct domain_node *node)
{
	const struct yaml_node *base = c->d->defaults;

	for (size_t i = 0; i < node->groups.n; i++)
		base = yaml_merge(c->d->groups[document_group(c->d, node->groups.v[i])].config, base, c->arena);
	return base;
}

static void make_bases(struct compose *c)
{
	json_t *known = json_object();            /* the groups' names, joined -> position of a node that has them */
	char *key = NULL;
	size_t size = 0;

	c->bases = config_arena_alloc(c->arena, c->d->n_nodes + 1, sizeof(*c->bases));
	for (size_t i = 0; c->bases && known && i < c->d->n_nodes; i++) {
		const struct domain_node *node = &c->d->nodes[i];
		FILE *out = open_memstream(&key, &size);
		for (size_t g = 0; out && g < node->groups.n; g++)
			fprintf(out, "%s,", node->groups.v[g]);
		if (out)
			fclose(out);
		json_t *other = key ? json_object_get(known, key) : NULL;
		c->bases[i] = other ? c->bases[json_integer_value(other)] : base_of(c, node);
		if (key && !other)
			json_object_set_new(known, key, json_integer((json_int_t)i));
		free(key);
		key = NULL;
	}
	json_decref(known);
}

/* --- objectives --------------------------------------------------------------------------------------------------- */

const struct yaml_node *compose_probe(struct config_arena *arena, const struct domain_objective *o, const struct domain_way *way)
{
	struct yaml_node *probe = tree_map(arena, way->at), *headers = tree_map(arena, way->at);
	const char *first = o->services.v[0], *colon = strrchr(first, ':');
	char name[64];

	compose_probe_name(o, way, name);
	tree_set_text(arena, probe, "name", config_arena_text(arena, name, strlen(name)));
	tree_set_text(arena, probe, "cluster", way->cluster);
	if (o->target || (colon && !is_prefix(first)))
		tree_set_text(arena, probe, "target", o->target ? o->target : first);
	if (o->method)
		tree_set_text(arena, probe, "method", o->method);
	tree_set_text(arena, headers, "user", o->user);
	for (size_t i = 0; i < way->add_headers.n; i++)
		tree_set_text(arena, headers, way->add_headers.v[i].name, way->add_headers.v[i].value);
	tree_set(arena, probe, "add_headers", headers);
	tree_set_text(arena, probe, "interval", config_arena_format(arena, "%ums", o->interval));
	return probe;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* In the order of names. */
static const struct yaml_node *revoked_list(struct compose *c)
{
	static const struct yaml_node nowhere = {.line = 1, .column = 1};
	struct tree_tail tail = {.list = tree_list(c->arena, &nowhere)};
	size_t n = json_object_size(c->in->revoked), i = 0;
	const char **names = n ? calloc(n, sizeof(*names)) : NULL, *name;
	json_t *value;

	if (!names)
		return NULL;
	json_object_foreach(c->in->revoked, name, value)
		names[i++] = name;
	qsort(names, n, sizeof(*names), by_text);
	for (i = 0; i < n; i++)
		tree_push(c->arena, &tail, tree_scalar(c->arena, &nowhere, config_arena_text(c->arena, names[i], strlen(names[i]))));
	free(names);
	return tail.list;
}

void compose_make_parts(struct compose *c, struct config_parser *p)
{
	make_clusters(c, p);
	make_users(c, p);
	make_entries(c, p);
	make_bases(c);
	c->revoked = revoked_list(c);
}
