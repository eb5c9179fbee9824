/* Access records on their way to telemetry, in batches. */
#ifndef HERMES_TUNNEL_RECORDS_H
#define HERMES_TUNNEL_RECORDS_H

#include "workers/tunnel/tunnel.h"

struct records;
struct records *records_new(struct tunnel *tunnel);
/* Encodes at once; sent with others within 100 ms. Dropped, and counted, while telemetry does not keep up. */
void records_add(struct records *records, const struct ipc_flow_record *record);
void records_flush(struct records *records);

#endif
