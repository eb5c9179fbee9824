/* SPDX-License-Identifier: Apache-2.0 */
/* What tun-bridge knows of the devices for `hermes-admin tunnels list`; the owning tunnel worker knows the rest, and the supervisor
 * puts the two together by name. */
#ifndef HERMES_TUN_BRIDGE_LIST_H
#define HERMES_TUN_BRIDGE_LIST_H

#include "ipc/json.h"
#include "workers/tun-bridge/plan.h"

struct config_tunnel;

/* One object. owner: index of the tunnel worker. */
void list_device(const struct plan *plan, struct netlink *netlink, const struct config_tunnel *config,
                 const struct tun_device *device, unsigned owner, struct json *json);

#endif
