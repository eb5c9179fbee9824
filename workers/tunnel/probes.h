/* SPDX-License-Identifier: Apache-2.0 */
/* The ways that `probes:` names, measured all the time by tunnel worker 0: one probe (probe.h) every interval, over pooled connections as
 * ordinary requests take them. What is told is of the last 10 s (two intervals, where that is longer). */
#ifndef HERMES_TUNNEL_PROBES_H
#define HERMES_TUNNEL_PROBES_H

#include "workers/tunnel/tunnel.h"

struct json;
struct probes;

struct probes *probes_new(struct tunnel *tunnel);
void probes_free(struct probes *probes);
/* tunnel->current is in force. Probes that stay as they were keep what they have measured. */
void probes_commit(struct probes *probes);
/* Measures no more: another worker does. */
void probes_stop(struct probes *probes);
/* One object per probe, comma-separated: name, cluster, target, method, sent, lost, rtt_us (p50; 0: no answer), rtt_max_us, age_ms (since
 * the last answer, or since it began), error (of the last that was lost, where no later one was answered). */
void probes_json(const struct probes *probes, struct json *json);

/* probes_window.c: the samples of one probe. */
#define PROBES_SAMPLES 128u       /* at the shortest interval 10 s hold 100 */
struct probes_window {
	struct { uint64_t sent; uint32_t rtt; bool lost; } samples[PROBES_SAMPLES];   /* µs */
	unsigned n, next;
};
struct probes_summary { unsigned sent, lost; uint32_t rtt, rtt_max; };
void probes_window_add(struct probes_window *window, uint64_t sent, uint32_t rtt, bool lost);
/* Of those sent since then. */
struct probes_summary probes_window_sum(const struct probes_window *window, uint64_t since);

#endif
