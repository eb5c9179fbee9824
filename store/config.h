/* The configuration model: one document, as DESIGN.md section 4 writes it, checked and compiled.
 *
 * config-sync parses YAML into it (config_parse), and hands it to all others as msgpack in a sealed memfd
 * (config_pack, config_unpack). Everything in it is read-only after that, lives in the config's own arena and goes with
 * config_free. Durations are milliseconds (0: none), sizes bytes. A string that is absent is NULL, an absent list is empty.
 * Names of headers are lower case. Names of listeners, clusters, routes are unique within their kind. */
#ifndef HERMES_STORE_CONFIG_H
#define HERMES_STORE_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct config_strs { char **v; size_t n; };
struct config_pair { char *name, *value; };
struct config_pairs { struct config_pair *v; size_t n; };

/* An IPv4 or IPv6 prefix (IPv4 as IPv4-mapped: bits + 96); bits past the length are zero. */
struct config_prefix { struct in6_addr address; uint8_t bits; };
struct config_prefixes { struct config_prefix *v; size_t n; };

/* "host:port", "[v6]:port", ":port" (any address: host is ""), "unix:/path" (host NULL); names allowed where said. */
struct config_address { char *text, *host; uint16_t port; char *unix_path; };

enum config_accept { CONFIG_HTTP, CONFIG_TCP, CONFIG_SOCKS5, CONFIG_OVERLAY, CONFIG_UDP, CONFIG_TRANSPARENT };
enum config_carry { CONFIG_H1, CONFIG_H2, CONFIG_H3, CONFIG_CARRY_TCP, CONFIG_CARRY_UDP, CONFIG_CARRY_IP };
enum config_balance { CONFIG_ROUND_ROBIN, CONFIG_LEAST_REQUEST, CONFIG_HASH };
enum config_tls_version { CONFIG_TLS_1_2, CONFIG_TLS_1_3 };

/* `tls:` of a listener or a cluster. Absent credentials are the node's identity. On a listener for programs `authorities`
 * asks for client certificates (`require: true` insists). On a cluster server_name is what is sent and verified. */
struct config_tls {
	bool enabled, off;            /* off: written `tls: off` */
	char *certificate, *key;
	struct config_strs authorities;
	char *crl;
	char *server_name;
	bool require;
	bool no_identity;             /* cluster: `identity: false`, shows no certificate (plain HTTPS to a service) */
	enum config_tls_version min_version;
};

/* revoked: names of nodes of the own domain that are no longer believed, whatever certificate they show. */
struct config_identity { char *certificate, *key, *crl; struct config_strs authorities, revoked; };

/* password: crypt(5) text ($y$..., $6$...). */
struct config_user { char *name, *password; };

/* Which nodes may connect and for whom they may speak. node: name in `domain` (or the own); dns: certificate's name. */
struct config_peer { char *node, *domain, *dns; struct config_strs users, headers; bool any_user, any_header; };

struct config_limits {            /* of a listener; defaults in config_schema.c, documented in hermes.yaml(5) */
	uint32_t connections;         /* per tunnel worker */
	uint32_t streams;             /* concurrent, per HTTP/2 connection */
	uint32_t header_bytes;        /* 431 above */
	uint32_t header_timeout;      /* until a request's head is complete */
	uint32_t handshake_timeout;
	uint32_t idle_timeout;        /* connection without flows */
	uint32_t flows;               /* accept udp, socks5, transparent: UDP flows per tunnel worker */
	uint32_t abuse_events;        /* resets, SETTINGS, PING, empty frames etc. per 10 s before GOAWAY */
};

/* What a transparent listener takes, by nftables rules: TCP, UDP or both to these destinations and ports (none: all), passing
 * through this machine, or with `local` begun on it by others than Hermes itself. */
struct config_capture { bool tcp, udp, local; struct config_prefixes destinations, exclude; uint16_t port_low, port_high; };

struct config_listener {
	char *name;
	struct config_address address;
	enum config_accept accept;
	struct config_address target; /* accept tcp, udp */
	struct config_pairs add_headers;
	struct config_strs remove_headers;
	bool trust_headers;
	bool require_user;            /* 407 without a proven user */
	struct config_tls tls;
	struct config_peer *peers; size_t n_peers;
	struct config_limits limits;
	struct config_capture capture;  /* accept transparent */
};

struct config_endpoint { struct config_address address; uint32_t weight; };

struct config_health_check {      /* active; interval 0: none */
	char *path, *authority;       /* path NULL: a connection is enough */
	uint32_t interval, timeout, healthy, unhealthy;
	uint16_t status_low, status_high;
};
struct config_ejection { uint32_t failures, time, max_percent; };  /* passive; failures 0: off */

/* Addresses that `endpoints: target` may reach beyond public ones, and those it may not. */
struct config_targets { bool loopback, link_local, private_, any; struct config_prefixes prefixes; };

struct config_cluster {
	char *name;
	enum config_carry carry;
	struct config_tls tls;
	bool target;                  /* endpoints: target */
	struct config_endpoint *endpoints; size_t n_endpoints;
	enum config_balance balance;
	char *hash_header;            /* balance hash: on this header; NULL: source address */
	struct config_targets allow_targets, deny_targets;
	struct config_health_check health_check;
	struct config_ejection ejection;
	uint32_t connect_timeout, idle_timeout;   /* of a new connection; of a pooled one without flows */
	uint32_t max_connections;     /* per endpoint and tunnel worker */
	uint32_t max_streams;         /* per HTTP/2 connection, below what the peer allows */
	uint32_t ttl_min, ttl_max;    /* bounds on names' time to live, seconds */
	char *device; struct config_prefixes pool, advertise; bool nat;   /* carry ip */
};

enum config_retry_on { CONFIG_RETRY_CONNECT = 1, CONFIG_RETRY_REFUSED = 2, CONFIG_RETRY_RESET = 4, CONFIG_RETRY_GATEWAY = 8 };
struct config_retry { uint32_t on, attempts, per_try_timeout; };  /* attempts: in all; 1: no retry */
struct config_timeout { uint32_t request, idle; };

struct config_space_entry {       /* key: a name (lower case, no port) or a prefix */
	char *name; struct config_prefix prefix; char *key;
	char *cluster;
	struct config_pairs add_headers; struct config_strs remove_headers;
	struct config_retry retry; struct config_timeout timeout;
};
struct config_space {
	char *name;
	struct config_strs users;     /* "*": everybody that no other space names */
	struct config_space_entry *names; size_t n_names;
	struct config_space_entry *prefixes; size_t n_prefixes;
};

/* One condition on a string: any of its forms. */
struct config_string_match { char *exact, *prefix; bool present, absent; };
struct config_header_match { char *name; struct config_string_match match; };

/* "Mon-Fri 08:00-18:00 Europe/Warsaw": days bit 0 = Monday; minutes of the local day; from > to runs past midnight.
 * offsets: the zone's UTC offset (seconds) from each instant on (Unix time), compiled ten years ahead. */
struct config_offset { int64_t from; int32_t seconds; };
struct config_window { uint8_t days; uint16_t from, to; char *zone, *text; struct config_offset *offsets; size_t n_offsets; };

/* `ip:` of a match. port_low 0: any. protocol: IANA number, 0: any. */
struct config_ip_match { bool present; uint8_t protocol; struct config_prefixes source, destination; uint16_t port_low, port_high; };

/* All that is given must hold; a list holds when one of its members does. */
struct config_match {
	struct config_strs methods, listeners, users, identities, protocols, schemes;
	struct config_strs authorities;     /* lower case; "name" matches every port, "name:port" one, "*.suffix" */
	struct config_string_match *paths; size_t n_paths;     /* "/org/" (ends in /): prefix; else exact; or {exact:, prefix:} */
	struct config_header_match *headers; size_t n_headers;
	struct config_prefixes sources;
	struct config_window *times; size_t n_times;
	struct config_ip_match ip;
};

struct config_route {
	char *name;                   /* "routes[3]" where the document gives none */
	struct config_match match;
	char *cluster;
	struct config_pairs add_headers; struct config_strs remove_headers;
	struct config_retry retry; struct config_timeout timeout;
	bool move;
};

struct config_rule { bool allow; struct config_match match; struct config_pairs add_headers; };

/* OPA's data API: POST {"input": ...} to path; result: boolean or {"allowed": bool, "headers": {...}}. headers: those of the
 * request that it is told; empty: all. */
struct config_authorizer { char *address, *path; uint32_t timeout, cache; bool fail_open; struct config_strs headers; };

struct config_policy {
	char *name;
	struct config_match match;
	bool default_allow;
	struct config_rule *rules; size_t n_rules;
	struct config_authorizer authorizer;   /* address NULL: none */
};

struct config_log { char *to; bool json; bool start; };
struct config_telemetry { struct config_address metrics; struct config_log *access_log; size_t n_access_log; };

/* Split tunnelling: packets to `prefix` enter the overlay as CONNECT-IP to it, or, where over_udp names a target, as payload of
 * CONNECT-UDP to that (for peers without CONNECT-IP). */
struct config_network { struct config_prefix prefix; struct config_pairs add_headers; struct config_address over_udp; };

/* A TUN device. addresses: "10.8.0.2/32", host bits allowed; assigned: what the far end gives. exclude: prefixes inside networks
 * that keep their way outside. nat of a cluster and `networks` of a device exclude nothing of each other. */
struct config_tunnel {
	char *name;                   /* at most 15 bytes */
	struct config_strs addresses; bool assigned;
	uint32_t mtu;                 /* 1280 to 65535 */
	uint32_t queues;              /* 1 to 8 */
	bool offload;                 /* segmentation offload, where the kernel has it */
	struct config_network *networks; size_t n_networks;
	struct config_prefixes exclude;
	bool require_user;
};

/* `control:` where a node's configuration comes from. config-sync reaches the controllers through the implied listener
 * CONFIG_CONTROL (unix:control.sock in the runtime folder, accept http) and cluster CONFIG_CONTROL (carry h2, tls with the node's
 * identity, server_name controller.DOMAIN), joined by an implied first route. n_endpoints 0: no controller. */
struct config_control {
	struct config_endpoint *endpoints; size_t n_endpoints;
	char *key;                    /* the domain's Ed25519 public key, base64 */
	uint32_t confirm;             /* ms without a controller after a change, until it is rolled back */
	uint32_t report;              /* ms between reports */
};
#define CONFIG_CONTROL "hermes-control"

/* `controller:` this node is a controller. Implied: listener CONFIG_CONTROLLER at address (tls; client certificates are asked for and
 * may be missing, which is for enrolment), cluster CONFIG_CONTROLLER (carry h1, unix:controller.sock in the runtime folder) and a
 * route. Names that begin with "hermes-" are reserved. */
struct config_controller {
	bool enabled;
	struct config_address address;
	struct config_strs etcd;      /* "host:port" or "unix:/path", plain HTTP (TLS: by a listener of our own); none: local store */
	char *prefix;                 /* of etcd's keys */
	struct config_strs operators; /* nodes whose certificate may use the operators' interface over the network */
	uint32_t certificate_days, token_lifetime;   /* days; ms */
};
#define CONFIG_CONTROLLER "hermes-controller"

/* A way that tunnel worker 0 measures by OPTIONS with Max-Forwards (probe.h), every `interval` ms. cluster NULL: as routes say. target
 * NULL: the cluster's endpoint itself (one hop). */
struct config_probe { char *name, *cluster, *target, *method; struct config_pairs add_headers; uint32_t interval, timeout; };

struct config_admin { struct config_strs read, operate, administer; };  /* users, or "group:NAME" */

struct config {
	char *node_name, *domain;
	uint32_t tunnel_workers;      /* 0: one per CPU, at most 8 */
	uint32_t max_hops;            /* Via entries of ours before 508 */
	uint64_t memory;              /* bytes of payload that one tunnel worker may buffer */
	uint64_t datagram_queue;      /* bytes per flow that wait to become capsules */
	uint32_t datagram_age;        /* ms that they may wait */
	uint32_t resume_timeout;      /* ms that a tunnel between Hermes ends outlives the connection under it; 0: not at all */
	uint32_t resume_bytes;        /* sent and not acknowledged, kept to be sent again */
	uint32_t replay_bytes;        /* request body kept for a retry */
	uint32_t cache_entries;       /* of the decision cache */
	uint32_t worker_rss;          /* bytes >> 20; a worker above is replaced; 0: off */
	uint32_t drain_timeout;
	struct config_identity identity;
	struct config_user *users; size_t n_users;
	struct config_strs overlay_headers;
	struct config_listener *listeners; size_t n_listeners;
	struct config_tunnel *tunnels; size_t n_tunnels;
	struct config_cluster *clusters; size_t n_clusters;
	struct config_space *spaces; size_t n_spaces;
	struct config_route *routes; size_t n_routes;
	struct config_policy *policies; size_t n_policies;
	struct config_telemetry telemetry;
	struct config_admin admin;
	char *log_level;
	struct config_control control;
	struct config_controller controller;
	struct config_probe *probes; size_t n_probes;
	bool tun_bridge_off, telemetry_off;   /* `roles:` */

	/* Derived by the compiler, sent along: what a decision can examine (the decision cache's key), and the overlay's own
	 * headers (everything that a listener or policy adds, and overlay_headers). Sorted, unique. */
	struct { bool listener, peer, user, method, protocol, scheme, authority, path, source, time, all_headers, ip; } examines;
	struct config_strs examined_headers;
	struct config_strs internal_headers;

	struct config_arena *arena;
};

void config_free(struct config *config);

/* --- parsing (config_yaml.c; libfyaml) ----------------------------------------------------------------------------- */

/* Errors and warnings, one per line: "FILE:LINE:COLUMN: KEY: what was wrong; expected ...". At most 50 are kept. */
struct config_report { char **errors, **warnings; size_t n_errors, n_warnings; };
void config_report_free(struct config_report *report);

/* Parses and checks a document of at most 16 MiB. name: what errors call it. Returns the model, or NULL with at least one
 * error in report. Also checks references (routes to clusters etc.), and compiles time zones. Opens no file but zoneinfo. */
struct config *config_parse(const char *name, const char *text, size_t length, struct config_report *report);

/* Several documents as one (config_layers.c). Maps are merged key by key; lists whose members have a `name` (listeners, tunnels, clusters,
 * address_spaces, policies, users, routes, probes) by name, members of earlier layers first, where both name one the earlier layer's
 * holds, key by key; every other list and value is the earlier layer's. Errors name the layer that the place came from. */
struct config_layer { const char *name, *text; size_t length; };
struct config *config_parse_layers(const struct config_layer *layers, size_t n, struct config_report *report);
/* The merged document as YAML text without defaults, each key and named member with the layer it came from as a comment (origins) or
 * without. malloc'd; NULL with report where a layer is no YAML. */
char *config_merged(const struct config_layer *layers, size_t n, bool origins, struct config_report *report);

/* The same with everything that is preset filled in (origin "default"). Fills *origins, where it is not NULL, with {"key", "value", "origin"}
 * of each value as a JSON array; both malloc'd. */
char *config_effective(const struct config_layer *layers, size_t n, char **origins, struct config_report *report);
/* Whether the document, of which nothing else is looked at, has this key at its top. */
bool config_mentions(const char *text, size_t length, const char *key);

/* --- transport (config_pack.c; msgpack) ---------------------------------------------------------------------------- */

/* malloc'd bytes; 0 or -ENOMEM. */
int config_pack(const struct config *config, uint8_t **data, size_t *length);
/* From bytes that config_pack wrote; anything else gives NULL (every length checked). */
struct config *config_unpack(const uint8_t *data, size_t length);
/* From a received sealed memfd. */
struct config *config_from_memfd(int fd);

/* --- look-ups ------------------------------------------------------------------------------------------------------ */
const struct config_cluster *config_cluster(const struct config *config, const char *name);
const struct config_listener *config_listener(const struct config *config, const char *name);
/* JSON of the effective document, defaults filled in, secrets (passwords) as "***". malloc'd. */
char *config_json(const struct config *config);

/* --- addresses (config_address.c), shared by parser, tunnel and policy ---------------------------------------------- */

/* "host:port" etc.; port_required: a missing port is an error. host and unix_path are malloc'd into *out (free with
 * config_address_clear) when arena is NULL. Returns 0 or -EINVAL with *why (static text). */
int config_address_parse(const char *text, bool port_required, struct config_arena *arena, struct config_address *out,
                         const char **why);
void config_address_clear(struct config_address *address);
/* "10.0.0.0/8", "::1", "10.0.0.1": 0 or -EINVAL; strict: dotted quads only, host bits zero. */
int config_prefix_parse(const char *text, struct config_prefix *out, const char **why);
/* An address of a device, "10.8.0.2/24": out->address keeps its host bits. 0 or -EINVAL. */
int config_device_address_parse(const char *text, struct config_prefix *out, const char **why);
bool config_prefix_contains(const struct config_prefix *prefix, const struct in6_addr *address);
bool config_prefixes_contain(const struct config_prefixes *prefixes, const struct in6_addr *address);

#endif
