/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a client end share: ip_network.c (flows, packets, settings), ip_network_control.c (addresses and routes). */
#ifndef HERMES_TUNNEL_IP_NETWORK_INTERNAL_H
#define HERMES_TUNNEL_IP_NETWORK_INTERNAL_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/ip_capsule.h"
#include "workers/tunnel/ip_text.h"
#include "workers/tunnel/ip_way.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/listener.h"

#define NETWORK_STATES(S) S(OPENING) S(OPEN) S(BACKING_OFF) S(CLOSING)
enum network_state {
#define S(ID) NETWORK_##ID,
	NETWORK_STATES(S)
#undef S
};

struct network_leg {
	struct ip_leg leg;            /* first */
	struct ip_network *network;
	struct network_leg *next;
	bool refused;                 /* answered with an error */
};

struct ip_network {
	struct tunnel *tunnel;
	struct device *device;        /* a reference */
	struct generation *generation;  /* settings belong to it */
	const struct config_tunnel *config;
	const struct config_network *settings;
	struct config_prefix prefix;
	char text[IP_TEXT];
	struct config_listener listener_config;
	struct listener listener;     /* what flows and policies see: the device by its name */
	struct origin origin;
	struct sockaddr_storage source;
	struct ip_way way;
	struct network_leg *legs, *current, *next;   /* all; the one that packets leave by; the one being opened */
	enum network_state state;
	bool stale;                   /* the current one was begun with other settings */
	bool freed;                   /* gone with its last leg */
	bool handed;                  /* a successor has the flow */
	unsigned failures;
	uint64_t since;               /* µs: of state */
	struct event retry;
	char error[200];              /* why it is not open, or not as it should be; "" */
	struct config_prefix assigned[DEVICE_OWN];
	unsigned n_assigned;
	struct ip_route *routes;      /* advertised; NULL: nothing was said */
	unsigned n_routes, last_route;
	uint64_t requests, first_request;   /* ids of ADDRESS_REQUEST: the last used; the first of those asked on this flow */
};

/* Logged once, shown until it is better. */
void ip_network_complain(struct ip_network *network, const char *what, const char *detail);

/* ip_network_control.c */
/* For the device's own addresses, or for any where the far end is to assign them; those that it gave before, if it did. */
void ip_network_request(struct ip_network *network, struct ip_leg *leg);
/* ip_leg_callbacks.control */
const char *ip_network_control(struct ip_leg *leg, uint64_t type, const uint8_t *value, size_t length);
/* The far end takes the packet, as far as it said. */
bool ip_network_advertised(struct ip_network *network, const struct ip_packet *ip);
void ip_network_forget_routes(struct ip_network *network);

/* ip_network.c */
/* Policies see packets as those of the tunnel's request, with the headers that it has. */
void ip_network_police(struct ip_network *network, const struct head *request);
struct head *ip_network_head(const struct ip_network *network);
/* A leg for the next flow. */
struct network_leg *ip_network_leg(struct ip_network *network);

/* ip_network_handover.c: ip_leg_callbacks.hand_over */
bool ip_network_hand_over(struct ip_leg *leg, struct parcel *parcel);

#endif
