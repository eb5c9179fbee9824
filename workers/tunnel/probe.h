/* SPDX-License-Identifier: Apache-2.0 */
/* How `hermes-admin ping` and `traceroute` look along the ways of the overlay (RFC 9110 7.6.2).
 *
 * A probe is OPTIONS * with Max-Forwards and the field
 *     hermes-probe: method="CONNECT", protocol="connect-udp", scheme="https", authority="dev:6363", path="/..."
 * which is the head that is asked about (members that the head has not are left out). Each node decides for that head and the
 * other fields as for the real thing. One with Max-Forwards above 0 passes the probe on that way with one less, where the way
 * leads to another proxy; else it answers 200 itself, with
 *     hermes-hop: node="bob", domain="example.net", route="video", cluster="web", carry="h1", endpoint="10.1.0.5:80", end
 * or  hermes-hop: node="bob", status=404, error="destination_not_found", detail="...", end
 * end: it would lead to no further proxy. Only overlay listeners answer like that, and the node's own prober; elsewhere the
 * field is taken off (fields.c), and OPTIONS and TRACE with Max-Forwards get what RFC 9110 says. */
#ifndef HERMES_TUNNEL_PROBE_H
#define HERMES_TUNNEL_PROBE_H

#include "ipc/messages.h"
#include "workers/tunnel/flow.h"

#define PROBE_HEADER "hermes-probe"
#define HOP_HEADER "hermes-hop"

struct probe;
struct decision;

/* probe.c, for flow_begin.c. The user is known; before anybody is asked: a probe's flow asks about the head that it names. True:
 * it was answered. */
bool probe_begin(struct flow *flow);
/* flow->probe, and flow->decision is there (may be NULL): true: it was answered; else it goes on. */
bool probe_decided(struct flow *flow);
void probe_free(struct probe *probe);

/* probe.c, for the prober: the fields of a probe for `target`, put into a head that has all other fields; target is taken. */
void probe_write(struct head *head, unsigned max_forwards);

/* What a hop said of itself. */
struct hop {
	char node[256], domain[256], route[128], cluster[128], carry[8], endpoint[512], error[64], detail[256];
	unsigned status;
	bool end;
};
bool hop_read(const struct head *response, struct hop *hop);

/* probe_send.c, the prober. What is asked about; strings and headers ("name=value" or "name: value") live as long as the call. cluster: the
 * first step; NULL: by our own decision. hops: Max-Forwards. timeout: ms. */
#define PROBE_HEADERS_MAX 64u
struct probe_words {
	const char *user, *method, *listener, *cluster, *target;
	const char *headers[PROBE_HEADERS_MAX];
	unsigned n_headers, hops, timeout;
};
/* response: NULL: none came in time; lives as long as the call. round_trip: µs. */
typedef void probe_told(void *arg, const struct head *response, uint64_t round_trip);
/* One probe; told is called once, also before this returns. Or why not (static text): told is not called then. */
const char *probe_send(struct tunnel *tunnel, const struct probe_words *words, probe_told *told, void *arg);

/* probe_ask.c. The verb "probe" of the admin socket:
 *   [--user U] [--header N=V]... [--method M] [--listener L] [--cluster C] [--hops K] [--timeout MS] URL|HOST[:PORT]|PREFIX
 * one probe with Max-Forwards K from here, the way of the first step by our own decision or to cluster C. Answered by
 * worker_reply(), now or later. */
void probe_ask(struct tunnel *tunnel, const struct ipc_admin_request *request);
/* Where a prober may name the first step itself: a decision for the flow of this leg, the caller's reference, or NULL where it named
 * none or the leg is another's. probe_send() sets it; the flow's side knows nothing of who asks. */
extern struct decision *(*probe_named)(const struct leg *leg);

#endif
