/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a far end share: ip_exit.c, ip_exit_handover.c (from one worker to the next). */
#ifndef HERMES_TUNNEL_IP_EXIT_INTERNAL_H
#define HERMES_TUNNEL_IP_EXIT_INTERNAL_H

#include <event2/event_struct.h>

#include "workers/tunnel/ip_capsule.h"
#include "workers/tunnel/ip_pool.h"
#include "workers/tunnel/ip_scope.h"
#include "workers/tunnel/ip_way.h"
#include "workers/tunnel/leg_ip.h"
#include "workers/tunnel/resolve.h"

struct ip_exit {
	struct ip_leg leg;            /* first */
	struct ip_exit *prev, *next;  /* of the device */
	struct tunnel *tunnel;
	struct device *device;        /* the leg's reference */
	struct generation *generation;  /* config belongs to it */
	const struct config_cluster *config;
	struct ip_way way;
	struct ip_holder holder;
	struct own_origin *origin;    /* who came, where the flow outlives the connection */
	char *user, *client, *cluster, *source, *target;
	struct head *request;         /* as it came, for a successor */
	struct config_prefix targets[RESOLVE_ADDRESSES];
	struct config_prefixes target_list;   /* of targets; n 0: all */
	int protocol;
	struct ip_scope *scope;       /* NULL until the target's name is resolved */
	struct resolve_query *query;
	struct ip_assigned *answers;  /* to ADDRESS_REQUESTs of what came together */
	unsigned n_answers, room;
	bool asked;                   /* the client sends ADDRESS_REQUEST: it has no other addresses than those given */
	struct event linger;
	uint64_t last;                /* µs; a packet left for the client */
};

/* False: what its target is lies outside what is advertised. */
bool ip_exit_make_scope(struct ip_exit *exit);

/* ip_exit_handover.c: ip_leg_callbacks.hand_over */
bool ip_exit_hand_over(struct ip_leg *leg, struct parcel *parcel);

#endif
