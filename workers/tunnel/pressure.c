#include "workers/tunnel/pressure.h"

#include <stdlib.h>

#include "ipc/log.h"
#include "workers/tunnel/flow_resume.h"

#define STALLED_US 2000000u
#define QUIET_US 10000000u    /* between two complaints when nobody could be ended */
#define VICTIMS_MAX 4096u     /* at a time */

static size_t waiting(const struct leg *leg)
{
	return leg && leg->ops->waiting ? leg->ops->waiting(leg) : 0;
}

/* Bytes that wait in the flow or in its legs for a peer that does not take them. */
static size_t holds(const struct flow *flow)
{
	size_t kept = flow->going ? flow->going->kept.bytes : 0;
	return flow->up.held.bytes + flow->down.held.bytes + flow->replay.bytes + kept + waiting(flow->in) + waiting(flow->out);
}

static bool stalled(const struct flow *flow, uint64_t now)
{
	return flow->state != FLOW_STATE_ENDED && now - flow->last > STALLED_US && now > flow->last;
}

static void end(struct flow *flow)
{
	flow->replayable = false;
	flow_fail(flow, FLOW_INTERNAL, "memory is short, and nothing was taken for 2 s");
}

/* Ends stalled flows that hold more than `least`, until `wanted` bytes are free; returns how many. */
static unsigned end_some(struct tunnel *tunnel, size_t least, uint64_t wanted)
{
	static struct flow *victims[VICTIMS_MAX];
	uint64_t now = now_us(), freed = 0;
	unsigned n = 0;
	for (struct flow *f = tunnel->flows; f && n < VICTIMS_MAX && freed < wanted; f = f->next)
		if (holds(f) > least && stalled(f, now)) {
			freed += holds(f);
			flow_enter(f);      /* the end of one may free others */
			victims[n++] = f;
		}
	for (unsigned i = 0; i < n; i++) {
		if (victims[i]->state != FLOW_STATE_ENDED)
			end(victims[i]);
		flow_leave(victims[i]);
	}
	return n;
}

unsigned pressure_relieve(struct tunnel *tunnel, uint64_t budget)
{
	static const size_t steps[] = {128 * 1024, 32 * 1024, 8 * 1024, 0};
	uint64_t before = slab_in_use(), enough = budget - budget / 4;
	static uint64_t said;
	unsigned ended = 0;
	if (before <= budget - budget / 8)
		return 0;
	for (unsigned i = 0; i < sizeof(steps) / sizeof(*steps) && slab_in_use() > enough; i++)
		ended += end_some(tunnel, steps[i], slab_in_use() - enough);
	if (!ended && now_us() - said < QUIET_US)
		return 0;
	said = now_us();
	log_warn("memory is short", "buffered=%llu budget=%llu ended_flows=%u", (unsigned long long)before,
	         (unsigned long long)budget, ended);
	return ended;
}
