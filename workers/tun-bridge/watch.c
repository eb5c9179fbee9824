/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/watch.h"

#include <event2/event.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_MS 200
#define GROUP(number) (1u << ((number) - 1))

static const struct {
	int protocol;
	unsigned groups;
} sources[] = {
	{NETLINK_ROUTE, GROUP(RTNLGRP_LINK) | GROUP(RTNLGRP_IPV4_RULE) | GROUP(RTNLGRP_IPV6_RULE)},
	{NETLINK_NETFILTER, GROUP(NFNLGRP_NFTABLES)},
};
#define SOURCES (sizeof(sources) / sizeof(*sources))

struct watch {
	struct event *events[SOURCES];     /* NULL: not in this kernel */
	struct event *settled;
	void (*changed)(void *arg);
	void *arg;
};

static void on_settled(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	(void)fd, (void)what;
	w->changed(w->arg);
}

/* What changed does not matter, nor whether some of it was lost: everything is looked at. */
static void on_news(evutil_socket_t fd, short what, void *arg)
{
	const struct timeval later = {.tv_usec = SETTLE_MS * 1000};
	struct watch *w = arg;
	char news[8192];
	(void)what;
	for (int i = 0; i < 1000 && recv(fd, news, sizeof(news), MSG_DONTWAIT) > 0; i++)
		continue;
	event_add(w->settled, &later);
}

static struct event *listen_to(struct watch *w, struct event_base *base, size_t i)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = sources[i].groups};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, sources[i].protocol);
	if (fd < 0)
		return NULL;
	struct event *event = bind(fd, (struct sockaddr *)&address, sizeof(address)) ? NULL :
	                      event_new(base, fd, EV_READ | EV_PERSIST, on_news, w);
	if (event && event_add(event, NULL) == 0)
		return event;
	if (event)
		event_free(event);
	close(fd);
	return NULL;
}

struct watch *watch_new(struct event_base *base, void (*changed)(void *arg), void *arg)
{
	struct watch *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct watch){.changed = changed, .arg = arg, .settled = evtimer_new(base, on_settled, w)};
	if (!w->settled) {
		free(w);
		return NULL;
	}
	for (size_t i = 0; i < SOURCES; i++)
		w->events[i] = listen_to(w, base, i);
	return w;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	for (size_t i = 0; i < SOURCES; i++) {
		if (!w->events[i])
			continue;
		close(event_get_fd(w->events[i]));
		event_free(w->events[i]);
	}
	event_free(w->settled);
	free(w);
}
