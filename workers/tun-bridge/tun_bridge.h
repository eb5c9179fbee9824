/* The worker that makes TUN devices, their addresses, routes and rules, source NAT, and what captures traffic for transparent
 * listeners: whatever needs CAP_NET_ADMIN. Packets never pass here. */
#ifndef HERMES_TUN_BRIDGE_H
#define HERMES_TUN_BRIDGE_H

#include "ipc/worker.h"

struct tun_bridge;

/* Never NULL: fatal() instead. Opens its netlink sockets. worker_start() wants the callbacks and their argument before there is
 * a worker, so the worker is named afterwards, before it runs. */
struct tun_bridge *tun_bridge_new(void);
void tun_bridge_use(struct tun_bridge *bridge, struct worker *worker);
void tun_bridge_free(struct tun_bridge *bridge);

extern const struct worker_callbacks tun_bridge_callbacks;

#endif
