/* HTTP/1 heads and bodies: the same result however the bytes are cut, and nothing accepted that http_parser would take for
 * another message. The first byte of the input says request (even) or response, and where to cut. */
#include <http_parser.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/h1_body.h"

#define LIMIT 4096
#define LINES 300

#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

struct message {
	enum h1_result result;
	struct head *head;
	struct h1_hop hop;
	enum h1_result body_result;
	char *body;
	size_t body_length, head_end, end;
};

static bool bodiless(unsigned status)
{
	return status && head_no_body(NULL, status);
}

static void read_body(struct message *m, const uint8_t *data, size_t size, size_t step)
{
	struct h1_body body;
	struct chunks in = {0}, out = {0};
	size_t at = m->head_end;
	h1_body_init(&body, bodiless(m->head->status) ? H1_NO_BODY : m->hop.framing, m->hop.length);
	m->body = malloc(size + 1);
	m->body_result = h1_body_read(&body, &in, &out);
	while (m->body_result == H1_MORE && at < size) {
		size_t n = size - at < step ? size - at : step;
		chunks_copy(&in, data + at, n);
		at += n;
		m->body_result = h1_body_read(&body, &in, &out);
		CHECK(m->body_result != H1_MORE || in.bytes == 0);
		for (struct chunk *c; (c = chunks_pop(&out)); chunk_free(c)) {
			memcpy(m->body + m->body_length, c->data, c->length);
			m->body_length += c->length;
		}
	}
	m->end = at - in.bytes;
	chunks_clear(&in);
	h1_body_clear(&body);
}

static void read_message(struct message *m, enum h1_kind kind, const uint8_t *data, size_t size, size_t step)
{
	struct h1_parser parser;
	size_t used = 0;
	*m = (struct message){.result = H1_MORE};
	h1_parser_init(&parser, kind, LIMIT);
	while (m->result == H1_MORE && m->head_end < size) {
		size_t n = size - m->head_end < step ? size - m->head_end : step;
		m->result = h1_parser_feed(&parser, data + m->head_end, n, &used);
		CHECK(used <= n && (m->result != H1_MORE || used == n));
		m->head_end += used;
	}
	if (m->result == H1_ERROR)
		CHECK(parser.status >= 400 && parser.status <= 505 && parser.why && !parser.head);
	m->head = parser.head;
	m->hop = parser.hop;
	parser.head = NULL;
	h1_parser_clear(&parser);
	if (m->result == H1_DONE)
		read_body(m, data, size, step);
}

static void clear(struct message *m)
{
	head_free(m->head);
	free(m->body);
}

static void same(const struct message *a, const struct message *b)
{
	CHECK(a->result == b->result);
	if (a->result != H1_DONE)
		return;
	CHECK(a->head_end == b->head_end && a->head->n == b->head->n && a->head->status == b->head->status);
	for (unsigned i = 0; i < a->head->n; i++)
		CHECK(strcmp(a->head->fields[i].name, b->head->fields[i].name) == 0 &&
		      strcmp(a->head->fields[i].value, b->head->fields[i].value) == 0);
	CHECK(a->body_result == b->body_result);
	CHECK(a->body_result == H1_ERROR || (a->end == b->end && a->body_length == b->body_length &&
	                                     memcmp(a->body, b->body, a->body_length) == 0));
}

/* --- what http_parser says ------------------------------------------------------------------------------------------------ */

struct other {
	char url[LIMIT + 1], name[LINES][LIMIT + 1], value[LINES][LIMIT + 1];
	unsigned n;
	bool in_value, head_done, done;
	char *body;
	size_t body_length;
};

static int append(char *to, const char *at, size_t n)
{
	size_t have = strlen(to);
	if (have + n > LIMIT)
		return 1;
	memcpy(to + have, at, n);
	to[have + n] = '\0';
	return 0;
}

static int on_url(http_parser *p, const char *at, size_t n)
{
	return append(((struct other *)p->data)->url, at, n);
}

static int on_name(http_parser *p, const char *at, size_t n)
{
	struct other *o = p->data;
	if (o->head_done)
		return 0;
	if (o->in_value || o->n == 0) {
		if (o->n == LINES)
			return 1;
		o->name[o->n][0] = o->value[o->n][0] = '\0';
		o->n++;
	}
	o->in_value = false;
	return append(o->name[o->n - 1], at, n);
}

static int on_value(http_parser *p, const char *at, size_t n)
{
	struct other *o = p->data;
	if (o->head_done)
		return 0;
	o->in_value = true;
	return append(o->value[o->n - 1], at, n);
}

static int on_head(http_parser *p)
{
	((struct other *)p->data)->head_done = true;
	return 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
	struct other *o = p->data;
	memcpy(o->body + o->body_length, at, n);
	o->body_length += n;
	return 0;
}

static int on_done(http_parser *p)
{
	((struct other *)p->data)->done = true;
	http_parser_pause(p, 1);
	return 0;
}

static const http_parser_settings settings = {
	.on_url = on_url, .on_header_field = on_name, .on_header_value = on_value, .on_headers_complete = on_head,
	.on_body = on_body, .on_message_complete = on_done,
};

static bool same_value(const char *ours, const char *theirs)
{
	size_t n = strlen(theirs);
	while (n > 0 && (theirs[n - 1] == ' ' || theirs[n - 1] == '\t'))
		n--;
	return strlen(ours) == n && memcmp(ours, theirs, n) == 0;
}

static void same_fields(const struct head *head, const struct other *o)
{
	unsigned at = 0;
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		if (strcmp(field->name, "te") == 0)
			continue;                 /* rewritten */
		while (at < o->n && !(strcasecmp(o->name[at], field->name) == 0 && same_value(field->value, o->value[at])))
			at++;
		CHECK(at < o->n);
		at++;
	}
}

static void same_target(const struct head *head, const struct other *o)
{
	struct http_parser_url url;
	char authority[LIMIT + 1] = "";
	bool connect = head_is_connect(head) && !head->protocol;
	if (o->url[0] == '/' || o->url[0] == '*') {
		CHECK(strcmp(head->path, o->url) == 0);
		return;
	}
	http_parser_url_init(&url);
	CHECK(http_parser_parse_url(o->url, strlen(o->url), connect, &url) == 0);
	CHECK(!(url.field_set & (1 << UF_USERINFO)) && !(url.field_set & (1 << UF_FRAGMENT)));
	bool v6 = memchr(o->url + url.field_data[UF_HOST].off, ':', url.field_data[UF_HOST].len) != NULL;
	snprintf(authority, sizeof(authority), "%s%.*s%s", v6 ? "[" : "", url.field_data[UF_HOST].len,
	         o->url + url.field_data[UF_HOST].off, v6 ? "]" : "");
	CHECK(strncasecmp(authority, head->authority, strlen(authority)) == 0);
	const char *port = head->authority + strlen(authority);
	CHECK(*port == '\0' || *port == ':');
	CHECK((url.field_set & (1 << UF_PORT)) ? *port && atoi(port + 1) == url.port : *port == '\0');
	if (connect || !(url.field_set & (1 << UF_PATH)))
		return;
	CHECK(strcmp(head->path, o->url + url.field_data[UF_PATH].off) == 0);
}

static void differential(const struct message *m, enum h1_kind kind, const uint8_t *data, size_t size)
{
	static struct other o;
	http_parser parser;
	o.n = 0;
	o.url[0] = '\0';
	o.in_value = o.head_done = o.done = false;
	o.body_length = 0;
	o.body = malloc(size + 1);
	http_parser_init(&parser, kind == H1_REQUEST ? HTTP_REQUEST : HTTP_RESPONSE);
	parser.data = &o;
	size_t length = m->body_result == H1_DONE ? m->end : size;
	size_t parsed = http_parser_execute(&parser, &settings, (const char *)data, length);
	enum http_errno error = HTTP_PARSER_ERRNO(&parser);
	/* http_parser knows a fixed list of methods, and takes "Transfer-Encodingx" for the other */
	if (error == HPE_INVALID_METHOD || error == HPE_INVALID_TRANSFER_ENCODING || error == HPE_CB_url || error == HPE_CB_header_field || error == HPE_CB_header_value)
		goto out;
	/* a body that is not whole yet may still be refused here: trailers are looked at when all have come */
	bool cut = m->body_result == H1_MORE && error != HPE_OK;
	CHECK(error == HPE_OK || error == HPE_PAUSED || cut);
	CHECK(o.head_done);
	if (kind == H1_REQUEST) {
		const char *method = head_is_connect(m->head) && m->head->protocol ? "GET" : m->head->method;
		CHECK(strcmp(http_method_str((enum http_method)parser.method), method) == 0);
		same_target(m->head, &o);
	} else {
		CHECK(parser.status_code == m->head->status);
	}
	same_fields(m->head, &o);
	/* After an upgrade nothing of a body is read there. And a 204 with Content-Length: 1 has no body (RFC 9112 6.3), there it has. */
	if (cut || parser.upgrade || bodiless(m->head->status))
		goto out;
	CHECK(o.body_length == m->body_length && memcmp(o.body, m->body, m->body_length) == 0);
	if (m->body_result == H1_DONE)
		CHECK(o.done && parsed + (error == HPE_PAUSED) >= m->end);
out:
	free(o.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	enum h1_kind kind = data[0] & 1 ? H1_RESPONSE : H1_REQUEST;
	size_t step = (data[0] >> 1) % 16 + 1;
	struct message whole, cut;
	data++, size--;
	read_message(&whole, kind, data, size, size);
	read_message(&cut, kind, data, size, step);
	same(&whole, &cut);
	if (whole.result == H1_DONE && whole.body_result != H1_ERROR)
		differential(&whole, kind, data, size);
	clear(&whole);
	clear(&cut);
	return 0;
}
