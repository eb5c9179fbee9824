#include "workers/telemetry/peers.h"
#include "ipc/channel.h"
#include "ipc/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define SAME_WORKER_MAX 4u    /* channels of one worker and its predecessors */

struct peer {
	TAILQ_ENTRY(peer) link;
	struct peers *peers;
	enum ipc_role role;
	unsigned index;
	struct ipc_channel *channel;
	struct region *region;    /* NULL until it came */
};

struct peers {
	struct event_base *base;
	unsigned self_index;
	struct regions *regions;
	struct access_log *log;
	struct ipc_arena *arena;  /* of a record inside a batch */
	union ipc_any record;
	char reason[128];         /* why a batch does not fit */
	uint64_t records;
	TAILQ_HEAD(, peer) list;
	void (*drained)(void *arg);
	void *drained_arg;
};

struct peers *peers_new(struct event_base *base, unsigned self_index, struct regions *regions, struct access_log *log)
{
	struct peers *peers = calloc(1, sizeof(*peers));
	if (!peers)
		return NULL;
	peers->base = base;
	peers->self_index = self_index;
	peers->regions = regions;
	peers->log = log;
	TAILQ_INIT(&peers->list);
	peers->arena = ipc_arena_new();
	if (peers->arena)
		return peers;
	free(peers);
	return NULL;
}

static void tell_if_drained(struct peers *peers)
{
	struct peer *peer;
	TAILQ_FOREACH(peer, &peers->list, link)
		if (peer->role == IPC_TUNNEL)
			return;
	void (*drained)(void *arg) = peers->drained;
	peers->drained = NULL;
	if (drained)
		drained(peers->drained_arg);
}

static void peer_free(struct peer *peer)
{
	TAILQ_REMOVE(&peer->peers->list, peer, link);
	ipc_channel_free(peer->channel);
	regions_remove(peer->peers->regions, peer->region);
	free(peer);
}

void peers_free(struct peers *peers)
{
	if (!peers)
		return;
	while (!TAILQ_EMPTY(&peers->list))
		peer_free(TAILQ_FIRST(&peers->list));
	ipc_arena_free(peers->arena);
	free(peers);
}

static void lose(struct peer *peer, const char *reason)
{
	struct peers *peers = peer->peers;
	if (!strcmp(reason, "closed"))
		log_debug("worker gone", "role=%s index=%u", ipc_role_name(peer->role), peer->index);
	else
		log_error("channel ended", "role=%s index=%u reason=%s", ipc_role_name(peer->role), peer->index, log_value(reason));
	peer_free(peer);
	tell_if_drained(peers);
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	(void)channel;
	lose(arg, reason);
}

/* NULL, or why the batch does not fit. */
static const char *take_records(struct peers *peers, const struct ipc_flow_records *batch)
{
	const uint8_t *at = batch->records.data;
	size_t left = batch->records.length;
	uint32_t n = 0, length;
	const char *why = "";
	for (; left; n++, at += length, left -= length) {
		if (left < sizeof(length))
			return "flow_records: a length is cut short";
		memcpy(&length, at, sizeof(length));
		at += sizeof(length);
		left -= sizeof(length);
		if (length > left)
			return "flow_records: a record is cut short";
		int type = ipc_decode(at, length, peers->arena, &peers->record, &why);
		if (type < 0) {
			snprintf(peers->reason, sizeof(peers->reason), "flow_records: in a record: %s", why);
			return peers->reason;
		}
		if (type != IPC_MSG_FLOW_RECORD)
			return "flow_records: another message inside";
		peers->records++;
		access_log_record(peers->log, &peers->record.flow_record);
	}
	return n == batch->count ? NULL : "flow_records: count does not fit";
}

static const char *take_region(struct peer *peer, const struct ipc_stats_region *region, int *fd)
{
	if (region->role != (uint32_t)peer->role || region->index != peer->index)
		return "stats_region: of another worker";
	int taken = *fd;
	*fd = -1;
	struct region *new = regions_add(peer->peers->regions, peer->role, peer->index, taken);
	if (!new)
		return "stats_region: not a region of counters";
	regions_remove(peer->peers->regions, peer->region);
	peer->region = new;
	return NULL;
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	struct peer *peer = arg;
	const char *why = NULL;
	(void)channel;
	if (type == IPC_MSG_STATS_REGION)
		why = take_region(peer, &message->stats_region, fd);
	else if (type == IPC_MSG_FLOW_RECORDS)
		why = take_records(peer->peers, &message->flow_records);
	else if (type == IPC_MSG_FLOW_RECORD) {
		peer->peers->records++;
		access_log_record(peer->peers->log, &message->flow_record);
	} else
		why = "unexpected message";
	if (why)
		lose(peer, why);
}

/* A worker that is replaced again and again must not leave its channels behind. */
static void bound_predecessors(struct peers *peers, enum ipc_role role, unsigned index)
{
	struct peer *peer, *oldest = NULL;
	unsigned n = 0;
	TAILQ_FOREACH(peer, &peers->list, link)
		if (peer->role == role && peer->index == index) {
			oldest = oldest ? oldest : peer;
			n++;
		}
	if (n >= SAME_WORKER_MAX)
		peer_free(oldest);
}

void peers_add(struct peers *peers, enum ipc_role role, unsigned index, int fd)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	bound_predecessors(peers, role, index);
	if (!peer) {
		close(fd);
		return;
	}
	*peer = (struct peer){.peers = peers, .role = role, .index = index};
	peer->channel = ipc_channel_new(peers->base, fd, IPC_TELEMETRY, peers->self_index, role, on_message, on_ended, peer);
	if (!peer->channel) {
		log_error("channel not made", "role=%s index=%u", ipc_role_name(role), index);
		free(peer);
		return;
	}
	TAILQ_INSERT_TAIL(&peers->list, peer, link);
}

uint64_t peers_records(const struct peers *peers)
{
	return peers->records;
}

void peers_on_drained(struct peers *peers, void (*drained)(void *arg), void *arg)
{
	peers->drained = drained;
	peers->drained_arg = arg;
	tell_if_drained(peers);
}
