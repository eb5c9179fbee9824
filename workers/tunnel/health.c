#include "workers/tunnel/health.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/tunnel/dial.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/health_http.h"
#include "workers/tunnel/tls.h"
#include "workers/tunnel/transport.h"

#define FIRST_MS 1000                /* the first check comes within this, so that a dead endpoint is known soon */

struct health {
	struct endpoint *endpoint;
	struct event *timer;          /* the next check, or the end of the time for the one under way */
	unsigned good, bad;           /* results in a row */
	uint64_t random;
	/* a check under way; generation NULL: none */
	struct generation *generation;
	struct dial *dial;
	struct transport *transport;
	struct health_http *http;
};

static const struct config_health_check *settings(const struct health *h)
{
	return &h->endpoint->cluster->config->health_check;
}

/* xorshift64*: spreads checks, nothing more. */
static uint32_t random_below(struct health *h, uint32_t n)
{
	h->random ^= h->random >> 12;
	h->random ^= h->random << 25;
	h->random ^= h->random >> 27;
	return n ? (uint32_t)((h->random * 0x2545f4914f6cdd1dull >> 32) % n) : 0;
}

static void arm(struct health *h, uint32_t ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	event_add(h->timer, &delay);
}

/* The interval, give or take a tenth. */
static void arm_next(struct health *h)
{
	uint32_t interval = settings(h)->interval;
	arm(h, interval - interval / 10 + random_below(h, interval / 5));
}

static void clear(struct health *h)
{
	dial_cancel(h->dial);
	h->dial = NULL;
	health_http_free(h->http);
	h->http = NULL;
	if (h->transport)
		transport_free(h->transport, true);
	h->transport = NULL;
	generation_unref(h->generation);
	h->generation = NULL;
}

static void verdict(struct health *h, bool ok, const char *reason)
{
	char text[96];
	snprintf(text, sizeof(text), "%s", reason);
	clear(h);
	h->good = ok ? h->good + 1 : 0;
	h->bad = ok ? 0 : h->bad + 1;
	if (ok && h->good >= settings(h)->healthy)
		endpoint_set_down(h->endpoint, false, text);
	else if (!ok && h->bad >= settings(h)->unhealthy)
		endpoint_set_down(h->endpoint, true, text);
	arm_next(h);
}

/* --- a check ----------------------------------------------------------------------------------------------------- */

static void send_request(struct health *h)
{
	struct chunks out = {0};
	health_http_output(h->http, &out);
	if (out.head)
		transport_send(h->transport, &out, true);
}

static void on_ready(void *arg)
{
	struct health *h = arg;
	const struct config_cluster *config = h->endpoint->cluster->config;
	const char *authority = config->health_check.authority;
	const struct config_address *address = &h->endpoint->config->address;
	if (!config->health_check.path)
		return verdict(h, true, "");
	if (!authority)
		authority = address->unix_path ? "localhost" : h->endpoint->text;
	h->http = health_http_new(config->carry == CONFIG_H2, config->tls.enabled, authority, config->health_check.path);
	send_request(h);
}

static void on_received(void *arg, struct chunks *chunks)
{
	struct health *h = arg;
	const struct config_health_check *check = settings(h);
	char reason[64];
	if (!h->http) {
		chunks_clear(chunks);
		return;
	}
	int status = health_http_input(h->http, chunks);
	if (status < 0)
		return verdict(h, false, "not an HTTP response");
	send_request(h);
	if (status == 0)
		return;
	snprintf(reason, sizeof(reason), "status %d", status);
	verdict(h, status >= check->status_low && status <= check->status_high, reason);
}

static void on_ended(void *arg)
{
	verdict(arg, false, "closed without a response");
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	(void)error;
	verdict(arg, false, detail);
}

static void on_writable(void *arg)
{
	(void)arg;
}

static const struct transport_callbacks callbacks = {
	.ready = on_ready,
	.received = on_received,
	.ended = on_ended,
	.writable = on_writable,
	.broken = on_broken,
};

static void on_dialled(void *arg, const struct dial_result *result)
{
	struct health *h = arg;
	struct cluster *cluster = h->endpoint->cluster;
	const struct config_address *address = &h->endpoint->config->address;
	const char *host = tls_host(cluster->config, address->host);
	SSL *ssl = NULL;
	h->dial = NULL;
	if (result->fd < 0)
		return verdict(h, false, result->detail);
	generation_unref(h->generation);
	h->generation = generation_ref(cluster->generation);
	if (cluster->config->tls.enabled && !(ssl = tls_connect(cluster->generation->tls, cluster->config, host))) {
		close(result->fd);
		return verdict(h, false, "no TLS context could be made");
	}
	h->transport = transport_new(cluster->all->tunnel->base, result->fd, ssl, TRANSPORT_CONNECTING, &callbacks, h);
}

static void begin(struct health *h)
{
	struct cluster *cluster = h->endpoint->cluster;
	const struct config_address *address = &h->endpoint->config->address;
	struct dial_target target = {
		.host = address->host,
		.port = address->port,
		.unix_path = address->unix_path,
		.ttl_min = cluster->config->ttl_min,
		.ttl_max = cluster->config->ttl_max,
	};
	h->generation = generation_ref(cluster->generation);
	arm(h, settings(h)->timeout);
	h->dial = dial_new(cluster->all->tunnel, &target, on_dialled, h);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct health *h = arg;
	(void)fd, (void)what;
	if (h->generation)
		verdict(h, false, h->dial ? "no connection in time" : "no answer in time");
	else
		begin(h);
}

/* --- life -------------------------------------------------------------------------------------------------------- */

static struct health *health_new(struct endpoint *endpoint)
{
	struct health *h = calloc(1, sizeof(*h));
	if (!h)
		abort();
	h->endpoint = endpoint;
	h->random = now_us() ^ endpoint->hash ^ ((uint64_t)getpid() << 32);
	h->timer = evtimer_new(endpoint->cluster->all->tunnel->base, on_timer, h);
	if (!h->timer)
		abort();
	uint32_t interval = settings(h)->interval;
	arm(h, random_below(h, interval < FIRST_MS ? interval : FIRST_MS));
	return h;
}

void endpoint_health_free(struct health *h)
{
	if (!h)
		return;
	clear(h);
	event_free(h->timer);
	free(h);
}

void endpoint_health_update(struct endpoint *e)
{
	const struct config_health_check *check = &e->cluster->config->health_check;
	if (check->interval == 0) {
		endpoint_health_free(e->health);
		e->health = NULL;
		e->down = false;             /* the new generation's table knows nothing of it */
		return;
	}
	if (!e->health)
		e->health = health_new(e);
	else if (!e->health->generation)
		arm_next(e->health);
}
