#include "workers/tunnel/h1_write.h"

#include <stdlib.h>
#include <string.h>

/* A message head under construction. One at a time (the worker is one thread), in memory that is kept. */
static struct { char *data; size_t n, room; } text;

static void put(const char *from, size_t n)
{
	if (text.n + n > text.room) {
		text.room = 2 * (text.n + n) + 1024;
		text.data = realloc(text.data, text.room);
		if (!text.data)
			abort();
	}
	memcpy(text.data + text.n, from, n);
	text.n += n;
}

#define PUT(literal) put(literal, sizeof(literal) - 1)

static void put_string(const char *string)
{
	put(string, strlen(string));
}

static void put_field(const struct field *field)
{
	put(field->name, field->name_length);
	PUT(": ");
	put(field->value, field->value_length);
	PUT("\r\n");
}

static void put_line(const char *name, const char *value)
{
	put_string(name);
	PUT(": ");
	put_string(value);
	PUT("\r\n");
}

static bool named(const struct field *field, const char *name, size_t n)
{
	return field->name_length == n && memcmp(field->name, name, n) == 0;
}
#define NAMED(field, literal) named(field, literal, sizeof(literal) - 1)

/* Whether the message may say Content-Length: not beside chunked (RFC 9112 6.2), nor on a tunnel (RFC 9110 9.3.6). */
static bool says_length(const struct h1_out_hop *hop, unsigned status)
{
	if (status >= 100 && (status < 200 || status == 204))
		return false;             /* RFC 9110 8.6 */
	return (hop->body == H1_OUT_NONE && !hop->zero) || hop->body == H1_OUT_LENGTH;
}

/* Connection-specific lines that no leg lets through, lest a configured header frames our messages. */
static bool own_line(const struct field *field)
{
	switch (field->name_length) {
	case 4: return NAMED(field, "host");
	case 7: return NAMED(field, "upgrade");
	case 10: return NAMED(field, "connection") || NAMED(field, "keep-alive");
	case 17: return NAMED(field, "transfer-encoding") || NAMED(field, "sec-websocket-key");
	case 20: return NAMED(field, "sec-websocket-accept");
	default: return false;
	}
}

/* RFC 9113 8.2.3: HTTP/2 splits Cookie, HTTP/1.1 has one. */
static void put_cookies(const struct head *head)
{
	bool first = true;
	for (unsigned i = 0; i < head->n; i++) {
		if (!NAMED(&head->fields[i], "cookie"))
			continue;
		if (first)
			PUT("cookie: ");
		else
			PUT("; ");
		put(head->fields[i].value, head->fields[i].value_length);
		first = false;
	}
	if (!first)
		PUT("\r\n");
}

static void put_fields(const struct head *head, const struct h1_out_hop *hop, unsigned status, bool request)
{
	bool length = says_length(hop, status), cookies = false;
	for (unsigned i = 0; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		if (own_line(field) && !(request && !hop->upgrade && NAMED(field, "sec-websocket-key")))
			continue;
		if (NAMED(field, "content-length") && !length)
			continue;
		if (hop->body == H1_OUT_TUNNEL && NAMED(field, "content-type"))
			continue;                 /* RFC 9297 3.2 */
		if (request && NAMED(field, "cookie"))
			cookies = true;
		else
			put_field(field);
	}
	if (cookies)
		put_cookies(head);
}

static void put_hop(const struct h1_out_hop *hop, bool te)
{
	if (hop->body == H1_OUT_CHUNKED)
		PUT("transfer-encoding: chunked\r\n");
	if (hop->zero)
		PUT("content-length: 0\r\n");
	if (hop->upgrade)
		put_line("upgrade", hop->upgrade);
	if (hop->upgrade)
		PUT("connection: upgrade\r\n");
	else if (hop->close)
		PUT("connection: close\r\n");
	else if (te)
		PUT("connection: te\r\n");        /* RFC 9110 10.1.4 */
	if (hop->key)
		put_line("sec-websocket-key", hop->key);
	if (hop->accept)
		put_line("sec-websocket-accept", hop->accept);
	PUT("\r\n");
}

void h1_write_request(struct chunks *to, const struct head *request, const struct h1_out_hop *hop)
{
	bool tunnel = head_is_connect(request) && !request->protocol;
	text.n = 0;
	put_string(hop->upgrade ? "GET" : request->method);
	PUT(" ");
	put_string(tunnel ? request->authority : request->path);
	PUT(" HTTP/1.1\r\nhost: ");
	put_string(hop->host ? hop->host : request->authority ? request->authority : "");
	PUT("\r\n");
	put_fields(request, hop, 0, true);
	put_hop(hop, head_get(request, "te") != NULL);
	chunks_copy(to, text.data, text.n);
}

void h1_write_response(struct chunks *to, unsigned status, const struct head *response, const struct h1_out_hop *hop)
{
	char digits[3] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
	text.n = 0;
	PUT("HTTP/1.1 ");
	put(digits, 3);
	PUT(" ");
	put_string(h1_reason(status));
	PUT("\r\n");
	put_fields(response, hop, status, false);
	put_hop(hop, false);
	chunks_copy(to, text.data, text.n);
}

/* --- chunks -------------------------------------------------------------------------------------------------------------- */

/* "SIZE CRLF" before `end`; returns its length, at most 10. */
static unsigned chunk_line(size_t size, uint8_t *end)
{
	unsigned n = 2;
	end[-1] = '\n';
	end[-2] = '\r';
	do
		end[-(int)++n] = (uint8_t)"0123456789abcdef"[size & 15];
	while (size >>= 4);
	return n;
}

void h1_write_chunk(struct chunks *data)
{
	uint8_t line[24];
	unsigned n = chunk_line(data->bytes, line + sizeof(line));
	struct chunk *first = data->head;
	if (first->headroom >= n) {
		memcpy(first->data - n, line + sizeof(line) - n, n);
		first->data -= n;
		first->length += n;
		first->headroom -= n;
		data->bytes += n;
	} else {
		struct chunks front = {0};
		chunks_copy(&front, line + sizeof(line) - n, n);
		chunks_move(&front, data);
		*data = front;
	}
	/* At once, not before the next chunk: some readers wait for it. */
	chunks_copy(data, "\r\n", 2);
}

void h1_write_last(struct chunks *to, const struct head *trailers)
{
	text.n = 0;
	PUT("0\r\n");
	for (unsigned i = 0; trailers && i < trailers->n; i++)
		put_field(&trailers->fields[i]);
	PUT("\r\n");
	chunks_copy(to, text.data, text.n);
}

/* --- reason phrases (RFC 9110 15, RFC 6585) -------------------------------------------------------------------------------- */

const char *h1_reason(unsigned status)
{
	static const char *const reasons[600] = {
		[100] = "Continue", [101] = "Switching Protocols", [102] = "Processing", [103] = "Early Hints",
		[200] = "OK", [201] = "Created", [202] = "Accepted", [203] = "Non-Authoritative Information",
		[204] = "No Content", [205] = "Reset Content", [206] = "Partial Content", [207] = "Multi-Status",
		[300] = "Multiple Choices", [301] = "Moved Permanently", [302] = "Found", [303] = "See Other",
		[304] = "Not Modified", [307] = "Temporary Redirect", [308] = "Permanent Redirect",
		[400] = "Bad Request", [401] = "Unauthorized", [402] = "Payment Required", [403] = "Forbidden",
		[404] = "Not Found", [405] = "Method Not Allowed", [406] = "Not Acceptable",
		[407] = "Proxy Authentication Required", [408] = "Request Timeout", [409] = "Conflict", [410] = "Gone",
		[411] = "Length Required", [412] = "Precondition Failed", [413] = "Content Too Large",
		[414] = "URI Too Long", [415] = "Unsupported Media Type", [416] = "Range Not Satisfiable",
		[417] = "Expectation Failed", [421] = "Misdirected Request", [422] = "Unprocessable Content",
		[425] = "Too Early", [426] = "Upgrade Required", [428] = "Precondition Required",
		[429] = "Too Many Requests", [431] = "Request Header Fields Too Large",
		[451] = "Unavailable For Legal Reasons",
		[500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
		[503] = "Service Unavailable", [504] = "Gateway Timeout", [505] = "HTTP Version Not Supported",
		[508] = "Loop Detected", [511] = "Network Authentication Required",
	};
	return status < 600 && reasons[status] ? reasons[status] : "";
}
