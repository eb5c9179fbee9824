/* SPDX-License-Identifier: Apache-2.0 */
/* Rollouts in stages: canaries, then shares of the nodes, each stage only when the nodes moved so far have accepted and stayed healthy. The
 * record `rollout` (rollout_plan.h) is all there is to it; who leads moves it on, and publish.c follows. */
#ifndef HERMES_CONTROLLER_ROLLOUT_H
#define HERMES_CONTROLLER_ROLLOUT_H

#include "workers/controller/domain.h"

struct rollout;
struct rollout *rollout_new(struct domain *domain);
void rollout_free(struct rollout *rollout);

/* How it stands: the record, with "progress": {"accepted", "waiting", "away", "rejected": [{"node", "reason"}], ...}. NULL: there was none. */
json_t *rollout_json(struct domain *domain);

/* "pause", "resume", "abort" or "promote". error: 0; -EINVAL: there is no such action; -EPERM: not in this state; else as of kv_commit(). */
typedef void rollout_done(void *arg, int error);
void rollout_act(struct domain *domain, const char *action, rollout_done *done, void *arg);

/* --- how the nodes are that were moved (rollout_health.c) */

enum rollout_node { ROLLOUT_WAITING, ROLLOUT_ACCEPTED, ROLLOUT_REJECTED, ROLLOUT_AWAY };

struct rollout_verdict {
	size_t moved, accepted, waiting, not_ready, away, silent, rejected;   /* silent: away, and not from the stage's beginning */
	const char *first_waiting, *first_silent;     /* the record's */
	bool stop;
	char reason[400];                     /* why to stop */
	json_t *rejections;                   /* [{"node", "reason"}]; the caller's */
};
void rollout_assess(const json_t *record, const struct domain_rollout *rules, struct kv *kv,
                    bool (*present)(void *arg, const char *node), void *arg, struct rollout_verdict *out);
/* Restarts of all workers that the node's report counts; -1: it has none. */
long long rollout_restarts(const json_t *report);
/* Fills away and baseline of nodes[from..to) into the record. */
void rollout_begin_stage(json_t *record, size_t from, size_t to, struct kv *kv, bool (*present)(void *arg, const char *node), void *arg);

#endif
