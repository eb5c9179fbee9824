/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/endpoints.h"
#include "store/config.h"

static struct config_endpoint two[] = { { .weight = 1 }, { .weight = 7 } }, one[] = { { .weight = 3 } };
static struct config_cluster clusters[] = { { .endpoints = two, .n_endpoints = 2 }, { .target = true },
	{ .endpoints = one, .n_endpoints = 1 } };
static struct config config = { .clusters = clusters, .n_clusters = 3 };

static void reader_sees_what_writer_writes(void **state)
{
	struct endpoint_table *w = endpoint_table_new(&config), *r;

	(void)state;
	assert_non_null(w);
	r = endpoint_table_map(endpoint_table_fd(w), &config);
	assert_non_null(r);
	assert_int_equal(endpoint_table_slot(r, 0, 0)->weight, 1);
	assert_int_equal(endpoint_table_slot(r, 0, 1)->weight, 7);
	assert_int_equal(endpoint_table_slot(r, 2, 0)->weight, 3);
	assert_null(endpoint_table_slot(r, 1, 0));
	assert_null(endpoint_table_slot(r, 0, 2));
	assert_null(endpoint_table_slot(r, 3, 0));
	endpoint_table_slot(w, 2, 0)->down = 5;
	assert_int_equal(endpoint_table_slot(r, 2, 0)->down, 5);
	endpoint_table_free(r);
	endpoint_table_free(w);
}

static void nobody_else_can_write_or_shrink(void **state)
{
	struct endpoint_table *w = endpoint_table_new(&config);
	int fd = endpoint_table_fd(w);

	(void)state;
	assert_true(mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 1 << 20), -1);
	assert_int_equal(write(fd, "x", 1), -1);
	endpoint_table_free(w);
}

static void what_does_not_fit_is_refused(void **state)
{
	struct config other = { .clusters = clusters, .n_clusters = 1 }, none = { 0 };
	struct endpoint_table *w = endpoint_table_new(&config), *empty = endpoint_table_new(&none);
	int plain = memfd_create("plain", MFD_CLOEXEC);

	(void)state;
	assert_null(endpoint_table_map(endpoint_table_fd(w), &other));
	assert_non_null(empty);
	struct endpoint_table *r = endpoint_table_map(endpoint_table_fd(empty), &none);
	assert_non_null(r);
	assert_int_equal(ftruncate(plain, 4096), 0);
	assert_null(endpoint_table_map(plain, &config));   /* not sealed */
	assert_null(endpoint_table_map(-1, &config));
	close(plain);
	endpoint_table_free(r);
	endpoint_table_free(empty);
	endpoint_table_free(w);
	endpoint_table_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(reader_sees_what_writer_writes),
		cmocka_unit_test(nobody_else_can_write_or_shrink), cmocka_unit_test(what_does_not_fit_is_refused) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
