/* An authorizer's HTTP/1.1 response, read byte by byte and strictly (RFC 9112): what is not plainly right is a failure,
 * and a failure never allows anything. */
#ifndef HERMES_POLICY_AUTHZ_REPLY_H
#define HERMES_POLICY_AUTHZ_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#define AUTHZ_BODY_MAX (64u * 1024)
#define AUTHZ_LINE_MAX 4096u
#define AUTHZ_HEAD_MAX (32u * 1024)   /* status line, fields, chunk sizes and trailers together */

enum authz_state { AUTHZ_STATUS, AUTHZ_FIELDS, AUTHZ_LENGTH, AUTHZ_CHUNK, AUTHZ_DATA, AUTHZ_DATA_END, AUTHZ_TRAILERS,
	AUTHZ_DONE, AUTHZ_FAILED };

struct authz_reply {
	enum authz_state state;
	const char *error;            /* static text, when AUTHZ_FAILED */
	unsigned status;
	bool keep_alive;
	bool has_length, chunked;
	size_t left;                  /* of the body or the chunk */
	size_t n_head, n_line, n_body;
	char line[AUTHZ_LINE_MAX + 1];
	char body[AUTHZ_BODY_MAX + 1];   /* NUL-terminated when done */
};

void authz_reply_reset(struct authz_reply *reply);
/* Returns how many bytes it took: all, unless the response ended (state DONE) or is not one (FAILED) before. */
size_t authz_reply_feed(struct authz_reply *reply, const char *data, size_t length);
/* Whether a first byte has come. */
bool authz_reply_begun(const struct authz_reply *reply);

#endif
