/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/probes.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ipc/json.h"
#include "workers/tunnel/probe.h"

#define WINDOW_US 10000000u
#define OPEN_MAX 16u              /* of one way at a time */
#define WHOLE_WAY 255u            /* Max-Forwards */
#define NOWHERE "localhost:1"     /* what the next node is asked about, where it is only to answer */

/* One that is on its way; its way may have gone when it is answered. */
struct shot {
	struct way *way;
	uint64_t sent;
	LIST_ENTRY(shot) link;
};

struct way {
	struct probes *probes;
	char *name, *cluster, *target, *method;
	char **headers;               /* "name=value" */
	size_t n_headers;
	uint32_t interval, timeout;   /* ms */
	struct event *timer;
	LIST_HEAD(, shot) shots;
	unsigned open;
	uint64_t began, answered;     /* µs; answered 0: never */
	char error[256];
	struct probes_window window;
	struct stats_set *stats;
	TAILQ_ENTRY(way) link;
};

struct probes {
	struct tunnel *tunnel;
	TAILQ_HEAD(ways, way) ways;
};

/* --- one probe ----------------------------------------------------------------------------------------------------------- */

/* NULL: a good answer. Else why it counts as lost. */
static const char *fault(const struct way *way, const struct head *response, struct hop *hop)
{
	const struct config *config = way->probes->tunnel->current->config;
	if (!response)
		return "no answer in time";
	if (response->status != 200 || !hop_read(response, hop)) {
		const char *status = head_get(response, "proxy-status");
		return status ? status : way->target ? NULL : "not answered by a node";     /* NULL: the service itself did */
	}
	if (!way->target && strcmp(hop->node, config->node_name) == 0)
		return "the cluster leads to no other node";
	if (way->target && hop->status >= 400)
		return hop->detail[0] ? hop->detail : hop->error[0] ? hop->error : "refused on the way";
	return NULL;
}

static void on_told(void *arg, const struct head *response, uint64_t round_trip)
{
	struct shot *shot = arg;
	struct way *way = shot->way;
	struct hop hop;
	if (way) {
		const char *why = fault(way, response, &hop);
		LIST_REMOVE(shot, link);
		way->open--;
		probes_window_add(&way->window, shot->sent, round_trip < UINT32_MAX ? (uint32_t)round_trip : UINT32_MAX, why);
		snprintf(way->error, sizeof(way->error), "%s", why ? why : "");
		if (why) {
			stats_add(way->stats, STATS_PROBE_LOST, 1);
		} else {
			stats_observe(way->stats, STATS_PROBE_RTT, round_trip);
			way->answered = now_us();
		}
	}
	free(shot);
}

static struct shot *shot_new(struct way *way)
{
	struct shot *shot = calloc(1, sizeof(*shot));
	if (!shot)
		abort();
	*shot = (struct shot){.way = way, .sent = now_us()};
	LIST_INSERT_HEAD(&way->shots, shot, link);
	way->open++;
	stats_add(way->stats, STATS_PROBE_SENT, 1);
	return shot;
}

static void shoot(struct way *way)
{
	struct probe_words words = {.method = way->target ? way->method : "CONNECT", .cluster = way->cluster,
	                            .target = way->target ? way->target : NOWHERE, .hops = way->target ? WHOLE_WAY : 1,
	                            .timeout = way->timeout};
	while (words.n_headers < way->n_headers && words.n_headers < PROBE_HEADERS_MAX) {
		words.headers[words.n_headers] = way->headers[words.n_headers];
		words.n_headers++;
	}
	struct shot *shot = shot_new(way);
	const char *why = probe_send(way->probes->tunnel, &words, on_told, shot);
	if (!why)
		return;
	LIST_REMOVE(shot, link);
	way->open--;
	stats_add(way->stats, STATS_PROBE_LOST, 1);
	probes_window_add(&way->window, shot->sent, 0, true);
	snprintf(way->error, sizeof(way->error), "%s", why);
	free(shot);
}

static void on_interval(evutil_socket_t fd, short what, void *arg)
{
	struct way *way = arg;
	struct timeval next = {.tv_sec = way->interval / 1000, .tv_usec = way->interval % 1000 * 1000};
	(void)fd, (void)what;
	event_add(way->timer, &next);
	if (way->open < OPEN_MAX)
		shoot(way);
}

/* --- the ways ------------------------------------------------------------------------------------------------------------ */

static void way_free(struct way *way)
{
	struct shot *shot;
	LIST_FOREACH(shot, &way->shots, link)
		shot->way = NULL;
	TAILQ_REMOVE(&way->probes->ways, way, link);
	event_free(way->timer);
	for (size_t i = 0; i < way->n_headers; i++)
		free(way->headers[i]);
	free(way->headers);
	free(way->name);
	free(way->cluster);
	free(way->target);
	free(way->method);
	free(way);
}

static char *copy(const char *text)
{
	char *made = text ? strdup(text) : NULL;
	if (text && !made)
		abort();
	return made;
}

static char *header_text(const struct config_pair *pair)
{
	char *text = NULL;
	if (asprintf(&text, "%s=%s", pair->name, pair->value) < 0)
		abort();
	return text;
}

static void way_new(struct probes *probes, const struct config_probe *c)
{
	static const struct timeval at_once = {0};
	struct way *way = calloc(1, sizeof(*way));
	if (!way)
		abort();
	*way = (struct way){.probes = probes, .name = copy(c->name), .cluster = copy(c->cluster), .target = copy(c->target),
	                    .method = copy(c->method), .interval = c->interval, .timeout = c->timeout, .began = now_us(),
	                    .stats = stats_set(probes->tunnel->stats, STATS_PROBE, c->name)};
	way->headers = calloc(c->add_headers.n + 1, sizeof(*way->headers));
	way->timer = evtimer_new(probes->tunnel->base, on_interval, way);
	if (!way->headers || !way->timer)
		abort();
	for (; way->n_headers < c->add_headers.n; way->n_headers++)
		way->headers[way->n_headers] = header_text(&c->add_headers.v[way->n_headers]);
	TAILQ_INSERT_TAIL(&probes->ways, way, link);
	event_add(way->timer, &at_once);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool is_as(const struct way *way, const struct config_probe *c)
{
	bool same = same_text(way->name, c->name) && same_text(way->cluster, c->cluster) && same_text(way->target, c->target) &&
	            same_text(way->method, c->method) && way->interval == c->interval && way->timeout == c->timeout &&
	            way->n_headers == c->add_headers.n;
	for (size_t i = 0; same && i < way->n_headers; i++) {
		char *text = header_text(&c->add_headers.v[i]);
		same = strcmp(text, way->headers[i]) == 0;
		free(text);
	}
	return same;
}

void probes_commit(struct probes *probes)
{
	const struct config *config = probes->tunnel->current->config;
	struct ways before = TAILQ_HEAD_INITIALIZER(before);
	struct way *way;
	if (worker_index(probes->tunnel->worker) != 0)
		return;
	TAILQ_CONCAT(&before, &probes->ways, link);
	for (size_t i = 0; i < config->n_probes; i++) {
		TAILQ_FOREACH(way, &before, link)
			if (is_as(way, &config->probes[i]))
				break;
		if (way) {
			TAILQ_REMOVE(&before, way, link);
			TAILQ_INSERT_TAIL(&probes->ways, way, link);
		} else {
			way_new(probes, &config->probes[i]);
		}
	}
	while ((way = TAILQ_FIRST(&before))) {
		TAILQ_REMOVE(&before, way, link);
		TAILQ_INSERT_TAIL(&probes->ways, way, link);
		way_free(way);
	}
}

void probes_stop(struct probes *probes)
{
	for (struct way *way; (way = TAILQ_FIRST(&probes->ways));)
		way_free(way);
}

struct probes *probes_new(struct tunnel *tunnel)
{
	struct probes *probes = calloc(1, sizeof(*probes));
	if (!probes)
		abort();
	probes->tunnel = tunnel;
	TAILQ_INIT(&probes->ways);
	return probes;
}

void probes_free(struct probes *probes)
{
	if (!probes)
		return;
	probes_stop(probes);
	free(probes);
}

void probes_json(const struct probes *probes, struct json *j)
{
	uint64_t now = now_us();
	const struct way *way;
	TAILQ_FOREACH(way, &probes->ways, link) {
		uint64_t window = 2000ull * way->interval > WINDOW_US ? 2000ull * way->interval : WINDOW_US;
		struct probes_summary sum = probes_window_sum(&way->window, now > window ? now - window : 0);
		json_object(j, NULL);
		json_str(j, "name", way->name);
		json_str(j, "cluster", way->cluster);
		json_str(j, "target", way->target);
		json_str(j, "method", way->method);
		json_uint(j, "sent", sum.sent);
		json_uint(j, "lost", sum.lost);
		json_uint(j, "rtt_us", sum.rtt);
		json_uint(j, "rtt_max_us", sum.rtt_max);
		json_uint(j, "age_ms", (now - (way->answered ? way->answered : way->began)) / 1000);
		json_str(j, "error", way->error[0] ? way->error : NULL);
		json_end(j);
	}
}
