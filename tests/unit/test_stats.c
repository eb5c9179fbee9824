#include "ipc/stats.h"
#include "ipc/stats_layout.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void written_is_read(void **state)
{
	(void)state;
	enum stats_scope scope;
	struct stats *stats = stats_new(10);
	struct stats_set *apps = stats_set(stats, STATS_LISTENER, "apps");
	struct stats_view *view = stats_view_new(stats_fd(stats));
	assert_non_null(view);
	stats_add(apps, STATS_LISTENER_FLOWS, 3);
	stats_add(apps, STATS_LISTENER_FLOWS_OPEN, 2);
	stats_add(apps, STATS_LISTENER_FLOWS_OPEN, -1);
	assert_string_equal(stats_view_set(view, 0, &scope), "apps");
	assert_int_equal(scope, STATS_LISTENER);
	assert_null(stats_view_set(view, 1, &scope));
	assert_int_equal(stats_view_value(view, 0, STATS_LISTENER_FLOWS), 3);
	assert_int_equal(stats_view_value(view, 0, STATS_LISTENER_FLOWS_OPEN), 1);
	assert_int_equal(stats_view_value(view, 0, STATS_CLUSTER_FLOWS), 0);      /* of another scope */
	assert_int_equal(stats_view_value(view, 9, STATS_LISTENER_FLOWS), 0);
	stats_set(stats, STATS_CLUSTER, "apps");      /* made after the view */
	assert_string_equal(stats_view_set(view, 1, &scope), "apps");
	assert_int_equal(scope, STATS_CLUSTER);
	stats_view_free(view);
	stats_free(stats);
}

/* Each metric has slots of its own: writing all, differently, disturbs none. */
static void metrics_do_not_overlap(void **state)
{
	(void)state;
	struct stats *stats = stats_new(10);
	struct stats_set *sets[STATS_SCOPE_COUNT];
	struct stats_view *view = stats_view_new(stats_fd(stats));
	struct stats_histogram h;
	for (unsigned scope = 0; scope < STATS_SCOPE_COUNT; scope++)
		sets[scope] = stats_set(stats, scope, "x");
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		const struct stats_description *d = stats_describe(m);
		if (d->kind == STATS_histogram)
			stats_observe(sets[d->scope], m, 1000000 + m);
		else
			stats_add(sets[d->scope], m, 1000 + m);
	}
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		const struct stats_description *d = stats_describe(m);
		stats_view_histogram(view, d->scope, m, &h);
		if (d->kind == STATS_histogram)
			assert_int_equal(h.sum, 1000000 + m);
		else
			assert_int_equal(stats_view_value(view, d->scope, m), 1000 + m);
	}
	stats_view_free(view);
	stats_free(stats);
}

static void histogram_buckets(void **state)
{
	(void)state;
	static const struct { uint64_t value; unsigned bucket; } cases[] = {
		{0, 0}, {10, 0}, {11, 1}, {20, 1}, {100, 3}, {101, 4}, {100000000, 20}, {100000001, 21}, {UINT64_MAX / 64, 21},
	};
	for (unsigned i = 1; i < STATS_BUCKETS - 1; i++)
		assert_true(stats_bounds[i] > stats_bounds[i - 1]);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct stats_histogram h;
		struct stats *stats = stats_new(1);
		struct stats_view *view = stats_view_new(stats_fd(stats));
		stats_observe(stats_set(stats, STATS_ROUTE, "r"), STATS_ROUTE_DURATION, cases[i].value);
		stats_view_histogram(view, 0, STATS_ROUTE_DURATION, &h);
		for (unsigned b = 0; b < STATS_BUCKETS; b++)
			assert_int_equal(h.buckets[b], b == cases[i].bucket);
		assert_true(h.sum == cases[i].value);
		stats_view_free(view);
		stats_free(stats);
	}
}

static void sets_are_found_again(void **state)
{
	(void)state;
	char name[100];
	struct stats *stats = stats_new(500);
	struct stats_set *sets[500];
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "route-%d", i);
		sets[i] = stats_set(stats, STATS_ROUTE, name);
	}
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "route-%d", i);
		assert_ptr_equal(stats_set(stats, STATS_ROUTE, name), sets[i]);
	}
	stats_free(stats);
}

static void names_are_cut(void **state)
{
	(void)state;
	char name[200];
	enum stats_scope scope;
	memset(name, 'n', sizeof(name));
	name[199] = '\0';
	struct stats *stats = stats_new(2);
	struct stats_set *set = stats_set(stats, STATS_ROUTE, name);
	assert_ptr_equal(stats_set(stats, STATS_ROUTE, name), set);
	struct stats_view *view = stats_view_new(stats_fd(stats));
	assert_int_equal(strlen(stats_view_set(view, 0, &scope)), 63);
	stats_view_free(view);
	stats_free(stats);
}

static void a_full_table_shares_other(void **state)
{
	(void)state;
	enum stats_scope scope;
	struct stats *stats = stats_new(2);
	struct stats_set *a = stats_set(stats, STATS_ROUTE, "a");
	stats_set(stats, STATS_ROUTE, "b");
	struct stats_set *c = stats_set(stats, STATS_ROUTE, "c");
	assert_ptr_equal(stats_set(stats, STATS_ROUTE, "d"), c);
	assert_ptr_not_equal(stats_set(stats, STATS_CLUSTER, "d"), c);
	assert_ptr_equal(stats_set(stats, STATS_ROUTE, "a"), a);
	stats_set(stats, STATS_LISTENER, "d");
	stats_set(stats, STATS_WORKER, "d");
	stats_add(c, STATS_ROUTE_FLOWS, 5);
	struct stats_view *view = stats_view_new(stats_fd(stats));
	assert_string_equal(stats_view_set(view, 2, &scope), "other");
	assert_int_equal(stats_view_value(view, 2, STATS_ROUTE_FLOWS), 5);
	assert_non_null(stats_view_set(view, 5, &scope));
	assert_null(stats_view_set(view, 6, &scope));
	stats_view_free(view);
	stats_free(stats);
}

static void receivers_only_read(void **state)
{
	(void)state;
	struct stats *stats = stats_new(2);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, stats_fd(stats), 0), MAP_FAILED);
	assert_int_equal(pwrite(stats_fd(stats), "x", 1, 0), -1);
	assert_int_equal(ftruncate(stats_fd(stats), 0), -1);
	stats_add(stats_set(stats, STATS_ROUTE, "a"), STATS_ROUTE_FLOWS, 1);      /* the writer still writes */
	stats_free(stats);
	stats_add(NULL, STATS_ROUTE_FLOWS, 1);
	stats_observe(NULL, STATS_ROUTE_DURATION, 1);
}

/* --- regions that lie ---------------------------------------------------------------------------------------------- */

static int region(const struct stats_header *header, size_t length, int seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	assert_true(pwrite(fd, header, sizeof(*header), 0) > 0);
	assert_int_equal(ftruncate(fd, (off_t)length), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct stats_header honest(void)
{
	return (struct stats_header){
		.magic = STATS_MAGIC, .version = STATS_VERSION, .set_size = sizeof(struct stats_set), .room = 1, .used = 1,
		.slots = {[STATS_ROUTE] = STATS_SLOTS},
	};
}

static void refused(struct stats_header header, size_t length, int seals)
{
	int fd = region(&header, length, seals);
	assert_null(stats_view_new(fd));
	close(fd);
}

static void lies_are_refused(void **state)
{
	(void)state;
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	const size_t fits = sizeof(struct stats_header) + sizeof(struct stats_set);
	struct stats_header h = honest();
	int fd = region(&h, fits, seals);
	struct stats_view *view = stats_view_new(fd);
	assert_non_null(view);
	stats_view_free(view);
	close(fd);
	refused(honest(), fits, F_SEAL_GROW);
	refused(honest(), fits - 1, seals);
	refused(honest(), 8, seals);
	h.magic++;
	refused(h, fits, seals);
	h = honest();
	h.version++;
	refused(h, fits, seals);
	h = honest();
	h.set_size = 8;
	refused(h, fits, seals);
	h = honest();
	h.room = UINT32_MAX;
	refused(h, fits, seals);
	h = honest();
	h.slots[STATS_WORKER] = STATS_SLOTS + 1;
	refused(h, fits, seals);
	assert_null(stats_view_new(-1));
	assert_null(stats_view_new(STDIN_FILENO));
}

/* More sets than there is room for, a scope nobody knows, a name without end. */
static void lies_within_bounds_do_no_harm(void **state)
{
	(void)state;
	struct stats_header h = honest();
	enum stats_scope scope;
	struct stats_histogram out;
	struct stats_set set = {.scope = 77};
	h.used = UINT32_MAX;
	memset(set.name, 'x', sizeof(set.name));
	int fd = region(&h, sizeof(h) + sizeof(set), F_SEAL_SHRINK | F_SEAL_GROW);
	assert_int_equal(pwrite(fd, &set, sizeof(set), sizeof(h)), sizeof(set));
	struct stats_view *view = stats_view_new(fd);
	assert_int_equal(strlen(stats_view_set(view, 0, &scope)), 63);
	assert_true((unsigned)scope < STATS_SCOPE_COUNT);
	assert_null(stats_view_set(view, 1, &scope));
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		assert_int_equal(stats_view_value(view, 0, m), 0);
		stats_view_histogram(view, 0, m, &out);
		assert_int_equal(out.sum, 0);
	}
	stats_view_free(view);
	close(fd);
}

/* A writer of an older release has fewer metrics: what it lacks reads as zero. */
static void older_writers_lack_metrics(void **state)
{
	(void)state;
	struct stats_header h = honest();
	h.slots[STATS_ROUTE] = (uint32_t)stats_slot(STATS_ROUTE_BYTES_IN) + 1;
	struct stats_set set = {.scope = STATS_ROUTE, .name = "r"};
	struct stats_histogram out;
	for (unsigned i = 0; i < STATS_SLOTS; i++)
		set.slots[i] = 100;
	int fd = region(&h, sizeof(h) + sizeof(set), F_SEAL_SHRINK | F_SEAL_GROW);
	assert_int_equal(pwrite(fd, &set, sizeof(set), sizeof(h)), sizeof(set));
	struct stats_view *view = stats_view_new(fd);
	assert_int_equal(stats_view_value(view, 0, STATS_ROUTE_BYTES_IN), 100);
	assert_int_equal(stats_view_value(view, 0, STATS_ROUTE_BYTES_OUT), 0);
	stats_view_histogram(view, 0, STATS_ROUTE_DURATION, &out);
	assert_int_equal(out.sum, 0);
	stats_view_free(view);
	close(fd);
}

static void descriptions_are_complete(void **state)
{
	(void)state;
	for (unsigned m = 0; m < STATS_METRIC_COUNT; m++) {
		const struct stats_description *d = stats_describe(m);
		assert_non_null(d->family);
		assert_non_null(d->labels);
		assert_true(strlen(d->help) > 0);
		assert_null(strstr(d->family, "_total"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(written_is_read), cmocka_unit_test(metrics_do_not_overlap),
		cmocka_unit_test(histogram_buckets), cmocka_unit_test(sets_are_found_again), cmocka_unit_test(names_are_cut),
		cmocka_unit_test(a_full_table_shares_other), cmocka_unit_test(receivers_only_read),
		cmocka_unit_test(lies_are_refused), cmocka_unit_test(lies_within_bounds_do_no_harm),
		cmocka_unit_test(older_writers_lack_metrics), cmocka_unit_test(descriptions_are_complete),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
