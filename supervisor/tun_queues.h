/* SPDX-License-Identifier: Apache-2.0 */
/* TUN devices: tun-bridge makes them, tunnel workers move their packets, and the supervisor keeps a duplicate of every queue's
 * descriptor, so that neither's restart takes a device away or loses what waits in it. */
#ifndef HERMES_SUPERVISOR_TUN_QUEUES_H
#define HERMES_SUPERVISOR_TUN_QUEUES_H

#include "supervisor/child.h"

struct config;
struct tun_queues;

/* Claims this network namespace's next free slot (ipc/net.h) for tun-bridge, unless it is inherited. */
struct tun_queues *tun_queues_new(struct supervisor *s);
void tun_queues_free(struct tun_queues *queues);

/* From tun-bridge: a queue that it opened for a generation that is being prepared. Takes *fd. */
void tun_queues_take(struct tun_queues *queues, struct child *child, const struct ipc_tun_queue *m, int *fd);
/* Before a worker's first PREPARE: to tun-bridge what is held; to a tunnel worker the queues of its devices. */
void tun_queues_send(struct tun_queues *queues, struct child *child, uint64_t generation);
/* The configuration is in force: new queues go to their owners (before its COMMIT does), those of devices that it does not have
 * are dropped. Or it is not: what was opened for it goes. */
void tun_queues_commit(struct tun_queues *queues, const struct config *config, uint64_t generation);
void tun_queues_abort(struct tun_queues *queues);

/* At a start: devices whose queues systemd kept from another life. */
void tun_queues_stored(struct tun_queues *queues);
/* For a restart in place: what is held; and back. 0 or -errno. */
struct state;
int tun_queues_save(const struct tun_queues *queues, struct state *state);
int tun_queues_adopt(struct tun_queues *queues, const struct state *state);

/* From a tunnel worker: addresses that the far end gave to a device of its own. They are remembered for a new tun-bridge. */
void tun_queues_addresses(struct tun_queues *queues, struct child *child, const struct ipc_tun_addresses *m);
/* From a tunnel worker to tun-bridge, and back: a socket bound to a foreign address. */
void tun_queues_socket_wanted(struct tun_queues *queues, struct child *child, const struct ipc_socket_wanted *m);
void tun_queues_socket_made(struct tun_queues *queues, struct child *child, const struct ipc_socket_made *m, int fd);

#endif
