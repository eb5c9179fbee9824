/* Next hops: endpoints, how one is chosen, pooled connections to it, and its health. */
#ifndef HERMES_TUNNEL_CLUSTER_H
#define HERMES_TUNNEL_CLUSTER_H

#include "workers/tunnel/flow.h"
#include "workers/tunnel/tunnel.h"

struct clusters;
struct attempt;

struct clusters *clusters_new(struct tunnel *tunnel);
void clusters_free(struct clusters *clusters);
/* The generation tunnel->current is in force: pools of clusters whose settings stay are kept; of others they drain. */
void clusters_commit(struct clusters *clusters);

/* What an attempt needs to know. Pointers live as long as the flow. */
struct cluster_request {
	struct flow *flow;
	const char *cluster;          /* name */
	const char *target;           /* the request's authority (host:port), for endpoints: target; default port by scheme */
	const char *scheme;
	bool tunnel;                  /* bytes both ways (CONNECT without protocol) */
	const char *hash_key;         /* balance hash: header's value or source; NULL: none */
	uint32_t connect_timeout;     /* ms, 0: the cluster's */
	uint32_t tried;               /* attempts before this one: another endpoint is preferred */
	const char *prefer;           /* the endpoint as configured, while it may be used; NULL: none */
	uint64_t tried_endpoints;     /* bits of endpoint numbers (below 64) tried before */
};

/* Starts an attempt. Ends, never inside this call, in flow_opened(flow, leg) or flow_open_failed(). Until then it can be
 * cancelled. Afterwards attempt is gone.
 * What leaves: carry h2: a stream of a pooled connection. carry h1: a pooled connection (CONNECT goes as CONNECT to fixed
 * endpoints; with endpoints: target it is ended here, the target dialled). carry tcp: tunnels become a dialled connection,
 * HTTP requests leave as HTTP/1.1 on one. carry udp, ip: UDP and IP tunnels end there; these leave by carry h1 and h2 to fixed
 * endpoints as what they are. */
struct attempt *cluster_open(struct clusters *clusters, const struct cluster_request *request);
void attempt_cancel(struct attempt *attempt);

/* After flow_opened: which endpoint it was (for the record and for tried_endpoints). address: as dialled. */
struct endpoint_used {
	char endpoint[96];            /* as configured, or the target; "": none was chosen. Longer ones are cut */
	char address[64];
	int number;                   /* -1: target */
	bool reused;                  /* connection was pooled */
};
/* Fills *used for the flow's attempt; call inside flow_opened or flow_open_failed (there without address). */
void cluster_used(struct clusters *clusters, struct endpoint_used *used);
/* Outcome of an opened attempt for passive health (ejection); ok: a response below 500 or an open tunnel.
 * What could not be opened is known already. */
void cluster_report(struct clusters *clusters, const char *cluster, int endpoint, bool ok);

/* The cluster's counters, for what the flow counts; made where there are none. */
struct stats_set *cluster_stats(struct clusters *clusters, const char *cluster);

/* For `flows`, `clusters list`: comma-separated JSON objects of pools. */
struct json;
void clusters_json(struct clusters *clusters, struct json *json);

#endif
