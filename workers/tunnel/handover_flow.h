/* SPDX-License-Identifier: Apache-2.0 */
/* A flow into a parcel, and out of one (handover.h). */
#ifndef HERMES_TUNNEL_HANDOVER_FLOW_H
#define HERMES_TUNNEL_HANDOVER_FLOW_H

#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/tunnel.h"

struct flow;

/* What becomes of a flow when its worker stops. LEAVE: it drains. REFUSE: its stream, not open yet, is tried again by who opened it.
 * FLOW, BEGIN: it is in the parcel, and reads nothing more; flow_vanish() is due when the parcel has been sent. ENDED: giving what
 * it had begun ended it. */
enum handover_what { HANDOVER_LEAVE, HANDOVER_REFUSE, HANDOVER_FLOW, HANDOVER_BEGIN, HANDOVER_ENDED };
enum handover_what handover_pack(struct flow *flow, struct parcel *parcel);

/* A flow of the predecessor's. NULL, or why there is none (static). Takes over the parcel's descriptor. */
const char *handover_restore(struct tunnel *tunnel, struct parcel *parcel);
const char *handover_begin_again(struct tunnel *tunnel, const struct parcel *parcel);

#endif
