/* HTTP/1.1 message bodies: framing removed, payload passed on by reference. */
#ifndef HERMES_TUNNEL_H1_BODY_H
#define HERMES_TUNNEL_H1_BODY_H

#include "workers/tunnel/h1_parse.h"
#include "workers/tunnel/slab.h"

struct h1_body {
	enum h1_framing framing;
	int state;                    /* enum step of h1_body.c */
	uint64_t left;                /* payload bytes of the body, or of the chunk under way */
	unsigned digits, extension;   /* of the chunk line under way */
	int64_t overhead;             /* framing bytes beyond what is reasonable for the payload */
	struct h1_parser trailers;
	unsigned status;              /* ERROR: 400 or 431 */
	const char *why;
};

void h1_body_init(struct h1_body *body, enum h1_framing framing, uint64_t length);
void h1_body_clear(struct h1_body *body);
/* Moves payload from in to out. MORE: all of in is used. DONE: the body is complete, in holds what follows, and
 * body->trailers.head the trailers (the caller takes them) or NULL. */
enum h1_result h1_body_read(struct h1_body *body, struct chunks *in, struct chunks *out);
/* The connection ended: DONE when that is how the body ends, ERROR when it is cut. */
enum h1_result h1_body_ended(const struct h1_body *body);
bool h1_body_complete(const struct h1_body *body);

#endif
