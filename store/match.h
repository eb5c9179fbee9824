/* Whether a request meets a match of the configuration, and why not. Used by policy and router. */
#ifndef HERMES_STORE_MATCH_H
#define HERMES_STORE_MATCH_H

#include "store/config.h"

/* What can be examined. Strings NULL where unknown; authority lower case, with port where the request gave one. */
struct match_input {
	const char *listener, *peer, *user, *method, *protocol, *scheme, *authority, *path;
	struct in6_addr source; bool has_source;
	const struct match_header { const char *name, *value; } *headers; size_t n_headers;
	/* looked up after the request's own, same rules: what policies added so far */
	const struct match_header *added; size_t n_added;
	int64_t now;              /* Unix seconds */
};

/* True when every condition holds. why (may be NULL) gets, on false, a phrase for people: "path is /b, wants prefix /a/". */
bool match_meets(const struct config_match *match, const struct match_input *input, char *why, size_t why_size);

/* Seconds until the truth of the match's time windows can change (INT64_MAX: never); 0 is never returned. */
int64_t match_holds_for(const struct config_match *match, int64_t now);

/* Case-insensitive compare of an authority with a pattern: "name" any port, "name:port", "*.suffix[:port]". */
bool match_authority(const char *pattern, const char *authority);

#endif
