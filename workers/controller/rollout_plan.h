/* SPDX-License-Identifier: Apache-2.0 */
/* The record `rollout` of kv, which is all there is to a rollout:
 *
 *   {"version", "from", "before": {NODE: VERSION}, "state": "running"|"paused"|"done"|"stopped"|"aborted", "back": bool, "reason",
 *    "stages": [{"name", "nodes"}], "stage", "moved", "nodes": [NAME], "away": [NAME], "baseline": {NODE: restarts},
 *    "author", "comment", "started", "since", "settled", "ended"}
 *
 * nodes: those whose text changes, in the order in which they are moved; the first `moved` run `version`, and so do all that are not
 * listed. The others run what before says, else from. back: the moved ones too (rolled back). stages: how many are moved by the end of
 * each. away: those that were away when their stage began. since, settled: ms of Unix time when the stage began, and when all its nodes
 * had answered (0: not yet). */
#ifndef HERMES_CONTROLLER_ROLLOUT_PLAN_H
#define HERMES_CONTROLLER_ROLLOUT_PLAN_H

#include "workers/controller/document.h"

#include <jansson.h>

/* A new record for the version after what `record` (or NULL) says now. affected: list of names, which it does not take over. present:
 * whether a node reports at all; such go first as canaries where the document gives a number. at_once: one stage. */
json_t *rollout_plan(const json_t *record, const struct document *document, uint64_t version, const json_t *affected, bool at_once,
                     bool (*present)(void *arg, const char *node), void *arg, const char *author, const char *comment);

/* Which version each node is to run. */
struct rollout_view { const json_t *record; json_t *places; };
void rollout_view_init(struct rollout_view *view, const json_t *record);
void rollout_view_free(struct rollout_view *view);
/* 0: none yet. */
uint64_t rollout_version_of(const struct rollout_view *view, const char *node);

/* Numbers of documents that the record refers to, as a list. */
json_t *rollout_in_use(const json_t *record);

#endif
