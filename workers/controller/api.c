/* SPDX-License-Identifier: Apache-2.0 */
/* Who asks, for what, and which handler answers. */
#include "workers/controller/api.h"
#include "workers/controller/api_http.h"

#include <errno.h>
#include <event2/buffer.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX ((size_t)16 << 20)           /* documents */
#define NODE_BODY_MAX (BODY_MAX / 16)         /* reports */
#define STRANGER_BODY_MAX ((size_t)64 << 10)  /* a token and a request for a certificate */
#define ROUTES_MAX 128
#define NODE_NAME_MAX 64

struct api {
	struct controller *controller;
	struct http_server *server;
	const struct api_route *routes[ROUTES_MAX];
	size_t n_routes;
	uid_t self;
	struct api_counts counts;
};

/* --- answers -------------------------------------------------------------------------------------------------------- */

static void answer(struct api_request *r, unsigned status, const char *type, const char *body, size_t length)
{
	struct api_counts *counts = &r->api->counts;
	counts->refused += status >= 400 && status < 500;
	counts->failed += status >= 500;
	http_answer(r, status, type, body, length);
}

void api_reply(struct api_request *r, unsigned status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	size_t length = text ? strlen(text) : 0;
	if (json && !text) {
		static const char out[] = "{\"error\":{\"code\":\"internal\",\"message\":\"the answer could not be written\",\"details\":[]}}\n";
		answer(r, 500, "application/json", out, sizeof(out) - 1);
	} else {
		if (text)
			text[length++] = '\n';        /* in place of the NUL: the length goes along */
		answer(r, status, json ? "application/json" : NULL, text, length);
	}
	free(text);
	json_decref(json);
}

void api_reply_text(struct api_request *r, unsigned status, const char *type, const char *text)
{
	answer(r, status, type, text, strlen(text));
}

void api_error(struct api_request *r, unsigned status, const char *code, const char *format, ...)
{
	char message[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	json_t *text = json_string(message);      /* NULL where it was cut inside a character, or is none of UTF-8 */
	api_reply(r, status, json_pack("{s:{s:s, s:o, s:[]}}", "error", "code", code, "message",
	                               text ? text : json_string("(not to be shown)"), "details"));
}

const char *api_store_why(int error)
{
	switch (error) {
	case -EAGAIN: return "somebody else was faster: read again";
	case -E2BIG: return "more than the store takes at once";
	case -ENOSPC: return "the controller's store is full: nothing was changed";
	case -ENOTCONN: case -ETIMEDOUT: case -ECONNRESET:
		return "no member of the cluster store can be reached: reading goes on, nothing is written";
	case -EUCLEAN: return "the controller's store is damaged";
	default: return strerror(-error);
	}
}

void api_store_error(struct api_request *r, int error)
{
	bool away = error == -ENOTCONN || error == -ETIMEDOUT || error == -ECONNRESET;
	api_error(r, error == -EAGAIN ? 409 : error == -E2BIG ? 413 : 503, error == -EAGAIN ? "conflict" : error == -E2BIG ? "too-large" :
	          error == -ENOSPC ? "store-full" : away ? "store-away" : "store", "%s", api_store_why(error));
}

/* --- what is asked -------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* In place. False: not well-formed (RFC 3986 2.1), or a NUL. */
static bool percent_decode(char *text, bool plus)
{
	char *out = text;
	for (const char *in = text; *in; in++) {
		if (*in == '%') {
			int high = hex(in[1]), low = high < 0 ? -1 : hex(in[2]);
			if (low < 0 || (!high && !low))
				return false;
			*out++ = (char)(high << 4 | low);
			in += 2;
		} else {
			*out++ = plus && *in == '+' ? ' ' : *in;
		}
	}
	*out = '\0';
	return true;
}

static bool split_query(struct api_request *r)
{
	char *rest = r->query;
	for (char *part; rest && (part = strsep(&rest, "&"));) {
		char *value = strchr(part, '=');
		if (!*part)
			continue;
		if (r->n_parameters == API_PARAMETERS_MAX)
			return false;
		if (value)
			*value++ = '\0';
		if (!percent_decode(part, true) || (value && !percent_decode(value, true)))
			return false;
		r->parameters[r->n_parameters].name = part;
		r->parameters[r->n_parameters++].value = value ? value : "";
	}
	return true;
}

static bool split_target(struct api_request *r)
{
	const char *target = r->parse.target, *mark = strchr(target, '?');
	r->path = strndup(target, mark ? (size_t)(mark - target) : strlen(target));
	r->query = mark ? strdup(mark + 1) : NULL;
	return r->path && (!mark || r->query) && percent_decode(r->path, false) && split_query(r);
}

const char *api_query(const struct api_call *call, const char *name)
{
	const struct api_request *r = call->request;
	for (size_t i = 0; i < r->n_parameters; i++)
		if (!strcmp(r->parameters[i].name, name))
			return r->parameters[i].value;
	return NULL;
}

uint64_t api_query_u64(const struct api_call *call, const char *name, uint64_t otherwise)
{
	const char *text = api_query(call, name);
	char *end;
	if (!text || *text < '0' || *text > '9')
		return otherwise;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	return errno || *end ? otherwise : value;
}

static bool is_text(const char *type)
{
	return type && (!strcmp(type, "application/yaml") || !strcmp(type, "application/x-yaml") || !strcmp(type, "text/yaml") ||
	                !strcmp(type, "text/plain"));
}

/* False: it was answered. */
static bool read_body(struct api_request *r)
{
	size_t length = evbuffer_get_length(r->parse.body);
	json_error_t error;
	if (!length)
		return true;
	r->text = malloc(length + 1);
	if (!r->text) {
		api_error(r, 503, "memory", "out of memory");
		return false;
	}
	evbuffer_remove(r->parse.body, r->text, length);
	r->text[length] = '\0';
	if (is_text(r->parse.type)) {
		if (strlen(r->text) != length) {
			api_error(r, 400, "bad-request", "the text holds a NUL");
			return false;
		}
		r->call.text = r->text;
		r->call.length = length;
		return true;
	}
	r->call.body = json_loadb(r->text, length, JSON_REJECT_DUPLICATES, &error);
	free(r->text);
	r->text = NULL;
	if (!r->call.body)
		api_error(r, 400, "bad-json", "line %d, column %d: %s", error.line, error.column, error.text);
	return r->call.body != NULL;
}

/* --- who asks ------------------------------------------------------------------------------------------------------- */

static bool is_operator(const struct controller *c, const char *node)
{
	const struct config_strs *names = c->config ? &c->config->controller.operators : NULL;
	for (size_t i = 0; names && i < names->n; i++)
		if (!strcmp(names->v[i], node))
			return true;
	return false;
}

static void who_asks(struct api *api, struct api_request *r, uid_t uid)
{
	struct api_call *call = &r->call;
	const char *node = r->parse.peer && *r->parse.peer ? r->parse.peer : NULL;
	call->author = r->author;
	if (uid != api->self) {
		call->level = API_OPERATOR;
		snprintf(r->author, sizeof(r->author), uid ? "uid %u" : "root", (unsigned)uid);
	} else if (node) {
		call->node = node;
		call->level = is_operator(api->controller, node) ? API_OPERATOR : API_NODE;
		snprintf(r->author, sizeof(r->author), "node %s", node);
	} else {
		call->level = API_ANYBODY;
		snprintf(r->author, sizeof(r->author), "anybody");
	}
}

static bool is_revoked(const struct controller *c, const char *node)
{
	char key[NODE_NAME_MAX + 8];
	if ((size_t)snprintf(key, sizeof(key), "node/%s", node) >= sizeof(key))
		return true;              /* none of ours is called that */
	struct kv_value value = kv_get(c->kv, key);
	return value.revision && json_is_true(json_object_get(value.json, "revoked"));
}

/* --- which handler -------------------------------------------------------------------------------------------------- */

/* The rest of the path behind the prefix; NULL: it does not lie below. */
static const char *below(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);
	if (length && prefix[length - 1] == '/')
		length--;
	if (strncmp(path, prefix, length) || (path[length] && path[length] != '/'))
		return NULL;
	return path[length] ? path + length + 1 : path + length;
}

static bool has_method(const char *methods, const char *method)
{
	size_t length = strlen(method);
	for (const char *at = methods; (at = strstr(at, method)); at += length)
		if ((at == methods || at[-1] == ' ' || at[-1] == ',') && (!at[length] || at[length] == ' ' || at[length] == ','))
			return true;
	return false;
}

/* A route for one word behind a name goes before the one for all of them. 0: it is not for this path. */
static size_t weight(const struct api_route *route, const char *path, const char **rest)
{
	size_t length = strlen(route->prefix);
	const char *slash;
	*rest = below(path, route->prefix);
	if (!*rest)
		return 0;
	if (!route->what)
		return 2 * length + 2 - (route->prefix[length - 1] == '/' ? 2 : 0);
	slash = strchr(*rest, '/');
	return slash && slash != *rest && !strcmp(slash + 1, route->what) ? 2 * length + 3 : 0;
}

/* rest: NULL where nothing lies there at all. */
static const struct api_route *find_route(const struct api *api, const char *path, const char *method, const char **rest)
{
	const struct api_route *found = NULL;
	const char *behind;
	size_t best = 0;
	*rest = NULL;
	for (size_t i = 0; i < api->n_routes; i++) {
		size_t w = weight(api->routes[i], path, &behind);
		if (!w || w < best)
			continue;
		if (w > best)
			found = NULL;
		best = w;
		*rest = behind;
		if (!found && has_method(api->routes[i]->methods, method))
			found = api->routes[i];
	}
	return found;
}

static void dispatch(struct api *api, struct api_request *r)
{
	struct api_call *call = &r->call;
	const char *rest;
	const struct api_route *route = find_route(api, r->path, call->method, &rest);
	if (!rest)
		api_error(r, 404, "not-found", "there is nothing at this path");
	else if (!route)
		api_error(r, 405, "method", "%s is not for this path", call->method);
	else if (call->level < route->level)
		api_error(r, 403, "forbidden", route->level == API_NODE ? "only nodes with a certificate of the domain may do that"
		                                                        : "only operators may do that");
	else if (!kv_ready(api->controller->kv))
		api_error(r, 503, "not-ready", "the controller has not loaded its store yet");
	else if (call->node && is_revoked(api->controller, call->node))
		api_error(r, 403, "revoked", "node %s is revoked", call->node);
	else if (call->rest = rest, read_body(r))
		route->handle(call);
}

static void on_request(struct api *api, struct api_request *r, uid_t uid)
{
	api->counts.requests++;
	r->call.controller = api->controller;
	r->call.request = r;
	r->call.method = r->parse.method;
	who_asks(api, r, uid);
	if (!split_target(r))
		api_error(r, 400, "bad-request", "malformed path or query");
	else
		dispatch(api, r);
}

/* Whoever comes over the network may not make us hold much at once. */
static size_t body_limit(struct api *api, uid_t uid, const char *peer, bool *stranger)
{
	*stranger = uid == api->self && (!peer || !*peer);
	if (uid != api->self)
		return BODY_MAX;
	return *stranger ? STRANGER_BODY_MAX : is_operator(api->controller, peer) ? BODY_MAX : NODE_BODY_MAX;
}

/* --- life ----------------------------------------------------------------------------------------------------------- */

void api_add(struct api *api, const struct api_route *routes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (api->n_routes == ROUTES_MAX)
			abort();
		api->routes[api->n_routes++] = &routes[i];
	}
}

struct api *api_new(struct controller *controller, struct event_base *base)
{
	struct api *api = calloc(1, sizeof(*api));
	if (!api)
		return NULL;
	api->controller = controller;
	api->self = getuid();
	api->server = http_server_new(base, api, body_limit, on_request);
	if (api->server)
		return api;
	free(api);
	return NULL;
}

struct http_server *api_server(struct api *api)
{
	return api->server;
}

void api_set_self(struct api *api, unsigned uid)
{
	api->self = uid;
}

int api_listen(struct api *api, int fd)
{
	return http_server_listen(api->server, fd);
}

void api_unlisten(struct api *api)
{
	http_server_unlisten(api->server);
}

struct api_counts api_counts(const struct api *api)
{
	struct api_counts counts = api->counts;
	counts.connections = http_server_connections(api->server);
	return counts;
}

void api_free(struct api *api)
{
	if (!api)
		return;
	http_server_free(api->server);
	free(api);
}
