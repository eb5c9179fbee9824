/* SPDX-License-Identifier: Apache-2.0 */
/* Fields are only ever appended to an object: neighbouring releases read each other's packed form. */
#include "store/config_schema.h"

#define AT(type, member) .offset = offsetof(struct type, member)
#define LIST(type, member, of) .storage = S_LIST, AT(type, member), .count_offset = offsetof(struct type, n_##member), .object = &of
#define OBJECT(id, label, type, ...)                                                                                  \
	const struct config_object id = {.name = label, .size = sizeof(struct type), .fields = id##_fields,             \
	                                 .n_fields = sizeof(id##_fields) / sizeof(*id##_fields), ##__VA_ARGS__}
#define FIELDS(id) static const struct config_field id##_fields[]
#define NAMES(...) .names = (const char *const[]){__VA_ARGS__, NULL}
#define KiB 1024ull
#define MiB (1024ull * KiB)
#define SECOND 1000ull
#define DAY (86400 * SECOND)

_Static_assert(sizeof(enum config_accept) == sizeof(uint32_t), "enums are stored as S_U32");

/* --- small parts ---------------------------------------------------------------------------------------------------- */

FIELDS(tls) = {
	{NULL, S_BOOL, W_NONE, AT(config_tls, enabled)},
	{NULL, S_BOOL, W_NONE, AT(config_tls, off)},
	{"certificate", S_STR, W_TEXT, AT(config_tls, certificate),
	 .doc = "PEM file with the certificate and its chain; without it the node's identity is shown."},
	{"key", S_STR, W_TEXT, AT(config_tls, key), .doc = "PEM file with the certificate's private key."},
	{"authorities", S_STRS, W_SOME, AT(config_tls, authorities),
	 .doc = "PEM files with the certificates to believe. On a listener for programs: asks for client certificates."},
	{"crl", S_STR, W_TEXT, AT(config_tls, crl), .doc = "PEM file with revoked certificates."},
	{"server_name", S_STR, W_TEXT, AT(config_tls, server_name),
	 .doc = "Clusters: the name that is sent and that the certificate must bear; else the endpoint's own name. "
	        "hermes://DOMAIN/node/NAME[,NAME...]: one of these nodes; NAME *: any."},
	{"require", S_BOOL, W_BOOL, AT(config_tls, require), .preset = "false",
	 .doc = "Listeners for programs: refuse clients without a certificate."},
	{"identity", S_BOOL, W_NOT, AT(config_tls, no_identity), .preset = "true",
	 .doc = "Clusters: false shows no certificate (plain HTTPS to a service)."},
	{"min_version", S_U32, W_ENUM, AT(config_tls, min_version), NAMES("1.2", "1.3", "auto"), .preset = "auto",
	 .doc = "Oldest TLS spoken. auto: 1.3 between nodes (overlay listeners, clusters with the node's identity), else 1.2."},
};
static OBJECT(tls, "tls", config_tls);

FIELDS(limits) = {
	{"connections", S_U32, W_INT, AT(config_limits, connections), .min = 1, .max = 1000000, .preset = "16384",
	 .doc = "Open connections, per tunnel worker; further ones are closed at once."},
	{"streams", S_U32, W_INT, AT(config_limits, streams), .max = 100000, .preset = "0",
	 .doc = "Concurrent streams of an HTTP/2 connection. 0: 1000 at an overlay listener, 100 elsewhere."},
	{"header_bytes", S_U32, W_SIZE, AT(config_limits, header_bytes), .min = 1 * KiB, .max = 1 * MiB, .preset = "64KiB",
	 .doc = "Size of a request's head; larger ones are answered 431."},
	{"header_timeout", S_U32, W_DURATION, AT(config_limits, header_timeout), .min = 100, .max = DAY, .preset = "10s",
	 .doc = "Time for a request's head to arrive."},
	{"handshake_timeout", S_U32, W_DURATION, AT(config_limits, handshake_timeout), .min = 100, .max = DAY, .preset = "10s",
	 .doc = "Time for a TLS or SOCKS handshake."},
	{"idle_timeout", S_U32, W_DURATION, AT(config_limits, idle_timeout), .max = DAY, .preset = "5m",
	 .doc = "A connection without flows is closed after this. 0: never."},
	{"abuse_events", S_U32, W_INT, AT(config_limits, abuse_events), .min = 10, .max = 1000000, .preset = "1000",
	 .doc = "Resets, SETTINGS, PING, empty frames etc. per 10 seconds before an HTTP/2 connection is ended."},
	{"flows", S_U32, W_INT, AT(config_limits, flows), .min = 1, .max = 16777216, .preset = "65536",
	 .doc = "accept udp, socks5, transparent: UDP flows per tunnel worker; datagrams of further ones are dropped."},
};
static OBJECT(limits, "limits", config_limits);

FIELDS(peer) = {
	{"node", S_STR, W_TEXT, AT(config_peer, node), .doc = "Name of a node, or * for any."},
	{"domain", S_STR, W_TEXT, AT(config_peer, domain), .doc = "Domain of the node; without it the own domain."},
	{"dns", S_STR, W_TEXT, AT(config_peer, dns), .doc = "DNS name in the peer's certificate, instead of node and domain."},
	{"users", S_STRS, W_SPEAKS, AT(config_peer, users), .doc = "Users that it may speak for. Without it, or with *: any."},
	{"headers", S_STRS, W_SPEAKS, AT(config_peer, headers),
	 .doc = "The overlay's headers that it may set. Without it, or with *: any."},
	{NULL, S_BOOL, W_NONE, AT(config_peer, any_user)},
	{NULL, S_BOOL, W_NONE, AT(config_peer, any_header)},
};
static OBJECT(peer, "peer", config_peer);

FIELDS(retry) = {
	{"on", S_U32, W_WORDS, AT(config_retry, on), NAMES("connect-failure", "refused-stream", "reset", "gateway-error"),
	 .doc = "Failures after which another attempt is made: connect-failure, refused-stream, reset, gateway-error."},
	{"attempts", S_U32, W_INT, AT(config_retry, attempts), .min = 1, .max = 10, .preset = "1",
	 .doc = "Attempts in all; 1: no retry."},
	{"per_try_timeout", S_U32, W_DURATION, AT(config_retry, per_try_timeout), .max = DAY, .preset = "0s",
	 .doc = "Time for one attempt's response to begin. 0: no limit."},
};
static OBJECT(retry, "retry", config_retry);

FIELDS(timeout) = {
	{"request", S_U32, W_DURATION, AT(config_timeout, request), .max = DAY, .preset = "0s",
	 .doc = "Time for the whole request, all attempts. 0: no limit."},
	{"idle", S_U32, W_DURATION, AT(config_timeout, idle), .max = DAY, .preset = "5m",
	 .doc = "A flow on which nothing moves ends after this; not an IP tunnel. 0: never."},
};
static OBJECT(timeout, "timeout", config_timeout);

/* --- match ---------------------------------------------------------------------------------------------------------- */

FIELDS(string_match) = {
	{"exact", S_STR, W_TEXT, AT(config_string_match, exact), .doc = "The whole value."},
	{"prefix", S_STR, W_TEXT, AT(config_string_match, prefix), .doc = "How the value begins."},
	{"present", S_BOOL, W_BOOL, AT(config_string_match, present), .doc = "true: there is one, whatever its value."},
	{"absent", S_BOOL, W_BOOL, AT(config_string_match, absent), .doc = "true: there is none."},
};
static OBJECT(string_match, "condition", config_string_match);

FIELDS(header_match) = {
	{NULL, S_STR, W_NONE, AT(config_header_match, name), .flags = F_ALWAYS},
	{NULL, S_OBJECT, W_NONE, AT(config_header_match, match), .object = &string_match},
};
static OBJECT(header_match, "header condition", config_header_match);

FIELDS(window) = {
	{NULL, S_U8, W_NONE, AT(config_window, days)},
	{NULL, S_U16, W_NONE, AT(config_window, from)},
	{NULL, S_U16, W_NONE, AT(config_window, to)},
	{NULL, S_STR, W_NONE, AT(config_window, zone)},
	{NULL, S_STR, W_NONE, AT(config_window, text)},
	{NULL, S_OFFSETS, W_NONE, AT(config_window, offsets), .count_offset = offsetof(struct config_window, n_offsets)},
};
static OBJECT(window, "time window", config_window);

FIELDS(ip_match) = {
	{NULL, S_BOOL, W_NONE, AT(config_ip_match, present)},
	{"protocol", S_U8, W_PROTOCOL, AT(config_ip_match, protocol), .doc = "tcp, udp, icmp, icmpv6, sctp or a number."},
	{"source", S_PREFIXES, W_PREFIXES, AT(config_ip_match, source), .doc = "Prefixes of the packet's source."},
	{"destination", S_PREFIXES, W_PREFIXES, AT(config_ip_match, destination),
	 .doc = "Prefixes of the packet's destination."},
	{"port", S_NONE, W_PORTS, AT(config_ip_match, port_low), .count_offset = offsetof(struct config_ip_match, port_high),
	 .doc = "Destination port, or a range: 8000-8999."},
	{NULL, S_U16, W_NONE, AT(config_ip_match, port_low)},
	{NULL, S_U16, W_NONE, AT(config_ip_match, port_high)},
};
static OBJECT(ip_match, "ip condition", config_ip_match, .absent_is_zero = true);

FIELDS(config_match_object) = {
	{"method", S_STRS, W_SOME, AT(config_match, methods),
	 .doc = "Request methods; CONNECT-UDP and CONNECT-IP stand for extended CONNECT with that protocol."},
	{"listener", S_STRS, W_SOME, AT(config_match, listeners), .doc = "Names of listeners."},
	{"user", S_STRS, W_SOME, AT(config_match, users), .doc = "Users; * for any known one."},
	{"identity", S_STRS, W_SOME, AT(config_match, identities), .doc = "Nodes that the peer's certificate names."},
	{"protocol", S_STRS, W_LOWER, AT(config_match, protocols), .doc = "The :protocol of an extended CONNECT."},
	{"scheme", S_STRS, W_LOWER, AT(config_match, schemes), .doc = "http or https."},
	{"authority", S_STRS, W_LOWER, AT(config_match, authorities),
	 .doc = "NAME (any port), NAME:PORT or *.SUFFIX; compared without case."},
	{"path", S_LIST, W_PATHS, AT(config_match, paths), .count_offset = offsetof(struct config_match, n_paths),
	 .object = &string_match, .doc = "A path that ends in / is a prefix, others are exact; or {exact: } or {prefix: }."},
	{"headers", S_LIST, W_HEADER_MATCHES, AT(config_match, headers),
	 .count_offset = offsetof(struct config_match, n_headers), .object = &header_match,
	 .doc = "Header names with a value, or {exact: }, {prefix: }, {present: true}, {absent: true}. All must hold."},
	{"source", S_PREFIXES, W_PREFIXES, AT(config_match, sources), .doc = "Prefixes of the client's address."},
	{"time", S_LIST, W_TIMES, AT(config_match, times), .count_offset = offsetof(struct config_match, n_times),
	 .object = &window, .doc = "Windows such as \"Mon-Fri 08:00-18:00 Europe/Warsaw\"."},
	{"ip", S_OBJECT, W_OBJECT, AT(config_match, ip), .object = &ip_match,
	 .doc = "The inner flow, where packets enter or leave (a TUN device, carry ip); nothing else has one."},
};
OBJECT(config_match_object, "match", config_match);

/* --- listeners and clusters ------------------------------------------------------------------------------------------ */

FIELDS(capture) = {
	{"protocol", S_NONE, W_CAPTURED, .preset = "[tcp, udp]", .doc = "tcp, udp or both."},
	{NULL, S_BOOL, W_NONE, AT(config_capture, tcp)},
	{NULL, S_BOOL, W_NONE, AT(config_capture, udp)},
	{"destinations", S_PREFIXES, W_PREFIXES, AT(config_capture, destinations), .doc = "To these prefixes; without it to all."},
	{"exclude", S_PREFIXES, W_PREFIXES, AT(config_capture, exclude), .doc = "But not to these."},
	{"ports", S_NONE, W_PORTS, AT(config_capture, port_low), .count_offset = offsetof(struct config_capture, port_high),
	 .doc = "To this port, or range of ports: 8000-8999; without it to all."},
	{NULL, S_U16, W_NONE, AT(config_capture, port_low)},
	{NULL, S_U16, W_NONE, AT(config_capture, port_high)},
	{"local", S_BOOL, W_BOOL, AT(config_capture, local), .preset = "false",
	 .doc = "true: also what programs of this machine begin, other than Hermes itself."},
};
static OBJECT(capture, "capture", config_capture, .absent_is_zero = true);

FIELDS(listener) = {
	{"name", S_STR, W_NAME, AT(config_listener, name), .flags = F_REQUIRED, .doc = "Unique among the listeners."},
	{"address", S_ADDRESS, W_LISTEN, AT(config_listener, address), .flags = F_REQUIRED,
	 .doc = "ADDRESS:PORT, [V6]:PORT, :PORT (any address) or unix:/PATH."},
	{"accept", S_U32, W_ENUM, AT(config_listener, accept), .flags = F_REQUIRED,
	 NAMES("http", "tcp", "socks5", "overlay", "udp", "transparent"),
	 .doc = "What comes in: http, tcp, socks5, overlay, udp or transparent."},
	{"target", S_ADDRESS, W_TARGET, AT(config_listener, target), 
	 .doc = "accept tcp and udp: HOST:PORT that connections and datagrams lead to."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_listener, add_headers), .doc = "Headers to add to each request."},
	{"remove_headers", S_STRS, W_HEADERS, AT(config_listener, remove_headers), .doc = "Headers to take off each request."},
	{"trust_headers", S_BOOL, W_BOOL, AT(config_listener, trust_headers), .preset = "false",
	 .doc = "true: the overlay's own headers are not removed from what comes in."},
	{"require_user", S_BOOL, W_BOOL, AT(config_listener, require_user), .preset = "false",
	 .doc = "true: a request without a proven user is answered 407."},
	{"tls", S_OBJECT, W_TLS, AT(config_listener, tls), .object = &tls, .doc = "TLS towards clients; `off` on an overlay listener."},
	{"peers", LIST(config_listener, peers, peer), .form = W_OBJECTS,
	 .doc = "accept overlay: who may connect. Without it: nodes of the own domain, for any user."},
	{"limits", S_OBJECT, W_OBJECT, AT(config_listener, limits), .object = &limits, .doc = "Bounds on clients."},
	{"capture", S_OBJECT, W_OBJECT, AT(config_listener, capture), .object = &capture,
	 .doc = "accept transparent: what it takes; without it all TCP and UDP that passes through this machine."},
};
static OBJECT(listener, "listener", config_listener);

FIELDS(config_endpoint_object) = {
	{"address", S_ADDRESS, W_ADDRESS, AT(config_endpoint, address), .flags = F_REQUIRED,
	 .doc = "HOST:PORT or unix:/PATH; names are resolved, and again by their time to live."},
	{"weight", S_U32, W_INT, AT(config_endpoint, weight), .min = 1, .max = 1000, .preset = "1", .doc = "Share of the flows."},
};
OBJECT(config_endpoint_object, "endpoint", config_endpoint);

FIELDS(targets) = {
	{NULL, S_BOOL, W_NONE, AT(config_targets, loopback)},
	{NULL, S_BOOL, W_NONE, AT(config_targets, link_local)},
	{NULL, S_BOOL, W_NONE, AT(config_targets, private_)},
	{NULL, S_BOOL, W_NONE, AT(config_targets, any)},
	{NULL, S_PREFIXES, W_NONE, AT(config_targets, prefixes)},
};
static OBJECT(targets, "targets", config_targets);

FIELDS(health_check) = {
	{"path", S_STR, W_TEXT, AT(config_health_check, path), .doc = "Path to GET; without it a connection is enough."},
	{"authority", S_STR, W_TEXT, AT(config_health_check, authority), .doc = "Authority to ask for; else the endpoint's."},
	{"interval", S_U32, W_DURATION, AT(config_health_check, interval), .min = 100, .max = DAY, .preset = "5s",
	 .doc = "Between two checks. Without health_check there are none."},
	{"timeout", S_U32, W_DURATION, AT(config_health_check, timeout), .min = 10, .max = DAY, .preset = "2s",
	 .doc = "Time for a check to succeed."},
	{"healthy", S_U32, W_INT, AT(config_health_check, healthy), .min = 1, .max = 100, .preset = "2",
	 .doc = "Successes in a row that bring an endpoint back."},
	{"unhealthy", S_U32, W_INT, AT(config_health_check, unhealthy), .min = 1, .max = 100, .preset = "3",
	 .doc = "Failures in a row that take it out."},
	{"status", S_NONE, W_STATUS, AT(config_health_check, status_low),
	 .count_offset = offsetof(struct config_health_check, status_high), .preset = "200-399",
	 .doc = "HTTP status codes that count as success."},
	{NULL, S_U16, W_NONE, AT(config_health_check, status_low)},
	{NULL, S_U16, W_NONE, AT(config_health_check, status_high)},
};
static OBJECT(health_check, "health check", config_health_check, .absent_is_zero = true);

FIELDS(ejection) = {
	{"failures", S_U32, W_INT, AT(config_ejection, failures), .max = 1000, .preset = "5",
	 .doc = "Failures in a row, seen on real flows, that take an endpoint out. 0: off."},
	{"time", S_U32, W_DURATION, AT(config_ejection, time), .min = 100, .max = DAY, .preset = "30s", .doc = "For how long."},
	{"max_percent", S_U32, W_INT, AT(config_ejection, max_percent), .max = 100, .preset = "50",
	 .doc = "Share of a cluster's endpoints that may be out at once."},
};
static OBJECT(ejection, "ejection", config_ejection);

FIELDS(cluster) = {
	{"name", S_STR, W_NAME, AT(config_cluster, name), .flags = F_REQUIRED, .doc = "Unique among the clusters."},
	{"carry", S_U32, W_ENUM, AT(config_cluster, carry), .flags = F_REQUIRED, NAMES("h1", "h2", "h3", "tcp", "udp", "ip"),
	 .doc = "How traffic is carried: h1, h2, tcp, udp or ip (h3: not in this version)."},
	{"tls", S_OBJECT, W_TLS, AT(config_cluster, tls), .object = &tls, .doc = "TLS with the node's identity; without it plain."},
	{"endpoints", LIST(config_cluster, endpoints, config_endpoint_object), .form = W_ENDPOINTS,
	 .doc = "Next hops, each HOST:PORT or {address: , weight: }; or `target`: the address that the request names."},
	{NULL, S_BOOL, W_NONE, AT(config_cluster, target)},
	{"balance", S_U32, W_ENUM, AT(config_cluster, balance), NAMES("round_robin", "least_request", "hash"),
	 .preset = "round_robin", .doc = "How an endpoint is picked: round_robin, least_request or hash."},
	{"hash_header", S_STR, W_HEADER, AT(config_cluster, hash_header),
	 .doc = "balance hash: by this header; else by the client's address."},
	{"allow_targets", S_OBJECT, W_TARGETS, AT(config_cluster, allow_targets), .object = &targets,
	 .doc = "endpoints target: further ones than public addresses: loopback, link_local, private, any, or prefixes."},
	{"deny_targets", S_OBJECT, W_TARGETS, AT(config_cluster, deny_targets), .object = &targets,
	 .doc = "endpoints target: these never; the same words."},
	{"health_check", S_OBJECT, W_OBJECT, AT(config_cluster, health_check), .object = &health_check, .doc = "Active checks."},
	{"ejection", S_OBJECT, W_OBJECT, AT(config_cluster, ejection), .object = &ejection, .doc = "Passive checks."},
	{"connect_timeout", S_U32, W_DURATION, AT(config_cluster, connect_timeout), .min = 10, .max = DAY, .preset = "5s",
	 .doc = "Time for a new connection, with its TLS."},
	{"idle_timeout", S_U32, W_DURATION, AT(config_cluster, idle_timeout), .max = DAY, .preset = "90s",
	 .doc = "A pooled connection without flows is closed after this. 0: never."},
	{"max_connections", S_U32, W_INT, AT(config_cluster, max_connections), .max = 1000000, .preset = "0",
	 .doc = "Connections (carry udp: flows) per endpoint and tunnel worker. "
	        "0: 4 with h2, and 64 more for UDP and IP tunnels, 65536 with udp, 1024 elsewhere."},
	{"max_streams", S_U32, W_INT, AT(config_cluster, max_streams), .min = 1, .max = 100000, .preset = "1000",
	 .doc = "Streams of an HTTP/2 connection, below what the peer allows."},
	{"ttl_min", S_U32, W_SECONDS, AT(config_cluster, ttl_min), .min = SECOND, .max = 7 * DAY, .preset = "5s",
	 .doc = "A resolved name holds at least this long."},
	{"ttl_max", S_U32, W_SECONDS, AT(config_cluster, ttl_max), .min = SECOND, .max = 7 * DAY, .preset = "300s",
	 .doc = "A resolved name holds at most this long."},
	{"device", S_STR, W_NAME, AT(config_cluster, device),
	 .doc = "carry ip: the device of tunnels through which packets leave into this machine's own IP stack."},
	{"pool", S_PREFIXES, W_PREFIXES, AT(config_cluster, pool), .doc = "carry ip: addresses given to clients that ask."},
	{"advertise", S_PREFIXES, W_PREFIXES, AT(config_cluster, advertise),
	 .doc = "carry ip: the routes that clients are told, and beyond which nothing is let through; without it all."},
	{"nat", S_BOOL, W_BOOL, AT(config_cluster, nat), .preset = "false",
	 .doc = "carry ip: true: what leaves this machine bears its own address (source NAT)."},
};
static OBJECT(cluster, "cluster", config_cluster);

/* --- ways and decisions ---------------------------------------------------------------------------------------------- */

FIELDS(space_entry) = {
	{NULL, S_STR, W_NONE, AT(config_space_entry, name)},
	{NULL, S_PREFIX, W_NONE, AT(config_space_entry, prefix)},
	{NULL, S_STR, W_NONE, AT(config_space_entry, key), .flags = F_ALWAYS},
	{"cluster", S_STR, W_NAME, AT(config_space_entry, cluster), .flags = F_REQUIRED, .doc = "Where it leads."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_space_entry, add_headers), .doc = "Headers to add."},
	{"remove_headers", S_STRS, W_HEADERS, AT(config_space_entry, remove_headers), .doc = "Headers to take off."},
	{"retry", S_OBJECT, W_OBJECT, AT(config_space_entry, retry), .object = &retry, .doc = "As of a route."},
	{"timeout", S_OBJECT, W_OBJECT, AT(config_space_entry, timeout), .object = &timeout, .doc = "As of a route."},
};
static OBJECT(space_entry, "address space entry", config_space_entry);

FIELDS(space) = {
	{"name", S_STR, W_NAME, AT(config_space, name), .flags = F_REQUIRED, .doc = "Unique among the address spaces."},
	{"users", S_STRS, W_SOME, AT(config_space, users), .flags = F_REQUIRED,
	 .doc = "Whose space it is; * for everybody whom no other space names."},
	{"names", LIST(config_space, names, space_entry), .form = W_KEYED, .doc = "Names, without port, and where each leads."},
	{"prefixes", LIST(config_space, prefixes, space_entry), .form = W_KEYED,
	 .doc = "Address prefixes, and where each leads; the longest wins."},
};
static OBJECT(space, "address space", config_space);

FIELDS(route) = {
	{"name", S_STR, W_NAME, AT(config_route, name), .flags = F_ALWAYS, .doc = "Unique among the routes; without it routes[N], from 0."},
	{"match", S_OBJECT, W_OBJECT, AT(config_route, match), .object = &config_match_object,
	 .doc = "What it takes; without it everything."},
	{"cluster", S_STR, W_NAME, AT(config_route, cluster), .flags = F_REQUIRED, .doc = "Where it leads."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_route, add_headers), .doc = "Headers to add."},
	{"remove_headers", S_STRS, W_HEADERS, AT(config_route, remove_headers), .doc = "Headers to take off."},
	{"retry", S_OBJECT, W_OBJECT, AT(config_route, retry), .object = &retry, .doc = "When to try again."},
	{"timeout", S_OBJECT, W_OBJECT, AT(config_route, timeout), .object = &timeout, .doc = "How long it may take."},
	{"move", S_BOOL, W_BOOL, AT(config_route, move), .preset = "false",
	 .doc = "true: living byte flows follow a change of the route."},
};
static OBJECT(route, "route", config_route);

FIELDS(rule) = {
	{NULL, S_BOOL, W_NONE, AT(config_rule, allow)},
	{NULL, S_OBJECT, W_NONE, AT(config_rule, match), .object = &config_match_object},
	{"allow", S_NONE, W_ALLOW, AT(config_rule, match), .object = &config_match_object, .doc = "Allows what matches."},
	{"deny", S_NONE, W_DENY, AT(config_rule, match), .object = &config_match_object, .doc = "Denies what matches."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_rule, add_headers), .doc = "With allow: headers to add."},
};
static OBJECT(rule, "rule", config_rule);

FIELDS(authorizer) = {
	{"address", S_STR, W_TEXT, AT(config_authorizer, address), .flags = F_REQUIRED, .doc = "unix:/PATH or HOST:PORT."},
	{"path", S_STR, W_TEXT, AT(config_authorizer, path), .flags = F_REQUIRED,
	 .doc = "What to POST to (OPA's data API), for example /v1/data/hermes/allow."},
	{"timeout", S_U32, W_DURATION, AT(config_authorizer, timeout), .min = 1, .max = 60 * SECOND, .preset = "500ms",
	 .doc = "Time for its answer."},
	{"cache", S_U32, W_DURATION, AT(config_authorizer, cache), .max = DAY, .preset = "0s", .doc = "How long an answer holds."},
	{"fail", S_BOOL, W_FLAG, AT(config_authorizer, fail_open), NAMES("closed", "open"), .preset = "closed",
	 .doc = "What holds when it does not answer: closed denies, open allows."},
	{"headers", S_STRS, W_HEADERS, AT(config_authorizer, headers), .doc = "Those of the request that it is told; without it all."},
};
static OBJECT(authorizer, "authorizer", config_authorizer, .absent_is_zero = true);

FIELDS(policy) = {
	{"name", S_STR, W_NAME, AT(config_policy, name), .flags = F_REQUIRED, .doc = "Unique among the policies."},
	{"match", S_OBJECT, W_OBJECT, AT(config_policy, match), .object = &config_match_object,
	 .doc = "What it governs; without it everything."},
	{"default", S_BOOL, W_FLAG, AT(config_policy, default_allow), NAMES("deny", "allow"), .preset = "deny",
	 .doc = "What holds where no rule matches: deny or allow."},
	{"rules", LIST(config_policy, rules, rule), .form = W_OBJECTS, .doc = "The first that matches holds."},
	{"authorizer", S_OBJECT, W_OBJECT, AT(config_policy, authorizer), .object = &authorizer,
	 .doc = "A program to ask about what the rules allow."},
};
static OBJECT(policy, "policy", config_policy);

/* --- the rest -------------------------------------------------------------------------------------------------------- */

FIELDS(user) = {
	{"name", S_STR, W_TEXT, AT(config_user, name), .flags = F_REQUIRED, .doc = "Unique; without colons and control characters."},
	{"password", S_STR, W_SECRET, AT(config_user, password), .flags = F_REQUIRED,
	 .doc = "crypt(5) text, as mkpasswd writes it; never the password itself."},
};
static OBJECT(user, "user", config_user);

FIELDS(identity) = {
	{"certificate", S_STR, W_TEXT, AT(config_identity, certificate), .flags = F_REQUIRED,
	 .doc = "PEM file with the node's certificate and its chain."},
	{"key", S_STR, W_TEXT, AT(config_identity, key), .flags = F_REQUIRED, .doc = "PEM file with its private key."},
	{"authorities", S_STRS, W_SOME, AT(config_identity, authorities), .flags = F_REQUIRED,
	 .doc = "PEM files with the certificates that other nodes' must lead to."},
	{"crl", S_STR, W_TEXT, AT(config_identity, crl), .doc = "PEM file with revoked certificates."},
	{"revoked", S_STRS, W_STRINGS, AT(config_identity, revoked),
	 .doc = "Nodes of the own domain that are no longer believed, whatever certificate they show; NAME@TIME: certificates "
	         "of that name that begin before (Unix time), as it was given to another machine."},
};
static OBJECT(identity, "identity", config_identity);

FIELDS(network) = {
	{"prefix", S_PREFIX, W_PREFIX, AT(config_network, prefix), .flags = F_REQUIRED,
	 .doc = "Packets to these addresses enter the overlay; of several prefixes the longest holds."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_network, add_headers), .doc = "Headers to add to their tunnel's request."},
	{"over_udp", S_ADDRESS, W_TARGET, AT(config_network, over_udp),
	 .doc = "HOST:PORT: packets go there as payload of CONNECT-UDP, for far ends without CONNECT-IP."},
};
static OBJECT(network, "network", config_network);

FIELDS(tunnel) = {
	{"name", S_STR, W_NAME, AT(config_tunnel, name), .flags = F_REQUIRED, .doc = "Name of the TUN device, at most 15 bytes."},
	{"addresses", S_STRS, W_DEVICE_ADDRESSES, AT(config_tunnel, addresses),
	 .doc = "Addresses of the device, such as 10.8.0.2/32; or `assigned`: what the far end gives."},
	{NULL, S_BOOL, W_NONE, AT(config_tunnel, assigned)},
	{"mtu", S_U32, W_INT, AT(config_tunnel, mtu), .min = 1280, .max = 65535, .preset = "1500", .doc = "Its MTU, bytes."},
	{"queues", S_U32, W_INT, AT(config_tunnel, queues), .min = 1, .max = 8, .preset = "1",
	 .doc = "Its queues; one worker reads them all."},
	{"offload", S_BOOL, W_BOOL, AT(config_tunnel, offload), .preset = "true",
	 .doc = "Segmentation offload, where the kernel has it: packets of up to 64 KiB cross in one piece."},
	{"networks", LIST(config_tunnel, networks, network), .form = W_OBJECTS,
	 .doc = "Split tunnelling: only packets to these prefixes enter the overlay."},
	{"exclude", S_PREFIXES, W_PREFIXES, AT(config_tunnel, exclude), .doc = "Prefixes in networks that keep their way outside."},
	{"require_user", S_BOOL, W_BOOL, AT(config_tunnel, require_user), .preset = "false",
	 .doc = "true: every network must name its user in add_headers."},
};
static OBJECT(tunnel, "tunnel", config_tunnel);

FIELDS(access_log) = {
	{"to", S_STR, W_TEXT, AT(config_log, to), .flags = F_REQUIRED, .doc = "A file, stderr or journald."},
	{"format", S_BOOL, W_FLAG, AT(config_log, json), NAMES("text", "json"), .preset = "text", .doc = "text or json."},
	{"start", S_BOOL, W_BOOL, AT(config_log, start), .preset = "false", .doc = "true: a record also when a flow starts."},
};
static OBJECT(access_log, "access log", config_log);

FIELDS(metrics) = {
	{"address", S_ADDRESS, W_LISTEN, AT(config_telemetry, metrics), .flags = F_REQUIRED,
	 .doc = "Where OpenMetrics are served: ADDRESS:PORT or unix:/PATH."},
};
static OBJECT(metrics, "metrics", config_telemetry);

FIELDS(telemetry) = {
	{"metrics", S_GROUP, W_OBJECT, .object = &metrics, .doc = "Counters for Prometheus and its like."},
	{"access_log", LIST(config_telemetry, access_log, access_log), .form = W_OBJECTS, .doc = "A record per flow."},
};
static OBJECT(telemetry, "telemetry", config_telemetry);

FIELDS(admin) = {
	{"read", S_STRS, W_STRINGS, AT(config_admin, read), .doc = "Users, or group:NAME, who may look."},
	{"operate", S_STRS, W_STRINGS, AT(config_admin, operate), .doc = "Who may also drain, restart workers, set the log level."},
	{"administer", S_STRS, W_STRINGS, AT(config_admin, administer), .doc = "Who may do everything (root always may)."},
};
static OBJECT(admin, "admin", config_admin);

FIELDS(control) = {
	{"endpoints", LIST(config_control, endpoints, config_endpoint_object), .form = W_HOPS, .flags = F_REQUIRED,
	 .doc = "The domain's controllers, each HOST:PORT or {address: , weight: }."},
	{"key", S_STR, W_TEXT, AT(config_control, key), .flags = F_REQUIRED,
	 .doc = "The domain's public key, base64: nothing is believed that it has not signed."},
	{"confirm", S_U32, W_DURATION, AT(config_control, confirm), .min = 1 * SECOND, .max = DAY, .preset = "60s",
	 .doc = "A change after which no controller is reached for this long is rolled back."},
	{"report", S_U32, W_DURATION, AT(config_control, report), .min = 100, .max = DAY, .preset = "5s",
	 .doc = "Between two reports of the node's state."},
};
static OBJECT(control, "control", config_control, .absent_is_zero = true);

FIELDS(controller) = {
	{"address", S_ADDRESS, W_LISTEN, AT(config_controller, address), .flags = F_REQUIRED,
	 .doc = "Where nodes reach it: ADDRESS:PORT, [V6]:PORT or :PORT."},
	{NULL, S_BOOL, W_NONE, AT(config_controller, enabled)},
	{"etcd", S_STRS, W_SOME, AT(config_controller, etcd),
	 .doc = "Members of the etcd cluster that several controllers share, HOST:PORT or unix:/PATH; without it a store of its own."},
	{"prefix", S_STR, W_TEXT, AT(config_controller, prefix), .preset = "hermes/", .doc = "How its keys in etcd begin."},
	{"operators", S_STRS, W_STRINGS, AT(config_controller, operators),
	 .doc = "Nodes whose certificate opens the operators' interface over the network; without it only its Unix socket does."},
	{"certificate_days", S_U32, W_INT, AT(config_controller, certificate_days), .min = 1, .max = 3650, .preset = "30",
	 .doc = "Days for which a node's certificate holds; it is renewed well before."},
	{"token_lifetime", S_U32, W_DURATION, AT(config_controller, token_lifetime), .min = 1 * SECOND, .max = 30 * DAY, .preset = "1h",
	 .doc = "How long a token for enrolment holds, where none is asked for."},
};
static OBJECT(controller, "controller", config_controller, .absent_is_zero = true);

FIELDS(probe) = {
	{"name", S_STR, W_NAME, AT(config_probe, name), .flags = F_REQUIRED, .doc = "Unique among the probes."},
	{"cluster", S_STR, W_NAME, AT(config_probe, cluster), .doc = "The first step; without it as the routes say."},
	{"target", S_STR, W_TEXT, AT(config_probe, target),
	 .doc = "HOST:PORT to look towards, as far as the overlay leads (a service of HTTP answers itself); without it the cluster's "
	        "endpoints themselves."},
	{"method", S_STR, W_TEXT, AT(config_probe, method), .preset = "CONNECT",
	 .doc = "The method that is asked about: CONNECT, CONNECT-UDP, GET and so on."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(config_probe, add_headers), .doc = "Headers of what is asked about."},
	{"interval", S_U32, W_DURATION, AT(config_probe, interval), .min = 100, .max = DAY, .preset = "1s", .doc = "Between two probes."},
	{"timeout", S_U32, W_DURATION, AT(config_probe, timeout), .min = 10, .max = 60 * SECOND, .preset = "1s",
	 .doc = "One without an answer after this counts as lost."},
};
static OBJECT(probe, "probe", config_probe);

FIELDS(roles) = {
	{"tun_bridge", S_BOOL, W_FLAG, AT(config, tun_bridge_off), NAMES("on", "off"), .preset = "on",
	 .doc = "on or off: the process that makes TUN devices and captures traffic."},
	{"telemetry", S_BOOL, W_FLAG, AT(config, telemetry_off), NAMES("on", "off"), .preset = "on",
	 .doc = "on or off: the process that serves metrics and writes access logs."},
};
static OBJECT(roles, "roles", config);

FIELDS(log_level) = {
	{"level", S_STR, W_WORD, AT(config, log_level), NAMES("debug", "info", "warn", "error"), .preset = "info",
	 .doc = "debug, info, warn or error."},
};
static OBJECT(log_level, "log", config);

FIELDS(node) = {
	{"name", S_STR, W_NAME, AT(config, node_name), .flags = F_REQUIRED, .doc = "Unique in its domain."},
	{"domain", S_STR, W_NAME, AT(config, domain), .preset = "local", .doc = "The domain of nodes that believe each other."},
	{"tunnel_workers", S_U32, W_INT, AT(config, tunnel_workers), .max = 64, .preset = "0",
	 .doc = "Processes of the data path. 0: one per CPU, at most 8."},
	{"max_hops", S_U32, W_INT, AT(config, max_hops), .min = 1, .max = 255, .preset = "10",
	 .doc = "Hops of the overlay after which a request is taken to loop and answered 508."},
	{"memory", S_U64, W_SIZE, AT(config, memory), .min = 1 * MiB, .max = 1024 * 1024 * MiB, .preset = "256MiB",
	 .doc = "Payload that one tunnel worker may hold."},
	{"replay_bytes", S_U32, W_SIZE, AT(config, replay_bytes), .max = 64 * MiB, .preset = "64KiB",
	 .doc = "How much of a request's body is kept for a retry."},
	{"cache_entries", S_U32, W_INT, AT(config, cache_entries), .max = 16777216, .preset = "65536",
	 .doc = "Decisions that one tunnel worker remembers."},
	{"worker_rss", S_U32, W_MIB, AT(config, worker_rss), .max = 1024 * 1024 * MiB, .preset = "1024MiB",
	 .doc = "A worker whose memory grows above this is replaced. 0: never."},
	{"drain_timeout", S_U32, W_DURATION, AT(config, drain_timeout), .max = DAY, .preset = "30s",
	 .doc = "How long a worker that stops may finish its flows."},
	{"datagram_queue", S_U64, W_SIZE, AT(config, datagram_queue), .min = 64 * KiB, .max = 1024 * MiB, .preset = "1MiB",
	 .doc = "Datagrams of a flow that may wait to enter its tunnel; the oldest is dropped first."},
	{"datagram_age", S_U32, W_DURATION, AT(config, datagram_age), .min = 10, .max = 3600 * SECOND, .preset = "2s",
	 .doc = "How long they may wait."},
	{"resume_timeout", S_U32, W_DURATION, AT(config, resume_timeout), .max = DAY, .preset = "30s",
	 .doc = "How long a TCP, UDP or IP tunnel between Hermes nodes outlives the connection under it. 0: not at all."},
	{"resume_bytes", S_U32, W_SIZE, AT(config, resume_bytes), .min = 64 * KiB, .max = 1024 * MiB, .preset = "4MiB",
	 .doc = "How much of such a tunnel is kept, to be sent again, until the far end has it."},
};
static OBJECT(node, "node", config);

FIELDS(config_document) = {
	{"node", S_GROUP, W_OBJECT, .object = &node, .flags = F_REQUIRED, .doc = "This node."},
	{"identity", S_OBJECT, W_OBJECT, AT(config, identity), .object = &identity,
	 .doc = "What is shown to other nodes, and whom to believe."},
	{"users", LIST(config, users, user), .form = W_OBJECTS, .doc = "Who may prove themselves by password."},
	{"overlay_headers", S_STRS, W_HEADERS, AT(config, overlay_headers),
	 .doc = "Further headers of the overlay's own, removed from what comes in from outside."},
	{"listeners", LIST(config, listeners, listener), .form = W_OBJECTS, .doc = "Where traffic comes in."},
	{"tunnels", LIST(config, tunnels, tunnel), .form = W_OBJECTS, .doc = "TUN devices."},
	{"clusters", LIST(config, clusters, cluster), .form = W_OBJECTS, .doc = "Next hops."},
	{"address_spaces", LIST(config, spaces, space), .form = W_OBJECTS,
	 .doc = "The same name or prefix leads different users to different places."},
	{"routes", LIST(config, routes, route), .form = W_OBJECTS, .doc = "First match wins."},
	{"policies", LIST(config, policies, policy), .form = W_OBJECTS,
	 .doc = "Asked before the routes: every one that matches, one deny is enough."},
	{"telemetry", S_OBJECT, W_OBJECT, AT(config, telemetry), .object = &telemetry, .doc = "Metrics and access logs."},
	{"admin", S_OBJECT, W_OBJECT, AT(config, admin), .object = &admin, .doc = "Who may use hermes-admin, and for what."},
	{"log", S_GROUP, W_OBJECT, .object = &log_level, .doc = "The log."},
	{NULL, S_BOOL, W_NONE, AT(config, examines.listener)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.peer)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.user)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.method)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.protocol)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.scheme)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.authority)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.path)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.source)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.time)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.all_headers)},
	{NULL, S_STRS, W_NONE, AT(config, examined_headers)},
	{NULL, S_STRS, W_NONE, AT(config, internal_headers)},
	{NULL, S_BOOL, W_NONE, AT(config, examines.ip)},
	{"control", S_OBJECT, W_OBJECT, AT(config, control), .object = &control,
	 .doc = "Where the node's configuration comes from: the domain's controllers."},
	{"controller", S_OBJECT, W_OBJECT, AT(config, controller), .object = &controller, .doc = "This node is a controller."},
	{"probes", LIST(config, probes, probe), .form = W_OBJECTS, .doc = "Ways of the overlay that are measured all the time."},
	{"roles", S_GROUP, W_OBJECT, .object = &roles, .doc = "Processes that this node can do without."},
};
OBJECT(config_document, "document", config);
