/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is asked by rtnetlink: links, addresses, routes, rules. (libnl's messages and sockets; its own models of
 * rules know no user ids, so that the messages are put together here.) All return 0 or -errno. */
#ifndef HERMES_TUN_BRIDGE_NETLINK_H
#define HERMES_TUN_BRIDGE_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whose: addresses (IFA_PROTO), routes and rules that we made say so, also after we were killed. (rt_protos(5) has no such
 * number; 0x48 is an H.) */
#define NETLINK_OURS 0x48

enum net_kind { NET_ADDRESS, NET_ROUTE, NET_RULE };

/* One address, route or rule. Compared byte by byte: what is unused is zero. */
struct net_item {
	enum net_kind kind;
	uint8_t family;             /* AF_INET, AF_INET6 */
	uint8_t type;               /* route: RTN_UNICAST, RTN_THROW, RTN_LOCAL; rule: FR_ACT_TO_TBL, FR_ACT_GOTO, FR_ACT_NOP */
	uint8_t bits;
	uint8_t invert;             /* rule: for all but uid */
	uint8_t address[16];        /* address itself, or a route's destination */
	uint32_t device;            /* interface index; throw routes and rules: 0 */
	uint32_t table, priority;   /* priority: of a rule; table: where it leads, for FR_ACT_GOTO the other rule's priority */
	uint32_t mark;              /* rule: 0: none */
	uint32_t uid;               /* rule, where invert */
};
struct net_items {
	struct net_item *v;
	size_t n, size;
	bool failed;                /* out of memory */
};
void net_items_add(struct net_items *items, const struct net_item *item);
bool net_items_has(const struct net_items *items, const struct net_item *item);
void net_items_clear(struct net_items *items);

struct net_link {
	uint32_t index, mtu;
	bool up;
	uint64_t in_packets, in_bytes, in_dropped;      /* the device's own view: in: written by us, out: read by us */
	uint64_t out_packets, out_bytes, out_dropped;
};

struct netlink;
/* NULL with errno: no netlink here. Opens its socket: before the sandbox closes. */
struct netlink *netlink_new(void);
void netlink_free(struct netlink *netlink);

int netlink_link(struct netlink *netlink, const char *name, struct net_link *out);
/* No IPv6 addresses that the kernel makes up, and with them no packets that it sends by itself. Where there is no IPv6: 0. */
int netlink_link_quiet(struct netlink *netlink, uint32_t index);
int netlink_link_mtu(struct netlink *netlink, uint32_t index, uint32_t mtu);
int netlink_link_up(struct netlink *netlink, uint32_t index);

/* Adds to out what the kernel has of ours: addresses of the interface `device`; routes of one family, of the tables from low to
 * high; rules of one family, of the priorities from low to high. */
int netlink_addresses(struct netlink *netlink, uint32_t device, struct net_items *out);
int netlink_routes(struct netlink *netlink, int family, uint32_t low, uint32_t high, struct net_items *out);
int netlink_rules(struct netlink *netlink, int family, uint32_t low, uint32_t high, struct net_items *out);
int netlink_add(struct netlink *netlink, const struct net_item *item);      /* there already: 0 */
int netlink_delete(struct netlink *netlink, const struct net_item *item);   /* gone already: 0 */

/* Whether the kernel forwards packets of the family (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding). Unknown: true. */
bool netlink_forwards(struct netlink *netlink, int family);

#endif
