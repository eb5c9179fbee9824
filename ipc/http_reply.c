/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/http_reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_reply_clear(struct http_reply *r)
{
	free(r->body);
	r->body = NULL;
	r->n_body = r->body_size = 0;
}

void http_reply_reset(struct http_reply *r)
{
	http_reply_clear(r);
	/* not the line: it is large and needs no clearing */
	r->state = HTTP_STATUS;
	r->error = NULL;
	r->code = 0;
	r->status = 0;
	r->keep_alive = true;
	r->begun = r->has_length = r->chunked = false;
	r->left = r->n_head = r->n_line = 0;
}

static void fail(struct http_reply *r, int code, const char *error)
{
	r->state = HTTP_FAILED;
	r->code = code;
	r->error = error;
}

static void malformed(struct http_reply *r, const char *error)
{
	fail(r, -EPROTO, error);
}

static void too_much(struct http_reply *r)
{
	fail(r, -EFBIG, "answered with more than is allowed");
}

/* --- lines ---------------------------------------------------------------------------------------------------------- */

/* RFC 9112 4: HTTP-version SP 3DIGIT SP [reason]. */
static void status_line(struct http_reply *r, const char *line)
{
	r->status = 0;
	if (strncmp(line, "HTTP/1.", 7) || (line[7] != '0' && line[7] != '1') || line[8] != ' ') {
		malformed(r, "did not answer with HTTP/1.1");
		return;
	}
	r->keep_alive = line[7] == '1';
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9') {
			malformed(r, "answered with a malformed status line");
			return;
		}
		r->status = r->status * 10 + (unsigned)(line[i] - '0');
	}
	if ((line[12] && line[12] != ' ') || r->status < 100)
		malformed(r, "answered with a malformed status line");
	else if (r->status == 101)
		malformed(r, "switched protocols unasked");
	else
		r->state = HTTP_FIELDS;
}

/* RFC 9110 5.6.2 */
static bool is_token(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      (c && strchr("!#$%&'*+-.^_`|~", c))))
			return false;
	}
	return length > 0;
}

static bool lists_close(const char *value)
{
	for (const char *at = value; *at;) {
		size_t n = strcspn(at, ", \t");
		if (n == 5 && !strncasecmp(at, "close", 5))
			return true;
		at += n;
		at += strspn(at, ", \t");
	}
	return false;
}

static void content_length(struct http_reply *r, const char *value)
{
	size_t length = 0;

	if (r->has_length || !*value) {
		malformed(r, "answered with a malformed or repeated Content-Length");
		return;
	}
	for (const char *c = value; *c; c++) {
		if (*c < '0' || *c > '9') {
			malformed(r, "answered with a malformed or repeated Content-Length");
			return;
		}
		length = length * 10 + (size_t)(*c - '0');
		if (length > r->body_max) {
			too_much(r);
			return;
		}
	}
	r->has_length = true;
	r->left = length;
}

/* A field line; the line is ours to cut. Folded lines begin with a blank, which is no name. */
static void field(struct http_reply *r, char *line)
{
	char *colon = strchr(line, ':'), *value, *end;

	if (!colon || !is_token(line, (size_t)(colon - line))) {
		malformed(r, "answered with a malformed header");
		return;
	}
	*colon = 0;
	value = colon + 1 + strspn(colon + 1, " \t");
	for (end = value + strlen(value); end > value && (end[-1] == ' ' || end[-1] == '\t');)
		*--end = 0;
	if (r->status < 200)
		return;
	if (!strcasecmp(line, "content-length"))
		content_length(r, value);
	else if (!strcasecmp(line, "connection") && lists_close(value))
		r->keep_alive = false;
	else if (!strcasecmp(line, "transfer-encoding")) {
		if (r->chunked || strcasecmp(value, "chunked"))
			malformed(r, "answered with a transfer coding other than chunked");
		r->chunked = true;
	}
}

static void end_of_fields(struct http_reply *r)
{
	if (r->status < 200) {             /* RFC 9110 15.2: interim, the answer follows */
		r->state = HTTP_STATUS;
	} else if (r->chunked && r->has_length) {   /* RFC 9112 6.3: smuggling */
		malformed(r, "answered with both Content-Length and Transfer-Encoding");
	} else if (r->status == 204 || r->status == 304) {
		r->state = HTTP_DONE;
	} else if (r->chunked) {
		r->state = HTTP_CHUNK;
	} else if (!r->has_length) {       /* RFC 9112 6.3, 8: until the connection ends */
		r->keep_alive = false;
		r->state = HTTP_CLOSE;
	} else {
		r->state = r->left ? HTTP_LENGTH : HTTP_DONE;
	}
}

/* RFC 9112 7.1: 1*HEXDIG [chunk-ext] */
static void chunk_size(struct http_reply *r, const char *line)
{
	size_t size = 0, n = 0;

	for (;; n++) {
		char c = line[n];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
		          : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (digit < 0)
			break;
		size = size * 16 + (size_t)digit;
		if (size > r->body_max - r->n_body) {
			too_much(r);
			return;
		}
	}
	if (!n || (line[n] && line[n] != ';' && line[n] != ' ' && line[n] != '\t')) {
		malformed(r, "answered with a malformed chunk");
		return;
	}
	r->left = size;
	r->n_head = 0;
	r->state = size ? HTTP_DATA : HTTP_TRAILERS;
}

static void take_line(struct http_reply *r, char *line)
{
	switch (r->state) {
	case HTTP_STATUS:
		status_line(r, line);
		break;
	case HTTP_FIELDS:
		if (*line)
			field(r, line);
		else
			end_of_fields(r);
		break;
	case HTTP_CHUNK:
		chunk_size(r, line);
		break;
	case HTTP_DATA_END:
		if (*line)
			malformed(r, "answered with a malformed chunk");
		else
			r->state = HTTP_CHUNK;
		break;
	case HTTP_TRAILERS:
		if (!*line)
			r->state = HTTP_DONE;
		break;
	default:
		break;
	}
}

/* Lines end in CRLF; a bare CR or LF and a NUL are nowhere legal. */
static void take_byte(struct http_reply *r, char c)
{
	size_t n = r->n_line;

	r->begun = true;
	if (++r->n_head > HTTP_HEAD_MAX || n >= HTTP_LINE_MAX) {
		fail(r, -EFBIG, "answered with headers that are too large");
		return;
	}
	if (!c || (c == '\n' && (!n || r->line[n - 1] != '\r')) || (c != '\n' && n && r->line[n - 1] == '\r')) {
		malformed(r, "answered with a malformed line");
		return;
	}
	if (c != '\n') {
		r->line[r->n_line++] = c;
		return;
	}
	r->line[n - 1] = 0;
	r->n_line = 0;
	take_line(r, r->line);
}

/* --- the body ------------------------------------------------------------------------------------------------------- */

static bool grow(struct http_reply *r, size_t length)
{
	size_t size = r->body_size ? r->body_size : 1024;
	char *body;

	while (size < r->n_body + length + 1)
		size *= 2;
	if (size == r->body_size)
		return true;
	body = realloc(r->body, size);
	if (!body)
		return false;
	r->body = body;
	r->body_size = size;
	return true;
}

/* False: it failed. A streamed body is not counted: only a piece of it is bounded. */
static bool keep(struct http_reply *r, const char *data, size_t length)
{
	if (r->piece) {
		if (!length || r->piece(r->arg, data, length))
			return true;
		fail(r, -ECANCELED, "enough");
		return false;
	}
	if (!grow(r, length)) {
		fail(r, -ENOMEM, "could not be heard: out of memory");
		return false;
	}
	memcpy(r->body + r->n_body, data, length);
	r->n_body += length;
	r->body[r->n_body] = 0;
	return true;
}

static size_t take_body(struct http_reply *r, const char *data, size_t length)
{
	bool until_close = r->state == HTTP_CLOSE;
	size_t n = until_close || length < r->left ? length : r->left;

	if (until_close && !r->piece && n > r->body_max - r->n_body) {
		too_much(r);
		return n;
	}
	if (!keep(r, data, n) || until_close)
		return n;
	r->left -= n;
	if (!r->left)
		r->state = r->state == HTTP_LENGTH ? HTTP_DONE : HTTP_DATA_END;
	return n;
}

size_t http_reply_feed(struct http_reply *r, const char *data, size_t length)
{
	size_t at = 0;

	while (at < length && r->state != HTTP_DONE && r->state != HTTP_FAILED) {
		if (r->state == HTTP_LENGTH || r->state == HTTP_DATA || r->state == HTTP_CLOSE)
			at += take_body(r, data + at, length - at);
		else
			take_byte(r, data[at++]);
	}
	return at;
}

void http_reply_eof(struct http_reply *r)
{
	if (r->state == HTTP_CLOSE)
		r->state = HTTP_DONE;
	else if (r->state != HTTP_DONE && r->state != HTTP_FAILED)
		fail(r, -ECONNRESET, "closed the connection before it had answered");
}
