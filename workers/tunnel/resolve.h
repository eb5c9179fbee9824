/* Names to addresses without blocking (c-ares), cached by their TTL within bounds. */
#ifndef HERMES_TUNNEL_RESOLVE_H
#define HERMES_TUNNEL_RESOLVE_H

#include <sys/socket.h>

#include "workers/tunnel/leg.h"
#include "workers/tunnel/resolve_address.h"
#include "workers/tunnel/tunnel.h"

struct resolver;
struct resolve_query;

#define RESOLVE_ADDRESSES 8
struct resolved {
	union resolve_address v[RESOLVE_ADDRESSES];   /* ports 0 */
	unsigned n;
	uint32_t ttl;                 /* seconds left */
};

/* Servers come from resolv.conf's text and names from hosts' (FILE messages; tunnel may open neither). */
struct resolver *resolver_new(struct event_base *base);
/* No done() is called any more. */
void resolver_free(struct resolver *resolver);
/* What is under way is asked again of the new servers. */
void resolver_set_resolv_conf(struct resolver *resolver, const char *text);
void resolver_set_hosts(struct resolver *resolver, const char *text);

/* IP literals (strict dotted quad, IPv6) and cached names are answered at once: returns NULL with *now filled (n > 0).
 * Otherwise done(arg, addresses or NULL, error) is called later, never inside the call. */
struct resolve_query *resolve(struct resolver *resolver, const char *host, uint32_t ttl_min, uint32_t ttl_max,
                              struct resolved *now,
                              void (*done)(void *arg, const struct resolved *resolved, enum flow_error error), void *arg);
void resolve_cancel(struct resolve_query *query);
/* Why the answer that done() is being told of is a failure, for people; static text, only inside done(). */
const char *resolve_reason(const struct resolver *resolver);

#endif
