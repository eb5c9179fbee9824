/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/api_parse.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void api_parse_clear(struct api_parse *p)
{
	free(p->target);
	free(p->peer);
	free(p->type);
	if (p->body)
		evbuffer_free(p->body);
	*p = (struct api_parse){0};
}

bool api_parse_reset(struct api_parse *p, size_t body_max)
{
	api_parse_clear(p);
	p->body_max = body_max;
	p->keep_alive = true;
	p->body = evbuffer_new();
	return p->body != NULL;
}

static void fail(struct api_parse *p, unsigned status, const char *error)
{
	p->state = PARSE_FAILED;
	p->status = status;
	p->error = error;
}

void api_parse_limit(struct api_parse *p, size_t body_max)
{
	if (p->state == PARSE_FAILED)
		return;
	if (evbuffer_get_length(p->body) > body_max || p->left > body_max - evbuffer_get_length(p->body))
		fail(p, 413, "the body is too large");
	p->body_max = body_max;
}

/* --- lines ---------------------------------------------------------------------------------------------------------- */

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

static bool is_visible(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] <= ' ' || text[i] == 0x7f)        /* char is signed here: neither does what is not ASCII */
			return false;
	return length > 0;
}

/* RFC 9112 3: method SP request-target SP HTTP-version. */
static void request_line(struct api_parse *p, const char *line)
{
	const char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;
	size_t n = target ? (size_t)(target - line) : 0;
	if (!version || !is_token(line, n) || !is_visible(target + 1, (size_t)(version - target - 1))) {
		fail(p, 400, "malformed request line");
		return;
	}
	if (n >= sizeof(p->method)) {
		fail(p, 501, "unknown method");
		return;
	}
	if (strcmp(version + 1, "HTTP/1.1") && strcmp(version + 1, "HTTP/1.0")) {
		fail(p, 505, "HTTP/1.1 only");
		return;
	}
	if (target[1] != '/') {
		fail(p, 400, "the target must be a path");
		return;
	}
	memcpy(p->method, line, n);
	p->method[n] = '\0';
	p->keep_alive = version[8] == '1';
	p->target = strndup(target + 1, (size_t)(version - target - 1));
	p->state = PARSE_FIELDS;
	if (!p->target)
		fail(p, 503, "out of memory");
}

static void content_length(struct api_parse *p, const char *value)
{
	size_t length = 0;
	if (p->has_length || !*value) {
		fail(p, 400, "malformed or repeated Content-Length");
		return;
	}
	for (const char *c = value; *c; c++) {
		if (*c < '0' || *c > '9') {
			fail(p, 400, "malformed or repeated Content-Length");
			return;
		}
		length = length * 10 + (size_t)(*c - '0');
		if (length > p->body_max) {
			fail(p, 413, "the body is too large");
			return;
		}
	}
	p->has_length = true;
	p->left = length;
}

/* Said twice is said once too often: which would hold? */
static void keep_once(struct api_parse *p, char **at, const char *value, const char *error)
{
	if (*at)
		fail(p, 400, error);
	else if (!(*at = strdup(value)))
		fail(p, 503, "out of memory");
}

static void content_type(struct api_parse *p, const char *value)
{
	keep_once(p, &p->type, value, "repeated Content-Type");
	if (!p->type)
		return;
	p->type[strcspn(p->type, "; \t")] = '\0';
	for (char *c = p->type; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
}

static bool lists(const char *value, const char *word)
{
	for (const char *at = value; *at;) {
		size_t n = strcspn(at, ", \t");
		if (n == strlen(word) && !strncasecmp(at, word, n))
			return true;
		at += n;
		at += strspn(at, ", \t");
	}
	return false;
}

static void known_field(struct api_parse *p, const char *name, const char *value)
{
	if (!strcasecmp(name, "content-length"))
		content_length(p, value);
	else if (!strcasecmp(name, "transfer-encoding")) {
		if (p->chunked || strcasecmp(value, "chunked"))
			fail(p, 501, "transfer codings other than chunked are not understood");
		p->chunked = true;
	} else if (!strcasecmp(name, "connection")) {
		p->keep_alive = p->keep_alive && !lists(value, "close");
	} else if (!strcasecmp(name, "expect")) {
		p->expect = p->expect || lists(value, "100-continue");
	} else if (!strcasecmp(name, "host")) {
		if (p->has_host)
			fail(p, 400, "repeated Host");
		p->has_host = true;
	} else if (!strcasecmp(name, "hermes-peer")) {
		keep_once(p, &p->peer, value, "repeated hermes-peer");
	} else if (!strcasecmp(name, "content-type")) {
		content_type(p, value);
	}
}

/* A field line; the line is ours to cut. Folded lines begin with a blank, which is no name. */
static void field(struct api_parse *p, char *line)
{
	char *colon = strchr(line, ':'), *value, *end;
	if (!colon || !is_token(line, (size_t)(colon - line))) {
		fail(p, 400, "malformed header");
		return;
	}
	*colon = '\0';
	value = colon + 1 + strspn(colon + 1, " \t");
	for (end = value + strlen(value); end > value && (end[-1] == ' ' || end[-1] == '\t');)
		*--end = '\0';
	known_field(p, line, value);
}

static void end_of_fields(struct api_parse *p)
{
	if (p->chunked && p->has_length)      /* RFC 9112 6.3: smuggling */
		fail(p, 400, "both Content-Length and Transfer-Encoding");
	else if (!p->has_host && p->keep_alive)
		fail(p, 400, "no Host");
	else if (p->chunked)
		p->state = PARSE_CHUNK;
	else
		p->state = p->left ? PARSE_LENGTH : PARSE_DONE;
	p->n_head = 0;
}

/* RFC 9112 7.1: 1*HEXDIG [chunk-ext] */
static void chunk_size(struct api_parse *p, const char *line)
{
	size_t size = 0, n = 0;
	for (;; n++) {
		char c = line[n];
		int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
		          : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
		if (digit < 0)
			break;
		size = size * 16 + (size_t)digit;
		if (size > p->body_max - evbuffer_get_length(p->body)) {
			fail(p, 413, "the body is too large");
			return;
		}
	}
	if (!n || (line[n] && line[n] != ';' && line[n] != ' ' && line[n] != '\t')) {
		fail(p, 400, "malformed chunk");
		return;
	}
	p->left = size;
	p->n_head = 0;
	p->state = size ? PARSE_DATA : PARSE_TRAILERS;
}

static void take_line(struct api_parse *p, char *line)
{
	switch (p->state) {
	case PARSE_START: request_line(p, line); break;
	case PARSE_FIELDS:
		if (*line)
			field(p, line);
		else
			end_of_fields(p);
		break;
	case PARSE_CHUNK: chunk_size(p, line); break;
	case PARSE_DATA_END:
		if (*line)
			fail(p, 400, "malformed chunk");
		else
			p->state = PARSE_CHUNK;
		break;
	case PARSE_TRAILERS:
		if (!*line)
			p->state = PARSE_DONE;
		break;
	default: break;
	}
}

/* False: there is no whole line yet, or it failed. Lines end in CRLF; a NUL, a bare CR and a bare LF are nowhere legal. */
static bool next_line(struct api_parse *p, struct evbuffer *in)
{
	size_t length = 0, waiting = evbuffer_get_length(in);
	char *line = evbuffer_readln(in, &length, EVBUFFER_EOL_CRLF_STRICT);
	p->n_head += line ? length + 2 : 0;
	if (p->n_head > API_HEAD_MAX || (!line && p->n_head + waiting > API_HEAD_MAX))
		fail(p, 431, "the headers are too large");
	else if (line && (strlen(line) != length || strpbrk(line, "\r\n")))
		fail(p, 400, "malformed line");
	else if (line)
		take_line(p, line);
	free(line);
	return line && p->state != PARSE_FAILED;
}

static bool next_data(struct api_parse *p, struct evbuffer *in)
{
	size_t waiting = evbuffer_get_length(in), n = waiting < p->left ? waiting : p->left;
	if (!n)
		return false;
	if (evbuffer_remove_buffer(in, p->body, n) != (int)n) {
		fail(p, 503, "out of memory");
		return false;
	}
	p->left -= n;
	if (!p->left)
		p->state = p->state == PARSE_LENGTH ? PARSE_DONE : PARSE_DATA_END;
	return true;
}

void api_parse_feed(struct api_parse *p, struct evbuffer *in)
{
	bool more = true;
	while (more && p->state != PARSE_DONE && p->state != PARSE_FAILED)
		more = p->state == PARSE_LENGTH || p->state == PARSE_DATA ? next_data(p, in) : next_line(p, in);
}
