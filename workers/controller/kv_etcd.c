/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/kv_etcd_internal.h"
#include "ipc/log.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX ((size_t)64 << 20)
#define PAGE 200                      /* keys at once while loading */
#define DIAL_MS 3000                  /* for the supervisor's answer, and for a watch to begin */
#define BEAT_MS 500
#define RETRY_MAX_MS 1000
#define AWAY_AFTER 3                  /* failures in a row, of at least so many members, until it is said */

static const char *const state_names[] = {
	[ETCD_DOWN] = "down", [ETCD_DIALING] = "dialing", [ETCD_LOADING] = "loading", [ETCD_WATCHING] = "watching", [ETCD_UP] = "up",
};

static void set_state(struct etcd *e, enum etcd_state state)
{
	log_debug("etcd", "state=%s before=%s member=%s", state_names[state], state_names[e->state],
	          log_value(e->endpoints[e->next]));
	if (state == ETCD_UP || e->state == ETCD_UP)
		e->changed_at = kv_now();
	e->state = state;
}

static void drop_connections(struct etcd *e)
{
	http_client_free(e->rpc);
	http_client_free(e->watch);
	e->rpc = e->watch = NULL;
	e->wanted = 0;
	e->n_line = 0;
	json_decref(e->loaded);
	e->loaded = NULL;
}

/* The first try elsewhere is made at once; an outage of all of them must not be a storm. */
void etcd_fail(struct etcd *e, const char *why)
{
	if (e->state == ETCD_DOWN)
		return;
	bool was_up = e->state == ETCD_UP;
	unsigned wait = e->failures ? 100u << (e->failures < 4 ? e->failures : 4) : 0;
	e->failures++;
	log_event(was_up ? LOG_WARN_ : LOG_DEBUG_, "etcd member lost", "member=%s reason=%s", log_value(e->endpoints[e->next]),
	          log_value(why));
	if (!e->away && e->failures >= AWAY_AFTER && e->failures >= e->n_endpoints) {
		e->away = true;
		log_error("etcd away", "%s", "effect=\"reading goes on, nothing is written\"");
	}
	set_state(e, ETCD_DOWN);
	drop_connections(e);
	etcd_calls_lost(e);
	e->next = (e->next + 1) % e->n_endpoints;
	wait = wait > RETRY_MAX_MS ? RETRY_MAX_MS : wait;
	const struct timeval pause = {.tv_sec = wait / 1000, .tv_usec = (suseconds_t)(wait % 1000) * 1000};
	evtimer_add(e->retry, &pause);
}

static void want_connection(struct etcd *e)
{
	e->wanted = ++e->dial_id;
	if (e->dial(e->dial_arg, e->wanted, e->endpoints[e->next]))
		etcd_fail(e, "nobody dials");
	else
		evtimer_add(e->retry, &(struct timeval){.tv_sec = DIAL_MS / 1000});
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct etcd *e = arg;
	(void)fd, (void)what;
	if (e->state == ETCD_DOWN) {
		set_state(e, ETCD_DIALING);
		want_connection(e);
	} else if (e->state != ETCD_UP) {
		etcd_fail(e, "did not answer in time");
	}
}

/* --- what etcd has, into memory --------------------------------------------------------------------------------------- */

static void take_put(struct etcd *e, const json_t *kv)
{
	char key[KV_KEY_MAX + 1];
	if (!wire_key(kv, e->prefix, key))
		return;
	uint64_t revision = wire_number(kv, "mod_revision");
	json_t *value = wire_value(kv);
	if (!value)
		log_warn("value in etcd is not JSON", "key=%s", log_value(key));
	else if (revision > kv_get(&e->kv, key).revision)
		kv_apply_put(&e->kv, key, value, revision, 0);
	else
		json_decref(value);
	if (e->loaded)
		json_object_set_new(e->loaded, key, json_true());
}

static void take_delete(struct etcd *e, const json_t *kv)
{
	char key[KV_KEY_MAX + 1];
	if (wire_key(kv, e->prefix, key) && wire_number(kv, "mod_revision") > kv_get(&e->kv, key).revision)
		kv_apply_delete(&e->kv, key);
}

static bool drop_missing(void *arg, const struct kv_value *value)
{
	struct etcd *e = arg;
	if (!json_object_get(e->loaded, value->key))
		kv_apply_delete(&e->kv, value->key);
	return true;
}

/* --- watching --------------------------------------------------------------------------------------------------------- */

static void watching(struct etcd *e)
{
	bool first = !e->kv.ready;
	event_del(e->retry);
	if (e->away || first)
		log_info("etcd reached", "member=%s revision=%" PRIu64 " keys=%zu", log_value(e->endpoints[e->next]), e->revision,
		         e->kv.n_entries);
	e->away = false;
	e->failures = 0;
	e->next_beat = 0;
	e->kv.ready = true;
	set_state(e, ETCD_UP);
	if (first)
		kv_tell_state(&e->kv);
	etcd_lead(e);                 /* leases first: what is temporary needs one */
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct etcd *e = arg;
	(void)fd, (void)what;
	etcd_calls_settle(e);
	etcd_lead(e);
	etcd_ask_next(e);
}

static void take_events(struct etcd *e, const json_t *events)
{
	const json_t *event;
	uint64_t last = e->revision;
	size_t i;
	json_array_foreach(events, i, event) {
		const json_t *kv = json_object_get(event, "kv");
		const char *type = json_string_value(json_object_get(event, "type"));
		uint64_t revision = wire_number(kv, "mod_revision");
		if (type && !strcmp(type, "DELETE"))
			take_delete(e, kv);
		else
			take_put(e, kv);
		last = revision > last ? revision : last;
	}
	e->revision = last;
}

/* False: the watch is over. Whoever waits is told from the event loop: they may write, which may fail the connection. */
static bool take_line(struct etcd *e, const char *line, size_t length)
{
	json_t *json = json_loadb(line, length, 0, NULL);
	const json_t *result = json_object_get(json, "result"), *events = json_object_get(result, "events");
	bool good = json_is_object(result) && !json_is_true(json_object_get(result, "canceled"));
	if (good && json_is_true(json_object_get(result, "created")))
		watching(e);
	else if (good && json_array_size(events))
		take_events(e, events);
	else if (good && wire_revision(result) > e->revision)
		e->revision = wire_revision(result);  /* nothing of ours up to there */
	json_decref(json);
	if (good)
		evtimer_add(e->kick, &(struct timeval){0});
	return good;
}

static bool keep_line(struct etcd *e, const char *data, size_t length)
{
	if (e->n_line + length > e->line_size) {
		size_t size = (e->n_line + length) * 2;
		char *larger = size > BODY_MAX ? NULL : realloc(e->line, size);
		if (!larger)
			return false;
		e->line = larger;
		e->line_size = size;
	}
	memcpy(e->line + e->n_line, data, length);
	e->n_line += length;
	return true;
}

static bool on_piece(void *arg, const char *data, size_t length)
{
	struct etcd *e = arg;
	for (const char *end; (end = memchr(data, '\n', length));) {
		size_t n = (size_t)(end - data) + 1;
		if (!keep_line(e, data, n))
			return false;
		bool on = take_line(e, e->line, e->n_line);
		e->n_line = 0;
		if (!on)
			return false;
		data += n;
		length -= n;
	}
	return !length || keep_line(e, data, length);
}

static void on_watch_ended(void *arg, const struct http_answer *answer)
{
	etcd_fail(arg, answer->reason ? answer->reason : "ended the watch");
}

static void watch(struct etcd *e)
{
	char *body = wire_watch(e->prefix, e->revision + 1);
	int error = body ? http_client_request(e->watch, "POST", e->endpoints[e->next], "/v3/watch", NULL, body, strlen(body),
	                                       DIAL_MS, on_piece, on_watch_ended, e) : -ENOMEM;
	free(body);
	if (error)
		etcd_fail(e, strerror(-error));
	else
		evtimer_add(e->retry, &(struct timeval){.tv_sec = DIAL_MS / 1000});
}

/* --- loading ---------------------------------------------------------------------------------------------------------- */

static void load(struct etcd *e);

static void on_page(struct etcd *e, struct etcd_call *call, const json_t *json, int error)
{
	const json_t *kvs = json_object_get(json, "kvs"), *kv;
	size_t i;
	bool more = json_is_true(json_object_get(json, "more"));
	etcd_call_free(call);
	if (error) {
		etcd_fail(e, strerror(-error));
		return;
	}
	if (!e->load_revision)
		e->load_revision = wire_revision(json);
	json_array_foreach(kvs, i, kv) {
		take_put(e, kv);
		if (i + 1 == json_array_size(kvs))
			more = wire_key(kv, e->prefix, e->load_after) && more;
	}
	if (more) {
		load(e);
		return;
	}
	kv_each(&e->kv, "", drop_missing, e);
	json_decref(e->loaded);
	e->loaded = NULL;
	e->revision = e->load_revision;
	set_state(e, ETCD_WATCHING);
	want_connection(e);
}

static void load(struct etcd *e)
{
	evtimer_add(e->retry, &(struct timeval){.tv_sec = 2 * ETCD_CALL_MS / 1000});
	etcd_ask_first(e, etcd_call_new("/v3/kv/range", wire_range(e->prefix, *e->load_after ? e->load_after : NULL, e->load_revision,
	                                                           PAGE), on_page));
}

/* All is compared, though a watch could mostly go on from where memory is: etcd 3.4 loses the event of a deletion at the very
 * revision up to which it was compacted. */
static void reached(struct etcd *e)
{
	set_state(e, ETCD_LOADING);
	e->load_revision = 0;
	*e->load_after = '\0';
	e->loaded = json_object();
	load(e);
}

void kv_etcd_dialed(struct kv *kv, uint64_t id, int fd, const char *error)
{
	struct etcd *e = (struct etcd *)kv;
	if (id != e->wanted || (e->state != ETCD_DIALING && e->state != ETCD_WATCHING)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	e->wanted = 0;
	if (error || fd < 0) {
		etcd_fail(e, error ? error : "not reached");
		return;
	}
	struct http_client *client = http_client_new(e->kv.base, fd, BODY_MAX);
	if (!client) {
		etcd_fail(e, "out of memory");
	} else if (e->state == ETCD_DIALING) {
		e->rpc = client;
		reached(e);
	} else {
		e->watch = client;
		watch(e);
	}
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

static void on_beat(evutil_socket_t fd, short what, void *arg)
{
	struct etcd *e = arg;
	(void)fd, (void)what;
	etcd_calls_expire(e);
	etcd_lead(e);
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	etcd_flush(arg);
}

static bool etcd_leads(const struct kv *kv)
{
	const struct etcd *e = (const struct etcd *)kv;
	return kv->ready && e->leads;
}

static void etcd_free(struct kv *kv)
{
	struct etcd *e = (struct etcd *)kv;
	struct event *events[] = {e->retry, e->beat, e->flush, e->kick};
	e->state = ETCD_DOWN;
	drop_connections(e);
	etcd_calls_end(e);
	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		if (events[i])
			event_free(events[i]);
	for (size_t i = 0; i < e->n_endpoints; i++)
		free(e->endpoints[i]);
	free(e->endpoints);
	free(e->waiters);
	free(e->prefix);
	free(e->line);
	kv_fini(kv);
	free(e);
}

static const struct kv_kind kind = {.commit = etcd_commit, .leads = etcd_leads, .free = etcd_free};

static bool set_up(struct etcd *e, struct event_base *base, char *const *endpoints, size_t n, const char *prefix)
{
	e->endpoints = calloc(n, sizeof(*e->endpoints));
	e->prefix = strdup(prefix ? prefix : "");
	e->retry = evtimer_new(base, on_retry, e);
	e->beat = event_new(base, -1, EV_PERSIST, on_beat, e);
	e->flush = evtimer_new(base, on_flush, e);
	e->kick = evtimer_new(base, on_kick, e);
	for (; e->endpoints && e->n_endpoints < n; e->n_endpoints++)
		if (!(e->endpoints[e->n_endpoints] = strdup(endpoints[e->n_endpoints])))
			return false;
	return e->endpoints && e->prefix && e->retry && e->beat && e->flush && e->kick;
}

struct kv *kv_etcd(struct event_base *base, char *const *endpoints, size_t n, const char *prefix, kv_dial *dial, kv_state *changed,
                   void *arg)
{
	struct etcd *e = n ? calloc(1, sizeof(*e)) : NULL;
	if (!e)
		return NULL;
	TAILQ_INIT(&e->calls);
	TAILQ_INIT(&e->settled);
	e->dial = dial;
	e->dial_arg = arg;
	e->changed_at = kv_now();
	if (kv_init(&e->kv, &kind, base, changed, arg) || !set_up(e, base, endpoints, n, prefix)) {
		etcd_free(&e->kv);
		return NULL;
	}
	evtimer_add(e->beat, &(struct timeval){.tv_usec = BEAT_MS * 1000});
	evtimer_add(e->retry, &(struct timeval){0});
	return &e->kv;
}
