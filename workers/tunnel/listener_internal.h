#ifndef HERMES_TUNNEL_LISTENER_INTERNAL_H
#define HERMES_TUNNEL_LISTENER_INTERNAL_H

#include <event2/util.h>

#include "workers/tunnel/listener.h"
#include "workers/tunnel/udp_listener.h"

/* A listener with its socket. Lives while it is in force or a connection of it lives. */
struct bound {
	struct listener base;
	struct bound *next;
	struct tunnel *tunnel;
	struct generation *generation;  /* base.config belongs to it */
	struct event *event;            /* of fd; NULL: closed */
	int fd;                         /* that listens; -1: none */
	struct udp_listener *udp;       /* accept udp, transparent; NULL: none */
	bool listed;                    /* among the listeners in force */
	unsigned refs, connections;
};

/* That its listening socket has. */
uint16_t bound_port(const struct bound *bound);
void bound_unref(struct bound *bound);
/* origin.hold of what came in by a bound listener. */
void bound_hold(struct listener *listener, int change);
void bound_resume(evutil_socket_t fd, short what, void *arg);

#endif
