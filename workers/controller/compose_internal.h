/* SPDX-License-Identifier: Apache-2.0 */
/* compose.c and compose_parts.c. */
#ifndef HERMES_CONTROLLER_COMPOSE_INTERNAL_H
#define HERMES_CONTROLLER_COMPOSE_INTERNAL_H

#include "store/config_parser.h"
#include "workers/controller/compose.h"
#include "workers/controller/tree.h"

#define COMPOSE_ENTRIES_MAX ((size_t)4 * 1000 * 1000)   /* users times places where they enter */

/* What a user brings to every node where he enters; each NULL where there is nothing. */
struct user_part { const struct yaml_node *password, *space, *policies; };

struct compose {
	const struct document *d;
	const struct compose_inputs *in;
	struct config_arena *arena;              /* of what nodes share */
	struct config_zone_cache *zones;
	const struct yaml_node **clusters;       /* the domain's, endpoints resolved */
	unsigned *wanted, stamp;                 /* by cluster: referred to by the node whose stamp it is */
	struct user_part *users;
	size_t **entering, *n_entering;          /* by node: users */
	const struct yaml_node **bases;          /* by node: its groups over the defaults; nodes of the same groups share it */
	const struct yaml_node *revoked;         /* list of names, or NULL */
	json_t *reported;                        /* places with an error that has been told: "LINE:COLUMN" */
};

/* compose_parts.c. Errors go to p. */
void compose_make_parts(struct compose *c, struct config_parser *p);
/* A cluster with endpoints {node: NAME} has their addresses instead; else the cluster itself. */
const struct yaml_node *compose_resolve(struct compose *c, struct config_arena *arena, struct config_parser *p,
                                        const struct yaml_node *cluster);
/* The probe of one way. */
const struct yaml_node *compose_probe(struct config_arena *arena, const struct domain_objective *o, const struct domain_way *way);

#endif
