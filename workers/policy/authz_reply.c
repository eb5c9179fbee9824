/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/authz_reply.h"

#include <string.h>
#include <strings.h>

void authz_reply_reset(struct authz_reply *r)
{
	/* not the buffers: they are large and need no clearing */
	r->state = AUTHZ_STATUS;
	r->error = NULL;
	r->status = 0;
	r->keep_alive = true;
	r->has_length = r->chunked = false;
	r->left = r->n_head = r->n_line = r->n_body = 0;
}

bool authz_reply_begun(const struct authz_reply *r)
{
	return r->n_head > 0;
}

static void fail(struct authz_reply *r, const char *error)
{
	r->state = AUTHZ_FAILED;
	r->error = error;
}

static void done(struct authz_reply *r)
{
	r->body[r->n_body] = 0;
	r->state = AUTHZ_DONE;
}

/* --- lines ---------------------------------------------------------------------------------------------------------- */

/* RFC 9112 4: HTTP-version SP 3DIGIT SP [reason]. */
static void status_line(struct authz_reply *r, const char *line)
{
	if (strncmp(line, "HTTP/1.", 7) || (line[7] != '0' && line[7] != '1') || line[8] != ' ') {
		fail(r, "did not answer with HTTP/1.1");
		return;
	}
	r->keep_alive = line[7] == '1';
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9') {
			fail(r, "answered with a malformed status line");
			return;
		}
		r->status = r->status * 10 + (unsigned)(line[i] - '0');
	}
	if (line[12] && line[12] != ' ')
		fail(r, "answered with a malformed status line");
	else if (r->status < 200)
		fail(r, "answered with an interim response");
	else
		r->state = AUTHZ_FIELDS;
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

static void content_length(struct authz_reply *r, const char *value)
{
	size_t length = 0;

	if (r->has_length || !*value) {
		fail(r, "answered with a malformed or repeated Content-Length");
		return;
	}
	for (const char *c = value; *c; c++) {
		if (*c < '0' || *c > '9') {
			fail(r, "answered with a malformed or repeated Content-Length");
			return;
		}
		length = length * 10 + (size_t)(*c - '0');
		if (length > AUTHZ_BODY_MAX) {
			fail(r, "answered with more than 64 KiB");
			return;
		}
	}
	r->has_length = true;
	r->left = length;
}

/* A field line; the line is ours to cut. */
static void field(struct authz_reply *r, char *line)
{
	char *colon = strchr(line, ':'), *value, *end;

	if (!colon || !is_token(line, (size_t)(colon - line))) {
		fail(r, "answered with a malformed header");
		return;
	}
	*colon = 0;
	value = colon + 1 + strspn(colon + 1, " \t");
	for (end = value + strlen(value); end > value && (end[-1] == ' ' || end[-1] == '\t');)
		*--end = 0;
	if (!strcasecmp(line, "content-length"))
		content_length(r, value);
	else if (!strcasecmp(line, "connection") && lists_close(value))
		r->keep_alive = false;
	else if (!strcasecmp(line, "transfer-encoding")) {
		if (r->chunked || strcasecmp(value, "chunked"))
			fail(r, "answered with a transfer coding other than chunked");
		r->chunked = true;
	}
}

static void end_of_fields(struct authz_reply *r)
{
	if (r->chunked && r->has_length)   /* RFC 9112 6.3: smuggling */
		fail(r, "answered with both Content-Length and Transfer-Encoding");
	else if (r->status == 204 || r->status == 304)
		done(r);
	else if (r->chunked)
		r->state = AUTHZ_CHUNK;
	else if (!r->has_length)
		fail(r, "answered without a length");
	else if (!r->left)
		done(r);
	else
		r->state = AUTHZ_LENGTH;
}

/* RFC 9112 7.1: 1*HEXDIG [chunk-ext] */
static void chunk_size(struct authz_reply *r, const char *line)
{
	size_t size = 0, n = 0;

	for (;; n++) {
		char c = line[n];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
		          : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (digit < 0)
			break;
		size = size * 16 + (size_t)digit;
		if (size > AUTHZ_BODY_MAX - r->n_body) {
			fail(r, "answered with more than 64 KiB");
			return;
		}
	}
	if (!n || (line[n] && line[n] != ';' && line[n] != ' ' && line[n] != '\t')) {
		fail(r, "answered with a malformed chunk");
		return;
	}
	r->left = size;
	r->state = size ? AUTHZ_DATA : AUTHZ_TRAILERS;
}

static void take_line(struct authz_reply *r, char *line)
{
	switch (r->state) {
	case AUTHZ_STATUS:
		status_line(r, line);
		break;
	case AUTHZ_FIELDS:
		if (*line)
			field(r, line);
		else
			end_of_fields(r);
		break;
	case AUTHZ_CHUNK:
		chunk_size(r, line);
		break;
	case AUTHZ_DATA_END:
		if (*line)
			fail(r, "answered with a malformed chunk");
		else
			r->state = AUTHZ_CHUNK;
		break;
	case AUTHZ_TRAILERS:
		if (!*line)
			done(r);
		break;
	default:
		break;
	}
}

/* Lines end in CRLF; a bare CR or LF and a NUL are nowhere legal. */
static void take_byte(struct authz_reply *r, char c)
{
	size_t n = r->n_line;

	if (++r->n_head > AUTHZ_HEAD_MAX || n >= AUTHZ_LINE_MAX) {
		fail(r, "answered with headers that are too large");
		return;
	}
	if (!c || (c == '\n' && (!n || r->line[n - 1] != '\r')) || (c != '\n' && n && r->line[n - 1] == '\r')) {
		fail(r, "answered with a malformed line");
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

static size_t take_body(struct authz_reply *r, const char *data, size_t length)
{
	size_t n = length < r->left ? length : r->left;

	memcpy(r->body + r->n_body, data, n);
	r->n_body += n;
	r->left -= n;
	if (!r->left && r->state == AUTHZ_LENGTH)
		done(r);
	else if (!r->left)
		r->state = AUTHZ_DATA_END;
	return n;
}

size_t authz_reply_feed(struct authz_reply *r, const char *data, size_t length)
{
	size_t at = 0;

	while (at < length && r->state != AUTHZ_DONE && r->state != AUTHZ_FAILED) {
		if (r->state == AUTHZ_LENGTH || r->state == AUTHZ_DATA)
			at += take_body(r, data + at, length - at);
		else
			take_byte(r, data[at++]);
	}
	return at;
}
