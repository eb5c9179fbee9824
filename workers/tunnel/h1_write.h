/* HTTP/1.1 messages as they go out. */
#ifndef HERMES_TUNNEL_H1_WRITE_H
#define HERMES_TUNNEL_H1_WRITE_H

#include "workers/tunnel/head.h"
#include "workers/tunnel/slab.h"

/* How a body goes out. */
enum h1_out { H1_OUT_NONE, H1_OUT_LENGTH, H1_OUT_CHUNKED, H1_OUT_UNTIL_CLOSE, H1_OUT_TUNNEL };

/* What this hop adds to a head. */
struct h1_out_hop {
	enum h1_out body;
	bool zero;                    /* say Content-Length: 0 */
	bool close;                   /* say Connection: close */
	const char *upgrade;          /* protocol: Upgrade and Connection: upgrade; NULL: none */
	const char *key, *accept;     /* Sec-WebSocket-*; NULL: none */
	const char *host;             /* of a request; NULL: the head's authority */
};

void h1_write_request(struct chunks *to, const struct head *request, const struct h1_out_hop *hop);
/* status: as written (101 where the head says 200). */
void h1_write_response(struct chunks *to, unsigned status, const struct head *response, const struct h1_out_hop *hop);
/* Makes one HTTP chunk of all of data (not empty), in place. */
void h1_write_chunk(struct chunks *data);
/* The last chunk, and trailers (may be NULL). */
void h1_write_last(struct chunks *to, const struct head *trailers);
/* Reason phrase of a status, "" where unknown. */
const char *h1_reason(unsigned status);

#endif
