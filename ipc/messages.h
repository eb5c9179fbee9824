/* Every message that Hermes' processes exchange, declared once. The enum, the structs, the names, the encoders, the
 * decoders and the check of who may send what to whom all come from these lists.
 *
 * M(NAME, name, senders, receivers, descriptors)   senders and receivers: sets of roles, IPC_BIT(role)
 * F(TYPE, field)                                    TYPE as in the table below; fields are only ever appended
 *
 * On the wire a message is one datagram holding one msgpack array: [number, field, field, ...]. A decoder accepts
 * fewer fields (the rest stay zero) and more fields (skipped) than it knows, since neighbouring releases talk during a
 * hot upgrade; anything else that does not fit ends the channel. Numbers are the order of this list: append only.
 *
 *   TYPE    struct member                 on the wire         decoded memory
 *   U32     uint32_t                      positive int        -
 *   U64     uint64_t                      positive int        -
 *   I64     int64_t                       int                 -
 *   BOOL    bool                          boolean             -
 *   STR     const char * (may be NULL)    str without NUL,    in the decoder's arena,
 *                                         or nil              NUL-terminated
 *   BYTES   struct ipc_bytes              bin                 arena
 *   STRS    struct ipc_strs               array of str        arena
 *   PAIRS   struct ipc_pairs              array of [str, str] arena
 */
#ifndef HERMES_IPC_MESSAGES_H
#define HERMES_IPC_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IPC_SCHEMA 1u                 /* sent in HELLO; raised when a field or message is appended */
#define IPC_MESSAGE_MAX (64u * 1024)  /* one datagram; what is larger travels as a sealed memfd */

#define IPC_ROLES(R)                                                                                                  \
	R(SUPERVISOR, "supervisor")                                                                                   \
	R(TUN_BRIDGE, "tun-bridge")                                                                                   \
	R(TUNNEL, "tunnel")                                                                                           \
	R(ROUTER, "router")                                                                                           \
	R(POLICY, "policy")                                                                                           \
	R(TELEMETRY, "telemetry")                                                                                     \
	R(CONFIG_SYNC, "config-sync")                                                                                 \
	R(ADMIN, "hermes-admin")                                                                                      \
	R(CONTROLLER, "controller")                                                                                   \
	R(KEEPER, "keeper")

enum ipc_role {
#define R(id, name) IPC_##id,
	IPC_ROLES(R)
#undef R
	IPC_ROLE_COUNT
};

#define IPC_BIT(role) (1u << (role))
#define IPC_SUP IPC_BIT(IPC_SUPERVISOR)
#define IPC_WORKERS                                                                                                   \
	(IPC_BIT(IPC_TUN_BRIDGE) | IPC_BIT(IPC_TUNNEL) | IPC_BIT(IPC_ROUTER) | IPC_BIT(IPC_POLICY) |                  \
	 IPC_BIT(IPC_TELEMETRY) | IPC_BIT(IPC_CONFIG_SYNC) | IPC_BIT(IPC_CONTROLLER) | IPC_BIT(IPC_KEEPER))
#define IPC_ANY (IPC_SUP | IPC_WORKERS)
#define IPC_TUN IPC_BIT(IPC_TUNNEL)
#define IPC_SYNC IPC_BIT(IPC_CONFIG_SYNC)
#define IPC_TELE IPC_BIT(IPC_TELEMETRY)
#define IPC_ADM IPC_BIT(IPC_ADMIN)
#define IPC_CTL IPC_BIT(IPC_CONTROLLER)
#define IPC_KEEP IPC_BIT(IPC_KEEPER)

/* How many descriptors come beside the message: none, exactly one, or none or one. */
enum ipc_fd_rule { IPC_FD_NONE, IPC_FD_ONE, IPC_FD_OPTIONAL };

#define IPC_MESSAGES(M)                                                                                               \
	/* life of a worker */                                                                                        \
	M(HELLO, hello, IPC_ANY | IPC_ADM, IPC_ANY | IPC_ADM, IPC_FD_NONE)                                            \
	M(READY, ready, IPC_WORKERS, IPC_SUP, IPC_FD_NONE)                                                            \
	M(PING, ping, IPC_SUP, IPC_WORKERS, IPC_FD_NONE)                                                              \
	M(PONG, pong, IPC_WORKERS, IPC_SUP, IPC_FD_NONE)                                                              \
	M(STOP, stop, IPC_SUP, IPC_WORKERS, IPC_FD_NONE)                                                              \
	M(LOG_LEVEL, log_level, IPC_SUP, IPC_WORKERS, IPC_FD_NONE)                                                    \
	/* what the supervisor hands over */                                                                          \
	M(PEER, peer, IPC_SUP, IPC_WORKERS, IPC_FD_ONE)                                                               \
	M(LISTENER, listener, IPC_SUP, IPC_TUN | IPC_TELE | IPC_CTL, IPC_FD_ONE)                                      \
	M(FILE, file, IPC_SUP, IPC_WORKERS, IPC_FD_OPTIONAL)                                                          \
	M(DIAL, dial, IPC_BIT(IPC_POLICY) | IPC_SYNC | IPC_CTL, IPC_SUP, IPC_FD_NONE)                                 \
	M(DIALED, dialed, IPC_SUP, IPC_BIT(IPC_POLICY) | IPC_SYNC | IPC_CTL, IPC_FD_OPTIONAL)                         \
	M(STATS_REGION, stats_region, IPC_WORKERS, IPC_TELE, IPC_FD_ONE)                                              \
	/* configuration: submitted, compiled, prepared by all, stored, committed */                                  \
	M(CONFIG_SUBMIT, config_submit, IPC_SUP, IPC_SYNC, IPC_FD_OPTIONAL)                                           \
	M(CONFIG_COMPILED, config_compiled, IPC_SYNC, IPC_SUP, IPC_FD_OPTIONAL)                                       \
	M(CONFIG_PREPARE, config_prepare, IPC_SUP, IPC_WORKERS, IPC_FD_ONE)                                           \
	M(CONFIG_PREPARED, config_prepared, IPC_WORKERS, IPC_SUP, IPC_FD_NONE)                                        \
	M(CONFIG_STORE, config_store, IPC_SUP, IPC_SYNC, IPC_FD_NONE)                                                 \
	M(CONFIG_STORED, config_stored, IPC_SYNC, IPC_SUP, IPC_FD_NONE)                                               \
	M(CONFIG_COMMIT, config_commit, IPC_SUP, IPC_WORKERS, IPC_FD_NONE)                                            \
	M(CONFIG_ABORT, config_abort, IPC_SUP, IPC_WORKERS, IPC_FD_NONE)                                              \
	/* a question's way round */                                                                                  \
	M(QUESTION, question, IPC_TUN | IPC_SUP, IPC_BIT(IPC_POLICY), IPC_FD_NONE)                                    \
	M(ASSESSED, assessed, IPC_BIT(IPC_POLICY), IPC_BIT(IPC_ROUTER), IPC_FD_NONE)                                  \
	M(DECISION, decision, IPC_BIT(IPC_ROUTER), IPC_TUN | IPC_SUP, IPC_FD_NONE)                                    \
	/* health and endpoints */                                                                                    \
	M(ENDPOINT_TABLE, endpoint_table, IPC_BIT(IPC_ROUTER), IPC_TUN, IPC_FD_ONE)                                   \
	M(HEALTH, health, IPC_TUN, IPC_BIT(IPC_ROUTER), IPC_FD_NONE)                                                  \
	/* records */                                                                                                 \
	M(FLOW_RECORDS, flow_records, IPC_TUN, IPC_TELE, IPC_FD_NONE)                                                 \
	M(FLOW_RECORD, flow_record, IPC_TUN, IPC_TELE, IPC_FD_NONE)                                                   \
	/* administration: hermes-admin to supervisor, and supervisor to the worker that knows */                     \
	M(ADMIN_REQUEST, admin_request, IPC_ADM | IPC_SUP | IPC_SYNC, IPC_SUP | IPC_WORKERS, IPC_FD_OPTIONAL)         \
	M(ADMIN_REPLY, admin_reply, IPC_SUP | IPC_WORKERS, IPC_ADM | IPC_SUP | IPC_SYNC, IPC_FD_OPTIONAL)             \
	/* TUN devices, sockets that need CAP_NET_ADMIN, streams between tunnel workers */                            \
	M(TUN_QUEUE, tun_queue, IPC_SUP | IPC_BIT(IPC_TUN_BRIDGE), IPC_SUP | IPC_TUN | IPC_BIT(IPC_TUN_BRIDGE),       \
	  IPC_FD_OPTIONAL)                                                                                            \
	M(TUN_ADDRESSES, tun_addresses, IPC_SUP | IPC_TUN, IPC_SUP | IPC_BIT(IPC_TUN_BRIDGE), IPC_FD_NONE)            \
	M(SOCKET_WANTED, socket_wanted, IPC_SUP | IPC_TUN, IPC_SUP | IPC_BIT(IPC_TUN_BRIDGE), IPC_FD_NONE)            \
	M(SOCKET_MADE, socket_made, IPC_SUP | IPC_BIT(IPC_TUN_BRIDGE), IPC_SUP | IPC_TUN, IPC_FD_OPTIONAL)            \
	M(LINK_WANTED, link_wanted, IPC_TUN, IPC_SUP, IPC_FD_NONE)                                                    \
	M(WORKER_LINK, worker_link, IPC_SUP, IPC_TUN, IPC_FD_ONE)                                                     \
	/* configuration that config-sync has from the controller, or goes back to */                                 \
	M(CONFIG_WANTED, config_wanted, IPC_SYNC, IPC_SUP, IPC_FD_NONE)                                               \
	M(CONFIG_OUTCOME, config_outcome, IPC_SUP, IPC_SYNC, IPC_FD_NONE)                                             \
	/* keys stay with keeper */                                                                                   \
	M(KEEPER_REQUEST, keeper_request, IPC_SYNC | IPC_CTL, IPC_KEEP, IPC_FD_OPTIONAL)                              \
	M(KEEPER_REPLY, keeper_reply, IPC_KEEP, IPC_SYNC | IPC_CTL, IPC_FD_OPTIONAL)                                  \
	M(KEYS_CHANGED, keys_changed, IPC_KEEP, IPC_SUP, IPC_FD_NONE)                                                 \
	/* a tunnel worker's flows go over to its successor, by a channel between the two */                          \
	M(HANDOVER_FLOW, handover_flow, IPC_TUN, IPC_TUN, IPC_FD_OPTIONAL)                                            \
	M(HANDOVER_END, handover_end, IPC_TUN, IPC_TUN, IPC_FD_NONE)                                                  \
	M(HANDOVER_RECORD, handover_record, IPC_TUN, IPC_TUN, IPC_FD_NONE)

/* First on every channel, both ways. `index` tells workers of one role apart (0...). */
#define IPC_FIELDS_hello(F) F(U32, schema) F(STR, version) F(U32, role) F(U32, index) F(U32, pid)
/* The worker has finished its start (sandbox on, loop running); PREPARE may come. */
#define IPC_FIELDS_ready(F) F(U32, pid)
#define IPC_FIELDS_ping(F) F(U64, sequence)
#define IPC_FIELDS_pong(F) F(U64, sequence)
/* Orderly stop: no new work, finish within drain_ms (0: at once), exit 0. */
#define IPC_FIELDS_stop(F) F(U32, drain_ms)
#define IPC_FIELDS_log_level(F) F(STR, level)

/* One end of a pair whose other end the named worker holds. A new PEER of the same role and index replaces the old. */
#define IPC_FIELDS_peer(F) F(U32, role) F(U32, index)
/* A bound socket; tunnel calls listen() when the generation is committed. name: the listener's, or "metrics". */
#define IPC_FIELDS_listener(F) F(U64, generation) F(STR, name) F(STR, address)
/* What a worker may not open. kind: "certificate", "key", "authority", "crl", "resolv_conf", "hosts", "log".
 * path: as the configuration writes it (log: the `to:` value). The descriptor is opened read-only (log: append). Sent
 * before PREPARE of the generation; generation 0: replaces what was, at once (resolv.conf changed, log reopened).
 * Without a descriptor: it could not be opened, and error says why. */
#define IPC_FIELDS_file(F) F(U64, generation) F(STR, kind) F(STR, path) F(STR, error)
/* policy asks for a connection to the authorizer `address` ("unix:/path" or "host:port"); the answer is a connected
 * stream socket, or error. */
#define IPC_FIELDS_dial(F) F(U64, id) F(STR, address)
#define IPC_FIELDS_dialed(F) F(U64, id) F(STR, error)
/* The sender's shared counters (ipc/stats.h), to be mapped read-only. */
#define IPC_FIELDS_stats_region(F) F(U32, role) F(U32, index)

/* action: "file" (descriptor: the document; name: its path; boot: at start, config-sync decides between it and what is
 * in force), "apply" (descriptor: the document), "check" (descriptor; compiled but neither numbered nor stored),
 * "rollback" (version), "load" (no document: what the store has in force).
 * "controller" (what config-sync asked for by CONFIG_WANTED). source: "file", "admin", "controller"; author: who, for the history. */
#define IPC_FIELDS_config_submit(F)                                                                                   \
	F(U64, id) F(STR, action) F(STR, name) F(STR, source) F(STR, author) F(U64, version) F(BOOL, boot)
/* The answer: a sealed memfd with the compiled document (store/config.h), its generation (= version in the store) and
 * digest; or no descriptor and `errors`, one per line as file:line:column: key: what was expected. warnings likewise.
 * unchanged: the document is what is already in force; nothing to prepare. */
#define IPC_FIELDS_config_compiled(F)                                                                                 \
	F(U64, id) F(U64, generation) F(STR, digest) F(STRS, errors) F(STRS, warnings) F(BOOL, unchanged)
/* tunnels: how many tunnel workers there are under this configuration (who owns which TUN device: ipc/owner.h). predecessor: an
 * orderly replacement: PEER (role and index its own) brings the channel over which the one before hands over its flows. */
#define IPC_FIELDS_config_prepare(F) F(U64, generation) F(U32, tunnels) F(BOOL, predecessor)
/* error: NULL when prepared */
#define IPC_FIELDS_config_prepared(F) F(U64, generation) F(STR, error)
/* Make generation the one in force (synced to disk before STORED), or, with refused set, record why it was not. */
#define IPC_FIELDS_config_store(F) F(U64, id) F(U64, generation) F(STR, refused)
#define IPC_FIELDS_config_stored(F) F(U64, id) F(U64, generation) F(STR, error)
#define IPC_FIELDS_config_commit(F) F(U64, generation)
#define IPC_FIELDS_config_abort(F) F(U64, generation)

/* The request's attributes as the decision may examine them. tunnel: who asked (IPC_EXPLAIN: the supervisor, for
 * `route explain` and `policy explain`; the answer then carries trace). deadline: CLOCK_MONOTONIC ms.
 * peer: the node that the client certificate names, or NULL. source: the address without port. headers: those that the
 * loaded configuration names (config.examined), lower case. inner: it is about a packet flow inside the tunnel that the other
 * fields describe (ip_port: the destination's, 0: none); router then answers what policy says and needs no route. */
#define IPC_EXPLAIN UINT32_MAX
#define IPC_FIELDS_question(F)                                                                                        \
	F(U64, id) F(U64, generation) F(U32, tunnel) F(U64, deadline)                                                 \
	F(STR, listener) F(STR, peer) F(STR, user) F(STR, method) F(STR, protocol) F(STR, scheme) F(STR, authority)   \
	F(STR, path) F(STR, source) F(PAIRS, headers) F(I64, now)                                                     \
	F(BOOL, inner) F(U32, ip_protocol) F(STR, ip_source) F(STR, ip_destination) F(U32, ip_port)
/* The question, what policy says of it, and the headers that it adds. status 0: allowed; else the HTTP status to answer
 * with, error and detail for Proxy-Status. valid_ms: how long this may be cached (0: not at all). */
#define IPC_FIELDS_assessed(F)                                                                                        \
	IPC_FIELDS_question(F)                                                                                        \
	F(U32, status) F(STR, error) F(STR, detail) F(STRS, policies) F(PAIRS, add_headers) F(U32, valid_ms) F(STRS, trace)
/* status 0: go to `cluster`. Otherwise answer status, with Proxy-Status error (RFC 9209 2.3) and detail. route: name of
 * the route ("routes[3]" where it has none) or "space NAME: ENTRY". retry_on: bits of enum config_retry_on.
 * Times in ms; 0: none. */
#define IPC_FIELDS_decision(F)                                                                                        \
	F(U64, id) F(U64, generation) F(U32, status) F(STR, error) F(STR, detail) F(STRS, policies) F(STR, route)     \
	F(STR, cluster) F(PAIRS, add_headers) F(STRS, remove_headers) F(U32, retry_on) F(U32, retry_attempts)         \
	F(U32, per_try_timeout) F(U32, request_timeout) F(U32, idle_timeout) F(BOOL, move) F(U32, valid_ms)           \
	F(STRS, trace)

/* Weights and health by (cluster, endpoint), layout in ipc/endpoints.h; mapped read-only. */
#define IPC_FIELDS_endpoint_table(F) F(U64, generation)
/* What a tunnel worker saw. state: "up", "down"; reason for people. */
#define IPC_FIELDS_health(F) F(U64, generation) F(STR, cluster) F(STR, endpoint) F(STR, state) F(STR, reason)

/* A batch: `records` holds encoded FLOW_RECORD messages, each preceded by its length (uint32_t, host order). */
#define IPC_FIELDS_flow_records(F) F(U32, count) F(BYTES, records)
/* One flow. event: "start", "end". time: of the event, µs since 1970 (CLOCK_REALTIME). Durations in µs, of phases: ask
 * (decision), connect (until the next hop took it), first (until its first response byte), total. result: "ok", or the
 * Proxy-Status error token. */
#define IPC_FIELDS_flow_record(F)                                                                                     \
	F(STR, event) F(I64, time) F(U64, id) F(STR, listener) F(STR, carry_in) F(STR, source) F(STR, peer)           \
	F(STR, user) F(STR, method) F(STR, protocol) F(STR, authority) F(STR, path) F(U32, status) F(STR, route)      \
	F(STRS, policies) F(STR, cluster) F(STR, endpoint) F(STR, next_hop) F(U64, bytes_in) F(U64, bytes_out)        \
	F(U32, attempts) F(U64, ask) F(U64, connect) F(U64, first) F(U64, total) F(STR, result) F(STR, detail)

/* verb: "flows list" etc. args: the words after it. id: the client's, and the supervisor's own towards workers. */
#define IPC_FIELDS_admin_request(F) F(U64, id) F(STR, verb) F(STRS, args)
/* status: exit status for the caller (0 done, 1 refused or failed, 2 wrong usage). json: one document, or, from a worker
 * asked for a list, a comma-separated sequence of objects without brackets, which the supervisor joins; a reply too
 * large for one datagram comes as a memfd beside an empty json. error: for people. more: further replies follow. */
#define IPC_FIELDS_admin_reply(F) F(U64, id) F(U32, status) F(STR, json) F(STR, error) F(BOOL, more)

/* One queue of a TUN device. tun-bridge sends each that it opened to the supervisor, before PREPARED; the supervisor keeps a
 * duplicate and hands it to the tunnel worker that owns the device, before COMMIT, and again to one that replaces it. To a new
 * tun-bridge the supervisor sends, before its first PREPARE, one without a descriptor for each device that it holds: that
 * device is there and its queues are open. offload: TUN_F_* bits that are on; the queue speaks a virtio_net_hdr of 10 bytes. */
#define IPC_FIELDS_tun_queue(F)                                                                                       \
	F(U64, generation) F(STR, device) F(U32, queue) F(U32, queues) F(U32, mtu) F(U32, offload)
/* Addresses ("10.8.0.2/32") and routes ("128.252.0.0/16") that the far end gave to a device with `addresses: assigned`; they
 * replace those told before. By way of the supervisor. */
#define IPC_FIELDS_tun_addresses(F) F(STR, device) F(STRS, addresses) F(STRS, routes)
/* A UDP socket bound to a foreign address (IP_TRANSPARENT), for answers of captured flows. tunnel: who wants it. address:
 * "192.0.2.1:53" or "[2001:db8::1]:53". By way of the supervisor, both. error: why there is none. */
#define IPC_FIELDS_socket_wanted(F) F(U32, tunnel) F(U64, id) F(STR, address)
#define IPC_FIELDS_socket_made(F) F(U32, tunnel) F(U64, id) F(STR, error)
/* The tunnel worker wants a stream to the worker `index`; both get an end of a socket pair, told apart by `client`. */
#define IPC_FIELDS_link_wanted(F) F(U32, index)
#define IPC_FIELDS_worker_link(F) F(U32, index) F(BOOL, client)

/* config-sync asks for a change: action "controller" (a document that it has from the controller and keeps for this; version: the
 * controller's number of it) or "rollback" (version: of the store; back to the last confirmed one). The supervisor begins it with a
 * CONFIG_SUBMIT of the same action, version, source and author, and tells by OUTCOME what became of it. stale: NULL, or, where the
 * configuration file will not be what is in force any more, why. */
#define IPC_FIELDS_config_wanted(F) F(U64, id) F(STR, action) F(U64, version) F(STR, source) F(STR, author) F(STR, stale)
/* ok: generation is in force (unchanged: it was already). Else errors say why not, one per line, as of CONFIG_COMPILED; none: it was not
 * begun, and may be asked for again. */
#define IPC_FIELDS_config_outcome(F) F(U64, id) F(BOOL, ok) F(BOOL, unchanged) F(U64, generation) F(STRS, errors)

/* op and args: workers/keeper/keeper.h. text: a PEM document, or what is to be signed (as a sealed memfd where it is larger than
 * 32 KiB); the answer likewise. error: NULL when done. */
#define IPC_FIELDS_keeper_request(F) F(U64, id) F(STR, op) F(STRS, args) F(STR, text)
#define IPC_FIELDS_keeper_reply(F) F(U64, id) F(STR, text) F(STR, error)
/* Files below the folder of keys have changed: whoever was given them is given them again. */
#define IPC_FIELDS_keys_changed(F) F(STR, why)

/* One flow's record (workers/tunnel/handover.h), with its plain side's socket where it has one. */
#define IPC_FIELDS_handover_flow(F) F(STR, kind) F(BYTES, record)
/* Nothing further comes: the successor reads devices and UDP sockets from now on. Also meant by the channel's end. */
#define IPC_FIELDS_handover_end(F) F(U64, flows)
/* What HANDOVER_FLOW of kind "flow" or "begin" holds, encoded as a message is; never sent by itself. Times are of now_us(). scheme and
 * headers: the request as it was asked about; exit_headers: as it came to a far end of IP packets. cluster ... valid_until: the
 * decision, by `generation`. received, given, unsent, acked: workers/tunnel/flow_resume.h. key, client, local: of a UDP listener's
 * flow (struct sockaddr_storage). addresses: of an IP tunnel; targets: prefixes that its far end found its target's name to be.
 * stream, gave_end, ended: of a TCP tunnel; its `received` is without the end. */
#define IPC_FIELDS_handover_record(F)                                                                                 \
	F(U64, id) F(U32, role) F(STR, in_kind) F(STR, out_kind) F(STR, listener) F(STR, carry) F(BYTES, source)      \
	F(STR, source_text) F(U32, source_port) F(STR, peer) F(STR, proven_user) F(BOOL, inner) F(STR, user)          \
	F(BOOL, by_password) F(STR, method) F(STR, protocol) F(STR, authority) F(STR, path) F(STR, scheme)            \
	F(PAIRS, headers) F(PAIRS, exit_headers) F(U64, began) F(U64, last) F(U32, status) F(U32, attempts)           \
	F(U64, bytes_in) F(U64, bytes_out) F(U64, generation) F(STR, cluster) F(STR, route) F(STRS, policies)         \
	F(PAIRS, add_headers) F(STRS, remove_headers) F(U32, retry_on) F(U32, retry_attempts) F(U32, per_try_timeout) \
	F(U32, request_timeout) F(U32, idle_timeout) F(BOOL, move) F(U64, valid_until) F(STR, endpoint)               \
	F(STR, address) F(I64, endpoint_number) F(BYTES, tunnel) F(BOOL, segments) F(U64, received) F(U64, given)     \
	F(U64, unsent) F(U64, acked) F(BYTES, key) F(BYTES, client) F(BYTES, local) F(STR, device) F(STR, network)    \
	F(STR, client_id) F(BOOL, over_udp) F(STRS, addresses) F(BYTES, routes) F(U64, requests)                      \
	F(U64, first_request) F(STRS, targets) F(BOOL, asked) F(BOOL, stale) F(BOOL, stream)                        \
	F(BOOL, gave_end) F(BOOL, ended)

/* --- what comes from the lists ------------------------------------------------------------------------------------ */

struct ipc_bytes {
	const uint8_t *data;
	size_t length;
};
struct ipc_strs {
	const char **v;
	size_t n;
};
struct ipc_pair {
	const char *name, *value;
};
struct ipc_pairs {
	struct ipc_pair *v;
	size_t n;
};

typedef uint32_t ipc_type_U32;
typedef uint64_t ipc_type_U64;
typedef int64_t ipc_type_I64;
typedef bool ipc_type_BOOL;
typedef const char *ipc_type_STR;
typedef struct ipc_bytes ipc_type_BYTES;
typedef struct ipc_strs ipc_type_STRS;
typedef struct ipc_pairs ipc_type_PAIRS;

enum ipc_type {
#define M(ID, name, from, to, fd) IPC_MSG_##ID,
	IPC_MESSAGES(M)
#undef M
	IPC_MSG_COUNT
};

#define F(TYPE, field) ipc_type_##TYPE field;
#define M(ID, name, from, to, fd)                                                                                     \
	struct ipc_##name {                                                                                           \
		IPC_FIELDS_##name(F)                                                                                  \
	};
IPC_MESSAGES(M)
#undef M
#undef F

/* Names for logs; "?" for numbers out of range. */
const char *ipc_role_name(unsigned role);
const char *ipc_type_name(unsigned type);

#endif
