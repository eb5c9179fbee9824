/* What is known of every endpoint: which tunnel workers find it down, and whether the operator drains it. Kept by the
 * names of cluster and endpoint, so that it outlives changes of configuration; written into the endpoint tables. */
#ifndef HERMES_ROUTER_HEALTH_H
#define HERMES_ROUTER_HEALTH_H

#include <stdbool.h>
#include <stddef.h>

struct config;
struct endpoint_table;
struct health;
struct json;

struct health *health_new(void);
void health_free(struct health *health);

/* Tunnel worker number `tunnel` (below 1,024) saw it go down or up. reason: for people, may be NULL.
 * Returns 0 or -ENOMEM. */
int health_report(struct health *health, const char *cluster, const char *endpoint, unsigned tunnel, bool up,
                  const char *reason);
int health_drain(struct health *health, const char *cluster, const char *endpoint, bool drain);
/* A tunnel worker is gone: what it saw is forgotten. */
void health_forget_tunnel(struct health *health, unsigned tunnel);
/* Forgets what was seen of endpoints that none of the configurations (NULL ones are skipped) has any more, so that one
 * that comes back starts healthy; what is drained stays drained. */
void health_sweep(struct health *health, const struct config *const *configs, size_t n);

/* Writes what is known into a table of this configuration: of all, or of one cluster's endpoint. */
void health_apply(const struct health *health, const struct config *config, struct endpoint_table *table);
void health_apply_one(const struct health *health, const struct config *config, struct endpoint_table *table,
                      const char *cluster, const char *endpoint);

/* Whether the configuration has it. endpoint NULL: any of the cluster. */
bool health_known(const struct config *config, const char *cluster, const char *endpoint);
/* One JSON object per endpoint, comma-separated; cluster NULL: of all clusters. */
void health_list(const struct health *health, const struct config *config, const char *cluster, struct json *out);

#endif
