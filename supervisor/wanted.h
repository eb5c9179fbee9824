/* SPDX-License-Identifier: Apache-2.0 */
/* What config-sync asks of us: changes that it has from the controller or goes back to, and what it reports of the node. */
#ifndef HERMES_SUPERVISOR_WANTED_H
#define HERMES_SUPERVISOR_WANTED_H

#include "supervisor/child.h"

struct wanted;
struct wanted *wanted_new(struct supervisor *s);
/* Before change_free(). */
void wanted_free(struct wanted *wanted);
/* Answered by CONFIG_OUTCOME, when the change is in force or refused. */
void wanted_change(struct wanted *wanted, struct child *child, const struct ipc_config_wanted *m);
/* The verb "report": answered by ADMIN_REPLY with one object: generation, hermes, uptime_seconds, ready, workers, probes, clusters,
 * traffic, load (report.c). */
void wanted_report(struct wanted *wanted, struct child *child, const struct ipc_admin_request *m);

#endif
