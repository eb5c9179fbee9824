/* SPDX-License-Identifier: Apache-2.0 */
/* UDP and IP proxying over HTTP (RFC 9298, RFC 9484): the well-known templates, and what requests and responses must be.
 *
 * Inside Hermes such a request's head says: method CONNECT, protocol "connect-udp" or "connect-ip", scheme "https", path the
 * template filled in, and authority the *target* that the path names ("host:port"; "[v6]:port"; for IP: a name, an address, a
 * prefix "10.0.0.0/8" or "*"), so that policies, routes and address spaces match on it like on any other. The next hop's own
 * authority is put in when the head leaves by HTTP. HTTP/1.1 Upgrade is turned into that form and back, as for websocket. */
#ifndef HERMES_TUNNEL_MASQUE_H
#define HERMES_TUNNEL_MASQUE_H

#include "workers/tunnel/head.h"

bool masque_is_udp(const struct head *head);          /* protocol connect-udp */
bool masque_is_ip(const struct head *head);
static inline bool masque_is(const struct head *head) { return masque_is_udp(head) || masque_is_ip(head); }

/* A request that came in by HTTP with one of the two protocols: checks path, host, port (1 to 65535), ipproto ("*" or 0 to
 * 255; rewritten in its shortest form), percent-encoding (once), Content-Length etc., and sets authority to the target. Returns
 * 0, or the status to refuse with (400, 404 for another path) and *why. `Capsule-Protocol`: malformed, repeated or ?0 counts as
 * absent (RFC 9297 3.4); absent is accepted. */
unsigned masque_accept(struct head *request, const char **why);

/* A request of our own: fills in protocol, scheme, path, capsule-protocol from target ("host:port"). Returns the new head, or
 * NULL where target does not fit. */
struct head *masque_udp_request(const char *target);
/* target as above; ipproto 0 to 255, or -1: "*". */
struct head *masque_ip_request(const char *target, int ipproto);
/* The ipproto of an accepted connect-ip request, -1: all. */
int masque_ip_protocol(const struct head *request);

/* Whether a response opens the tunnel: 2xx (for HTTP/1.1 101, told as 200) but 204, 205, 206 (RFC 9297 3.2). *why else. */
bool masque_opens(const struct head *response, const char **why);
/* Our own 200: Capsule-Protocol: ?1, nothing else. */
struct head *masque_response(void);

#endif
