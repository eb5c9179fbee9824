/* A leg: one side of a flow. Every kind implements leg_ops and makes the flow_* up-calls of flow.h; a flow knows no more.
 *
 * A leg goes through: request head, body, end one way; any number of 1xx heads, a final head, body, end the other way. TCP
 * legs make up the heads: a TCP listener's connection begins with CONNECT target, a dialled connection answers 200.
 *
 * Flow control: data goes over with flow_data(), which always takes it. The flow answers with ops->taken() when the far leg
 * took as many bytes: an HTTP/2 leg opens its stream's window by that, a TCP or HTTP/1 leg stops reading while anything is
 * not yet taken. */
#ifndef HERMES_TUNNEL_LEG_H
#define HERMES_TUNNEL_LEG_H

#include "workers/tunnel/head.h"
#include "workers/tunnel/slab.h"

struct flow;
struct leg;
struct parcel;

/* E(ID, status to answer with, RFC 9209 token, retry class (enum config_retry_on) or 0, stats metric suffix) */
#define FLOW_ERRORS(E)                                                                                                \
	E(NONE, 200, "ok", 0, CONNECT)                                                                                \
	E(DNS, 502, "dns_error", CONFIG_RETRY_CONNECT, DNS)                                                           \
	E(DNS_TIMEOUT, 504, "dns_timeout", CONFIG_RETRY_CONNECT, DNS)                                                 \
	E(NOT_FOUND, 404, "destination_not_found", 0, NO_ENDPOINT)                                                    \
	E(NO_ENDPOINT, 503, "destination_unavailable", CONFIG_RETRY_CONNECT, NO_ENDPOINT)                             \
	E(TARGET_REFUSED, 403, "destination_ip_prohibited", 0, TARGET_REFUSED)                                        \
	E(UNROUTABLE, 502, "destination_ip_unroutable", CONFIG_RETRY_CONNECT, CONNECT)                                \
	E(CONNECT_REFUSED, 502, "connection_refused", CONFIG_RETRY_CONNECT, CONNECT)                                  \
	E(CONNECT_TIMEOUT, 504, "connection_timeout", CONFIG_RETRY_CONNECT, TIMEOUT)                                  \
	E(CONNECTION_LIMIT, 503, "connection_limit_reached", CONFIG_RETRY_CONNECT, CONNECT)                           \
	E(TERMINATED, 502, "connection_terminated", CONFIG_RETRY_RESET, RESET)                                        \
	E(REFUSED_STREAM, 502, "connection_terminated", CONFIG_RETRY_REFUSED, RESET)                                  \
	E(READ_TIMEOUT, 504, "connection_read_timeout", CONFIG_RETRY_RESET, TIMEOUT)                                  \
	E(TLS_PROTOCOL, 502, "tls_protocol_error", CONFIG_RETRY_CONNECT, TLS)                                         \
	E(TLS_CERTIFICATE, 502, "tls_certificate_error", CONFIG_RETRY_CONNECT, TLS)                                   \
	E(TLS_ALERT, 502, "tls_alert_received", CONFIG_RETRY_CONNECT, TLS)                                            \
	E(REQUEST, 400, "http_request_error", 0, PROTOCOL)                                                            \
	E(DENIED, 403, "http_request_denied", 0, PROTOCOL)                                                            \
	E(RESPONSE, 502, "http_protocol_error", 0, PROTOCOL)                                                          \
	E(RESPONSE_INCOMPLETE, 502, "http_response_incomplete", CONFIG_RETRY_RESET, PROTOCOL)                         \
	E(RESPONSE_TIMEOUT, 504, "http_response_timeout", CONFIG_RETRY_RESET, TIMEOUT)                                \
	E(UPGRADE, 502, "http_upgrade_failed", 0, PROTOCOL)                                                           \
	E(LOOP, 508, "proxy_loop_detected", 0, PROTOCOL)                                                              \
	E(INTERNAL, 503, "proxy_internal_error", 0, PROTOCOL)                                                         \
	E(CANCELLED, 499, "connection_terminated", 0, RESET)          /* the client went away */

enum flow_error {
#define E(ID, status, token, retry, metric) FLOW_##ID,
	FLOW_ERRORS(E)
#undef E
	FLOW_ERROR_COUNT
};

struct join {
	bool fresh;                   /* the far end is not the one of before: say again what it must know */
	bool segments;                /* the far end takes CONTEXT_SEGMENTS */
};

struct leg_ops {
	const char *kind;             /* for logs: "h2", "tcp", ... */
	/* Out leg: the request (once, first). In leg: a response head (1xx: more follow). Copies what it needs. end: no
	 * body follows. */
	void (*head)(struct leg *leg, const struct head *head, bool end);
	/* Takes all chunks (queue is empty after) and returns true, or refuses and returns false, changing nothing: then it
	 * calls flow_writable() when it can take more. */
	bool (*send)(struct leg *leg, struct chunks *chunks);
	/* No more data this way. trailers may be NULL. */
	void (*finish)(struct leg *leg, const struct head *trailers);
	/* `bytes` that it gave with flow_data() were taken by the far leg. */
	void (*taken)(struct leg *leg, size_t bytes);
	/* The flow is done with the leg: no further up-call, the flow's memory goes. NONE: what is queued is still
	 * delivered, and the connection may serve again; else the stream is reset, the connection closed, whatever tells
	 * the peer that this did not end well. */
	void (*close)(struct leg *leg, enum flow_error error);
	/* Bytes that it took and that have not left yet. NULL: none ever wait. */
	size_t (*waiting)(const struct leg *leg);
	/* Legs that end a capsule stream (udp, ip; capsule.h), NULL for all others: the tunnel is open, or it goes on over another
	 * way. What send() takes from now on begins a capsule, and so must what it gives with flow_data(); before the first call
	 * it gives none (it queues, datagram_queue.h). In legs hear of it after head(), out legs after their own flow_head(). */
	void (*joined)(struct leg *leg, const struct join *join);
	/* Nothing moved within the idle timeout, which is how flows of this kind end: it finishes its side. NULL: the flow fails. */
	void (*idle)(struct leg *leg);
	bool carries;                 /* its streams carry capsules between nodes (h2): capsule_stream.h */
	bool raw;                     /* a connection of its own, dialled for the flow's bytes alone (tcp) */
	/* Plain sides, NULL for all others: the worker's successor goes on (handover_parcel.h). Gives what it has begun, reads its plain
	 * side no more, and puts what it still holds and its socket into the parcel; only close() follows, which tells the plain side
	 * nothing. False: not now, nothing has changed. */
	bool (*hand_over)(struct leg *leg, struct parcel *parcel);
};

/* Embedded first in every leg implementation. */
struct leg {
	const struct leg_ops *ops;
	struct flow *flow;            /* NULL once closed */
};

#endif
