#include "ipc/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void sealed_and_mapped(void **state)
{
	(void)state;
	const void *data;
	size_t length;
	int fd = memfd_sealed("test", "hello", 5);
	assert_true(fd >= 0);
	assert_int_equal(memfd_map(fd, 5, &data, &length), 0);
	assert_int_equal(length, 5);
	assert_memory_equal(data, "hello", 5);
	memfd_unmap(data, length);
	close(fd);
}

static void sealed_against_every_change(void **state)
{
	(void)state;
	int fd = memfd_sealed("test", "hello", 5);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fd, 1), -1);
	assert_int_equal(ftruncate(fd, 9), -1);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	assert_ptr_equal(mmap(NULL, 5, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

static void empty(void **state)
{
	(void)state;
	const void *data = "";
	size_t length = 1;
	int fd = memfd_sealed("test", NULL, 0);
	assert_true(fd >= 0);
	assert_int_equal(memfd_map(fd, 0, &data, &length), 0);
	assert_null(data);
	assert_int_equal(length, 0);
	memfd_unmap(data, length);
	close(fd);
}

static void larger_than_allowed(void **state)
{
	(void)state;
	const void *data;
	size_t length;
	int fd = memfd_sealed("test", "hello", 5);
	assert_int_equal(memfd_map(fd, 4, &data, &length), -EFBIG);
	assert_null(data);
	close(fd);
}

static void what_is_not_sealed_is_refused(void **state)
{
	(void)state;
	static const int partial[] = {0, F_SEAL_WRITE, F_SEAL_WRITE | F_SEAL_GROW, F_SEAL_SHRINK | F_SEAL_GROW};
	const void *data;
	size_t length;
	for (size_t i = 0; i < sizeof(partial) / sizeof(*partial); i++) {
		int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(write(fd, "x", 1), 1);
		assert_int_equal(fcntl(fd, F_ADD_SEALS, partial[i]), 0);
		assert_int_equal(memfd_map(fd, 10, &data, &length), -EPERM);
		close(fd);
	}
}

static void what_is_no_memfd_is_refused(void **state)
{
	(void)state;
	const void *data;
	size_t length;
	int pipes[2];
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(memfd_map(pipes[0], 10, &data, &length), -EPERM);
	FILE *file = tmpfile();
	assert_int_equal(memfd_map(fileno(file), 10, &data, &length), -EPERM);
	fclose(file);
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(memfd_map(-1, 10, &data, &length), -EBADF);
}

static void read_all_of_a_pipe(void **state)
{
	(void)state;
	int pipes[2];
	char *data;
	size_t length;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(write(pipes[1], "one", 3), 3);
	assert_int_equal(write(pipes[1], "two", 3), 3);
	close(pipes[1]);
	assert_int_equal(fd_read_all(pipes[0], 6, &data, &length), 0);
	assert_int_equal(length, 6);
	assert_string_equal(data, "onetwo");
	free(data);
	close(pipes[0]);
}

static void read_all_ignores_the_shared_offset(void **state)
{
	(void)state;
	char *data;
	size_t length;
	int fd = memfd_sealed("test", "hello", 5);        /* its offset is at the end */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fd_read_all(fd, 100, &data, &length), 0);
		assert_string_equal(data, "hello");
		free(data);
	}
	close(fd);
}

static void read_all_is_bounded(void **state)
{
	(void)state;
	static char big[100000];
	char *data;
	size_t length;
	int fd = memfd_sealed("test", big, sizeof(big));
	assert_int_equal(fd_read_all(fd, sizeof(big) - 1, &data, &length), -EFBIG);
	assert_null(data);
	assert_int_equal(fd_read_all(fd, sizeof(big), &data, &length), 0);
	assert_int_equal(length, sizeof(big));
	assert_int_equal(data[length], 0);
	free(data);
	close(fd);
	fd = open("/dev/zero", O_RDONLY);
	assert_int_equal(fd_read_all(fd, 1 << 20, &data, &length), -EFBIG);
	close(fd);
	assert_int_equal(fd_read_all(-1, 10, &data, &length), -EBADF);
	fd = open("/", O_RDONLY);
	assert_int_equal(fd_read_all(fd, 10, &data, &length), -EISDIR);
	close(fd);
}

static void read_all_of_nothing(void **state)
{
	(void)state;
	char *data;
	size_t length;
	int fd = open("/dev/null", O_RDONLY);
	assert_int_equal(fd_read_all(fd, 0, &data, &length), 0);
	assert_string_equal(data, "");
	free(data);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sealed_and_mapped), cmocka_unit_test(sealed_against_every_change), cmocka_unit_test(empty),
		cmocka_unit_test(larger_than_allowed), cmocka_unit_test(what_is_not_sealed_is_refused),
		cmocka_unit_test(what_is_no_memfd_is_refused), cmocka_unit_test(read_all_of_a_pipe),
		cmocka_unit_test(read_all_ignores_the_shared_offset), cmocka_unit_test(read_all_is_bounded),
		cmocka_unit_test(read_all_of_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
