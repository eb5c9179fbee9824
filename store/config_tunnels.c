/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold of TUN devices, their networks and the clusters that leave through them. */
#include "store/config_parser.h"

#include <stdlib.h>
#include <string.h>

#define DEVICE_NAME_MAX 15        /* IFNAMSIZ less its NUL */

static const struct yaml_node *at(const struct yaml_node *node, const char *key)
{
	const struct yaml_node *value = config_find(node, key);

	return value ? value : node;
}

static bool overlap(const struct config_prefix *a, const struct config_prefix *b)
{
	return a->bits <= b->bits ? config_prefix_contains(a, &b->address) : config_prefix_contains(b, &a->address);
}

/* A prefix of a list that is given somewhere, for sorting: one that contains another comes before it. */
struct placed {
	struct config_prefix prefix;
	const char *device;
	const struct yaml_node *node;
	size_t owner, index;          /* in tunnels or clusters; in that one's list */
};

static int by_prefix(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;
	int order = memcmp(&x->prefix.address, &y->prefix.address, sizeof(x->prefix.address));

	if (order)
		return order;
	if (x->prefix.bits != y->prefix.bits)
		return x->prefix.bits < y->prefix.bits ? -1 : 1;
	return x->owner != y->owner ? (x->owner < y->owner ? -1 : 1) : (x->index > y->index) - (x->index < y->index);
}

static int by_device(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;
	int order = strcmp(x->device, y->device);

	return order ? order : by_prefix(a, b);
}

/* --- one device ---------------------------------------------------------------------------------------------------------- */

static void check_name(struct config_parser *p, const char *name, const struct yaml_node *node)
{
	static const char *const taken[] = {".", "..", "all", "default", "lo"};   /* directories and entries below /proc/sys/net */

	if (strlen(name) > DEVICE_NAME_MAX)
		config_error(p, node, "\"%.80s\" is too long for a device; expected at most %d bytes", name, DEVICE_NAME_MAX);
	for (unsigned i = 0; i < sizeof(taken) / sizeof(*taken); i++)
		if (!strcmp(name, taken[i]))
			config_error(p, node, "a device cannot be called \"%s\"; expected another name", name);
}

static bool names_user(const struct config_pairs *headers)
{
	for (size_t i = 0; i < headers->n; i++)
		if (!strcmp(headers->v[i].name, "user"))
			return true;
	return false;
}

static void check_networks(struct config_parser *p, const struct config_tunnel *t, const struct yaml_node *node)
{
	const struct yaml_node *list = config_find(node, "networks");
	size_t i = 0;
	bool assigns = false;

	for (const struct yaml_node *k = list ? list->first : NULL; k && i < t->n_networks; k = k->next, i++) {
		size_t mark = config_enter(p, "networks");
		config_enter_index(p, i);
		assigns |= !t->networks[i].over_udp.text;
		if (t->require_user && !names_user(&t->networks[i].add_headers))
			config_error(p, k, "names no user, and require_user is true; expected add_headers: {user: NAME}");
		config_leave(p, mark);
	}
	if (t->assigned && !assigns) {
		size_t mark = config_enter(p, "addresses");
		config_error(p, at(node, "addresses"), "assigned, and no far end to assign any; expected a network without over_udp");
		config_leave(p, mark);
	}
}

static void check_exclude(struct config_parser *p, const struct config_tunnel *t, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;

	for (size_t i = 0; k && i < t->exclude.n; i++, k = k->next) {
		bool inside = false;
		for (size_t n = 0; n < t->n_networks && !inside; n++)
			inside = overlap(&t->exclude.v[i], &t->networks[n].prefix);
		if (!inside) {
			size_t mark = config_enter(p, "exclude");
			config_warning(p, k, "lies in none of networks, and excludes nothing");
			config_leave(p, mark);
		}
	}
}

void config_finish_tunnel(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_tunnel *t = base;

	check_name(p, t->name, at(node, "name"));
	check_networks(p, t, node);
	if (t->n_networks && !t->assigned && !t->addresses.n)
		config_warning(p, node, "no addresses: packets bear another interface's, which a far end drops; expected addresses: assigned, "
		                        "or a list");
	if (t->exclude.n)
		check_exclude(p, t, at(node, "exclude"));
}

/* --- all networks: a prefix leads into one device ------------------------------------------------------------------------- */

static void report_twice(struct config_parser *p, const struct placed *a, const struct placed *b)
{
	size_t mark = config_enter(p, "tunnels");

	config_enter_index(p, b->owner);
	config_enter(p, "networks");
	config_enter_index(p, b->index);
	if (a->owner == b->owner)
		config_error(p, b->node, "the prefix is networks[%zu]'s; expected one of its own", a->index);
	else
		config_warning(p, b->node, "the prefix also leads into %s (tunnels[%zu]): which of them gets packets is up to the kernel",
		               a->device, a->owner);
	config_leave(p, mark);
}

static void check_prefixes(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t n = 0, used = 0, i = 0;
	struct placed *v;

	for (size_t t = 0; t < c->n_tunnels; t++)
		n += c->tunnels[t].n_networks;
	v = n ? calloc(n, sizeof(*v)) : NULL;
	for (const struct yaml_node *k = list ? list->first : NULL; v && k && i < c->n_tunnels; k = k->next, i++) {
		const struct config_tunnel *t = &c->tunnels[i];
		const struct yaml_node *networks = config_find(k, "networks"), *m = networks ? networks->first : NULL;
		for (size_t w = 0; m && t->name && w < t->n_networks; w++, m = m->next)
			v[used++] = (struct placed){.prefix = t->networks[w].prefix, .device = t->name, .node = m, .owner = i, .index = w};
	}
	if (v)
		qsort(v, used, sizeof(*v), by_prefix);
	for (i = 1; i < used; i++)
		if (v[i].prefix.bits == v[i - 1].prefix.bits &&
		    !memcmp(&v[i].prefix.address, &v[i - 1].prefix.address, sizeof(v[i].prefix.address)))
			report_twice(p, &v[i - 1], &v[i]);
	free(v);
}

/* --- clusters: devices and pools -------------------------------------------------------------------------------------------- */

static const struct config_tunnel *find_device(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->n_tunnels; i++)
		if (c->tunnels[i].name && !strcmp(c->tunnels[i].name, name))
			return &c->tunnels[i];
	return NULL;
}

static void check_devices(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t i = 0;

	for (const struct yaml_node *k = list ? list->first : NULL; k && i < c->n_clusters; k = k->next, i++) {
		size_t mark = config_enter(p, "clusters");
		config_enter_index(p, i);
		config_enter(p, "device");
		if (c->clusters[i].device && !find_device(c, c->clusters[i].device))
			config_error(p, at(k, "device"), "there is no device \"%s\"; expected the name of one of tunnels",
			             c->clusters[i].device);
		config_leave(p, mark);
	}
}

static void check_overlaps(struct config_parser *p, const struct config *c, const struct placed *v, size_t n)
{
	const struct placed *widest = v;

	for (size_t i = 1; i < n; i++) {
		if (strcmp(widest->device, v[i].device) || !overlap(&widest->prefix, &v[i].prefix)) {
			widest = &v[i];
			continue;
		}
		const struct placed *later = widest->owner > v[i].owner ? widest : &v[i], *first = later == widest ? &v[i] : widest;
		size_t mark = config_enter(p, "clusters");
		config_enter_index(p, later->owner);
		config_enter(p, "pool");
		config_error(p, later->node, "overlaps with the pool of %s on the same device; expected addresses of its own",
		             c->clusters[first->owner].name ? c->clusters[first->owner].name : "another cluster");
		config_leave(p, mark);
	}
}

static void check_pools(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t n = 0, used = 0, i = 0;
	struct placed *v;

	for (size_t k = 0; k < c->n_clusters; k++)
		n += c->clusters[k].pool.n;
	v = n ? calloc(n, sizeof(*v)) : NULL;
	for (const struct yaml_node *k = list ? list->first : NULL; v && k && i < c->n_clusters; k = k->next, i++) {
		const struct config_cluster *cluster = &c->clusters[i];
		const struct yaml_node *pool = config_find(k, "pool");
		const struct yaml_node *m = pool && pool->kind == YAML_LIST ? pool->first : pool;
		for (size_t w = 0; m && cluster->device && w < cluster->pool.n; w++, m = m->next)
			v[used++] = (struct placed){.prefix = cluster->pool.v[w], .device = cluster->device, .node = m, .owner = i, .index = w};
	}
	if (v) {
		qsort(v, used, sizeof(*v), by_device);
		check_overlaps(p, c, v, used);
	}
	free(v);
}

void config_check_tunnels(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	if (!p->errors)                   /* a prefix that was not readable is ::/0 */
		check_prefixes(p, c, config_find(root, "tunnels"));
	check_devices(p, c, config_find(root, "clusters"));
	check_pools(p, c, config_find(root, "clusters"));
}
