/* SPDX-License-Identifier: Apache-2.0 */
/* Probes that are asked for at the admin socket. */
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "workers/tunnel/head.h"
#include "workers/tunnel/probe.h"
#include "workers/tunnel/tunnel.h"

#define TIMEOUT_MS 3000u          /* the supervisor waits for 5 s */
#define TIMEOUT_MAX_MS 4500u

struct asker {
	struct worker *worker;
	uint64_t id;                  /* the request's */
};

/* --- the answer -------------------------------------------------------------------------------------------------------------- */

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

static void on_told(void *arg, const struct head *response, uint64_t round_trip)
{
	struct asker *asker = arg;
	struct json j = JSON_INIT;
	json_object(&j, NULL);
	json_bool(&j, "answered", response != NULL);
	if (response) {
		json_uint(&j, "round_trip_us", round_trip);
		json_uint(&j, "status", response->status);
		json_str(&j, "proxy_status", head_get(response, "proxy-status"));
		put_hop(&j, response);
	}
	json_end(&j);
	worker_reply(asker->worker, asker->id, j.failed, j.failed ? NULL : j.data, j.failed ? "out of memory" : NULL);
	json_free(&j);
	free(asker);
}

/* --- the question ------------------------------------------------------------------------------------------------------------ */

static const char **option(struct probe_words *w, const char *word)
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

static const char *take_option(struct probe_words *w, const char *word, const char *value)
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
	if (w->n_headers == PROBE_HEADERS_MAX)
		return "too many headers";
	w->headers[w->n_headers++] = value;
	return NULL;
}

static const char *take_words(struct probe_words *w, const struct ipc_strs *args)
{
	*w = (struct probe_words){.timeout = TIMEOUT_MS};
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

void probe_ask(struct tunnel *tunnel, const struct ipc_admin_request *request)
{
	struct probe_words words;
	const char *why = take_words(&words, &request->args);
	struct asker *asker = why ? NULL : malloc(sizeof(*asker));
	if (!why && !asker)
		abort();
	if (asker) {
		*asker = (struct asker){tunnel->worker, request->id};
		why = probe_send(tunnel, &words, on_told, asker);
	}
	if (!why)
		return;
	free(asker);
	worker_reply(tunnel->worker, request->id, 2, NULL, why);
}
