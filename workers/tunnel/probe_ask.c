/* SPDX-License-Identifier: Apache-2.0 */
/* The prober: flows of our own, one probe each, that begin at the admin socket. */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "workers/tunnel/ask.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/h1_parse.h"
#include "workers/tunnel/head.h"
#include "workers/tunnel/listener.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/probe.h"

#define OPEN_MAX 64u
#define TIMEOUT_MS 3000u          /* the supervisor waits for 5 s */
#define TIMEOUT_MAX_MS 4500u
#define HEADERS_MAX 64u

/* What the words of the request say; points into them. */
struct words {
	const char *user, *method, *listener, *cluster, *target;
	const char *headers[HEADERS_MAX];
	unsigned n_headers, hops, timeout;
};

struct prober {
	struct leg leg;
	struct tunnel *tunnel;
	struct origin origin;
	struct listener listener;
	struct config_listener config;   /* as an overlay listener whose every peer is believed */
	struct sockaddr_storage source;
	struct event *timer;
	uint64_t id, began;              /* the request's; µs */
	char *cluster, *name;
	bool answered;
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

static void reply(struct prober *p, unsigned status, const char *json, const char *error)
{
	if (!p->answered)
		worker_reply(p->tunnel->worker, p->id, status, json, error);
	p->answered = true;
}

/* The time is over, or the flow: what asked is on the stack no more. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct prober *p = arg;
	struct flow *flow = p->leg.flow;
	(void)fd, (void)what;
	reply(p, 0, "{\"answered\":false}", NULL);
	p->leg.flow = NULL;
	if (flow)
		flow_broken(flow, &p->leg, FLOW_CANCELLED, "no answer to the probe in time");
	prober_free(p);
}

static void put_text(struct json *j, const char *key, const char *text)
{
	json_str(j, key, text[0] ? text : NULL);
}

static void put_hop(struct json *j, const struct head *response)
{
	struct hop hop;
	if (!hop_read(response, &hop))
		return json_raw(j, "hop", "null");
	json_object(j, "hop");
	put_text(j, "node", hop.node);
	put_text(j, "domain", hop.domain);
	put_text(j, "route", hop.route);
	put_text(j, "cluster", hop.cluster);
	put_text(j, "carry", hop.carry);
	put_text(j, "endpoint", hop.endpoint);
	json_bool(j, "end", hop.end);
	json_uint(j, "status", hop.status);
	put_text(j, "error", hop.error);
	put_text(j, "detail", hop.detail);
	json_end(j);
}

static void on_head(struct leg *leg, const struct head *response, bool end)
{
	struct prober *p = (struct prober *)leg;
	struct json j = JSON_INIT;
	(void)end;
	if (response->status < 200 || p->answered)
		return;
	json_object(&j, NULL);
	json_bool(&j, "answered", true);
	json_uint(&j, "round_trip_us", now_us() - p->began);
	json_uint(&j, "status", response->status);
	json_str(&j, "proxy_status", head_get(response, "proxy-status"));
	put_hop(&j, response);
	json_end(&j);
	reply(p, 0, j.data, NULL);
	json_free(&j);
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

static const char **option(struct words *w, const char *word)
{
	const struct { const char *name; const char **where; } options[] = {
		{"--user", &w->user}, {"--method", &w->method}, {"--listener", &w->listener}, {"--cluster", &w->cluster},
	};
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		if (strcmp(options[i].name, word) == 0)
			return options[i].where;
	return NULL;
}

static bool take_number(const char *text, unsigned max, unsigned *number)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	*number = (unsigned)value;
	return text[0] >= '0' && text[0] <= '9' && !*end && value <= max;
}

static const char *take_option(struct words *w, const char *word, const char *value)
{
	const char **where = option(w, word);
	if (!value)
		return "an option without its value";
	if (where) {
		*where = value;
		return NULL;
	}
	if (strcmp(word, "--hops") == 0)
		return take_number(value, 255, &w->hops) ? NULL : "--hops wants a number up to 255";
	if (strcmp(word, "--timeout") == 0)
		return take_number(value, TIMEOUT_MAX_MS, &w->timeout) && w->timeout ? NULL : "--timeout wants milliseconds up to 4500";
	if (strcmp(word, "--header") != 0)
		return "unknown option; known are --user, --header, --method, --listener, --cluster, --hops, --timeout";
	if (w->n_headers == HEADERS_MAX)
		return "too many headers";
	w->headers[w->n_headers++] = value;
	return NULL;
}

static const char *take_words(struct words *w, const struct ipc_strs *args)
{
	*w = (struct words){.timeout = TIMEOUT_MS};
	for (size_t i = 0; i < args->n; i++) {
		const char *why = NULL;
		if (strncmp(args->v[i], "--", 2) == 0) {
			why = take_option(w, args->v[i], i + 1 < args->n ? args->v[i + 1] : NULL);
			i++;
		} else if (w->target) {
			why = "more than one target";
		} else {
			w->target = args->v[i];
		}
		if (why)
			return why;
	}
	return w->target ? NULL : "a target is missing: a URL, HOST:PORT, a node, or a prefix";
}

/* A URL, or an authority alone. */
static struct head *plain_head(const struct words *w, const char **why)
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

static struct head *head_of(const struct words *w, const char **why)
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
static const char *pass_listener(struct head *head, const struct config *config, const struct words *w)
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

static const char *add_headers(struct head *head, const struct config *config, const struct words *w)
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

static struct prober *prober_new(struct tunnel *tunnel, uint64_t id, const struct words *w)
{
	struct prober *p = calloc(1, sizeof(*p));
	if (!p)
		abort();
	n_open++;
	*p = (struct prober){.leg = {.ops = &ops}, .tunnel = tunnel, .id = id, .began = now_us(),
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

void probe_ask(struct tunnel *tunnel, const struct ipc_admin_request *request)
{
	struct words words;
	struct head *head = NULL;
	const char *why = tunnel->current ? take_words(&words, &request->args) : "no configuration is in force yet";
	if (!why && n_open >= OPEN_MAX)
		why = "too many probes at once";
	if (!why && (head = head_of(&words, &why)))
		why = add_headers(head, tunnel->current->config, &words);
	if (!head || why) {
		head_free(head);
		return worker_reply(tunnel->worker, request->id, 2, NULL, why);
	}
	probe_write(head, words.hops);
	probe_named = named;
	struct prober *p = prober_new(tunnel, request->id, &words);
	struct timeval limit = {.tv_sec = words.timeout / 1000, .tv_usec = words.timeout % 1000 * 1000};
	event_add(p->timer, &limit);
	flow_new(tunnel, &p->origin, &p->leg, head, true);
}
