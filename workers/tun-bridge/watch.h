/* SPDX-License-Identifier: Apache-2.0 */
/* Hears of changes that others make to interfaces, rules and packet filter (`ip link set down`, `nft flush ruleset`), so that what
 * is ours can be put back. */
#ifndef HERMES_TUN_BRIDGE_WATCH_H
#define HERMES_TUN_BRIDGE_WATCH_H

struct event_base;
struct watch;

/* changed(arg) is called a moment after the last of a run of changes, our own among them. Opens its sockets: before the sandbox
 * closes. NULL: not possible here. */
struct watch *watch_new(struct event_base *base, void (*changed)(void *arg), void *arg);
void watch_free(struct watch *watch);

#endif
