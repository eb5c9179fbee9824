#include "workers/tunnel/resolve.h"

#include <ares.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <uthash.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/resolve_text.h"

#define NAMES_MAX 4096               /* cached */
#define PENDING_MAX 1024             /* names being asked for */
#define NEGATIVE_TTL 5               /* s: a failure is not asked again for so long */
#define NAME_MAX_LENGTH 253

/* A name, what is known of it, and who waits for more. In the table unless it is the overflow entry. */
struct entry {
	UT_hash_handle hh;            /* in order of use: the first was not used longest */
	struct resolver *resolver;
	LIST_HEAD(, resolve_query) queries;
	TAILQ_ENTRY(entry) completed; /* while due */
	bool pending;                 /* c-ares asks, or an answer is to be delivered */
	bool due;                     /* the answer is there: delivered in the next turn */
	bool restart;                 /* the channel went away under it */
	enum flow_error error;        /* FLOW_NONE: addresses hold */
	const char *reason;
	union resolve_address *v;
	unsigned n;
	uint32_t ttl;                 /* s, as the servers said */
	uint64_t stored;              /* µs; 0: never answered */
	char name[];
};

struct resolve_query {
	LIST_ENTRY(resolve_query) link;
	uint32_t ttl_min, ttl_max;
	void (*done)(void *arg, const struct resolved *resolved, enum flow_error error);
	void *arg;
};

struct watch { LIST_ENTRY(watch) link; int fd; struct event *event; struct resolver *resolver; };

struct resolver {
	struct event_base *base;
	ares_channel channel;
	bool channel_open, closing;
	struct resolv_conf conf;
	struct hosts *hosts;
	struct entry *entries, *overflow;
	unsigned pending;
	TAILQ_HEAD(, entry) completed;
	struct event *deliver, *timer;
	LIST_HEAD(, watch) watches;
	const char *reason;
};

/* --- answers ---------------------------------------------------------------------------------------------------------- */

static void complete_later(struct entry *e)
{
	if (e->due)
		return;
	e->due = true;
	TAILQ_INSERT_TAIL(&e->resolver->completed, e, completed);
	event_active(e->resolver->deliver, EV_TIMEOUT, 0);
}

static uint32_t lifetime(const struct entry *e, uint32_t ttl_min, uint32_t ttl_max)
{
	uint32_t ttl = e->error ? NEGATIVE_TTL : e->ttl;
	if (e->error)
		return ttl;
	if (ttl_max && ttl > ttl_max)
		ttl = ttl_max;
	return ttl < ttl_min ? ttl_min : ttl;
}

static uint32_t seconds_left(const struct entry *e, uint32_t ttl_min, uint32_t ttl_max)
{
	uint64_t age = (now_us() - e->stored) / 1000000, ttl = lifetime(e, ttl_min, ttl_max);
	return e->stored && age < ttl ? (uint32_t)(ttl - age) : 0;
}

static void fill(const struct entry *e, struct resolved *out)
{
	out->n = e->n;
	for (unsigned i = 0; i < e->n; i++)
		out->v[i] = e->v[i];
}

/* The callbacks may cancel other queries, ask again, or drop this entry: nothing of it is touched after the first. */
static void deliver(struct resolver *r, struct entry *e)
{
	struct resolved resolved = {0};
	enum flow_error error = e->error;
	const char *reason = e->reason;
	LIST_HEAD(, resolve_query) queries = {e->queries.lh_first};
	if (queries.lh_first)
		queries.lh_first->link.le_prev = &queries.lh_first;
	LIST_INIT(&e->queries);
	fill(e, &resolved);
	e->due = e->pending = false;
	while (!LIST_EMPTY(&queries)) {
		struct resolve_query *q = LIST_FIRST(&queries);
		struct entry life = {.ttl = e->ttl};
		LIST_REMOVE(q, link);
		resolved.ttl = error ? 0 : lifetime(&life, q->ttl_min, q->ttl_max);
		r->reason = reason;
		q->done(q->arg, error ? NULL : &resolved, error);
		free(q);
	}
	r->reason = NULL;
}

static void on_deliver(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = arg;
	(void)fd, (void)what;
	while (!TAILQ_EMPTY(&r->completed)) {
		struct entry *e = TAILQ_FIRST(&r->completed);
		TAILQ_REMOVE(&r->completed, e, completed);
		if (e != r->overflow)
			r->pending--;
		deliver(r, e);
	}
}

static void store_failure(struct entry *e, enum flow_error error, const char *reason)
{
	e->error = error;
	e->reason = reason;
	e->n = 0;
	e->stored = now_us();
}

static unsigned take_family(const struct ares_addrinfo *info, int family, union resolve_address *v, unsigned n,
                            uint32_t *ttl)
{
	for (const struct ares_addrinfo_node *node = info->nodes; node && n < RESOLVE_ADDRESSES; node = node->ai_next) {
		if (node->ai_family != family || node->ai_addrlen > sizeof(*v))
			continue;
		memcpy(&v[n++], node->ai_addr, node->ai_addrlen);
		if (node->ai_ttl >= 0 && (uint32_t)node->ai_ttl < *ttl)
			*ttl = (uint32_t)node->ai_ttl;
	}
	return n;
}

/* IPv6 first (RFC 8305 4), whichever answer came first; at most half of the room, so that IPv4 has some. */
static bool store_addresses(struct entry *e, const struct ares_addrinfo *info)
{
	uint32_t ttl = UINT32_MAX;
	union resolve_address *v = calloc(RESOLVE_ADDRESSES, sizeof(*v));
	if (!v)
		return false;
	unsigned n = take_family(info, AF_INET6, v, 0, &ttl);
	if (n > RESOLVE_ADDRESSES / 2)
		n = RESOLVE_ADDRESSES / 2;
	n = take_family(info, AF_INET, v, n, &ttl);
	if (n == 0) {
		free(v);
		return false;
	}
	free(e->v);
	e->v = v;
	e->n = n;
	e->ttl = ttl == UINT32_MAX ? 0 : ttl;
	e->error = FLOW_NONE;
	e->reason = NULL;
	e->stored = now_us();
	return true;
}

static void on_addrinfo(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct entry *e = arg;
	(void)timeouts;
	if (status == ARES_EDESTRUCTION && !e->resolver->closing) {
		e->restart = true;
		return;
	}
	if (status == ARES_ETIMEOUT)
		store_failure(e, FLOW_DNS_TIMEOUT, "no name server answered in time");
	else if (status != ARES_SUCCESS)
		store_failure(e, FLOW_DNS, ares_strerror(status));
	else if (!store_addresses(e, info))
		store_failure(e, FLOW_DNS, "the name has no address");
	if (info)
		ares_freeaddrinfo(info);
	if (!e->resolver->closing)
		complete_later(e);
}

/* --- c-ares on the event loop ----------------------------------------------------------------------------------------- */

static void schedule(struct resolver *r)
{
	struct timeval delay, *next = r->channel_open ? ares_timeout(r->channel, NULL, &delay) : NULL;
	if (next)
		event_add(r->timer, next);
	else
		event_del(r->timer);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = ((struct watch *)arg)->resolver;
	ares_process_fd(r->channel, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
	schedule(r);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct resolver *r = arg;
	(void)fd, (void)what;
	if (r->channel_open)
		ares_process_fd(r->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	schedule(r);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	struct resolver *r = arg;
	struct watch *w;
	LIST_FOREACH(w, &r->watches, link)
		if (w->fd == fd)
			break;
	if (w) {
		LIST_REMOVE(w, link);
		event_free(w->event);
		free(w);
	}
	if (!readable && !writable)
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	*w = (struct watch){.fd = fd, .resolver = r};
	short what = (short)(EV_PERSIST | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
	w->event = event_new(r->base, fd, what, on_socket, w);
	if (!w->event || event_add(w->event, NULL) < 0)
		abort();
	LIST_INSERT_HEAD(&r->watches, w, link);
}

/* Every setting is given, so that c-ares opens none of the files that the sandbox would refuse. */
static bool channel_open(struct resolver *r)
{
	static char lookups[] = "b";
	char csv[RESOLV_SERVERS * 68];
	struct ares_options options = {
		.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_EDNS,
		.timeout = r->conf.timeout_ms,
		.tries = r->conf.tries,
		.ndots = 1,
		.lookups = lookups,
		.ednspsz = 1232,
		.sock_state_cb = on_socket_state,
		.sock_state_cb_data = r,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_NDOTS | ARES_OPT_LOOKUPS |
	           ARES_OPT_EDNSPSZ | ARES_OPT_SOCK_STATE_CB | ARES_OPT_SERVERS | ARES_OPT_DOMAINS | ARES_OPT_SORTLIST |
	           (r->conf.rotate ? ARES_OPT_ROTATE : ARES_OPT_NOROTATE);
	if (r->conf.n == 0 || ares_init_options(&r->channel, &options, mask) != ARES_SUCCESS)
		return false;
	resolv_conf_csv(&r->conf, csv, sizeof(csv));
	if (ares_set_servers_ports_csv(r->channel, csv) == ARES_SUCCESS)
		return true;
	ares_destroy(r->channel);
	return false;
}

static void start(struct entry *e)
{
	struct resolver *r = e->resolver;
	static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_flags = ARES_AI_NOSORT};
	e->restart = false;
	if (!r->channel_open) {
		store_failure(e, FLOW_DNS, "no name server is known (resolv.conf has none)");
		e->stored = 0;               /* asked again as soon as there is one */
		complete_later(e);
		return;
	}
	ares_getaddrinfo(r->channel, e->name, NULL, &hints, on_addrinfo, e);
	schedule(r);
}

void resolver_set_resolv_conf(struct resolver *r, const char *text)
{
	struct resolv_conf conf;
	struct entry *e, *next;
	resolv_conf_parse(text ? text : "", &conf);
	if (r->channel_open && memcmp(&conf, &r->conf, sizeof(conf)) == 0)
		return;
	r->conf = conf;
	if (r->channel_open)
		ares_destroy(r->channel);
	r->channel_open = channel_open(r);
	HASH_ITER(hh, r->entries, e, next) {
		if (e->restart)
			start(e);
		else if (e->error && !e->due)
			e->stored = 0;
	}
	schedule(r);
}

void resolver_set_hosts(struct resolver *r, const char *text)
{
	hosts_free(r->hosts);
	r->hosts = hosts_parse(text ? text : "");
}

/* --- the cache -------------------------------------------------------------------------------------------------------- */

static void entry_free(struct entry *e)
{
	free(e->v);
	free(e);
}

static struct entry *entry_new(struct resolver *r, const char *name)
{
	size_t length = strlen(name);
	struct entry *e = calloc(1, sizeof(*e) + length + 1);
	if (!e)
		abort();
	e->resolver = r;
	memcpy(e->name, name, length);
	return e;
}

static void evict(struct resolver *r)
{
	struct entry *e, *next;
	HASH_ITER(hh, r->entries, e, next) {
		if (e->pending)
			continue;
		HASH_DEL(r->entries, e);
		entry_free(e);
		return;
	}
}

static struct entry *entry_use(struct resolver *r, const char *name)
{
	struct entry *e;
	HASH_FIND_STR(r->entries, name, e);
	if (e) {
		HASH_DEL(r->entries, e);
	} else {
		if (HASH_COUNT(r->entries) >= NAMES_MAX)
			evict(r);
		e = entry_new(r, name);
	}
	HASH_ADD_STR(r->entries, name, e);
	return e;
}

/* --- asking ----------------------------------------------------------------------------------------------------------- */

static bool is_localhost(const char *name)
{
	size_t length = strlen(name);
	return strcmp(name, "localhost") == 0 || (length > 10 && strcmp(name + length - 10, ".localhost") == 0);
}

/* What needs no name server: literals, localhost (RFC 6761 6.3), the hosts file. */
static bool known(const struct resolver *r, const char *name, struct resolved *now)
{
	const union resolve_address *address;
	now->n = 0;
	now->ttl = 60;
	if (address_parse(name, &now->v[0])) {
		now->n = 1;
		now->ttl = UINT32_MAX;
		return true;
	}
	if (is_localhost(name)) {
		address_parse("127.0.0.1", &now->v[0]);
		address_parse("::1", &now->v[1]);
		now->n = 2;
		return true;
	}
	while (now->n < RESOLVE_ADDRESSES && (address = hosts_find(r->hosts, name, now->n)))
		now->v[now->n++] = *address;
	return now->n > 0;
}

/* Lower case, no trailing dot. False: no name. */
static bool canonical(const char *host, char *out)
{
	size_t length = strlen(host);
	if (length > 1 && host[length - 1] == '.')
		length--;
	if (length == 0 || length > NAME_MAX_LENGTH)
		return false;
	for (size_t i = 0; i < length; i++)
		out[i] = (char)tolower((unsigned char)host[i]);
	out[length] = 0;
	return true;
}

static struct resolve_query *wait_for(struct entry *e, uint32_t ttl_min, uint32_t ttl_max,
                                      void (*done)(void *, const struct resolved *, enum flow_error), void *arg)
{
	struct resolve_query *q = calloc(1, sizeof(*q));
	if (!q)
		abort();
	*q = (struct resolve_query){.ttl_min = ttl_min, .ttl_max = ttl_max, .done = done, .arg = arg};
	LIST_INSERT_HEAD(&e->queries, q, link);
	return q;
}

static struct resolve_query *overflow(struct resolver *r, const char *reason,
                                      void (*done)(void *, const struct resolved *, enum flow_error), void *arg)
{
	r->overflow->error = FLOW_DNS;
	r->overflow->reason = reason;
	complete_later(r->overflow);
	return wait_for(r->overflow, 0, 0, done, arg);
}

struct resolve_query *resolve(struct resolver *r, const char *host, uint32_t ttl_min, uint32_t ttl_max,
                              struct resolved *now,
                              void (*done)(void *arg, const struct resolved *resolved, enum flow_error error), void *arg)
{
	char name[NAME_MAX_LENGTH + 1];
	if (!canonical(host, name))
		return overflow(r, "not a name", done, arg);
	if (known(r, name, now))
		return NULL;
	if (r->pending >= PENDING_MAX)
		return overflow(r, "too many names are being resolved", done, arg);
	struct entry *e = entry_use(r, name);
	uint32_t left = seconds_left(e, ttl_min, ttl_max);
	if (!e->pending && left > 0 && !e->error) {
		fill(e, now);
		now->ttl = left;
		return NULL;
	}
	struct resolve_query *q = wait_for(e, ttl_min, ttl_max, done, arg);
	if (!e->pending) {
		e->pending = true;
		r->pending++;
		if (left > 0)
			complete_later(e);     /* known not to resolve */
		else
			start(e);
	}
	return q;
}

void resolve_cancel(struct resolve_query *q)
{
	if (!q)
		return;
	LIST_REMOVE(q, link);
	free(q);
}

const char *resolve_reason(const struct resolver *r)
{
	return r->reason ? r->reason : "name resolution failed";
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

struct resolver *resolver_new(struct event_base *base)
{
	unsigned seed;
	struct resolver *r = calloc(1, sizeof(*r));
	if (!r || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		abort();
	/* c-ares seeds its query ids from /dev/urandom, and where that is out of reach (the sandbox) from rand(). */
	if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
		srand(seed);
	r->base = base;
	TAILQ_INIT(&r->completed);
	r->overflow = entry_new(r, "");
	r->deliver = event_new(base, -1, EV_PERSIST, on_deliver, r);
	r->timer = evtimer_new(base, on_timer, r);
	if (!r->deliver || !r->timer)
		abort();
	return r;
}

static void drop_queries(struct entry *e)
{
	while (!LIST_EMPTY(&e->queries))
		resolve_cancel(LIST_FIRST(&e->queries));
}

void resolver_free(struct resolver *r)
{
	struct entry *e, *next;
	if (!r)
		return;
	r->closing = true;
	if (r->channel_open)
		ares_destroy(r->channel);
	HASH_ITER(hh, r->entries, e, next) {
		HASH_DEL(r->entries, e);
		drop_queries(e);
		entry_free(e);
	}
	drop_queries(r->overflow);
	entry_free(r->overflow);
	event_free(r->deliver);
	event_free(r->timer);
	hosts_free(r->hosts);
	ares_library_cleanup();
	free(r);
}
