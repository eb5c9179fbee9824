/* SPDX-License-Identifier: Apache-2.0 */
/* What is not simply a value, an object or a list of them. */
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEVICE_ADDRESSES_MAX 64

static void form_tls(struct config_parser *p, const struct config_field *f, struct config_tls *tls,
                     const struct yaml_node *node)
{
	if (node->kind == YAML_SCALAR && node->plain && (!strcmp(node->text, "off") || !strcmp(node->text, "false"))) {
		config_parse_absent(p, f->object, tls);
		tls->off = true;
		return;
	}
	if (node->kind != YAML_MAP) {
		config_error(p, node, "not TLS settings; expected a map such as {server_name: NAME}, {} or off");
		return;
	}
	config_parse_object(p, f->object, tls, node);
	tls->enabled = true;
}

/* Of a cluster, or the controllers of a node. */
static void form_endpoints(struct config_parser *p, const struct config_field *f, char *base, const struct yaml_node *node)
{
	bool cluster = f->form == W_ENDPOINTS;
	struct config_endpoint **v = (void *)(base + f->offset);
	size_t *n = (void *)(base + f->count_offset);

	if (cluster && node->kind == YAML_SCALAR && !strcmp(node->text, "target")) {
		((struct config_cluster *)(void *)base)->target = true;
		return;
	}
	if (node->kind != YAML_LIST || !node->n) {
		config_error(p, node, "no endpoints; expected a list of HOST:PORT or {address: HOST:PORT, weight: N}%s",
		             cluster ? ", or: target" : "");
		return;
	}
	*v = config_vector(p, node, node->n, sizeof(**v));
	for (const struct yaml_node *k = node->first; *v && k; k = k->next, ++*n) {
		struct config_endpoint *e = &(*v)[*n];
		size_t mark = config_enter_index(p, *n);
		if (k->kind == YAML_SCALAR) {
			config_parse_absent(p, f->object, e);
			config_value(p, &f->object->fields[0], e, k);    /* address */
		} else {
			config_parse_object(p, f->object, e, k);
		}
		config_leave(p, mark);
	}
}

static bool target_word(struct config_targets *t, const char *text)
{
	bool *word = !strcmp(text, "loopback") ? &t->loopback : !strcmp(text, "link_local") ? &t->link_local :
	             !strcmp(text, "private") ? &t->private_ : !strcmp(text, "any") ? &t->any : NULL;

	if (word)
		*word = true;
	return word;
}

static void form_targets(struct config_parser *p, struct config_targets *t, const struct yaml_node *node)
{
	static const char expected[] = "loopback, link_local, private, any or a prefix such as 10.0.0.0/8";
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;
	const char *why;

	if (node->kind == YAML_MAP) {
		config_error(p, node, "a map; expected a list of %s", expected);
		return;
	}
	t->prefixes.v = config_vector(p, node, config_count(node), sizeof(*t->prefixes.v));
	for (; t->prefixes.v && k; k = node->kind == YAML_LIST ? k->next : NULL) {
		if (!config_scalar(p, k, expected) || target_word(t, k->text))
			continue;
		if (config_prefix_parse(k->text, &t->prefixes.v[t->prefixes.n], &why))
			config_error(p, k, "\"%.80s\": %s; expected %s", k->text, why, expected);
		else
			t->prefixes.n++;
	}
}

/* --- match -------------------------------------------------------------------------------------------------------------- */

static unsigned conditions(const struct config_string_match *m)
{
	return !!m->exact + !!m->prefix + m->present + m->absent;
}

static void path_condition(struct config_parser *p, const struct config_object *object, struct config_string_match *m,
                           const struct yaml_node *node)
{
	if (node->kind == YAML_MAP) {
		config_parse_object(p, object, m, node);
		if (conditions(m) != 1 || m->present || m->absent)
			config_error(p, node, "not a condition on a path; expected either exact or prefix");
		return;
	}
	char *text = config_value_text(p, node);
	if (!text)
		return;
	if (*text != '/' && strcmp(text, "*"))
		config_error(p, node, "\"%.80s\" is no path; expected one that begins with /", text);
	else if (text[strlen(text) - 1] == '/')
		m->prefix = text;
	else
		m->exact = text;
}

static void form_paths(struct config_parser *p, const struct config_field *f, struct config_match *match,
                       const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;
	size_t n = node->kind == YAML_LIST ? node->n : 1;

	if (!n) {
		config_error(p, node, "an empty list; expected at least one path");
		return;
	}
	match->paths = config_vector(p, node, n, sizeof(*match->paths));
	for (; match->paths && k; k = node->kind == YAML_LIST ? k->next : NULL)
		path_condition(p, f->object, &match->paths[match->n_paths++], k);
}

static void header_condition(struct config_parser *p, const struct config_object *strings, struct config_header_match *h,
                             const struct yaml_node *key)
{
	const struct yaml_node *node = key->value;

	h->name = config_value_header(p, key, false);
	if (node->kind != YAML_MAP) {
		h->match.exact = config_value_text(p, node);
		return;
	}
	config_parse_object(p, strings, &h->match, node);
	if (conditions(&h->match) != 1)
		config_error(p, node, "not one condition; expected one of exact, prefix, present: true, absent: true");
}

static void form_headers(struct config_parser *p, const struct config_field *f, struct config_match *match,
                         const struct yaml_node *node)
{
	const struct config_object *strings = f->object->fields[1].object;

	if (node->kind != YAML_MAP || !node->n) {
		config_error(p, node, "not a map of headers; expected NAME: VALUE or NAME: {prefix: TEXT}");
		return;
	}
	match->headers = config_vector(p, node, node->n, sizeof(*match->headers));
	for (const struct yaml_node *k = node->first; match->headers && k; k = k->next, match->n_headers++) {
		size_t mark = config_enter(p, k->text);
		header_condition(p, strings, &match->headers[match->n_headers], k);
		config_leave(p, mark);
	}
}

static void form_times(struct config_parser *p, struct config_match *match, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;

	if (node->kind == YAML_MAP || !config_count(node)) {
		config_error(p, node, "no time window; expected a text such as \"Mon-Fri 08:00-18:00 Europe/Warsaw\"");
		return;
	}
	match->times = config_vector(p, node, config_count(node), sizeof(*match->times));
	for (; match->times && k; k = node->kind == YAML_LIST ? k->next : NULL)
		config_window_parse(p, &match->times[match->n_times++], k);
}

/* "LOW" or "LOW-HIGH", of at most five digits each. */
static bool read_range(const char *text, unsigned low_min, unsigned high_max, uint16_t *low, uint16_t *high)
{
	size_t a = strspn(text, "0123456789"), b = text[a] == '-' ? strspn(text + a + 1, "0123456789") : 0;

	if (!a || a > 5 || b > 5 || (text[a] && (!b || text[a + 1 + b])))
		return false;
	unsigned long from = strtoul(text, NULL, 10), to = b ? strtoul(text + a + 1, NULL, 10) : from;
	*low = (uint16_t)from;
	*high = (uint16_t)to;
	return from >= low_min && to <= high_max && from <= to;
}

static void form_range(struct config_parser *p, const struct config_field *f, char *base, const struct yaml_node *node)
{
	unsigned min = f->form == W_STATUS ? 100 : 1, max = f->form == W_STATUS ? 599 : 65535;
	uint16_t *low = (void *)(base + f->offset), *high = (void *)(base + f->count_offset);

	if (!config_scalar(p, node, "a number or a range LOW-HIGH"))
		return;
	if (!read_range(node->text, min, max, low, high))
		config_error(p, node, "\"%.80s\" is no range; expected numbers from %u to %u, as N or LOW-HIGH", node->text, min, max);
}

static void form_protocol(struct config_parser *p, uint8_t *out, const struct yaml_node *node)
{
	static const struct { const char *name; uint8_t number; } known[] = {
		{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}, {"sctp", 132}};
	char *end;

	if (!config_scalar(p, node, "a protocol"))
		return;
	for (unsigned i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(node->text, known[i].name)) {
			*out = known[i].number;
			return;
		}
	unsigned long v = strtoul(node->text, &end, 10);
	if (!isdigit((unsigned char)*node->text) || *end || v < 1 || v > 255)
		config_error(p, node, "\"%.80s\" is no protocol; expected tcp, udp, icmp, icmpv6, sctp or 1 to 255", node->text);
	else
		*out = (uint8_t)v;
}

/* --- the rest ------------------------------------------------------------------------------------------------------------ */

static void form_rule(struct config_parser *p, const struct config_field *f, struct config_rule *rule,
                      const struct yaml_node *node)
{
	memset(&rule->match, 0, sizeof(rule->match));   /* both given: refused later, by config_finish() */
	rule->allow = f->form == W_ALLOW;
	config_parse_object(p, f->object, &rule->match, node);
}

/* Users or headers that a peer may speak for. */
static void form_speaks(struct config_parser *p, const struct config_field *f, struct config_peer *peer,
                        const struct yaml_node *node)
{
	bool headers = f->offset == offsetof(struct config_peer, headers);
	struct config_strs *list = headers ? &peer->headers : &peer->users;

	if (node->kind == YAML_LIST && !node->n) {
		config_error(p, node, "an empty list; expected at least one, or *");
		return;
	}
	config_value_strings(p, list, node, headers);
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->v[i], "*"))
			*(headers ? &peer->any_header : &peer->any_user) = true;
	if (headers ? peer->any_header : peer->any_user)
		list->n = 0;
}

static void device_address(struct config_parser *p, struct config_tunnel *tunnel, const struct yaml_node *node)
{
	struct config_prefix ignored;
	const char *why;

	if (!config_scalar(p, node, "an address such as 10.8.0.2/24"))
		return;
	if (config_device_address_parse(node->text, &ignored, &why)) {
		config_error(p, node, "\"%.80s\": %s; expected an address such as 10.8.0.2/24", node->text, why);
		return;
	}
	for (size_t i = 0; i < tunnel->addresses.n; i++)
		if (!strcmp(tunnel->addresses.v[i], node->text))
			config_error(p, node, "\"%.80s\" is given twice; expected it once", node->text);
	tunnel->addresses.v[tunnel->addresses.n++] = config_arena_text(p->arena, node->text, strlen(node->text));
}

static void form_device_addresses(struct config_parser *p, struct config_tunnel *tunnel, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;
	size_t n = config_count(node);

	if (node->kind == YAML_SCALAR && !strcmp(node->text, "assigned")) {
		tunnel->assigned = true;
		return;
	}
	if (node->kind == YAML_MAP || !n || n > DEVICE_ADDRESSES_MAX) {
		config_error(p, node, "not a list of addresses; expected 1 to %d such as 10.8.0.2/24, or: assigned",
		             DEVICE_ADDRESSES_MAX);
		return;
	}
	tunnel->addresses.v = config_vector(p, node, n, sizeof(*tunnel->addresses.v));
	for (size_t i = 0; tunnel->addresses.v && k; k = node->kind == YAML_LIST ? k->next : NULL) {
		size_t mark = node->kind == YAML_LIST ? config_enter_index(p, i++) : p->path_length;
		device_address(p, tunnel, k);
		config_leave(p, mark);
	}
}

/* Protocols that a transparent listener takes. */
static void form_captured(struct config_parser *p, struct config_capture *capture, const struct yaml_node *node)
{
	const struct yaml_node *k = node->kind == YAML_LIST ? node->first : node;

	if (node->kind == YAML_MAP || !config_count(node)) {
		config_error(p, node, "%s; expected tcp, udp or a list of them", node->kind == YAML_MAP ? "a map" : "an empty list");
		return;
	}
	for (; k; k = node->kind == YAML_LIST ? k->next : NULL) {
		if (!config_scalar(p, k, "tcp or udp"))
			continue;
		bool tcp = !strcmp(k->text, "tcp"), udp = !strcmp(k->text, "udp");
		if (!tcp && !udp)
			config_error(p, k, "\"%.80s\" is not known; expected tcp or udp", k->text);
		capture->tcp |= tcp;
		capture->udp |= udp;
	}
}

void config_form(struct config_parser *p, const struct config_field *f, void *base, const struct yaml_node *node)
{
	void *at = (char *)base + f->offset;

	switch (f->form) {
	case W_TLS: form_tls(p, f, at, node); break;
	case W_ENDPOINTS: case W_HOPS: form_endpoints(p, f, base, node); break;
	case W_TARGETS: form_targets(p, at, node); break;
	case W_PATHS: form_paths(p, f, base, node); break;
	case W_HEADER_MATCHES: form_headers(p, f, base, node); break;
	case W_TIMES: form_times(p, base, node); break;
	case W_PROTOCOL: form_protocol(p, at, node); break;
	case W_PORTS: case W_STATUS: form_range(p, f, base, node); break;
	case W_CAPTURED: form_captured(p, base, node); break;
	case W_ALLOW: case W_DENY: form_rule(p, f, base, node); break;
	case W_SPEAKS: form_speaks(p, f, base, node); break;
	case W_DEVICE_ADDRESSES: form_device_addresses(p, base, node); break;
	default: break;
	}
}
