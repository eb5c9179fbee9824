/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/router/answer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ipc/endpoints.h"

/* --- one generation ------------------------------------------------------------------------------------------------- */

struct routing *routing_new(struct config *config)
{
	struct routing *r = calloc(1, sizeof(*r));

	if (!r) {
		config_free(config);
		return NULL;
	}
	r->config = config;
	r->routes = route_index_new(config);
	r->spaces = space_index_new(config);
	r->endpoints = endpoint_table_new(config);
	if (r->routes && r->spaces && r->endpoints)
		return r;
	routing_free(r);
	return NULL;
}

void routing_free(struct routing *routing)
{
	if (!routing)
		return;
	route_index_free(routing->routes);
	space_index_free(routing->spaces);
	endpoint_table_free(routing->endpoints);
	config_free(routing->config);
	free(routing);
}

/* --- answering ------------------------------------------------------------------------------------------------------ */

void answer_room_free(struct answer_room *room)
{
	free(room->headers);
	free(room->added);
	*room = (struct answer_room){0};
}

/* The array with room for `want` items, moved where it had to grow; NULL: out of memory, the old one is still there. */
static void *grow(void *items, size_t *have, size_t want, size_t size)
{
	void *more;

	if (items && want <= *have)
		return items;
	more = realloc(items, (want + 16) * size);
	if (more)
		*have = want + 16;
	return more;
}

/* Two names for the same pair of pointers: one belongs to the wire, one to the configuration. */
static void copy_headers(struct match_header *to, const struct ipc_pairs *from)
{
	for (size_t i = 0; i < from->n; i++)
		to[i] = (struct match_header){ from->v[i].name, from->v[i].value };
}

static void fill_input(const struct ipc_assessed *a, struct match_header *headers, struct match_input *in)
{
	copy_headers(headers, &a->headers);
	copy_headers(headers + a->headers.n, &a->add_headers);
	*in = (struct match_input){
		.listener = a->listener, .peer = a->peer, .user = a->user, .method = a->method, .protocol = a->protocol,
		.scheme = a->scheme, .authority = a->authority, .path = a->path, .headers = headers,
		.n_headers = a->headers.n, .added = headers + a->headers.n, .n_added = a->add_headers.n, .now = a->now,
	};
	in->has_source = a->source && match_address(a->source, &in->source);
}

/* Each name once: the route's own word counts over a policy's. */
static bool add_headers(const struct ipc_assessed *a, const struct config_pairs *own, struct answer_room *room,
                        struct ipc_decision *out)
{
	struct ipc_pair *added = grow(room->added, &room->n_added, a->add_headers.n + own->n, sizeof(*added));
	size_t n = 0;

	if (!added)
		return false;
	room->added = added;
	for (size_t i = 0; i < a->add_headers.n; i++) {
		bool replaced = false;
		for (size_t k = 0; k < own->n && !replaced; k++)
			replaced = !strcasecmp(own->v[k].name, a->add_headers.v[i].name);
		if (!replaced)
			added[n++] = a->add_headers.v[i];
	}
	for (size_t k = 0; k < own->n; k++)
		added[n++] = (struct ipc_pair){ own->v[k].name, own->v[k].value };
	out->add_headers = (struct ipc_pairs){ added, n };
	return true;
}

struct way {   /* what a route and an address space's entry have in common */
	const char *cluster;
	const struct config_pairs *add;
	const struct config_strs *remove;
	const struct config_retry *retry;
	const struct config_timeout *timeout;
};

static int go(const struct ipc_assessed *a, const struct way *way, struct answer_room *room, struct ipc_decision *out)
{
	out->cluster = way->cluster;
	out->remove_headers = (struct ipc_strs){ (const char **)way->remove->v, way->remove->n };
	out->retry_on = way->retry->on;
	out->retry_attempts = way->retry->attempts;
	out->per_try_timeout = way->retry->per_try_timeout;
	out->request_timeout = way->timeout->request;
	out->idle_timeout = way->timeout->idle;
	return add_headers(a, way->add, room, out) ? 0 : -ENOMEM;
}

static void refuse(struct ipc_decision *out, struct trace *trace)
{
	out->status = 404;
	out->error = "destination_not_found";   /* RFC 9209 2.3.4 */
	out->detail = "no route matches";
	trace_add(trace, "routes: none matches: 404");
}

int answer(const struct routing *routing, uint64_t generation, const struct ipc_assessed *a, struct answer_room *room,
           struct trace *trace, struct ipc_decision *out)
{
	const struct config_space *space;
	const struct config_space_entry *entry;
	const struct config_route *route;
	struct match_header *headers;
	struct match_input in;

	*out = (struct ipc_decision){ .id = a->id, .generation = generation, .status = a->status, .error = a->error,
		.detail = a->detail, .policies = a->policies, .valid_ms = a->valid_ms };
	if (a->status) {
		trace_add(trace, "routes: not asked, the request is denied");
		return 0;
	}
	if (a->inner) {
		trace_add(trace, "routes: not asked, the packet goes where its tunnel goes");
		return 0;
	}
	headers = grow(room->headers, &room->n_headers, a->headers.n + a->add_headers.n, sizeof(*headers));
	if (!headers)
		return -ENOMEM;
	room->headers = headers;
	fill_input(a, headers, &in);
	/* what comes in by a listener that is implied goes where its implied route leads, whatever a space calls "controller" */
	bool implied = in.listener && (!strcmp(in.listener, CONFIG_CONTROL) || !strcmp(in.listener, CONFIG_CONTROLLER));
	entry = implied ? NULL : space_find(routing->spaces, in.user, in.authority, &space, trace);
	if (entry) {
		snprintf(room->route, sizeof(room->route), "space %s: %s", space->name, entry->key);
		out->route = room->route;
		return go(a, &(struct way){ entry->cluster, &entry->add_headers, &entry->remove_headers, &entry->retry,
		          &entry->timeout }, room, out);
	}
	route = route_find(routing->routes, &in, &out->valid_ms, trace);
	if (!route) {
		refuse(out, trace);
		return 0;
	}
	out->route = route->name;
	out->move = route->move;
	return go(a, &(struct way){ route->cluster, &route->add_headers, &route->remove_headers, &route->retry,
	          &route->timeout }, room, out);
}
