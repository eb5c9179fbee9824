/* SPDX-License-Identifier: Apache-2.0 */
/* The UDP flows that programs begin, as in legs of CONNECT-UDP flows: what udp_listener.h, SOCKS5 UDP ASSOCIATE and
 * transparent capture share. A table finds a flow by a key (client address and port, ...); each gathers what one
 * wake-up received into capsules, and answers leave together by the socket that it was given. */
#ifndef HERMES_TUNNEL_UDP_FLOWS_H
#define HERMES_TUNNEL_UDP_FLOWS_H

#include "workers/tunnel/listener.h"
#include "workers/tunnel/udp_io.h"

/* --- the way back ------------------------------------------------------------------------------------------------- */

/* A socket that answers leave by, shared and counted: its flows hold it. Takes over fd (non-blocking); starts with one
 * reference, its maker's. stats: STATS_LISTENER, for what is too long to leave; may be NULL. */
struct udp_socket;
struct udp_socket *udp_socket_new(struct tunnel *tunnel, struct stats_set *stats, int fd);
struct udp_socket *udp_socket_ref(struct udp_socket *socket);
/* NULL is fine. The descriptor is closed in a later turn of the loop. */
void udp_socket_unref(struct udp_socket *socket);
int udp_socket_fd(const struct udp_socket *socket);

/* --- flows -------------------------------------------------------------------------------------------------------- */

struct udp_flows;
struct udp_flow;

/* held(arg, +1 or -1) is called as flows begin and as the last that refers to listener or origin goes; may be NULL.
 * limit: how many may live at a time, beside limits.flows of the listener, which counts over all its tables. */
struct udp_flows *udp_flows_new(struct tunnel *tunnel, struct listener *listener, unsigned limit,
                                void (*held)(void *arg, int change), void *arg);
/* Nothing is taken any more; what was is still delivered, then each flow ends its side. Frees itself after the last. */
void udp_flows_close(struct udp_flows *flows);
/* Ends all flows at once, and frees. */
void udp_flows_free(struct udp_flows *flows);

/* A living flow, or one that was refused a moment ago (it drops what it is given); NULL: none. */
struct udp_flow *udp_flows_find(struct udp_flows *flows, const void *key, size_t length);

struct udp_begin {
	const void *key;
	size_t key_length;
	const char *target;                   /* "host:port" */
	const char *carry, *user;             /* for the record; proven user or NULL. Outlive the flow. */
	const struct sockaddr_storage *client;
	const struct sockaddr_storage *local; /* answers come from there; NULL: from the socket's own address */
	struct udp_socket *socket;            /* gets a reference of its own; NULL: udp_flow_set_socket() follows */
	const void *header;                   /* before each datagram of an answer (SOCKS5); copied */
	size_t header_length;
};
/* What a successor is told about its flows' kind: "udp", "transparent"; NULL (at first): they do not go over to one. */
void udp_flows_hand_over_as(struct udp_flows *flows, const char *kind);
/* A flow's in leg, as the parcel says (leg_ops.hand_over), joined; the caller makes the flow. NULL: there is one with that key. */
struct parcel;
struct leg *udp_flows_restore(struct udp_flows *flows, const struct udp_begin *begin, const struct parcel *parcel);
const struct origin *udp_flow_origin(const struct leg *leg);
/* Begins a flow. NULL: the table is full, or the target is none. It may be refused already when this returns. */
struct udp_flow *udp_flows_begin(struct udp_flows *flows, const struct udp_begin *begin);
/* A run of datagrams from its client (udp_received): copied into capsules, or into its queue before they can be. */
void udp_flow_take(struct udp_flow *flow, const uint8_t *data, size_t length, uint32_t segment);
/* After a batch: hands over what was gathered. */
void udp_flows_give(struct udp_flows *flows);

/* For flows that began without a socket: a reference keeps their memory until here. socket NULL: there is none, it
 * ends. */
struct udp_flow *udp_flow_ref(struct udp_flow *flow);
void udp_flow_unref(struct udp_flow *flow);
void udp_flow_set_socket(struct udp_flow *flow, struct udp_socket *socket);
static inline struct udp_flow *udp_flow_of(struct leg *leg) { return (struct udp_flow *)leg; }

#endif
