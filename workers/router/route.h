/* The first route of the document that a request matches, found without looking at all of them.
 *
 * Each route that can be is filed under one condition that a request must meet literally to match it: an authority, a
 * suffix of one, a user, a header's value, a path. Of a route's conditions the one that the fewest others share is
 * taken. A question looks up what it carries, and tries the routes filed there, and those that could not be filed,
 * in the document's order. */
#ifndef HERMES_ROUTER_ROUTE_H
#define HERMES_ROUTER_ROUTE_H

#include "store/match.h"
#include "store/trace.h"

struct route_index;

/* config must outlive the index. NULL: out of memory. */
struct route_index *route_index_new(const struct config *config);
void route_index_free(struct route_index *index);

/* The route, or NULL. *valid_ms is lowered to the time after which another route may match (time windows). */
const struct config_route *route_find(const struct route_index *index, const struct match_input *input,
                                      uint32_t *valid_ms, struct trace *trace);

#endif
