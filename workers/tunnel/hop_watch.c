/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/hop_watch.h"

#include <event2/event.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "workers/tunnel/clock.h"

#define TICK_US 25000u
/* Between retransmissions, at most. A tick that came later than that would end the connection, so it is more the later ticks have
 * come of late. */
#define AHEAD_US 100000u
#define BEFORE_US 1000000u            /* the same before there were any */
#define LATE 4u                       /* times the latest tick */
#define FORGET 64u                    /* ticks in which half of it is forgotten */
#define SYN_SENT 2                    /* of tcpi_state: <netinet/tcp.h> does not go together with <linux/tcp.h> */
#define SYNS 127                      /* as many as there can be: who dials has a time limit of its own */
#define PROBES 5                      /* who only receives asks whether the other end is there */
#ifndef TCP_RTO_MAX_MS
#define TCP_RTO_MAX_MS 44             /* Linux 6.15 */
#endif
#define RTO_MAX_MS ((int)BEFORE_US / 1000)   /* the least that it takes */

struct hop_watch {
	LIST_ENTRY(hop_watch) link;   /* while it is looked at */
	int fd;
	unsigned lost_ms;
	bool active, held;            /* held: TCP_USER_TIMEOUT is set */
	bool bounded;                 /* the kernel itself waits no longer than BEFORE_US */
	uint64_t well, stuck;         /* µs: last seen without trouble; nothing acknowledged since, 0: not so */
	void (*lost)(void *arg);
	void *arg;
};
static struct {
	struct event *event;
	LIST_HEAD(, hop_watch) active;
	uint64_t due, late;           /* µs: the tick; how late ticks have been */
} loop;

static void hold(struct hop_watch *w, unsigned ms)
{
	setsockopt(w->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
	w->held = ms > 0;
}

static void stop(struct hop_watch *w)
{
	if (w->held)
		hold(w, 0);
	if (w->active)
		LIST_REMOVE(w, link);
	w->active = false;
	w->stuck = 0;
}

static uint64_t ahead(void)
{
	uint64_t us = AHEAD_US + LATE * loop.late;
	return us < BEFORE_US ? us : BEFORE_US;
}

/* Whether it has been given up. */
static bool look(struct hop_watch *w, uint64_t now)
{
	struct tcp_info info = {0};
	socklen_t length = sizeof(info);
	if (getsockopt(w->fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0 || (info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0)) {
		stop(w);
		return false;
	}
	/* The kernel counts from the first retransmission after this was last so; while connecting, from the beginning. */
	if (info.tcpi_state != SYN_SENT && info.tcpi_retransmits == 0 && info.tcpi_retrans == 0 && info.tcpi_lost == 0)
		w->well = now;
	if (info.tcpi_retransmits == 0) {
		w->stuck = 0;
		if (!w->bounded)
			hold(w, (unsigned)((now - w->well + BEFORE_US) / 1000));
		else if (w->held)
			hold(w, 0);
		return false;
	}
	if (!w->stuck)
		w->stuck = now;
	if (now - w->stuck > w->lost_ms * 1000ull)
		return true;
	hold(w, (unsigned)((now - w->well + ahead()) / 1000));
	return false;
}

static void arm(uint64_t now)
{
	static const struct timeval tick = {.tv_usec = TICK_US};
	loop.due = now + TICK_US;
	event_add(loop.event, &tick);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	uint64_t now = now_us(), late = now > loop.due ? now - loop.due : 0;
	(void)fd, (void)what, (void)arg;
	loop.late -= loop.late / FORGET;
	if (late > loop.late)
		loop.late = late;
	for (struct hop_watch *w = LIST_FIRST(&loop.active), *next; w; w = next) {
		next = LIST_NEXT(w, link);
		if (!look(w, now))
			continue;
		stop(w);
		w->lost(w->arg);           /* frees nothing at once */
	}
	if (!LIST_EMPTY(&loop.active))
		arm(now);
}

void hop_watch_wrote(struct hop_watch *w)
{
	if (w->active)
		return;
	w->well = now_us();
	if (LIST_EMPTY(&loop.active))
		arm(w->well);
	LIST_INSERT_HEAD(&loop.active, w, link);
	w->active = true;
}

struct hop_watch *hop_watch_new(struct event_base *base, int fd, unsigned lost_ms, void (*lost)(void *arg), void *arg)
{
	int domain = 0, on = 1, syns = SYNS, most = RTO_MAX_MS, count = PROBES;
	int idle = (int)lost_ms / 2000 + 1, interval = (int)lost_ms / 2000 / PROBES + 1;
	socklen_t length = sizeof(domain);
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || (domain != AF_INET && domain != AF_INET6))
		return NULL;
	if (!loop.event && !(loop.event = evtimer_new(base, on_tick, NULL)))
		abort();
	struct hop_watch *w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	*w = (struct hop_watch){.fd = fd, .lost_ms = lost_ms, .lost = lost, .arg = arg};
	w->bounded = setsockopt(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, &most, sizeof(most)) == 0;
	setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &syns, sizeof(syns));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	return w;
}

void hop_watch_free(struct hop_watch *w)
{
	if (!w)
		return;
	stop(w);
	free(w);
}
