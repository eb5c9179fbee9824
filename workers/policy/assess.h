/* Whether a request is allowed, and which headers are added: a pure function of the configuration, the request and what
 * external authorizers answered so far.
 *
 * Every policy whose match holds is asked, in the document's order; one deny is enough. In a policy the first rule that
 * matches decides; where none does, its default. An authorizer is asked about what these allow, and can only take away;
 * a policy with an authorizer and no rules leaves everything to it. A request that no policy governs is allowed: the
 * routes decide. Policies do not see what others add, so that their order never changes a verdict; the
 * headers added are for the routes and for the next hop. Of two policies that add the same name the later one wins.
 *
 * A policy in which `ip:` stands, in its match or in a rule's, governs packets inside tunnels and nothing else; one without
 * governs requests and tunnels: having been asked when a tunnel began it is not asked about the packets in it. A packet that no
 * policy governs is allowed. Headers cannot be added to a packet. */
#ifndef HERMES_POLICY_ASSESS_H
#define HERMES_POLICY_ASSESS_H

#include "store/match.h"
#include "store/trace.h"

#define ASSESS_HEADERS_MAX 256    /* added in all */
#define ASSESS_POLICIES_MAX 256   /* named in a verdict; further ones are asked all the same */
#define ASSESS_FOREVER UINT32_MAX

/* What the authorizer of `policy` said. Owned by whoever asks assess(). */
struct assess_answer {
	const char *policy;
	bool allowed;
	const char *failed;              /* why there is no answer ("timeout"), or NULL */
	const struct match_header *headers; size_t n_headers;
	uint32_t valid_ms;               /* 0: must not be kept */
	const struct assess_answer *next;
};

/* Strings are the configuration's, the answers' or the verdict's own: no memory to free, valid as long as those are. */
struct assess_verdict {
	uint32_t status;                 /* 0: allowed */
	const char *error;               /* RFC 9209 2.3 */
	char detail[256];
	const char *policies[ASSESS_POLICIES_MAX]; size_t n_policies;
	struct match_header added[ASSESS_HEADERS_MAX]; size_t n_added;
	uint32_t valid_ms;               /* ASSESS_FOREVER: until the configuration changes */
	const struct config_policy *ask; /* ASSESS_ASK: whose authorizer must be asked first */
};

enum assess_step { ASSESS_DONE, ASSESS_ASK };
/* trace may be NULL. With ASSESS_ASK, ask the authorizer of verdict->ask and call again with its answer added. */
enum assess_step assess(const struct config *config, const struct match_input *input,
                        const struct assess_answer *answers, struct assess_verdict *verdict, struct trace *trace);

#endif
