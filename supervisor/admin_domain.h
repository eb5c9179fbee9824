/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of a domain, and how their answers look to people. */
#ifndef HERMES_SUPERVISOR_ADMIN_DOMAIN_H
#define HERMES_SUPERVISOR_ADMIN_DOMAIN_H

#include "supervisor/admin_verbs.h"

extern const struct admin_verb domain_verbs[];
extern const size_t n_domain_verbs;

int admin_enroll(const struct admin_call *call);              /* admin_enroll.c */
int admin_controller_init(const struct admin_call *call);     /* admin_init.c */

/* admin_domain_print.c */
void domain_print_dry_run(const json_t *document);
void domain_print_rollout(const json_t *document);
void domain_print_objective(const json_t *document);
void domain_print_node(const json_t *document);

#endif
