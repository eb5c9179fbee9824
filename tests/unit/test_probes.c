/* SPDX-License-Identifier: Apache-2.0 */
/* What a probe's samples come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "workers/tunnel/probes.h"

static void nothing_comes_to_nothing(void **state)
{
	struct probes_window w = {0};
	struct probes_summary s = probes_window_sum(&w, 0);

	(void)state;
	assert_true(!s.sent && !s.lost && !s.rtt && !s.rtt_max);
	probes_window_add(&w, 5, 0, true);
	s = probes_window_sum(&w, 0);
	assert_true(s.sent == 1 && s.lost == 1 && !s.rtt && !s.rtt_max);
}

static void median_and_longest(void **state)
{
	static const uint32_t rtt[] = {50, 10, 40, 30, 20};
	struct probes_window w = {0};

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		probes_window_add(&w, 100 + i, rtt[i], false);
	probes_window_add(&w, 105, 0, true);
	struct probes_summary s = probes_window_sum(&w, 0);
	assert_true(s.sent == 6 && s.lost == 1 && s.rtt == 30 && s.rtt_max == 50);
	s = probes_window_sum(&w, 102);              /* 40, 30, 20, lost */
	assert_true(s.sent == 4 && s.lost == 1 && s.rtt == 30 && s.rtt_max == 40);
	s = probes_window_sum(&w, 104);
	assert_true(s.sent == 2 && s.rtt == 20);
	s = probes_window_sum(&w, 106);
	assert_true(!s.sent && !s.rtt);
}

static void old_ones_make_room(void **state)
{
	struct probes_window w = {0};

	(void)state;
	for (unsigned i = 0; i < 3 * PROBES_SAMPLES; i++)
		probes_window_add(&w, i, i, i % 2);
	struct probes_summary s = probes_window_sum(&w, 0);
	assert_true(s.sent == PROBES_SAMPLES && s.lost == PROBES_SAMPLES / 2 && s.rtt_max == 3 * PROBES_SAMPLES - 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_comes_to_nothing), cmocka_unit_test(median_and_longest), cmocka_unit_test(old_ones_make_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
