/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a handover: the channel, the walk through the flows of a worker that stops, and what the next one makes of it. */
#include "workers/tunnel/handover.h"

#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/flow_redecide.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/handover_flow.h"

#define BACKLOG (2u << 20)            /* bytes that the channel has not taken: the walk waits */
#define BATCH 64u                     /* flows per turn of the loop */
#define LATE_MS 20                    /* between looks for flows that could not go with the others */
#define WAIT_MS 2                     /* for the channel to drain */
#define SILENCE_MS 2000               /* of a predecessor whose channel is there */
#define CHANNEL_MS 20000              /* until that is there */

/* IDLE: nobody hands over to anybody. */
enum state { HANDOVER_IDLE, HANDOVER_WALKING, HANDOVER_DRAINING };

struct handover {
	struct tunnel *tunnel;
	/* from the predecessor */
	struct ipc_channel *from;
	bool expects;                 /* it has not come yet */
	struct event *limit, *late;   /* how long it is awaited; and a flow behind the others */
	struct parcel parcel;         /* of the flow that is coming */
	struct ipc_arena *arena;
	uint64_t taken, refused, began;
	void (*expected)(void *arg);
	void *expected_arg;
	/* to the successor */
	struct ipc_channel *to;
	enum state state;
	bool wanted;                  /* STOP came while the predecessor's flows are still to come */
	struct event *walk;
	struct flow *cursor;          /* the next one; the walk has it entered */
	uint64_t sent, left, failed, walk_began;
	void (*done)(void *arg);
	void *arg;
};

static struct handover *make(struct tunnel *tunnel);

static void arm(struct event *event, unsigned ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
	event_add(event, &delay);
}

/* --- from the predecessor ------------------------------------------------------------------------------------------- */

static void begin(struct handover *h);

static void received_all(struct handover *h, const char *why)
{
	struct tunnel *tunnel = h->tunnel;
	if (!tunnel->awaiting)
		return;
	tunnel->awaiting = false;
	tunnel->late = h->from ? h->late : NULL;
	event_del(h->limit);
	log_info("flows taken over", "flows=%llu refused=%llu ms=%llu by=%s", (unsigned long long)h->taken,
	         (unsigned long long)h->refused, (unsigned long long)((now_us() - h->began) / 1000), log_value(why));
	h->expected(h->expected_arg);
	handover_release(tunnel, !tunnel->late);
	if (tunnel->n_held > 0)
		arm(h->late, LATE_MS * 5);
	if (h->wanted)
		begin(h);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	received_all(arg, "the predecessor says nothing");
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	struct handover *h = arg;
	(void)fd, (void)what;
	handover_release(h->tunnel, true);
}

static void take_flow(struct handover *h, const struct ipc_handover_flow *m, int *fd)
{
	const char *why;
	if (!parcel_take(&h->parcel, m, h->arena, &why))
		return;
	h->parcel.fd = *fd;
	*fd = -1;
	bool begins = m->kind && strcmp(m->kind, "begin") == 0, known = begins || (m->kind && strcmp(m->kind, "flow") == 0);
	if (!why)
		why = !known ? "its kind is not known" : begins ? handover_begin_again(h->tunnel, &h->parcel)
		                                                : handover_restore(h->tunnel, &h->parcel);
	if (!why && !h->tunnel->awaiting)
		handover_release(h->tunnel, false);
	if (why)
		log_warn("flow not taken over", "id=%llu reason=%s", (unsigned long long)h->parcel.record.id, log_value(why));
	h->taken += !why;
	h->refused += why != NULL;
	if (h->parcel.fd >= 0)
		close(h->parcel.fd);
	parcel_clear(&h->parcel);
}

static void from_predecessor(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	struct handover *h = arg;
	(void)channel;
	if (h->tunnel->awaiting)
		arm(h->limit, SILENCE_MS);
	if (type == IPC_MSG_HANDOVER_FLOW)
		take_flow(h, &message->handover_flow, fd);
	else if (type == IPC_MSG_HANDOVER_END)
		received_all(h, "the predecessor");
}

static void predecessor_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct handover *h = arg;
	h->from = NULL;
	h->tunnel->late = NULL;
	ipc_channel_free(channel);
	if (!h->tunnel->awaiting)
		handover_release(h->tunnel, true);
	received_all(h, reason);
}

void handover_expect(struct tunnel *tunnel, void (*done)(void *arg), void *arg)
{
	struct handover *h = make(tunnel);
	h->expected = done;
	h->expected_arg = arg;
	h->began = now_us();
	tunnel->awaiting = h->expects = true;
	arm(h->limit, CHANNEL_MS);
}

/* --- to the successor ----------------------------------------------------------------------------------------------- */

static void leave_cursor(struct handover *h)
{
	struct flow *flow = h->cursor;
	h->cursor = NULL;
	if (flow)
		flow_leave(flow);
}

static void set_cursor(struct handover *h, struct flow *flow)
{
	if (flow)
		flow_enter(flow);
	leave_cursor(h);
	h->cursor = flow;
}

static void hand_over(struct handover *h, struct flow *flow)
{
	struct parcel parcel;
	parcel_init(&parcel);
	enum handover_what what = handover_pack(flow, &parcel);
	if (what == HANDOVER_REFUSE)
		flow_end(flow, FLOW_REFUSED_STREAM, FLOW_CANCELLED);
	if (what == HANDOVER_LEAVE)
		h->left++;
	if (what == HANDOVER_FLOW || what == HANDOVER_BEGIN) {
		int error = parcel_send(&parcel, h->to, what == HANDOVER_FLOW ? "flow" : "begin");
		if (error)
			log_warn("flow not handed over", "id=%llu error=%s", (unsigned long long)flow->id,
			         log_value(strerror(-error)));
		h->failed += error != 0;
		h->sent += error == 0;
		stats_add(h->tunnel->self, STATS_WORKER_HANDED_OVER, error == 0);
		flow_vanish(flow);
	}
	parcel_clear(&parcel);
}

static void finish(struct handover *h)
{
	struct ipc_handover_end end = {.flows = h->sent};
	h->state = HANDOVER_DRAINING;
	h->tunnel->handing = false;
	leave_cursor(h);
	if (h->to)
		ipc_send(h->to, IPC_MSG_HANDOVER_END, &end, -1);
	log_info("flows handed over", "flows=%llu left=%llu failed=%llu ms=%llu", (unsigned long long)h->sent,
	         (unsigned long long)h->left, (unsigned long long)h->failed,
	         (unsigned long long)((now_us() - h->walk_began) / 1000));
	h->done(h->arg);
	arm(h->walk, LATE_MS);
}

/* TCP tunnels that were not open yet, or between two ways, follow as soon as they can. */
static void walk_late(struct handover *h)
{
	for (struct flow *flow = h->tunnel->flows, *next; flow && h->to && ipc_backlog(h->to) < BACKLOG; flow = next) {
		flow_enter(flow);
		if (flow->going && flow->going->stream)
			hand_over(h, flow);
		next = flow->next;
		flow_leave(flow);
	}
	if (h->to)
		arm(h->walk, LATE_MS);
}

static void on_walk(evutil_socket_t fd, short what, void *arg)
{
	struct handover *h = arg;
	(void)fd, (void)what;
	if (h->state == HANDOVER_DRAINING)
		return walk_late(h);
	for (unsigned i = 0; i < BATCH && h->cursor && h->to && ipc_backlog(h->to) < BACKLOG; i++) {
		struct flow *flow = h->cursor;
		flow_enter(flow);
		hand_over(h, flow);
		set_cursor(h, flow->prev);
		flow_leave(flow);
	}
	if (!h->to || !h->cursor)
		return finish(h);
	arm(h->walk, ipc_backlog(h->to) < BACKLOG ? 0 : WAIT_MS);
}

static void from_successor(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	(void)channel, (void)type, (void)message, (void)fd, (void)arg;
}

static void successor_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct handover *h = arg;
	log_info("successor gone", "reason=%s", log_value(reason));
	h->to = NULL;
	ipc_channel_free(channel);
}

static void begin(struct handover *h)
{
	h->wanted = false;
	h->state = HANDOVER_WALKING;
	h->walk_began = now_us();
	h->tunnel->handed = true;
	/* the oldest first: of tunnels that hold an address together the successor, too, takes the last for the youngest (ip_pool.h) */
	struct flow *oldest = h->tunnel->flows;
	while (oldest && oldest->next)
		oldest = oldest->next;
	set_cursor(h, oldest);
	arm(h->walk, 0);
}

bool handover_begin(struct tunnel *tunnel, void (*done)(void *arg), void *arg)
{
	struct handover *h = tunnel->handover;
	if (!h || !h->to || h->state != HANDOVER_IDLE)
		return false;
	h->done = done;
	h->arg = arg;
	tunnel->handing = true;
	if (tunnel->awaiting)
		h->wanted = true;       /* what is still coming goes on to the next one as well */
	else
		begin(h);
	return true;
}

bool handover_running(const struct tunnel *tunnel)
{
	const struct handover *h = tunnel->handover;
	return h && (h->wanted || h->state == HANDOVER_WALKING || (h->state == HANDOVER_DRAINING && h->to && ipc_backlog(h->to) > 0));
}

/* --- both ----------------------------------------------------------------------------------------------------------- */

static struct handover *make(struct tunnel *tunnel)
{
	struct handover *h = tunnel->handover;
	if (h)
		return h;
	h = tunnel->handover = calloc(1, sizeof(*h));
	if (!h || !(h->arena = ipc_arena_new()))
		abort();
	h->tunnel = tunnel;
	parcel_init(&h->parcel);
	h->limit = evtimer_new(tunnel->base, on_limit, h);
	h->late = evtimer_new(tunnel->base, on_late, h);
	h->walk = evtimer_new(tunnel->base, on_walk, h);
	if (!h->limit || !h->late || !h->walk)
		abort();
	return h;
}

void handover_peer(struct tunnel *tunnel, int fd)
{
	struct handover *h = make(tunnel);
	unsigned own = tunnel->worker ? worker_index(tunnel->worker) : 0;
	bool predecessor = h->expects;
	struct ipc_channel *channel = ipc_channel_new(tunnel->base, fd, IPC_TUNNEL, own, IPC_TUNNEL,
	                                              predecessor ? from_predecessor : from_successor,
	                                              predecessor ? predecessor_ended : successor_ended, h);
	if (!channel)
		return;
	h->expects = false;
	if (predecessor) {
		h->from = channel;
		if (tunnel->awaiting)
			arm(h->limit, SILENCE_MS);
		else
			tunnel->late = h->late;
	} else {
		if (h->to)
			ipc_channel_free(h->to);
		h->to = channel;
	}
}

void handover_free(struct tunnel *tunnel)
{
	struct handover *h = tunnel->handover;
	if (!h)
		return;
	leave_cursor(h);
	ipc_channel_free(h->from);
	ipc_channel_free(h->to);
	event_free(h->limit), event_free(h->late), event_free(h->walk);
	parcel_clear(&h->parcel);
	ipc_arena_free(h->arena);
	free(h);
	tunnel->handover = NULL;
	tunnel->late = NULL;
}
