/* SPDX-License-Identifier: Apache-2.0 */
/* A new document on trial: parsed, composed for every node, compared with what they have; then, unless it is only a question, kept as the
 * newest version with a rollout of its own. */
#ifndef HERMES_CONTROLLER_PROPOSAL_H
#define HERMES_CONTROLLER_PROPOSAL_H

#include "workers/controller/domain.h"

struct proposal_request {
	const char *name;             /* what errors call the document */
	const char *text; size_t length;
	const char *author, *comment; /* comment may be NULL */
	bool dry_run;                 /* only what would change, with the differences */
	bool at_once;                 /* no stages */
	bool has_base; uint64_t base; /* of which version it is a change */
};
/* Takes over body: an answer of api.h. */
typedef void proposal_done(void *arg, unsigned status, json_t *body);

/* done once, from here or later. NULL: it was from here. Strings of the request are copied where they are needed longer. */
struct proposal;
struct proposal *proposal_start(struct domain *domain, const struct proposal_request *request, proposal_done *done, void *arg);
/* Nobody waits for the answer any more: what was begun goes on, done is not called. */
void proposal_forget(struct proposal *proposal);

/* At the end, once kv is gone: whoever waits for one is told so. */
void proposals_end(struct domain *domain);

/* {"error": {"code", "message", "details"}}; takes over details (may be NULL). */
json_t *proposal_error(const char *code, json_t *details, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
