/* SPDX-License-Identifier: Apache-2.0 */
/* What lets a tunnel go on when the way under it breaks or changes. Shared by flow_tunnel.c (what the ends agree on),
 * flow_resume.c (counting, keeping and sending again), flow_stream.c (the same for the bytes of TCP tunnels), flow_park.c (the far
 * end that waits) and flow_move.c (the client end's other way).
 *
 * The client end is where the in leg ends the capsule stream, the far end where the out leg does; hops in between relay. The two
 * ends number the bytes of each direction since the tunnel began, without the capsules of Hermes' own.
 *
 * TCP tunnels are capsule streams between the two ends only: made and opened here, at the joint (going_data). Their client end is
 * where a flow leaves by HTTP/2 that came without the field, their far end where it leaves by TCP. What is kept of them are the
 * stream's own bytes, none is dropped: while more than resume_bytes wait for an acknowledgement the plain leg is not read. */
#ifndef HERMES_TUNNEL_FLOW_RESUME_H
#define HERMES_TUNNEL_FLOW_RESUME_H

#include <uthash.h>

#include "workers/tunnel/capsule_stream.h"
#include "workers/tunnel/flow_internal.h"

/* BOTH: no HTTP hop in between. */
enum going_role { GOING_CLIENT, GOING_FAR, GOING_BOTH, GOING_RELAY };

/* Capsules that come from the other end over one way. Only whole ones go on to the leg that reads them. */
struct source {
	struct capsule_cursor cursor;
	struct chunks partial;        /* the half capsule at its end; its bytes are credited already */
	uint64_t base;                /* number of its first byte */
	uint64_t skip;                /* bytes at its beginning that came by the former way; 0: they are behind */
	bool through;                 /* a capsule too long to be kept is passed on as it comes */
};

struct going {
	struct flow *flow;
	enum going_role role;
	uint8_t id[TUNNEL_ID];        /* has_id: the other end can go on; the far end's are in tunnel->going */
	UT_hash_handle hh;
	bool has_id;
	bool ack_waits;               /* an acknowledgement is among what the HTTP leg has not taken */
	bool move_due;                /* relay: CAPSULE_HERMES_MOVE goes in at the next capsule's end */
	struct source from;           /* what the other end sends (relay: what it sends down); not of TCP tunnels */
	/* TCP tunnels: `kept` and `given` are bytes of the stream; acked counts its end as one more. */
	bool stream;
	bool gave_end;                /* the plain leg finished: number `given` is the end */
	bool over;                    /* the other end has all, and is gone: what is left is for the plain leg */
	bool forsaken;                /* client: the program broke off; the far end is being told */
	bool must_move;               /* client: the former way must not be used on */
	struct stream_reader reader;  /* what the other end sends */
	uint64_t told;                /* received, as the other end knows */
	struct chunks kept;           /* what the plain leg gave and the other end has not acknowledged */
	uint64_t given;               /* number of the next byte that it gives */
	size_t unsent;                /* of kept, at its end: the HTTP leg has not taken it */
	uint64_t acked;
	struct capsule_cursor forgotten;   /* finds ends of capsules in what is kept no longer */
	/* The client end's other ways. */
	struct leg *old;              /* the former, while what it still gives is awaited */
	struct source old_from;
	size_t old_untaken;
	struct leg *next;             /* asked to open the tunnel, or to go on with it */
	struct decision *decision;    /* where next leads, or is to lead */
	struct endpoint_used used;
	unsigned tries;
	struct event timer;
	uint64_t ack_at, retry_at, way_until, drained_at, until;   /* µs; 0: not */
	unsigned resumed, moved;
};

/* flow_resume.c */
/* What it has of the other end, as acknowledged. */
uint64_t going_has(const struct going *going);
void going_acknowledge(struct going *going);
/* Further references to the same bytes; `from` keeps its headroom. */
void chunks_refer(struct chunks *to, const struct chunks *from);
struct going *going_new(struct flow *flow, enum going_role role);
/* The far end: a new id. */
void going_name(struct going *going);
void going_arm(struct going *going);
uint64_t source_received(const struct source *source);
/* What comes next begins a capsule; a half one is forgotten. */
void source_rewind(struct source *source);
/* Leaves in chunks what goes on to the plain leg. Returns how many bytes are to be credited at once. */
size_t source_take(struct source *source, struct chunks *chunks);
/* Whether the other end can have received so much. */
bool going_plausible(const struct going *going, uint64_t received);
/* The other end has `received`: what is kept beyond is all that waits to be sent. Returns the number it begins with. */
uint64_t going_replay(struct going *going, uint64_t received);
/* Another far end: what was never sent is all that waits, its first byte is number 0. */
void going_begin_anew(struct going *going, bool has_id);
/* Towards the other end. */
struct side *going_to_peer(struct going *going);

/* flow_park.c. The connection that the flow came by is gone: who asked is kept. False: that cannot be. */
bool going_keep_origin(struct flow *flow);

/* flow_stream.c: the same for TCP tunnels. */
void stream_data(struct flow *flow, bool up, struct chunks *chunks);
/* Whether what the plain leg gave may be credited: not while too much is kept. */
bool stream_credits(const struct going *going);
bool stream_plausible(const struct going *going, uint64_t received);
uint64_t stream_replay(struct going *going, uint64_t received);
/* The bytes before agreement and the agreement's mark: what is held becomes capsules. */
void stream_open_client(struct going *going);
/* Ends the flow when both directions are over, delivered and acknowledged. */
void stream_check(struct flow *flow);
/* Both ends have all: the loss of the way between them is no loss. */
bool stream_settled(const struct going *going);
/* The way is gone. True: it needs no other, since both ends have all; what is left is delivered. */
bool stream_over(struct flow *flow);

/* flow_drain.c. The client end is to open anew: said to it at the next capsule's end. */
void going_ask_to_move(struct flow *flow);

/* flow_move.c */
/* The timer's part. */
void way_on_timer(struct flow *flow, uint64_t now);
void way_drained(struct flow *flow);
/* The other end asks for it. */
void way_asked(struct flow *flow);

#endif
