#include "workers/telemetry/http_request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A piece of the head. */
struct span {
	const char *at;
	size_t length;
};

/* What the header fields said. */
struct fields {
	unsigned hosts;
	bool close, keep_alive, content;
	double openmetrics, plain;    /* the Accept field's weights; negative: not named */
};

static bool is(struct span s, const char *word)
{
	return s.length == strlen(word) && !strncasecmp(s.at, word, s.length);
}

/* tchar, RFC 9110 5.6.2 */
static bool is_token(struct span s)
{
	for (size_t i = 0; i < s.length; i++)
		if (s.at[i] <= ' ' || s.at[i] >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}", s.at[i]))
			return false;
	return s.length > 0;
}

static struct span trim(struct span s)
{
	while (s.length && (s.at[0] == ' ' || s.at[0] == '\t'))
		s.at++, s.length--;
	while (s.length && (s.at[s.length - 1] == ' ' || s.at[s.length - 1] == '\t'))
		s.length--;
	return s;
}

/* Cuts what stands before the separator off *rest; false when nothing is left. */
static bool cut(struct span *rest, char separator, struct span *piece)
{
	if (!rest->at)
		return false;
	const char *end = rest->length ? memchr(rest->at, separator, rest->length) : NULL;
	*piece = (struct span){rest->at, end ? (size_t)(end - rest->at) : rest->length};
	if (end)
		*rest = (struct span){end + 1, rest->length - piece->length - 1};
	else
		*rest = (struct span){NULL, 0};
	*piece = trim(*piece);
	return true;
}

/* RFC 9110 12.4.2; what is no weight counts as 1 */
static double weight(struct span s)
{
	char text[8] = "";
	if (s.length >= sizeof(text) || !s.length || (s.at[0] != '0' && s.at[0] != '1'))
		return 1;
	memcpy(text, s.at, s.length);
	return strtod(text, NULL);
}

static void read_accept(struct span value, struct fields *f)
{
	for (struct span range; cut(&value, ',', &range);) {
		struct span type, parameter;
		double q = 1;
		if (!cut(&range, ';', &type))
			continue;
		while (cut(&range, ';', &parameter))
			if (parameter.length > 2 && !strncasecmp(parameter.at, "q=", 2))
				q = weight((struct span){parameter.at + 2, parameter.length - 2});
		if (is(type, "application/openmetrics-text") && q > f->openmetrics)
			f->openmetrics = q;
		if ((is(type, "text/plain") || is(type, "text/*")) && q > f->plain)
			f->plain = q;
	}
}

static void read_connection(struct span value, struct fields *f)
{
	for (struct span option; cut(&value, ',', &option);) {
		f->close |= is(option, "close");
		f->keep_alive |= is(option, "keep-alive");
	}
}

/* One field line; false when it is malformed (RFC 9112 5: no folding, no blank before the colon). */
static bool read_field(struct span line, struct fields *f)
{
	const char *colon = memchr(line.at, ':', line.length);
	if (!colon)
		return false;
	struct span name = {line.at, (size_t)(colon - line.at)};
	struct span value = trim((struct span){colon + 1, line.length - name.length - 1});
	if (!is_token(name))
		return false;
	for (size_t i = 0; i < value.length; i++)
		if (((unsigned char)value.at[i] < ' ' && value.at[i] != '\t') || value.at[i] == 0x7f)
			return false;
	if (is(name, "host"))
		f->hosts++;
	else if (is(name, "connection"))
		read_connection(value, f);
	else if (is(name, "accept"))
		read_accept(value, f);
	else if (is(name, "transfer-encoding") || (is(name, "content-length") && !is(value, "0")))
		f->content = true;
	return true;
}

/* Origin-form or absolute-form (RFC 9112 3.2); "*" names nothing here. */
static bool read_target(struct span target, struct http_request *request)
{
	for (size_t i = 0; i < target.length; i++)
		if (target.at[i] <= ' ' || target.at[i] >= 0x7f)
			return false;
	if (target.length > 7 && !strncasecmp(target.at, "http://", 7)) {
		const char *slash = memchr(target.at + 7, '/', target.length - 7);
		target = slash ? (struct span){slash, target.length - (size_t)(slash - target.at)} : (struct span){"/", 1};
	}
	if (!target.length || (target.at[0] != '/' && !is(target, "*")))
		return false;
	const char *query = memchr(target.at, '?', target.length);
	request->path = target.at;
	request->path_length = query ? (size_t)(query - target.at) : target.length;
	return true;
}

/* method SP request-target SP HTTP-version; returns the minor version or a negative status */
static int read_request_line(struct span line, struct http_request *request)
{
	const char *first = memchr(line.at, ' ', line.length);
	if (!first)
		return -400;
	struct span method = {line.at, (size_t)(first - line.at)};
	struct span rest = {first + 1, line.length - method.length - 1};
	const char *second = memchr(rest.at, ' ', rest.length);
	if (!second || !is_token(method))
		return -400;
	struct span target = {rest.at, (size_t)(second - rest.at)};
	struct span version = {second + 1, rest.length - target.length - 1};
	if (version.length != 8 || memcmp(version.at, "HTTP/", 5) || version.at[6] != '.')
		return -400;
	if (version.at[5] != '1' || version.at[7] < '0' || version.at[7] > '9')
		return -505;
	if (!memcmp(method.at, "GET", 3) && method.length == 3)
		request->method = HTTP_GET;
	else if (!memcmp(method.at, "HEAD", 4) && method.length == 4)
		request->method = HTTP_HEAD;
	else
		request->method = HTTP_OTHER;
	/* OPTIONS *, CONNECT host:port: the method is refused, whatever the target */
	if (!read_target(target, request) && request->method != HTTP_OTHER)
		return -400;
	return version.at[7] - '0';
}

/* The next line without its CRLF. 1; 0: more is needed; -400: a bare LF or CR, or a NUL. */
static int next_line(const char *data, size_t length, size_t *at, struct span *line)
{
	const char *end = memchr(data + *at, '\n', length - *at);
	size_t n = end ? (size_t)(end - data) - *at : length - *at;
	if (memchr(data + *at, '\0', n))
		return -400;
	if (!end)
		return 0;
	if (!n || end[-1] != '\r' || memchr(data + *at, '\r', n - 1))
		return -400;
	*line = (struct span){data + *at, n - 1};
	*at += n + 1;
	return 1;
}

int http_request_parse(const char *data, size_t length, struct http_request *request)
{
	struct fields f = {.openmetrics = -1, .plain = -1};
	struct span line;
	size_t at = 0;
	*request = (struct http_request){0};
	if (length > HTTP_HEAD_MAX)
		length = HTTP_HEAD_MAX;
	int rc = next_line(data, length, &at, &line);
	int minor = rc == 1 ? read_request_line(line, request) : 0;
	if (minor < 0)
		return minor;
	while (rc == 1 && (rc = next_line(data, length, &at, &line)) == 1 && line.length)
		if (!read_field(line, &f))
			return -400;
	if (rc < 0)
		return rc;
	if (!rc)
		return length == HTTP_HEAD_MAX ? -431 : 0;
	if (f.content || f.hosts > 1 || (minor && !f.hosts))      /* RFC 9112 3.2 */
		return -400;
	request->close = f.close || (!minor && !f.keep_alive);
	request->plain = f.plain > 0 && f.plain > f.openmetrics;
	return (int)at;
}
