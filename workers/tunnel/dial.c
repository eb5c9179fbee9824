#include "workers/tunnel/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "workers/tunnel/generation.h"
#include "workers/tunnel/guard.h"
#include "workers/tunnel/hop_watch.h"
#include "workers/tunnel/udp_io.h"

#define NEVER_MS UINT32_MAX         /* who dials has a time limit */
#define STAGGER_MS 250               /* RFC 8305 5: connection attempt delay */

struct race {                        /* one address being connected to */
	struct dial *dial;
	struct event *event;          /* NULL: not running */
	struct hop_watch *watch;      /* NULL: not of a hop */
	int fd;
};

_Static_assert(offsetof(struct resolved, v) == 0, "the path shares the first address's place");

struct dial {
	struct tunnel *tunnel;
	struct dial_target target;
	struct resolve_query *query;
	struct event *timer;          /* the next address's turn, or the end that is to be told */
	union {
		struct resolved addresses;    /* in the order of trying */
		struct {
			struct sockaddr_un path;  /* in the place of addresses.v[0]: a Unix socket is the only one */
		} local;
	};
	bool resolved, fresh;
	unsigned next, running;
	struct race races[RESOLVE_ADDRESSES];
	int fd;                       /* of the winner, until it is told */
	unsigned winner;
	bool ended;
	enum flow_error error;
	char detail[256];
	struct resolved stale;
	void (*done)(void *arg, const struct dial_result *result);
	void *arg;
};

static void try_next(struct dial *d);

void dial_address_text(const struct sockaddr *address, char *out, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "";
	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
		inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
		snprintf(out, size, "%s:%u", text, ntohs(v4->sin_port));
	} else if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
		inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
		snprintf(out, size, "[%s]:%u", text, ntohs(v6->sin6_port));
	} else {
		snprintf(out, size, "unix");
	}
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

static void race_stop(struct race *race)
{
	if (!race->event)
		return;
	event_free(race->event);
	race->event = NULL;
	race->dial->running--;
	hop_watch_free(race->watch);
	race->watch = NULL;
	if (race->fd >= 0)
		close(race->fd);
	race->fd = -1;
}

static void dial_free(struct dial *d)
{
	resolve_cancel(d->query);
	for (unsigned i = 0; i < RESOLVE_ADDRESSES; i++)
		race_stop(&d->races[i]);
	if (d->fd >= 0)
		close(d->fd);
	event_free(d->timer);
	generation_unref(d->target.generation);
	free(d);
}

void dial_cancel(struct dial *d)
{
	if (d)
		dial_free(d);
}

static void tell(struct dial *d)
{
	struct dial_result result = {.fd = d->fd, .error = d->error, .detail = d->detail,
	                             .resolved = d->fresh ? &d->addresses : NULL};
	if (d->fd >= 0)
		result.address = d->addresses.v[d->winner];
	d->fd = -1;
	d->done(d->arg, &result);
	dial_free(d);
}

/* Told in the loop's next round. */
static void end(struct dial *d)
{
	static const struct timeval now = {0};
	d->ended = true;
	for (unsigned i = 0; i < RESOLVE_ADDRESSES; i++)
		race_stop(&d->races[i]);
	event_add(d->timer, &now);
}

static void fail(struct dial *d, enum flow_error error, const char *where, const char *reason)
{
	d->error = error;
	snprintf(d->detail, sizeof(d->detail), "%s%s%s", where, *where ? ": " : "", reason);
}

static void fail_errno(struct dial *d, unsigned i, int error)
{
	enum flow_error e = FLOW_CONNECT_REFUSED;
	char where[64];
	if (error == ETIMEDOUT)
		e = FLOW_CONNECT_TIMEOUT;
	else if (error == EHOSTUNREACH || error == ENETUNREACH || error == EACCES || error == EPERM ||
	         error == EADDRNOTAVAIL || error == EAFNOSUPPORT || error == EINVAL)
		e = FLOW_UNROUTABLE;
	else if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
		e = FLOW_CONNECTION_LIMIT;
	dial_address_text((struct sockaddr *)&d->addresses.v[i], where, sizeof(where));
	fail(d, e, where, strerror(error));
}

/* --- connecting ------------------------------------------------------------------------------------------------------- */

/* 0 or -errno. */
static int set_options(int fd, int family, bool udp)
{
	int one = 1, idle = 60, interval = 15, count = 4;
	if (udp)
		return udp_setup(fd, family, UDP_CONNECTED);
	if (family == AF_UNIX)
		return 0;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	return 0;
}

static void won(struct dial *d, unsigned i, int fd)
{
	d->fd = fd;
	d->winner = i;
	d->error = FLOW_NONE;
	end(d);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct race *race = arg;
	struct dial *d = race->dial;
	unsigned i = (unsigned)(race - d->races);
	int error = 0;
	socklen_t length = sizeof(error);
	(void)what;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error == 0)
		race->fd = -1;               /* ours now */
	race_stop(race);
	if (error == 0)
		return won(d, i, fd);
	fail_errno(d, i, error);
	try_next(d);
}

static void ignore(void *arg)
{
	(void)arg;
}

/* False: failed at once. */
static bool connect_to(struct dial *d, unsigned i)
{
	const struct sockaddr *address = (const struct sockaddr *)&d->addresses.v[i];
	struct race *race = &d->races[i];
	socklen_t length = address->sa_family == AF_INET ? sizeof(struct sockaddr_in) :
	                   address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_un);
	int type = d->target.udp ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(address->sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int error = fd < 0 ? -errno : set_options(fd, address->sa_family, d->target.udp);
	if (error) {
		fail_errno(d, i, -error);
		if (fd >= 0)
			close(fd);
		return false;
	}
	if (connect(fd, address, length) == 0) {
		won(d, i, fd);
		return true;
	}
	if (errno != EINPROGRESS) {
		fail_errno(d, i, errno);
		close(fd);
		return false;
	}
	*race = (struct race){.dial = d, .fd = fd};
	race->event = event_new(d->tunnel->base, fd, EV_WRITE, on_connected, race);
	if (!race->event || event_add(race->event, NULL) < 0)
		abort();
	d->running++;
	if (d->target.hop && (race->watch = hop_watch_new(d->tunnel->base, fd, NEVER_MS, ignore, d)))
		hop_watch_wrote(race->watch);
	return true;
}

static bool may_dial(struct dial *d, unsigned i)
{
	const struct sockaddr *address = (const struct sockaddr *)&d->addresses.v[i];
	const char *refused = d->target.guard ? guard_refuses(d->target.guard, address) : NULL;
	char where[64];
	if (!refused)
		return true;
	dial_address_text(address, where, sizeof(where));
	if (d->error == FLOW_NONE)
		fail(d, FLOW_TARGET_REFUSED, where, refused);
	return false;
}

/* The next address that may be dialled; when it hangs, another has its turn soon. */
static void try_next(struct dial *d)
{
	static const struct timeval stagger = {.tv_usec = STAGGER_MS * 1000};
	while (!d->ended && d->next < d->addresses.n) {
		unsigned i = d->next++;
		if (!may_dial(d, i) || !connect_to(d, i))
			continue;
		if (!d->ended && d->next < d->addresses.n)
			event_add(d->timer, &stagger);
		return;
	}
	if (!d->ended && d->running == 0)
		end(d);
}

/* --- resolving -------------------------------------------------------------------------------------------------------- */

/* Families take turns, the first address's first; ports are filled in. */
static void arrange(struct dial *d, const struct resolved *from)
{
	struct resolved *to = &d->addresses;
	unsigned a = 0, b = 0;
	bool turn = true;
	*to = (struct resolved){.n = 0, .ttl = from->ttl};
	while (to->n < from->n) {
		unsigned *at = turn ? &a : &b;
		while (*at < from->n && (from->v[*at].sa.sa_family == from->v[0].sa.sa_family) != turn)
			(*at)++;
		if (*at < from->n)
			to->v[to->n++] = from->v[(*at)++];
		turn = !turn;
	}
	for (unsigned i = 0; i < to->n; i++) {
		if (to->v[i].sa.sa_family == AF_INET)
			((struct sockaddr_in *)&to->v[i])->sin_port = htons(d->target.port);
		else
			((struct sockaddr_in6 *)&to->v[i])->sin6_port = htons(d->target.port);
	}
	d->resolved = true;
}

static void on_resolved(void *arg, const struct resolved *resolved, enum flow_error error)
{
	struct dial *d = arg;
	d->query = NULL;
	if (resolved) {
		arrange(d, resolved);
		d->fresh = true;
	} else if (d->stale.n > 0) {
		arrange(d, &d->stale);
	} else {
		fail(d, error, "", resolve_reason(d->tunnel->resolver));
		return end(d);
	}
	try_next(d);
}

/* A relative path is that of an implied cluster (store/config.h) and lies in the runtime folder. */
static void use_path(struct dial *d, const char *path)
{
	struct sockaddr_un *un = &d->local.path;
	const char *folder = *path == '/' ? "" : getenv("HERMES_RUNTIME_DIR");
	d->resolved = true;
	d->addresses.n = 1;
	un->sun_family = AF_UNIX;
	if (folder && (size_t)snprintf(un->sun_path, sizeof(un->sun_path), "%s%s%s", folder, *folder ? "/" : "", path) <
	                      sizeof(un->sun_path))
		return;
	d->addresses.n = 0;
	fail(d, FLOW_UNROUTABLE, path, "the socket's path is too long");
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct dial *d = arg;
	(void)fd, (void)what;
	if (d->ended)
		tell(d);
	else
		try_next(d);
}

struct dial *dial_new(struct tunnel *tunnel, const struct dial_target *target,
                      void (*done)(void *arg, const struct dial_result *result), void *arg)
{
	struct dial *d = calloc(1, sizeof(*d));
	struct resolved now;
	if (!d)
		abort();
	*d = (struct dial){.tunnel = tunnel, .target = *target, .fd = -1, .done = done, .arg = arg};
	if (target->generation)
		generation_ref(target->generation);
	if (target->stale)
		d->stale = *target->stale;
	d->target.stale = NULL;
	d->timer = evtimer_new(tunnel->base, on_timer, d);
	if (!d->timer)
		abort();
	if (target->unix_path) {
		use_path(d, target->unix_path);
		try_next(d);
		return d;
	}
	d->query = resolve(tunnel->resolver, target->host, target->ttl_min, target->ttl_max, &now, on_resolved, d);
	if (!d->query) {
		arrange(d, &now);
		d->fresh = true;
		try_next(d);
	}
	return d;
}
