#include "workers/tunnel/connection.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/h1.h"
#include "workers/tunnel/h2.h"
#include "workers/tunnel/hop_watch.h"
#include "workers/tunnel/leg_tcp.h"
#include "workers/tunnel/socks5_session.h"
#include "workers/tunnel/source_text.h"
#include "workers/tunnel/tls.h"
#include "workers/tunnel/transparent.h"

#define PREFACE "PRI * HTTP/2.0"      /* RFC 9113 3.4 */
#define PREFACE_TELLS 3               /* bytes that tell it from every HTTP/1 method in use */

enum kind { UNKNOWN, H1, H2, SOCKS, TCP };

struct connection {
	struct connection *prev, *next;
	struct bound *bound;
	struct transport *transport;    /* while UNKNOWN */
	struct origin origin;
	struct sockaddr_storage source;
	enum kind kind;
	int fd;                         /* the transport's, while that lives */
	struct h1_server *h1;
	struct h2 *h2;
	struct chunks first;
	char peer[256], domain[256], user[256];
};

static struct connection *all;

/* --- life ------------------------------------------------------------------------------------------------------------ */

static void connection_free(void *arg)
{
	struct connection *c = arg;
	if (c->prev)
		c->prev->next = c->next;
	else
		all = c->next;
	if (c->next)
		c->next->prev = c->prev;
	chunks_clear(&c->first);
	c->bound->connections--;
	stats_add(c->bound->base.stats, STATS_LISTENER_CONNECTIONS_OPEN, -1);
	bound_unref(c->bound);
	free(c);
}

static void refuse(struct connection *c, bool reset)
{
	transport_free(c->transport, reset);
	connection_free(c);
}

/* --- whom the certificate names -------------------------------------------------------------------------------------- */

static bool rule_admits(const struct connection *c, const struct config_peer *rule)
{
	const char *own = c->bound->generation->config->domain;
	if (rule->dns)
		return c->domain[0] == '\0' && strcasecmp(rule->dns, c->peer) == 0;
	const char *domain = rule->domain ? rule->domain : own;
	if (!domain || strcasecmp(domain, c->domain) != 0)
		return false;
	return !rule->node || strcasecmp(rule->node, c->peer) == 0;
}

static bool revoked(const struct connection *c)
{
	return tls_revoked(c->bound->tunnel->current->config, c->peer, c->domain);
}

/* Without `peers:` nodes of the own domain may connect, for any user. */
static bool admit(struct connection *c)
{
	const struct config_listener *l = c->bound->base.config;
	const char *own = c->bound->generation->config->domain;
	if (revoked(c))
		return false;
	if (l->n_peers == 0)
		return own && strcasecmp(own, c->domain) == 0;
	for (size_t i = 0; i < l->n_peers; i++) {
		if (!rule_admits(c, &l->peers[i]))
			continue;
		c->origin.peer_rule = &l->peers[i];
		return true;
	}
	return false;
}

void connections_commit(void)
{
	for (struct connection *c = all; c; c = c->next) {
		if (!c->origin.peer)
			continue;
		c->origin.peer_rule = NULL;       /* the old one went with its configuration */
		c->origin.peer_refused = !admit(c);
		if (c->origin.peer_refused)
			log_warn("peer refused", "listener=%s source=%s peer=%s domain=%s reason=%s", c->bound->base.name,
			         c->origin.source_text, log_value(c->peer), log_value(c->domain), revoked(c) ? "revoked" : "configuration");
		if (revoked(c))
			shutdown(c->fd, SHUT_RDWR);       /* at once; its flows do not wait for it to come back */
	}
}

/* For the operator: what to look at. */
static const char *refusal(const struct connection *c)
{
	const char *own = c->bound->generation->config->domain;
	if (revoked(c))
		return "revoked";
	if (!c->peer[0] || (!c->domain[0] && c->bound->base.config->n_peers == 0))
		return "its certificate names no node: it needs URI:hermes://DOMAIN/node/NAME";
	if (c->bound->base.config->n_peers > 0)
		return "it is none of the listener's peers";
	return own ? "another domain, and the listener names no peers" : "this node has no domain, and the listener names no peers";
}

/* At the controller's listener: a node of the own domain, or nobody yet, who comes to enrol. */
static bool identify_node(struct connection *c, SSL *ssl)
{
	const char *own = c->bound->generation->config->domain;
	if (!tls_peer(ssl, c->peer, sizeof(c->peer), c->domain, sizeof(c->domain)) || !own || strcasecmp(own, c->domain) != 0) {
		c->peer[0] = c->domain[0] = '\0';
		return true;
	}
	if (revoked(c))
		return false;
	c->origin.peer = c->peer;
	return true;
}

/* False: refused, c is gone. */
static bool identify(struct connection *c)
{
	SSL *ssl = transport_ssl(c->transport);
	bool overlay = c->bound->base.config->accept == CONFIG_OVERLAY;
	bool controller = strcmp(c->bound->base.name, CONFIG_CONTROLLER) == 0;
	if (!ssl || (controller && identify_node(c, ssl)))
		return true;
	if (!overlay && !controller) {
		if (tls_user(ssl, c->user, sizeof(c->user)))
			c->origin.proven_user = c->user;
		return true;
	}
	if (overlay && tls_peer(ssl, c->peer, sizeof(c->peer), c->domain, sizeof(c->domain)) && admit(c)) {
		c->origin.peer = c->peer;
		return true;
	}
	log_warn("peer refused", "listener=%s source=%s peer=%s domain=%s reason=%s", c->bound->base.name, c->origin.source_text,
	         log_value(c->peer), log_value(c->domain), log_value(refusal(c)));
	stats_add(c->bound->base.stats, STATS_LISTENER_HANDSHAKE_FAILURES, 1);
	refuse(c, false);
	return false;
}

/* --- what it speaks -------------------------------------------------------------------------------------------------- */

static void begin_h1(struct connection *c)
{
	c->kind = H1;
	c->origin.carry = "h1";
	struct transport *transport = c->transport;
	c->transport = NULL;
	transport_set_timeout(transport, 0);
	c->h1 = h1_server_new(c->bound->tunnel, transport, &c->origin, &c->first, connection_free, c);
}

static void begin_h2(struct connection *c)
{
	c->kind = H2;
	c->origin.carry = "h2";
	struct transport *transport = c->transport;
	c->transport = NULL;
	transport_set_timeout(transport, 0);
	bool draining = c->bound->tunnel->draining;
	c->h2 = h2_server_new(c->bound->tunnel, transport, &c->origin, &c->first, connection_free, c);
	if (draining)
		h2_drain(c->h2, false);
}

static void begin_tcp(struct connection *c, const char *target)
{
	c->kind = TCP;
	c->origin.carry = "tcp";
	struct head *request = head_new();
	request->method = "CONNECT";
	request->authority = head_string(request, target, -1);
	transport_set_timeout(c->transport, 0);
	tcp_leg_accept(c->bound->tunnel, c->transport, &c->origin, request, &c->first, NULL, connection_free, c);
}

static void begin_captured(struct connection *c)
{
	char target[ADDRESS_PORT_TEXT];
	if (transparent_target(c->fd, bound_port(c->bound), target))
		return begin_tcp(c, target);
	log_warn("connection was not captured", "listener=%s source=%s", c->bound->base.name, c->origin.source_text);
	stats_add(c->bound->base.stats, STATS_LISTENER_MALFORMED, 1);
	refuse(c, true);
}

static void begin_socks(struct connection *c)
{
	c->kind = SOCKS;
	c->origin.carry = "socks5";
	socks5_session_new(c->bound->tunnel, c->transport, c->fd, &c->origin, connection_free, c);
}

/* HTTP by its first bytes. */
static void sniff(struct connection *c)
{
	char start[PREFACE_TELLS];
	size_t n = 0;
	for (struct chunk *k = c->first.head; k && n < sizeof(start); k = k->next)
		for (uint32_t i = 0; i < k->length && n < sizeof(start); i++)
			start[n++] = (char)k->data[i];
	if (memcmp(start, PREFACE, n) != 0)
		begin_h1(c);
	else if (n == sizeof(start))
		begin_h2(c);
}

static void begin(struct connection *c)
{
	const unsigned char *alpn = NULL;
	unsigned length = 0;
	if (transport_ssl(c->transport))
		SSL_get0_alpn_selected(transport_ssl(c->transport), &alpn, &length);
	switch (c->bound->base.config->accept) {
	case CONFIG_TCP:
		return begin_tcp(c, c->bound->base.config->target.text);
	case CONFIG_TRANSPARENT:
		return begin_captured(c);
	case CONFIG_SOCKS5:
		return begin_socks(c);
	default:
		if (length == 2)
			begin_h2(c);
		else if (transport_ssl(c->transport) && c->bound->base.config->accept == CONFIG_OVERLAY)
			refuse(c, false);         /* HTTP/2 over TLS means ALPN (RFC 9113 3.2) */
		else if (length > 0)
			begin_h1(c);
		else if (c->first.head)
			sniff(c);
	}
}

static void on_ready(void *arg)
{
	struct connection *c = arg;
	if (identify(c))
		begin(c);
}

static void on_received(void *arg, struct chunks *chunks)
{
	struct connection *c = arg;
	chunks_move(&c->first, chunks);
	sniff(c);
}

static void on_ended(void *arg)
{
	refuse(arg, false);
}

static void on_writable(void *arg)
{
	(void)arg;
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct connection *c = arg;
	if (error == FLOW_TLS_PROTOCOL || error == FLOW_TLS_CERTIFICATE || error == FLOW_TLS_ALERT) {
		stats_add(c->bound->base.stats, STATS_LISTENER_HANDSHAKE_FAILURES, 1);
		log_info("handshake failed", "listener=%s source=%s reason=%s", c->bound->base.name, c->origin.source_text,
		         log_value(detail));
	}
	refuse(c, false);
}

static const struct transport_callbacks callbacks = {
	.ready = on_ready,
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.broken = on_broken,
};

void connection_accept(struct bound *b, int fd, const struct sockaddr_storage *source)
{
	const struct config_listener *l = b->base.config;
	stats_add(b->base.stats, STATS_LISTENER_CONNECTIONS, 1);
	if (b->connections >= l->limits.connections) {
		stats_add(b->base.stats, STATS_LISTENER_CONNECTIONS_REFUSED, 1);
		close(fd);
		return;
	}
	struct connection *c = calloc(1, sizeof(*c));
	if (!c)
		abort();
	*c = (struct connection){.bound = b, .source = *source, .fd = fd, .next = all};
	c->origin = (struct origin){.listener = &b->base, .source = &c->source, .carry = "tcp", .hold = bound_hold};
	source_text(&c->source, c->origin.source_text, sizeof(c->origin.source_text), &c->origin.source_port);
	if (all)
		all->prev = c;
	all = c;
	b->refs++;
	b->connections++;
	stats_add(b->base.stats, STATS_LISTENER_CONNECTIONS_OPEN, 1);
	SSL *ssl = tls_accept(b->generation->tls, l);
	c->transport = transport_new(b->tunnel->base, fd, ssl, TRANSPORT_ACCEPTED, &callbacks, c);
	if (l->accept == CONFIG_OVERLAY)
		transport_watch(c->transport, HOP_LOST_MS);
	transport_set_timeout(c->transport, ssl ? l->limits.handshake_timeout : l->limits.header_timeout);
	if (!ssl && (l->accept == CONFIG_TCP || l->accept == CONFIG_SOCKS5 || l->accept == CONFIG_TRANSPARENT))
		begin(c);
}

bool connections_fresh(void)
{
	for (const struct connection *c = all; c; c = c->next)
		if (c->kind == UNKNOWN || (c->kind == H1 && h1_server_fresh(c->h1)) || (c->kind == H2 && h2_noticed(c->h2)))
			return true;
	return false;
}

void connections_drain(void)
{
	for (struct connection *c = all, *next; c; c = next) {
		next = c->next;
		if (c->kind == H2)
			h2_drain(c->h2, false);
		else if (c->kind == H1)
			h1_server_drain(c->h1);
	}
}
