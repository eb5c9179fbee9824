/* What the files of an HTTP/2 connection share: h2.c (the connection), h2_session.c (nghttp2's callbacks), h2_stream.c (a
 * stream as a leg), h2_abuse.c (what a peer may do how often).
 *
 * nghttp2's callbacks only note what happened on the stream and put it on the touched list; the up-calls to flows are made
 * after nghttp2 has returned (h2_settle), since they may submit, close or free anything. */
#ifndef HERMES_TUNNEL_H2_INTERNAL_H
#define HERMES_TUNNEL_H2_INTERNAL_H

#include <nghttp2/nghttp2.h>

#include "workers/tunnel/h2.h"
#include "workers/tunnel/listener.h"

#define H2_STREAM_WINDOW (1024 * 1024)        /* bytes a peer may send ahead on a stream, to begin with */
#define H2_STREAM_WINDOW_MAX (8 * 1024 * 1024) /* as far as a stream whose bytes are taken as they come grows */
#define H2_CONNECTION_WINDOW (16 * 1024 * 1024)
#define H2_QUEUE_HIGH (256u * 1024)           /* per stream, waiting to be framed */
#define H2_QUEUE_LOW (128u * 1024)
#define H2_STALLED_HIGH (1024u * 1024)        /* per connection: above, a stream may add only to an empty queue */
#define H2_INFORMATIONAL 4                    /* 1xx heads kept per stream between two turns */

struct h2_stream {
	struct leg leg;
	struct h2 *h2;
	int32_t id;
	struct h2_stream *prev, *next;         /* of the connection */
	struct h2_stream *touched_next;
	/* received, not yet handed to the flow */
	struct head *building;                 /* the block under way */
	struct head *ready[H2_INFORMATIONAL + 1];
	unsigned n_ready;
	struct head *trailers;
	struct chunks in;
	size_t building_bytes;
	/* to be sent */
	struct chunks out;
	struct head *out_trailers;
	uint64_t sent, sent_before, stuck_since;   /* bytes of payload; as of the last tick; µs */
	uint32_t error;                        /* of on_stream_close */
	enum flow_error failed;                /* found by ourselves: told to the flow when settled */
	const char *why;
	uint32_t window;                       /* ours, as announced; grows with use */
	uint64_t taken;                        /* bytes since it last grew */
	bool touched;
	bool too_large;                        /* the head: 431 */
	bool final_head;                       /* received: what comes next are trailers */
	bool head_end;                         /* END_STREAM came with the head */
	bool remote_ended, remote_end_told;
	bool closed;                           /* nghttp2 closed it */
	bool out_end;                          /* after out: END_STREAM */
	bool deferred;                         /* nghttp2 waits for resume_data */
	bool provider;                         /* a data source was submitted */
	bool refused, told_writable;
	bool end_sent;
	bool rst_sent;
	bool connect;                          /* classic or extended */
	bool masque;                           /* UDP or IP proxying */
};

struct h2_abuse {
	uint64_t window_start;                 /* µs */
	unsigned events, limit;
	unsigned resets, reset_limit;
};

struct h2 {
	struct tunnel *tunnel;
	struct transport *transport;
	nghttp2_session *session;
	bool server;
	const struct origin *origin;           /* server */
	void (*gone)(void *arg);
	struct h2_pool_callbacks pool;         /* client */
	void *arg;
	char *authority;                       /* client: the next hop's own; NULL: not told */
	struct h2_stream *streams;
	unsigned n_streams;
	uint32_t max_streams, header_bytes;
	struct h2_stream *touched, **touched_tail;
	struct chunks out;                     /* frames made, on their way to the transport */
	size_t queued;                         /* bytes in all streams' out */
	struct chunk *rx;                      /* being parsed */
	const uint8_t *rx_start;
	struct h2_abuse abuse;
	struct event *timer;                   /* preface, idle, drain */
	unsigned busy;
	bool settings_received, connect_protocol;
	bool noticed;                          /* draining was announced, the GOAWAY that means it is to come */
	bool ending;                           /* the last GOAWAY is on its way */
	bool closing;                          /* takes no further stream; pool was told */
	bool dead;                             /* transport gone; memory goes when busy is 0 */
	bool ready_told;
	bool goaway_due;                       /* abuse was found */
	uint64_t progress_us;                  /* the last time payload left or a request came */
	uint64_t headers_since;                /* µs; a header block is open since then, 0: none */
	enum flow_error error;
	char detail[96];
};

/* h2_session.c */
int h2_session_open(struct h2 *h2);

/* h2_stream.c */
struct h2_stream *h2_stream_new(struct h2 *h2, int32_t id);
void h2_stream_free(struct h2_stream *stream);
void h2_touch(struct h2_stream *stream);
/* Makes the up-calls of one touched stream. May free it. */
void h2_stream_settle(struct h2_stream *stream);
/* Hands the body on as frames: nghttp2's data source. */
nghttp2_data_provider h2_stream_provider(struct h2_stream *stream);
int h2_stream_send_data(struct h2_stream *stream, const uint8_t *frame_header, size_t length);
extern const struct leg_ops h2_server_ops, h2_client_ops;
/* The connection broke: tells the flow, and frees; a stream whose exchange was complete waits for its flow to let go. */
void h2_stream_broken(struct h2_stream *stream, enum flow_error error, const char *detail);

/* h2_abuse.c: false when it was once too often; the caller ends the connection with ENHANCE_YOUR_CALM. */
void h2_abuse_init(struct h2_abuse *abuse, unsigned limit, bool shared);
bool h2_abuse_frame(struct h2_abuse *abuse, const nghttp2_frame_hd *frame);
/* A whole DATA frame, which may have been nothing but padding. */
bool h2_abuse_padding(struct h2_abuse *abuse, const nghttp2_frame *frame);
bool h2_abuse_reset_sent(struct h2_abuse *abuse);
/* A DATA frame of a few bytes went out because the peer's window let no more pass. */
bool h2_abuse_tiny_window(struct h2_abuse *abuse);

/* h2.c */
/* Frees a dead connection when no stream of it is held by a flow any more. */
void h2_free(struct h2 *h2);
void h2_settle(struct h2 *h2);
/* Has frames to send: the transport asks for them in this turn. */
void h2_want(struct h2 *h2);

#endif
