#include "workers/tunnel/transport.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/hop_watch.h"
#include "workers/tunnel/tls.h"
#include "workers/tunnel/transport_tls.h"

#define OUT_HIGH (256u * 1024)       /* plaintext waiting: above, send refuses */
#define OUT_LOW (128u * 1024)        /* below, the writer hears of it */
#define READ_MIN (16u * 1024)
#define READ_ROOM (64u * 1024)
#define IOVECS 64
#define LINGER_MS 10000              /* without a byte taken */
#define LINGER_MAX_MS 120000         /* in all */
#define STARVED_MS 5                 /* before reading is tried again when the slab budget is spent */
#define SUSPECT_MS 250               /* after an event, a look whether it hid a reset */

enum transport_state { CONNECTING, HANDSHAKING, OPEN, LINGERING, DEAD };

struct transport {
	struct event_base *base;
	const struct transport_callbacks *callbacks;
	void *arg;
	struct event *event, *timer;
	int fd;
	SSL *ssl;
	struct tls_window window;     /* ciphertext in and out of ssl's BIO */
	enum transport_state state;
	unsigned busy;                /* callbacks under way: memory stays */
	uint32_t read_size;
	struct chunks out, unread;
	struct transport *dirty_next, *suspect_next;
	unsigned timeout_ms;
	uint64_t progress_us, linger_us;   /* the last byte moved; lingering began */
	struct transport *linger_next, **linger_link;   /* link NULL: does not linger */
	/* edge-triggered readiness */
	bool readable, writable;
	bool hangup;                  /* FIN is in the queue, behind what is still to be read */
	bool queued;                  /* on the dirty list, or the list for the next turn */
	bool starved;                 /* waits for slabs */
	bool suspect;                 /* on the list of those to be looked at */
	bool paused, striped, refused;
	bool read_ended;              /* the peer finished */
	bool finish, finished;        /* we are to finish; have */
	bool want_fill;               /* the owner has more to write */
	bool handed;                  /* another process has the connection */
	struct hop_watch *watch;
	bool broken_due;              /* a write failed outside our own event */
	enum flow_error error;
	const char *detail;
	char detail_text[160];
};

static void transport_run(struct transport *t);

/* --- the dirty list: transports to be run in this loop turn or the next ------------------------------------------------ */

struct turn {
	struct event *event;
	struct transport *head, **tail;
};

static struct {
	struct turn now, later;       /* later: after the other sockets were asked (more of the same bulk) */
	struct event *look;
	struct transport *suspects;
	uint8_t *scratch;             /* ciphertext as it comes from sockets */
} loop;

static void run_turn(evutil_socket_t fd, short what, void *arg)
{
	struct turn *turn = arg;
	(void)fd, (void)what;
	struct transport *list = turn->head;
	turn->head = NULL;
	turn->tail = &turn->head;
	for (struct transport *t = list, *next; t; t = next) {
		next = t->dirty_next;
		t->queued = false;
		transport_run(t);
	}
}

/* Whether the turn was empty before: it is to be started. */
static bool queue_up(struct turn *turn, struct transport *t)
{
	if (t->queued)
		return false;
	bool first = !turn->head;
	t->queued = true;
	t->dirty_next = NULL;
	if (first)
		turn->tail = &turn->head;
	*turn->tail = t;
	turn->tail = &t->dirty_next;
	return first;
}

static void mark_dirty(struct transport *t)
{
	if (queue_up(&loop.now, t))
		event_active(loop.now.event, EV_TIMEOUT, 0);
}

static void mark_later(struct transport *t)
{
	static const struct timeval now = {0};
	if (queue_up(&loop.later, t))
		event_add(loop.later.event, &now);
}

static void look_at_suspects(evutil_socket_t fd, short what, void *arg);

static void loop_init(struct event_base *base)
{
	if (loop.scratch)
		return;
	loop.now.event = event_new(base, -1, EV_PERSIST, run_turn, &loop.now);
	loop.later.event = evtimer_new(base, run_turn, &loop.later);
	loop.look = evtimer_new(base, look_at_suspects, NULL);
	loop.scratch = malloc(SLAB_SIZE);
	if (!loop.now.event || !loop.later.event || !loop.look || !loop.scratch)
		abort();
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

static void release(struct transport *t)
{
	if (t->busy > 0 || t->queued || t->suspect || t->state != DEAD)
		return;
	chunks_clear(&t->out);
	chunks_clear(&t->unread);
	tls_window_clear(&t->window);
	SSL_free(t->ssl);
	free(t);
}

static void close_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	close((int)(intptr_t)arg);
}

static struct transport *lingering;

static void forget_lingering(struct transport *t)
{
	if (!t->linger_link)
		return;
	*t->linger_link = t->linger_next;
	if (t->linger_next)
		t->linger_next->linger_link = t->linger_link;
	t->linger_link = NULL;
}

static void remember_lingering(struct transport *t)
{
	t->linger_next = lingering;
	t->linger_link = &lingering;
	if (lingering)
		lingering->linger_link = &t->linger_next;
	lingering = t;
}

bool transport_unsent(void)
{
	for (const struct transport *t = lingering; t; t = t->linger_next)
		if (transport_pending(t) > 0)
			return true;
	return false;
}

static void shut(struct transport *t, bool reset)
{
	if (t->state == DEAD)
		return;
	t->state = DEAD;
	forget_lingering(t);
	hop_watch_free(t->watch);
	t->watch = NULL;
	event_free(t->event);
	event_free(t->timer);
	if (t->handed) {             /* it must have left the epoll set before it is closed: the change list comes later */
		static const struct timeval now = {0};
		event_base_once(t->base, -1, EV_TIMEOUT, close_fd, (void *)(intptr_t)t->fd, &now);
		t->fd = -1;
		return;
	}
	if (reset) {
		struct linger linger = {.l_onoff = 1, .l_linger = 0};
		setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	}
	close(t->fd);
	t->fd = -1;
}

void transport_free(struct transport *t, bool reset)
{
	shut(t, reset);
	release(t);
}

static void fail(struct transport *t, enum flow_error error, const char *detail)
{
	if (t->broken_due || t->state == DEAD)
		return;
	t->broken_due = true;
	t->error = error;
	t->detail = detail;
	mark_dirty(t);
}

static void fail_errno(struct transport *t, int error)
{
	enum flow_error e = FLOW_TERMINATED;
	if (t->state == CONNECTING)
		e = error == ECONNREFUSED ? FLOW_CONNECT_REFUSED : error == ETIMEDOUT ? FLOW_CONNECT_TIMEOUT :
		    error == EHOSTUNREACH || error == ENETUNREACH ? FLOW_UNROUTABLE : FLOW_CONNECT_REFUSED;
	fail(t, e, strerror(error));
}

static void fail_tls(struct transport *t)
{
	enum flow_error error = tls_failure(t->ssl);
	fail(t, error, tls_error(t->ssl, t->detail_text, sizeof(t->detail_text)));
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

/* What a send of `want` bytes came to: the bytes that the socket took, 0 where it took none. */
static size_t sent(struct transport *t, ssize_t done, size_t want)
{
	if (done < 0) {
		if (errno == EAGAIN)
			t->writable = false;
		else if (errno != EINTR)
			fail_errno(t, errno);
		return 0;
	}
	if ((size_t)done < want)
		t->writable = false;
	t->progress_us = now_us();
	if (t->watch)
		hop_watch_wrote(t->watch);
	return (size_t)done;
}

static void write_plain(struct transport *t)
{
	while (t->out.head && t->writable && !t->broken_due) {
		struct iovec iov[IOVECS];
		int n = 0;
		size_t want = 0;
		for (struct chunk *c = t->out.head; c && n < IOVECS; c = c->next) {
			iov[n++] = (struct iovec){.iov_base = c->data, .iov_len = c->length};
			want += c->length;
		}
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
		chunks_drop(&t->out, sent(t, sendmsg(t->fd, &msg, MSG_NOSIGNAL), want));
	}
}

/* Seals what waits and sends it, a slab's worth at a time. */
static void write_tls(struct transport *t)
{
	for (;;) {
		while (tls_window_pending(&t->window) > 0 && t->writable && !t->broken_due) {
			size_t length;
			const uint8_t *data = tls_window_peek(&t->window, &length);
			tls_window_consume(&t->window, sent(t, send(t->fd, data, length, MSG_NOSIGNAL), length));
		}
		if (tls_window_pending(&t->window) > 0 || !t->out.head || t->state < OPEN)
			return;
		if (!tls_seal(t->ssl, &t->window, &t->out))
			return fail_tls(t);
	}
}

static void try_finish(struct transport *t)
{
	if (!t->finish || t->finished || t->out.head || t->state < OPEN)
		return;
	if (t->state == LINGERING && t->read_ended && !t->ssl) {
		t->finished = true;   /* close() says so as well */
		return;
	}
	if (t->ssl) {
		if (!(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)) {
			SSL_shutdown(t->ssl);
			write_tls(t);
		}
		if (tls_window_pending(&t->window) > 0)
			return;
	}
	shutdown(t->fd, SHUT_WR);
	t->finished = true;
}

static void fill(struct transport *t)
{
	if (!t->want_fill || !t->callbacks || !t->callbacks->fill || t->out.bytes > OUT_LOW || t->state != OPEN)
		return;
	t->want_fill = false;   /* filling may bring about more to fill: transport_want() inside counts */
	bool more = t->callbacks->fill(t->arg);
	t->want_fill |= more;
}

static void flush(struct transport *t)
{
	if (t->state == CONNECTING || t->state == DEAD || t->broken_due)
		return;
	do {
		fill(t);
		if (t->state == DEAD)
			return;
		if (t->ssl)
			write_tls(t);
		else
			write_plain(t);
		if (t->broken_due)
			return;
	} while (t->want_fill && t->out.bytes <= OUT_LOW && t->writable && t->state == OPEN && t->callbacks);
	try_finish(t);
	if (t->refused && t->out.bytes <= OUT_LOW && t->callbacks) {
		t->refused = false;
		t->callbacks->writable(t->arg);
	}
}

bool transport_send(struct transport *t, struct chunks *chunks, bool force)
{
	if (t->state == DEAD || t->state == LINGERING) {
		chunks_clear(chunks);
		return true;
	}
	if (!force && (t->out.bytes > OUT_HIGH || t->out.bytes > slab_allowance())) {
		t->refused = true;
		return false;
	}
	chunks_move(&t->out, chunks);
	mark_dirty(t);
	return true;
}

void transport_want(struct transport *t)
{
	t->want_fill = true;
	mark_dirty(t);
}

size_t transport_pending(const struct transport *t)
{
	return t->out.bytes;
}

void transport_finish(struct transport *t)
{
	t->finish = true;
	mark_dirty(t);
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

static void deliver(struct transport *t, struct chunks *chunks)
{
	if (!t->callbacks || t->state != OPEN)
		return chunks_clear(chunks);      /* lingering: what the peer still sends does not prolong it */
	t->progress_us = now_us();
	t->callbacks->received(t->arg, chunks);
}

static void deliver_end(struct transport *t)
{
	if (t->read_ended)
		return;
	t->read_ended = true;
	t->readable = false;
	if (t->state == LINGERING)
		return;
	if (t->callbacks)
		t->callbacks->ended(t->arg);
}

/* The next read asks for as much as the last ones delivered. */
static void adapt(struct transport *t, size_t got, size_t asked)
{
	if (got >= asked && t->read_size < SLAB_SIZE)
		t->read_size = t->read_size * 4 > SLAB_SIZE ? SLAB_SIZE : t->read_size * 4;
	else if (got < asked / 4 && t->read_size > READ_MIN)
		t->read_size /= 2;
}

static void starved(struct transport *t)
{
	struct timeval delay = {.tv_usec = STARVED_MS * 1000};
	t->starved = true;
	event_add(t->timer, &delay);
}

/* A capsule's header and the frame's fit before the first: together they fill a TLS record as the others do. */
static uint32_t headroom_of(int stripe)
{
	return stripe == 0 ? STRIPE_HEADROOM + STRIPE_CAPSULE : STRIPE_HEADROOM;
}

static int stripes(struct slab *slab, uint32_t room, struct iovec iov[], size_t *capacity)
{
	int n = 0;
	uint32_t at = slab->used;
	*capacity = 0;
	while (room > headroom_of(n)) {
		uint32_t before = headroom_of(n), payload = (room < STRIPE ? room : STRIPE) - before;
		iov[n++] = (struct iovec){.iov_base = slab->data + at + before, .iov_len = payload};
		*capacity += payload;
		at += before + payload;
		room -= before + payload;
	}
	return n;
}

static void cut(struct slab *slab, const struct iovec iov[], size_t got, bool striped, struct chunks *chunks)
{
	for (int i = 0; got > 0; i++) {
		uint32_t n = got < iov[i].iov_len ? (uint32_t)got : (uint32_t)iov[i].iov_len;
		chunks_append(chunks, chunk_new(slab, iov[i].iov_base, n, striped ? headroom_of(i) : 0));
		got -= n;
		slab->used = (uint32_t)((uint8_t *)iov[i].iov_base + n - slab->data);
	}
	slab->used = (slab->used + 7) & ~7u;
	if (slab->used > slab->size)
		slab->used = slab->size;
}

static void read_plain(struct transport *t)
{
	if (slab_spent())
		return starved(t);
	/* A slab that others still point into is filled up before a new one is begun. */
	struct slab *slab = slab_current(t->read_size < READ_ROOM ? t->read_size : READ_ROOM);
	struct iovec iov[SLAB_SIZE / STRIPE + 1];
	uint32_t left = slab->size - slab->used, room = left < t->read_size ? left : t->read_size;
	size_t capacity = room;
	int n = 1;
	if (t->striped)
		n = stripes(slab, room, iov, &capacity);
	else
		iov[0] = (struct iovec){.iov_base = slab->data + slab->used, .iov_len = capacity};
	ssize_t got = readv(t->fd, iov, n);
	if (got < 0) {
		if (errno == EAGAIN)
			t->readable = false;
		else if (errno != EINTR)
			fail_errno(t, errno);
		return;
	}
	if (got == 0)
		return deliver_end(t);
	/* A short read means that the socket is empty; what comes later makes a new edge (epoll(7)). A FIN that was already
	 * there makes none, nor does a reset (see suspect()). */
	if ((size_t)got < capacity && !t->hangup)
		t->readable = false;
	struct chunks chunks = {0};
	cut(slab, iov, (size_t)got, t->striped, &chunks);
	adapt(t, (size_t)got, capacity);
	deliver(t, &chunks);
}

static void handshake(struct transport *t)
{
	int done = SSL_do_handshake(t->ssl);
	if (done == 1) {
		t->state = OPEN;
		t->progress_us = now_us();
		if (t->callbacks && t->callbacks->ready)
			t->callbacks->ready(t->arg);
		return;
	}
	int error = SSL_get_error(t->ssl, done);
	if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
		fail_tls(t);
}

/* Opens what the window holds; all of it is inside OpenSSL afterwards. */
static void open_records(struct transport *t)
{
	if (t->state == HANDSHAKING)
		handshake(t);
	if (t->state != OPEN && t->state != LINGERING)
		return;
	struct chunks chunks = {0};
	enum tls_opened result = tls_open(t->ssl, t->striped, &chunks);
	if (chunks.head)
		deliver(t, &chunks);
	if (t->state == DEAD)
		return;
	if (result == TLS_OPENED_END)
		deliver_end(t);
	else if (result == TLS_OPENED_ERROR)
		fail_tls(t);
	if (tls_window_pending(&t->window) > 0)
		mark_dirty(t);
}

static void read_tls(struct transport *t)
{
	if (slab_spent())
		return starved(t);
	ssize_t got = recv(t->fd, loop.scratch, t->read_size, 0);
	if (got < 0) {
		if (errno == EAGAIN)
			t->readable = false;
		else if (errno != EINTR)
			fail_errno(t, errno);
		return;
	}
	if (got == 0) {
		if (t->read_ended || (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN))
			return deliver_end(t);
		t->readable = false;
		return fail(t, FLOW_TERMINATED, t->state == HANDSHAKING ? "closed during the TLS handshake" :
		            "closed without close_notify");
	}
	if ((size_t)got < t->read_size && !t->hangup)
		t->readable = false;
	adapt(t, (size_t)got, t->read_size);
	tls_window_feed(&t->window, loop.scratch, (size_t)got);
	open_records(t);
	if (t->state != DEAD)
		tls_window_fed(&t->window);
}

static void read_some(struct transport *t)
{
	if (t->unread.head && !t->paused && t->state == OPEN) {
		struct chunks chunks = {0};
		chunks_move(&chunks, &t->unread);
		deliver(t, &chunks);
	}
	if (t->state == DEAD || !t->readable || t->broken_due || t->read_ended)
		return;
	if (t->paused && t->state != LINGERING && t->state != HANDSHAKING)
		return;
	if (t->ssl)
		read_tls(t);
	else
		read_plain(t);
}

void transport_pause(struct transport *t, bool pause)
{
	if (t->paused == pause)
		return;
	t->paused = pause;
	if (!pause && t->busy == 0 && (t->readable || t->unread.head))
		mark_later(t);
}

void transport_unread(struct transport *t, struct chunks *chunks)
{
	struct chunks all = {0};
	chunks_move(&all, chunks);
	chunks_move(&all, &t->unread);
	t->unread = all;
	mark_dirty(t);
}

/* --- events ---------------------------------------------------------------------------------------------------------- */

static void connected(struct transport *t)
{
	int error = 0;
	socklen_t length = sizeof(error);
	getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error)
		return fail_errno(t, error);
	t->state = t->ssl ? HANDSHAKING : OPEN;
	if (t->ssl)
		handshake(t);
	else if (t->callbacks && t->callbacks->ready)
		t->callbacks->ready(t->arg);
}

static void report_broken(struct transport *t)
{
	if (!t->callbacks || t->state == LINGERING) {
		shut(t, false);
		return;
	}
	const struct transport_callbacks *callbacks = t->callbacks;
	t->callbacks = NULL;
	callbacks->broken(t->arg, t->error, t->detail);
}

static void linger_step(struct transport *t)
{
	if (t->finished && t->read_ended)
		shut(t, false);
}

/* Everything that a transport does, it does here: read, hand over, write. */
static void transport_run(struct transport *t)
{
	t->busy++;
	if (t->state == CONNECTING && t->writable && !t->broken_due)
		connected(t);
	if (t->state != DEAD && t->state != CONNECTING)
		read_some(t);
	if (t->state != DEAD)
		flush(t);
	if (t->state != DEAD && t->broken_due)
		report_broken(t);
	if (t->state == LINGERING)
		linger_step(t);
	/* More waits in the socket: others have their turn first. */
	if (t->state != DEAD && (t->readable || t->unread.head) && !t->read_ended && (!t->paused || t->state == LINGERING) &&
	    t->state != CONNECTING && !t->broken_due && !t->starved)
		mark_later(t);
	t->busy--;
	release(t);
}

/* A reset that comes together with data, or while reading is paused, makes no edge of its own, and libevent reports it as
 * mere readiness. So whoever had an event is asked for its error once, a little later, at no cost per read. */
static void look_at_suspects(evutil_socket_t fd, short what, void *arg)
{
	struct transport *list = loop.suspects;
	(void)fd, (void)what, (void)arg;
	loop.suspects = NULL;
	for (struct transport *t = list, *next; t; t = next) {
		int error = 0;
		socklen_t length = sizeof(error);
		next = t->suspect_next;
		t->suspect = false;
		if (t->state == DEAD)
			release(t);
		else if (t->state != CONNECTING && getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error)
			fail_errno(t, error);
	}
}

static void suspect(struct transport *t)
{
	static const struct timeval soon = {.tv_usec = SUSPECT_MS * 1000};
	if (t->suspect)
		return;
	if (!loop.suspects)
		event_add(loop.look, &soon);
	t->suspect = true;
	t->suspect_next = loop.suspects;
	loop.suspects = t;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct transport *t = arg;
	(void)fd;
	if (what & EV_READ)
		t->readable = true;
	if (what & EV_WRITE)
		t->writable = true;
	if (what & EV_CLOSED)
		t->hangup = t->readable = true;
	suspect(t);
	if (!t->queued)
		transport_run(t);
}

/* Serves three ends: a starved reader's next try, the connection's timeout, the end of lingering. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct transport *t = arg;
	(void)fd, (void)what;
	t->starved = false;
	uint64_t idle = (now_us() - t->progress_us) / 1000;
	if (t->state == LINGERING && (idle >= LINGER_MS || (now_us() - t->linger_us) / 1000 >= LINGER_MAX_MS)) {
		t->busy++;
		shut(t, true);
		t->busy--;
		return release(t);
	}
	if (t->timeout_ms && t->state != LINGERING && idle >= t->timeout_ms)
		fail(t, FLOW_READ_TIMEOUT, "nothing moved for too long");
	else if (t->timeout_ms || t->state == LINGERING)
		transport_set_timeout(t, t->timeout_ms);
	mark_dirty(t);
}

void transport_set_timeout(struct transport *t, unsigned ms)
{
	t->timeout_ms = ms;
	unsigned wait = t->state == LINGERING ? LINGER_MS : ms;
	if (!wait)
		return;
	struct timeval delay = {.tv_sec = wait / 1000, .tv_usec = (wait % 1000) * 1000};
	event_add(t->timer, &delay);
}

void transport_linger(struct transport *t)
{
	if (t->state == DEAD)
		return;
	if (t->state < OPEN)
		return transport_free(t, false);
	if (!t->linger_link)
		remember_lingering(t);
	t->state = LINGERING;
	t->callbacks = NULL;
	t->finish = true;
	t->progress_us = t->linger_us = now_us();
	transport_set_timeout(t, 0);
	mark_dirty(t);
}

/* --- from one process to another ----------------------------------------------------------------------------------------- */

int transport_hand_over(struct transport *t, struct chunks *out, struct chunks *in)
{
	if (t->state != OPEN || t->ssl || t->broken_due || t->busy > 0)
		return -1;
	t->handed = t->paused = true;
	t->callbacks = NULL;
	t->finish = t->want_fill = t->refused = false;
	event_del(t->event);
	event_del(t->timer);
	chunks_move(out, &t->out);
	chunks_move(in, &t->unread);
	return t->fd;
}

void transport_was_ended(struct transport *t)
{
	t->read_ended = true;
}

/* --- set-up ---------------------------------------------------------------------------------------------------------- */

struct transport *transport_new(struct event_base *base, int fd, SSL *ssl, enum transport_start start,
                                const struct transport_callbacks *callbacks, void *arg)
{
	loop_init(base);
	struct transport *t = calloc(1, sizeof(*t));
	if (!t)
		abort();
	*t = (struct transport){.base = base, .fd = fd, .ssl = ssl, .callbacks = callbacks, .arg = arg,
	                        .read_size = READ_MIN, .progress_us = now_us()};
	t->state = start == TRANSPORT_CONNECTING ? CONNECTING : ssl ? HANDSHAKING : OPEN;
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));   /* not for Unix sockets: no harm */
	if (ssl) {
		int lowat = OUT_HIGH;
		setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
		tls_window_attach(&t->window, ssl);
	}
	t->event = event_new(base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, on_event, t);
	t->timer = evtimer_new(base, on_timer, t);
	if (!t->event || !t->timer || event_add(t->event, NULL) < 0)
		abort();
	return t;
}

void transport_set_callbacks(struct transport *t, const struct transport_callbacks *callbacks, void *arg)
{
	t->callbacks = callbacks;
	t->arg = arg;
	mark_dirty(t);
}

void transport_set_striped(struct transport *t, bool striped)
{
	t->striped = striped;
}

static void on_lost(void *arg)
{
	fail(arg, FLOW_TERMINATED, "the path to the peer is down");
}

void transport_watch(struct transport *t, unsigned ms)
{
	if (!t->watch && t->fd >= 0)
		t->watch = hop_watch_new(t->base, t->fd, ms, on_lost, t);
}

SSL *transport_ssl(const struct transport *t)
{
	return t->ssl;
}
