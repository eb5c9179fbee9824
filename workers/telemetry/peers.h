/* The channels from all workers: their shared counters and their flows' records. */
#ifndef HERMES_TELEMETRY_PEERS_H
#define HERMES_TELEMETRY_PEERS_H

#include "workers/telemetry/access_log.h"
#include "workers/telemetry/regions.h"

struct peers;

/* Everything is borrowed and outlives peers. NULL: no memory. */
struct peers *peers_new(struct event_base *base, unsigned self_index, struct regions *regions, struct access_log *log);
void peers_free(struct peers *peers);
/* Takes over fd. The channel of a worker's predecessor stays until it ends: its last records still come. */
void peers_add(struct peers *peers, enum ipc_role role, unsigned index, int fd);
/* Flow records received so far. */
uint64_t peers_records(const struct peers *peers);
/* Calls drained(arg), once, when all tunnel workers have gone. */
void peers_on_drained(struct peers *peers, void (*drained)(void *arg), void *arg);

#endif
