/* SPDX-License-Identifier: Apache-2.0 */
/* What Hermes' two ends of a tunnel agree on, in the field `hermes-tunnel` of request and response; hops in
 * between pass it on, other implementations ignore it.
 *
 * UDP and IP tunnels (extended CONNECT):
 *
 *   request:  hermes-tunnel: segments, received=0                 a new tunnel; the client end takes CONTEXT_SEGMENTS
 *             hermes-tunnel: segments, id="<32 hex>", received=N  go on with that tunnel; N: bytes of whole capsules that
 *                                                                 the client end received since the tunnel began
 *   response: hermes-tunnel: segments, id="<32 hex>", received=M  the far end's id for it (its first byte is the worker
 *                                                                 that holds it); M > 0 or `joined`: it goes on
 *             , from=K                                            with `joined`: what comes begins with byte K (K > N where the
 *                                                                 far end no longer keeps what came before)
 *
 * Bytes are counted without the capsules of Hermes' own (capsule.h): hops in between may put some in.
 *
 * TCP tunnels (CONNECT, RFC 9110 9.3.6) over HTTP/2 on all of their way:
 *
 *   request:  hermes-tunnel: stream, received=0                   a new tunnel; the client end can speak capsule_stream.h
 *             hermes-tunnel: stream, id="<32 hex>", received=N    go on with that tunnel; N: bytes received since it began, and
 *                                                                 one more where that direction has ended
 *   response: hermes-tunnel: stream, id="<32 hex>", received=0    agreed: the response direction is capsules from its first byte
 *                                                                 on, the request direction from behind the mark on
 *             hermes-tunnel: stream, id=.., received=M, joined, from=K     it goes on, both directions with capsules; the response
 *                                                                 direction with byte K <= N, or what was acknowledged since
 *             410                                                 no such tunnel (any more), or not for this user, or for this peer
 *                                                                 where there is no user: never another one in its place
 *
 * Without `stream` in the answer to a new tunnel both directions are plain. A hop that does not carry the tunnel by HTTP/2 on
 * both its sides takes the field off the request. An end that is finished, or gives up for good, ends its direction of the HTTP
 * stream (END_STREAM); one that has not had the other's end by then resets its connection. Whatever else ends the HTTP stream
 * (a reset, a lost connection) is no end: the client end comes back.
 *
 * A structured field dictionary (RFC 8941); unknown members are ignored. What does not parse counts as absent. */
#ifndef HERMES_TUNNEL_TUNNEL_HEADER_H
#define HERMES_TUNNEL_TUNNEL_HEADER_H

#include "workers/tunnel/head.h"

#define TUNNEL_HEADER "hermes-tunnel"
#define TUNNEL_ID 16u                 /* bytes */

struct tunnel_header {
	bool present, segments, stream, has_id, joined;
	uint8_t id[TUNNEL_ID];
	uint64_t received, from;
};
void tunnel_header_get(const struct head *head, struct tunnel_header *out);
/* Replaces the field. */
void tunnel_header_set(struct head *head, const struct tunnel_header *header);

#endif
