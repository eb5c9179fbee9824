#include "workers/tunnel/socks5_session.h"

#include <stdlib.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/auth.h"
#include "workers/tunnel/leg_tcp.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/socks5.h"
#include "workers/tunnel/socks5_udp.h"

struct session {
	struct tunnel *tunnel;
	struct transport *transport;
	int fd;                       /* the transport's */
	struct socks5_udp *relay;     /* of UDP ASSOCIATE */
	struct origin *origin;
	void (*gone)(void *arg);
	void *arg;
	struct auth_query *auth;
	struct chunks in;             /* not yet looked at */
	struct socks5 socks;
	char user[256];
};

static void session_free(void *arg)
{
	struct session *s = arg;
	void (*gone)(void *arg) = s->gone;
	void *owner = s->arg;
	if (s->auth)
		auth_cancel(s->auth);
	socks5_udp_free(s->relay);
	chunks_clear(&s->in);
	explicit_bzero(&s->socks, sizeof(s->socks));
	s->origin->proven_user = NULL;
	free(s);
	gone(owner);
}

static void say(struct session *s, const uint8_t *data, size_t length)
{
	struct chunks chunks = {0};
	chunks_copy(&chunks, data, length);
	transport_send(s->transport, &chunks, true);
}

static void answer(void *arg, const struct head *response)
{
	struct session *s = arg;
	uint8_t reply[SOCKS5_REPLY];
	say(s, reply, socks5_reply(reply, socks5_code(response)));
}

static void connect_flow(struct session *s)
{
	struct head *request = head_new();
	struct chunks rest = {0};
	request->method = "CONNECT";
	request->authority = head_string(request, s->socks.authority, -1);
	request->content_length = -1;
	chunks_move(&rest, &s->in);
	transport_pause(s->transport, false);
	transport_set_timeout(s->transport, 0);
	tcp_leg_accept(s->tunnel, s->transport, s->origin, request, &rest, answer, session_free, s);
}

static void refuse(struct session *s)
{
	log_info("socks refused", "listener=%s source=%s reason=%s", s->origin->listener->name, s->origin->source_text,
	         log_value(s->socks.why ? s->socks.why : "wrong user name or password"));
	stats_add(s->origin->listener->stats, STATS_LISTENER_MALFORMED, 1);
	transport_linger(s->transport);
	session_free(s);
}

/* The relay lasts as long as this connection (RFC 1928 6), on which nothing more is said. */
static void associate(struct session *s)
{
	struct sockaddr_storage bound;
	uint8_t reply[SOCKS5_REPLY_MAX];
	s->relay = socks5_udp_new(s->tunnel, s->origin, s->fd, &bound, &s->socks.why);
	if (!s->relay) {
		say(s, reply, socks5_reply(reply, SOCKS5_FAILURE));
		return refuse(s);
	}
	say(s, reply, socks5_reply_bound(reply, &bound));
	transport_set_timeout(s->transport, 0);
	chunks_clear(&s->in);
}

static void run(struct session *s);

static void on_proved(void *arg, bool ok)
{
	struct session *s = arg;
	s->auth = NULL;
	if (ok)
		memcpy(s->user, s->socks.name, sizeof(s->user));
	enum socks5_event event = socks5_proved(&s->socks, ok);
	say(s, s->socks.out, s->socks.out_length);
	if (event == SOCKS5_REFUSED)
		return refuse(s);
	s->origin->proven_user = s->user;
	transport_pause(s->transport, false);
	run(s);
}

static void prove(struct session *s)
{
	bool ok = false;
	transport_pause(s->transport, true);
	s->auth = auth_check(s->tunnel->auth, s->socks.name, s->socks.password, &ok, on_proved, s);
	if (!s->auth)
		on_proved(s, ok);
}

/* Feeds what came; each event but MORE ends the loop, and may end the session. */
static void run(struct session *s)
{
	while (s->in.head) {
		size_t used = 0;
		struct chunk *chunk = s->in.head;
		enum socks5_event event = socks5_feed(&s->socks, chunk->data, chunk->length, &used);
		chunks_drop(&s->in, used);
		if (s->socks.out_length && event != SOCKS5_CONNECT && event != SOCKS5_ASSOCIATE)
			say(s, s->socks.out, s->socks.out_length);
		if (event == SOCKS5_AUTH)
			return prove(s);
		if (event == SOCKS5_CONNECT)
			return connect_flow(s);
		if (event == SOCKS5_ASSOCIATE)
			return associate(s);
		if (event == SOCKS5_REFUSED)
			return refuse(s);
	}
}

static void on_received(void *arg, struct chunks *chunks)
{
	struct session *s = arg;
	if (s->relay)
		return chunks_clear(chunks);
	chunks_move(&s->in, chunks);
	if (!s->auth)
		run(s);
}

static void on_ended(void *arg)
{
	struct session *s = arg;
	transport_free(s->transport, false);
	session_free(s);
}

static void on_writable(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	(void)error, (void)detail;
	on_ended(arg);
}

static const struct transport_callbacks callbacks = {
	.received = on_received, .ended = on_ended, .writable = on_writable, .broken = on_broken};

void socks5_session_new(struct tunnel *tunnel, struct transport *transport, int fd, struct origin *origin,
                        void (*gone)(void *arg), void *arg)
{
	struct session *s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	*s = (struct session){.tunnel = tunnel, .transport = transport, .fd = fd, .origin = origin, .gone = gone, .arg = arg};
	socks5_init(&s->socks, tunnel->current->config->n_users > 0, origin->listener->config->require_user);
	transport_set_callbacks(transport, &callbacks, s);
}
