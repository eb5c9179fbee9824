/* The shared counters of all workers: living regions, and what vanished ones had counted, so that no exported counter ever
 * goes backwards because a worker was replaced. */
#ifndef HERMES_TELEMETRY_REGIONS_H
#define HERMES_TELEMETRY_REGIONS_H

#include "ipc/messages.h"
#include "workers/telemetry/totals.h"

struct regions;
struct region;

struct regions *regions_new(void);
void regions_free(struct regions *regions);

/* Maps a worker's region and takes over fd. Several regions of the same worker may live at once (the old one's last
 * records still come while the new one starts). NULL: it is not a region, or no memory. */
struct region *regions_add(struct regions *regions, enum ipc_role role, unsigned index, int fd);
/* The worker is gone: its counters are kept, its gauges are not. NULL is allowed. */
void regions_remove(struct regions *regions, struct region *region);

/* Everything counted so far; totals_free it. NULL: no memory. */
struct totals *regions_snapshot(const struct regions *regions);

/* The workers ever seen, i from 0; false past the end. name: static as long as regions. starts: regions it showed. */
bool regions_worker(const struct regions *regions, unsigned i, const char **name, unsigned *living, uint64_t *starts);

#endif
