/* The head of an HTTP/1 request, read strictly (RFC 9112): as much as a server of two pages needs. */
#ifndef HERMES_TELEMETRY_HTTP_REQUEST_H
#define HERMES_TELEMETRY_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_MAX 8192u   /* bytes; more is answered 431 */

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };

struct http_request {
	enum http_method method;
	const char *path;         /* into the data; without query, not NUL-terminated */
	size_t path_length;
	bool close;               /* the connection ends after the answer */
	bool plain;               /* the client would rather have text/plain than OpenMetrics */
};

/* Reads a head from the front of data. Returns its length; 0 when more is needed; or a negative HTTP status: -400,
 * -431, -505. A request that announces content is refused with -400: nothing here takes any. */
int http_request_parse(const char *data, size_t length, struct http_request *request);

#endif
