/* SPDX-License-Identifier: Apache-2.0 */
/* Longest prefix match: which taker packets to an address belong to. Both families in one table (IPv4 is mapped). */
#ifndef HERMES_TUNNEL_DEVICE_ROUTES_H
#define HERMES_TUNNEL_DEVICE_ROUTES_H

#include "store/config.h"

struct device_routes;

struct device_routes *device_routes_new(void);
void device_routes_free(struct device_routes *routes);
/* False: that prefix is there already, for another taker. The same one again is no change. */
bool device_routes_add(struct device_routes *routes, const struct config_prefix *prefix, void *taker);
/* Where the prefix is there for this taker. */
void device_routes_remove(struct device_routes *routes, const struct config_prefix *prefix, const void *taker);
void device_routes_forget(struct device_routes *routes, const void *taker);
/* The taker of the longest prefix that contains the address; NULL: none. */
void *device_routes_find(struct device_routes *routes, const struct in6_addr *address);

#endif
