/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/assess.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum verdict { ALLOW, DENY, UNKNOWN };

struct pass {
	const struct match_input *input;
	const struct assess_answer *answers;
	struct assess_verdict *out;
	struct trace *trace;
};

/* match_meets, which also bounds how long the verdict holds: a window that is closed now may open. */
static bool meets(struct pass *p, const struct config_match *match, char *why, size_t size)
{
	if (match->n_times) {
		int64_t seconds = match_holds_for(match, p->input->now);
		/* now is cut to whole seconds: the window may end up to 999 ms earlier than counted from our clock */
		if (seconds <= ASSESS_FOREVER / 1000) {
			uint32_t ms = (uint32_t)seconds * 1000 - 999;
			if (ms < p->out->valid_ms)
				p->out->valid_ms = ms;
		}
	}
	return match_meets(match, p->input, p->trace ? why : NULL, size);
}

__attribute__((format(printf, 3, 4))) static void deny(struct pass *p, const struct config_policy *policy,
                                                       const char *fmt, ...)
{
	struct assess_verdict *out = p->out;
	va_list list;
	int n = snprintf(out->detail, sizeof(out->detail), "policy %s: ", policy->name);

	if (n < 0 || (size_t)n >= sizeof(out->detail))
		n = sizeof(out->detail) - 1;
	va_start(list, fmt);
	vsnprintf(out->detail + n, sizeof(out->detail) - (size_t)n, fmt, list);
	va_end(list);
	out->status = 403;
	out->error = "http_request_denied";
	trace_add(p->trace, "%s: denied", out->detail);
}

/* Too many headers deny: what a policy demands must never silently be missing on the way. */
static bool add_header(struct assess_verdict *out, const char *name, const char *value)
{
	size_t i = 0;

	while (i < out->n_added && strcasecmp(out->added[i].name, name))
		i++;
	if (i == ASSESS_HEADERS_MAX)
		return false;
	out->added[i] = (struct match_header){ name, value };
	if (i == out->n_added)
		out->n_added++;
	return true;
}

static enum verdict too_many(struct pass *p, const struct config_policy *policy)
{
	deny(p, policy, "more than %d headers to add", ASSESS_HEADERS_MAX);
	return DENY;
}

static enum verdict ask_rules(struct pass *p, const struct config_policy *policy)
{
	char why[200];

	for (size_t i = 0; i < policy->n_rules; i++) {
		const struct config_rule *rule = &policy->rules[i];
		if (!meets(p, &rule->match, why, sizeof(why))) {
			trace_add(p->trace, "policy %s: rule %zu does not match: %s", policy->name, i + 1, why);
			continue;
		}
		if (!rule->allow) {
			deny(p, policy, "rule %zu denies", i + 1);
			return DENY;
		}
		trace_add(p->trace, "policy %s: rule %zu allows", policy->name, i + 1);
		for (size_t k = 0; k < rule->add_headers.n; k++) {
			const struct config_pair *h = &rule->add_headers.v[k];
			if (!add_header(p->out, h->name, h->value))
				return too_many(p, policy);
			trace_add(p->trace, "policy %s: adds %s: %s", policy->name, h->name, h->value);
		}
		return ALLOW;
	}
	return UNKNOWN;
}

static enum verdict use_answer(struct pass *p, const struct config_policy *policy, const struct assess_answer *answer)
{
	const struct config_authorizer *a = &policy->authorizer;

	if (answer->valid_ms < p->out->valid_ms)
		p->out->valid_ms = answer->valid_ms;
	if (answer->failed && a->fail_open) {
		trace_add(p->trace, "policy %s: authorizer %s: %s; fails open: allowed", policy->name, a->address,
		          answer->failed);
		return ALLOW;
	}
	if (answer->failed || !answer->allowed) {
		deny(p, policy, "authorizer %s: %s", a->address, answer->failed ? answer->failed : "refused");
		return DENY;
	}
	trace_add(p->trace, "policy %s: authorizer %s allows", policy->name, a->address);
	for (size_t i = 0; i < answer->n_headers; i++) {
		if (!add_header(p->out, answer->headers[i].name, answer->headers[i].value))
			return too_many(p, policy);
		/* its value may be a secret that only the authorizer knows; the document's own are shown above */
		trace_add(p->trace, "policy %s: adds %s (from the authorizer)", policy->name, answer->headers[i].name);
	}
	return ALLOW;
}

static enum verdict ask_authorizer(struct pass *p, const struct config_policy *policy)
{
	for (const struct assess_answer *a = p->answers; a; a = a->next)
		if (!strcmp(a->policy, policy->name))
			return use_answer(p, policy, a);
	p->out->ask = policy;
	return UNKNOWN;
}

/* The default; a policy that is nothing but an authorizer has none. */
static enum verdict ask_default(struct pass *p, const struct config_policy *policy)
{
	if (!policy->n_rules && policy->authorizer.address)
		return ALLOW;
	if (policy->default_allow) {
		trace_add(p->trace, "policy %s: no rule matches: allowed (default allow)", policy->name);
		return ALLOW;
	}
	deny(p, policy, "no rule allows (default deny)");
	return DENY;
}

static enum verdict ask_policy(struct pass *p, const struct config_policy *policy)
{
	enum verdict v = ask_rules(p, policy);

	if (v == UNKNOWN)
		v = ask_default(p, policy);
	return v == ALLOW && policy->authorizer.address ? ask_authorizer(p, policy) : v;
}

/* Whether the policy is about what is asked: a packet, or a request. */
static bool is_about(const struct config *config, const struct config_policy *policy, const struct match_input *input)
{
	bool packets = policy->match.ip.present;

	for (size_t i = 0; config->examines.ip && !packets && i < policy->n_rules; i++)
		packets = policy->rules[i].match.ip.present;
	return packets == input->ip.present;
}

enum assess_step assess(const struct config *config, const struct match_input *input,
                        const struct assess_answer *answers, struct assess_verdict *verdict, struct trace *trace)
{
	struct pass p = { input, answers, verdict, trace };
	char why[200];

	verdict->status = 0;
	verdict->error = NULL;
	verdict->detail[0] = 0;
	verdict->n_policies = verdict->n_added = 0;
	verdict->valid_ms = ASSESS_FOREVER;
	verdict->ask = NULL;
	for (size_t i = 0; i < config->n_policies; i++) {
		const struct config_policy *policy = &config->policies[i];
		if (!is_about(config, policy, input)) {
			trace_add(trace, "policy %s: not asked: it governs %s", policy->name,
			          input->ip.present ? "tunnels, not their packets" : "packets inside tunnels");
			continue;
		}
		if (!meets(&p, &policy->match, why, sizeof(why))) {
			trace_add(trace, "policy %s: not asked: %s", policy->name, why);
			continue;
		}
		if (verdict->n_policies < ASSESS_POLICIES_MAX)
			verdict->policies[verdict->n_policies++] = policy->name;
		switch (ask_policy(&p, policy)) {
		case ALLOW:
			break;
		case DENY:
			return ASSESS_DONE;
		case UNKNOWN:
			return ASSESS_ASK;
		}
	}
	if (!verdict->n_policies)
		trace_add(trace, "policies: none %s: allowed", !config->n_policies ? "configured" :
		          input->ip.present ? "governs this packet" : "governs this request");
	return ASSESS_DONE;
}
