#include "workers/tunnel/h2.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/clock.h"
#include "workers/tunnel/h2_internal.h"

#define CLIENT_HEADER_BYTES (64u * 1024)
#define CLIENT_ABUSE_EVENTS 1000u /* as a listener's abuse_events: SETTINGS, PING, empty DATA etc. of a next hop in 10 s */
#define STALL_US 10000000u        /* a peer that lets nothing pass on many streams for so long is ended */
#define STALL_STREAMS 64u
#define END_MS 10000              /* for the last GOAWAY to be taken */
#define DRAIN_NOTICE_MS 200       /* between the two GOAWAYs (RFC 9113 6.8) */

/* --- the end --------------------------------------------------------------------------------------------------------- */

void h2_free(struct h2 *h2)
{
	if (!h2->dead || h2->busy > 0 || h2->streams)
		return;
	nghttp2_session_del(h2->session);
	h2->session = NULL;
	event_free(h2->timer);
	chunks_clear(&h2->out);
	free(h2->authority);
	h2->authority = NULL;
	if (h2->server)
		h2->gone(h2->arg);
	else
		h2->pool.gone(h2->arg, h2->error, h2->detail);
	free(h2);
}

static void tell_closing(struct h2 *h2)
{
	if (h2->server || !h2->closing || !h2->pool.closing)
		return;
	void (*closing)(void *arg) = h2->pool.closing;
	h2->pool.closing = NULL;
	closing(h2->arg);
}

/* The connection is over: every stream hears of it. linger: what waits is still written. */
static void die(struct h2 *h2, enum flow_error error, const char *detail, bool linger)
{
	if (h2->dead)
		return;
	h2->dead = true;
	h2->closing = true;
	h2->error = error;
	snprintf(h2->detail, sizeof(h2->detail), "%s", detail);
	struct transport *transport = h2->transport;
	h2->transport = NULL;
	h2->busy++;
	tell_closing(h2);
	for (struct h2_stream *s = h2->streams; s; s = s->next)
		h2_touch(s);
	while (h2->touched) {
		struct h2_stream *stream = h2->touched;
		h2->touched = stream->touched_next;
		stream->touched = false;
		h2_stream_broken(stream, error, h2->detail);
	}
	h2->busy--;
	if (linger)
		transport_linger(transport);
	else
		transport_free(transport, false);
	h2_free(h2);
}

static bool produce(struct h2 *h2);

static void give_up(struct h2 *h2, uint32_t code, const char *why)
{
	if (h2->server) {
		if (code == NGHTTP2_ENHANCE_YOUR_CALM)
			stats_add(h2->origin->listener->stats, STATS_LISTENER_ABUSE, 1);
		log_info("connection ended", "listener=%s source=%s reason=%s", h2->origin->listener->name,
		         h2->origin->source_text, log_value(why));
	}
	h2->goaway_due = false;
	nghttp2_session_terminate_session(h2->session, code);
	h2->busy++;
	produce(h2);
	h2->busy--;
	die(h2, FLOW_TERMINATED, why, true);
}

/* --- one turn -------------------------------------------------------------------------------------------------------- */

void h2_want(struct h2 *h2)
{
	if (h2->transport)
		transport_want(h2->transport);
}

/* Makes the up-calls of all that was touched; they may touch more. */
void h2_settle(struct h2 *h2)
{
	unsigned before = h2->n_streams;
	while (h2->touched && !h2->dead) {
		struct h2_stream *stream = h2->touched;
		h2->touched = stream->touched_next;
		stream->touched = false;
		h2_stream_settle(stream);
	}
	if (h2->dead || h2->server)
		return;
	if (h2->n_streams < before && h2->pool.room)
		h2->pool.room(h2->arg);
	tell_closing(h2);
}

static bool finished(const struct h2 *h2)
{
	return !nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session);
}

/* Lets nghttp2 make frames while the transport has room. Returns whether it has more. */
static bool produce(struct h2 *h2)
{
	while (h2->transport && transport_pending(h2->transport) + h2->out.bytes < H2_QUEUE_HIGH) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(h2->session, &data);
		if (n <= 0)
			break;
		chunks_copy(&h2->out, data, (size_t)n);
	}
	bool more = h2->out.bytes >= H2_QUEUE_HIGH || nghttp2_session_want_write(h2->session);
	if (h2->transport && h2->out.head)
		transport_send(h2->transport, &h2->out, true);
	return more && h2->transport && transport_pending(h2->transport) > 0;
}

/* The last step of every callback: busy is still held. Returns whether the connection lives. */
static bool leave(struct h2 *h2)
{
	if (!h2->dead && h2->goaway_due)
		give_up(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too much of what costs us more than the peer");
	else if (!h2->dead && (finished(h2) || (h2->closing && h2->n_streams == 0 && h2->server &&
	                                         !nghttp2_session_want_write(h2->session))))
		die(h2, FLOW_TERMINATED, "closed", true);
	bool alive = !h2->dead;
	h2->busy--;
	h2_free(h2);
	return alive;
}

static bool on_fill(void *arg)
{
	struct h2 *h2 = arg;
	h2->busy++;
	h2_settle(h2);
	bool more = !h2->dead && produce(h2);
	if (!h2->dead)
		h2_settle(h2);
	/* What settling submitted: h2_want() inside fill() is not heard. */
	if (!h2->dead && nghttp2_session_want_write(h2->session))
		more = produce(h2) || more;
	more = more || h2->touched;
	return leave(h2) && more;
}

static void parse(struct h2 *h2, struct chunks *chunks)
{
	for (struct chunk *chunk; !h2->dead && (chunk = chunks_pop(chunks)); chunk_free(chunk)) {
		h2->rx = chunk;
		h2->rx_start = chunk->data;
		ssize_t n = nghttp2_session_mem_recv(h2->session, chunk->data, chunk->length);
		if (n >= 0)
			continue;
		h2_settle(h2);
		if (!h2->dead && n == NGHTTP2_ERR_BAD_CLIENT_MAGIC)
			die(h2, FLOW_REQUEST, "not HTTP/2", false);
		else if (!h2->dead)
			give_up(h2, h2->goaway_due || n == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM :
			        NGHTTP2_PROTOCOL_ERROR, nghttp2_strerror((int)n));
	}
	chunks_clear(chunks);
}

static void tell_ready(struct h2 *h2)
{
	if (h2->server || h2->ready_told || !h2->settings_received || h2->dead)
		return;
	h2->ready_told = true;
	h2->pool.ready(h2->arg);
}

static void on_received(void *arg, struct chunks *chunks)
{
	struct h2 *h2 = arg;
	h2->busy++;
	parse(h2, chunks);
	if (!h2->dead) {
		h2_settle(h2);
		tell_ready(h2);
	}
	if (!h2->dead && nghttp2_session_want_write(h2->session))
		h2_want(h2);
	leave(h2);
}

static void on_ended(void *arg)
{
	die(arg, FLOW_TERMINATED, "the peer closed the connection", true);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	die(arg, error, detail, false);
}

static void on_ready(void *arg)
{
	struct h2 *h2 = arg;
	h2_want(h2);
}

static void on_writable(void *arg)
{
	(void)arg;   /* fill() is how an HTTP/2 connection writes */
}

static const struct transport_callbacks callbacks = {
	.ready = on_ready,
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.fill = on_fill,
	.broken = on_broken,
};

/* --- time ------------------------------------------------------------------------------------------------------------ */

static void arm(struct h2 *h2, uint32_t ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	event_add(h2->timer, &delay);
}

/* Whether it waits, and nothing of it went out for so long. Looked at in every tick. */
static bool stream_stalled(struct h2_stream *stream, uint64_t now)
{
	if (stream->out.bytes == 0 || stream->sent != stream->sent_before) {
		stream->sent_before = stream->sent;
		stream->stuck_since = now;
	}
	return now - stream->stuck_since > STALL_US;
}

/* By stream: to let one pass does not excuse the others; but on a link that many users share it does. */
static bool stalled(const struct h2 *h2, uint64_t now)
{
	bool shared = h2->origin->listener->config->accept == CONFIG_OVERLAY;
	unsigned n = 0;
	if (h2->n_streams < STALL_STREAMS)
		return false;
	for (struct h2_stream *s = h2->streams; s; s = s->next)
		n += stream_stalled(s, now);
	return n >= STALL_STREAMS && (!shared || now - h2->progress_us > STALL_US);
}

/* Server: a preface or header block that never ends, streams that nothing passes on, a connection without use. */
static void server_tick(struct h2 *h2)
{
	const struct config_limits *limits = &h2->origin->listener->config->limits;
	uint64_t now = now_us(), late = (uint64_t)limits->header_timeout * 1000;
	if (late && h2->headers_since && now - h2->headers_since >= late)
		return give_up(h2, NGHTTP2_ENHANCE_YOUR_CALM, "a header block did not end in time");
	if (late && !h2->settings_received && now - h2->progress_us >= late)
		return give_up(h2, NGHTTP2_ENHANCE_YOUR_CALM, "no HTTP/2 preface in time");
	if (stalled(h2, now))
		return give_up(h2, NGHTTP2_ENHANCE_YOUR_CALM, "the peer lets nothing pass");
	if (h2->n_streams == 0 && limits->idle_timeout && now - h2->progress_us >= (uint64_t)limits->idle_timeout * 1000)
		return h2_drain(h2, true);
	arm(h2, limits->header_timeout / 4 > 1000 ? limits->header_timeout / 4 : 1000);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct h2 *h2 = arg;
	(void)fd, (void)what;
	h2->busy++;
	if (h2->ending) {
		die(h2, FLOW_TERMINATED, "the peer does not take the GOAWAY", false);
	} else if (h2->noticed && h2->n_streams == 0) {
		h2->noticed = false;
		h2_drain(h2, true);
	} else if (h2->noticed) {
		h2->noticed = false;
		nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
		                      NGHTTP2_NO_ERROR, NULL, 0);
		h2_want(h2);
	}
	if (h2->server && !h2->dead)
		server_tick(h2);
	leave(h2);
}

/* --- set-up ---------------------------------------------------------------------------------------------------------- */

static struct h2 *h2_make(struct tunnel *tunnel, struct transport *transport, bool server, void *arg)
{
	struct h2 *h2 = calloc(1, sizeof(*h2));
	if (!h2)
		abort();
	*h2 = (struct h2){.tunnel = tunnel, .transport = transport, .server = server, .arg = arg, .progress_us = now_us()};
	h2->timer = evtimer_new(tunnel->base, on_timer, h2);
	if (!h2->timer)
		abort();
	return h2;
}

struct h2 *h2_server_new(struct tunnel *tunnel, struct transport *transport, const struct origin *origin,
                         struct chunks *first, void (*gone)(void *arg), void *arg)
{
	const struct config_limits *limits = &origin->listener->config->limits;
	struct h2 *h2 = h2_make(tunnel, transport, true, arg);
	h2->origin = origin;
	h2->gone = gone;
	h2->max_streams = limits->streams;
	h2->header_bytes = limits->header_bytes;
	h2_abuse_init(&h2->abuse, limits->abuse_events, origin->listener->config->accept == CONFIG_OVERLAY);
	if (h2_session_open(h2) != 0)
		abort();
	if (first && first->head)
		transport_unread(transport, first);
	transport_set_callbacks(transport, &callbacks, h2);
	arm(h2, limits->header_timeout ? limits->header_timeout / 4 + 1 : 60000);
	h2_want(h2);
	return h2;
}

struct h2 *h2_client_new(struct tunnel *tunnel, struct transport *transport, uint32_t max_streams,
                         const struct h2_pool_callbacks *pool, void *arg)
{
	struct h2 *h2 = h2_make(tunnel, transport, false, arg);
	h2->pool = *pool;
	h2->max_streams = max_streams;
	h2->header_bytes = CLIENT_HEADER_BYTES;
	h2_abuse_init(&h2->abuse, CLIENT_ABUSE_EVENTS, true);
	if (h2_session_open(h2) != 0)
		abort();
	transport_set_callbacks(transport, &callbacks, h2);
	h2_want(h2);
	return h2;
}

void h2_client_authority(struct h2 *h2, const char *authority)
{
	free(h2->authority);
	h2->authority = strdup(authority);
}

unsigned h2_streams(const struct h2 *h2)
{
	return h2->n_streams;
}

unsigned h2_room(const struct h2 *h2)
{
	if (h2->closing || !h2->settings_received)
		return 0;
	uint32_t peer = nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
	uint32_t limit = h2->max_streams && h2->max_streams < peer ? h2->max_streams : peer;
	return h2->n_streams < limit ? limit - h2->n_streams : 0;
}

bool h2_extended_connect(const struct h2 *h2)
{
	return h2->connect_protocol;
}

struct leg *h2_open(struct h2 *h2, struct flow *flow)
{
	if (h2_room(h2) == 0)
		return NULL;
	struct h2_stream *stream = h2_stream_new(h2, -1);
	stream->leg.flow = flow;
	return &stream->leg;
}

bool h2_noticed(const struct h2 *h2)
{
	return h2->noticed;
}

void h2_drain(struct h2 *h2, bool now)
{
	if (h2->dead)
		return;
	h2->closing = true;
	/* a client's first request may be on its way */
	if (now || (h2->n_streams == 0 && !h2->server)) {
		nghttp2_session_terminate_session(h2->session, NGHTTP2_NO_ERROR);
		h2->ending = true;
		arm(h2, END_MS);
	} else if (h2->server) {
		nghttp2_submit_shutdown_notice(h2->session);
		h2->noticed = true;
		arm(h2, DRAIN_NOTICE_MS);
	}
	h2_want(h2);
}
