#ifndef HERMES_TUNNEL_GENERATION_H
#define HERMES_TUNNEL_GENERATION_H

#include "workers/tunnel/tunnel.h"

struct generation *generation_ref(struct generation *generation);
/* The last one frees its configuration, contexts and table. NULL is fine. */
void generation_unref(struct generation *generation);

#endif
