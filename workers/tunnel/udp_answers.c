/* SPDX-License-Identifier: Apache-2.0 */
/* The way back of UDP flows: capsules to datagrams, those of all flows of a wake-up together by their socket (GSO).
 * A socket that takes no more keeps what was read already, refuses further capsules, and waits until it is writable. */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/udp_flows_internal.h"

#define TAKE_MAX (256u * 1024)    /* of capsules that a flow may have waiting here */
#define PIECES (CAPSULE_PIECES + 1)   /* of a datagram and the header before it */

struct udp_socket {
	struct tunnel *tunnel;
	struct stats_set *stats;
	int fd;
	unsigned refs;
	struct event *turn;           /* what was taken leaves at the end of this turn */
	struct event *writable;       /* made when the socket took no more for the first time */
	struct udp_flow_list leaving; /* they have something in out */
	struct udp_flow_list waiting; /* they were refused */
	bool blocked;
	struct udp_kept *kept;        /* what it did not take ... */
	struct datagram_queue held;   /* ... and what had been read when that showed: prefix is the flow, which it holds */
	struct chunks consumed;       /* what was read lies there until it has left */
};

/* --- the socket --------------------------------------------------------------------------------------------------- */

static void on_turn(evutil_socket_t fd, short what, void *arg);
static void on_writable(evutil_socket_t fd, short what, void *arg);

struct udp_socket *udp_socket_new(struct tunnel *tunnel, struct stats_set *stats, int fd)
{
	struct udp_socket *s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	*s = (struct udp_socket){.tunnel = tunnel, .stats = stats, .fd = fd, .refs = 1};
	TAILQ_INIT(&s->leaving);
	TAILQ_INIT(&s->waiting);
	datagram_queue_init(&s->held, SIZE_MAX, UINT64_MAX, NULL);
	s->turn = event_new(tunnel->base, -1, 0, on_turn, s);
	if (!s->turn)
		abort();
	return s;
}

struct udp_socket *udp_socket_ref(struct udp_socket *s)
{
	s->refs++;
	return s;
}

int udp_socket_fd(const struct udp_socket *s)
{
	return s->fd;
}

static void close_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	close((int)(intptr_t)arg);
}

/* The supervisor may hold the socket too: closed before libevent's change list has reached the kernel, it would stay
 * in the epoll set for good. So it is closed in the next turn. */
void udp_socket_unref(struct udp_socket *s)
{
	static const struct timeval now = {0};
	if (!s || --s->refs > 0)
		return;
	struct event_base *base = s->tunnel->base;
	event_free(s->turn);
	if (s->writable)
		event_free(s->writable);
	chunks_clear(&s->consumed);
	free(s->kept);
	event_base_once(base, -1, EV_TIMEOUT, close_fd, (void *)(intptr_t)s->fd, &now);
	free(s);
}

/* --- sending ------------------------------------------------------------------------------------------------------ */

static void block(struct udp_socket *s)
{
	s->blocked = true;
	if (!s->writable)
		s->writable = event_new(s->tunnel->base, s->fd, EV_WRITE, on_writable, s);
	if (!s->writable || event_add(s->writable, NULL) < 0)
		abort();
}

static void send_added(struct udp_socket *s)
{
	unsigned taken, sent, too_long;
	int error = udp_flush(s->tunnel->udp, s->fd, &taken, &sent, &too_long);
	if (too_long > 0 && s->stats)
		stats_add(s->stats, STATS_LISTENER_DROP_TOO_LONG, too_long);
	if (error == -EAGAIN)
		s->kept = udp_keep(s->tunnel->udp);
	if (s->kept)
		block(s);
	chunks_clear(&s->consumed);
}

static bool add(struct udp_socket *s, struct udp_flow *f, const struct iovec *pieces, unsigned n, uint32_t segment)
{
	return udp_add(s->tunnel->udp, &f->client, f->has_local ? &f->local : NULL, pieces, n, segment);
}

static void hold(struct udp_socket *s, struct udp_flow *f, const struct iovec *pieces, unsigned n, uint32_t segment)
{
	static uint8_t whole[CAPSULE_DATAGRAM_MAX + 512u];
	size_t length = 0;
	for (unsigned i = 0; i < n; i++) {
		memcpy(whole + length, pieces[i].iov_base, pieces[i].iov_len);
		length += pieces[i].iov_len;
	}
	datagram_queue_add(&s->held, segment, &f, sizeof(f), whole, length);
	udp_flow_ref(f);
}

static void send_or_hold(struct udp_flow *f, const struct iovec *pieces, unsigned n, uint32_t segment)
{
	struct udp_socket *s = f->socket;
	if (!s->blocked && add(s, f, pieces, n, segment))
		return;
	if (!s->blocked)
		send_added(s);                  /* the batch was full */
	if (s->blocked || !add(s, f, pieces, n, segment))
		hold(s, f, pieces, n, segment);
}

/* As many as fit into one batch. */
static void send_held(struct udp_socket *s)
{
	struct datagram_entry *entry;
	struct udp_flow *f;
	unsigned n = 0;
	STAILQ_FOREACH(entry, &s->held.entries, link) {
		struct iovec piece = {entry->data + entry->prefix_length, entry->length};
		memcpy(&f, entry->data, sizeof(f));
		if (!add(s, f, &piece, entry->length > 0, entry->segment))
			break;
		n++;
	}
	send_added(s);
	for (; n > 0; n--) {
		entry = STAILQ_FIRST(&s->held.entries);
		memcpy(&f, entry->data, sizeof(f));
		datagram_queue_pop(&s->held);
		udp_flow_unref(f);
	}
}

/* --- from capsules ------------------------------------------------------------------------------------------------ */

struct cursor {
	const struct capsule_piece *piece;
	uint32_t offset;              /* in it */
};

static void skip(struct cursor *c, size_t bytes)
{
	while (bytes > 0) {
		uint32_t left = c->piece->length - c->offset, n = left < bytes ? left : (uint32_t)bytes;
		bytes -= n;
		c->offset += n;
		if (n == left)
			c->piece++, c->offset = 0;
	}
}

/* The next `bytes` leave as a datagram (segment 0) or a run. */
static void put(struct udp_flow *f, struct cursor at, size_t bytes, uint32_t segment)
{
	struct iovec pieces[PIECES];
	unsigned n = 0;
	if (f->header_length > 0)
		pieces[n++] = (struct iovec){f->key + f->key_length, f->header_length};
	while (bytes > 0) {
		uint32_t left = at.piece->length - at.offset, take = left < bytes ? left : (uint32_t)bytes;
		pieces[n++] = (struct iovec){(void *)(at.piece->data + at.offset), take};
		bytes -= take;
		at.piece++, at.offset = 0;
	}
	send_or_hold(f, pieces, n, segment);
}

/* In as few steps as there may be; one datagram each where every one gets a header. */
static void put_run(struct udp_flow *f, struct cursor at, size_t length, uint32_t segment)
{
	size_t most = (size_t)segment * (f->header_length > 0 ? 1 : UDP_RUN_MAX);
	while (length > 0) {
		size_t n = length < most ? length : most;
		put(f, at, n, n > segment ? segment : 0);
		skip(&at, n);
		length -= n;
	}
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct udp_flow *f = arg;
	struct cursor at = {pieces, 0};
	uint32_t segment = 0;
	(void)n;
	if (context == CONTEXT_PAYLOAD) {
		if (length > UDP_PAYLOAD_MAX)
			return false;               /* RFC 9298 5 */
		put(f, at, length, 0);
	} else if (context == CONTEXT_SEGMENTS && f->segments) {
		if (length < 2)
			return false;
		for (unsigned i = 0; i < 2; i++, skip(&at, 1))
			segment = segment << 8 | at.piece->data[at.offset];
		if (segment == 0)
			return false;
		put_run(f, at, length - 2, segment);
	}                                       /* others are not known to us, and dropped (RFC 9298 4) */
	f->reader.paused = f->socket->blocked;
	return true;
}

static const struct capsule_callbacks callbacks = {.datagram = on_datagram};

static void not_leaving(struct udp_flow *f)
{
	if (f->is_leaving)
		TAILQ_REMOVE(&f->socket->leaving, f, leaving_link);
	f->is_leaving = false;
}

static void not_waiting(struct udp_flow *f)
{
	if (f->is_waiting && f->socket)
		TAILQ_REMOVE(&f->socket->waiting, f, waiting_link);
	f->is_waiting = false;
}

/* All of out, unless the socket takes no more. */
static void read_out(struct udp_flow *f)
{
	f->reader.consumed = &f->socket->consumed;
	if (f->out.head && !f->malformed)
		f->malformed = capsule_read(&f->reader, &f->out) != CAPSULE_OK;
	f->reader.consumed = NULL;
	if (f->malformed)
		chunks_clear(&f->out);
}

/* All that it took was read: what is to be said to the flow. */
static void tell(struct udp_flow *f)
{
	if (f->malformed)
		udp_flow_break(f, FLOW_RESPONSE, "malformed capsule");
	else if (f->last && !capsule_read_end(&f->reader))
		udp_flow_break(f, FLOW_RESPONSE_INCOMPLETE, "the stream ended inside a capsule");
	else if (f->last)
		udp_flow_end(f);
}

/* Reads what flows have taken, and sends it. */
static void flush(struct udp_socket *s)
{
	struct udp_flow_list done = TAILQ_HEAD_INITIALIZER(done);
	struct udp_flow *f;
	while (!s->blocked && (f = TAILQ_FIRST(&s->leaving))) {
		read_out(f);
		if (f->out.head)
			break;
		not_leaving(f);
		TAILQ_INSERT_TAIL(&done, f, done_link);
	}
	if (!s->blocked)
		send_added(s);
	while ((f = TAILQ_FIRST(&done))) {
		TAILQ_REMOVE(&done, f, done_link);
		tell(f);
		udp_flow_unref(f);
	}
}

/* Those that were refused may go on, each once. */
static void wake(struct udp_socket *s)
{
	struct udp_flow *f;
	unsigned n = 0;
	TAILQ_FOREACH(f, &s->waiting, waiting_link)
		n++;
	while (n-- > 0 && !s->blocked && (f = TAILQ_FIRST(&s->waiting))) {
		not_waiting(f);
		flow_writable(f->leg.flow, &f->leg);
	}
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct udp_socket *s = arg;
	(void)fd, (void)what;
	udp_socket_ref(s);
	flush(s);
	if (!s->blocked)
		wake(s);
	udp_socket_unref(s);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct udp_socket *s = arg;
	unsigned sent, too_long = 0;
	(void)what;
	udp_flush_kept(s->tunnel->udp, &s->kept, fd, &sent, &too_long);
	if (too_long > 0 && s->stats)
		stats_add(s->stats, STATS_LISTENER_DROP_TOO_LONG, too_long);
	if (s->kept)
		return block(s);
	s->blocked = false;
	udp_socket_ref(s);
	while (!s->blocked && !STAILQ_EMPTY(&s->held.entries))
		send_held(s);
	on_turn(fd, what, s);
	udp_socket_unref(s);
}

/* --- for the leg -------------------------------------------------------------------------------------------------- */

void udp_answers_init(struct udp_flow *f)
{
	f->reader.callbacks = &callbacks;
	f->reader.arg = f;
}

static void leave(struct udp_flow *f)
{
	if (f->is_leaving || !f->socket)
		return;
	f->is_leaving = true;
	udp_flow_ref(f);
	TAILQ_INSERT_TAIL(&f->socket->leaving, f, leaving_link);
	event_active(f->socket->turn, EV_TIMEOUT, 0);
}

bool udp_answers_take(struct udp_flow *f, struct chunks *chunks)
{
	struct udp_socket *s = f->socket;
	if (!s || s->blocked || f->out.bytes >= TAKE_MAX) {
		if (s && !f->is_waiting)
			TAILQ_INSERT_TAIL(&s->waiting, f, waiting_link);
		f->is_waiting = true;
		return false;
	}
	chunks_move(&f->out, chunks);
	leave(f);
	return true;
}

void udp_answers_restart(struct udp_flow *f)
{
	while (f->socket && f->out.head)
		read_out(f);                    /* also while it is blocked: what the old way brought is kept */
	if (f->socket && !f->socket->blocked)
		send_added(f->socket);
	capsule_reader_reset(&f->reader);
}

void udp_answers_hand_over(struct udp_flow *f, struct parcel *parcel)
{
	struct udp_socket *s = f->socket;
	if (s && !s->blocked && f->out.head) {
		read_out(f);
		if (!s->blocked)
			send_added(s);
	}
	parcel_put_chunks(parcel, PARCEL_DOWN, &f->out);
	chunks_clear(&f->out);
}

void udp_answers_last(struct udp_flow *f)
{
	f->last = true;
	leave(f);
}

void udp_answers_close(struct udp_flow *f, bool deliver)
{
	not_waiting(f);
	if (!f->is_leaving || deliver)          /* what is to be delivered leaves by itself, and lets go of the memory */
		return;
	not_leaving(f);
	udp_flow_unref(f);
}

void udp_flow_set_socket(struct udp_flow *f, struct udp_socket *socket)
{
	if (f->socket || f->state == UDP_FLOW_OVER)
		return;
	if (!socket)
		return udp_flow_break(f, FLOW_INTERNAL, "no socket to answer by");
	f->socket = udp_socket_ref(socket);
	if (f->last)
		leave(f);
	if (!f->is_waiting)
		return;
	f->is_waiting = false;
	if (f->leg.flow)
		flow_writable(f->leg.flow, &f->leg);
}
