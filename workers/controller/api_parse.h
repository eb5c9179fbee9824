/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 request, read as it comes and strictly (RFC 9112): what is not plainly right is refused. */
#ifndef HERMES_CONTROLLER_API_PARSE_H
#define HERMES_CONTROLLER_API_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#define API_HEAD_MAX (32u * 1024)     /* request line and fields; trailers once more */

struct evbuffer;

enum api_parse_state { PARSE_START, PARSE_FIELDS, PARSE_LENGTH, PARSE_CHUNK, PARSE_DATA, PARSE_DATA_END, PARSE_TRAILERS, PARSE_DONE,
	PARSE_FAILED };

struct api_parse {
	enum api_parse_state state;
	unsigned status;              /* to be answered when it failed: 400, 413, 431, 501, 505 */
	const char *error;            /* static text, when it failed */
	size_t body_max;
	bool keep_alive, expect;      /* expect: wants to hear 100 before it sends the body */
	bool has_length, chunked, has_host;
	size_t n_head, left;          /* left: of the body or the chunk */
	char method[16];
	char *target;                 /* as it came: path?query */
	char *peer;                   /* hermes-peer; NULL: none */
	char *type;                   /* Content-Type without parameters, in lower case; NULL: none */
	struct evbuffer *body;
};

/* Zeroed memory becomes a parser; false: out of memory. For a next request: again. body_max in bytes. */
bool api_parse_reset(struct api_parse *p, size_t body_max);
void api_parse_clear(struct api_parse *p);
/* From the end of the head on: who asks is known then, and how much it may send. */
void api_parse_limit(struct api_parse *p, size_t body_max);
/* Takes from in what belongs to this request. */
void api_parse_feed(struct api_parse *p, struct evbuffer *in);

#endif
