/* SPDX-License-Identifier: Apache-2.0 */
/* What a decision can examine, and which headers are the overlay's own. */
#include "store/config_arena.h"
#include "store/config_parser.h"

#include <stdlib.h>
#include <string.h>

struct names { char **v; size_t n, size; bool failed; };

static void add(struct names *names, char *name)
{
	if (names->n == names->size) {
		size_t size = names->size ? names->size * 2 : 64;
		char **v = realloc(names->v, size * sizeof(*v));
		names->failed |= !v;
		if (!v)
			return;
		names->v = v;
		names->size = size;
	}
	names->v[names->n++] = name;
}

static void add_pairs(struct names *names, const struct config_pairs *pairs)
{
	for (size_t i = 0; i < pairs->n; i++)
		add(names, pairs->v[i].name);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted and unique into out; names is given back. */
static void finish(struct names *names, struct config_arena *arena, struct config_strs *out)
{
	if (names->n)
		qsort(names->v, names->n, sizeof(*names->v), by_text);
	out->v = config_arena_alloc(arena, names->failed ? SIZE_MAX : names->n, sizeof(*out->v));
	out->n = 0;
	for (size_t i = 0; out->v && i < names->n; i++)
		if (!i || strcmp(names->v[i], names->v[i - 1]))
			out->v[out->n++] = names->v[i];
	free(names->v);
}

static void examine(struct config *c, const struct config_match *m, struct names *headers)
{
	c->examines.listener |= m->listeners.n > 0;
	c->examines.peer |= m->identities.n > 0;
	c->examines.user |= m->users.n > 0;
	c->examines.method |= m->methods.n > 0;
	c->examines.protocol |= m->protocols.n > 0;
	for (size_t i = 0; i < m->methods.n; i++)     /* CONNECT-UDP is a method and a protocol */
		c->examines.protocol |= !strncmp(m->methods.v[i], "CONNECT", 7);
	c->examines.scheme |= m->schemes.n > 0;
	c->examines.authority |= m->authorities.n > 0;
	c->examines.path |= m->n_paths > 0;
	c->examines.source |= m->sources.n > 0;
	c->examines.time |= m->n_times > 0;
	c->examines.ip |= m->ip.present;
	for (size_t i = 0; i < m->n_headers; i++)
		add(headers, m->headers[i].name);
}

static void examine_policy(struct config *c, const struct config_policy *policy, struct names *headers, struct names *own)
{
	examine(c, &policy->match, headers);
	for (size_t i = 0; i < policy->n_rules; i++) {
		examine(c, &policy->rules[i].match, headers);
		add_pairs(own, &policy->rules[i].add_headers);
	}
	if (!policy->authorizer.address)
		return;
	/* An authorizer is told everything, and may look at it. */
	c->examines.all_headers |= policy->authorizer.headers.n == 0;
	for (size_t i = 0; i < policy->authorizer.headers.n; i++)
		add(headers, policy->authorizer.headers.v[i]);
	c->examines.listener = c->examines.peer = c->examines.user = c->examines.method = c->examines.protocol =
		c->examines.scheme = c->examines.authority = c->examines.path = c->examines.source = true;
}

void config_derive(struct config *c)
{
	struct names headers = {0}, own = {0};
	static char user[] = "user";

	/* Who a request speaks for at the next overlay listener: never taken from outside, whoever adds it. */
	add(&own, user);
	for (size_t i = 0; i < c->n_routes; i++)
		examine(c, &c->routes[i].match, &headers);
	for (size_t i = 0; i < c->n_policies; i++)
		examine_policy(c, &c->policies[i], &headers, &own);
	for (size_t i = 0; i < c->n_listeners; i++)
		add_pairs(&own, &c->listeners[i].add_headers);
	for (size_t i = 0; i < c->n_tunnels; i++)
		for (size_t n = 0; n < c->tunnels[i].n_networks; n++)
			add_pairs(&own, &c->tunnels[i].networks[n].add_headers);
	for (size_t i = 0; i < c->overlay_headers.n; i++)
		add(&own, c->overlay_headers.v[i]);
	if (c->n_spaces)
		c->examines.user = c->examines.authority = true;
	finish(&headers, c->arena, &c->examined_headers);
	finish(&own, c->arena, &c->internal_headers);
}
