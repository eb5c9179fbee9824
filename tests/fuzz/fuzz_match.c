/* SPDX-License-Identifier: Apache-2.0 */
/* Authorities and patterns as they may come from outside, and the route index against the plain order of the document.
 * Input: lines; the first is what is asked (authority), the second its path, the others are patterns of routes. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/router/route.h"

#define LINES 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t split(char *text, char *lines[LINES])
{
	size_t n = 0;

	for (char *at = text; at && n < LINES; n++) {
		lines[n] = at;
		at = strchr(at, '\n');
		if (at)
			*at++ = 0;
	}
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), *lines[LINES] = { 0 }, host[MATCH_HOST_MAX], why[64];
	struct config_string_match paths[LINES];
	struct config_route routes[LINES] = { 0 };
	struct config config = { .routes = routes };
	uint32_t valid = UINT32_MAX;
	int port, length;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	size_t n = split(text, lines), first = 0;
	length = match_host(lines[0], host, &port);
	assert(length < MATCH_HOST_MAX && port >= -1 && port <= 65535);
	assert(length < 0 || (size_t)length == strlen(host));
	for (size_t i = 2; i < n; i++, config.n_routes++) {
		struct config_route *r = &routes[config.n_routes];
		*r = (struct config_route){ .name = lines[i], .cluster = lines[i] };
		paths[config.n_routes] = i % 2 ? (struct config_string_match){ .prefix = lines[i] }
		                               : (struct config_string_match){ .exact = lines[i] };
		if (lines[i][0] == '/') {
			r->match.paths = &paths[config.n_routes];
			r->match.n_paths = 1;
		} else {
			r->match.authorities = (struct config_strs){ &lines[i], 1 };
		}
	}
	struct match_input in = { .authority = lines[0], .path = lines[1] };
	struct route_index *index = route_index_new(&config);
	if (index) {
		const struct config_route *found = route_find(index, &in, &valid, NULL);
		while (first < config.n_routes && !match_meets(&routes[first].match, &in, why, sizeof(why)))
			first++;
		assert(found == (first < config.n_routes ? &routes[first] : NULL));
	}
	route_index_free(index);
	free(text);
	return 0;
}
