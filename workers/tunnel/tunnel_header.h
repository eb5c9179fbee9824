/* SPDX-License-Identifier: Apache-2.0 */
/* What Hermes' two ends of a UDP or IP tunnel agree on, in the field `hermes-tunnel` of request and response; hops in
 * between pass it on, other implementations ignore it.
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
 * A structured field dictionary (RFC 8941); unknown members are ignored. What does not parse counts as absent. */
#ifndef HERMES_TUNNEL_TUNNEL_HEADER_H
#define HERMES_TUNNEL_TUNNEL_HEADER_H

#include "workers/tunnel/head.h"

#define TUNNEL_HEADER "hermes-tunnel"
#define TUNNEL_ID 16u                 /* bytes */

struct tunnel_header {
	bool present, segments, has_id, joined;
	uint8_t id[TUNNEL_ID];
	uint64_t received, from;
};
void tunnel_header_get(const struct head *head, struct tunnel_header *out);
/* Replaces the field. */
void tunnel_header_set(struct head *head, const struct tunnel_header *header);

#endif
