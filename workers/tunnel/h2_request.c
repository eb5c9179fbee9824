#include "workers/tunnel/h2_request.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/h1_parse.h"
#include "workers/tunnel/masque.h"

/* --- in -------------------------------------------------------------------------------------------------------------- */

static void join_cookies(struct head *head)
{
	unsigned n = 0;
	size_t length = 0;
	for (unsigned i = 0; i < head->n; i++)
		if (strcmp(head->fields[i].name, "cookie") == 0)
			n++, length += head->fields[i].value_length + 2;
	if (n < 2)
		return;
	char *all = malloc(length + 1);
	if (!all)
		abort();
	char *end = all;
	for (unsigned i = 0; i < head->n; i++)
		if (strcmp(head->fields[i].name, "cookie") == 0)
			end += sprintf(end, "%s%s", end == all ? "" : "; ", head->fields[i].value);
	head_set(head, "cookie", all);
	free(all);
}

static int take_content_length(struct head *head)
{
	const char *value = head_get(head, "content-length");
	head->content_length = -1;
	if (!value)
		return 0;
	char *end;
	errno = 0;
	long long n = strtoll(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end || errno)
		return -1;
	head->content_length = n;
	return 0;
}

/* An upgrade token in our own spelling where we know it: its case does not matter (RFC 9110 7.8), and what we took for another
 * protocol, or for one, must not become a known one to the next hop, where it may stand in the list that Upgrade is. NULL: none. */
static const char *protocol(const char *text)
{
	static const char *const known[] = {"websocket", "connect-udp", "connect-ip"};
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (strcasecmp(text, known[i]) == 0)
			return known[i];
	return h1_is_token(text, strlen(text)) ? text : NULL;
}

static const char *check(struct head *head)
{
	const char *host = head_get(head, "host"), *why = NULL;
	bool connect = strcmp(head->method, "CONNECT") == 0;
	if (host && head->authority && strcasecmp(host, head->authority) != 0)
		return "Host differs from :authority";
	if (!head->authority)
		head->authority = host;
	if (!head->authority)
		return ":authority is missing";
	head->authority = h1_authority(head, head->authority, strlen(head->authority), connect && !head->protocol, &why);
	if (!head->authority)
		return why;
	head_remove(head, "host");
	if (head->protocol && !connect)
		return ":protocol is for CONNECT only";
	if (head->protocol && !(head->protocol = protocol(head->protocol)))
		return ":protocol is no token";
	if (connect && !head->protocol)
		return head->path || head->scheme ? "CONNECT carries neither :path nor :scheme" : NULL;
	if (!head->scheme || (strcmp(head->scheme, "http") != 0 && strcmp(head->scheme, "https") != 0))
		return ":scheme is neither http nor https";
	if (!head->path || (head->path[0] != '/' && !(head->path[0] == '*' && !head->path[1])))
		return ":path does not begin with a slash";
	return take_content_length(head) < 0 ? "Content-Length is not a number" : NULL;
}

void h2_request_check(struct head *head, struct h2_refusal *refusal)
{
	head->content_length = -1;
	if (!head->method)
		*refusal = (struct h2_refusal){400, ":method is missing"};
	else if ((refusal->detail = check(head)))
		refusal->status = 400;
	else
		join_cookies(head);
	if (refusal->status || !head_is_connect(head))
		return;
	if (masque_is(head))
		refusal->status = masque_accept(head, &refusal->detail);
	else
		head_remove(head, "content-length");
}

void h2_response_fields(struct head *head)
{
	take_content_length(head);
	join_cookies(head);
}

struct head *h2_refusal_head(const struct listener *listener, const char *node, const struct h2_refusal *refusal)
{
	char text[320];
	(void)listener;
	struct head *head = head_new();
	head->status = refusal->status;
	snprintf(text, sizeof(text), "%s; error=http_request_error; details=\"%s\"", node, refusal->detail);
	head_add(head, "proxy-status", text);
	head_add(head, "content-length", "0");
	return head;
}

/* --- out ------------------------------------------------------------------------------------------------------------- */

struct block {
	nghttp2_nv *nv;
	size_t n;
};

/* One growing array for all: a header block is submitted (and copied by nghttp2) before the next is begun. */
static struct block block_begin(const struct head *head)
{
	static nghttp2_nv *nv;
	static size_t room;
	size_t want = head->n + 8;
	if (want > room) {
		nv = realloc(nv, want * sizeof(*nv));
		if (!nv)
			abort();
		room = want;
	}
	return (struct block){.nv = nv};
}

static void block_add(struct block *block, const char *name, size_t name_length, const char *value, size_t length)
{
	block->nv[block->n++] = (nghttp2_nv){.name = (uint8_t *)name, .namelen = name_length, .value = (uint8_t *)value,
	                                     .valuelen = length};
}

static void block_pseudo(struct block *block, const char *name, const char *value)
{
	if (value)
		block_add(block, name, strlen(name), value, strlen(value));
}

/* tunnel: what would frame or type a body is left out (RFC 9110 9.3.6, RFC 9297 3.2). */
static void block_fields(struct block *block, const struct head *head, bool tunnel)
{
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *f = &head->fields[i];
		if (tunnel && (strcmp(f->name, "content-length") == 0 || strcmp(f->name, "content-type") == 0))
			continue;
		block_add(block, f->name, f->name_length, f->value, f->value_length);
	}
}

static const char *own_authority(const struct h2 *h2)
{
	return h2->authority ? h2->authority : "localhost";
}

int h2_submit_request(struct h2_stream *stream, const struct head *head, bool end)
{
	struct block block = block_begin(head);
	bool classic = stream->connect && !head->protocol;
	block_pseudo(&block, ":method", head->method);
	block_pseudo(&block, ":protocol", head->protocol);
	block_pseudo(&block, ":scheme", classic ? NULL : head->scheme);
	block_pseudo(&block, ":authority", stream->masque ? own_authority(stream->h2) : head->authority);
	block_pseudo(&block, ":path", classic ? NULL : head->path);
	block_fields(&block, head, stream->connect);
	nghttp2_data_provider provider = h2_stream_provider(stream);
	stream->out_end |= end;
	int32_t id = nghttp2_submit_request(stream->h2->session, NULL, block.nv, block.n, end ? NULL : &provider, stream);
	if (id > 0)
		stream->id = id;
	return id;
}

static void block_status(struct block *block, char text[4], unsigned status)
{
	snprintf(text, 4, "%u", status % 1000);
	block_add(block, ":status", 7, text, 3);
}

void h2_submit_response(struct h2_stream *stream, const struct head *head, bool end, bool connected)
{
	char status[4];
	struct block block = block_begin(head);
	block_status(&block, status, head->status);
	block_fields(&block, head, connected);
	nghttp2_data_provider provider = h2_stream_provider(stream);
	stream->out_end |= end;
	nghttp2_submit_response(stream->h2->session, stream->id, block.nv, block.n, end ? NULL : &provider);
}

void h2_submit_informational(nghttp2_session *session, int32_t id, const struct head *head)
{
	char status[4];
	struct block block = block_begin(head);
	block_status(&block, status, head->status);
	block_fields(&block, head, true);
	nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, id, NULL, block.nv, block.n, NULL);
}

void h2_submit_trailers(nghttp2_session *session, int32_t id, const struct head *trailers)
{
	struct block block = block_begin(trailers);
	block_fields(&block, trailers, true);
	nghttp2_submit_trailer(session, id, block.nv, block.n);
}
