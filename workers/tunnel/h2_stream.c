/* A stream of an HTTP/2 connection as a leg of a flow. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/h2_internal.h"
#include "workers/tunnel/h2_request.h"
#include "workers/tunnel/masque.h"

#define TINY 16u              /* a DATA frame this small with more waiting: the peer's window is a trickle */
#define FRAME_MIN 4096u       /* shorter chunks are sent together in one frame */

struct h2_stream *h2_stream_new(struct h2 *h2, int32_t id)
{
	struct h2_stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		abort();
	stream->leg.ops = h2->server ? &h2_server_ops : &h2_client_ops;
	stream->h2 = h2;
	stream->id = id;
	stream->window = H2_STREAM_WINDOW;
	stream->next = h2->streams;
	if (h2->streams)
		h2->streams->prev = stream;
	h2->streams = stream;
	h2->n_streams++;
	return stream;
}

void h2_stream_free(struct h2_stream *stream)
{
	struct h2 *h2 = stream->h2;
	assert(!stream->touched);
	if (stream->id > 0 && h2->session)
		nghttp2_session_set_stream_user_data(h2->session, stream->id, NULL);
	if (stream->prev)
		stream->prev->next = stream->next;
	else
		h2->streams = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	h2->n_streams--;
	h2->queued -= stream->out.bytes;
	chunks_clear(&stream->in);
	chunks_clear(&stream->out);
	for (unsigned i = 0; i < stream->n_ready; i++)
		head_free(stream->ready[i]);
	head_free(stream->building);
	head_free(stream->trailers);
	head_free(stream->out_trailers);
	free(stream);
}

void h2_touch(struct h2_stream *stream)
{
	struct h2 *h2 = stream->h2;
	if (stream->touched)
		return;
	stream->touched = true;
	stream->touched_next = NULL;
	if (!h2->touched)
		h2->touched_tail = &h2->touched;
	*h2->touched_tail = stream;
	h2->touched_tail = &stream->touched_next;
	if (h2->busy == 0)
		h2_want(h2);   /* settled in this turn */
}

static void reset(struct h2_stream *stream, uint32_t code)
{
	if (stream->closed || stream->rst_sent || stream->id <= 0)
		return;
	stream->rst_sent = true;
	nghttp2_submit_rst_stream(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, code);
	h2_want(stream->h2);
}

/* --- what came, up to the flow --------------------------------------------------------------------------------------- */

static void reject(struct h2_stream *stream, const struct h2_refusal *refusal)
{
	struct h2 *h2 = stream->h2;
	struct head *head = h2_refusal_head(h2->origin->listener, h2->tunnel->current->config->node_name, refusal);
	stats_add(h2->origin->listener->stats, STATS_LISTENER_MALFORMED, 1);
	h2_server_ops.head(&stream->leg, head, true);
	head_free(head);
}

static void begin_request(struct h2_stream *stream, struct head *head)
{
	struct h2 *h2 = stream->h2;
	struct h2_refusal refusal = {0};
	if (stream->too_large)
		refusal = (struct h2_refusal){431, "the request's header fields are too large"};
	else
		h2_request_check(head, &refusal);
	if (refusal.status) {
		head_free(head);
		return reject(stream, &refusal);
	}
	stream->connect = head_is_connect(head);
	stream->masque = masque_is(head);
	bool end = stream->remote_ended && !stream->in.head && !stream->trailers;
	stream->remote_end_told = end;
	flow_new(h2->tunnel, h2->origin, &stream->leg, head, end);
}

static const char *check_response(const struct h2_stream *stream, struct head *head)
{
	const char *why = NULL;
	if (stream->too_large)
		return "the response's header fields are too large";
	if (head->status < 100)         /* nghttp2 takes any three digits */
		return "no status that there is";
	if (!stream->masque || head->status < 200)
		return NULL;
	/* RFC 9297 3.4: not on responses that open nothing */
	if (head->status >= 300)
		head_remove(head, "capsule-protocol");
	else if (masque_opens(head, &why))
		head_set(head, "capsule-protocol", "?1");
	return why;
}

static void begin_response(struct h2_stream *stream, struct head *head)
{
	bool final = head->status >= 200, opens = stream->connect && final && head->status < 300;
	bool end = final && stream->head_end && !opens;      /* a tunnel's end is told as one */
	if ((stream->why = check_response(stream, head))) {
		stream->failed = FLOW_RESPONSE;
		return head_free(head);
	}
	if (end)
		stream->remote_end_told = true;
	h2_response_fields(head);
	flow_head(stream->leg.flow, &stream->leg, head, end);
}

static void settle_heads(struct h2_stream *stream)
{
	for (unsigned i = 0; i < stream->n_ready; i++) {
		struct head *head = stream->ready[i];
		stream->ready[i] = NULL;
		if (stream->h2->server && stream->closed)
			head_free(head);            /* reset in the same breath: nobody is asked about it */
		else if (stream->h2->server)
			begin_request(stream, head);
		else if (stream->leg.flow && !stream->failed)
			begin_response(stream, head);
		else
			head_free(head);
	}
	stream->n_ready = 0;
}

static void settle_data(struct h2_stream *stream)
{
	if (!stream->in.head)
		return;
	struct chunks chunks = {0};
	chunks_move(&chunks, &stream->in);
	if (stream->leg.flow)
		return flow_data(stream->leg.flow, &stream->leg, &chunks);
	if (!stream->closed)
		nghttp2_session_consume_stream(stream->h2->session, stream->id, chunks.bytes);
	chunks_clear(&chunks);
}

static void settle_end(struct h2_stream *stream)
{
	if (!stream->remote_ended || stream->remote_end_told || !stream->leg.flow || stream->failed)
		return;
	stream->remote_end_told = true;
	struct head *trailers = stream->trailers;
	stream->trailers = NULL;
	flow_finish(stream->leg.flow, &stream->leg, trailers);
}

static enum flow_error error_of(const struct h2_stream *stream)
{
	if (stream->failed)
		return stream->failed;
	if (stream->h2->server)
		return FLOW_CANCELLED;
	return stream->error == NGHTTP2_REFUSED_STREAM ? FLOW_REFUSED_STREAM : FLOW_TERMINATED;
}

/* Whether the flow has heard all that there is to hear of a closed stream. */
static bool complete(const struct h2_stream *stream)
{
	if (stream->failed || !stream->remote_end_told)
		return false;
	return stream->end_sent || (!stream->h2->server && stream->error == NGHTTP2_NO_ERROR);
}

static void tell_broken(struct h2_stream *stream)
{
	struct flow *flow = stream->leg.flow;
	stream->leg.flow = NULL;
	const char *why = stream->why ? stream->why : nghttp2_http2_strerror(stream->error);
	flow_broken(flow, &stream->leg, error_of(stream), why);
}

void h2_stream_settle(struct h2_stream *stream)
{
	struct h2 *h2 = stream->h2;
	settle_heads(stream);
	settle_data(stream);
	settle_end(stream);
	if (stream->refused && stream->out.bytes <= H2_QUEUE_LOW && stream->leg.flow && !stream->closed) {
		stream->refused = false;
		flow_writable(stream->leg.flow, &stream->leg);
	}
	if (stream->failed)
		reset(stream, NGHTTP2_CANCEL);
	if (stream->leg.flow && (stream->closed || stream->failed) && !complete(stream))
		tell_broken(stream);
	/* Answered in full before the request was: the client may stop sending (RFC 9113 8.1). */
	if (!stream->leg.flow && stream->end_sent && !stream->remote_ended && h2->server)
		reset(stream, NGHTTP2_NO_ERROR);
	if (!stream->leg.flow && (stream->closed || stream->id <= 0) && !stream->touched)
		h2_stream_free(stream);
}

void h2_stream_broken(struct h2_stream *stream, enum flow_error error, const char *detail)
{
	if (stream->leg.flow && !(stream->closed && complete(stream))) {
		struct flow *flow = stream->leg.flow;
		stream->leg.flow = NULL;
		flow_broken(flow, &stream->leg, stream->h2->server ? FLOW_CANCELLED : error, detail);
	}
	stream->closed = true;
	if (!stream->leg.flow && !stream->touched)
		h2_stream_free(stream);
}

/* --- what goes ------------------------------------------------------------------------------------------------------- */

static size_t frame_size(const struct h2_stream *stream, size_t length)
{
	size_t n = stream->out.head->length;
	if (n < FRAME_MIN)
		n = stream->out.bytes;
	if (n > STRIPE_PAYLOAD)
		n = STRIPE_PAYLOAD;
	return n < length ? n : length;
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
	struct h2_stream *stream = source->ptr;
	(void)id, (void)buffer, (void)arg;
	size_t n = stream->out.head ? frame_size(stream, length) : 0;
	if (n == 0 && !stream->out_end) {
		stream->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (n == stream->out.bytes && stream->out_end) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (stream->out_trailers) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			h2_submit_trailers(session, stream->id, stream->out_trailers);
		}
	}
	return (ssize_t)n;
}

nghttp2_data_provider h2_stream_provider(struct h2_stream *stream)
{
	stream->provider = true;
	return (nghttp2_data_provider){.source.ptr = stream, .read_callback = read_body};
}

/* The frame header goes into the headroom before the payload where there is some, and no byte is copied. */
int h2_stream_send_data(struct h2_stream *stream, const uint8_t *frame_header, size_t length)
{
	struct h2 *h2 = stream->h2;
	struct chunks frame = {0};
	if (h2->server && length < TINY && stream->out.bytes > length && !h2_abuse_tiny_window(&h2->abuse))
		h2->goaway_due = true;
	chunks_split(&frame, &stream->out, length);
	h2->queued -= length;
	stream->sent += length;
	h2->progress_us = now_us();
	struct chunk *first = frame.head;
	if (first && first->headroom >= STRIPE_HEADROOM) {
		first->data -= STRIPE_HEADROOM;
		first->length += STRIPE_HEADROOM;
		first->headroom -= STRIPE_HEADROOM;
		frame.bytes += STRIPE_HEADROOM;
		memcpy(first->data, frame_header, STRIPE_HEADROOM);
	} else {
		chunks_copy(&h2->out, frame_header, STRIPE_HEADROOM);
	}
	chunks_move(&h2->out, &frame);
	if (stream->refused && stream->out.bytes <= H2_QUEUE_LOW)
		h2_touch(stream);
	return 0;
}

static void wake(struct h2_stream *stream)
{
	if (stream->deferred && !stream->closed) {
		stream->deferred = false;
		nghttp2_session_resume_data(stream->h2->session, stream->id);
	}
	h2_want(stream->h2);
}

/* --- the leg --------------------------------------------------------------------------------------------------------- */

static void server_head(struct leg *leg, const struct head *head, bool end)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	if (stream->closed || stream->rst_sent)
		return;
	bool connected = stream->connect && head->status >= 200 && head->status < 300;
	if (head->status < 200)
		h2_submit_informational(stream->h2->session, stream->id, head);
	else
		h2_submit_response(stream, head, end, connected);
	h2_want(stream->h2);
}

static void client_head(struct leg *leg, const struct head *head, bool end)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	stream->connect = head_is_connect(head);
	stream->masque = masque_is(head);
	if (head->protocol && !stream->h2->connect_protocol) {
		stream->failed = FLOW_UPGRADE;
		stream->why = "the next hop does not offer extended CONNECT (RFC 8441)";
		return h2_touch(stream);
	}
	if (h2_submit_request(stream, head, end && !stream->connect) < 0) {
		stream->failed = FLOW_REFUSED_STREAM;
		stream->why = "the connection takes no further stream";
		return h2_touch(stream);
	}
	h2_want(stream->h2);
}

static bool stream_send(struct leg *leg, struct chunks *chunks)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	struct h2 *h2 = stream->h2;
	if (stream->closed || stream->rst_sent || stream->failed || stream->out_end) {
		chunks_clear(chunks);
		return true;
	}
	size_t waits = stream->out.bytes;
	if (waits > H2_QUEUE_HIGH || waits > slab_allowance() || (waits > 0 && h2->queued > H2_STALLED_HIGH)) {
		stream->refused = true;
		return false;
	}
	h2->queued += chunks->bytes;
	chunks_move(&stream->out, chunks);
	wake(stream);
	return true;
}

static void stream_finish(struct leg *leg, const struct head *trailers)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	if (stream->out_end || stream->closed)
		return;
	stream->out_end = true;
	if (trailers && trailers->n > 0 && !stream->connect)
		stream->out_trailers = head_clone(trailers);
	wake(stream);
}

/* A long path needs more on the way than a short one: the window doubles while the far leg takes all that comes, and
 * memory is plenty. */
static void grow_window(struct h2_stream *stream, size_t bytes)
{
	stream->taken += bytes;
	if (stream->taken < 2ull * stream->window || stream->window >= H2_STREAM_WINDOW_MAX || slab_tight())
		return;
	stream->taken = 0;
	stream->window *= 2;
	nghttp2_session_set_local_window_size(stream->h2->session, NGHTTP2_FLAG_NONE, stream->id, (int32_t)stream->window);
}

static void stream_taken(struct leg *leg, size_t bytes)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	if (stream->closed || stream->rst_sent)
		return;
	nghttp2_session_consume_stream(stream->h2->session, stream->id, bytes);
	grow_window(stream, bytes);
	h2_want(stream->h2);
}

static uint32_t code_of(const struct h2_stream *stream, enum flow_error error)
{
	if (!stream->h2->server || error == FLOW_CANCELLED)
		return NGHTTP2_CANCEL;
	if (error == FLOW_REQUEST)
		return NGHTTP2_PROTOCOL_ERROR;
	if (error == FLOW_REFUSED_STREAM && !stream->provider)   /* nothing was answered (RFC 9113 8.7) */
		return NGHTTP2_REFUSED_STREAM;
	return stream->connect ? NGHTTP2_CONNECT_ERROR : NGHTTP2_INTERNAL_ERROR;
}

static void stream_close(struct leg *leg, enum flow_error error)
{
	struct h2_stream *stream = (struct h2_stream *)leg;
	struct h2 *h2 = stream->h2;
	leg->flow = NULL;
	if (h2->dead) {
		if (!stream->touched)
			h2_stream_free(stream);
		return h2_free(h2);
	}
	if (error != FLOW_NONE) {
		h2->queued -= stream->out.bytes;
		chunks_clear(&stream->out);
		reset(stream, code_of(stream, error));
	} else if (!h2->server && !stream->remote_ended) {
		reset(stream, NGHTTP2_CANCEL);
	} else if (!stream->out_end) {
		stream->out_end = true;
		wake(stream);
	}
	h2_touch(stream);
}

static size_t stream_waiting(const struct leg *leg)
{
	return ((const struct h2_stream *)leg)->out.bytes;
}

const struct leg_ops h2_server_ops = {
	.kind = "h2",
	.carries = true,
	.head = server_head,
	.send = stream_send,
	.finish = stream_finish,
	.taken = stream_taken,
	.close = stream_close,
	.waiting = stream_waiting,
};

const struct leg_ops h2_client_ops = {
	.kind = "h2",
	.carries = true,
	.head = client_head,
	.send = stream_send,
	.finish = stream_finish,
	.taken = stream_taken,
	.close = stream_close,
	.waiting = stream_waiting,
};
