/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/probes.h"

#include <stdlib.h>

void probes_window_add(struct probes_window *w, uint64_t sent, uint32_t rtt, bool lost)
{
	w->samples[w->next].sent = sent;
	w->samples[w->next].rtt = rtt;
	w->samples[w->next].lost = lost;
	w->next = (w->next + 1) % PROBES_SAMPLES;
	if (w->n < PROBES_SAMPLES)
		w->n++;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

struct probes_summary probes_window_sum(const struct probes_window *w, uint64_t since)
{
	struct probes_summary sum = {0};
	uint32_t rtt[PROBES_SAMPLES];
	unsigned answered = 0;
	for (unsigned i = 0; i < w->n; i++) {
		if (w->samples[i].sent < since)
			continue;
		sum.sent++;
		if (w->samples[i].lost)
			sum.lost++;
		else
			rtt[answered++] = w->samples[i].rtt;
	}
	if (!answered)
		return sum;
	qsort(rtt, answered, sizeof(*rtt), by_size);
	sum.rtt = rtt[(answered - 1) / 2];
	sum.rtt_max = rtt[answered - 1];
	return sum;
}
