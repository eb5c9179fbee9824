/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/leg_udp.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/tunnel/datagram_queue.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/udp_capsule.h"

#define GIVE_BYTES (256u * 1024)      /* at most at once */
#define FLUSHES 4u                    /* before a leg is handed over */
#define FLUSH_MS 5

struct udp_leg {
	struct leg leg;
	struct tunnel *tunnel;
	int fd;
	struct event read, timer;
	struct event *write;          /* made when the socket took no more for the first time */
	void (*gone)(void *arg);
	void *arg;
	struct join join;
	bool joined;
	bool busy, closed;            /* in a call of the flow's: memory stays until it is back */
	enum flow_error failed;       /* told in a turn of its own: a flow must not end inside ops->send() */
	const char *detail;           /* static */
	bool handed;                  /* a successor reads the socket */
	/* towards the target */
	struct capsule_reader reader;
	struct chunks unread;         /* waits for the socket, behind kept */
	struct chunks consumed;       /* what the sender points into */
	struct udp_kept *kept;        /* what the socket did not take */
	bool refused;                 /* the flow waits for flow_writable() */
	bool finished;                /* nothing follows unread */
	bool reset_due;               /* a new stream begins behind unread */
	uint64_t last;                /* µs, of the last datagram after finish */
	/* from the target */
	struct datagram_queue queue;
	struct udp_losses losses;
	size_t outstanding;           /* given to the flow, not yet taken */
};

static void close_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	close((int)(intptr_t)arg);
}

/* One that lives on elsewhere must have left the epoll set before: libevent's change list reaches the kernel when the loop goes on. */
static void close_socket(struct udp_leg *leg)
{
	static const struct timeval now = {0};
	if (leg->handed)
		event_base_once(leg->tunnel->base, -1, EV_TIMEOUT, close_fd, (void *)(intptr_t)leg->fd, &now);
	else
		close(leg->fd);
}

static void leg_free(struct udp_leg *leg)
{
	event_del(&leg->read);
	if (leg->write)
		event_free(leg->write);
	event_del(&leg->timer);
	datagram_queue_clear(&leg->queue);
	capsule_reader_reset(&leg->reader);
	chunks_clear(&leg->unread);
	chunks_clear(&leg->consumed);
	free(leg->kept);
	close_socket(leg);
	if (leg->gone)
		leg->gone(leg->arg);
	free(leg);
}

static void leave(struct udp_leg *leg)
{
	leg->busy = false;
	if (leg->closed)
		leg_free(leg);
}

static void arm(struct udp_leg *leg, unsigned ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	event_add(&leg->timer, &delay);
}

static void fail(struct udp_leg *leg, enum flow_error error, const char *detail)
{
	if (leg->failed)
		return;
	leg->failed = error;
	leg->detail = detail;
	event_del(&leg->read);
	if (leg->write)
		event_del(leg->write);
	arm(leg, 0);
}

/* ICMP said that the target cannot be reached (RFC 9298 3.1). */
static void fail_errno(struct udp_leg *leg, int error)
{
	const char *detail = strerrordesc_np(error);
	fail(leg, error == ECONNREFUSED ? FLOW_CONNECT_REFUSED : FLOW_UNROUTABLE, detail ? detail : "unreachable");
}

static void count(struct udp_leg *leg, enum stats_metric reason, uint32_t n)
{
	if (n > 0)
		datagram_count_drop(leg->queue.stats, reason, 1, n);
}

/* --- towards the target -------------------------------------------------------------------------------------------- */

static void on_writable(evutil_socket_t fd, short what, void *arg);

static void await_writable(struct udp_leg *leg)
{
	if (!leg->write)
		leg->write = event_new(leg->tunnel->base, leg->fd, EV_WRITE, on_writable, leg);
	if (!leg->write || event_add(leg->write, NULL) < 0)
		abort();
}

/* False: the socket takes no more, or is broken. */
static bool flush(struct udp_leg *leg)
{
	unsigned taken, sent, too_long;
	int error = udp_flush(leg->tunnel->udp, leg->fd, &taken, &sent, &too_long);
	count(leg, STATS_CLUSTER_DROP_TOO_LONG, too_long);
	if (error == -EAGAIN) {
		leg->kept = udp_keep(leg->tunnel->udp);
		await_writable(leg);
	} else if (error) {
		fail_errno(leg, -error);
	}
	return error == 0;
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct udp_leg *leg = arg;
	struct udp_sender *sender = leg->tunnel->udp;
	const char *why = udp_capsule_add(sender, NULL, NULL, leg->join.segments, context, pieces, n, length);
	if (why) {
		fail(leg, FLOW_REQUEST, why);
		return false;
	}
	if (udp_full(sender) && !flush(leg))
		leg->reader.paused = true;
	return true;
}

static const struct capsule_callbacks callbacks = {.datagram = on_datagram};

/* Everything that was received has left: a half capsule may follow, but no end within one (RFC 9297 3.3). */
static void check_end(struct udp_leg *leg)
{
	if (leg->reset_due)
		capsule_reader_reset(&leg->reader);
	leg->reset_due = false;
	if (!leg->finished || leg->failed)
		return;
	if (!capsule_read_end(&leg->reader))
		return fail(leg, FLOW_REQUEST, "the stream ends inside a capsule");
	leg->last = now_us();
	arm(leg, UDP_LINGER_MS);
}

static void read_capsules(struct udp_leg *leg)
{
	enum capsule_result result = capsule_read(&leg->reader, &leg->unread);
	if (result != CAPSULE_OK)
		fail(leg, FLOW_REQUEST, result == CAPSULE_TOO_LONG ? "a capsule is too long" : "malformed capsule");
	if (!leg->kept)
		flush(leg);              /* what came before a malformed capsule leaves still */
	chunks_clear(&leg->consumed);
	if (leg->failed)
		chunks_clear(&leg->unread);
	if (!leg->unread.head && !leg->kept)
		check_end(leg);
}

static bool udp_send(struct leg *base, struct chunks *chunks)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	if (leg->failed) {
		chunks_clear(chunks);
		return true;
	}
	if (leg->kept) {
		leg->refused = true;
		return false;
	}
	chunks_move(&leg->unread, chunks);
	read_capsules(leg);
	return true;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct udp_leg *leg = arg;
	unsigned sent, too_long;
	(void)fd, (void)what;
	int error = udp_flush_kept(leg->tunnel->udp, &leg->kept, leg->fd, &sent, &too_long);
	count(leg, STATS_CLUSTER_DROP_TOO_LONG, too_long);
	if (error == -EAGAIN)
		return await_writable(leg);
	if (error)
		return fail_errno(leg, -error);
	read_capsules(leg);
	if (leg->kept || leg->failed || !leg->refused)
		return;
	leg->refused = false;
	leg->busy = true;
	flow_writable(leg->leg.flow, &leg->leg);
	leave(leg);
}

static void udp_finish(struct leg *base, const struct head *trailers)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	(void)trailers;
	leg->finished = true;
	if (!leg->kept)
		check_end(leg);
}

/* --- from the target ----------------------------------------------------------------------------------------------- */

/* The far side gets so much ahead of what it takes; something is always under way, so that taken() comes back here. */
static bool may_give(const struct udp_leg *leg, size_t more)
{
	size_t ahead = leg->outstanding + more;
	return leg->joined && !leg->closed && (ahead == 0 || ahead < slab_allowance());
}

static void hand_over(struct udp_leg *leg, struct chunks *chunks)
{
	if (!chunks->head)
		return;
	leg->outstanding += chunks->bytes;
	flow_data(leg->leg.flow, &leg->leg, chunks);
}

/* What waits, oldest first. Inside busy. */
static void give_queued(struct udp_leg *leg)
{
	const struct datagram_entry *entry;
	while (may_give(leg, 0) && datagram_queue_first(&leg->queue)) {
		struct chunks chunks = {0};
		while (chunks.bytes < GIVE_BYTES && may_give(leg, chunks.bytes) && (entry = datagram_queue_first(&leg->queue))) {
			udp_capsule_put(&chunks, leg->join.segments, entry->data, entry->length, entry->segment);
			datagram_queue_pop(&leg->queue);
		}
		hand_over(leg, &chunks);
	}
}

static void take_in(struct udp_leg *leg, const struct udp_received *in, unsigned n)
{
	struct chunks chunks = {0};
	give_queued(leg);
	bool queue = leg->closed || !STAILQ_EMPTY(&leg->queue.entries);
	for (unsigned i = 0; i < n && !leg->closed; i++) {
		queue = queue || !may_give(leg, chunks.bytes);
		if (queue)
			datagram_queue_add(&leg->queue, in[i].segment, NULL, 0, in[i].data, in[i].length);
		else
			udp_capsule_put(&chunks, leg->join.segments, in[i].data, in[i].length, in[i].segment);
	}
	hand_over(leg, &chunks);
	if (!leg->closed)
		give_queued(leg);        /* where all was taken at once */
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct udp_leg *leg = arg;
	struct udp_received in[UDP_BATCH];
	(void)what;
	int n = udp_receive(fd, in, UDP_BATCH);
	if (n < 0)
		return fail_errno(leg, -n);
	count(leg, STATS_CLUSTER_DROP_SOCKET_FULL, udp_losses(&leg->losses, in, n));
	if (leg->finished)
		leg->last = now_us();
	leg->busy = true;
	take_in(leg, in, (unsigned)n);
	leave(leg);
}

static void udp_taken(struct leg *base, size_t bytes)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	leg->outstanding -= bytes < leg->outstanding ? bytes : leg->outstanding;
	if (leg->busy || leg->closed || STAILQ_EMPTY(&leg->queue.entries))
		return;
	leg->busy = true;
	give_queued(leg);
	leave(leg);
}

static void udp_joined(struct leg *base, const struct join *join)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	if (leg->unread.head || leg->kept)
		leg->reset_due = true;
	else
		capsule_reader_reset(&leg->reader);
	leg->join = *join;
	leg->joined = true;
	if (leg->busy)
		return;
	leg->busy = true;
	give_queued(leg);
	leave(leg);
}

/* --- the rest ------------------------------------------------------------------------------------------------------ */

static void tell_failed(struct udp_leg *leg)
{
	struct flow *flow = leg->leg.flow;
	leg->leg.flow = NULL;
	flow_broken(flow, &leg->leg, leg->failed, leg->detail);
	leg_free(leg);
}

/* After the client's end answers still come for a while; then it is over, as soon as they are under way. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct udp_leg *leg = arg;
	uint64_t quiet = now_us() - leg->last;
	(void)fd, (void)what;
	if (leg->failed)
		return tell_failed(leg);
	if (datagram_queue_first(&leg->queue))
		return arm(leg, UDP_LINGER_MS);
	if (quiet < UDP_LINGER_MS * 1000u)
		return arm(leg, UDP_LINGER_MS - (unsigned)(quiet / 1000));
	event_del(&leg->read);
	leg->busy = true;
	flow_finish(leg->leg.flow, &leg->leg, NULL);
	leave(leg);
}

static void udp_head(struct leg *base, const struct head *request, bool end)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	(void)request, (void)end;
	event_add(&leg->read, NULL);
	leg->busy = true;
	flow_head(base->flow, base, masque_response(), false);
	if (!leg->closed)
		give_queued(leg);
	leave(leg);
}

static void udp_close(struct leg *base, enum flow_error error)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	(void)error;                     /* UDP knows no way to tell the target */
	leg->leg.flow = NULL;
	leg->closed = true;
	if (!leg->busy)
		leg_free(leg);
}

static size_t udp_waiting(const struct leg *base)
{
	return ((const struct udp_leg *)base)->unread.bytes;
}

/* What the socket did not take goes first, if it goes soon. */
static bool flush_soon(struct udp_leg *leg)
{
	struct pollfd wait = {.fd = leg->fd, .events = POLLOUT};
	unsigned sent, too_long;
	for (unsigned i = 0; leg->kept && i < FLUSHES; i++) {
		poll(&wait, 1, FLUSH_MS);
		int error = udp_flush_kept(leg->tunnel->udp, &leg->kept, leg->fd, &sent, &too_long);
		count(leg, STATS_CLUSTER_DROP_TOO_LONG, too_long);
		if (error && error != -EAGAIN)
			break;
	}
	return !leg->kept;
}

static bool udp_hand_over(struct leg *base, struct parcel *parcel)
{
	struct udp_leg *leg = (struct udp_leg *)base;
	if (leg->failed || leg->finished || leg->busy || !leg->joined || !flush_soon(leg))
		return false;
	event_del(&leg->read);
	if (leg->write)
		event_del(leg->write);
	event_del(&leg->timer);
	leg->handed = true;
	parcel_put_chunks(parcel, PARCEL_UP, &leg->unread);
	parcel_put_queue(parcel, PARCEL_OUT_QUEUE, &leg->queue);
	parcel->record.out_kind = "udp";
	parcel->fd = leg->fd;
	return true;
}

static const struct leg_ops ops = {
	.kind = "udp",
	.head = udp_head,
	.send = udp_send,
	.finish = udp_finish,
	.taken = udp_taken,
	.close = udp_close,
	.waiting = udp_waiting,
	.joined = udp_joined,
	.hand_over = udp_hand_over,
};

struct leg *udp_leg_new(struct tunnel *tunnel, int fd, struct flow *flow, struct stats_set *stats, void (*gone)(void *arg),
                        void *arg)
{
	const struct config *config = tunnel->current->config;
	struct udp_leg *leg = calloc(1, sizeof(*leg));
	if (!leg)
		abort();
	*leg = (struct udp_leg){.leg = {.ops = &ops, .flow = flow}, .tunnel = tunnel, .fd = fd, .gone = gone, .arg = arg,
	                        .reader = {.callbacks = &callbacks, .arg = leg, .consumed = &leg->consumed}};
	datagram_queue_init(&leg->queue, config->datagram_queue, (uint64_t)config->datagram_age * 1000, stats);
	leg->queue.full = STATS_CLUSTER_DROP_QUEUE_FULL;
	leg->queue.old = STATS_CLUSTER_DROP_TOO_OLD;
	event_assign(&leg->read, tunnel->base, fd, EV_READ | EV_PERSIST, on_readable, leg);
	event_assign(&leg->timer, tunnel->base, -1, 0, on_timer, leg);
	return &leg->leg;
}

static bool is_datagram_socket(int fd)
{
	int type = 0;
	socklen_t length = sizeof(type);
	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_DGRAM;
}

struct leg *udp_leg_restore(struct tunnel *tunnel, struct flow *flow, struct stats_set *stats, struct parcel *parcel)
{
	int fd = parcel->fd;
	parcel->fd = -1;
	if (!is_datagram_socket(fd)) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	struct udp_leg *leg = (struct udp_leg *)udp_leg_new(tunnel, fd, flow, stats, NULL, NULL);
	parcel_get_queue(parcel, PARCEL_OUT_QUEUE, &leg->queue);
	event_add(&leg->read, NULL);
	return &leg->leg;
}
