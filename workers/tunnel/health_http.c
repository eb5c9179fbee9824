#include "workers/tunnel/health_http.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 8192                /* bytes of a response's head(s) that are looked at */

struct health_http {
	nghttp2_session *h2;          /* NULL: HTTP/1.1 */
	char *request;                /* HTTP/1.1, until it is sent */
	int status;
	bool failed;
	size_t length;
	char head[HEAD_MAX + 1];
};

/* --- HTTP/1.1 ---------------------------------------------------------------------------------------------------- */

static char *request_text(const char *authority, const char *path)
{
	static const char format[] =
		"GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: hermes-health\r\nAccept: */*\r\nConnection: close\r\n\r\n";
	size_t size = sizeof(format) + strlen(authority) + strlen(path);
	char *text = malloc(size);
	if (text)
		snprintf(text, size, format, path, authority);
	return text;
}

static bool digits3(const char *p)
{
	return p[0] >= '1' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' && p[2] >= '0' && p[2] <= '9';
}

/* "HTTP/1.1 200": the status; 0: too short yet; -1: something else. */
static int status_line(const char *head, size_t length)
{
	static const char version[] = "HTTP/1.";
	size_t n = length < 7 ? length : 7;
	if (memcmp(head, version, n) != 0)
		return -1;
	if (length < 13)
		return 0;
	if ((head[7] != '0' && head[7] != '1') || head[8] != ' ' || !digits3(head + 9) ||
	    (head[12] != ' ' && head[12] != '\r'))
		return -1;
	return (head[9] - '0') * 100 + (head[10] - '0') * 10 + (head[11] - '0');
}

/* Interim responses (1xx) are skipped. */
static int read_h1(struct health_http *http)
{
	size_t at = 0;
	for (;;) {
		int status = status_line(http->head + at, http->length - at);
		if (status <= 0 || status >= 200)
			return status;
		const char *end = strstr(http->head + at, "\r\n\r\n");
		if (!end)
			return http->length >= HEAD_MAX ? -1 : 0;
		at = (size_t)(end + 4 - http->head);
	}
}

static int input_h1(struct health_http *http, struct chunks *in)
{
	for (const struct chunk *c = in->head; c; c = c->next) {
		size_t n = c->length < HEAD_MAX - http->length ? c->length : HEAD_MAX - http->length;
		memcpy(http->head + http->length, c->data, n);
		http->length += n;
	}
	http->head[http->length] = 0;
	return read_h1(http);
}

/* --- HTTP/2 ------------------------------------------------------------------------------------------------------ */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *arg)
{
	struct health_http *http = arg;
	(void)session, (void)frame, (void)flags;
	if (name_length == 7 && memcmp(name, ":status", 7) == 0 && value_length == 3 && value[0] != '1')
		http->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *arg)
{
	struct health_http *http = arg;
	(void)session, (void)id, (void)error;
	http->failed = http->status == 0;
	return 0;
}

static nghttp2_nv field(const char *name, const char *value)
{
	return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name, .value = (uint8_t *)(uintptr_t)value, .namelen = strlen(name),
	                    .valuelen = strlen(value), .flags = NGHTTP2_NV_FLAG_NONE};
}

static nghttp2_session *session_new(struct health_http *http, bool tls, const char *authority, const char *path)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_session *session = NULL;
	nghttp2_nv fields[] = {field(":method", "GET"), field(":scheme", tls ? "https" : "http"),
	                       field(":authority", authority), field(":path", path), field("user-agent", "hermes-health")};
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		return NULL;
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	if (nghttp2_session_client_new(&session, callbacks, http) == 0 &&
	    (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, NULL, 0) != 0 ||
	     nghttp2_submit_request(session, NULL, fields, sizeof(fields) / sizeof(*fields), NULL, NULL) < 0)) {
		nghttp2_session_del(session);
		session = NULL;
	}
	nghttp2_session_callbacks_del(callbacks);
	return session;
}

static int input_h2(struct health_http *http, struct chunks *in)
{
	for (const struct chunk *c = in->head; c; c = c->next)
		if (nghttp2_session_mem_recv(http->h2, c->data, c->length) < 0)
			return -1;
	if (http->status)
		return http->status;
	return http->failed || !nghttp2_session_want_read(http->h2) ? -1 : 0;
}

/* --- both -------------------------------------------------------------------------------------------------------- */

struct health_http *health_http_new(bool h2, bool tls, const char *authority, const char *path)
{
	struct health_http *http = calloc(1, sizeof(*http));
	if (!http)
		abort();
	if (h2)
		http->h2 = session_new(http, tls, authority, path);
	else
		http->request = request_text(authority, path);
	if (!http->h2 && !http->request)
		abort();
	return http;
}

void health_http_free(struct health_http *http)
{
	if (!http)
		return;
	nghttp2_session_del(http->h2);
	free(http->request);
	free(http);
}

void health_http_output(struct health_http *http, struct chunks *out)
{
	const uint8_t *data;
	ssize_t n;
	if (http->request) {
		chunks_copy(out, http->request, strlen(http->request));
		free(http->request);
		http->request = NULL;
	}
	while (http->h2 && (n = nghttp2_session_mem_send(http->h2, &data)) > 0)
		chunks_copy(out, data, (size_t)n);
}

int health_http_input(struct health_http *http, struct chunks *in)
{
	int status = http->h2 ? input_h2(http, in) : input_h1(http, in);
	chunks_clear(in);
	return status;
}
