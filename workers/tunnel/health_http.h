/* The least HTTP that a health check needs: one GET, and the status of its response. */
#ifndef HERMES_TUNNEL_HEALTH_HTTP_H
#define HERMES_TUNNEL_HEALTH_HTTP_H

#include <stdbool.h>

#include "workers/tunnel/slab.h"

struct health_http;

struct health_http *health_http_new(bool h2, bool tls, const char *authority, const char *path);
void health_http_free(struct health_http *http);   /* NULL is fine */
/* Appends what is to be sent now. */
void health_http_output(struct health_http *http, struct chunks *out);
/* Takes over what came. The final response's status, 0: not yet, -1: this is no such response. */
int health_http_input(struct health_http *http, struct chunks *in);

#endif
