/* nghttp2's callbacks: they note what happened and touch the stream. Nothing here calls up. */
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/h2_internal.h"

#define FIELD_OVERHEAD 32   /* RFC 9113 6.5.2 */

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static void abused(struct h2 *h2)
{
	h2->goaway_due = true;
}

static int begin_headers(struct h2 *h2, const nghttp2_frame *frame)
{
	struct h2_stream *stream = stream_of(h2->session, frame->hd.stream_id);
	h2->headers_since = now_us();
	if (h2->server && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		if (h2->closing)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
		stream = h2_stream_new(h2, frame->hd.stream_id);
		h2->progress_us = stream->stuck_since = h2->headers_since;
		nghttp2_session_set_stream_user_data(h2->session, frame->hd.stream_id, stream);
	}
	if (!stream)
		return 0;
	head_free(stream->building);
	stream->building = head_new();
	stream->building_bytes = 0;
	return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	(void)session;
	return begin_headers(arg, frame);
}

static void pseudo(struct head *head, const char *name, size_t name_length, const char *value, size_t length)
{
	const char *text = head_string(head, value, (long)length);
	if (name_length == 7 && memcmp(name, ":method", 7) == 0)
		head->method = text;
	else if (name_length == 7 && memcmp(name, ":scheme", 7) == 0)
		head->scheme = text;
	else if (name_length == 5)
		head->path = text;
	else if (name_length == 10)
		head->authority = text;
	else if (name_length == 9)
		head->protocol = text;
	else if (name_length == 7)
		head->status = (unsigned)atoi(text);
}

static void header(struct h2 *h2, struct h2_stream *stream, const char *name, size_t name_length, const char *value,
                   size_t length)
{
	stream->building_bytes += name_length + length + FIELD_OVERHEAD;
	if (stream->building_bytes > h2->header_bytes) {
		stream->too_large = true;
		return;
	}
	if (name[0] == ':')
		pseudo(stream->building, name, name_length, value, length);
	else
		head_add_n(stream->building, name, name_length, value, length);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t length, uint8_t flags, void *arg)
{
	(void)flags;
	struct h2_stream *stream = stream_of(session, frame->hd.stream_id);
	if (stream && stream->building)
		header(arg, stream, (const char *)name, name_length, (const char *)value, length);
	return 0;
}

/* A header block is complete: a request, a 1xx, a final response, or trailers. */
static void headers_done(struct h2_stream *stream, bool end)
{
	struct head *head = stream->building;
	stream->building = NULL;
	if (!head)
		return;
	if (stream->final_head && stream->too_large && stream->leg.flow) {
		stream->failed = stream->h2->server ? FLOW_REQUEST : FLOW_RESPONSE;
		stream->why = "the trailers are too large";
		head_free(head);
	} else if (stream->final_head) {
		head_free(stream->trailers);
		stream->trailers = head;
	} else if (head->status >= 100 && head->status < 200) {
		if (stream->n_ready < H2_INFORMATIONAL)
			stream->ready[stream->n_ready++] = head;
		else
			head_free(head);
	} else {
		stream->final_head = true;
		stream->head_end = end;
		stream->ready[stream->n_ready++] = head;
	}
}

static void settings_came(struct h2 *h2, const nghttp2_frame *frame)
{
	if (frame->hd.flags & NGHTTP2_FLAG_ACK)
		return;
	h2->settings_received = true;
	h2->connect_protocol = nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

static int frame_came(struct h2 *h2, const nghttp2_frame *frame)
{
	struct h2_stream *stream = frame->hd.stream_id ? stream_of(h2->session, frame->hd.stream_id) : NULL;
	bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	switch (frame->hd.type) {
	case NGHTTP2_SETTINGS:
		settings_came(h2, frame);
		break;
	case NGHTTP2_GOAWAY:
		h2->closing = true;
		break;
	case NGHTTP2_HEADERS:
		h2->headers_since = 0;
		if (stream)
			headers_done(stream, end);
		break;
	default:
		break;
	}
	if (!stream || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
		return 0;
	stream->remote_ended |= end;
	h2_touch(stream);
	return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	(void)session;
	struct h2 *h2 = arg;
	if (!h2_abuse_padding(&h2->abuse, frame))
		abused(h2);
	return h2->goaway_due ? NGHTTP2_ERR_CALLBACK_FAILURE : frame_came(h2, frame);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *frame, void *arg)
{
	(void)session;
	struct h2 *h2 = arg;
	if (!h2_abuse_frame(&h2->abuse, frame))
		abused(h2);
	return h2->goaway_due ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *arg)
{
	(void)session, (void)frame, (void)error;
	struct h2 *h2 = arg;
	/* Counted here as well as when the reset goes out: a peer that does not read could have any number of them wait. */
	if (!h2_abuse_reset_sent(&h2->abuse))
		abused(h2);
	if (h2->server)
		stats_add(h2->origin->listener->stats, STATS_LISTENER_MALFORMED, 1);
	return 0;
}

/* The connection's window opens on receipt, so that one slow stream does not stall its neighbours; the stream's own opens
 * when the far leg took the bytes. */
static void data_came(struct h2 *h2, struct h2_stream *stream, const uint8_t *data, size_t length)
{
	nghttp2_session_consume_connection(h2->session, length);
	if (!stream || (!stream->leg.flow && stream->n_ready == 0)) {   /* n_ready: the flow begins when this turn settles */
		if (stream)
			nghttp2_session_consume_stream(h2->session, stream->id, length);
		return;
	}
	uint8_t *at = h2->rx->data + (data - h2->rx->data);
	/* The frame's own header lies before its payload and was read: room for the header it leaves with. */
	uint32_t headroom = data - h2->rx_start >= (ptrdiff_t)STRIPE_HEADROOM ? STRIPE_HEADROOM : 0;
	chunks_append(&stream->in, chunk_new(h2->rx->slab, at, (uint32_t)length, headroom));
	h2_touch(stream);
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t length, void *arg)
{
	(void)flags;
	data_came(arg, stream_of(session, id), data, length);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *arg)
{
	struct h2_stream *stream = stream_of(session, id);
	(void)arg;
	if (!stream)
		return 0;
	stream->closed = true;
	stream->error = error;
	h2_touch(stream);
	return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct h2 *h2 = arg;
	struct h2_stream *stream = frame->hd.stream_id ? stream_of(session, frame->hd.stream_id) : NULL;
	if (frame->hd.type == NGHTTP2_RST_STREAM && frame->rst_stream.error_code != NGHTTP2_NO_ERROR &&
	    !(stream && stream->rst_sent) && !h2_abuse_reset_sent(&h2->abuse))
		abused(h2);
	if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
	    (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS)) {
		stream->end_sent = true;
		h2_touch(stream);
	}
	return 0;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header_, size_t length,
                        nghttp2_data_source *source, void *arg)
{
	(void)session, (void)frame, (void)arg;
	return h2_stream_send_data(source->ptr, header_, length);
}

/* --- set-up ---------------------------------------------------------------------------------------------------------- */

static nghttp2_session_callbacks *callbacks_get(void)
{
	static nghttp2_session_callbacks *callbacks;
	if (callbacks)
		return callbacks;
	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		abort();
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
	nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
	return callbacks;
}

/* On links that many users share nghttp2's own answer to resets would end everybody's streams: h2_abuse.c counts instead. */
static nghttp2_option *options_get(void)
{
	static nghttp2_option *option;
	if (option)
		return option;
	if (nghttp2_option_new(&option) != 0)
		abort();
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_stream_reset_rate_limit(option, 1u << 30, 1u << 30);
	return option;
}

int h2_session_open(struct h2 *h2)
{
	int failed = h2->server ? nghttp2_session_server_new2(&h2->session, callbacks_get(), h2, options_get()) :
	                          nghttp2_session_client_new2(&h2->session, callbacks_get(), h2, options_get());
	if (failed)
		return failed;
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h2->header_bytes},
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h2->server ? h2->max_streams : 0},
		{h2->server ? NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL : NGHTTP2_SETTINGS_ENABLE_PUSH, h2->server ? 1 : 0},
	};
	nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0]));
	return nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW);
}
