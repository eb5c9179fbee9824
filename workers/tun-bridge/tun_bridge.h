/* The worker that will make TUN devices, their addresses and routes. Until UDP and IP packets are carried it prepares
 * configurations without doing anything for them, and answers that there is no tunnel. */
#ifndef HERMES_TUN_BRIDGE_H
#define HERMES_TUN_BRIDGE_H

#include "ipc/worker.h"

struct tun_bridge;

/* Never NULL: fatal() instead. worker_start() wants the callbacks and their argument before there is a worker, so the
 * worker is named afterwards, before it runs. */
struct tun_bridge *tun_bridge_new(void);
void tun_bridge_use(struct tun_bridge *bridge, struct worker *worker);
void tun_bridge_free(struct tun_bridge *bridge);

extern const struct worker_callbacks tun_bridge_callbacks;

#endif
