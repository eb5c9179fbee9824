/* HTTP/1.1 connections to the next hop: the exchange under way is the leg of a flow. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/h1.h"
#include "workers/tunnel/h1_body.h"
#include "workers/tunnel/h1_write.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/ws.h"

/* Bytes given to the flow and not taken: above, reading stops. What the far leg takes it takes at once, and it has a queue of
 * its own; to read further ahead would only fill memory with what a slow reader does not want. */
#define OUTSTANDING_HIGH (16u * 1024)

enum client_state {
	CONNECTING,
	IDLE,
	EXCHANGE,
	TUNNEL,                       /* bytes both ways after a CONNECT or an upgrade, to the connection's end */
	CLOSED                        /* memory goes when nothing of ours is on the stack */
};
enum request_state { REQUEST_WAIT, REQUEST_BODY, REQUEST_TUNNEL /* CONNECT not yet answered */, REQUEST_DONE };
enum response_state { RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_DONE };

struct h1_client {
	struct leg leg;               /* of the exchange under way */
	struct transport *transport;
	const struct h1_pool_callbacks *pool;
	void *arg;
	char *authority;              /* the next hop's own; NULL: not told */
	enum client_state state;
	unsigned busy;                /* calls of ours on the stack */
	bool reused;                  /* an exchange was served before */
	bool draining;
	struct h1_parser parser;
	/* the exchange */
	struct h1_body body;
	enum request_state request;
	enum response_state response;
	enum h1_out out;
	uint64_t out_left;            /* of H1_OUT_LENGTH */
	size_t outstanding;
	bool head_request;
	bool answered;                /* some byte of a response came */
	bool keep;                    /* another exchange may follow */
	bool finish_due;              /* the flow finished before the tunnel opened */
	bool masque;                  /* an upgrade to UDP or IP proxying */
	char protocol[16];            /* of an upgrade asked for; "": none */
	char key[WS_KEY_SIZE];
};

static const struct leg_ops client_ops;

/* --- life ---------------------------------------------------------------------------------------------------------------- */

static void leave(struct h1_client *c)
{
	if (--c->busy > 0 || c->state != CLOSED)
		return;
	free(c->authority);
	free(c);
}

static void dispose(struct h1_client *c, bool reset, bool linger, enum flow_error error, const char *detail)
{
	if (c->state == CLOSED)
		return;
	c->state = CLOSED;
	c->leg.flow = NULL;
	if (linger)
		transport_linger(c->transport);
	else
		transport_free(c->transport, reset);
	c->transport = NULL;
	h1_parser_clear(&c->parser);
	h1_body_clear(&c->body);
	c->pool->gone(c->arg, error, detail);
}

/* The exchange, if one is under way, and the connection end for the peer's fault. */
static void break_off(struct h1_client *c, enum flow_error error, const char *detail)
{
	struct flow *flow = c->leg.flow;
	c->leg.flow = NULL;
	if (flow)
		flow_broken(flow, &c->leg, error, detail);
	dispose(c, true, false, error, detail);
}

static void update_pause(struct h1_client *c)
{
	transport_pause(c->transport, c->outstanding > OUTSTANDING_HIGH || c->outstanding > slab_allowance());
}

static bool alive(const struct h1_client *c, const struct flow *flow)
{
	return flow && c->leg.flow == flow && (c->state == EXCHANGE || c->state == TUNNEL);
}

/* --- responses ----------------------------------------------------------------------------------------------------------- */

static void open_tunnel(struct h1_client *c, struct head *response)
{
	struct flow *flow = c->leg.flow;
	c->state = TUNNEL;
	c->request = REQUEST_BODY;
	c->response = RESPONSE_BODY;
	c->out = H1_OUT_TUNNEL;
	response->status = response->status == 101 ? 200 : response->status;
	head_remove(response, "content-length");
	head_remove(response, "sec-websocket-accept");
	if (c->masque)
		head_set(response, "capsule-protocol", "?1");
	transport_set_striped(c->transport, true);
	flow_head(flow, &c->leg, response, false);
	if (alive(c, flow) && c->finish_due)
		transport_finish(c->transport);
	else if (alive(c, flow))
		flow_writable(flow, &c->leg);
}

/* RFC 6455 4.1, RFC 9110 7.8 */
static bool upgraded_well(const struct h1_client *c, const struct h1_hop *hop)
{
	char accept[WS_ACCEPT_SIZE];
	if (!hop->upgrade || strcasecmp(hop->upgrade_to, c->protocol) != 0)
		return false;
	if (!c->key[0])
		return true;
	ws_accept(c->key, accept);
	return strcmp(accept, hop->accept) == 0;
}

/* RFC 9297 3.2: a 101 that frames a body is malformed. */
static bool opens(const struct h1_client *c, struct head *response, const struct h1_hop *hop)
{
	const char *why;
	if (!c->masque)
		return true;
	response->status = 200;
	return hop->framing != H1_CHUNKED && masque_opens(response, &why);
}

static void switching(struct h1_client *c, struct head *response, const struct h1_hop *hop)
{
	bool asked = c->protocol[0] != '\0', well = asked && upgraded_well(c, hop) && opens(c, response, hop);
	if (well)
		return open_tunnel(c, response);
	head_free(response);
	break_off(c, asked ? FLOW_UPGRADE : FLOW_RESPONSE, asked ? "next hop upgraded badly" : "101 that nobody asked for");
}

static void final(struct h1_client *c, struct head *response, const struct h1_hop *hop)
{
	struct flow *flow = c->leg.flow;
	bool none = c->head_request || head_no_body(NULL, response->status);
	if (response->status == 204)
		head_remove(response, "content-length");
	h1_body_init(&c->body, none ? H1_NO_BODY : hop->framing, hop->length);
	c->keep = !hop->close && (none || hop->framing != H1_UNTIL_CLOSE);
	bool end = h1_body_complete(&c->body);
	c->response = end ? RESPONSE_DONE : RESPONSE_BODY;
	if (c->request == REQUEST_TUNNEL)
		c->request = REQUEST_DONE;
	flow_head(flow, &c->leg, response, end);
}

static void respond(struct h1_client *c, struct head *response, const struct h1_hop *hop)
{
	unsigned status = response->status;
	bool tunnel = c->request == REQUEST_TUNNEL;
	if (status == 101) {
		switching(c, response, hop);
	} else if (status < 200) {
		head_remove(response, "content-length");
		flow_head(c->leg.flow, &c->leg, response, false);
	} else if (tunnel && status < 300 && !c->protocol[0]) {
		open_tunnel(c, response);     /* its Content-Length or coding mean nothing (RFC 9110 9.3.6) */
	} else if (tunnel && status < 300) {
		/* a 2xx would tell the flow that the tunnel is open */
		head_free(response);
		break_off(c, FLOW_UPGRADE, "next hop did not upgrade");
	} else {
		if (c->masque)
			head_remove(response, "capsule-protocol");   /* RFC 9297 3.4 */
		final(c, response, hop);
	}
}

static void read_head(struct h1_client *c, struct chunks *in)
{
	size_t used;
	c->answered = true;
	enum h1_result result = h1_parser_feed(&c->parser, in->head->data, in->head->length, &used);
	if (result == H1_ERROR)
		return break_off(c, FLOW_RESPONSE, c->parser.why);
	chunks_drop(in, used);
	if (result == H1_MORE)
		return;
	struct head *head = c->parser.head;
	struct h1_hop hop = c->parser.hop;
	c->parser.head = NULL;
	respond(c, head, &hop);
}

static void read_body(struct h1_client *c, struct chunks *in)
{
	struct chunks payload = {0};
	struct flow *flow = c->leg.flow;
	enum h1_result result = h1_body_read(&c->body, in, &payload);
	struct head *trailers = NULL;
	if (result == H1_DONE) {
		trailers = c->body.trailers.head;
		c->body.trailers.head = NULL;
		c->response = RESPONSE_DONE;
	}
	if (payload.head) {
		c->outstanding += payload.bytes;
		flow_data(flow, &c->leg, &payload);
	}
	if (result == H1_DONE && alive(c, flow))
		flow_finish(flow, &c->leg, trailers);
	else
		head_free(trailers);
	if (result == H1_ERROR && alive(c, flow))
		break_off(c, FLOW_RESPONSE, c->body.why);
	else if (c->state == EXCHANGE)
		update_pause(c);
}

static void give(struct h1_client *c, struct chunks *in)
{
	c->outstanding += in->bytes;
	flow_data(c->leg.flow, &c->leg, in);
	if (c->state == TUNNEL)
		update_pause(c);
}

static void on_received(void *arg, struct chunks *in)
{
	struct h1_client *c = arg;
	c->busy++;
	while (in->head && c->state != CLOSED) {
		if (c->state == TUNNEL)
			give(c, in);
		else if (c->state != EXCHANGE || c->request == REQUEST_WAIT)
			break_off(c, FLOW_TERMINATED, "bytes on an idle connection");
		else if (c->response == RESPONSE_HEAD)
			read_head(c, in);
		else if (c->response == RESPONSE_BODY)
			read_body(c, in);
		else {
			c->keep = false;          /* more than one response: nothing of it can be trusted */
			chunks_clear(in);
		}
	}
	chunks_clear(in);
	leave(c);
}

/* The connection ended inside an exchange, with or without an error. */
static void cut(struct h1_client *c, enum flow_error error, const char *detail)
{
	if (c->response == RESPONSE_HEAD && !c->answered)
		break_off(c, error, c->reused ? "idle connection closed" : detail);
	else if (c->response != RESPONSE_DONE)
		break_off(c, error == FLOW_TERMINATED ? FLOW_RESPONSE_INCOMPLETE : error, detail);
	else
		c->keep = false;              /* all that matters has come */
}

static void on_ended(void *arg)
{
	struct h1_client *c = arg;
	struct flow *flow = c->leg.flow;
	c->busy++;
	if (c->state == TUNNEL) {
		flow_finish(flow, &c->leg, NULL);
	} else if (c->state != EXCHANGE || c->request == REQUEST_WAIT) {
		break_off(c, FLOW_TERMINATED, "idle connection closed");
	} else if (c->response == RESPONSE_BODY && h1_body_ended(&c->body) == H1_DONE) {
		c->keep = false;
		c->response = RESPONSE_DONE;
		flow_finish(flow, &c->leg, NULL);
	} else {
		cut(c, FLOW_TERMINATED, c->answered ? "closed inside the response" : "closed before any response");
	}
	leave(c);
}

static void on_writable(void *arg)
{
	struct h1_client *c = arg;
	c->busy++;
	if (c->leg.flow)
		flow_writable(c->leg.flow, &c->leg);
	leave(c);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct h1_client *c = arg;
	c->busy++;
	if (c->state == EXCHANGE && c->request != REQUEST_WAIT && c->response != RESPONSE_DONE)
		cut(c, error, detail);
	else
		break_off(c, error, detail);
	leave(c);
}

static void on_ready(void *arg)
{
	struct h1_client *c = arg;
	c->busy++;
	c->state = IDLE;
	c->pool->ready(c->arg);
	leave(c);
}

static const struct transport_callbacks callbacks = {
	.ready = on_ready,
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.broken = on_broken,
};

/* --- requests ------------------------------------------------------------------------------------------------------------ */

/* A request without a body says so where its method suggests one (RFC 9110 8.6). */
static bool method_has_body(const char *method)
{
	return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
}

static bool upgrade_hop(struct h1_client *c, const struct head *request, struct h1_out_hop *hop)
{
	size_t n = strlen(request->protocol);
	if (n >= sizeof(c->protocol))
		return false;
	memcpy(c->protocol, request->protocol, n + 1);
	hop->upgrade = c->protocol;
	c->masque = masque_is(request);
	if (c->masque)
		hop->host = c->authority ? c->authority : "localhost";
	if (strcmp(c->protocol, "websocket") != 0)
		return true;
	hop->key = c->key;
	return ws_key(c->key);
}

static void client_head(struct leg *leg, const struct head *request, bool end)
{
	struct h1_client *c = (struct h1_client *)leg;
	struct h1_out_hop hop = {.body = H1_OUT_NONE};
	struct chunks out = {0};
	c->head_request = strcmp(request->method, "HEAD") == 0;
	if (head_is_connect(request)) {
		c->request = REQUEST_TUNNEL;
		if (request->protocol && !upgrade_hop(c, request, &hop)) {
			c->busy++;
			break_off(c, FLOW_UPGRADE, "no way to say this protocol in HTTP/1.1");
			return leave(c);
		}
	} else if (end) {
		c->request = REQUEST_DONE;
		hop.zero = request->content_length < 0 && method_has_body(request->method);
	} else {
		c->request = REQUEST_BODY;
		hop.body = request->content_length >= 0 ? H1_OUT_LENGTH : H1_OUT_CHUNKED;
		c->out_left = request->content_length >= 0 ? (uint64_t)request->content_length : 0;
	}
	c->out = hop.body;
	h1_write_request(&out, request, &hop);
	transport_send(c->transport, &out, true);
}

static bool has_room(struct h1_client *c)
{
	struct chunks none = {0};
	return transport_send(c->transport, &none, false);
}

static bool client_send(struct leg *leg, struct chunks *chunks)
{
	struct h1_client *c = (struct h1_client *)leg;
	if (c->request == REQUEST_TUNNEL && c->state == EXCHANGE)
		return chunks->head == NULL;      /* no optimistic data before the answer */
	if (c->state == CLOSED || c->request != REQUEST_BODY || !chunks->head) {
		chunks_clear(chunks);
		return true;
	}
	if (!has_room(c))
		return false;
	if (c->out == H1_OUT_LENGTH) {
		/* what exceeds the length would be taken for the next request */
		struct chunks fits = {0};
		chunks_split(&fits, chunks, c->out_left < chunks->bytes ? (size_t)c->out_left : chunks->bytes);
		c->out_left -= fits.bytes;
		chunks_clear(chunks);
		return transport_send(c->transport, &fits, true);
	}
	if (c->out == H1_OUT_CHUNKED)
		h1_write_chunk(chunks);
	return transport_send(c->transport, chunks, true);
}

static void client_finish(struct leg *leg, const struct head *trailers)
{
	struct h1_client *c = (struct h1_client *)leg;
	struct chunks out = {0};
	if (c->request == REQUEST_TUNNEL)
		c->finish_due = true;
	if (c->state == CLOSED || c->request != REQUEST_BODY)
		return;
	if (c->out == H1_OUT_LENGTH && c->out_left > 0)
		return;                       /* the request stays incomplete; close() will not keep the connection */
	c->request = REQUEST_DONE;
	if (c->out == H1_OUT_TUNNEL) {
		transport_finish(c->transport);
	} else if (c->out == H1_OUT_CHUNKED) {
		h1_write_last(&out, trailers);
		transport_send(c->transport, &out, true);
	}
}

static void client_taken(struct leg *leg, size_t bytes)
{
	struct h1_client *c = (struct h1_client *)leg;
	c->outstanding -= bytes < c->outstanding ? bytes : c->outstanding;
	if (c->state != CLOSED)
		update_pause(c);
}

static void idle(struct h1_client *c)
{
	c->reused |= c->request != REQUEST_WAIT;
	c->state = IDLE;
	c->outstanding = 0;
	update_pause(c);
	c->pool->idle(c->arg);
}

static void client_close(struct leg *leg, enum flow_error error)
{
	struct h1_client *c = (struct h1_client *)leg;
	c->busy++;
	c->leg.flow = NULL;
	bool complete = c->request == REQUEST_DONE && c->response == RESPONSE_DONE && c->keep && error == FLOW_NONE;
	if (c->state == CLOSED)
		;
	else if (c->state == EXCHANGE && !c->draining && (complete || c->request == REQUEST_WAIT))
		idle(c);
	else
		dispose(c, error != FLOW_NONE, error == FLOW_NONE && (c->state == TUNNEL || c->response == RESPONSE_DONE),
		        FLOW_NONE, "");
	leave(c);
}

static size_t client_waiting(const struct leg *leg)
{
	const struct transport *transport = ((const struct h1_client *)leg)->transport;
	return transport ? transport_pending(transport) : 0;
}

static const struct leg_ops client_ops = {
	.kind = "h1",
	.head = client_head,
	.send = client_send,
	.finish = client_finish,
	.taken = client_taken,
	.close = client_close,
	.waiting = client_waiting,
};

/* --- set-up -------------------------------------------------------------------------------------------------------------- */

struct h1_client *h1_client_new(struct tunnel *tunnel, struct transport *transport,
                                const struct h1_pool_callbacks *pool, void *arg)
{
	struct h1_client *c = calloc(1, sizeof(*c));
	(void)tunnel;
	if (!c)
		abort();
	*c = (struct h1_client){.leg = {.ops = &client_ops}, .transport = transport, .pool = pool, .arg = arg,
	                        .state = CONNECTING};
	h1_parser_init(&c->parser, H1_RESPONSE, H1_RESPONSE_LIMIT);
	transport_set_callbacks(transport, &callbacks, c);
	return c;
}

void h1_client_authority(struct h1_client *c, const char *authority)
{
	free(c->authority);
	c->authority = strdup(authority);
}

struct leg *h1_client_open(struct h1_client *c, struct flow *flow)
{
	c->leg.flow = flow;
	c->state = EXCHANGE;
	c->request = REQUEST_WAIT;
	c->response = RESPONSE_HEAD;
	c->out = H1_OUT_NONE;
	c->outstanding = 0;
	c->answered = c->keep = c->finish_due = false;
	c->masque = false;
	c->protocol[0] = c->key[0] = '\0';
	return &c->leg;
}

void h1_client_close(struct h1_client *c)
{
	c->busy++;
	c->draining = true;
	if (c->state == IDLE || c->state == CONNECTING)
		dispose(c, false, false, FLOW_NONE, "");
	leave(c);
}
