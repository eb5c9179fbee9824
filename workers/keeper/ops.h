/* SPDX-License-Identifier: Apache-2.0 */
/* What keeper does when it is asked (keeper.h lists the ops). */
#ifndef HERMES_KEEPER_OPS_H
#define HERMES_KEEPER_OPS_H

#include "ipc/messages.h"
#include "workers/keeper/keys.h"
#include "workers/keeper/pki.h"

struct ops {
	struct keys keys;
	char *domain, *node;          /* of the configuration in force; NULL before */
	char *pending;                /* the key that a request was made of and whose certificate has not come yet */
	bool changed;                 /* node.key and node.crt are others than before: to be told and reset by the caller */
};

/* text: what came with the request, NUL-terminated behind length. 0 with *answer malloc'd, or -1 with why. */
int ops_run(struct ops *ops, enum ipc_role asker, const char *op, const struct ipc_strs *args, const char *text, size_t length,
            char **answer, char why[static PKI_WHY]);
void ops_set_identity(struct ops *ops, const char *domain, const char *node);
void ops_close(struct ops *ops);
/* "90" (days) or "10s" (for tests); 0: neither. */
uint64_t ops_seconds(const char *days);

#endif
