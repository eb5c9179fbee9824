#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/balance.h"

#define N 3

struct fixture { struct balance_candidate c[N]; int64_t turns[N]; };

static struct fixture *make(struct fixture *f, uint32_t a, uint32_t b, uint32_t c)
{
	static const char *const names[N] = {"192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"};
	uint32_t weights[N] = {a, b, c};
	memset(f, 0, sizeof(*f));
	for (unsigned i = 0; i < N; i++)
		f->c[i] = (struct balance_candidate){.weight = weights[i], .hash = balance_hash(names[i]), .turn = &f->turns[i]};
	return f;
}

static void test_round_robin(void **state)
{
	struct fixture f;
	unsigned counts[N] = {0};
	char order[7] = "";
	(void)state;
	make(&f, 3, 2, 1);
	for (unsigned i = 0; i < 6; i++)
		order[i] = (char)('a' + balance_pick(CONFIG_ROUND_ROBIN, f.c, N, 0));
	assert_string_equal(order, "abacba");        /* smooth: no endpoint gets its share in one burst */
	for (unsigned i = 0; i < 600; i++)
		counts[balance_pick(CONFIG_ROUND_ROBIN, f.c, N, 0)]++;
	assert_int_equal(counts[0], 300);
	assert_int_equal(counts[1], 200);
	assert_int_equal(counts[2], 100);
}

static void test_least_request(void **state)
{
	struct fixture f;
	unsigned counts[N] = {0};
	(void)state;
	make(&f, 1, 1, 1);
	f.c[0].load = 5, f.c[1].load = 4, f.c[2].load = 6;
	assert_int_equal(balance_pick(CONFIG_LEAST_REQUEST, f.c, N, 0), 1);
	f.c[2].weight = 10;                          /* 7/10 is less than 5/1 */
	assert_int_equal(balance_pick(CONFIG_LEAST_REQUEST, f.c, N, 0), 2);
	make(&f, 2, 1, 1);
	for (unsigned i = 0; i < 400; i++) {
		unsigned chosen = balance_pick(CONFIG_LEAST_REQUEST, f.c, N, 0);
		f.c[chosen].load++;
		counts[chosen]++;
	}
	assert_in_range(counts[0], 198, 202);
	assert_in_range(counts[1], 98, 102);
	/* Idle endpoints of equal weight share. */
	make(&f, 1, 1, 1);
	memset(counts, 0, sizeof(counts));
	for (unsigned i = 0; i < 300; i++)
		counts[balance_pick(CONFIG_LEAST_REQUEST, f.c, N, 0)]++;
	assert_int_equal(counts[0], 100);
	assert_int_equal(counts[2], 100);
}

static void test_hash(void **state)
{
	struct fixture f;
	unsigned counts[N] = {0}, moved = 0;
	(void)state;
	make(&f, 1, 1, 2);
	for (unsigned i = 0; i < 4000; i++) {
		char key[16];
		snprintf(key, sizeof(key), "user-%u", i);
		uint64_t hash = balance_hash(key);
		unsigned chosen = balance_pick(CONFIG_HASH, f.c, N, hash);
		assert_int_equal(balance_pick(CONFIG_HASH, f.c, N, hash), chosen);
		counts[chosen]++;
		/* Without the last endpoint only its own keys go elsewhere. */
		unsigned without = balance_pick(CONFIG_HASH, f.c, N - 1, hash);
		if (chosen != N - 1)
			assert_int_equal(without, chosen);
		else
			moved++;
	}
	assert_int_equal(moved, counts[2]);
	assert_in_range(counts[0], 850, 1150);
	assert_in_range(counts[1], 850, 1150);
	assert_in_range(counts[2], 1850, 2150);
}

static void test_one(void **state)
{
	struct fixture f;
	(void)state;
	make(&f, 1, 1, 1);
	for (int how = CONFIG_ROUND_ROBIN; how <= CONFIG_HASH; how++)
		assert_int_equal(balance_pick((enum config_balance)how, f.c, 1, 77), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_robin), cmocka_unit_test(test_least_request), cmocka_unit_test(test_hash),
		cmocka_unit_test(test_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
