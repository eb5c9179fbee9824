#include "workers/tunnel/leg_tcp.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "workers/tunnel/handover_parcel.h"

struct tcp_leg {
	struct leg leg;
	struct transport *transport;
	void (*answer)(void *arg, const struct head *response);
	void (*gone)(void *arg);
	void *arg;
	size_t outstanding;           /* given to the flow, not yet taken */
	bool refused;                 /* accepted side: the answer was no; what follows is an error page nobody reads */
};

static void leg_free(struct tcp_leg *leg)
{
	if (leg->gone)
		leg->gone(leg->arg);
	free(leg);
}

/* --- from the transport ---------------------------------------------------------------------------------------------- */

static void on_received(void *arg, struct chunks *chunks)
{
	struct tcp_leg *leg = arg;
	struct transport *transport = leg->transport;
	leg->outstanding += chunks->bytes;
	transport_pause(transport, true);   /* until taken; usually before flow_data() returns */
	flow_data(leg->leg.flow, &leg->leg, chunks);
}

static void on_ended(void *arg)
{
	struct tcp_leg *leg = arg;
	flow_finish(leg->leg.flow, &leg->leg, NULL);
}

static void on_writable(void *arg)
{
	struct tcp_leg *leg = arg;
	flow_writable(leg->leg.flow, &leg->leg);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct tcp_leg *leg = arg;
	struct flow *flow = leg->leg.flow;
	leg->leg.flow = NULL;
	flow_broken(flow, &leg->leg, error, detail);
	transport_free(leg->transport, true);
	leg_free(leg);
}

static const struct transport_callbacks callbacks = {
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.broken = on_broken,
};

/* --- from the flow --------------------------------------------------------------------------------------------------- */

static void accepted_head(struct leg *base, const struct head *response, bool end)
{
	struct tcp_leg *leg = (struct tcp_leg *)base;
	(void)end;
	if (response->status < 200)
		return;
	leg->refused = response->status > 299;
	if (leg->answer)
		leg->answer(leg->arg, response);
}

static void dialled_head(struct leg *base, const struct head *request, bool end)
{
	(void)request, (void)end;
	struct head *response = head_new();
	response->status = 200;
	flow_head(base->flow, base, response, false);
}

static bool tcp_send(struct leg *base, struct chunks *chunks)
{
	struct tcp_leg *leg = (struct tcp_leg *)base;
	if (leg->refused) {
		chunks_clear(chunks);
		return true;
	}
	return transport_send(leg->transport, chunks, false);
}

static void tcp_finish(struct leg *base, const struct head *trailers)
{
	(void)trailers;
	transport_finish(((struct tcp_leg *)base)->transport);
}

static void tcp_taken(struct leg *base, size_t bytes)
{
	struct tcp_leg *leg = (struct tcp_leg *)base;
	leg->outstanding -= bytes;
	if (leg->outstanding == 0)
		transport_pause(leg->transport, false);
}

static void tcp_close(struct leg *base, enum flow_error error)
{
	struct tcp_leg *leg = (struct tcp_leg *)base;
	leg->leg.flow = NULL;
	if (error == FLOW_NONE)
		transport_linger(leg->transport);
	else
		transport_free(leg->transport, true);
	leg_free(leg);
}

static size_t tcp_waiting(const struct leg *base)
{
	return transport_pending(((const struct tcp_leg *)base)->transport);
}

static bool tcp_hand_over(struct leg *base, struct parcel *parcel)
{
	struct tcp_leg *leg = (struct tcp_leg *)base;
	bool dialled = base->ops->raw;
	struct chunks out = {0}, in = {0};
	int fd = leg->refused ? -1 : transport_hand_over(leg->transport, &out, &in);
	if (fd < 0)
		return false;
	parcel_put_chunks(parcel, dialled ? PARCEL_UP : PARCEL_DOWN, &out);
	chunks_clear(&out);
	*(dialled ? &parcel->record.out_kind : &parcel->record.in_kind) = "tcp";
	parcel->fd = fd;
	leg->outstanding += in.bytes;
	if (in.head)
		flow_data(base->flow, base, &in);
	return true;
}

static const struct leg_ops accepted_ops = {
	.kind = "tcp",
	.head = accepted_head,
	.send = tcp_send,
	.finish = tcp_finish,
	.taken = tcp_taken,
	.close = tcp_close,
	.waiting = tcp_waiting,
	.hand_over = tcp_hand_over,
};

static const struct leg_ops dialled_ops = {
	.kind = "tcp",
	.raw = true,
	.head = dialled_head,
	.send = tcp_send,
	.finish = tcp_finish,
	.taken = tcp_taken,
	.close = tcp_close,
	.waiting = tcp_waiting,
	.hand_over = tcp_hand_over,
};

/* --- set-up ---------------------------------------------------------------------------------------------------------- */

static struct tcp_leg *leg_make(const struct leg_ops *ops, struct transport *transport, void (*gone)(void *arg), void *arg)
{
	struct tcp_leg *leg = calloc(1, sizeof(*leg));
	if (!leg)
		abort();
	*leg = (struct tcp_leg){.leg = {.ops = ops}, .transport = transport, .gone = gone, .arg = arg};
	transport_set_striped(transport, true);
	transport_set_callbacks(transport, &callbacks, leg);
	return leg;
}

struct leg *tcp_leg_new(struct tunnel *tunnel, struct transport *transport, struct flow *flow, void (*gone)(void *arg),
                        void *arg)
{
	(void)tunnel;
	struct tcp_leg *leg = leg_make(&dialled_ops, transport, gone, arg);
	leg->leg.flow = flow;
	return &leg->leg;
}

void tcp_leg_accept(struct tunnel *tunnel, struct transport *transport, const struct origin *origin, struct head *request,
                    struct chunks *first, void (*answer)(void *arg, const struct head *response), void (*gone)(void *arg),
                    void *arg)
{
	struct tcp_leg *leg = leg_make(&accepted_ops, transport, gone, arg);
	leg->answer = answer;
	if (first && first->head)
		transport_unread(transport, first);
	flow_new(tunnel, origin, &leg->leg, request, false);
}

static bool is_stream_socket(int fd)
{
	int type = 0;
	socklen_t length = sizeof(type);
	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

struct leg *tcp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct parcel *parcel, bool dialled, bool ended)
{
	int fd = parcel->fd;
	parcel->fd = -1;
	if (!is_stream_socket(fd)) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	struct transport *transport = transport_new(tunnel->base, fd, NULL, TRANSPORT_ACCEPTED, NULL, NULL);
	struct tcp_leg *leg = leg_make(dialled ? &dialled_ops : &accepted_ops, transport, NULL, NULL);
	if (ended)
		transport_was_ended(transport);
	leg->leg.flow = flow;
	return &leg->leg;
}
