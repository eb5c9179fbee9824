/* HTTP/1.1 connections that clients opened: one exchange at a time is the leg of a flow. */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/stats.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/h1.h"
#include "workers/tunnel/h1_body.h"
#include "workers/tunnel/h1_write.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/ws.h"

/* Bytes given to the flow and not taken: above, reading stops. What the far leg takes it takes at once, and it has a queue of
 * its own; to read further ahead would only fill memory with what a slow reader does not want. */
#define OUTSTANDING_HIGH (16u * 1024)

enum server_state {
	IDLE,                         /* no byte of a request yet */
	HEAD,                         /* part of one */
	EXCHANGE,
	TUNNEL,                       /* bytes both ways after a CONNECT or an upgrade, to the connection's end */
	CLOSED                        /* memory goes when nothing of ours is on the stack */
};
enum request_state { REQUEST_BODY, REQUEST_TUNNEL /* CONNECT not yet answered */, REQUEST_DONE };
enum response_state { RESPONSE_WAIT, RESPONSE_BODY, RESPONSE_DONE };

struct h1_server {
	struct leg leg;               /* of the exchange under way */
	struct tunnel *tunnel;
	struct transport *transport;
	const struct origin *origin;
	void (*gone)(void *arg);
	void *arg;
	struct event *timer;
	uint64_t deadline, armed;     /* µs, 0: none; the timer may be armed for earlier than the deadline */
	enum server_state state;
	unsigned busy;                /* calls of ours on the stack */
	struct h1_parser parser;
	/* the exchange */
	struct h1_body body;
	enum request_state request;
	enum response_state response;
	enum h1_out out;
	uint64_t out_left;            /* of H1_OUT_LENGTH */
	size_t outstanding;
	unsigned minor;               /* of the request's version */
	const char *upgrade;          /* to this protocol (static); NULL: none */
	char key[WS_KEY_LENGTH + 1];  /* of an upgrade to websocket */
	bool head_request;
	bool keep;                    /* another request may follow */
	bool set_aside;               /* bytes after the request wait in the transport */
	bool draining, used;          /* used: the connection had a request */
};

static const struct leg_ops server_ops;

/* --- life ---------------------------------------------------------------------------------------------------------------- */

static void leave(struct h1_server *s)
{
	if (--s->busy == 0 && s->state == CLOSED)
		free(s);
}

/* The transport is handled already. */
static void dispose(struct h1_server *s)
{
	if (s->state == CLOSED)
		return;
	s->state = CLOSED;
	s->transport = NULL;
	s->leg.flow = NULL;
	event_free(s->timer);
	h1_parser_clear(&s->parser);
	h1_body_clear(&s->body);
	s->gone(s->arg);
}

static void end_politely(struct h1_server *s)
{
	transport_linger(s->transport);
	dispose(s);
}

static void end_at_once(struct h1_server *s)
{
	transport_free(s->transport, true);
	dispose(s);
}

/* The flow hears that the client is no more. */
static void break_flow(struct h1_server *s, enum flow_error error, const char *detail)
{
	struct flow *flow = s->leg.flow;
	s->leg.flow = NULL;
	if (flow)
		flow_broken(flow, &s->leg, error, detail);
}

static void set_deadline(struct h1_server *s, uint32_t ms)
{
	s->deadline = ms ? now_us() + (uint64_t)ms * 1000 : 0;
	if (!ms || (s->armed && s->armed <= s->deadline))
		return;
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	event_add(s->timer, &delay);
	s->armed = s->deadline;
}

static const struct config_limits *limits(const struct h1_server *s)
{
	return &s->origin->listener->config->limits;
}

static void update_pause(struct h1_server *s)
{
	bool waits = s->state == EXCHANGE && (s->set_aside || s->request == REQUEST_TUNNEL);
	transport_pause(s->transport, waits || s->outstanding > OUTSTANDING_HIGH || s->outstanding > slab_allowance());
}

/* --- requests ------------------------------------------------------------------------------------------------------------ */

/* Our answer to what is no request. Nothing after it can be trusted: the connection ends. */
static void refuse(struct h1_server *s, enum flow_error error, unsigned status, const char *why)
{
	char text[256];
	struct chunks out = {0};
	const char *node = s->tunnel->current->config->node_name;
	struct head *head = fields_error_response(error, status, node, why, true, text, sizeof(text));
	h1_write_response(&out, status, head, &(struct h1_out_hop){.body = H1_OUT_LENGTH, .close = true});
	chunks_copy(&out, text, strlen(text));
	head_free(head);
	stats_add(s->origin->listener->stats, STATS_LISTENER_MALFORMED, 1);
	transport_send(s->transport, &out, true);
	end_politely(s);
}

static void begin(struct h1_server *s, struct head *request, const struct h1_hop *hop)
{
	bool tunnel = head_is_connect(request);
	h1_body_init(&s->body, hop->framing, hop->length);
	s->state = EXCHANGE;
	s->request = tunnel ? REQUEST_TUNNEL : h1_body_complete(&s->body) ? REQUEST_DONE : REQUEST_BODY;
	s->response = RESPONSE_WAIT;
	s->out = H1_OUT_NONE;
	s->outstanding = 0;
	s->minor = hop->minor;
	s->head_request = strcmp(request->method, "HEAD") == 0;
	s->keep = !hop->close;
	s->upgrade = hop->protocol;
	memcpy(s->key, hop->key, sizeof(s->key));
	set_deadline(s, 0);
	if (tunnel)
		update_pause(s);          /* nothing is taken for tunnel bytes before the answer says so */
	flow_new(s->tunnel, s->origin, &s->leg, request, s->request == REQUEST_DONE);
}

static void read_head(struct h1_server *s, struct chunks *in)
{
	size_t used;
	enum h1_result result = h1_parser_feed(&s->parser, in->head->data, in->head->length, &used);
	if (result == H1_ERROR)
		return refuse(s, FLOW_REQUEST, s->parser.status, s->parser.why);
	chunks_drop(in, used);
	if (result == H1_MORE && s->state == IDLE) {
		s->state = HEAD;
		set_deadline(s, limits(s)->header_timeout);
	} else if (result == H1_DONE) {
		struct head *head = s->parser.head;
		s->parser.head = NULL;
		begin(s, head, &s->parser.hop);
	}
}

static void bad_body(struct h1_server *s)
{
	enum response_state response = s->response;
	break_flow(s, FLOW_REQUEST, s->body.why);
	if (s->state == CLOSED)
		return;
	if (response == RESPONSE_WAIT)
		refuse(s, FLOW_REQUEST, s->body.status, s->body.why);
	else
		end_at_once(s);
}

static void read_body(struct h1_server *s, struct chunks *in)
{
	struct chunks payload = {0};
	struct flow *flow = s->leg.flow;
	enum h1_result result = h1_body_read(&s->body, in, &payload);
	struct head *trailers = NULL;
	if (result == H1_DONE) {
		trailers = s->body.trailers.head;
		s->body.trailers.head = NULL;
		s->request = REQUEST_DONE;
	}
	if (payload.head && flow) {
		s->outstanding += payload.bytes;
		flow_data(flow, &s->leg, &payload);
	}
	chunks_clear(&payload);
	/* the flow may have ended the exchange meanwhile */
	bool alive = s->state == EXCHANGE && s->leg.flow == flow && flow;
	if (result == H1_DONE && alive)
		flow_finish(flow, &s->leg, trailers);
	else
		head_free(trailers);
	if (result == H1_ERROR && alive)
		bad_body(s);
	else if (s->state == EXCHANGE)
		update_pause(s);
}

static void give(struct h1_server *s, struct chunks *in)
{
	s->outstanding += in->bytes;
	flow_data(s->leg.flow, &s->leg, in);
	if (s->state == TUNNEL)
		update_pause(s);
}

static void on_received(void *arg, struct chunks *in)
{
	struct h1_server *s = arg;
	s->busy++;
	while (in->head && s->state != CLOSED) {
		if (s->state == TUNNEL) {
			give(s, in);
		} else if (s->state != EXCHANGE) {
			read_head(s, in);
		} else if (s->request == REQUEST_BODY) {
			read_body(s, in);
		} else {
			/* pipelined, or sent ahead into a tunnel: waits in the transport */
			s->set_aside = true;
			transport_unread(s->transport, in);
			update_pause(s);
		}
	}
	chunks_clear(in);
	leave(s);
}

static void on_ended(void *arg)
{
	struct h1_server *s = arg;
	s->busy++;
	if (s->state == TUNNEL) {
		s->request = REQUEST_DONE;
		flow_finish(s->leg.flow, &s->leg, NULL);
	} else if (s->state == EXCHANGE && s->request == REQUEST_DONE) {
		s->keep = false;          /* it may still read the answer */
	} else if (s->state == EXCHANGE) {
		break_flow(s, FLOW_CANCELLED, "client closed inside its request");
		if (s->state != CLOSED)
			end_at_once(s);
	} else if (s->state != CLOSED) {
		end_politely(s);
	}
	leave(s);
}

static void on_writable(void *arg)
{
	struct h1_server *s = arg;
	s->busy++;
	if (s->leg.flow)
		flow_writable(s->leg.flow, &s->leg);
	leave(s);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct h1_server *s = arg;
	(void)error;
	s->busy++;
	break_flow(s, FLOW_CANCELLED, detail);
	if (s->state != CLOSED)
		end_at_once(s);
	leave(s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct h1_server *s = arg;
	(void)fd, (void)what;
	uint64_t now = now_us();
	s->armed = 0;
	if (!s->deadline)
		return;
	if (now < s->deadline)
		return set_deadline(s, (uint32_t)((s->deadline - now) / 1000) + 1);
	s->busy++;
	if (s->state == HEAD)
		refuse(s, FLOW_REQUEST, 408, "request took too long to come");
	else
		end_politely(s);
	leave(s);
}

static const struct transport_callbacks callbacks = {
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.broken = on_broken,
};

/* --- responses ----------------------------------------------------------------------------------------------------------- */

/* How this response's body goes out (RFC 9112 6.3). */
static enum h1_out out_framing(const struct h1_server *s, const struct head *response, bool end)
{
	if (s->head_request || end || head_no_body(NULL, response->status))
		return H1_OUT_NONE;
	if (response->content_length >= 0)
		return H1_OUT_LENGTH;
	return s->minor > 0 ? H1_OUT_CHUNKED : H1_OUT_UNTIL_CLOSE;
}

static void open_tunnel(struct h1_server *s, const struct head *response)
{
	char accept[WS_ACCEPT_SIZE];
	struct h1_out_hop hop = {.body = H1_OUT_TUNNEL, .upgrade = s->upgrade};
	struct chunks out = {0};
	if (s->key[0]) {
		ws_accept(s->key, accept);
		hop.accept = accept;
	}
	h1_write_response(&out, s->upgrade ? 101 : response->status, response, &hop);
	transport_send(s->transport, &out, true);
	s->state = TUNNEL;
	s->out = H1_OUT_TUNNEL;
	s->response = RESPONSE_BODY;
	s->set_aside = false;
	transport_set_striped(s->transport, true);
	update_pause(s);
}

static void write_final(struct h1_server *s, const struct head *response, bool end)
{
	struct chunks out = {0};
	bool no_body = s->head_request || head_no_body(NULL, response->status);
	s->out = out_framing(s, response, end);
	s->out_left = s->out == H1_OUT_LENGTH ? (uint64_t)response->content_length : 0;
	if (s->request == REQUEST_TUNNEL) {
		s->request = REQUEST_DONE;    /* refused: there is no tunnel */
		if ((s->upgrade && !s->key[0]) || s->set_aside)
			s->keep = false;      /* what the client sent into it already is no request */
	}
	if (s->draining || s->tunnel->draining || s->out == H1_OUT_UNTIL_CLOSE ||
	    (end && !no_body && response->content_length > 0) ||
	    (s->request == REQUEST_BODY && response->status >= 400))   /* RFC 9112 9.3: the rest will not be read */
		s->keep = false;
	struct h1_out_hop hop = {.body = s->out, .close = !s->keep};
	hop.zero = end && !no_body && response->content_length < 0;
	h1_write_response(&out, response->status, response, &hop);
	transport_send(s->transport, &out, true);
	s->response = s->out == H1_OUT_NONE ? RESPONSE_DONE : RESPONSE_BODY;
}

static void server_head(struct leg *leg, const struct head *response, bool end)
{
	struct h1_server *s = (struct h1_server *)leg;
	unsigned status = response->status;
	if (s->state != EXCHANGE || s->response != RESPONSE_WAIT)
		return;
	if (status >= 200) {
		if (s->request == REQUEST_TUNNEL && status < 300)
			open_tunnel(s, response);
		else
			write_final(s, response, end);
	} else if (s->minor > 0 && status != 101) {
		struct chunks out = {0};      /* RFC 9110 15.2: not to HTTP/1.0 clients */
		h1_write_response(&out, status, response, &(struct h1_out_hop){.body = H1_OUT_NONE});
		transport_send(s->transport, &out, true);
	}
}

static bool has_room(struct h1_server *s)
{
	struct chunks none = {0};
	return transport_send(s->transport, &none, false);
}

static bool server_send(struct leg *leg, struct chunks *chunks)
{
	struct h1_server *s = (struct h1_server *)leg;
	if (s->state == CLOSED || s->response != RESPONSE_BODY || !chunks->head) {
		chunks_clear(chunks);         /* a body where none may be: HEAD, 204, 304 */
		return true;
	}
	if (!has_room(s))
		return false;
	if (s->out == H1_OUT_LENGTH) {
		/* what exceeds the length would be taken for the next response */
		struct chunks fits = {0};
		chunks_split(&fits, chunks, s->out_left < chunks->bytes ? (size_t)s->out_left : chunks->bytes);
		s->out_left -= fits.bytes;
		s->keep &= !chunks->head;
		chunks_clear(chunks);
		return transport_send(s->transport, &fits, true);
	}
	if (s->out == H1_OUT_CHUNKED)
		h1_write_chunk(chunks);
	return transport_send(s->transport, chunks, true);
}

static void server_finish(struct leg *leg, const struct head *trailers)
{
	struct h1_server *s = (struct h1_server *)leg;
	struct chunks out = {0};
	if (s->state == CLOSED || s->response != RESPONSE_BODY)
		return;
	s->response = RESPONSE_DONE;
	if (s->out == H1_OUT_TUNNEL) {
		transport_finish(s->transport);
	} else if (s->out == H1_OUT_CHUNKED) {
		h1_write_last(&out, trailers);
		transport_send(s->transport, &out, true);
	} else if (s->out == H1_OUT_LENGTH && s->out_left > 0) {
		s->keep = false;
	}
}

static void server_taken(struct leg *leg, size_t bytes)
{
	struct h1_server *s = (struct h1_server *)leg;
	s->outstanding -= bytes < s->outstanding ? bytes : s->outstanding;
	if (s->state != CLOSED)
		update_pause(s);
}

static void next_request(struct h1_server *s)
{
	s->state = IDLE;
	s->used = true;
	s->set_aside = false;
	s->outstanding = 0;
	set_deadline(s, limits(s)->idle_timeout);
	update_pause(s);              /* what was set aside comes again */
}

static void server_close(struct leg *leg, enum flow_error error)
{
	struct h1_server *s = (struct h1_server *)leg;
	s->busy++;
	s->leg.flow = NULL;
	if (s->state == CLOSED)
		;
	else if (error != FLOW_NONE || (s->response == RESPONSE_WAIT))
		end_at_once(s);
	else if (s->state == EXCHANGE && s->keep && !s->draining && s->request == REQUEST_DONE && s->response == RESPONSE_DONE)
		next_request(s);
	else
		end_politely(s);
	leave(s);
}

static size_t server_waiting(const struct leg *leg)
{
	const struct transport *transport = ((const struct h1_server *)leg)->transport;
	return transport ? transport_pending(transport) : 0;
}

/* After a CONNECT there are but bytes: the successor has it as any other connection. */
static bool server_hand_over(struct leg *leg, struct parcel *parcel)
{
	struct h1_server *s = (struct h1_server *)leg;
	struct chunks out = {0}, in = {0};
	int fd = s->state == TUNNEL && !s->upgrade && s->busy == 0 ? transport_hand_over(s->transport, &out, &in) : -1;
	if (fd < 0)
		return false;
	parcel_put_chunks(parcel, PARCEL_DOWN, &out);
	chunks_clear(&out);
	parcel->record.in_kind = "tcp";
	parcel->fd = fd;
	s->outstanding += in.bytes;
	s->busy++;
	if (in.head)
		flow_data(leg->flow, leg, &in);
	leave(s);
	return true;
}

static const struct leg_ops server_ops = {
	.kind = "h1",
	.head = server_head,
	.send = server_send,
	.finish = server_finish,
	.taken = server_taken,
	.close = server_close,
	.waiting = server_waiting,
	.hand_over = server_hand_over,
};

/* --- set-up -------------------------------------------------------------------------------------------------------------- */

struct h1_server *h1_server_new(struct tunnel *tunnel, struct transport *transport, const struct origin *origin,
                                struct chunks *first, void (*gone)(void *arg), void *arg)
{
	struct h1_server *s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	*s = (struct h1_server){.leg = {.ops = &server_ops}, .tunnel = tunnel, .transport = transport, .origin = origin,
	                        .gone = gone, .arg = arg, .state = IDLE};
	s->timer = evtimer_new(tunnel->base, on_timer, s);
	if (!s->timer)
		abort();
	h1_parser_init(&s->parser, H1_REQUEST, limits(s)->header_bytes);
	s->parser.secure = transport_ssl(transport) != NULL;
	set_deadline(s, limits(s)->header_timeout);
	if (first && first->head)
		transport_unread(transport, first);
	transport_set_callbacks(transport, &callbacks, s);
	return s;
}

void h1_server_drain(struct h1_server *s)
{
	s->busy++;
	s->draining = true;
	if (s->state == IDLE && s->used)
		end_politely(s);
	leave(s);
}

bool h1_server_fresh(const struct h1_server *s)
{
	return s->state == IDLE && !s->used;
}
