/* The metrics listener: HTTP/1.1, GET and HEAD of /metrics and /health. */
#ifndef HERMES_TELEMETRY_HTTP_H
#define HERMES_TELEMETRY_HTTP_H

#include "workers/telemetry/metrics.h"

struct event_base;
struct http_server;

#define HTTP_CONNECTIONS_MAX 64u
#define HTTP_WAIT 10          /* s without progress */
#define HTTP_WRITE_TOTAL 60   /* s for a whole answer */

/* Fills *out with what is to be shown now; what it points to stays until the event loop runs again. False: no configuration
 * is in force yet (/health answers 503). */
typedef bool http_metrics(void *arg, struct metrics *out);

struct http_server *http_new(struct event_base *base, http_metrics *metrics, void *arg);
void http_free(struct http_server *server);
/* Serves on this bound socket from now on (listen() is called here), and on no other; takes over fd; -1: on none.
 * Connections that are open stay. Returns 0 or -errno, then nothing changed. */
int http_listen(struct http_server *server, int fd);
/* How many connections are open. */
unsigned http_connections(const struct http_server *server);

#endif
