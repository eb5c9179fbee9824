/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/router/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define KEY_MAX 600          /* a condition longer than this is not filed */
#define LISTS_MAX 96         /* lists that one question may meet; a question that meets more tries every route */
#define SEGMENTS_MAX 32      /* path prefixes deeper than this are not filed */
#define EXPLAIN_ALL 150      /* up to so many routes, `route explain` says of each why it was passed over */

/* A key's first byte: what the condition is about. */
enum { BY_HOST = 'a', BY_SUFFIX = 's', BY_USER = 'u', BY_HEADER = 'h', BY_PATH = 'p', BY_FOLDER = 'f' };

struct bucket {
	UT_hash_handle hh;
	uint32_t wanted;         /* conditions that name the key, over all routes */
	uint32_t n, size;
	uint32_t *routes;        /* ascending */
	size_t length;
	char key[];
};

struct route_index {
	const struct config *config;
	struct bucket *buckets;
	bool by_path, by_suffix;
	bool failed;             /* out of memory while being built */
	struct bucket rest;      /* the routes that are filed nowhere; has no key, and stands last for its open end */
};

/* --- conditions to keys --------------------------------------------------------------------------------------------- */

static size_t make_key(char *key, char kind, const char *a, size_t a_length, const char *b)
{
	size_t b_length = b ? strlen(b) : 0;

	if (a_length + b_length + 2 > KEY_MAX)
		return 0;
	key[0] = kind;
	memcpy(key + 1, a, a_length);
	if (!b)
		return a_length + 1;
	key[a_length + 1] = 0;
	memcpy(key + a_length + 2, b, b_length);
	return a_length + b_length + 2;
}

/* The conditions of a match that requests can be looked up by; each has one or several keys, any of which must be met. */
enum dimension { HOSTS, USERS, PATHS, HEADERS };  /* HEADERS + i: the match's i-th header */

static size_t dimension_size(const struct config_match *m, size_t d)
{
	switch (d) {
	case HOSTS: return m->authorities.n;
	case USERS: return m->users.n;
	case PATHS: return m->n_paths;
	default: return 1;
	}
}

static size_t host_key(const char *pattern, char *key)
{
	char host[MATCH_HOST_MAX];
	int port, n = match_host(pattern, host, &port);

	if (n <= 0)
		return 0;
	if (n > 2 && host[0] == '*' && host[1] == '.')
		return make_key(key, BY_SUFFIX, host + 1, (size_t)n - 1, NULL);
	return host[0] == '*' ? 0 : make_key(key, BY_HOST, host, (size_t)n, NULL);
}

static size_t path_key(const struct config_string_match *m, char *key)
{
	size_t length, depth = 0;

	if (m->present || m->absent || (m->exact && m->prefix))
		return 0;
	if (m->exact)
		return make_key(key, BY_PATH, m->exact, strcspn(m->exact, "?"), NULL);
	length = m->prefix ? strlen(m->prefix) : 0;
	if (!length || m->prefix[length - 1] != '/')
		return 0;
	for (size_t i = 0; i < length; i++)
		depth += m->prefix[i] == '/';
	return depth <= SEGMENTS_MAX ? make_key(key, BY_FOLDER, m->prefix, length, NULL) : 0;
}

static size_t header_key(const char *name, const char *value, char *key)
{
	size_t length = strlen(name), n = make_key(key, BY_HEADER, name, length, value);

	for (size_t i = 1; n && i <= length; i++)
		if (key[i] >= 'A' && key[i] <= 'Z')
			key[i] = (char)(key[i] + 32);
	return n;
}

/* The k-th key of a dimension; 0: it has none, the route cannot be filed by this dimension. */
static size_t condition_key(const struct config_match *m, size_t d, size_t k, char *key)
{
	switch (d) {
	case HOSTS:
		return host_key(m->authorities.v[k], key);
	case USERS:
		return strcmp(m->users.v[k], "*") ? make_key(key, BY_USER, m->users.v[k], strlen(m->users.v[k]), NULL) : 0;
	case PATHS:
		return path_key(&m->paths[k], key);
	default: {
		const struct config_header_match *h = &m->headers[d - HEADERS];
		if (!h->match.exact || h->match.prefix || h->match.present || h->match.absent)
			return 0;
		return header_key(h->name, h->match.exact, key);
	}
	}
}

/* --- building ------------------------------------------------------------------------------------------------------- */

static struct bucket *bucket_find(const struct route_index *index, const char *key, size_t length)
{
	struct bucket *b;

	HASH_FIND(hh, index->buckets, key, length, b);
	return b;
}

static struct bucket *bucket_make(struct route_index *index, const char *key, size_t length)
{
	struct bucket *b = bucket_find(index, key, length);

	if (b)
		return b;
	b = calloc(1, sizeof(*b) + length);
	if (!b) {
		index->failed = true;
		return NULL;
	}
	b->length = length;
	memcpy(b->key, key, length);
	HASH_ADD_KEYPTR(hh, index->buckets, b->key, length, b);
	if (!b->hh.tbl) {           /* uthash could not allocate its table and left the item out */
		free(b);
		index->failed = true;
		return NULL;
	}
	return b;
}

static void bucket_add(struct route_index *index, struct bucket *b, uint32_t route)
{
	if (!b || (b->n && b->routes[b->n - 1] == route))
		return;
	if (b->n == b->size) {
		uint32_t size = b->size ? b->size * 2 : 1;
		uint32_t *routes = realloc(b->routes, size * sizeof(*routes));
		if (!routes) {
			index->failed = true;
			return;
		}
		b->routes = routes;
		b->size = size;
	}
	b->routes[b->n++] = route;
}

/* First pass: how many conditions ask for each key. */
static void count_wanted(struct route_index *index, const struct config_match *m)
{
	char key[KEY_MAX];

	for (size_t d = 0; d < HEADERS + m->n_headers; d++)
		for (size_t k = 0; k < dimension_size(m, d); k++) {
			size_t length = condition_key(m, d, k, key);
			struct bucket *b = length ? bucket_make(index, key, length) : NULL;
			if (b)
				b->wanted++;
		}
}

/* The commonest of a dimension's keys: the longest list that filing by it would lead to. UINT32_MAX: cannot be filed. */
static uint32_t dimension_cost(struct route_index *index, const struct config_match *m, size_t d)
{
	char key[KEY_MAX];
	uint32_t most = 0;

	for (size_t k = 0; k < dimension_size(m, d); k++) {
		size_t length = condition_key(m, d, k, key);
		const struct bucket *b = length ? bucket_find(index, key, length) : NULL;
		if (!b)
			return UINT32_MAX;
		if (b->wanted > most)
			most = b->wanted;
	}
	return most ? most : UINT32_MAX;
}

static void file_route(struct route_index *index, uint32_t route)
{
	const struct config_match *m = &index->config->routes[route].match;
	uint32_t least = UINT32_MAX;
	size_t best = 0;
	char key[KEY_MAX];

	for (size_t d = 0; d < HEADERS + m->n_headers; d++) {
		uint32_t cost = dimension_cost(index, m, d);
		if (cost < least) {
			least = cost;
			best = d;
		}
	}
	if (least == UINT32_MAX) {
		bucket_add(index, &index->rest, route);
		return;
	}
	for (size_t k = 0; k < dimension_size(m, best); k++) {
		size_t length = condition_key(m, best, k, key);
		bucket_add(index, bucket_find(index, key, length), route);
		index->by_suffix |= key[0] == BY_SUFFIX;
		index->by_path |= key[0] == BY_PATH || key[0] == BY_FOLDER;
	}
}

static void bucket_free(struct route_index *index, struct bucket *b)
{
	HASH_DEL(index->buckets, b);
	free(b->routes);
	free(b);
}

struct route_index *route_index_new(const struct config *config)
{
	struct route_index *index = calloc(1, sizeof(*index));
	struct bucket *b, *next;

	if (!index)
		return NULL;
	index->config = config;
	for (size_t i = 0; i < config->n_routes; i++)
		count_wanted(index, &config->routes[i].match);
	for (size_t i = 0; i < config->n_routes && !index->failed; i++)
		file_route(index, (uint32_t)i);
	if (index->failed) {
		route_index_free(index);
		return NULL;
	}
	HASH_ITER(hh, index->buckets, b, next)
		if (!b->n)
			bucket_free(index, b);
	return index;
}

void route_index_free(struct route_index *index)
{
	struct bucket *b, *next;

	if (!index)
		return;
	HASH_ITER(hh, index->buckets, b, next)
		bucket_free(index, b);
	free(index->rest.routes);
	free(index);
}

/* --- looking up ----------------------------------------------------------------------------------------------------- */

struct lists {
	struct { const uint32_t *at, *end; } v[LISTS_MAX];
	size_t n;
	bool overflow;
};

static void add_list(struct lists *lists, const struct bucket *b)
{
	if (!b || !b->n)
		return;
	if (lists->n == LISTS_MAX) {
		lists->overflow = true;
		return;
	}
	lists->v[lists->n].at = b->routes;
	lists->v[lists->n++].end = b->routes + b->n;
}

static void look_up(const struct route_index *index, struct lists *lists, char kind, const char *text, size_t length)
{
	char key[KEY_MAX];
	size_t n = make_key(key, kind, text, length, NULL);

	if (n)
		add_list(lists, bucket_find(index, key, n));
}

static void look_up_host(const struct route_index *index, struct lists *lists, const char *authority)
{
	char host[MATCH_HOST_MAX];
	int port, length = match_host(authority, host, &port);

	if (length <= 0)
		return;
	look_up(index, lists, BY_HOST, host, (size_t)length);
	for (const char *dot = index->by_suffix ? strchr(host, '.') : NULL; dot; dot = strchr(dot + 1, '.'))
		look_up(index, lists, BY_SUFFIX, dot, strlen(dot));
}

static void look_up_path(const struct route_index *index, struct lists *lists, const char *path)
{
	unsigned depth = 0;

	look_up(index, lists, BY_PATH, path, strcspn(path, "?"));
	for (const char *slash = strchr(path, '/'); slash && depth++ < SEGMENTS_MAX; slash = strchr(slash + 1, '/'))
		look_up(index, lists, BY_FOLDER, path, (size_t)(slash - path) + 1);
}

static void look_up_headers(const struct route_index *index, struct lists *lists, const struct match_header *v, size_t n)
{
	char key[KEY_MAX];

	for (size_t i = 0; i < n; i++) {
		size_t length = header_key(v[i].name, v[i].value, key);
		if (length)
			add_list(lists, bucket_find(index, key, length));
	}
}

static void gather(const struct route_index *index, const struct match_input *in, struct lists *lists)
{
	lists->n = 0;
	lists->overflow = false;
	add_list(lists, &index->rest);
	if (in->authority)
		look_up_host(index, lists, in->authority);
	if (in->user)
		look_up(index, lists, BY_USER, in->user, strlen(in->user));
	if (in->path && index->by_path)
		look_up_path(index, lists, in->path);
	look_up_headers(index, lists, in->headers, in->n_headers);
	look_up_headers(index, lists, in->added, in->n_added);
}

/* Takes the smallest route number off the lists; UINT32_MAX: all are empty. */
static uint32_t next_route(struct lists *lists)
{
	uint32_t least = UINT32_MAX;

	for (size_t i = 0; i < lists->n; i++)
		if (lists->v[i].at < lists->v[i].end && *lists->v[i].at < least)
			least = *lists->v[i].at;
	for (size_t i = 0; i < lists->n; i++)
		if (lists->v[i].at < lists->v[i].end && *lists->v[i].at == least)
			lists->v[i].at++;
	return least;
}

static bool try_route(const struct config_route *route, const struct match_input *in, uint32_t *valid_ms,
                      struct trace *trace)
{
	char why[200];

	if (route->match.n_times) {
		int64_t seconds = match_holds_for(&route->match, in->now);
		/* now is cut to whole seconds */
		if (seconds <= UINT32_MAX / 1000 && (uint32_t)seconds * 1000 - 999 < *valid_ms)
			*valid_ms = (uint32_t)seconds * 1000 - 999;
	}
	if (match_meets(&route->match, in, trace ? why : NULL, sizeof(why))) {
		trace_add(trace, "route %s matches: cluster %s", route->name, route->cluster);
		return true;
	}
	trace_add(trace, "route %s passed over: %s", route->name, why);
	return false;
}

static const struct config_route *try_all(const struct config *config, const struct match_input *in,
                                          uint32_t *valid_ms, struct trace *trace)
{
	for (size_t i = 0; i < config->n_routes; i++)
		if (try_route(&config->routes[i], in, valid_ms, trace))
			return &config->routes[i];
	return NULL;
}

const struct config_route *route_find(const struct route_index *index, const struct match_input *input,
                                      uint32_t *valid_ms, struct trace *trace)
{
	const struct config *config = index->config;
	struct lists lists;
	uint32_t i;

	if (trace && config->n_routes <= EXPLAIN_ALL)
		return try_all(config, input, valid_ms, trace);
	gather(index, input, &lists);
	if (lists.overflow)
		return try_all(config, input, valid_ms, trace);
	if (trace)
		trace_add(trace, "routes: %zu in all; those filed under other authorities, users, headers or paths are "
		          "not looked at", config->n_routes);
	while ((i = next_route(&lists)) != UINT32_MAX)
		if (try_route(&config->routes[i], input, valid_ms, trace))
			return &config->routes[i];
	return NULL;
}
