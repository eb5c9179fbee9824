/* What the files of a flow share: flow.c (moving heads and bytes), flow_begin.c (identity, decision, way out, retries),
 * flow_end.c (errors, the record), flow_redecide.c (after a change of configuration), flow_json.c (what an
 * operator sees). */
#ifndef HERMES_TUNNEL_FLOW_INTERNAL_H
#define HERMES_TUNNEL_FLOW_INTERNAL_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "workers/tunnel/ask.h"
#include "workers/tunnel/auth.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/flow.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/own_origin.h"
#include "workers/tunnel/tunnel_header.h"

/* PARKED: far end of a tunnel whose client end is away. RESUMING: client end that seeks another way. */
#define FLOW_STATES(S) S(BEGINNING) S(PROVING) S(ASKING) S(OPENING) S(WAITING) S(STREAMING) S(BACKING_OFF) \
	S(PARKED) S(RESUMING) S(ENDED)
enum flow_state {
#define S(ID) FLOW_STATE_##ID,
	FLOW_STATES(S)
#undef S
};

/* One direction. */
struct side {
	struct chunks held;           /* received, refused by the far leg or waiting for it */
	size_t untaken;               /* received, not yet credited to the near leg */
	struct head *trailers;
	uint64_t bytes;
	bool ended;                   /* the near leg said so */
	bool finished;                /* the far leg was told so */
};

struct flow {
	struct flow *prev, *next;     /* of the worker */
	uint64_t id;
	struct tunnel *tunnel;
	struct generation *generation;
	const struct origin *origin;
	struct own_origin *own;       /* what origin points into where no connection owns it; else NULL */
	struct leg *in, *out;
	enum flow_state state;
	unsigned busy;                /* calls under way: memory stays */
	struct side up, down;         /* request and response direction */
	struct head *request;         /* until the response's head is there */
	char *user;
	struct auth_query *auth;
	struct ask_query *query;
	struct decision *decision;
	struct asked *asked_head;     /* what the decision examined, for deciding anew (flow_redecide.c) */
	uint64_t asked_under, decided_under;   /* generations in force when it was asked and by which it was decided */
	struct probe *probe;          /* what an operator's probe asks about (probe.h); else NULL */
	struct attempt *attempt;
	struct endpoint_used used;
	uint64_t tried_endpoints;
	unsigned attempts, free_retries, informational;
	struct chunks replay;         /* the request's body so far, while it may have to be sent again */
	bool replayable;
	bool request_end_first;       /* the request has no body */
	bool connect;                 /* a tunnel once it is open */
	bool by_password;             /* the user was proven by one of `users:` */
	bool tunnel_open;
	bool head_sent;               /* the final response head went to the in leg */
	bool out_ready;               /* the out leg has the request's head */
	struct tunnel_header asked_tunnel;   /* what the client end asked for (flow_tunnel.c) */
	bool offered;                 /* to the far end of a TCP tunnel, which has not answered: all early bytes are kept (replay) */
	struct join join;             /* what the ends agreed on */
	struct going *going;          /* tunnels between Hermes ends once they are open: flow_resume.h; else NULL */
	/* For the record; outlive the request's head. */
	char *method, *protocol, *authority, *path;
	struct event timer;
	uint64_t began, asked, decided, opening, opened, first, last;   /* µs */
	uint64_t try_deadline, resume_at;
	bool held;                    /* until the predecessor has handed over (handover.h) */
	unsigned status;
	enum flow_error error;
	char detail[160];
};

const char *flow_state_name(enum flow_state state);
void flow_set_state(struct flow *flow, enum flow_state state);
/* Brackets around everything that may end the flow: leave frees it when it has ended. */
void flow_enter(struct flow *flow);
void flow_leave(struct flow *flow);
/* Moves what is held towards the far leg, and the end behind it. May end the flow. */
void flow_pump(struct flow *flow, bool up);

/* flow_begin.c */
void flow_begin(struct flow *flow);
void flow_attempt(struct flow *flow);
/* An attempt for flow->request. */
struct attempt *flow_open(struct flow *flow, const struct decision *decision, unsigned tried);
/* Its peer, where it has one, may still connect and speak for the flow's user. */
bool flow_may_speak(const struct flow *flow);
/* What it waited for has come (handover_hold()): joins that, or goes its own way. */
void flow_released(struct flow *flow);
/* Another attempt if the decision and what was sent so far allow one; false: no. */
bool flow_retry(struct flow *flow, enum flow_error error, unsigned status);
void flow_arm(struct flow *flow);
void flow_on_timer(evutil_socket_t fd, short what, void *arg);

/* flow_tunnel.c: what two Hermes ends of a tunnel agree on. All do nothing for other flows. */
/* Before the request goes to the out leg: the client end offers, the far end keeps what it was offered. */
void flow_tunnel_offer(struct flow *flow);
/* Before the response that opens the tunnel goes to the in leg. */
void flow_tunnel_agree(struct flow *flow, struct head *response);
/* After it did: both legs may move datagrams. */
void flow_tunnel_joined(struct flow *flow);

/* flow_resume.c. going_* up-calls: only where flow->going is set. */
/* Chunks that a leg gave: those that may go on stay. */
void going_data(struct flow *flow, bool up, struct chunks *chunks);
/* They went on: acknowledges. */
void going_received(struct flow *flow);
/* A leg took what was held. */
void going_sent(struct flow *flow, bool up);
/* Whether the near leg may be told that what it gave was taken. */
bool going_credits(const struct flow *flow, bool up);
/* Capsules of Hermes' own are still read from a direction that has ended. */
bool going_listens(const struct flow *flow, bool up);
/* flow_stream.c: the ends of a TCP tunnel. */
/* A leg of it finished: true, that is taken care of. */
bool going_finish(struct flow *flow, bool up);
/* The program broke off: true, the far end is told before the flow ends. */
bool going_forsake(struct flow *flow, const char *why);
/* Before the far end's answer no more than can be sent again goes out, and no end. */
bool flow_offer_waits(const struct flow *flow, bool end);
/* The in leg broke: true, the far end waits for another one. */
bool going_park(struct flow *flow, const char *why);
/* From another worker: a far end that waits for its client end. */
void going_restored(struct flow *flow);
/* The flow ends: before its legs are closed. True: the in leg knows by a clean end. */
bool going_end(struct flow *flow);
void going_free(struct going *going);
/* The request goes on with a tunnel that lives here: its in leg is that one's now, and the flow is over. */
bool flow_join(struct flow *flow);
/* flow_move.c: the client end. */
/* The way out broke: true, another one is sought. */
bool way_broken(struct flow *flow, const char *why);
/* From another worker, its in leg joined: a way is sought. */
void way_restored(struct flow *flow);
void way_opened(struct flow *flow, struct leg *leg);
void way_failed(struct flow *flow, const char *detail);
/* Legs that are neither in nor out. */
static inline bool way_is(const struct flow *flow, const struct leg *leg)
{
	return flow->going && leg != flow->in && leg != flow->out;
}
void way_head(struct flow *flow, struct leg *leg, const struct head *response);
void way_data(struct flow *flow, struct leg *leg, struct chunks *chunks);
void way_finish(struct flow *flow, struct leg *leg);
void way_gone(struct flow *flow, struct leg *leg, const char *why);
/* Decided anew, elsewhere: no longer to the cluster or the endpoint in use. True: taken care of, the reference with it. */
bool way_decided(struct flow *flow, struct decision *decision, bool elsewhere);
/* By which the attempt under way is made. */
const struct decision *way_decision(const struct flow *flow);

/* flow_redecide.c */
/* Whether the endpoint is still one of the decision's cluster, and the cluster the same as that in use. */
bool flow_leads_elsewhere(const struct flow *flow, const struct decision *decision);
/* The request as it was asked about. */
struct head *flow_asked(const struct flow *flow);
void flow_decide_anew(struct flow *flow);

/* flow_end.c */
/* The access log's record of a flow that goes on its way, where one is configured. */
void flow_record_start(struct flow *flow);
/* It goes no further: retries, or answers with the error while no response head was sent, else breaks the in leg. */
void flow_fail(struct flow *flow, enum flow_error error, const char *detail);
/* Answers by ourselves with this status. */
void flow_answer(struct flow *flow, unsigned status, enum flow_error error, const char *detail);
/* It goes on in another worker: closes its legs, and writes no record. */
void flow_vanish(struct flow *flow);
/* Closes both legs and writes the record; memory goes with the last flow_leave(). */
void flow_end(struct flow *flow, enum flow_error in, enum flow_error out);

#endif
