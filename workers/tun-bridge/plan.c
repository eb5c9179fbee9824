/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/plan.h"
#include "ipc/log.h"
#include "ipc/net.h"
#include "store/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PASSES 3        /* the kernel drops some things along with others: looked at again until it holds */

uint32_t plan_table(const struct plan *p, enum plan_table table)
{
	return PLAN_TABLE + PLAN_TABLES * p->slot + (uint32_t)table;
}

uint32_t plan_mark(const struct plan *p)
{
	return NET_MARK_CAPTURE + p->slot;
}

bool plan_captures(const struct config *config)
{
	for (size_t i = 0; config && i < config->n_listeners; i++)
		if (config->listeners[i].accept == CONFIG_TRANSPARENT)
			return true;
	return false;
}

/* --- prefixes and addresses ------------------------------------------------------------------------------------------- */

static bool mapped(const struct in6_addr *address)
{
	return IN6_IS_ADDR_V4MAPPED(address);
}

void plan_prefix(const struct config_prefix *prefix, struct net_item *item)
{
	if (mapped(&prefix->address) && prefix->bits >= 96) {
		item->family = AF_INET;
		item->bits = (uint8_t)(prefix->bits - 96);
		memcpy(item->address, &prefix->address.s6_addr[12], 4);
	} else {
		item->family = AF_INET6;
		item->bits = prefix->bits;
		memcpy(item->address, &prefix->address, 16);
	}
}

const char *plan_text(const struct net_item *item, char text[PLAN_TEXT])
{
	char address[INET6_ADDRSTRLEN] = "?";
	inet_ntop(item->family, item->address, address, sizeof(address));
	snprintf(text, PLAN_TEXT, "%s/%u", address, item->bits);
	return text;
}

static bool usable(const struct net_item *item)
{
	const uint8_t *a = item->address;
	struct in6_addr v6;
	if (item->family == AF_INET)
		return a[0] != 0 && a[0] != 127 && a[0] < 224;
	memcpy(&v6, a, sizeof(v6));
	return !IN6_IS_ADDR_UNSPECIFIED(&v6) && !IN6_IS_ADDR_LOOPBACK(&v6) && !IN6_IS_ADDR_MULTICAST(&v6) && !mapped(&v6);
}

bool plan_address(const char *text, uint32_t device, struct net_item *item)
{
	char host[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text);
	char *end = NULL;
	memset(item, 0, sizeof(*item));
	if (length >= sizeof(host))
		return false;
	memcpy(host, text, length);
	host[length] = '\0';
	item->kind = NET_ADDRESS;
	item->device = device;
	item->family = strchr(host, ':') ? AF_INET6 : AF_INET;
	unsigned long most = item->family == AF_INET ? 32 : 128;
	unsigned long bits = slash ? strtoul(slash + 1, &end, 10) : most;
	item->bits = (uint8_t)bits;
	return inet_pton(item->family, host, item->address) == 1 && bits <= most && !(end && (*end || end == slash + 1)) &&
	       usable(item);
}

static void mask(struct net_item *item)
{
	size_t size = item->family == AF_INET ? 4 : 16;
	for (size_t i = 0; i < size; i++) {
		int keep = (int)item->bits - (int)(8 * i);
		if (keep < 8)
			item->address[i] &= keep <= 0 ? 0 : (uint8_t)(0xff << (8 - keep));
	}
}

/* --- what is wanted --------------------------------------------------------------------------------------------------- */

static struct net_item route(const struct plan *p, enum plan_table table, uint8_t type, uint32_t device)
{
	struct net_item item;
	memset(&item, 0, sizeof(item));
	item.kind = NET_ROUTE;
	item.type = type;
	item.table = plan_table(p, table);
	item.device = device;
	return item;
}

static void add_once(struct net_items *wanted, const struct net_item *item)
{
	if (!net_items_has(wanted, item))
		net_items_add(wanted, item);
}

/* The address, and, where wanted, the way to the others of its prefix. */
static void add_address(const struct plan *p, const char *text, const struct tun_device *d, bool others,
                        struct net_items *wanted)
{
	struct net_item address, way = route(p, PLAN_NETWORKS, RTN_UNICAST, d->index);
	if (!plan_address(text, d->index, &address)) {
		log_warn("address ignored", "device=%s address=%s", d->name, log_value(text));
		return;
	}
	add_once(wanted, &address);
	if (!others || address.bits == (address.family == AF_INET ? 32 : 128))
		return;
	way.family = address.family;
	way.bits = address.bits;
	memcpy(way.address, address.address, sizeof(way.address));
	mask(&way);
	add_once(wanted, &way);
}

static void add_prefix(const struct plan *p, enum plan_table table, const struct config_prefix *prefix, uint32_t device,
                       struct net_items *wanted)
{
	struct net_item item = route(p, table, RTN_UNICAST, device);
	plan_prefix(prefix, &item);
	add_once(wanted, &item);
}

static bool within(const struct config_prefix *inner, const struct config_tunnel *c)
{
	for (size_t i = 0; i < c->n_networks; i++) {
		const struct config_prefix *outer = &c->networks[i].prefix;
		if (outer->bits <= inner->bits && config_prefix_contains(outer, &inner->address))
			return true;
	}
	return false;
}

/* The far end chooses among what the administrator lets into the overlay, and nothing beyond. */
static void add_told(const struct plan *p, const struct config_tunnel *c, const struct tun_device *d, struct net_items *wanted)
{
	const char *why;
	struct config_prefix prefix;
	for (size_t i = 0; i < d->n_addresses; i++)
		add_address(p, d->addresses[i], d, false, wanted);
	for (size_t i = 0; i < d->n_routes; i++) {
		if (config_prefix_parse(d->routes[i], &prefix, &why) == 0 && within(&prefix, c))
			add_prefix(p, PLAN_NETWORKS, &prefix, d->index, wanted);
		else
			log_info("route ignored", "device=%s route=%s why=%s", d->name, log_value(d->routes[i]),
			         log_value("it is not within the device's networks"));
	}
}

static void add_device(const struct plan *p, const struct config *config, const struct config_tunnel *c,
                       const struct tun_device *d, struct net_items *wanted)
{
	for (size_t i = 0; i < c->addresses.n && !c->assigned; i++)
		add_address(p, c->addresses.v[i], d, true, wanted);
	if (c->assigned)
		add_told(p, c, d, wanted);
	for (size_t i = 0; i < c->n_networks; i++)
		add_prefix(p, PLAN_NETWORKS, &c->networks[i].prefix, d->index, wanted);
	for (size_t i = 0; i < config->n_clusters; i++) {
		const struct config_cluster *cluster = &config->clusters[i];
		if (cluster->carry != CONFIG_CARRY_IP || !cluster->device || strcmp(cluster->device, d->name) != 0)
			continue;
		for (size_t k = 0; k < cluster->pool.n; k++)
			add_prefix(p, PLAN_POOLS, &cluster->pool.v[k], d->index, wanted);
	}
}

/* What is excluded from one device may be another's network: that one then has it. */
static void add_excluded(const struct plan *p, const struct config_tunnel *c, struct net_items *wanted)
{
	for (size_t i = 0; i < c->exclude.n; i++) {
		struct net_item item = route(p, PLAN_NETWORKS, RTN_THROW, 0);
		bool taken = false;
		plan_prefix(&c->exclude.v[i], &item);
		for (size_t k = 0; k < wanted->n; k++) {
			const struct net_item *w = &wanted->v[k];
			taken |= w->kind == NET_ROUTE && w->table == item.table && w->family == item.family && w->bits == item.bits &&
			         memcmp(w->address, item.address, sizeof(item.address)) == 0;
		}
		if (!taken)
			net_items_add(wanted, &item);
	}
}

static struct net_item rule(uint8_t family, uint8_t type, uint32_t priority, uint32_t to)
{
	struct net_item item;
	memset(&item, 0, sizeof(item));
	item.kind = NET_RULE;
	item.family = family;
	item.type = type;
	item.priority = priority;
	item.table = to;
	return item;
}

/* Around the table of networks, before there is a way into it. */
static void add_detour(const struct plan *p, uint8_t family, struct net_items *wanted)
{
	const uint32_t end = plan_table(p, PLAN_END);
	struct net_item landing = rule(family, FR_ACT_NOP, end, 0);
	struct net_item around = rule(family, FR_ACT_GOTO, plan_table(p, PLAN_OWN), end);
	around.mark = NET_MARK_SELF;
	add_once(wanted, &landing);
	add_once(wanted, &around);
}

static void add_rules(const struct plan *p, struct net_items *wanted)
{
	for (size_t i = 0; i < wanted->n; i++) {
		const struct net_item from = wanted->v[i];
		if (from.kind != NET_ROUTE)
			continue;
		struct net_item way = rule(from.family, FR_ACT_TO_TBL, from.table, from.table);
		if (from.table == plan_table(p, PLAN_CAPTURE))
			way.mark = plan_mark(p);
		if (from.table == plan_table(p, PLAN_NETWORKS)) {
			add_detour(p, from.family, wanted);
			way.invert = 1;
			way.uid = p->uid;
		}
		add_once(wanted, &way);
	}
}

void plan_make(const struct plan *p, const struct config *config, const struct tun_devices *devices, struct net_items *wanted)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	for (size_t i = 0; config && i < config->n_tunnels; i++) {
		const struct tun_device *d = tun_device_find(devices, config->tunnels[i].name);
		if (d)
			add_device(p, config, &config->tunnels[i], d, wanted);
	}
	for (size_t i = 0; config && i < config->n_tunnels; i++)
		add_excluded(p, &config->tunnels[i], wanted);
	for (size_t i = 0; i < 2 && plan_captures(config); i++) {
		struct net_item item = route(p, PLAN_CAPTURE, RTN_LOCAL, p->loopback);
		item.family = families[i];
		net_items_add(wanted, &item);
	}
	add_rules(p, wanted);
}

/* --- the way there ----------------------------------------------------------------------------------------------------- */

static int look(const struct plan *p, struct netlink *nl, const struct tun_devices *devices, struct net_items *have)
{
	static const int families[] = {AF_INET, AF_INET6};
	const uint32_t low = plan_table(p, PLAN_CAPTURE), high = low + PLAN_TABLES - 1;
	const struct tun_device *d;
	int error = 0;
	LIST_FOREACH(d, devices, link)
		if (!d->fresh && !error)      /* a fresh one is not ours to judge before its configuration is in force */
			error = netlink_addresses(nl, d->index, have);
	for (size_t i = 0; i < 2 && !error; i++) {
		error = netlink_routes(nl, families[i], low, high, have);
		if (!error)
			error = netlink_rules(nl, families[i], low, high, have);
	}
	return error;
}

static void complain(const char *what, const struct net_item *item, int error)
{
	char text[PLAN_TEXT + 32], prefix[PLAN_TEXT];
	if (item->kind == NET_RULE)
		snprintf(text, sizeof(text), "rule %u, IPv%c", item->priority, item->family == AF_INET ? '4' : '6');
	else
		snprintf(text, sizeof(text), "%s %s", item->kind == NET_ADDRESS ? "address" : "route to", plan_text(item, prefix));
	log_error(what, "item=%s error=%s", log_value(text), log_value(strerror(-error)));
}

/* Returns how much was changed or could not be; *refused counts the latter. An IPv6 that is switched off cannot be routed. */
static unsigned step(struct netlink *nl, const struct net_items *have, const struct net_items *wanted, unsigned *refused)
{
	unsigned changed = 0;
	for (int kind = NET_ADDRESS; kind <= NET_RULE; kind++)
		for (size_t i = 0; i < wanted->n; i++) {
			if ((int)wanted->v[i].kind != kind || net_items_has(have, &wanted->v[i]))
				continue;
			int error = netlink_add(nl, &wanted->v[i]);
			changed++;
			if (error && !(error == -EAFNOSUPPORT && wanted->v[i].family == AF_INET6)) {
				complain("not set", &wanted->v[i], error);
				(*refused)++;
			}
		}
	for (int kind = NET_RULE; kind >= NET_ADDRESS; kind--)
		for (size_t i = have->n; i-- > 0;) {
			if ((int)have->v[i].kind != kind || net_items_has(wanted, &have->v[i]))
				continue;
			int error = netlink_delete(nl, &have->v[i]);
			changed++;
			if (error) {
				complain("not removed", &have->v[i], error);
				(*refused)++;
			}
		}
	return changed;
}

unsigned plan_apply(const struct plan *p, struct netlink *nl, const struct tun_devices *devices, const struct net_items *wanted)
{
	unsigned refused = 0;
	for (int pass = 0; pass < PASSES; pass++) {
		struct net_items have = {0};
		int error = look(p, nl, devices, &have);
		refused = 0;
		if (error)
			log_error("routes not read", "error=%s", log_value(strerror(-error)));
		unsigned changed = error ? 0 : step(nl, &have, wanted, &refused);
		net_items_clear(&have);
		if (error || !changed || refused)
			return error ? 1 : refused;
	}
	return refused;
}
