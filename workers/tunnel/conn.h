/* One pooled connection: made, used, idle, closed. Internal to the clusters (see endpoint.h). */
#ifndef HERMES_TUNNEL_CONN_H
#define HERMES_TUNNEL_CONN_H

#include "workers/tunnel/pool.h"

/* conn.c, for pool.c */
void conn_dial(struct pool *pool);
/* A leg for the flow on a connection that has room: h2: the one with the fewest streams; h1: the one idle for the
 * shortest time. NULL: none; *error is set where waiting would not help. *address lives until the next call. */
struct leg *conns_open(struct pool *pool, struct flow *flow, const char **address, bool *reused, enum flow_error *error);
unsigned conns_streams(const struct pool *pool);
/* Closes those that are idle since before `since` (µs). */
void conns_close_idle(struct pool *pool, uint64_t since);
/* No connection is used for anything new, unless somebody waits already. */
void conns_retire(struct pool *pool);
/* Those that lead elsewhere than to these addresses take nothing new. */
void conns_leave(struct pool *pool, const struct resolved *addresses);
void conns_destroy(struct pool *pool);
/* Ends, at once, those to a node that the configuration in force no longer believes. */
void conns_revoke(struct pool *pool);

/* pool.c, for conn.c */
void pool_hold(struct pool *pool);
void pool_let(struct pool *pool);     /* may free it */
void pool_serve(struct pool *pool);
bool pool_retired(const struct pool *pool);
/* What the endpoint's name resolved to; copied. */
void pool_resolved(struct pool *pool, const struct resolved *resolved);
void pool_conn_failed(struct pool *pool, enum flow_error error, const char *detail);

#endif
