/* SPDX-License-Identifier: Apache-2.0 */
/* The domain's controllers, as config-sync sees them: versions come by a long poll, are verified and put to the supervisor
 * (CONFIG_WANTED); what became of them, and how the node does, is reported; a change after which no controller can be reached is
 * taken back. Where `control:` names no controllers all of this does nothing. */
#ifndef HERMES_CONFIG_SYNC_CONTROL_H
#define HERMES_CONFIG_SYNC_CONTROL_H

#include "workers/config-sync/sync.h"

struct config;
struct control;

/* After sync_open(). NULL: out of memory. */
struct control *control_new(struct sync *sync);
void control_free(struct control *control);

/* worker.h's callbacks. config is taken over. */
void control_prepare(struct control *control, uint64_t generation, struct config *config);
void control_commit(struct control *control, uint64_t generation);
void control_abort(struct control *control, uint64_t generation);
void control_peer(struct control *control, enum ipc_role role, int fd);
/* CONFIG_STORE of a generation that is about to be in force: must be called before the store has it. */
void control_storing(struct control *control, uint64_t generation);
void control_dialed(struct control *control, const struct ipc_dialed *m, int *fd);
void control_outcome(struct control *control, const struct ipc_config_outcome *m);
/* The supervisor's answer to our "report". */
void control_gathered(struct control *control, const struct ipc_admin_reply *m, int fd);
/* "control status": answered by worker_reply(). */
void control_status(struct control *control, uint64_t id);

#endif
