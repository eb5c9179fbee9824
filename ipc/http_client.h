/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 as a client over a stream socket that somebody else opened: one request at a time, kept alive, bodies of JSON. For workers
 * that may not open sockets: policy (authorizers), config-sync (the local tunnel worker), controller (etcd). The answer's head is
 * bounded (16 KiB), its body by body_max; Content-Length, chunked and until-close are understood, anything that does not fit ends the
 * connection. */
#ifndef HERMES_IPC_HTTP_CLIENT_H
#define HERMES_IPC_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;
struct http_client;

struct http_answer {
	int error;                /* 0, or negative: -ETIMEDOUT, -ECONNRESET, -EPROTO, -EFBIG, -ECANCELED (piece said: enough);
	                           * -ENOTCONN: the connection ended before a byte of the answer came, ask again elsewhere */
	const char *reason;       /* for people, static text; NULL without error */
	unsigned status;
	const char *body;         /* NUL-terminated behind length; lives as long as the call */
	size_t length;
	bool reusable;            /* the connection takes a further request */
};
typedef void http_answered(void *arg, const struct http_answer *answer);
/* A piece of a streamed answer's body (etcd's watch), whatever its status; false: enough, the connection is ended. */
typedef bool http_piece(void *arg, const char *data, size_t length);

/* Takes over fd (connected or connecting). NULL: out of memory, fd is closed. */
struct http_client *http_client_new(struct event_base *base, int fd, size_t body_max);
/* A request under way is not answered any more. */
void http_client_free(struct http_client *client);
/* headers: NULL, or lines "name: value\r\n" (Accept and Content-Type are application/json unless they say otherwise). body NULL: none.
 * -EBUSY: one is under way; -ENOTCONN: the connection has ended; -EINVAL: host or path cannot stand in a request; else 0, and done is
 * called once, never before this returns. piece, where given, gets the body as it comes (then answer->body is empty).
 * timeout_ms: for the whole answer; with piece: for the head. */
int http_client_request(struct http_client *client, const char *method, const char *host, const char *path, const char *headers,
                        const char *body, size_t length, uint32_t timeout_ms, http_piece *piece, http_answered *done, void *arg);
bool http_client_usable(const struct http_client *client);

#endif
