/* SPDX-License-Identifier: Apache-2.0 */
/* Each node's configuration out of the domain's document: defaults, its groups, its own; users that enter there with their address spaces
 * and policies; the clusters it refers to and no other; what maintenance (override/) and objectives (steer/) lay over it. The same input
 * gives the same bytes. A node's text does without what is the node's own: node.name, node.domain, identity's files. */
#ifndef HERMES_CONTROLLER_COMPOSE_H
#define HERMES_CONTROLLER_COMPOSE_H

#include "workers/controller/document.h"

#include <jansson.h>

struct kv;

/* What beside the document decides. Any may be NULL. */
struct compose_inputs {
	json_t *overrides;            /* node -> {"drained", "tunnel_workers", "roles": {"telemetry": false, ...}} */
	json_t *steer;                /* objective -> cluster */
	json_t *revoked;              /* entry of identity.revoked -> true */
};
struct kv_value;
/* What node/NAME adds to identity.revoked: NAME, or where the name has been given anew NAME@TIME. False: nothing. */
bool compose_revoked(const struct kv_value *node, char *entry, size_t size);
/* As kv has it now. */
void compose_inputs_read(struct kv *kv, struct compose_inputs *out);
void compose_inputs_free(struct compose_inputs *inputs);

/* Keeps document and inputs by reference: both must outlive it. What all nodes share is made here. NULL: errors in report. */
struct compose;
struct compose *compose_new(const struct document *document, const struct compose_inputs *inputs, struct config_report *report);
void compose_free(struct compose *compose);

/* The text of document->nodes[i], malloc'd, checked as the node will check it. NULL with errors in report: they name the document's
 * place, and the node. An error in what nodes share is reported for the first of them only. */
char *compose_node(struct compose *compose, size_t i, struct config_report *report);

/* Checks what no node refers to. */
void compose_check_rest(struct compose *compose, struct config_report *report);
/* Every node in turn, and the rest; texts are dropped. Whether there was no error. */
bool compose_check(struct compose *compose, struct config_report *report);

/* What a node that the document does not name is to run: nothing but whom not to believe. malloc'd. */
char *compose_nothing(const struct compose_inputs *inputs);

/* The cluster that an objective's traffic takes now. */
const char *compose_choice(const struct domain_objective *objective, const struct compose_inputs *inputs);
/* Name of a way's probe, as nodes report it. */
void compose_probe_name(const struct domain_objective *objective, const struct domain_way *way, char out[64]);
/* Whether the node measures for the objective. */
bool compose_measures(const struct document *document, const struct domain_objective *objective, const char *node);
/* Whether the user enters there. */
bool compose_enters(const struct document *document, const struct domain_user *user, const char *node);

#endif
