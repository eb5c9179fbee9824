/* Active health checks of endpoints: a connection, its TLS, and a GET where the configuration names a path. */
#ifndef HERMES_TUNNEL_HEALTH_H
#define HERMES_TUNNEL_HEALTH_H

#include "workers/tunnel/endpoint.h"

/* The endpoint's cluster was configured (anew): checks begin, change or end as it says. */
void endpoint_health_update(struct endpoint *endpoint);
void endpoint_health_free(struct health *health);   /* NULL is fine */

#endif
