/* SPDX-License-Identifier: Apache-2.0 */
/* The controller's HTTP interface: JSON in, JSON out; packaging/schema/controller.json says each body's shape, hermes-controller(7) the
 * whole. Errors are {"error": {"code": "word", "message": "for people", "details": [...]}} with the status that fits. */
#ifndef HERMES_CONTROLLER_API_H
#define HERMES_CONTROLLER_API_H

#include "workers/controller/controller.h"

struct event_base;

enum api_level { API_ANYBODY, API_NODE, API_OPERATOR };

struct api_call {
	struct controller *controller;
	const char *method;           /* "GET", "POST", "PUT", "DELETE" */
	const char *rest;             /* of the path behind the handler's prefix, decoded: "" or "NAME" or "NAME/config" */
	const char *node;             /* who asks, where it is a node; else NULL */
	const char *author;           /* for histories: "node alice", "root", "uid 1000" */
	enum api_level level;
	json_t *body;                 /* NULL: none; a body that is no JSON never gets here */
	const char *text;             /* a body of type application/yaml or text/plain */
	size_t length;
	struct api_request *request;
};
/* A query's parameter, decoded, or NULL. */
const char *api_query(const struct api_call *call, const char *name);
uint64_t api_query_u64(const struct api_call *call, const char *name, uint64_t otherwise);

/* Each call is answered once: at once, or later by the kept request. Takes over json. */
void api_reply(struct api_request *request, unsigned status, json_t *json);
void api_reply_text(struct api_request *request, unsigned status, const char *type, const char *text);
void api_error(struct api_request *request, unsigned status, const char *code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* To be called when the asker has gone before the answer; the request is no longer valid then. */
void api_on_gone(struct api_request *request, void (*gone)(void *arg), void *arg);

/* What kv_commit() gave, as an answer: 409 where another was faster (-EAGAIN), 503 where the store did not take it, and why. */
void api_store_error(struct api_request *request, int error);
const char *api_store_why(int error);

/* A handler of everything below `prefix` ("/v1/nodes/"; the longest prefix wins, then the method among routes of the same prefix; with
 * or without the slash behind). methods: "GET PUT". level: the least; more may ask too (call->level says who does). what: only for
 * PREFIX/NAME/WHAT, before those without: {"/v1/nodes/", "POST", API_OPERATOR, drain, "drain"} is called with rest "NAME/drain". */
struct api_route { const char *prefix; const char *methods; enum api_level level; void (*handle)(struct api_call *call); const char *what; };
void api_add(struct api *api, const struct api_route *routes, size_t n);

/* api_nodes.c, api_domain.c */
void api_nodes_add(struct api *api);
void api_domain_add(struct api *api);

/* For main.c, metrics.c. listen: takes over fd, which is bound; 0 or -errno. */
struct api_counts { uint64_t requests, refused, failed; unsigned connections; };      /* refused: 4xx, failed: 5xx */
struct api *api_new(struct controller *controller, struct event_base *base);
/* Whose connections are the tunnel worker's: our own user's; tests say another. */
void api_set_self(struct api *api, unsigned uid);
int api_listen(struct api *api, int fd);
void api_unlisten(struct api *api);
struct api_counts api_counts(const struct api *api);
void api_free(struct api *api);

#endif
