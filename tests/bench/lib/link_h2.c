#include <string.h>

#include "tests/bench/lib/link_internal.h"

#define STREAM_WINDOW (1 << 20)
#define LINK_WINDOW (16 << 20)

static ssize_t h2_read(nghttp2_session *h2, int32_t stream, uint8_t *buffer, size_t length, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
	(void)h2, (void)stream, (void)arg;
	struct tunnel *t = source->ptr;
	size_t n = t->opened ? tunnel_take(t, buffer, length) : 0;

	if (t->opened && tunnel_empty(t) && t->finish) {
		t->finished = true;
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		return (ssize_t)n;
	}
	return n ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
}

static int h2_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t length, uint8_t flags, void *arg)
{
	(void)flags, (void)arg;
	struct tunnel *t = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);

	if (!t || name_length != 7 || memcmp(name, ":status", 7) != 0)
		return 0;
	if (length != 3 || value[0] != '2')
		die("CONNECT refused: %.*s", (int)length, value);
	t->opened = true;
	return 0;
}

static int h2_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *arg)
{
	(void)arg;
	struct tunnel *t = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);

	if (frame->hd.type == NGHTTP2_GOAWAY)
		die("GOAWAY %u %.*s", frame->goaway.error_code, (int)frame->goaway.opaque_data_len,
		    (const char *)frame->goaway.opaque_data);
	if (t && frame->hd.type == NGHTTP2_HEADERS) {
		t->events->open(t);
		nghttp2_session_resume_data(h2, t->stream);
	}
	if (t && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && !t->finish) {
		t->finish = true;        /* the far end is done: so are we */
		nghttp2_session_resume_data(h2, t->stream);
	}
	return 0;
}

static int h2_data(nghttp2_session *h2, uint8_t flags, int32_t stream, const uint8_t *data, size_t length, void *arg)
{
	(void)flags, (void)arg;
	struct tunnel *t = nghttp2_session_get_stream_user_data(h2, stream);

	if (t)
		t->events->data(t, data, length);
	return 0;
}

static int h2_closed(nghttp2_session *h2, int32_t stream, uint32_t error, void *arg)
{
	(void)arg;
	struct tunnel *t = nghttp2_session_get_stream_user_data(h2, stream);

	if (t)
		tunnel_closed(t, error == NGHTTP2_NO_ERROR);
	return 0;
}

void h2_start(struct link *l)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW},
	                                           {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};

	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, h2_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, h2_closed);
	nghttp2_option_new(&option);
	nghttp2_option_set_peer_max_concurrent_streams(option, 1000);
	nghttp2_session_client_new2(&l->h2, callbacks, l, option);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(l->h2, NGHTTP2_FLAG_NONE, settings, 2);
	nghttp2_session_set_local_window_size(l->h2, NGHTTP2_FLAG_NONE, 0, LINK_WINDOW);
}

#define FIELD(n, v) {(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}
void h2_tunnel(struct link *l, struct tunnel *t)
{
	const nghttp2_nv fields[] = {FIELD(":method", "CONNECT"), FIELD(":authority", l->target.authority)};
	const nghttp2_data_provider body = {.source.ptr = t, .read_callback = h2_read};

	t->stream = nghttp2_submit_request(l->h2, NULL, fields, 2, &body, t);
	if (t->stream < 0)
		die("nghttp2: %s", nghttp2_strerror(t->stream));
}
