/* Fake workers at the other ends of telemetry's channels. */
#include "ipc/channel.h"
#include "store/config.h"
#include "workers/telemetry/peers.h"

#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct worker {               /* a fake one */
	struct ipc_channel *channel;
	bool ended;
};

struct fixture {
	struct event_base *base;
	struct regions *regions;
	struct access_log *log;
	struct peers *peers;
	bool drained;
};

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)channel, (void)type, (void)m, (void)fd, (void)arg;
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct worker *worker = arg;
	(void)reason;
	ipc_channel_free(channel);
	worker->channel = NULL;
	worker->ended = true;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	f->base = event_base_new();
	f->regions = regions_new();
	f->log = access_log_new(f->base, -1);
	f->peers = peers_new(f->base, 0, f->regions, f->log);
	*state = f;
	return f->peers ? 0 : -1;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	peers_free(f->peers);
	access_log_free(f->log);
	regions_free(f->regions);
	event_base_free(f->base);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	for (int i = 0; i < 10; i++)
		event_base_loop(f->base, EVLOOP_NONBLOCK);
}

static void join_as(struct fixture *f, struct worker *worker, enum ipc_role role, unsigned index)
{
	int fds[2];
	assert_int_equal(ipc_pair(fds), 0);
	*worker = (struct worker){.ended = false};
	worker->channel = ipc_channel_new(f->base, fds[0], role, index, IPC_TELEMETRY, on_message, on_ended, worker);
	peers_add(f->peers, role, index, fds[1]);
	turn(f);
	assert_false(worker->ended);
}

static void leave(struct fixture *f, struct worker *worker)
{
	ipc_channel_free(worker->channel);
	worker->channel = NULL;
	turn(f);
}

static void send_region(struct fixture *f, struct worker *worker, unsigned index, int fd)
{
	struct ipc_stats_region region = {.role = IPC_TUNNEL, .index = index};
	assert_int_equal(ipc_send(worker->channel, IPC_MSG_STATS_REGION, &region, fd), 0);
	turn(f);
}

struct batch { uint8_t data[8192]; size_t length; uint32_t count; };

static void batch_add(struct batch *batch, enum ipc_type type, const void *message)
{
	int n = ipc_encode(type, message, batch->data + batch->length + 4, sizeof(batch->data) - batch->length - 4);
	assert_true(n > 0);
	memcpy(batch->data + batch->length, &(uint32_t){(uint32_t)n}, 4);
	batch->length += 4 + (size_t)n;
	batch->count++;
}

static void send_batch(struct fixture *f, struct worker *worker, const struct batch *batch)
{
	struct ipc_flow_records message = {.count = batch->count, .records = {batch->data, batch->length}};
	assert_int_equal(ipc_send(worker->channel, IPC_MSG_FLOW_RECORDS, &message, -1), 0);
	turn(f);
}

static const struct ipc_flow_record record = {.event = "end", .id = 7, .user = "alice"};

static uint64_t flows(struct fixture *f)
{
	struct totals *totals = regions_snapshot(f->regions);
	const struct series **list;
	uint64_t value = totals_list(totals, STATS_LISTENER, &list) > 0 ? series_value(list[0], STATS_LISTENER_FLOWS) : 0;
	free(list);
	totals_free(totals);
	return value;
}

static void records_are_taken(void **state)
{
	struct fixture *f = *state;
	struct worker worker;
	struct batch batch = {.length = 0};
	char path[] = "/tmp/hermes-peers-XXXXXX", text[4096] = "", error[128];
	struct config_log log = {.to = path};
	struct config config = {.telemetry = {.access_log = &log, .n_access_log = 1}};
	int fd = mkstemp(path), lines = 0;
	access_log_file(f->log, 1, path, fd, NULL);
	assert_int_equal(access_log_prepare(f->log, 1, &config, error, sizeof(error)), 0);
	access_log_commit(f->log, 1);
	join_as(f, &worker, IPC_TUNNEL, 0);
	for (int i = 0; i < 5; i++)
		batch_add(&batch, IPC_MSG_FLOW_RECORD, &record);
	send_batch(f, &worker, &batch);
	send_batch(f, &worker, &(struct batch){.length = 0});
	assert_int_equal(ipc_send(worker.channel, IPC_MSG_FLOW_RECORD, &record, -1), 0);
	turn(f);
	assert_false(worker.ended);
	assert_int_equal(peers_records(f->peers), 6);
	access_log_last(f->log);
	fd = open(path, O_RDONLY);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	for (char *s = text; (s = strstr(s, "user=alice")); s++)
		lines++;
	assert_int_equal(lines, 6);
	close(fd);
	unlink(path);
	leave(f, &worker);
}

static void liars_are_cut_off(void **state)
{
	struct fixture *f = *state;
	struct batch whole = {.length = 0}, bad[6];
	batch_add(&whole, IPC_MSG_FLOW_RECORD, &record);
	for (size_t i = 0; i < 6; i++)
		bad[i] = whole;
	bad[0].length--;                                     /* the record is cut short */
	bad[1].length += 3;                                  /* a length is cut short */
	bad[2].count = 2;
	bad[3].data[4] = 0xc1;                               /* no msgpack */
	batch_add(&bad[4], IPC_MSG_PING, &(struct ipc_ping){.sequence = 1});
	memset(bad[5].data, 0xff, 4);                        /* a length of 4 GiB */
	for (size_t i = 0; i < 6; i++) {
		struct worker worker, other;
		join_as(f, &worker, IPC_TUNNEL, 0);
		join_as(f, &other, IPC_TUNNEL, 1);
		send_batch(f, &worker, &bad[i]);
		if (!worker.ended)
			fail_msg("case %zu", i);
		assert_false(other.ended);
		leave(f, &other);
	}
}

static void regions_must_be_true(void **state)
{
	struct fixture *f = *state;
	struct worker worker;
	struct stats *stats = stats_new(4);
	join_as(f, &worker, IPC_TUNNEL, 0);
	send_region(f, &worker, 1, stats_fd(stats));         /* another's number */
	assert_true(worker.ended);
	join_as(f, &worker, IPC_TUNNEL, 0);
	int fd = open("/dev/null", O_RDONLY);
	send_region(f, &worker, 0, fd);
	assert_true(worker.ended);
	close(fd);
	stats_free(stats);
}

/* Its last records, sent before it died, arrive although the successor is there already; nothing counts backwards. */
static void successor_comes_before_the_end(void **state)
{
	struct fixture *f = *state;
	struct worker old, new;
	struct stats *before = stats_new(4), *after = stats_new(4);
	join_as(f, &old, IPC_TUNNEL, 0);
	stats_add(stats_set(before, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS, 5);
	send_region(f, &old, 0, stats_fd(before));
	join_as(f, &new, IPC_TUNNEL, 0);
	send_region(f, &new, 0, stats_fd(after));
	stats_add(stats_set(before, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS, 1);
	stats_add(stats_set(after, STATS_LISTENER, "apps"), STATS_LISTENER_FLOWS, 2);
	assert_int_equal(flows(f), 8);
	assert_int_equal(ipc_send(old.channel, IPC_MSG_FLOW_RECORD, &record, -1), 0);
	leave(f, &old);
	assert_int_equal(peers_records(f->peers), 1);
	assert_int_equal(flows(f), 8);
	assert_false(new.ended);
	leave(f, &new);
	assert_int_equal(flows(f), 8);
	stats_free(before);
	stats_free(after);
}

static void many_predecessors_are_not_kept(void **state)
{
	struct fixture *f = *state;
	struct worker lives[8];
	unsigned ended = 0;
	for (unsigned i = 0; i < 8; i++)
		join_as(f, &lives[i], IPC_TUNNEL, 0);
	for (unsigned i = 0; i < 8; i++)
		ended += lives[i].ended;
	assert_int_equal(ended, 4);
	assert_false(lives[7].ended);
	for (unsigned i = 4; i < 8; i++)
		leave(f, &lives[i]);
}

static void on_drained(void *arg)
{
	*(bool *)arg = true;
}

static void drained_when_tunnels_are_gone(void **state)
{
	struct fixture *f = *state;
	struct worker tunnel, router;
	join_as(f, &tunnel, IPC_TUNNEL, 0);
	join_as(f, &router, IPC_ROUTER, 0);
	peers_on_drained(f->peers, on_drained, &f->drained);
	assert_false(f->drained);
	leave(f, &tunnel);
	assert_true(f->drained);
	leave(f, &router);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(records_are_taken), T(liars_are_cut_off), T(regions_must_be_true), T(successor_comes_before_the_end),
		T(many_predecessors_are_not_kept), T(drained_when_tunnels_are_gone),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
