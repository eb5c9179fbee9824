/* SPDX-License-Identifier: Apache-2.0 */
/* The controller of a domain: what its parts share.
 *
 *   api.c        HTTP on controller.sock (libevent's evhttp), who asks, and which handler answers
 *   api_nodes.c  what nodes ask for: configuration (long poll), reports, certificates, enrolment; tokens, revocation
 *   nodes.c      the nodes: certificates, reports, what each runs
 *   api_domain.c documents, versions, dry run, rollout, overrides, objectives for operators
 *   document.c   a domain's document: parsed and checked      compose.c   each node's configuration out of it
 *   publish.c    composed, signed, written to want/NODE       rollout.c   in stages, with a stop
 *   objectives.c measures, decides, steers
 *   kv*.c        where all that is kept
 *
 * Who asks: the connection's peer by SO_PEERCRED. The tunnel worker's (our own uid): a node, or nobody (enrolment), as the header
 * `hermes-peer: NAME` says, which the tunnel worker sets from the verified client certificate and removes from outside. Any other that
 * may open the socket (root, group hermes): an operator. */
#ifndef HERMES_CONTROLLER_CONTROLLER_H
#define HERMES_CONTROLLER_CONTROLLER_H

#include "ipc/worker.h"
#include "store/config.h"
#include "workers/controller/kv.h"

struct api;
struct nodes;
struct rollout;
struct objectives;
struct keeper_client;
struct domain;
struct polls;
struct enrolment;

struct controller {
	struct worker *worker;
	struct config *config;        /* of the generation in force */
	struct kv *kv;                /* NULL until the first commit */
	struct api *api;
	struct nodes *nodes;
	struct rollout *rollout;
	struct objectives *objectives;
	struct keeper_client *keeper;
	struct domain *domain;        /* domain_start() */
	struct polls *polls;          /* polls.c: nodes that wait for a configuration */
	struct enrolment *enrolment;  /* enrolment.c: tokens and certificates */
};

/* keeper_client.c: asks hermes-keeper. done once, error NULL when done; while the controller ends, too. */
typedef void keeper_done(void *arg, const char *text, const char *error);
void keeper_ask(struct keeper_client *keeper, const char *op, const char *const *args, size_t n_args, const char *text,
                size_t length, keeper_done *done, void *arg);

/* nodes.c, for publish.c, rollout.c, objectives.c: calls changed(arg, NAME) when a report of the node has come, it was enrolled,
 * revoked, or told what it runs. */
void nodes_watch(struct nodes *nodes, void (*changed)(void *arg, const char *name), void *arg);

/* The domain's part, begun when kv is ready: reads documents, puts rollout and objectives to work. */
void domain_start(struct controller *controller);
/* At the end: begins nothing any more (before kv goes), and is gone (after it). NULL is fine. */
void domain_stop(struct domain *domain);
void domain_free(struct domain *domain);

#endif
