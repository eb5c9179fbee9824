/* SPDX-License-Identifier: Apache-2.0 */
/* What udp_flows.c (the table, and the way up) and udp_answers.c (the way back) share. */
#ifndef HERMES_TUNNEL_UDP_FLOWS_INTERNAL_H
#define HERMES_TUNNEL_UDP_FLOWS_INTERNAL_H

#include <event2/util.h>
#include <sys/queue.h>

#include "workers/tunnel/capsule.h"
#include "workers/tunnel/datagram_queue.h"
#include "workers/tunnel/udp_flows.h"

/* BEGUN: no tunnel yet. JOINED: datagrams move. ENDING: idle for too long and out of the table, only answers leave.
 * REFUSED: for a second after the answer was no. OVER: out of the table, and soon gone. */
enum udp_flow_state { UDP_FLOW_BEGUN, UDP_FLOW_JOINED, UDP_FLOW_ENDING, UDP_FLOW_REFUSED, UDP_FLOW_OVER };

struct udp_flow {
	struct leg leg;               /* first; flow NULL once closed */
	struct udp_flows *all;
	enum udp_flow_state state;
	unsigned refs;                /* the table's, the flow's, calls under way, what waits to leave */
	bool listed;                  /* in the table */
	uint32_t hash;
	struct udp_flow *next;        /* in its bucket */
	struct origin origin;
	struct sockaddr_storage client, local;
	bool has_local;

	/* up */
	TAILQ_ENTRY(udp_flow) gathered_link, state_link;   /* REFUSED, ENDING: of their kind */
	struct datagram_queue queue;
	size_t queued;                /* of it, as counted in the worker's sum */
	struct chunks gathered;       /* capsules of this wake-up */
	size_t outstanding;           /* given to the flow, not yet taken */
	bool is_gathered, giving, segments;
	uint64_t forget_at;           /* µs, REFUSED */

	/* back */
	struct udp_socket *socket;    /* NULL: not there yet */
	TAILQ_ENTRY(udp_flow) leaving_link, waiting_link, done_link;
	bool is_leaving, is_waiting;  /* has something in out; was refused by send() */
	bool last, malformed;         /* the far end finished; it sent what no end may */
	struct chunks out;
	struct capsule_reader reader;

	uint16_t key_length, header_length;
	uint8_t key[];                /* header behind it */
};
TAILQ_HEAD(udp_flow_list, udp_flow);

struct udp_flows {
	struct tunnel *tunnel;
	struct listener *listener;
	void (*held)(void *arg, int change);
	void *arg;
	unsigned limit, n, n_buckets; /* n: in the table */
	unsigned alive;               /* flows whose memory is there, and one while the owner has us */
	struct udp_flow **buckets;
	struct udp_flow_list gathered, refused, ending;
	struct event *forget;
	uint64_t seed;                /* nobody can choose addresses that share a bucket */
	bool closing;
	const char *kind;             /* see udp_flows_hand_over_as() */
};

/* udp_flows_table.c */
uint32_t udp_table_hash(const struct udp_flows *all, const uint8_t *key, size_t length);
/* Its key is not in there. The table's reference is the caller's. */
void udp_table_insert(struct udp_flow *flow);
void udp_flow_set_state(struct udp_flow *flow, enum udp_flow_state state);
/* Its key is free again, and its state another. Drops the table's reference, where it was in there. */
void udp_table_remove(struct udp_flow *flow, enum udp_flow_state state);
/* What event `forget` does. */
void udp_table_on_forget(evutil_socket_t fd, short what, void *arg);

/* udp_flows_handover.c: the leg's operation */
bool udp_flow_hand_over(struct leg *leg, struct parcel *parcel);

/* udp_flows.c */
struct udp_flow *udp_flow_make(struct udp_flows *all, const struct udp_begin *begin);
/* Its queue has changed. */
void udp_flow_account(struct udp_flow *flow);

/* udp_answers.c, called by the leg's operations */
void udp_answers_init(struct udp_flow *flow);
bool udp_answers_take(struct udp_flow *flow, struct chunks *chunks);
/* What was taken is read up to its last whole capsule: what follows begins a new stream. */
void udp_answers_restart(struct udp_flow *flow);
/* What was taken leaves, but for what the socket does not take now, which goes into the parcel. */
void udp_answers_hand_over(struct udp_flow *flow, struct parcel *parcel);
/* Nothing follows what was taken. */
void udp_answers_last(struct udp_flow *flow);
/* The flow is closed; deliver: but what was taken still leaves. */
void udp_answers_close(struct udp_flow *flow, bool deliver);

/* udp_flows.c, called by the way back in a turn of its own. */
/* All answers have left: our side ends as well. */
void udp_flow_end(struct udp_flow *flow);
void udp_flow_break(struct udp_flow *flow, enum flow_error error, const char *detail);

#endif
