/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration wants of addresses, routes and rules, and the way there from what the kernel has.
 *
 * Each hermesd of a network namespace has a slot of its own (the supervisor claims it), and in it three routing tables and, per
 * family, these `ip rule`s by their priority, where those that lead to a table have its number:
 *   4820 + 8 * slot      table: capture, where everything is local; for packets that bear the mark
 *   4821 + 8 * slot      table: pools, prefixes whose addresses are given to clients; for everybody
 *   4822 + 8 * slot      rule: what the supervisor's sockets send goes on at 4824
 *   4823 + 8 * slot      table: networks, what enters the overlay; for everybody but the workers' own user. What is excluded is
 *                        thrown back. So the overlay's connections and its resolver never loop into the device.
 *   4824 + 8 * slot      rule: nothing; everything else follows as if we were not there */
#ifndef HERMES_TUN_BRIDGE_PLAN_H
#define HERMES_TUN_BRIDGE_PLAN_H

#include "workers/tun-bridge/device.h"
#include "workers/tun-bridge/netlink.h"

#define PLAN_TABLE 4820u
#define PLAN_TABLES 8u             /* per slot */

struct config;
struct config_prefix;

struct plan {
	unsigned slot;             /* NET_SLOTS: none */
	uint32_t uid;              /* the workers' */
	uint32_t loopback;         /* index of lo */
};

enum plan_table { PLAN_CAPTURE, PLAN_POOLS, PLAN_OWN, PLAN_NETWORKS, PLAN_END };
uint32_t plan_table(const struct plan *plan, enum plan_table table);
uint32_t plan_mark(const struct plan *plan);

/* Whether the configuration has a listener that captures. */
bool plan_captures(const struct config *config);
/* "10.8.0.2/24", host bits allowed: into item (address, family, bits, device). False: not an address that a device can have. */
bool plan_address(const char *text, uint32_t device, struct net_item *item);
/* The prefix as family, address and bits (IPv4 mapped: IPv4). */
void plan_prefix(const struct config_prefix *prefix, struct net_item *item);
/* "10.0.0.0/8" into text, which it returns. */
#define PLAN_TEXT 56
const char *plan_text(const struct net_item *item, char text[PLAN_TEXT]);
/* Everything that is wanted. config NULL: nothing. Check wanted->failed. */
void plan_make(const struct plan *plan, const struct config *config, const struct tun_devices *devices, struct net_items *wanted);

/* Changes what differs, additions first. What does not work is logged; returns how many did not. */
unsigned plan_apply(const struct plan *plan, struct netlink *netlink, const struct tun_devices *devices,
                    const struct net_items *wanted);

#endif
