/* SPDX-License-Identifier: Apache-2.0 */
/* Composes many nodes' configurations from the event loop, some milliseconds at a time: with thousands of nodes it takes a second, and
 * who polls is not to wait for that. */
#ifndef HERMES_CONTROLLER_SWEEP_H
#define HERMES_CONTROLLER_SWEEP_H

#include "workers/controller/compose.h"
#include "workers/controller/versions.h"

struct event_base;
struct sweep;

struct sweep_target { char *node; struct version *version; };

/* text: of that node by that version; NULL: it could not be composed (errors in the report that done gets, which ends with that call). A
 * node that its version does not name gets what compose_nothing() says. */
typedef void sweep_each(void *arg, const struct sweep_target *target, const char *text);
typedef void sweep_done(void *arg, struct config_report *report);

/* Takes over targets (malloc'd, names too) and their versions' references; inputs are read at once. done comes once, from the event loop;
 * the sweep is gone then. all: also what no node refers to is checked. NULL: out of memory, targets are freed. */
struct sweep *sweep_start(struct event_base *base, struct kv *kv, struct sweep_target *targets, size_t n, bool all, sweep_each *each,
                          sweep_done *done, void *arg);
/* Before done: ends it. */
void sweep_free(struct sweep *sweep);

#endif
