/* SPDX-License-Identifier: Apache-2.0 */
/* The domain's part of the controller: what its documents ask for, in kv and on the nodes. */
#ifndef HERMES_CONTROLLER_DOMAIN_H
#define HERMES_CONTROLLER_DOMAIN_H

#include "workers/controller/controller.h"
#include "workers/controller/publish.h"
#include "workers/controller/versions.h"

struct proposal;

struct domain {
	struct controller *controller;
	struct versions *versions;
	struct publish *publish;
	struct rollout *rollout;
	struct objectives *objectives;
	struct proposal *proposals;   /* on trial */
	struct event *tick;
	json_t *revoked;              /* node -> entry of identity.revoked, as last composed with */
	bool leads, stopped;
	int64_t leads_since, grace;   /* ms: whoever begins to lead has to hear of the nodes first */
};

/* ms of Unix time. */
int64_t domain_now(void);

/* Whether this controller leads for so short that silence of a node says nothing yet. */
bool domain_is_fresh(const struct domain *domain);
/* Whether a node reports. */
bool domain_present(void *domain, const char *node);

#endif
