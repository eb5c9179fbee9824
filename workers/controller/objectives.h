/* SPDX-License-Identifier: Apache-2.0 */
/* Objectives: what users are to get, measured by their nodes' probes. Where the present way misses it for long enough, the best measured
 * other is taken: steer/NAME says which, and why. */
#ifndef HERMES_CONTROLLER_OBJECTIVES_H
#define HERMES_CONTROLLER_OBJECTIVES_H

#include "workers/controller/domain.h"

struct objectives;
struct objectives *objectives_new(struct domain *domain);
void objectives_free(struct objectives *objectives);

/* {"objectives": [...]}, or one in full; NULL: there is none of that name. */
json_t *objectives_json(struct domain *domain, const char *name);

/* --- the decision (objectives_decide.c) */

/* How a way is now, as seen by the worst of the nodes that measure. */
struct way_measure { bool known; uint32_t rtt_us; uint32_t loss; };   /* loss: hundredths of a percent */

struct objective_memory { int64_t violated_since; };  /* ms; 0: it is kept */
struct objective_choice { size_t way; bool changed; char reason[240]; };

/* Whether a way keeps the objective. */
bool objective_met(const struct domain_objective *o, const struct way_measure *m);
/* ms that the present choice must stay: hold, doubled for each move of the last hour that came soon after the one before. */
int64_t objective_hold(const struct domain_objective *o, const json_t *moves, int64_t now);
/* present: index of the way taken now; moves: times (ms) of the moves so far, oldest first. */
struct objective_choice objective_decide(const struct domain_objective *o, const struct way_measure *measures, size_t present,
                                         const json_t *moves, struct objective_memory *memory, int64_t now);

#endif
