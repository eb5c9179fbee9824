/* What an operator sees of living flows. */
#ifndef HERMES_TUNNEL_FLOW_JSON_H
#define HERMES_TUNNEL_FLOW_JSON_H

#include "ipc/json.h"
#include "workers/tunnel/tunnel.h"

/* Comma-separated objects, at most `limit` flows, the youngest first. */
void flows_json(const struct tunnel *tunnel, unsigned limit, struct json *json);
/* One flow; false: there is none of that id. */
bool flow_json(const struct tunnel *tunnel, uint64_t id, struct json *json);

#endif
