/* What all parts of a tunnel worker share. */
#ifndef HERMES_TUNNEL_TUNNEL_H
#define HERMES_TUNNEL_TUNNEL_H

#include "ipc/worker.h"
#include "store/config.h"
#include "workers/tunnel/clock.h"

struct event;
struct event_base;

/* A configuration generation, counted: what was begun under it keeps it. */
struct generation {
	uint64_t number;
	unsigned refs;
	struct config *config;
	struct endpoint_table *endpoints;   /* NULL until router sent it: configured weights, all healthy */
	struct tls *tls;                    /* contexts made from its certificates */
};

struct tunnel {
	struct worker *worker;
	struct event_base *base;
	struct stats *stats;
	struct stats_set *self;       /* scope worker */
	struct generation *current;   /* in force */
	struct generation *next;      /* prepared */
	struct ask *ask;              /* decisions and their cache */
	struct redecide *redecide;    /* what becomes of living flows when the configuration changes */
	struct resolver *resolver;
	struct clusters *clusters;
	struct listeners *listeners;
	struct probes *probes;        /* ways that are measured; worker 0 only */
	struct devices *devices;      /* TUN devices that this worker owns */
	struct worker_links *links;   /* streams to the node's other tunnel workers */
	struct udp_sender *udp;       /* one for all UDP sockets */
	struct records *records;      /* access records on their way to telemetry */
	struct auth *auth;            /* users: proof of passwords */
	struct ipc_channel *policy, *router, *telemetry;   /* NULL while absent */
	struct flow *flows;           /* all that live */
	unsigned n_flows;
	struct going *going;          /* tunnels that end here and can go on, by their id (flow_resume.h) */
	unsigned n_parked;
	uint64_t flow_id;
	bool draining;
	struct handover *handover;    /* flows on their way from or to another worker; NULL: none */
	bool awaiting;                /* the predecessor's flows are still to come */
	struct event *late;           /* NULL, or the predecessor still drains, and a flow may come from it: until when streams wait */
	unsigned n_held;
	bool handing;                 /* its own are on their way to a successor, or soon will be */
	bool handed;                  /* a successor has what could go on */
};

#endif
