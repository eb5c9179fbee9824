/* SPDX-License-Identifier: Apache-2.0 */
/* Brings want/NODE in line with what each node is to run: composed by the version that the rollout gives it, numbered, signed, written.
 * A text that has not changed is not written again. What there is to do follows from kv alone, so that whoever leads next goes on. */
#ifndef HERMES_CONTROLLER_PUBLISH_H
#define HERMES_CONTROLLER_PUBLISH_H

#include "workers/controller/controller.h"
#include "workers/controller/versions.h"

struct publish;
struct publish *publish_new(struct controller *controller, struct versions *versions);
/* Nothing is begun any more. */
void publish_stop(struct publish *publish);
void publish_free(struct publish *publish);

/* Something that the node's configuration follows from has changed: soon, and once for several calls. reason: for histories, where the
 * version stays the same; kept by nodes' want. */
void publish_node(struct publish *publish, const char *node, const char *reason);
void publish_all(struct publish *publish, const char *reason);

/* {"busy", "errors": [...], "written", "number"} */
json_t *publish_status(const struct publish *publish);

#endif
