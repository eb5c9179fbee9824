/* SPDX-License-Identifier: Apache-2.0 */
/* Maintenance of single nodes, laid over what the document says: override/NAME {"drained", "tunnel_workers", "roles": {ROLE: bool}}. It
 * reaches the nodes at once, by no rollout. Drained: no other node's clusters lead there; what runs through it runs on. */
#ifndef HERMES_CONTROLLER_OVERRIDES_H
#define HERMES_CONTROLLER_OVERRIDES_H

#include "workers/controller/domain.h"

#define OVERRIDES_WORKERS_MAX 64

/* Changes override/NODE by key; value (taken over): NULL takes the key out. role: of "roles", else NULL. done: as of kv_commit(). */
void overrides_set(struct kv *kv, const char *node, const char *key, const char *role, json_t *value, kv_done *done, void *arg);
/* Whether a node can do without it. */
bool overrides_role_ok(const char *role);

#endif
