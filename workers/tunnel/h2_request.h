/* Heads into HTTP/2 header blocks and back: what nghttp2 leaves to its caller. */
#ifndef HERMES_TUNNEL_H2_REQUEST_H
#define HERMES_TUNNEL_H2_REQUEST_H

#include "workers/tunnel/h2_internal.h"

/* status 0: nothing is wrong */
struct h2_refusal { unsigned status; const char *detail; };

/* Checks and completes a request that nghttp2 found well-formed (RFC 9113 8.3, 8.5; RFC 8441 4): authority from Host where
 * :authority is absent, lower case, no userinfo, CONNECT with a port, Host that says otherwise refused, cookies joined. */
void h2_request_check(struct head *head, struct h2_refusal *refusal);
/* content_length, cookies */
void h2_response_fields(struct head *head);
struct head *h2_refusal_head(const struct listener *listener, const char *node, const struct h2_refusal *refusal);

int h2_submit_request(struct h2_stream *stream, const struct head *head, bool end);
void h2_submit_response(struct h2_stream *stream, const struct head *head, bool end, bool connected);
void h2_submit_informational(nghttp2_session *session, int32_t id, const struct head *head);
void h2_submit_trailers(nghttp2_session *session, int32_t id, const struct head *trailers);

#endif
