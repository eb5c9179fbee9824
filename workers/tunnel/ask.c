#include "workers/tunnel/ask.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <uthash.h>

#include "ipc/log.h"
#include "workers/tunnel/clock.h"
#include "workers/tunnel/cluster.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/listener.h"

#define KEY_MAX (80u * 1024)
#define EXAMINED_MAX 512          /* headers of a question, as policy takes them */
#define OPEN_MAX 16384u           /* questions under way */
#define BYTES_MAX (64u << 20)     /* of all entries: keys are as long as clients make their headers */
#define PATIENCE_MS 1000          /* before a question is asked once more, and given up */
#define TICK_MS 100

/* One key: a decision, or a question under way with those who wait for it. */
struct entry {
	UT_hash_handle hh;            /* by key */
	UT_hash_handle hh_id;         /* by id, while asked */
	uint64_t id;
	struct decision *decision;    /* NULL: asked */
	uint64_t valid_until;         /* µs, 0: as long as the generation */
	uint64_t asked_us, deadline_us;
	bool asked_twice;
	struct ask_query *waiting;
	uint8_t *message;             /* the encoded question, for asking again */
	int message_length;
	unsigned key_length;
	uint8_t key[];
};

struct ask_query {
	struct ask_query *next, **link;
	struct entry *entry;
	void (*done)(void *arg, struct decision *decision);
	void *arg;
};

struct ask {
	struct tunnel *tunnel;
	struct entry *by_key, *by_id;
	unsigned open;
	size_t bytes;                 /* of all entries */
	uint64_t seed;                /* in every key, so that nobody can choose requests whose keys fall into one bucket */
	uint64_t next_id;
	struct event *timer;
	uint8_t *key;
	struct ipc_question question; /* of the key under construction */
	struct ipc_pair headers[EXAMINED_MAX];
	char ip_source[INET6_ADDRSTRLEN], ip_destination[INET6_ADDRSTRLEN];
};

/* --- decisions ------------------------------------------------------------------------------------------------------- */

void decision_unref(struct decision *d)
{
	if (!d || --d->refs > 0)
		return;
	free(d->error), free(d->detail), free(d->route), free(d->cluster);
	for (size_t i = 0; i < d->add_headers.n; i++)
		free(d->add_headers.v[i].name), free(d->add_headers.v[i].value);
	for (size_t i = 0; i < d->remove_headers.n; i++)
		free(d->remove_headers.v[i]);
	for (size_t i = 0; i < d->policies.n; i++)
		free(d->policies.v[i]);
	free(d->add_headers.v), free(d->remove_headers.v), free(d->policies.v);
	free(d);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static struct config_strs copy_strs(const struct ipc_strs *from)
{
	struct config_strs to = {.v = calloc(from->n + 1, sizeof(char *)), .n = from->n};
	for (size_t i = 0; i < from->n; i++)
		to.v[i] = copy(from->v[i]);
	return to;
}

static struct config_pairs copy_pairs(const struct ipc_pairs *from)
{
	struct config_pairs to = {.v = calloc(from->n + 1, sizeof(*to.v)), .n = from->n};
	for (size_t i = 0; i < from->n; i++)
		to.v[i] = (struct config_pair){copy(from->v[i].name), copy(from->v[i].value)};
	return to;
}

static uint64_t valid_until(uint32_t ms)
{
	return ms == UINT32_MAX ? UINT64_MAX : now_us() + (uint64_t)ms * 1000;
}

struct decision *decision_of_message(struct tunnel *tunnel, const struct ipc_decision *m)
{
	struct decision *d = calloc(1, sizeof(*d));
	if (!d)
		abort();
	*d = (struct decision){.refs = 1, .status = m->status, .error = copy(m->error), .detail = copy(m->detail),
	                       .route = copy(m->route), .cluster = copy(m->cluster), .move = m->move,
	                       .retry = {m->retry_on, m->retry_attempts, m->per_try_timeout},
	                       .timeout = {m->request_timeout, m->idle_timeout},
	                       .valid_until = valid_until(m->valid_ms)};
	d->add_headers = copy_pairs(&m->add_headers);
	d->remove_headers = copy_strs(&m->remove_headers);
	d->policies = copy_strs(&m->policies);
	if (m->route)
		d->route_stats = stats_set(tunnel->stats, STATS_ROUTE, m->route);
	if (m->cluster)
		d->cluster_stats = stats_set(tunnel->stats, STATS_CLUSTER, m->cluster);
	return d;
}

/* --- entries --------------------------------------------------------------------------------------------------------- */

static size_t entry_bytes(const struct entry *entry)
{
	return sizeof(*entry) + entry->key_length + (entry->message ? (size_t)entry->message_length : 0);
}

static void entry_free(struct ask *ask, struct entry *entry)
{
	ask->bytes -= entry_bytes(entry);
	HASH_DELETE(hh, ask->by_key, entry);
	if (!entry->decision) {
		HASH_DELETE(hh_id, ask->by_id, entry);
		ask->open--;
	}
	decision_unref(entry->decision);
	free(entry->message);
	free(entry);
}

/* Everybody who waits gets their own reference. Whom it is told may ask again at once, and with that push the entry out. */
static void tell_waiting(struct entry *entry, struct decision *decision)
{
	struct ask_query *list = entry->waiting;
	entry->waiting = NULL;
	if (list)
		list->link = &list;
	while (list) {
		struct ask_query *query = list;
		list = query->next;
		if (list)
			list->link = &list;
		if (decision)
			decision->refs++;
		query->done(query->arg, decision);
		free(query);
	}
}

static void settle(struct ask *ask, struct entry *entry, struct decision *decision, uint32_t valid_ms)
{
	HASH_DELETE(hh_id, ask->by_id, entry);
	ask->open--;
	HASH_DELETE(hh, ask->by_key, entry);
	ask->bytes -= entry_bytes(entry);
	free(entry->message);
	entry->message = NULL;
	stats_observe(ask->tunnel->self, STATS_WORKER_ASK_TIME, now_us() - entry->asked_us);
	if (decision && valid_ms > 0) {
		entry->decision = decision;
		entry->valid_until = valid_ms == UINT32_MAX ? 0 : now_us() + (uint64_t)valid_ms * 1000;
		HASH_ADD(hh, ask->by_key, key, entry->key_length, entry);
		ask->bytes += entry_bytes(entry);
		decision->refs++;
		tell_waiting(entry, decision);
	} else {
		tell_waiting(entry, decision);
		free(entry);
	}
	decision_unref(decision);
}

/* The oldest go first; uthash keeps the order of insertion. */
static void make_room(struct ask *ask)
{
	unsigned limit = ask->tunnel->current->config->cache_entries;
	struct entry *entry, *next;
	HASH_ITER(hh, ask->by_key, entry, next) {
		if (HASH_CNT(hh, ask->by_key) < limit && ask->bytes < BYTES_MAX)
			return;
		if (entry->decision)
			entry_free(ask, entry);
	}
}

/* --- the key --------------------------------------------------------------------------------------------------------- */

/* Each value with its length, so that no two requests share a key by accident. Returns the new end, or NULL: too long. */
static uint8_t *key_add(uint8_t *at, const uint8_t *end, const char *value)
{
	size_t length = value ? strlen(value) : 0;
	uint32_t mark = value ? (uint32_t)length + 1 : 0;
	if ((size_t)(end - at) < length + sizeof(mark))
		return NULL;
	memcpy(at, &mark, sizeof(mark));
	if (length)
		memcpy(at + sizeof(mark), value, length);
	return at + sizeof(mark) + length;
}

/* False: more headers than a question holds. */
static bool fill_question(struct ask *ask, const struct origin *origin, const char *user, const struct head *request)
{
	const struct config *config = ask->tunnel->current->config;
	size_t n = fields_examined(request, config, ask->headers, EXAMINED_MAX);
	if (n > EXAMINED_MAX)
		return false;
	ask->question = (struct ipc_question){
		.generation = ask->tunnel->current->number, .tunnel = worker_index(ask->tunnel->worker),
		.listener = config->examines.listener ? origin->listener->name : NULL,
		.peer = config->examines.peer ? origin->peer : NULL,
		.user = config->examines.user || config->n_spaces ? user : NULL,
		.method = config->examines.method ? request->method : NULL,
		.protocol = config->examines.protocol ? request->protocol : NULL,
		.scheme = config->examines.scheme ? request->scheme : NULL,
		.authority = config->examines.authority || config->n_spaces ? request->authority : NULL,
		.path = config->examines.path ? request->path : NULL,
		.source = config->examines.source ? origin->source_text : NULL,
		.headers = {ask->headers, n}};
	return true;
}

static const char *address_text(const struct in6_addr *address, char out[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(address))
		return inet_ntop(AF_INET, address->s6_addr + 12, out, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN);
}

/* NULL: about the request itself. */
static void fill_inner(struct ask *ask, const struct ask_inner *inner)
{
	if (!inner)
		return;
	ask->question.inner = true;
	ask->question.ip_protocol = inner->protocol;
	ask->question.ip_source = address_text(&inner->source, ask->ip_source);
	ask->question.ip_destination = address_text(&inner->destination, ask->ip_destination);
	ask->question.ip_port = inner->port;
}

static unsigned fill_key(struct ask *ask)
{
	const struct ipc_question *q = &ask->question;
	const char *values[] = {q->listener, q->peer, q->user, q->method, q->protocol, q->scheme, q->authority, q->path,
	                        q->source, q->ip_source, q->ip_destination};
	uint32_t numbers[] = {q->inner, q->ip_protocol, q->ip_port};
	uint8_t *at = ask->key, *end = ask->key + KEY_MAX;
	/* What another generation is asked about is answered by it, and may be made of other fields. */
	memcpy(at, &q->generation, sizeof(q->generation));
	at += sizeof(q->generation);
	memcpy(at, &ask->seed, sizeof(ask->seed));
	at += sizeof(ask->seed);
	memcpy(at, numbers, sizeof(numbers));
	at += sizeof(numbers);
	for (size_t i = 0; at && i < sizeof(values) / sizeof(values[0]); i++)
		at = key_add(at, end, values[i]);
	for (size_t i = 0; at && i < q->headers.n; i++) {
		at = key_add(at, end, q->headers.v[i].name);
		at = at ? key_add(at, end, q->headers.v[i].value) : NULL;
	}
	return at ? (unsigned)(at - ask->key) : 0;
}

/* --- asking ---------------------------------------------------------------------------------------------------------- */


static void ask_policy(struct ask *ask, struct entry *entry)
{
	entry->asked_us = entry->asked_us ? entry->asked_us : now_us();
	entry->deadline_us = now_us() + PATIENCE_MS * 1000u;
	ask->question.id = entry->id;
	ask->question.deadline = entry->deadline_us / 1000;
	ask->question.now = time(NULL);
	if (ask->tunnel->policy)
		ipc_send(ask->tunnel->policy, IPC_MSG_QUESTION, &ask->question, -1);
}

static void ask_again(struct ask *ask, struct entry *entry)
{
	static struct ipc_arena *arena;
	union ipc_any message;
	const char *why;
	if (!arena)
		arena = ipc_arena_new();
	entry->asked_twice = true;
	if (!arena || ipc_decode(entry->message, (size_t)entry->message_length, arena, &message, &why) < 0)
		return;
	ask->question = message.question;
	ask->question.generation = ask->tunnel->current->number;
	ask_policy(ask, entry);
}

static struct entry *entry_new(struct ask *ask, unsigned key_length)
{
	static uint8_t encoded[IPC_MESSAGE_MAX];
	ask->question.id = ++ask->next_id;
	int length = ipc_encode(IPC_MSG_QUESTION, &ask->question, encoded, sizeof(encoded));
	if (length < 0)
		return NULL;
	struct entry *entry = calloc(1, sizeof(*entry) + key_length);
	if (!entry || !(entry->message = malloc((size_t)length)))
		abort();
	memcpy(entry->message, encoded, (size_t)length);
	entry->message_length = length;
	memcpy(entry->key, ask->key, key_length);
	entry->key_length = key_length;
	entry->id = ask->next_id;
	HASH_ADD(hh, ask->by_key, key, key_length, entry);
	HASH_ADD(hh_id, ask->by_id, id, sizeof(entry->id), entry);
	ask->bytes += entry_bytes(entry);
	ask->open++;
	return entry;
}

static struct ask_query *wait_for(struct entry *entry, void (*done)(void *arg, struct decision *decision), void *arg)
{
	struct ask_query *query = calloc(1, sizeof(*query));
	if (!query)
		abort();
	*query = (struct ask_query){.entry = entry, .done = done, .arg = arg};
	query->next = entry->waiting;
	query->link = &entry->waiting;
	if (entry->waiting)
		entry->waiting->link = &query->next;
	entry->waiting = query;
	return query;
}

static struct decision *refusal(unsigned status, const char *error, const char *detail)
{
	struct decision *d = calloc(1, sizeof(*d));
	if (!d)
		abort();
	*d = (struct decision){.refs = 1, .status = status, .error = strdup(error), .detail = strdup(detail)};
	return d;
}

static struct decision *cached(struct ask *ask, struct entry *entry)
{
	if (entry->valid_until && now_us() >= entry->valid_until) {
		entry_free(ask, entry);
		return NULL;
	}
	stats_add(ask->tunnel->self, STATS_WORKER_CACHE_HITS, 1);
	entry->decision->refs++;
	return entry->decision;
}

struct decision *ask_inner(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                           const struct ask_inner *inner, struct ask_query **query,
                           void (*done)(void *arg, struct decision *decision), void *arg)
{
	*query = NULL;
	stats_add(ask->tunnel->self, STATS_WORKER_QUESTIONS, 1);
	bool fits = fill_question(ask, origin, user, request);
	fill_inner(ask, inner);
	unsigned length = fits ? fill_key(ask) : 0;
	if (!length)
		return refusal(431, "http_request_error", "the fields that decide are too large");
	struct entry *entry;
	HASH_FIND(hh, ask->by_key, ask->key, length, entry);
	if (entry && entry->decision) {
		struct decision *decision = cached(ask, entry);
		if (decision)
			return decision;
		entry = NULL;
	}
	if (!entry) {
		make_room(ask);
		if (ask->open >= OPEN_MAX || ask->bytes >= BYTES_MAX)
			return refusal(503, "proxy_internal_error", "too many undecided flows");
		if (!(entry = entry_new(ask, length)))
			return refusal(431, "http_request_error", "the fields that decide are too large");
		ask_policy(ask, entry);
	}
	*query = wait_for(entry, done, arg);
	return NULL;
}

struct decision *ask_decision(struct ask *ask, const struct origin *origin, const char *user, const struct head *request,
                              struct ask_query **query, void (*done)(void *arg, struct decision *decision), void *arg)
{
	return ask_inner(ask, origin, user, request, NULL, query, done, arg);
}

void ask_cancel(struct ask_query *query)
{
	*query->link = query->next;
	if (query->next)
		query->next->link = query->link;
	free(query);
}

void ask_answered(struct ask *ask, const struct ipc_decision *message)
{
	struct entry *entry;
	HASH_FIND(hh_id, ask->by_id, &message->id, sizeof(message->id), entry);
	if (!entry)
		return;   /* answered already, or given up */
	/* Made from, or asked of, a generation that is no longer in force: right for those who asked then, not to be kept. */
	uint64_t current = ask->tunnel->current->number;
	bool keep = message->generation == current && memcmp(entry->key, &current, sizeof(current)) == 0;
	if (message->status == 403)
		stats_add(ask->tunnel->self, STATS_WORKER_DENIED, 1);
	settle(ask, entry, decision_of_message(ask->tunnel, message), keep ? message->valid_ms : 0);
}

/* --- time and change ------------------------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct ask *ask = arg;
	(void)fd, (void)what;
	uint64_t now = now_us();
	struct entry *entry, *next;
	HASH_ITER(hh_id, ask->by_id, entry, next) {
		if (entry->deadline_us > now)
			continue;
		if (!entry->asked_twice) {
			ask_again(ask, entry);
			continue;
		}
		stats_add(ask->tunnel->self, STATS_WORKER_QUESTIONS_LOST, 1);
		settle(ask, entry, NULL, 0);
	}
}

void ask_commit(struct ask *ask)
{
	struct entry *entry, *next;
	HASH_ITER(hh, ask->by_key, entry, next) {
		if (entry->decision)
			entry_free(ask, entry);
	}
}

struct ask *ask_new(struct tunnel *tunnel)
{
	struct ask *ask = calloc(1, sizeof(*ask));
	if (!ask || !(ask->key = malloc(KEY_MAX)))
		abort();
	ask->tunnel = tunnel;
	if (getrandom(&ask->seed, sizeof(ask->seed), GRND_NONBLOCK) < 0)
		ask->seed = now_us() ^ (uint64_t)(uintptr_t)ask;
	ask->timer = event_new(tunnel->base, -1, EV_PERSIST, on_tick, ask);
	struct timeval tick = {.tv_usec = TICK_MS * 1000};
	event_add(ask->timer, &tick);
	return ask;
}

void ask_free(struct ask *ask)
{
	struct entry *entry, *next;
	if (!ask)
		return;
	HASH_ITER(hh, ask->by_key, entry, next) {
		tell_waiting(entry, NULL);
		entry_free(ask, entry);
	}
	event_free(ask->timer);
	free(ask->key);
	free(ask);
}
