/* SPDX-License-Identifier: Apache-2.0 */
/* The keys control, controller and probes: what must hold of them, and the listeners, clusters and routes that the first two imply. */
#include "store/config_arena.h"
#include "store/config_pack.h"
#include "store/config_parser.h"

#include <stdlib.h>
#include <string.h>

#define KEY_BASE64 44             /* characters of 32 bytes in base64, padding included */
#define ATTEMPTS_MAX 10
#define RESERVED "hermes-"

static const struct yaml_node *at(const struct yaml_node *node, const char *key)
{
	const struct yaml_node *value = config_find(node, key);

	return value ? value : node;
}

/* --- within one object ----------------------------------------------------------------------------------------------------- */

/* RFC 4648 4: 43 characters that hold 32 bytes (the last one's two low bits are zero), then the padding. */
static bool is_key(const char *text)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	if (strlen(text) != KEY_BASE64 || strspn(text, digits) != KEY_BASE64 - 1 || text[KEY_BASE64 - 1] != '=')
		return false;
	return !((strchr(digits, text[KEY_BASE64 - 2]) - digits) & 3);
}

void config_finish_control(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_control *c = base;

	if (!is_key(c->key)) {
		size_t mark = config_enter(p, "key");
		config_error(p, at(node, "key"), "not a public key; expected 32 bytes in base64, as `hermes-admin enroll` writes it");
		config_leave(p, mark);
	}
}

static void check_etcd(struct config_parser *p, const struct config_controller *c, const struct yaml_node *node)
{
	const struct yaml_node *list = at(node, "etcd"), *k = list->kind == YAML_LIST ? list->first : list;
	struct config_address address;
	const char *why = "";

	for (size_t i = 0; k && i < c->etcd.n; i++, k = list->kind == YAML_LIST ? k->next : NULL) {
		size_t mark = config_enter(p, "etcd");
		config_enter_index(p, i);
		if (config_address_parse(c->etcd.v[i], true, p->arena, &address, &why))
			config_error(p, k, "\"%.120s\": %s; expected HOST:PORT or unix:/PATH", c->etcd.v[i], why);
		else if (address.host && !*address.host)
			config_error(p, k, "\"%.120s\": the host is missing; expected HOST:PORT or unix:/PATH", c->etcd.v[i]);
		config_leave(p, mark);
	}
}

void config_finish_controller(struct config_parser *p, void *base, const struct yaml_node *node)
{
	struct config_controller *c = base;

	c->enabled = true;
	if (c->address.unix_path) {
		size_t mark = config_enter(p, "address");
		config_error(p, at(node, "address"), "a Unix socket; expected ADDRESS:PORT, [V6]:PORT or :PORT");
		config_leave(p, mark);
	}
	check_etcd(p, c, node);
}

void config_finish_probe(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_probe *probe = base;
	struct config_address address;
	const char *why = "the host is missing";

	if (!probe->cluster && !probe->target)
		config_error(p, node, "nothing to look towards; expected cluster, target or both");
	if (probe->target && (config_address_parse(probe->target, true, p->arena, &address, &why) || address.unix_path ||
	                      !*address.host)) {
		size_t mark = config_enter(p, "target");
		config_error(p, at(node, "target"), "\"%.120s\": %s; expected HOST:PORT", probe->target,
		             address.unix_path ? "a Unix socket cannot be asked for" : why);
		config_leave(p, mark);
	}
}

/* --- across the document ----------------------------------------------------------------------------------------------------- */

static void check_reserved(struct config_parser *p, const char *key, const struct yaml_node *root)
{
	const struct yaml_node *list = config_find(root, key), *name;
	size_t i = 0;

	for (const struct yaml_node *k = list && list->kind == YAML_LIST ? list->first : NULL; k; k = k->next, i++) {
		name = config_find(k, "name");
		if (!name || name->kind != YAML_SCALAR || strncmp(name->text, RESERVED, strlen(RESERVED)))
			continue;
		size_t mark = config_enter(p, key);
		config_enter_index(p, i);
		config_enter(p, "name");
		config_error(p, name, "\"%.80s\" begins with " RESERVED ", which is reserved; expected another name", name->text);
		config_leave(p, mark);
	}
}

static void check_identity(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	if (c->identity.certificate)
		return;
	if (c->control.n_endpoints)
		config_error(p, at(root, "control"), "control needs the node's certificate; expected identity: {...} too");
	if (c->controller.enabled)
		config_error(p, at(root, "controller"), "controller needs the node's certificate; expected identity: {...} too");
}

static void check_probes(struct config_parser *p, const struct config *c, const struct yaml_node *list)
{
	size_t i = 0;

	for (const struct yaml_node *k = list ? list->first : NULL; k && i < c->n_probes; k = k->next, i++) {
		const char *name = c->probes[i].cluster;
		size_t mark = config_enter(p, "probes");
		config_enter_index(p, i);
		config_enter(p, "cluster");
		if (name && !config_cluster(c, name) && !(c->control.n_endpoints && !strcmp(name, CONFIG_CONTROL)))
			config_error(p, at(k, "cluster"), "there is no cluster \"%s\"; expected the name of one of clusters", name);
		config_leave(p, mark);
	}
}

static void check_address(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	const char *text = c->controller.address.text;
	size_t mark = config_enter(p, "controller.address");

	for (size_t i = 0; text && i < c->n_listeners; i++)
		if (c->listeners[i].address.text && c->listeners[i].accept != CONFIG_UDP && !strcmp(text, c->listeners[i].address.text))
			config_error(p, at(at(root, "controller"), "address"), "the address %s is listeners[%zu]'s; expected one of its own",
			             text, i);
	if (text && c->telemetry.metrics.text && !strcmp(text, c->telemetry.metrics.text))
		config_error(p, at(at(root, "controller"), "address"), "the address %s is that of telemetry.metrics; expected one of its own",
		             text);
	config_leave(p, mark);
}

/* Processes that are off cannot do what the rest of the document asks of them. */
static void check_roles(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	const struct yaml_node *roles = at(root, "roles");
	bool captures = c->n_tunnels;
	size_t mark = config_enter(p, "roles");

	for (size_t i = 0; i < c->n_listeners; i++)
		captures |= c->listeners[i].accept == CONFIG_TRANSPARENT;
	if (c->tun_bridge_off && captures)
		config_error(p, at(roles, "tun_bridge"), "tun_bridge is off, and tunnels or transparent listeners need it; expected on, or none of "
		                                         "these");
	if (c->telemetry_off && (c->telemetry.metrics.text || c->telemetry.n_access_log))
		config_warning(p, at(roles, "telemetry"), "telemetry is off: no metrics are served, no access log is written");
	config_leave(p, mark);
}

void config_check_control(struct config_parser *p, const struct config *c, const struct yaml_node *root)
{
	static const char *const keys[] = {"listeners", "tunnels", "clusters", "routes", "probes"};

	for (unsigned i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		check_reserved(p, keys[i], root);
	check_identity(p, c, root);
	check_probes(p, c, config_find(root, "probes"));
	check_address(p, c, root);
	check_roles(p, c, root);
}

bool config_is_implied(const struct config *c, const char *listener)
{
	return (c->control.n_endpoints && !strcmp(listener, CONFIG_CONTROL)) ||
	       (c->controller.enabled && !strcmp(listener, CONFIG_CONTROLLER));
}

/* --- what is implied ----------------------------------------------------------------------------------------------------------- */

/* Requests of config-sync, to the controllers: unix:control.sock lies in the runtime folder. The next controller is tried where one
 * is away; a poll waits for as long as the controller says. */
static const char control_text[] =
	"listeners: [{name: " CONFIG_CONTROL ", address: 'unix:control.sock', accept: http}]\n"
	"clusters: [{name: " CONFIG_CONTROL ", carry: h2, tls: {server_name: 'controller.%s'}, endpoints: ['controller:1'], "
	"connect_timeout: 2s}]\n"
	"routes: [{name: " CONFIG_CONTROL ", match: {listener: " CONFIG_CONTROL "}, cluster: " CONFIG_CONTROL ", "
	"retry: {on: [connect-failure, refused-stream], attempts: %zu}, timeout: {request: 0s, idle: 10m}}]\n";

/* Requests of nodes: each poll that waits holds a connection to the controller. */
static const char controller_text[] =
	"listeners: [{name: " CONFIG_CONTROLLER ", address: ':1', accept: http, tls: {min_version: '1.3'}, "
	"limits: {connections: 65536}}]\n"
	"clusters: [{name: " CONFIG_CONTROLLER ", carry: h1, endpoints: ['unix:controller.sock'], connect_timeout: 2s, "
	"ejection: {failures: 0}, max_connections: 65536}]\n"
	"routes: [{name: " CONFIG_CONTROLLER ", match: {listener: " CONFIG_CONTROLLER "}, cluster: " CONFIG_CONTROLLER ", "
	"timeout: {request: 0s, idle: 10m}}]\n";

/* Room for one more object in a list; the old ones are moved. NULL: out of memory, which the arena remembers. */
static void *grow(struct config_parser *p, void *list, size_t *n, size_t size, bool first)
{
	char *v = config_arena_alloc(p->arena, *n + 1, size), **old = list;

	if (!v)
		return NULL;
	if (*n)
		memcpy(v + (first ? size : 0), *old, *n * size);
	*old = v;
	return v + (first ? 0 : (*n)++ * size);
}

static const struct config_object *object_of(const char *key)
{
	for (unsigned i = 0; i < config_document.n_fields; i++)
		if (config_document.fields[i].key && !strcmp(config_document.fields[i].key, key))
			return config_document.fields[i].object;
	return NULL;
}

/* Adds the three objects of a text of ours. The route comes first of all. */
static bool add(struct config_parser *p, struct config *c, const char *text)
{
	struct config_arena *nodes = config_arena_new(0);
	struct yaml_fault fault;
	struct yaml_node *root = nodes && text ? yaml_parse(text, strlen(text), nodes, &fault) : NULL;
	struct config_listener *l = root ? grow(p, &c->listeners, &c->n_listeners, sizeof(*l), false) : NULL;
	struct config_cluster *cluster = l ? grow(p, &c->clusters, &c->n_clusters, sizeof(*cluster), false) : NULL;
	struct config_route *r = cluster ? grow(p, &c->routes, &c->n_routes, sizeof(*r), true) : NULL;

	if (r) {
		c->n_routes++;
		config_parse_object(p, object_of("listeners"), l, config_find(root, "listeners")->first);
		config_parse_object(p, object_of("clusters"), cluster, config_find(root, "clusters")->first);
		config_parse_object(p, object_of("routes"), r, config_find(root, "routes")->first);
	}
	config_arena_free(nodes);
	return r;
}

void config_imply(struct config_parser *p, struct config *c)
{
	size_t controllers = c->control.n_endpoints;
	const char *name = p->name;

	p->name = "implied";                      /* its errors would be ours */
	p->relative = true;
	if (c->controller.enabled && add(p, c, controller_text)) {
		struct config_listener *l = &c->listeners[c->n_listeners - 1];
		l->address = c->controller.address;
		l->tls.authorities = c->identity.authorities;     /* asked for, not required: who enrols has no certificate yet */
		l->tls.crl = c->identity.crl;
	}
	if (controllers && add(p, c, config_arena_format(p->arena, control_text, c->domain,
	                                                 controllers < ATTEMPTS_MAX ? controllers : ATTEMPTS_MAX))) {
		c->clusters[c->n_clusters - 1].endpoints = c->control.endpoints;
		c->clusters[c->n_clusters - 1].n_endpoints = controllers;
	}
	p->relative = false;
	p->name = name;
}
