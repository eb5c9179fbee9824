/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold within one object, and presets that depend on its other keys. */
#include "store/config_address.h"
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <ctype.h>
#include <netinet/in.h>
#include <string.h>

#define LATER "not available in this version"

/* The position of a key's value, else of the object. */
static const struct yaml_node *at(const struct yaml_node *node, const char *key)
{
	const struct yaml_node *value = config_find(node, key);

	return value ? value : node;
}

static void finish_tls(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_tls *tls = base;

	if (!tls->certificate != !tls->key)
		config_error(p, node, "%s without %s; expected both or none", tls->certificate ? "certificate" : "key",
		             tls->certificate ? "key" : "certificate");
	if (tls->no_identity && tls->certificate)
		config_error(p, at(node, "identity"), "identity: false with a certificate; expected one of them");
}

static void finish_peer(struct config_parser *p, void *base, const struct yaml_node *node)
{
	struct config_peer *peer = base;

	if (!peer->node && !peer->domain && !peer->dns)
		config_error(p, node, "names nobody; expected node, domain or dns");
	if (peer->dns && (peer->node || peer->domain))
		config_error(p, at(node, "dns"), "dns beside node or domain; expected either");
	peer->any_user |= !peer->users.n;
	peer->any_header |= !peer->headers.n;
}

static void finish_ip(struct config_parser *p, void *base, const struct yaml_node *node)
{
	struct config_ip_match *ip = base;

	ip->present = true;
	if (ip->port_low && ip->protocol && ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP &&
	    ip->protocol != IPPROTO_SCTP)
		config_error(p, at(node, "port"), "this protocol has no ports; expected protocol: tcp, udp, sctp or none");
}

static void finish_match(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_match *m = base;

	for (size_t i = 0; i < m->methods.n; i++)
		if (!strncasecmp(m->methods.v[i], "connect", 7) && strncmp(m->methods.v[i], "CONNECT", 7)) {
			size_t mark = config_enter(p, "method");
			config_warning(p, at(node, "method"), "methods are compared with case, and \"%.80s\" is none that comes", m->methods.v[i]);
			config_leave(p, mark);
		}
}

static void finish_retry(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_retry *retry = base;

	if (retry->attempts > 1 && !retry->on)
		config_error(p, node, "attempts without on; expected on: [connect-failure, ...], the failures to retry after");
}

/* --- listener ------------------------------------------------------------------------------------------------------------ */

static void listener_tls(struct config_parser *p, struct config_listener *l, const struct yaml_node *node)
{
	struct config_tls *tls = &l->tls;
	bool overlay = l->accept == CONFIG_OVERLAY;

	if (overlay && !tls->off)
		tls->enabled = true;
	if (tls->enabled && l->accept != CONFIG_HTTP && !overlay)
		config_error(p, at(node, "tls"), "TLS towards clients is for accept: http and overlay; expected none");
	if ((unsigned)tls->min_version == CONFIG_TLS_AUTO)
		tls->min_version = overlay ? CONFIG_TLS_1_3 : CONFIG_TLS_1_2;
	if (tls->server_name || tls->no_identity)
		config_error(p, at(node, "tls"), "server_name and identity are of clusters; expected neither in a listener");
	if (tls->require && !tls->authorities.n && !overlay)
		config_error(p, at(node, "tls"), "require without authorities; expected the authorities of the clients");
}

/* A socket with an address takes packets of its family only. */
static void capture_families(struct config_parser *p, const struct config_listener *l, const struct yaml_node *node)
{
	const char *host = l->address.host;
	const struct config_prefixes *to = &l->capture.destinations;

	for (size_t i = 0; host && *host && i < to->n; i++)
		if (IN6_IS_ADDR_V4MAPPED(&to->v[i].address) == !!strchr(host, ':')) {
			size_t mark = config_enter(p, "capture");
			config_enter(p, "destinations");
			config_warning(p, at(node, "destinations"), "not all are of the family of the listener's address, and those are not "
			               "captured; expected the same, or address: ':%u' for both", l->address.port);
			config_leave(p, mark);
			return;
		}
}

static void listener_capture(struct config_parser *p, struct config_listener *l, const struct yaml_node *node)
{
	if (l->accept != CONFIG_TRANSPARENT) {
		if (config_find(node, "capture"))
			config_error(p, at(node, "capture"), "capture is for accept: transparent; expected none here");
		return;
	}
	if (!config_find(node, "capture"))
		l->capture.tcp = l->capture.udp = true;
	else
		capture_families(p, l, at(node, "capture"));
}

static void finish_listener(struct config_parser *p, void *base, const struct yaml_node *node)
{
	static const char *const words[] = {"http", "tcp", "socks5", "overlay", "udp", "transparent"};
	struct config_listener *l = base;
	bool overlay = l->accept == CONFIG_OVERLAY, fixed = l->accept == CONFIG_TCP || l->accept == CONFIG_UDP;
	bool transparent = l->accept == CONFIG_TRANSPARENT;

	if (fixed && !l->target.text)
		config_error(p, node, "target is missing; expected target: HOST:PORT with accept: %s", words[l->accept]);
	else if (!fixed && l->target.text)
		config_error(p, at(node, "target"), "target is for accept: tcp and udp; expected none here");
	if (l->address.unix_path && (transparent || l->accept == CONFIG_UDP))
		config_error(p, at(node, "address"), "a Unix socket with accept: %s; expected ADDRESS:PORT, [V6]:PORT or :PORT",
		             words[l->accept]);
	if (l->n_peers && !overlay)
		config_error(p, at(node, "peers"), "peers is for accept: overlay; expected none here");
	if (l->n_peers && l->tls.off)
		config_error(p, at(node, "peers"), "peers with tls: off, which proves nobody; expected TLS");
	if (l->require_user && (fixed || transparent))
		config_error(p, at(node, "require_user"), "accept: %s has no way to prove a user; expected add_headers: {user: NAME}",
		             words[l->accept]);
	listener_tls(p, l, node);
	listener_capture(p, l, node);
	if (!l->limits.streams)
		l->limits.streams = overlay ? 1000 : 100;
}

/* --- cluster ------------------------------------------------------------------------------------------------------------- */

static void cluster_tls(struct config_parser *p, struct config_cluster *c, const struct yaml_node *node)
{
	struct config_tls *tls = &c->tls;

	if ((unsigned)tls->min_version == CONFIG_TLS_AUTO)
		tls->min_version = tls->enabled && !tls->no_identity && !tls->certificate ? CONFIG_TLS_1_3 : CONFIG_TLS_1_2;
	if (tls->require)
		config_error(p, at(node, "tls"), "require is of listeners; expected none in a cluster");
	if (!tls->enabled || tls->server_name || c->target)
		return;
	for (size_t i = 0; i < c->n_endpoints; i++)
		if (c->endpoints[i].address.unix_path || config_address_is_literal(&c->endpoints[i].address)) {
			config_error(p, at(node, "tls"), "server_name is missing: endpoint %s is no name to verify; expected "
			             "tls: {server_name: NAME}", c->endpoints[i].address.text);
			return;
		}
}

static void cluster_endpoints(struct config_parser *p, const struct config_cluster *c, const struct yaml_node *node)
{
	const struct config_targets *a = &c->allow_targets, *d = &c->deny_targets;
	bool limited = a->any || a->loopback || a->link_local || a->private_ || a->prefixes.n || d->any || d->loopback ||
	               d->link_local || d->private_ || d->prefixes.n;

	if (!c->target && !c->n_endpoints)
		config_error(p, node, "endpoints is missing; expected a list of HOST:PORT, or: target");
	if (!c->target && limited)
		config_error(p, at(node, config_find(node, "allow_targets") ? "allow_targets" : "deny_targets"),
		             "only endpoints: target is bounded by it; expected none here");
	if (c->target && c->health_check.interval)
		config_error(p, at(node, "health_check"), "endpoints: target has no endpoint to check; expected none here");
}

/* Packets leave through a device; there is nothing to connect to. */
static void cluster_ip(struct config_parser *p, const struct config_cluster *c, const struct yaml_node *node)
{
	static const char *const none[] = {"endpoints", "tls", "health_check", "allow_targets", "deny_targets", "hash_header"};

	if (!c->device)
		config_error(p, node, "device is missing; expected device: NAME, one of tunnels, with carry: ip");
	for (unsigned i = 0; i < sizeof(none) / sizeof(*none); i++)
		if (config_find(node, none[i]))
			config_error(p, at(node, none[i]), "carry: ip has no use for %s; expected none here", none[i]);
}

/* Endpoints get plain datagrams. */
static void cluster_udp(struct config_parser *p, const struct config_cluster *c, const struct yaml_node *node)
{
	if (c->tls.enabled)
		config_error(p, at(node, "tls"), "TLS does not go over carry: udp; expected none");
	if (c->health_check.interval)
		config_error(p, at(node, "health_check"), "an endpoint cannot be checked with carry: udp; expected none");
	for (size_t i = 0; i < c->n_endpoints; i++)
		if (c->endpoints[i].address.unix_path)
			config_error(p, at(node, "endpoints"), "\"%.120s\" is a Unix socket; expected HOST:PORT with carry: udp",
			             c->endpoints[i].address.text);
}

static void finish_cluster(struct config_parser *p, void *base, const struct yaml_node *node)
{
	struct config_cluster *c = base;

	if (c->carry == CONFIG_H3) {
		config_error(p, at(node, "carry"), "carry: h3 is " LATER "; expected h1, h2, tcp, udp or ip");
		return;
	}
	if (c->carry == CONFIG_CARRY_IP) {
		cluster_ip(p, c, node);
	} else {
		cluster_endpoints(p, c, node);
		if (c->device || c->pool.n || c->advertise.n || c->nat)
			config_error(p, node, "device, pool, advertise and nat are for carry: ip; expected none of them here");
	}
	if (c->carry == CONFIG_CARRY_UDP)
		cluster_udp(p, c, node);
	cluster_tls(p, c, node);
	if (c->hash_header && c->balance != CONFIG_HASH)
		config_error(p, at(node, "hash_header"), "hash_header without balance: hash; expected balance: hash");
	if (c->ttl_min > c->ttl_max)
		config_error(p, at(node, "ttl_min"), "ttl_min is above ttl_max; expected at most %us", c->ttl_max);
	if (c->health_check.path && c->carry == CONFIG_CARRY_TCP)
		config_error(p, at(node, "health_check"), "a path cannot be asked for with carry: tcp; expected none");
	if (!c->max_connections)
		c->max_connections = c->carry == CONFIG_H2 ? 4 : c->carry == CONFIG_CARRY_UDP ? 65536 : 1024;
}

static void finish_health_check(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_health_check *h = base;

	if (h->path && *h->path != '/')
		config_error(p, at(node, "path"), "\"%.80s\" is no path; expected one that begins with /", h->path);
}

/* --- ways and decisions ---------------------------------------------------------------------------------------------------- */

/* A name without port; the key stays as written. */
static void space_name(struct config_parser *p, struct config_space_entry *e, const struct yaml_node *key)
{
	struct config_address address;
	const char *why = "";

	if (!e->key)
		return;
	if (config_address_parse(e->key, false, p->arena, &address, &why) || address.port || !address.host ||
	    config_address_is_literal(&address)) {
		config_error(p, key, "\"%.80s\" is no name; expected one without port (addresses go under prefixes)", e->key);
		return;
	}
	e->name = config_arena_text(p->arena, e->key, strlen(e->key));
	for (char *c = e->name; c && *c; c++)
		*c = (char)tolower((unsigned char)*c);
}

static void finish_space(struct config_parser *p, void *base, const struct yaml_node *node)
{
	struct config_space *s = base;
	const struct yaml_node *names = config_find(node, "names"), *prefixes = config_find(node, "prefixes"), *k;
	const char *why = "";
	size_t i = 0;

	for (k = names ? names->first : NULL; k && i < s->n_names; k = k->next)
		space_name(p, &s->names[i++], k);
	i = 0;
	for (k = prefixes ? prefixes->first : NULL; k && i < s->n_prefixes; k = k->next, i++)
		if (s->prefixes[i].key && config_prefix_parse(s->prefixes[i].key, &s->prefixes[i].prefix, &why))
			config_error(p, k, "\"%.80s\": %s; expected a prefix such as 10.0.0.0/8", k->text, why);
}

static void finish_rule(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_rule *rule = base;
	bool allow = config_find(node, "allow"), deny = config_find(node, "deny");

	if (allow == deny)
		config_error(p, node, "%s; expected either allow: MATCH or deny: MATCH",
		             allow ? "both allow and deny" : "neither allow nor deny");
	if (!rule->allow && rule->add_headers.n)
		config_error(p, at(node, "add_headers"), "a rule that denies adds no headers; expected none");
	if (rule->match.ip.present && rule->add_headers.n)
		config_warning(p, at(node, "add_headers"), "packets have no headers: nothing is added");
}

static void finish_authorizer(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_authorizer *a = base;
	struct config_address address;
	const char *why = "the host is missing";

	if (config_address_parse(a->address, true, p->arena, &address, &why) || (address.host && !*address.host))
		config_error(p, at(node, "address"), "\"%.80s\": %s; expected HOST:PORT or unix:/PATH", a->address, why);
	if (*a->path != '/')
		config_error(p, at(node, "path"), "\"%.80s\" is no path; expected one that begins with /", a->path);
}

static void finish_user(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_user *user = base;

	if (strchr(user->name, ':') || strlen(user->name) > 255 || !strcmp(user->name, "*"))
		config_error(p, at(node, "name"), "\"%.80s\" is no user name; expected 1 to 255 characters without ':', not *",
		             user->name);
}

static void finish_log(struct config_parser *p, void *base, const struct yaml_node *node)
{
	const struct config_log *log = base;

	if (*log->to != '/' && strcmp(log->to, "stderr") && strcmp(log->to, "journald"))
		config_error(p, at(node, "to"), "\"%.80s\" is no place for a log; expected /PATH, stderr or journald", log->to);
}

void config_finish(struct config_parser *p, const struct config_object *object, void *base, const struct yaml_node *node)
{
	static const struct {
		const char *name;                 /* of the object */
		void (*finish)(struct config_parser *, void *, const struct yaml_node *);
	} all[] = {
		{"tls", finish_tls}, {"peer", finish_peer}, {"ip condition", finish_ip}, {"match", finish_match}, {"retry", finish_retry},
		{"listener", finish_listener}, {"cluster", finish_cluster}, {"health check", finish_health_check},
		{"address space", finish_space}, {"rule", finish_rule}, {"authorizer", finish_authorizer}, {"user", finish_user},
		{"access log", finish_log}, {"tunnel", config_finish_tunnel},
		{"control", config_finish_control}, {"controller", config_finish_controller}, {"probe", config_finish_probe},
	};

	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!strcmp(all[i].name, object->name))
			all[i].finish(p, base, node);
}
