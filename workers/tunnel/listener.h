/* Listeners: accepted connections become HTTP connections, SOCKS sessions or TCP legs. */
#ifndef HERMES_TUNNEL_LISTENER_H
#define HERMES_TUNNEL_LISTENER_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

struct listeners;

/* Lives until no connection of it does; config is that of the generation in force. */
struct listener {
	const char *name;
	const struct config_listener *config;
	struct stats_set *stats;      /* scope listener */
	unsigned udp_flows;           /* that programs began here, living or just refused */
};

struct listeners *listeners_new(struct tunnel *tunnel);
/* A bound socket for `generation` (LISTENER message); owns fd. */
void listeners_add(struct listeners *listeners, uint64_t generation, const char *name, int fd);
/* Every listener of config has its socket; else a reason. */
int listeners_prepare(struct listeners *listeners, const struct config *config, uint64_t generation, char *error, size_t size);
/* tunnel->current is in force: listens on its sockets, closes the others; their connections live on, but drain. */
void listeners_commit(struct listeners *listeners, uint64_t generation);
void listeners_abort(struct listeners *listeners, uint64_t generation);
/* No more accepts; connections finish what they do. Returns at once. */
void listeners_drain(struct listeners *listeners);
/* The same, but UDP flows stay for now: their sockets are only read no more, until they were handed over or listeners_drain(). */
void listeners_pause(struct listeners *listeners);
/* The predecessor has handed over: UDP sockets are read. */
void listeners_start(struct listeners *listeners);
/* NULL: there is none of that name; udp: or it takes no datagrams. */
struct bound;
struct udp_listener;
struct bound *listeners_find(struct listeners *listeners, const char *name);
struct udp_listener *listeners_udp(struct listeners *listeners, const char *name);

#endif
