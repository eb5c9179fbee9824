/* Counters, gauges and histograms in shared memory: written by one worker with plain relaxed stores, read by telemetry.
 *
 * A region is a memfd holding a header and a table of sets. A set belongs to a scope (worker, listener, cluster, route)
 * and bears a name; it has a slot for every metric declared for that scope. Sets are found or made by name, so that a new
 * configuration keeps the counters of what it keeps. */
#ifndef HERMES_IPC_STATS_H
#define HERMES_IPC_STATS_H

#include <stddef.h>
#include <stdint.h>

enum stats_scope { STATS_WORKER, STATS_LISTENER, STATS_CLUSTER, STATS_ROUTE, STATS_PROBE, STATS_SCOPE_COUNT };

/* S(SCOPE, ID, kind, family, labels, stability, help). kind: counter, gauge, histogram (of µs, exported in seconds).
 * family: OpenMetrics name without `hermes_` and without the `_total`, `_bucket` etc. that the format adds; base units.
 * labels: further labels, or "". The scope's own label (listener="...", cluster=, route=, probe=; worker="tunnel-0") is added. */
#define STATS_METRICS(S)                                                                                              \
	S(LISTENER, CONNECTIONS, counter, "listener_connections", "", stable, "Connections accepted")                 \
	S(LISTENER, CONNECTIONS_OPEN, gauge, "listener_open_connections", "", stable, "Connections open now")         \
	S(LISTENER, CONNECTIONS_REFUSED, counter, "listener_refused_connections", "", stable,                         \
	  "Connections closed at once because a limit was reached")                                                   \
	S(LISTENER, HANDSHAKE_FAILURES, counter, "listener_tls_handshake_failures", "", stable, "TLS handshakes failed") \
	S(LISTENER, FLOWS, counter, "listener_flows", "", stable, "Flows begun")                                      \
	S(LISTENER, FLOWS_OPEN, gauge, "listener_open_flows", "", stable, "Flows open now")                           \
	S(LISTENER, BYTES_IN, counter, "listener_received_bytes", "", stable, "Payload bytes from the client side")   \
	S(LISTENER, BYTES_OUT, counter, "listener_sent_bytes", "", stable, "Payload bytes to the client side")        \
	S(LISTENER, STATUS_1XX, counter, "listener_responses", "code=\"1xx\"", stable, "Responses by class")          \
	S(LISTENER, STATUS_2XX, counter, "listener_responses", "code=\"2xx\"", stable, "Responses by class")          \
	S(LISTENER, STATUS_3XX, counter, "listener_responses", "code=\"3xx\"", stable, "Responses by class")          \
	S(LISTENER, STATUS_4XX, counter, "listener_responses", "code=\"4xx\"", stable, "Responses by class")          \
	S(LISTENER, STATUS_5XX, counter, "listener_responses", "code=\"5xx\"", stable, "Responses by class")          \
	S(LISTENER, MALFORMED, counter, "listener_malformed_requests", "", stable, "Requests refused as malformed")   \
	S(LISTENER, ABUSE, counter, "listener_abusive_connections", "", stable, "Connections ended for abuse")        \
	S(LISTENER, DURATION, histogram, "listener_flow_duration_seconds", "", stable, "From a flow's first to its last byte") \
	S(CLUSTER, CONNECTIONS, counter, "cluster_connections", "", stable, "Connections opened")                     \
	S(CLUSTER, CONNECTIONS_OPEN, gauge, "cluster_open_connections", "", stable, "Connections open now")           \
	S(CLUSTER, FLOWS, counter, "cluster_flows", "", stable, "Flows sent")                                         \
	S(CLUSTER, FLOWS_OPEN, gauge, "cluster_open_flows", "", stable, "Flows open now")                             \
	S(CLUSTER, RETRIES, counter, "cluster_retries", "", stable, "Further attempts made")                          \
	S(CLUSTER, BYTES_IN, counter, "cluster_received_bytes", "", stable, "Payload bytes from the next hop")        \
	S(CLUSTER, BYTES_OUT, counter, "cluster_sent_bytes", "", stable, "Payload bytes to the next hop")             \
	S(CLUSTER, FAIL_CONNECT, counter, "cluster_failures", "reason=\"connect\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, FAIL_DNS, counter, "cluster_failures", "reason=\"dns\"", stable, "Attempts failed, by reason")     \
	S(CLUSTER, FAIL_TLS, counter, "cluster_failures", "reason=\"tls\"", stable, "Attempts failed, by reason")     \
	S(CLUSTER, FAIL_TIMEOUT, counter, "cluster_failures", "reason=\"timeout\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, FAIL_RESET, counter, "cluster_failures", "reason=\"reset\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, FAIL_PROTOCOL, counter, "cluster_failures", "reason=\"protocol\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, FAIL_NO_ENDPOINT, counter, "cluster_failures", "reason=\"no_endpoint\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, FAIL_TARGET_REFUSED, counter, "cluster_failures", "reason=\"target_refused\"", stable, "Attempts failed, by reason") \
	S(CLUSTER, EJECTIONS, counter, "cluster_ejections", "", stable, "Endpoints taken out after failures")         \
	S(CLUSTER, CONNECT_TIME, histogram, "cluster_connect_duration_seconds", "", stable, "Until a new connection was usable") \
	S(CLUSTER, FIRST_BYTE, histogram, "cluster_first_byte_duration_seconds", "", stable, "From request to first response byte") \
	S(ROUTE, FLOWS, counter, "route_flows", "", stable, "Flows that took the route")                              \
	S(ROUTE, BYTES_IN, counter, "route_received_bytes", "", stable, "Payload bytes from the next hop")            \
	S(ROUTE, BYTES_OUT, counter, "route_sent_bytes", "", stable, "Payload bytes to the next hop")                 \
	S(ROUTE, DURATION, histogram, "route_flow_duration_seconds", "", stable, "From a flow's first to its last byte") \
	S(WORKER, QUESTIONS, counter, "worker_questions", "", stable, "Decisions asked for, or answered")             \
	S(WORKER, CACHE_HITS, counter, "worker_decision_cache_hits", "", stable, "Decisions found in the cache")      \
	S(WORKER, DENIED, counter, "worker_denied_flows", "", stable, "Flows that a policy refused")                  \
	S(WORKER, QUESTIONS_LOST, counter, "worker_unanswered_questions", "", stable, "Questions that nobody answered in time") \
	S(WORKER, RECORDS_DROPPED, counter, "worker_dropped_records", "", stable, "Access records that telemetry did not take") \
	S(WORKER, BUFFERED, gauge, "worker_buffered_bytes", "", unstable, "Payload held in slabs now")                \
	S(WORKER, ASK_TIME, histogram, "worker_decision_duration_seconds", "", stable, "From question to decision")           \
	S(LISTENER, DROP_QUEUE_FULL, counter, "listener_dropped_datagrams", "reason=\"queue_full\"", stable, "UDP datagrams dropped, by reason") \
	S(LISTENER, DROP_TOO_OLD, counter, "listener_dropped_datagrams", "reason=\"too_old\"", stable, "UDP datagrams dropped, by reason") \
	S(LISTENER, DROP_NO_TUNNEL, counter, "listener_dropped_datagrams", "reason=\"no_tunnel\"", stable, "UDP datagrams dropped, by reason") \
	S(LISTENER, DROP_TABLE_FULL, counter, "listener_dropped_datagrams", "reason=\"table_full\"", stable, "UDP datagrams dropped, by reason") \
	S(LISTENER, DROP_TOO_LONG, counter, "listener_dropped_datagrams", "reason=\"too_long\"", stable, "UDP datagrams dropped, by reason") \
	S(LISTENER, DROP_SOCKET_FULL, counter, "listener_dropped_datagrams", "reason=\"socket_full\"", stable, "UDP datagrams dropped, by reason") \
	S(CLUSTER, DROP_QUEUE_FULL, counter, "cluster_dropped_datagrams", "reason=\"queue_full\"", stable, "UDP datagrams dropped, by reason") \
	S(CLUSTER, DROP_TOO_OLD, counter, "cluster_dropped_datagrams", "reason=\"too_old\"", stable, "UDP datagrams dropped, by reason") \
	S(CLUSTER, DROP_TOO_LONG, counter, "cluster_dropped_datagrams", "reason=\"too_long\"", stable, "UDP datagrams dropped, by reason") \
	S(CLUSTER, DROP_SOCKET_FULL, counter, "cluster_dropped_datagrams", "reason=\"socket_full\"", stable, "UDP datagrams dropped, by reason") \
	S(WORKER, DROP_SOURCE, counter, "worker_dropped_packets", "reason=\"source\"", stable, "IP packets dropped, by reason")    \
	S(WORKER, DROP_TTL, counter, "worker_dropped_packets", "reason=\"ttl\"", stable, "IP packets dropped, by reason")          \
	S(WORKER, DROP_MALFORMED, counter, "worker_dropped_packets", "reason=\"malformed\"", stable, "IP packets dropped, by reason") \
	S(WORKER, DROP_POLICY, counter, "worker_dropped_packets", "reason=\"policy\"", stable, "IP packets dropped, by reason")    \
	S(WORKER, DROP_NO_ROUTE, counter, "worker_dropped_packets", "reason=\"no_route\"", stable, "IP packets dropped, by reason") \
	S(WORKER, DROP_QUEUE_FULL, counter, "worker_dropped_packets", "reason=\"queue_full\"", stable, "IP packets dropped, by reason") \
	S(WORKER, DROP_TOO_OLD, counter, "worker_dropped_packets", "reason=\"too_old\"", stable, "IP packets dropped, by reason")  \
	S(WORKER, DROP_TOO_LONG, counter, "worker_dropped_packets", "reason=\"too_long\"", stable, "IP packets dropped, by reason")  \
	S(WORKER, TUNNELS_RESUMED, counter, "worker_resumed_tunnels", "", stable, "UDP and IP tunnels that went on over another connection") \
	S(WORKER, TUNNELS_MOVED, counter, "worker_moved_tunnels", "", stable, "UDP and IP tunnels that a change led elsewhere")   \
	S(WORKER, TUNNELS_LOST, counter, "worker_lost_tunnels", "", stable, "UDP and IP tunnels given up after their connection was lost") \
	S(WORKER, HANDED_OVER, counter, "worker_handed_over_flows", "", stable, "Flows that went over to the worker's successor")  \
	S(WORKER, TAKEN_OVER, counter, "worker_taken_over_flows", "", stable, "Flows that came from the worker's predecessor") \
	S(PROBE, SENT, counter, "probe_sent", "", stable, "Probes sent along a configured way")                       \
	S(PROBE, LOST, counter, "probe_lost", "", stable, "Probes that no node answered in time, or that led nowhere") \
	S(PROBE, RTT, histogram, "probe_rtt_seconds", "", stable, "Round trips of the probes that were answered")

enum stats_metric {
#define S(SCOPE, ID, kind, family, labels, stability, help) STATS_##SCOPE##_##ID,
	STATS_METRICS(S)
#undef S
	STATS_METRIC_COUNT
};
enum stats_kind { STATS_counter, STATS_gauge, STATS_histogram };
enum stats_stability { STATS_stable, STATS_unstable };

struct stats_description {
	enum stats_scope scope;
	enum stats_kind kind;
	enum stats_stability stability;
	const char *family, *labels, *help;
};
/* The table row of a metric (static). */
const struct stats_description *stats_describe(enum stats_metric metric);

/* Histogram buckets: upper bounds in µs, the same for all; the last is unbounded. */
#define STATS_BUCKETS 22
extern const uint64_t stats_bounds[STATS_BUCKETS - 1];

struct stats_histogram {
	uint64_t buckets[STATS_BUCKETS];  /* not cumulative */
	uint64_t sum;                     /* µs */
};

/* The writer's side. */
struct stats;
struct stats_set;
/* Makes the memfd; sets: how many there is room for (further ones share one set named "other"). NULL on failure. */
struct stats *stats_new(unsigned sets);
void stats_free(struct stats *stats);
int stats_fd(const struct stats *stats);     /* for STATS_REGION; stays ours */
/* Found or made; lives as long as stats. name is cut at 63 bytes. */
struct stats_set *stats_set(struct stats *stats, enum stats_scope scope, const char *name);
void stats_add(struct stats_set *set, enum stats_metric metric, int64_t n);
void stats_observe(struct stats_set *set, enum stats_metric metric, uint64_t microseconds);

/* The reader's side: maps a received region after checking its header; NULL when it does not fit. Does not close fd. */
struct stats_view;
struct stats_view *stats_view_new(int fd);
void stats_view_free(struct stats_view *view);
/* The i-th set's name and scope, or NULL past the end. */
const char *stats_view_set(const struct stats_view *view, unsigned i, enum stats_scope *scope);
uint64_t stats_view_value(const struct stats_view *view, unsigned i, enum stats_metric metric);
void stats_view_histogram(const struct stats_view *view, unsigned i, enum stats_metric metric,
                          struct stats_histogram *out);

#endif
