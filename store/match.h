/* Whether a request meets a match of the configuration, and why not. Used by policy and router.
 *
 * All conditions that are given must hold; a condition that lists several values holds when one of them does; a
 * condition on something unknown (no user, no path) does not hold. "*" in a list of names stands for any known value.
 * Methods, users, identities, listeners, paths and header values compare exactly; protocols, schemes and authorities
 * without case. CONNECT-UDP and CONNECT-IP as a method mean extended CONNECT (or Upgrade) with that protocol; CONNECT means
 * every CONNECT.
 *
 * A match with `ip:` holds for packets inside tunnels only; one without says nothing about packets, and holds for a packet where
 * it holds for the tunnel that the packet travels in. (Which policies are asked about packets at all: workers/policy/assess.h.)
 * Addresses and protocol are those of the flow's first packet, and port is the destination's; a packet without ports (ICMP)
 * meets no condition on one.
 *
 * Paths are compared as they came: no percent-decoding and no removal of dot segments, since the next hop gets them
 * unchanged and whoever serves them decides what "%2F" means. An exact path is compared without the query, unless the
 * rule itself has one. */
#ifndef HERMES_STORE_MATCH_H
#define HERMES_STORE_MATCH_H

#include "store/config.h"

/* What can be examined. Strings NULL where unknown; authority lower case, with port where the request gave one. */
struct match_input {
	const char *listener, *peer, *user, *method, *protocol, *scheme, *authority, *path;
	struct in6_addr source; bool has_source;
	const struct match_header { const char *name, *value; } *headers; size_t n_headers;
	/* What policies added so far: as on the wire, an added header replaces the request's own of that name. */
	const struct match_header *added; size_t n_added;
	int64_t now;              /* Unix seconds */
	/* A packet inside the tunnel that the rest describes; present: false where the tunnel (or any request) itself is meant. */
	struct match_packet { bool present; uint8_t protocol; uint16_t port; struct in6_addr source, destination; } ip;
};

/* True when every condition holds. why (may be NULL) gets, on false, a phrase for people: "path is /b, wants /a/...". */
bool match_meets(const struct config_match *match, const struct match_input *input, char *why, size_t why_size);

/* Seconds until the truth of the match's time windows can change (INT64_MAX: never); 0 is never returned. */
int64_t match_holds_for(const struct config_match *match, int64_t now);
/* Whether `now` lies in the window. */
bool match_window(const struct config_window *window, int64_t now);

/* Case-insensitive compare of an authority with a pattern: "name" any port, "name:port", "*.suffix[:port]", "*".
 * One trailing dot of a name is ignored, IPv6 literals compare by value. No default port is assumed: "name:80" does not
 * meet the authority "name". */
bool match_authority(const char *pattern, const char *authority);

/* An authority's host in the form in which two spellings are equal: lower case, no port, no brackets, no trailing dot,
 * IPv6 literals (and prefixes of them, which CONNECT-IP asks for) as inet_ntop writes them. *port: -1 where none (or none
 * readable) is given. Returns the host's length, or -1 when it is empty, not readable or does not fit. */
#define MATCH_HOST_MAX 264
int match_host(const char *authority, char host[MATCH_HOST_MAX], int *port);
/* The address that a host from match_host() is, IPv4 as IPv4-mapped; false for names. Also reads a question's addresses. */
bool match_address(const char *host, struct in6_addr *address);

/* The packet of a question (its fields of those names). False: it says that it is about a packet, but what it says is none. */
bool match_packet(struct match_packet *out, bool inner, uint32_t protocol, const char *source, const char *destination,
                  uint32_t port);

#endif
