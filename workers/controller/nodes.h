/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes of the domain, as far as this controller knows: who is enrolled, who is heard of, what each runs. What several controllers
 * must share is in kv (node/NAME, state/NAME); when each was heard of last is remembered here too, since reports are not kept. */
#ifndef HERMES_CONTROLLER_NODES_H
#define HERMES_CONTROLLER_NODES_H

#include "workers/controller/controller.h"

#define NODES_NAME_MAX 63
#define NODES_REPORT_MAX (64u << 10)  /* bytes of a report's text */
#define NODES_AWAY 3                  /* report intervals without a word */
#define NODES_BUCKETS 12

enum node_status {
	NODE_EXPECTED,                /* a document names it; it was never enrolled */
	NODE_UNKNOWN,                 /* enrolled; not heard of since this controller started */
	NODE_ONLINE, NODE_AWAY, NODE_REVOKED, NODE_STATUS_COUNT
};
extern const char *const node_status_names[NODE_STATUS_COUNT];

/* How long it took from a wish (want/NAME) to the node's word that it runs it. */
struct nodes_latency {
	uint64_t counts[NODES_BUCKETS + 1], n;        /* the last: above all limits */
	double seconds;
};
extern const double nodes_bucket_limits[NODES_BUCKETS];      /* seconds */

struct nodes_counts {
	uint64_t status[NODE_STATUS_COUNT];
	uint64_t reports, reports_kept;
	uint64_t rejected, rolled_back;               /* nodes whose last report says so */
	struct nodes_latency latency;
};

struct nodes *nodes_new(struct controller *controller, struct event_base *base);
/* kv is ready. The controller's own node is entered where it is not yet. */
void nodes_start(struct nodes *nodes);
void nodes_free(struct nodes *nodes);

/* Letters, digits and "-_." after a letter or digit; at most NODES_NAME_MAX. */
bool nodes_name_ok(const char *name);
/* ms between reports that nodes are asked for. */
uint32_t nodes_report_ms(const struct nodes *nodes);

/* A node has been heard of (any request); one that is not entered is (its certificate says whose it is). */
void nodes_heard(struct nodes *nodes, const char *name);
/* NULL: kept; else what is wrong with it (static). */
const char *nodes_report(struct nodes *nodes, const char *name, json_t *report);

enum node_status nodes_status(struct nodes *nodes, const char *name);
/* For hermes-admin nodes list, show: NULL where nobody knows of it. */
json_t *nodes_json(struct nodes *nodes, const char *name, bool all);
json_t *nodes_list(struct nodes *nodes);
void nodes_count(struct nodes *nodes, struct nodes_counts *out);

#endif
