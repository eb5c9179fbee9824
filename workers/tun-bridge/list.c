/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/list.h"
#include "store/config.h"

#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

static void put_offload(const struct tun_device *d, struct json *j)
{
	static const struct {
		unsigned bit;
		const char *name;
	} bits[] = {{TUN_F_CSUM, "csum"}, {TUN_F_TSO4, "tso4"}, {TUN_F_TSO6, "tso6"}, {0x20, "uso4"}, {0x40, "uso6"}};
	json_array(j, "offload");
	for (size_t i = 0; i < sizeof(bits) / sizeof(*bits); i++)
		if (d->offload & bits[i].bit)
			json_str(j, NULL, bits[i].name);
	json_end(j);
}

static void put_item(const struct net_item *item, struct json *j)
{
	char text[PLAN_TEXT];
	json_str(j, NULL, plan_text(item, text));
}

static void put_addresses(struct netlink *nl, const struct tun_device *d, struct json *j)
{
	struct net_items items = {0};
	netlink_addresses(nl, d->index, &items);
	json_array(j, "addresses");
	for (size_t i = 0; i < items.n; i++)
		put_item(&items.v[i], j);
	json_end(j);
	net_items_clear(&items);
}

/* A pool's prefix may be that of the device's address too. */
static bool repeated(const struct net_items *items, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		struct net_item other = items->v[k];
		other.table = items->v[i].table;
		if (memcmp(&other, &items->v[i], sizeof(other)) == 0)
			return true;
	}
	return false;
}

static void put_routes(const struct plan *p, struct netlink *nl, const struct tun_device *d, struct json *j)
{
	static const int families[] = {AF_INET, AF_INET6};
	struct net_items items = {0};
	for (size_t i = 0; i < 2; i++)
		netlink_routes(nl, families[i], plan_table(p, PLAN_POOLS), plan_table(p, PLAN_NETWORKS), &items);
	json_array(j, "routes");
	for (size_t i = 0; i < items.n; i++)
		if (items.v[i].device == d->index && !repeated(&items, i))
			put_item(&items.v[i], j);
	json_end(j);
	net_items_clear(&items);
}

static void put_exclude(const struct config_tunnel *c, struct json *j)
{
	json_array(j, "exclude");
	for (size_t i = 0; i < c->exclude.n; i++) {
		struct net_item item = {0};
		plan_prefix(&c->exclude.v[i], &item);
		put_item(&item, j);
	}
	json_end(j);
}

/* The kernel's: they outlast workers. read: by us, what programs sent; a piece that was not segmented counts as one packet.
 * dropped: because no queue had room, or the device did not take it. */
static void put_counters(const struct net_link *link, struct json *j)
{
	json_uint(j, "packets_read", link->out_packets);
	json_uint(j, "bytes_read", link->out_bytes);
	json_uint(j, "packets_written", link->in_packets);
	json_uint(j, "bytes_written", link->in_bytes);
	json_uint(j, "dropped", link->out_dropped + link->in_dropped);
}

void list_device(const struct plan *p, struct netlink *nl, const struct config_tunnel *c, const struct tun_device *d,
                 unsigned owner, struct json *j)
{
	struct net_link link = {0};
	char worker[32];
	bool there = netlink_link(nl, d->name, &link) == 0 && link.index == d->index;
	snprintf(worker, sizeof(worker), "tunnel-%u", owner);
	json_object(j, NULL);
	json_str(j, "name", d->name);
	json_str(j, "state", !there ? "gone" : link.up ? "up" : "down");
	json_bool(j, "assigned", c->assigned);
	put_addresses(nl, d, j);
	json_uint(j, "mtu", link.mtu);
	json_uint(j, "queues", c->queues);
	put_offload(d, j);
	json_str(j, "worker", worker);
	put_routes(p, nl, d, j);
	put_exclude(c, j);
	put_counters(&link, j);
	json_end(j);
}
