/* A request's or response's head, independent of the HTTP version that it came in or leaves by. */
#ifndef HERMES_TUNNEL_HEAD_H
#define HERMES_TUNNEL_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All strings NUL-terminated and in the head's arena. name: lower case. Values were checked by who parsed them: no NUL, CR,
 * LF; trimmed. */
struct field {
	const char *name, *value;
	uint32_t name_length, value_length;
};

struct head {
	/* Request. A tunnel is method CONNECT; protocol: extended CONNECT's (RFC 8441 "websocket", later "connect-udp"),
	 * NULL for classic CONNECT (which has authority only). HTTP/1.1 Upgrade: websocket is turned into extended CONNECT
	 * by its server leg, and back by its client leg. scheme "http" or "https"; path begins with "/" (or "*"). */
	const char *method, *scheme, *authority, *path, *protocol;
	unsigned status;              /* response; 0 in a request */
	/* End-to-end fields only: a leg removes and makes what is its own hop's (Connection and what it names, Keep-Alive,
	 * Proxy-Connection, TE other than trailers, Transfer-Encoding, Upgrade, HTTP2-Settings, Host).
	 * Content-Length stays as a field and is repeated in content_length (-1: none). */
	struct field *fields;
	unsigned n, room;
	int64_t content_length;
	struct head_block *blocks;
	size_t bytes;                 /* of all names and values */
};

struct head *head_new(void);
void head_free(struct head *head);
struct head *head_clone(const struct head *head);
/* Copies into the arena; length < 0: strlen. */
const char *head_string(struct head *head, const char *text, long length);
/* Appends a field; name is lowered. */
void head_add(struct head *head, const char *name, const char *value);
void head_add_n(struct head *head, const char *name, size_t name_length, const char *value, size_t value_length);
/* Removes every field of that name, then adds. */
void head_set(struct head *head, const char *name, const char *value);
unsigned head_remove(struct head *head, const char *name);
/* The first value, or NULL; name lower case. */
const char *head_get(const struct head *head, const char *name);
/* Method CONNECT: bytes follow both ways after a 2xx, in either flavour. */
bool head_is_connect(const struct head *head);
/* A response to `method` with this status has no body (RFC 9110 6.4.1). */
bool head_no_body(const char *method, unsigned status);

#endif
