/* SPDX-License-Identifier: Apache-2.0 */
/* The prober: flows of our own, one probe each. */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/ask.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/h1_parse.h"
#include "workers/tunnel/head.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/probe.h"

#define OPEN_MAX 256u

struct prober {
	struct leg leg;
	struct tunnel *tunnel;
	struct origin origin;
	struct listener listener;
	struct config_listener config;   /* as an overlay listener whose every peer is believed */
	struct sockaddr_storage source;
	struct event *timer;
	uint64_t began;                  /* µs */
	char *cluster, *name;
	probe_told *told;                /* NULL: was told */
	void *arg;
};
static unsigned n_open;

/* --- its life ---------------------------------------------------------------------------------------------------------------- */

static void prober_free(struct prober *p)
{
	event_free(p->timer);
	free(p->cluster);
	free(p->name);
	free(p);
	n_open--;
}

static void tell(struct prober *p, const struct head *response)
{
	probe_told *told = p->told;
	p->told = NULL;
	if (told)
		told(p->arg, response, now_us() - p->began);
}

/* The time is over, or the flow: what asked is on the stack no more. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct prober *p = arg;
	struct flow *flow = p->leg.flow;
	(void)fd, (void)what;
	tell(p, NULL);
	p->leg.flow = NULL;
	if (flow)
		flow_broken(flow, &p->leg, FLOW_CANCELLED, "no answer to the probe in time");
	prober_free(p);
}

static void on_head(struct leg *leg, const struct head *response, bool end)
{
	(void)end;
	if (response->status >= 200)
		tell((struct prober *)leg, response);
}

static bool on_send(struct leg *leg, struct chunks *chunks)
{
	(void)leg;
	chunks_clear(chunks);
	return true;
}

static void on_finish(struct leg *leg, const struct head *trailers)
{
	(void)leg, (void)trailers;
}

static void on_taken(struct leg *leg, size_t bytes)
{
	(void)leg, (void)bytes;
}

static void on_close(struct leg *leg, enum flow_error error)
{
	struct prober *p = (struct prober *)leg;
	static const struct timeval now = {0};
	(void)error;
	leg->flow = NULL;
	event_add(p->timer, &now);
}

static const struct leg_ops ops = {
	.kind = "probe",
	.head = on_head,
	.send = on_send,
	.finish = on_finish,
	.taken = on_taken,
	.close = on_close,
};

static struct decision *named(const struct leg *leg)
{
	const struct prober *p = leg->ops == &ops ? (const struct prober *)leg : NULL;
	struct decision *d = p && p->cluster ? calloc(1, sizeof(*d)) : NULL;
	if (!d)
		return NULL;
	d->refs = 1;
	d->cluster = strdup(p->cluster);
	d->retry.attempts = 1;
	d->cluster_stats = cluster_stats(p->tunnel->clusters, p->cluster);
	return d;
}

/* --- what it asks about ------------------------------------------------------------------------------------------------------ */

/* A URL, or an authority alone. */
static struct head *plain_head(const struct probe_words *w, const char **why)
{
	struct head *head = head_new();
	bool url = strstr(w->target, "://") != NULL;
	head->method = head_string(head, w->method ? w->method : url ? "GET" : "CONNECT", -1);
	if (!h1_is_token(head->method, strlen(head->method)))
		*why = "the method is none";
	else if (url && !head_is_connect(head) && h1_target(head, w->target, strlen(w->target), false, why))
		return head;
	else if (url)
		*why = *why ? *why : "CONNECT wants HOST:PORT";
	else if ((head->authority = h1_authority(head, w->target, strlen(w->target), false, why))) {
		head->scheme = head_is_connect(head) ? NULL : "http";
		head->path = head_is_connect(head) ? NULL : "/";
		return head;
	}
	head_free(head);
	return NULL;
}

static struct head *head_of(const struct probe_words *w, const char **why)
{
	struct head *head;
	if (w->method && strcmp(w->method, "CONNECT-UDP") == 0) {
		*why = "CONNECT-UDP wants HOST:PORT";
		head = masque_udp_request(w->target);
	} else if (w->method && strcmp(w->method, "CONNECT-IP") == 0) {
		*why = "CONNECT-IP wants a name, an address, a prefix or *";
		head = masque_ip_request(w->target, -1);
	} else {
		return plain_head(w, why);
	}
	if (head)
		head_remove(head, "capsule-protocol");
	return head;
}

/* "name=value" or "name: value" */
static bool add_header(struct head *head, const char *text)
{
	size_t n = strcspn(text, "=:");
	const char *value = text[n] ? text + n + 1 + strspn(text + n + 1, " ") : "";
	if (!text[n] || !h1_is_token(text, n) || !h1_is_value(value, strlen(value)))
		return false;
	char *name = strndup(text, n);
	if (!name)
		abort();
	for (char *c = name; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c | 0x20);
	head_set(head, name, value);
	free(name);
	return true;
}

/* As if it had come in there. */
static const char *pass_listener(struct head *head, const struct config *config, const struct probe_words *w)
{
	const struct config_listener *l = w->listener ? config_listener(config, w->listener) : NULL;
	if (w->listener && !l)
		return "no such listener: `hermes-admin listeners list` shows them";
	for (size_t i = 0; l && i < l->remove_headers.n; i++)
		head_remove(head, l->remove_headers.v[i]);
	for (size_t i = 0; l && i < l->add_headers.n; i++)
		head_set(head, l->add_headers.v[i].name, l->add_headers.v[i].value);
	if (w->cluster && !config_cluster(config, w->cluster))
		return "no such cluster: `hermes-admin clusters list` shows them";
	return NULL;
}

static const char *add_headers(struct head *head, const struct config *config, const struct probe_words *w)
{
	for (unsigned i = 0; i < w->n_headers; i++)
		if (!add_header(head, w->headers[i]))
			return "--header wants NAME=VALUE";
	const char *why = pass_listener(head, config, w);
	if (!why && w->user && !h1_is_value(w->user, strlen(w->user)))
		why = "--user: no name";
	if (!why && w->user)
		head_set(head, "user", w->user);
	return why;
}

/* --- asking ------------------------------------------------------------------------------------------------------------------ */

static struct prober *prober_new(struct tunnel *tunnel, const struct probe_words *w)
{
	struct prober *p = calloc(1, sizeof(*p));
	if (!p)
		abort();
	n_open++;
	*p = (struct prober){.leg = {.ops = &ops}, .tunnel = tunnel, .began = now_us(),
	                     .cluster = w->cluster ? strdup(w->cluster) : NULL,
	                     .name = strdup(w->listener ? w->listener : "hermes-admin")};
	p->config = (struct config_listener){.name = p->name, .accept = CONFIG_OVERLAY, .trust_headers = true};
	p->listener = (struct listener){.name = p->name, .config = &p->config};
	p->origin = (struct origin){.listener = &p->listener, .source = &p->source, .source_text = "127.0.0.1", .carry = "probe"};
	p->timer = evtimer_new(tunnel->base, on_timer, p);
	if (!p->timer)
		abort();
	return p;
}

const char *probe_send(struct tunnel *tunnel, const struct probe_words *words, probe_told *told, void *arg)
{
	struct head *head = NULL;
	const char *why = NULL;
	if (!tunnel->current)
		return "no configuration is in force yet";
	if (n_open >= OPEN_MAX)
		return "too many probes at once";
	head = head_of(words, &why);
	if (head)
		why = add_headers(head, tunnel->current->config, words);
	if (!head || why) {
		head_free(head);
		return why ? why : "the target is none";
	}
	probe_write(head, words->hops);
	probe_named = named;
	struct prober *p = prober_new(tunnel, words);
	p->told = told;
	p->arg = arg;
	struct timeval limit = {.tv_sec = words->timeout / 1000, .tv_usec = words->timeout % 1000 * 1000};
	event_add(p->timer, &limit);
	flow_new(tunnel, &p->origin, &p->leg, head, true);
	return NULL;
}
