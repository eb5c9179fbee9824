/* SPDX-License-Identifier: Apache-2.0 */
/* An HTTP/1.1 response, read byte by byte and strictly (RFC 9112): what is not plainly right is a failure. */
#ifndef HERMES_IPC_HTTP_REPLY_H
#define HERMES_IPC_HTTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_LINE_MAX 8192u
#define HTTP_HEAD_MAX (16u * 1024)    /* status line and fields, of interim responses too; trailers once more */

enum http_reply_state { HTTP_STATUS, HTTP_FIELDS, HTTP_LENGTH, HTTP_CLOSE, HTTP_CHUNK, HTTP_DATA, HTTP_DATA_END, HTTP_TRAILERS,
	HTTP_DONE, HTTP_FAILED };

struct http_reply {
	enum http_reply_state state;
	int code;                     /* when HTTP_FAILED: -EPROTO, -EFBIG, -ENOMEM, -ECANCELED (piece said: enough) */
	const char *error;            /* static text, when HTTP_FAILED */
	unsigned status;
	bool begun;                   /* a first byte has come */
	bool keep_alive;
	bool has_length, chunked;
	size_t left;                  /* of the body or the chunk */
	size_t n_head, n_line;
	bool (*piece)(void *arg, const char *data, size_t length);   /* gets the body as it comes; NULL: it is kept in body */
	void *arg;
	char *body;                   /* malloc'd, NUL-terminated when done; NULL where it is empty */
	size_t n_body, body_size, body_max;
	char line[HTTP_LINE_MAX + 1];
};

/* For a next response: piece, arg and body_max stay, body is freed. Memory that is all zero needs this too. */
void http_reply_reset(struct http_reply *reply);
void http_reply_clear(struct http_reply *reply);
/* Returns how many bytes it took: all, unless the response ended (HTTP_DONE) or is not one (HTTP_FAILED) before. */
size_t http_reply_feed(struct http_reply *reply, const char *data, size_t length);
/* The connection has ended: a body without a length is then done, anything else unfinished is a failure (-ECONNRESET). */
void http_reply_eof(struct http_reply *reply);

#endif
