/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "workers/tunnel/datagram_queue.h"

#define SECOND 1000000u

static struct stats *stats;

static uint64_t dropped(enum stats_metric metric)
{
	struct stats_view *view = stats_view_new(stats_fd(stats));
	enum stats_scope scope;
	uint64_t value = 0;
	for (unsigned i = 0; stats_view_set(view, i, &scope); i++)
		if (scope == stats_describe(metric)->scope)
			value += stats_view_value(view, i, metric);
	stats_view_free(view);
	return value;
}

static int set_up(void **state)
{
	struct datagram_queue *queue = calloc(1, sizeof(*queue));
	stats = stats_new(8);
	datagram_queue_init(queue, 64 * 1024, SECOND, stats_set(stats, STATS_LISTENER, "l"));
	*state = queue;
	return 0;
}

static int tear_down(void **state)
{
	datagram_queue_clear(*state);
	stats_free(stats);
	free(*state);
	return 0;
}

static void first_in_is_first_out(void **state)
{
	struct datagram_queue *queue = *state;
	datagram_queue_add(queue, 0, NULL, 0, "one", 3);
	datagram_queue_add(queue, 2, "hh", 2, "a1b2c", 5);
	datagram_queue_add(queue, 0, NULL, 0, NULL, 0);
	const struct datagram_entry *entry = datagram_queue_first(queue);
	assert_int_equal(entry->length, 3);
	assert_memory_equal(entry->data, "one", 3);
	datagram_queue_pop(queue);
	entry = datagram_queue_first(queue);
	assert_int_equal(entry->segment, 2);
	assert_int_equal(entry->prefix_length, 2);
	assert_memory_equal(entry->data, "hha1b2c", 7);
	datagram_queue_pop(queue);
	assert_int_equal(datagram_queue_first(queue)->length, 0);
	datagram_queue_pop(queue);
	assert_null(datagram_queue_first(queue));
	assert_int_equal(queue->bytes, 0);
	assert_int_equal(dropped(STATS_LISTENER_DROP_QUEUE_FULL) + dropped(STATS_LISTENER_DROP_TOO_OLD), 0);
}

static void a_full_queue_loses_the_oldest(void **state)
{
	struct datagram_queue *queue = *state;
	static uint8_t data[1000];
	for (unsigned i = 0; i < 100; i++) {
		data[0] = (uint8_t)i;
		datagram_queue_add(queue, i == 0 ? 100 : 0, NULL, 0, data, sizeof(data));   /* the first: ten datagrams */
		assert_true(queue->bytes <= queue->limit);
	}
	unsigned left = 0;
	uint8_t first = datagram_queue_first(queue)->data[0];
	for (const struct datagram_entry *e; (e = datagram_queue_first(queue)); datagram_queue_pop(queue))
		assert_int_equal(e->data[0], first + left++);
	assert_int_equal(first + left, 100);
	assert_in_range(left, 55, 65);
	assert_int_equal(dropped(STATS_LISTENER_DROP_QUEUE_FULL), 100 - left + 9);
}

static void what_never_fits_is_dropped_and_counted(void **state)
{
	struct datagram_queue *queue = *state;
	static uint8_t data[200 * 1024];
	datagram_queue_add(queue, 0, NULL, 0, data, 64 * 1024);
	assert_null(datagram_queue_first(queue));
	queue->limit = 1 << 20;
	datagram_queue_add(queue, 0, NULL, 0, data, sizeof(data));   /* no datagram is so long */
	assert_null(datagram_queue_first(queue));
	assert_int_equal(dropped(STATS_LISTENER_DROP_QUEUE_FULL), 2);
}

static void what_waited_too_long_is_dropped_as_old(void **state)
{
	struct datagram_queue *queue = *state;
	queue->old = STATS_LISTENER_DROP_NO_TUNNEL;
	datagram_queue_add(queue, 1, NULL, 0, "abc", 3);
	usleep(10);
	queue->age = 0;
	assert_null(datagram_queue_first(queue));
	queue->age = SECOND;
	datagram_queue_add(queue, 0, NULL, 0, "new", 3);
	assert_memory_equal(datagram_queue_first(queue)->data, "new", 3);
	assert_int_equal(dropped(STATS_LISTENER_DROP_NO_TUNNEL), 3);
	assert_int_equal(dropped(STATS_LISTENER_DROP_TOO_OLD), 0);
}

static void entries_are_used_again(void **state)
{
	struct datagram_queue *queue = *state;
	const void *seen = NULL;
	for (unsigned i = 0; i < 10; i++) {
		datagram_queue_add(queue, 0, NULL, 0, "payload", 7);
		const void *now = datagram_queue_first(queue);
		assert_true(i == 0 || now == seen);
		seen = now;
		datagram_queue_pop(queue);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_in_is_first_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_full_queue_loses_the_oldest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_never_fits_is_dropped_and_counted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_waited_too_long_is_dropped_as_old, set_up, tear_down),
		cmocka_unit_test_setup_teardown(entries_are_used_again, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
