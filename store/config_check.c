/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold across the document. Objects that had errors of their own may lack names: they are passed over. */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config_parser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- unique names --------------------------------------------------------------------------------------------------------- */

struct named {
	const char *name;
	const struct yaml_node *node;
	size_t index;
};

static int by_name(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* list: the YAML list; the name of its i-th object lies at base + i * size + offset. */
static void check_unique(struct config_parser *p, const char *key, const struct yaml_node *list, const void *base,
                         size_t n, size_t size, size_t offset)
{
	struct named *v = n ? calloc(n, sizeof(*v)) : NULL;
	size_t used = 0, i = 0;

	if (!v || !list)
		goto out;
	for (const struct yaml_node *k = list->first; k && i < n; k = k->next, i++) {
		const char *name = *(char *const *)(const void *)((const char *)base + i * size + offset);
		if (name)
			v[used++] = (struct named){.name = name, .node = k, .index = i};
	}
	qsort(v, used, sizeof(*v), by_name);
	for (i = 1; i < used; i++)
		if (!strcmp(v[i].name, v[i - 1].name)) {
			size_t mark = config_enter(p, key);
			config_enter_index(p, v[i].index);
			const struct yaml_node *at = config_find(v[i].node, "name");
			config_error(p, at ? at : v[i].node, "\"%s\" is taken by %s[%zu]; expected a name of its own", v[i].name, key,
			             v[i - 1].index);
			config_leave(p, mark);
		}
out:
	free(v);
}

#define UNIQUE(key, member, type)                                                                                     \
	check_unique(p, key, config_find(root, key), c->member, c->n_##member, sizeof(struct type), offsetof(struct type, name))

static void check_names(struct config_parser *p, struct config *c, const struct yaml_node *root)
{
	UNIQUE("users", users, config_user);
	UNIQUE("listeners", listeners, config_listener);
	UNIQUE("tunnels", tunnels, config_tunnel);
	UNIQUE("clusters", clusters, config_cluster);
	UNIQUE("address_spaces", spaces, config_space);
	UNIQUE("routes", routes, config_route);
	UNIQUE("policies", policies, config_policy);
	UNIQUE("probes", probes, config_probe);
}

/* Routes without a name are called by their position. */
static void name_routes(struct config_parser *p, struct config *c)
{
	for (size_t i = 0; i < c->n_routes; i++)
		if (!c->routes[i].name)
			c->routes[i].name = config_arena_format(p->arena, "routes[%zu]", i);
}

/* --- references ----------------------------------------------------------------------------------------------------------- */

static void check_cluster(struct config_parser *p, const struct config *c, const char *name, const struct yaml_node *node)
{
	const struct yaml_node *at = config_find(node, "cluster");

	if (name && !config_cluster(c, name)) {
		size_t mark = config_enter(p, "cluster");
		config_error(p, at ? at : node, "there is no cluster \"%s\"; expected the name of one of clusters", name);
		config_leave(p, mark);
	}
}

#define UDP_IDLE_MIN 120000u          /* ms (RFC 9298 3.1) */

static void check_idle(struct config_parser *p, const struct config_route *r, const struct yaml_node *node)
{
	const struct yaml_node *timeout = config_find(node, "timeout"), *at = timeout ? config_find(timeout, "idle") : NULL;
	bool udp = false;

	for (size_t i = 0; i < r->match.methods.n; i++)
		udp |= !strcmp(r->match.methods.v[i], "CONNECT-UDP");
	if (udp && at && r->timeout.idle && r->timeout.idle < UDP_IDLE_MIN) {
		size_t mark = config_enter(p, "timeout.idle");
		config_warning(p, at, "UDP tunnels that idle should live for 2m at least: programs do not notice that they are gone");
		config_leave(p, mark);
	}
}

static void check_routes(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t i = 0;

	for (const struct yaml_node *k = list ? list->first : NULL; k && i < c->n_routes; k = k->next, i++) {
		size_t mark = config_enter(p, "routes");
		config_enter_index(p, i);
		check_cluster(p, c, c->routes[i].cluster, k);
		check_idle(p, &c->routes[i], k);
		config_leave(p, mark);
	}
}

static void check_entries(struct config_parser *p, const struct config *c, const char *key, const struct yaml_node *map,
                          const struct config_space_entry *entries, size_t n)
{
	size_t i = 0;

	for (const struct yaml_node *k = map ? map->first : NULL; k && i < n; k = k->next, i++) {
		size_t mark = config_enter(p, key);
		config_enter(p, k->text);
		check_cluster(p, c, entries[i].cluster, k->value);
		config_leave(p, mark);
	}
}

static void check_spaces(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t i = 0;

	for (const struct yaml_node *k = list ? list->first : NULL; k && i < c->n_spaces; k = k->next, i++) {
		const struct config_space *s = &c->spaces[i];
		size_t mark = config_enter(p, "address_spaces");
		config_enter_index(p, i);
		check_entries(p, c, "names", config_find(k, "names"), s->names, s->n_names);
		check_entries(p, c, "prefixes", config_find(k, "prefixes"), s->prefixes, s->n_prefixes);
		config_leave(p, mark);
	}
}

/* A user has one space. */
static void check_space_users(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	struct named *v = NULL;
	size_t n = 0, i = 0, used = 0;

	for (size_t s = 0; s < c->n_spaces; s++)
		n += c->spaces[s].users.n;
	v = n ? calloc(n, sizeof(*v)) : NULL;
	for (const struct yaml_node *k = list ? list->first : NULL; v && k && i < c->n_spaces; k = k->next, i++)
		for (size_t u = 0; u < c->spaces[i].users.n; u++)
			v[used++] = (struct named){.name = c->spaces[i].users.v[u], .node = k, .index = i};
	if (v)
		qsort(v, used, sizeof(*v), by_name);
	for (i = 1; i < used; i++)
		if (!strcmp(v[i].name, v[i - 1].name)) {
			size_t mark = config_enter(p, "address_spaces");
			config_enter_index(p, v[i].index);
			config_error(p, v[i].node, "the user \"%s\" has an address space already, address_spaces[%zu]; expected one",
			             v[i].name, v[i - 1].index);
			config_leave(p, mark);
		}
	free(v);
}

/* --- addresses and identity -------------------------------------------------------------------------------------------------- */

enum { USES_TCP = 1, USES_UDP = 2 };

static unsigned uses(const struct config_listener *l)
{
	if (l->accept == CONFIG_TRANSPARENT)
		return (l->capture.tcp ? USES_TCP : 0) | (l->capture.udp ? USES_UDP : 0);
	return l->accept == CONFIG_UDP ? USES_UDP : USES_TCP;
}

/* One that has the same address before it in v, for the same protocol. */
static const struct named *taken(const struct config *c, const struct named *v, size_t i)
{
	for (size_t k = i; k-- && !strcmp(v[k].name, v[i].name);)
		if (uses(&c->listeners[v[k].index]) & uses(&c->listeners[v[i].index]))
			return &v[k];
	return NULL;
}

static void check_addresses(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t n = c->n_listeners + 1, i = 0, used = 0;
	struct named *v = calloc(n, sizeof(*v));
	const struct named *other;

	for (const struct yaml_node *k = list ? list->first : NULL; v && k && i < c->n_listeners; k = k->next, i++)
		if (c->listeners[i].address.text)
			v[used++] = (struct named){.name = c->listeners[i].address.text, .node = k, .index = i};
	if (v)
		qsort(v, used, sizeof(*v), by_name);
	for (i = 0; i < used; i++) {
		size_t mark = config_enter(p, "listeners");
		config_enter_index(p, v[i].index);
		if ((other = taken(c, v, i)))
			config_error(p, v[i].node, "the address %s is listeners[%zu]'s; expected one of its own", v[i].name, other->index);
		config_leave(p, mark);
		if (c->telemetry.metrics.text && !strcmp(v[i].name, c->telemetry.metrics.text) &&
		    uses(&c->listeners[v[i].index]) & USES_TCP)
			config_error(p, v[i].node, "the address %s is that of telemetry.metrics; expected one of its own",
			             c->telemetry.metrics.text);
	}
	free(v);
}

static const char *tls_lacks(const struct config *c, const struct config_tls *tls, bool certificate, bool authorities)
{
	if (!tls->enabled)
		return NULL;
	if (certificate && !tls->certificate && !c->identity.certificate)
		return "a certificate; expected identity: {...}, or certificate and key here";
	if (authorities && !tls->authorities.n && !c->identity.authorities.n)
		return "authorities to verify with; expected identity: {...}, or authorities here";
	return NULL;
}

static void check_tls(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	const struct yaml_node *list = config_find(root, "listeners"), *k;
	const char *lacks;
	size_t i = 0, mark;

	for (k = list ? list->first : NULL; k && i < c->n_listeners; k = k->next, i++) {
		const struct config_listener *l = &c->listeners[i];
		lacks = tls_lacks(c, &l->tls, true, l->accept == CONFIG_OVERLAY);
		mark = config_enter(p, "listeners");
		config_enter_index(p, i);
		if (lacks)
			config_error(p, k, "TLS lacks %s", lacks);
		config_leave(p, mark);
	}
	list = config_find(root, "clusters");
	i = 0;
	for (k = list ? list->first : NULL; k && i < c->n_clusters; k = k->next, i++) {
		lacks = tls_lacks(c, &c->clusters[i].tls, !c->clusters[i].tls.no_identity, true);
		mark = config_enter(p, "clusters");
		config_enter_index(p, i);
		if (lacks)
			config_error(p, k, "TLS lacks %s", lacks);
		config_leave(p, mark);
	}
}

/* --- matches name listeners or devices ---------------------------------------------------------------------------------------- */

/* What comes in by a TUN device has the device for a listener. */
static bool is_entrance(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_tunnels; i++)
		if (!strcmp(c->tunnels[i].name, name))
			return true;
	return !strcmp(name, "*") || config_listener(c, name) || config_is_implied(c, name);
}

static void check_match(struct config_parser *p, const struct config *c, const struct config_match *m,
                        const struct yaml_node *node)
{
	for (size_t i = 0; i < m->listeners.n; i++)
		if (!is_entrance(c, m->listeners.v[i]))
			config_error(p, node, "the match names a listener \"%s\", which there is not; expected one of listeners or "
			             "tunnels", m->listeners.v[i]);
}

/* Packets follow their tunnel: no route is asked about them. */
static void check_route_match(struct config_parser *p, const struct config *c, const struct config_match *m,
                              const struct yaml_node *node)
{
	check_match(p, c, m, node);
	if (m->ip.present)
		config_error(p, node, "ip is about packets inside a tunnel, which go where it goes; expected it in policies only");
}

static void check_matches(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	const struct yaml_node *list = config_find(root, "routes"), *k;
	size_t i = 0;

	for (k = list ? list->first : NULL; k && i < c->n_routes; k = k->next, i++)
		check_route_match(p, c, &c->routes[i].match, k);
	list = config_find(root, "policies");
	i = 0;
	for (k = list ? list->first : NULL; k && i < c->n_policies; k = k->next, i++) {
		check_match(p, c, &c->policies[i].match, k);
		for (size_t r = 0; r < c->policies[i].n_rules; r++)
			check_match(p, c, &c->policies[i].rules[r].match, k);
	}
}

void config_check(struct config_parser *p, struct config *c, const struct yaml_node *root)
{
	config_index(c);
	check_names(p, c, root);
	name_routes(p, c);
	check_routes(p, c, config_find(root, "routes"));
	check_spaces(p, c, config_find(root, "address_spaces"));
	check_space_users(p, c, config_find(root, "address_spaces"));
	check_addresses(p, c, config_find(root, "listeners"));
	check_tls(p, c, root);
	check_matches(p, c, root);
	config_check_tunnels(p, c, root);
	config_check_control(p, c, root);
}
