/* From a host and port, or a socket's path, to a connected socket. */
#ifndef HERMES_TUNNEL_DIAL_H
#define HERMES_TUNNEL_DIAL_H

#include <stdbool.h>

#include "workers/tunnel/resolve.h"
#include "workers/tunnel/tunnel.h"

struct dial;

/* Strings are copied. */
struct dial_target {
	const char *host;             /* name or address; NULL with unix_path */
	uint16_t port;
	const char *unix_path;
	bool hop;                     /* another node: it is asked often while the path to it is down (hop_watch.h) */
	bool udp;                     /* a datagram socket, set up by udp_setup() */
	uint32_t ttl_min, ttl_max;
	/* Whose allow_targets and deny_targets each address must pass; NULL: every address may be dialled. */
	const struct config_cluster *guard;
	struct generation *generation;   /* that guard belongs to; kept while dialling */
	/* Used where the name does not resolve any more; NULL: none. Copied. */
	const struct resolved *stale;
};

struct dial_result {
	int fd;                       /* connected, non-blocking; the callee's. -1: failed */
	union resolve_address address;   /* of the peer */
	enum flow_error error;
	const char *detail;           /* for people, lives for the call */
	const struct resolved *resolved;   /* what the name resolved to, or NULL; lives for the call */
};

/* Several addresses: families take turns, the next is tried when one fails or after 250 ms (RFC 8305, the core of it).
 * done() is called once, never inside this call; the dial is gone by then. No time limit of its own. */
struct dial *dial_new(struct tunnel *tunnel, const struct dial_target *target,
                      void (*done)(void *arg, const struct dial_result *result), void *arg);
void dial_cancel(struct dial *dial);   /* NULL is fine */

/* "192.0.2.7:8443", "[2001:db8::1]:443", "unix". out: at least 64 bytes. */
void dial_address_text(const struct sockaddr *address, char *out, size_t size);

#endif
