/* SPDX-License-Identifier: Apache-2.0 */
/* A domain's document: what all its nodes are to be, in one YAML text (hermes-controller(7) has every key). Parsed and checked as far
 * as it can be without composing: unknown keys, references among its parts; compose.h checks what each node would get. */
#ifndef HERMES_CONTROLLER_DOCUMENT_H
#define HERMES_CONTROLLER_DOCUMENT_H

#include "store/config.h"
#include "store/config_schema.h"
#include "store/yaml_tree.h"

#define DOCUMENT_TEXT_MAX ((size_t)16 * 1024 * 1024)
#define DOCUMENT_MEMBERS_MAX 10000        /* nodes, and users */
#define DOCUMENT_OBJECTIVES_MAX 1000
#define DOCUMENT_WAYS_MAX 32              /* of an objective */

/* A number of nodes, or hundredths of a percent of them. */
struct domain_share { bool percent; uint32_t n; };
struct domain_shares { struct domain_share *v; size_t n; };

/* at: the YAML map that says it; config: its fragment of a node's configuration, or NULL. */
struct domain_group { char *name; const struct yaml_node *at, *config; };

struct domain_node {
	char *name;
	struct config_address address;    /* where its overlay listener is reached; text NULL: by nobody */
	struct config_strs groups;
	const struct yaml_node *at, *config, *labels;
};

struct domain_user {
	char *name, *password;
	struct config_strs nodes, groups; /* where he enters */
	const struct yaml_node *at, *space, *policies;   /* address_space {names, prefixes}; list of policies */
};

struct domain_cluster { char *name; const struct yaml_node *at; };

struct domain_way { char *cluster; struct config_pairs add_headers; const struct yaml_node *at; };

/* "user X to service Y under 100 ms for 30 s, else another of these ways, best measured first" */
struct domain_objective {
	char *name, *user;
	struct config_strs services;      /* names (a port: for probes only), or prefixes */
	char *target;                     /* HOST:PORT of the probes; NULL: the first service where it has a port, else the cluster itself */
	char *method;                     /* that probes ask about; NULL: CONNECT */
	uint32_t limit;                   /* ms; 0: none */
	struct domain_share loss;         /* percent; n 0: none */
	char *loss_text;
	uint32_t for_, hold, interval;    /* ms */
	uint32_t margin;                  /* percent */
	struct config_strs nodes;         /* that measure; none: those where the user enters */
	struct domain_way *ways; size_t n_ways;
	const struct yaml_node *at;
};

/* What stops a rollout: of the nodes moved, more than so many. */
struct domain_health {
	struct domain_share rejected, not_ready, silent;
	uint32_t restarts;                /* of one node's workers since it was moved; more than that is sick */
	struct domain_share probe_loss;   /* of one probe of a node moved; n 0: not looked at */
};

struct domain_rollout {
	bool staged;                      /* there is a `rollout` */
	struct config_strs canary;        /* names of nodes, or one number or share */
	struct config_strs steps;         /* as written */
	struct domain_share canary_share;
	struct domain_shares stages;      /* after the canaries; the last is 100 % */
	uint32_t wait, timeout;           /* ms */
	bool stay;                        /* on_stop: stay */
	struct domain_health health;
	struct { char *rejected, *not_ready, *silent, *probe_loss; } text;
};

struct document {
	char *name;                       /* what errors call it */
	char *domain;
	const struct yaml_node *root, *defaults;
	struct domain_group *groups; size_t n_groups;
	struct domain_node *nodes; size_t n_nodes;
	struct domain_user *users; size_t n_users;
	struct domain_cluster *clusters; size_t n_clusters;
	struct domain_objective *objectives; size_t n_objectives;
	struct domain_rollout rollout;
	struct config_arena *arena;       /* everything above and the tree */
	void *indexes[4];                 /* document_*(): sorted by name */
};

/* name: what errors call it. NULL with at least one error in report. domain: the one that it must be of; NULL: any. */
struct document *document_parse(const char *name, const char *text, size_t length, const char *domain,
                                struct config_report *report);
void document_free(struct document *document);

/* Position, or -1. */
ssize_t document_node(const struct document *document, const char *name);
ssize_t document_group(const struct document *document, const char *name);
ssize_t document_user(const struct document *document, const char *name);
ssize_t document_cluster(const struct document *document, const char *name);

/* Of `of` nodes, rounded up, at least one where n is not 0. */
size_t domain_share_of(struct domain_share share, size_t of);

/* document_schema.c */
extern const struct config_object domain_document;

#endif
