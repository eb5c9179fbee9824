/* SPDX-License-Identifier: Apache-2.0 */
/* Living flows are decided anew after a change of configuration. */
#ifndef HERMES_TUNNEL_FLOW_REDECIDE_H
#define HERMES_TUNNEL_FLOW_REDECIDE_H

#include "workers/tunnel/tunnel.h"

struct flow;
struct head;
struct redecide;
struct asked;

struct redecide *redecide_new(struct tunnel *tunnel);
/* tunnel->current is in force: every flow that was decided under another generation is asked about, in batches, later. */
void redecide_commit(struct redecide *redecide);
/* The flow's memory goes. */
void redecide_forget(struct redecide *redecide, const struct flow *flow);

/* The fields of a request that is being asked about, to be asked about again; freed with free(). */
struct asked *asked_new(const struct head *request);

#endif
