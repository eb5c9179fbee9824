/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workers/router/route.h"
#include "workers/router/space.h"

/* The model's strings are char *, since it is read-only as a whole: literals stand in for them here. */
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"

#define LIST1(a) { .v = (char *[]){ a }, .n = 1 }
#define COUNT(a) (sizeof(a) / sizeof(*(a)))

static uint32_t valid;

static const char *find(const struct config *config, const struct match_input *in)
{
	struct route_index *index = route_index_new(config);
	const struct config_route *route;

	assert_non_null(index);
	valid = UINT32_MAX;
	route = route_find(index, in, &valid, NULL);
	route_index_free(index);
	return route ? route->name : NULL;
}

static void first_of_the_document_wins(void **state)
{
	struct config_route routes[] = {
		{ .name = "put", .match = { .methods = LIST1("PUT") } },
		{ .name = "video", .match = { .authorities = LIST1("video") } },
		{ .name = "get", .match = { .methods = LIST1("GET") } },
		{ .name = "video80", .match = { .authorities = LIST1("video:80") } },
		{ .name = "late", .match = { .authorities = LIST1("other") } },
	};
	struct config config = { .routes = routes, .n_routes = COUNT(routes) };

	(void)state;
	assert_string_equal(find(&config, &(struct match_input){ .method = "PUT", .authority = "video" }), "put");
	assert_string_equal(find(&config, &(struct match_input){ .method = "GET", .authority = "VIDEO:80" }), "video");
	assert_string_equal(find(&config, &(struct match_input){ .method = "GET", .authority = "other" }), "get");
	assert_string_equal(find(&config, &(struct match_input){ .method = "HEAD", .authority = "other." }), "late");
	assert_null(find(&config, &(struct match_input){ .method = "HEAD", .authority = "none" }));
	assert_null(find(&config, &(struct match_input){ .method = "HEAD" }));
}

static void added_headers_steer(void **state)
{
	struct config_header_match h = { .name = "x-secure", .match = { .exact = "admin" } };
	struct config_route routes[] = { { .name = "admin", .match = { .headers = &h, .n_headers = 1 } }, { .name = "rest" } };
	struct config config = { .routes = routes, .n_routes = 2 };
	struct match_header own = { "x-secure", "admin" }, added = { "X-Secure", "admin" }, other = { "x-secure", "user" };

	(void)state;
	assert_string_equal(find(&config, &(struct match_input){ .added = &added, .n_added = 1 }), "admin");
	assert_string_equal(find(&config, &(struct match_input){ .headers = &own, .n_headers = 1 }), "admin");
	assert_string_equal(find(&config, &(struct match_input){ .headers = &own, .n_headers = 1, .added = &other,
	                    .n_added = 1 }), "rest");
}

static void windows_bound_validity(void **state)
{
	struct config_window w = { .days = 0x7f, .from = 60, .to = 120 };
	struct config_route routes[] = { { .name = "w", .match = { .times = &w, .n_times = 1 } }, { .name = "rest" } };
	struct config config = { .routes = routes, .n_routes = 2 };

	(void)state;
	assert_string_equal(find(&config, &(struct match_input){ .now = 3590 }), "rest");
	assert_int_equal(valid, 9001);
	assert_string_equal(find(&config, &(struct match_input){ .now = 3600 }), "w");
}

/* --- the index against trying every route ---------------------------------------------------------------------------- */

static char *const hosts[] = { "a", "b.c", "x.b.c", "*.b.c", "*.c", "*", "a:80", "*.c:80", "[::1]", "10.0.0.1", "bad:port" };
static char *const users[] = { "u1", "u2", "*" };
static char *const values[] = { "1", "2" };
static char *const names[] = { "h1", "h2" };
static char *const paths[] = { "/", "/a/", "/a/b/", "/a", "/a/b", "/a/bc", "/a?q=/a/" };

static char *pick(char *const *from, size_t n)
{
	return from[(size_t)rand() % n];
}
#define PICK(list) pick(list, COUNT(list))

struct made {
	char *host[3], *user[2];
	struct config_string_match path[2];
	struct config_header_match header[2];
};

static void make_match(struct config_match *m, struct made *made)
{
	for (m->authorities.n = 0; m->authorities.n < 3 && rand() % 2; m->authorities.n++)
		made->host[m->authorities.n] = PICK(hosts);
	for (m->users.n = 0; m->users.n < 2 && !(rand() % 3); m->users.n++)
		made->user[m->users.n] = PICK(users);
	for (m->n_paths = 0; m->n_paths < 2 && !(rand() % 3); m->n_paths++) {
		char *p = PICK(paths);
		made->path[m->n_paths] = rand() % 2 ? (struct config_string_match){ .prefix = p }
		                                    : (struct config_string_match){ .exact = p };
	}
	for (m->n_headers = 0; m->n_headers < 2 && !(rand() % 3); m->n_headers++) {
		made->header[m->n_headers] = (struct config_header_match){ .name = PICK(names),
			.match = { .exact = PICK(values) } };
		if (!(rand() % 4))
			made->header[m->n_headers].match = (struct config_string_match){ .absent = true };
	}
	m->authorities.v = made->host;
	m->users.v = made->user;
	m->paths = made->path;
	m->headers = made->header;
}

static size_t by_hand(const struct config *config, const struct match_input *in)
{
	size_t i = 0;

	while (i < config->n_routes && !match_meets(&config->routes[i].match, in, NULL, 0))
		i++;
	return i;
}

static void index_agrees_with_the_document(void **state)
{
	enum { ROUTES = 40 };
	static const char *const asked[] = { "a", "A:80", "x.b.c:80", "b.c", "y.x.b.c", "c", "[0::1]:5", "10.0.0.1:80", "z.c.",
		"", "bad:port", NULL };
	static const char *const asked_paths[] = { "/", "/a", "/a/", "/a/b/c/d", "/a/b?x", "/x", "/a/bc", "/a?q=/a/x", NULL };
	static struct made made[ROUTES];
	static struct config_route routes[ROUTES];
	struct config config = { .routes = routes, .n_routes = ROUTES };
	unsigned hits = 0;

	(void)state;
	srand(4711);
	for (int round = 0; round < 300; round++) {
		for (size_t i = 0; i < ROUTES; i++)
			make_match(&routes[i].match, &made[i]);
		struct route_index *index = route_index_new(&config);
		assert_non_null(index);
		for (int q = 0; q < 100; q++) {
			struct match_header own[2] = { { PICK(names), PICK(values) }, { PICK(names), PICK(values) } };
			struct match_header added = { PICK(names), PICK(values) };
			struct match_input in = { .authority = asked[(size_t)rand() % COUNT(asked)],
				.path = asked_paths[(size_t)rand() % COUNT(asked_paths)],
				.user = rand() % 3 ? PICK(users) : NULL, .headers = own, .n_headers = (size_t)rand() % 3,
				.added = &added, .n_added = (size_t)rand() % 2 };
			const struct config_route *r = route_find(index, &in, &valid, NULL);
			assert_int_equal(r ? (size_t)(r - routes) : ROUTES, by_hand(&config, &in));
			hits += r != NULL;
		}
		route_index_free(index);
	}
	assert_true(hits > 5000);
}

/* A question that meets more lists than there is room for still gets the right answer. */
static void many_lists(void **state)
{
	enum { N = 300 };
	static char text[N][8];
	static struct config_header_match h[N];
	static struct config_route routes[N];
	static struct match_header own[N];
	static char *method[] = { "NONE" };
	struct config config = { .routes = routes, .n_routes = N };

	(void)state;
	for (int i = 0; i < N; i++) {
		snprintf(text[i], sizeof(text[i]), "h%hu", (unsigned short)i);
		h[i] = (struct config_header_match){ .name = text[i], .match = { .exact = "1" } };
		routes[i] = (struct config_route){ .name = text[i], .match = { .headers = &h[i], .n_headers = 1 } };
		own[i] = (struct match_header){ text[N - 1 - i], "1" };
		if (i < N - 1)
			routes[i].match.methods = (struct config_strs){ method, 1 };
	}
	routes[N - 1].match.headers = &h[N - 1];
	struct match_input in = { .headers = own, .n_headers = N };
	assert_string_equal(find(&config, &in), text[N - 1]);
	own[N - 1].name = own[0].name;
	assert_string_equal(find(&config, &in), text[N - 1]);
}

/* --- address spaces --------------------------------------------------------------------------------------------------- */

static struct config_space_entry gold_names[] = { { .name = "video", .key = "VIDEO", .cluster = "eu" } };
static struct config_space_entry rest_names[] = { { .name = "video", .key = "VIDEO", .cluster = "us" } };
static struct config_space_entry gold_prefixes[] = {
	{ .key = "10.0.0.0/8", .cluster = "eight" }, { .key = "10.0.0.1/32", .cluster = "one" },
	{ .key = "10.128.0.0/9", .cluster = "nine" }, { .key = "2001:db8::/32", .cluster = "six" },
};
static struct config_space spaces[] = {
	{ .name = "gold", .users = LIST1("alice"), .names = gold_names, .n_names = 1, .prefixes = gold_prefixes, .n_prefixes = 4 },
	{ .name = "rest", .users = LIST1("*"), .names = rest_names, .n_names = 1 },
};

static const char *where(const char *user, const char *authority)
{
	struct config config = { .spaces = spaces, .n_spaces = 2 };
	struct space_index *index;
	const struct config_space *space;
	const struct config_space_entry *entry;
	const char *why;

	for (size_t i = 0; i < 4; i++)
		assert_int_equal(config_prefix_parse(gold_prefixes[i].key, &gold_prefixes[i].prefix, &why), 0);
	index = space_index_new(&config);
	assert_non_null(index);
	entry = space_find(index, user, authority, &space, NULL);
	space_index_free(index);
	return entry ? entry->cluster : "";
}

static void spaces_by_user(void **state)
{
	(void)state;
	assert_string_equal(where("alice", "VIDEO:80"), "eu");
	assert_string_equal(where("bob", "video"), "us");
	assert_string_equal(where(NULL, "video."), "us");
	assert_string_equal(where("alice", "audio"), "");
	assert_string_equal(where("alice", NULL), "");
	assert_string_equal(where("bob", "10.0.0.1"), "");
}

static void longest_prefix(void **state)
{
	(void)state;
	assert_string_equal(where("alice", "10.0.0.1:3306"), "one");
	assert_string_equal(where("alice", "10.0.0.2"), "eight");
	assert_string_equal(where("alice", "10.200.0.2"), "nine");
	assert_string_equal(where("alice", "11.0.0.2"), "");
	assert_string_equal(where("alice", "[2001:db8:1::2]:443"), "six");
	assert_string_equal(where("alice", "[2001:db9::2]:443"), "");
	assert_string_equal(where("alice", "10.1"), "");
	assert_string_equal(where("alice", "0x0a000001"), "");
}

/* What an IP tunnel asks for lies in it as a whole. */
static void prefixes_as_targets(void **state)
{
	(void)state;
	assert_string_equal(where("alice", "10.0.0.1/32"), "one");
	assert_string_equal(where("alice", "10.0.0.0/24"), "eight");
	assert_string_equal(where("alice", "10.128.0.0/9"), "nine");
	assert_string_equal(where("alice", "10.0.0.0/7"), "");
	assert_string_equal(where("alice", "2001:db8:1::/48"), "six");
	assert_string_equal(where("alice", "2000::/3"), "");
	assert_string_equal(where("alice", "10.0.0.1/33"), "");
	assert_string_equal(where("alice", "*"), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_of_the_document_wins), cmocka_unit_test(added_headers_steer),
		cmocka_unit_test(windows_bound_validity), cmocka_unit_test(index_agrees_with_the_document),
		cmocka_unit_test(many_lists), cmocka_unit_test(spaces_by_user), cmocka_unit_test(longest_prefix),
		cmocka_unit_test(prefixes_as_targets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
