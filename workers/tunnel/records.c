#include "workers/tunnel/records.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#define BATCH (48u * 1024)
#define RECORD_MAX (8u * 1024)
#define FLUSH_US 100000
#define BACKLOG_MAX (4u << 20)

struct records {
	struct tunnel *tunnel;
	struct event *timer;
	uint32_t count;
	size_t length;
	uint8_t batch[BATCH];
};

void records_flush(struct records *r)
{
	if (r->count == 0)
		return;
	struct ipc_flow_records message = {.count = r->count, .records = {r->batch, r->length}};
	struct ipc_channel *telemetry = r->tunnel->telemetry;
	if (!telemetry || ipc_backlog(telemetry) > BACKLOG_MAX ||
	    ipc_send(telemetry, IPC_MSG_FLOW_RECORDS, &message, -1) < 0)
		stats_add(r->tunnel->self, STATS_WORKER_RECORDS_DROPPED, r->count);
	r->count = 0;
	r->length = 0;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	records_flush(arg);
}

void records_add(struct records *r, const struct ipc_flow_record *record)
{
	if (r->length + sizeof(uint32_t) + RECORD_MAX > BATCH)
		records_flush(r);
	int n = ipc_encode(IPC_MSG_FLOW_RECORD, record, r->batch + r->length + sizeof(uint32_t), RECORD_MAX);
	if (n < 0) {
		stats_add(r->tunnel->self, STATS_WORKER_RECORDS_DROPPED, 1);
		return;
	}
	uint32_t length = (uint32_t)n;
	memcpy(r->batch + r->length, &length, sizeof(length));
	r->length += sizeof(length) + length;
	if (r->count++ == 0) {
		struct timeval delay = {.tv_usec = FLUSH_US};
		event_add(r->timer, &delay);
	}
}

struct records *records_new(struct tunnel *tunnel)
{
	struct records *r = calloc(1, sizeof(*r));
	if (!r || !(r->timer = evtimer_new(tunnel->base, on_timer, r)))
		abort();
	r->tunnel = tunnel;
	return r;
}
