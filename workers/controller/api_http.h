/* SPDX-License-Identifier: Apache-2.0 */
/* The controller's HTTP server: connections on sockets that come bound, one request at a time on each. Only for api*.c. */
#ifndef HERMES_CONTROLLER_API_HTTP_H
#define HERMES_CONTROLLER_API_HTTP_H

#include "workers/controller/api.h"
#include "workers/controller/api_parse.h"

#include <sys/types.h>

#define API_CONNECTIONS_MAX 20000u
#define API_STRANGERS_MAX 256u
#define API_PARAMETERS_MAX 32

struct connection;
struct event_base;
struct http_server;

/* Lives until it is answered; where the asker goes before and nobody wants to know (api_on_gone), the answer is dropped. */
struct api_request {
	struct api *api;
	struct connection *connection;        /* NULL: gone */
	struct api_call call;
	struct api_parse parse;               /* what call points into */
	char *path, *query, *text;
	char author[80];
	struct { const char *name, *value; } parameters[API_PARAMETERS_MAX];
	size_t n_parameters;
	void (*gone)(void *arg);
	void *gone_arg;
	bool handling;                        /* its handler has not returned: it may look at the call still */
	bool answered;
};

/* uid: of who is at the other end (SO_PEERCRED), (uid_t)-1: unknown. */
typedef void http_handle(struct api *api, struct api_request *request, uid_t uid);
/* How large a body may be of who has this uid and, from the end of the head on, this name (before: the most there is).
 * stranger: it has no name, and there may be API_STRANGERS_MAX such requests at once. */
typedef size_t http_limit(struct api *api, uid_t uid, const char *peer, bool *stranger);

struct http_server *http_server_new(struct event_base *base, struct api *api, http_limit *limit, http_handle *handle);
/* Takes over fd, which is bound and listens from now on. 0 or -errno. */
int http_server_listen(struct http_server *server, int fd);
/* A connection that came otherwise (tests); takes over fd. */
void http_server_take(struct http_server *server, int fd);
/* Serves on what is being answered; accepts nothing more. */
void http_server_unlisten(struct http_server *server);
unsigned http_server_connections(const struct http_server *server);
void http_server_free(struct http_server *server);

/* api.c */
struct http_server *api_server(struct api *api);

/* The answer to a request, which is done with. type NULL: no body. */
void http_answer(struct api_request *request, unsigned status, const char *type, const char *body, size_t length);

#endif
