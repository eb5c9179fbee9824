/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end, kept beyond the connection that it came by. */
#ifndef HERMES_TUNNEL_OWN_ORIGIN_H
#define HERMES_TUNNEL_OWN_ORIGIN_H

#include "workers/tunnel/flow.h"

struct own_origin;

/* A copy that outlives the connection; NULL: the listener cannot be kept. */
struct own_origin *own_origin_new(const struct origin *origin);
/* For a request by another worker: what that one knows. `link` is that connection's own, whose listener lives for ever. */
struct own_origin *own_origin_inner(const struct origin *link, const char *listener, const char *source, const char *peer);
void own_origin_free(struct own_origin *own);
const struct origin *own_origin_get(const struct own_origin *own);

#endif
