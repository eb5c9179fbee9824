#include "store/config.h"
#include "workers/telemetry/access_log.h"
#include "workers/telemetry/log_output.h"

#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct event_base *base;

static int setup(void **state)
{
	(void)state;
	base = event_base_new();
	return base ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	event_base_free(base);
	return 0;
}

struct file { char path[64]; char content[65536]; };

static int make_file(struct file *file)
{
	strcpy(file->path, "/tmp/hermes-log-XXXXXX");
	int fd = mkstemp(file->path);
	assert_true(fd >= 0);
	close(fd);
	return open(file->path, O_WRONLY | O_APPEND | O_CLOEXEC);
}

static const char *read_file(struct file *file)
{
	int fd = open(file->path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, file->content, sizeof(file->content) - 1);
	close(fd);
	assert_true(n >= 0);
	file->content[n] = '\0';
	return file->content;
}

static void put(struct log_output *output, const char *line)
{
	log_output_write(output, line, strlen(line));
}

static void lines_wait_until_the_timer(void **state)
{
	(void)state;
	struct file file;
	struct log_output *output = log_output_new(base, "x", make_file(&file), -1);
	put(output, "one\n");
	put(output, "two\n");
	assert_string_equal(read_file(&file), "");
	event_base_loop(base, EVLOOP_ONCE);
	assert_string_equal(read_file(&file), "one\ntwo\n");
	assert_int_equal(log_output_counts(output)->written, 2);
	put(output, "three\n");
	log_output_free(output);
	assert_string_equal(read_file(&file), "one\ntwo\nthree\n");
	unlink(file.path);
}

static void much_is_written_at_once(void **state)
{
	(void)state;
	struct file file;
	struct stat st;
	struct log_output *output = log_output_new(base, "x", make_file(&file), -1);
	char line[1024];
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (unsigned i = 0; i < LOG_FLUSH_BYTES / sizeof(line); i++)
		log_output_write(output, line, sizeof(line));
	assert_int_equal(stat(file.path, &st), 0);
	assert_int_equal(st.st_size, LOG_FLUSH_BYTES);
	log_output_free(output);
	unlink(file.path);
}

static void full_disk_drops_and_counts(void **state)
{
	(void)state;
	struct log_output *output = log_output_new(base, "/dev/full", open("/dev/full", O_WRONLY | O_CLOEXEC), -1);
	put(output, "one\n");
	put(output, "two\n");
	log_output_flush(output);
	assert_int_equal(log_output_counts(output)->dropped_error, 2);
	assert_int_equal(log_output_counts(output)->written, 0);
	struct file file;
	log_output_reopen(output, make_file(&file));      /* it goes on where there is room again */
	put(output, "three\n");
	log_output_flush(output);
	assert_string_equal(read_file(&file), "three\n");
	log_output_free(output);
	unlink(file.path);
}

/* A reader that does not read: nothing blocks, what does not fit is dropped whole, what was cut is completed. */
static void slow_pipe_drops_whole_records(void **state)
{
	(void)state;
	int fds[2];
	char line[1000], *all = calloc(1, 4 << 20);
	size_t length = 0, lines = 0;
	assert_int_equal(pipe(fds), 0);
	struct log_output *output = log_output_new(base, "fifo", fds[1], -1);
	memset(line, 'x', sizeof(line));
	line[sizeof(line) - 1] = '\n';
	for (unsigned i = 0; i < 3000; i++)
		log_output_write(output, line, sizeof(line));
	const struct log_counts *counts = log_output_counts(output);
	assert_true(counts->dropped_full > 1000);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	for (unsigned round = 0; round < 1000 && counts->written + counts->dropped_full < 3000; round++) {
		ssize_t n = read(fds[0], all + length, (4 << 20) - length);
		length += n > 0 ? (size_t)n : 0;
		log_output_flush(output);
	}
	assert_int_equal(counts->written + counts->dropped_full, 3000);
	for (ssize_t n; (n = read(fds[0], all + length, (4 << 20) - length)) > 0;)
		length += (size_t)n;
	for (size_t i = 0; i < length; i += sizeof(line), lines++)
		assert_memory_equal(all + i, line, sizeof(line));
	assert_int_equal(lines, counts->written);
	log_output_free(output);
	close(fds[0]);
	free(all);
}

static void gone_reader_is_an_error(void **state)
{
	(void)state;
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	struct log_output *output = log_output_new(base, "fifo", fds[1], -1);
	close(fds[0]);
	put(output, "one\n");
	log_output_flush(output);
	assert_int_equal(log_output_counts(output)->dropped_error, 1);
	log_output_free(output);
}

static void rotation_loses_nothing(void **state)
{
	(void)state;
	struct file old, new;
	struct log_output *output = log_output_new(base, "x", make_file(&old), -1);
	put(output, "one\n");
	log_output_reopen(output, make_file(&new));
	put(output, "two\n");
	log_output_free(output);
	assert_string_equal(read_file(&old), "one\n");
	assert_string_equal(read_file(&new), "two\n");
	unlink(old.path);
	unlink(new.path);
}

static void journal_gets_one_datagram_each(void **state)
{
	(void)state;
	int fds[2];
	char got[64];
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	struct log_output *output = log_output_new(base, "journald", -1, fds[0]);
	assert_true(log_output_is_journal(output));
	put(output, "MESSAGE=a\n");
	put(output, "MESSAGE=b\n");
	assert_int_equal(recv(fds[1], got, sizeof(got), 0), 10);
	assert_memory_equal(got, "MESSAGE=a\n", 10);
	unsigned n = 0;
	while (!log_output_counts(output)->dropped_full && n++ < 100000)
		put(output, "MESSAGE=c\n");
	assert_int_equal(log_output_counts(output)->dropped_full, 1);       /* nobody reads: it does not block */
	close(fds[1]);
	put(output, "MESSAGE=d\n");
	assert_int_equal(log_output_counts(output)->dropped_error, 1);
	log_output_free(output);
	close(fds[0]);
}

/* --- the logs of a configuration ----------------------------------------------------------------------------------- */

static struct config with_logs(struct config_log *logs, size_t n)
{
	return (struct config){.telemetry = {.access_log = logs, .n_access_log = n}};
}

static void must_prepare(struct access_log *log, uint64_t generation, const struct config *config)
{
	char error[256] = "";
	if (access_log_prepare(log, generation, config, error, sizeof(error)))
		fail_msg("%s", error);
}

static void must_refuse(struct access_log *log, uint64_t generation, const struct config *config, const char *reason)
{
	char error[256] = "";
	assert_int_equal(access_log_prepare(log, generation, config, error, sizeof(error)), -1);
	if (!strstr(error, reason))
		fail_msg("%s", error);
}

static const struct ipc_flow_record begun = {.event = "start", .id = 1}, ended = {.event = "end", .id = 2};

static void entries_share_a_destination(void **state)
{
	(void)state;
	struct file file;
	int fd = make_file(&file);
	struct config_log logs[] = {{.to = file.path, .start = true}, {.to = file.path, .json = true}};
	struct config config = with_logs(logs, 2);
	struct access_log *log = access_log_new(base, -1);
	access_log_file(log, 1, file.path, fd, NULL);
	must_refuse(log, 1, &(struct config){.telemetry = {.access_log = (struct config_log[]){{.to = (char[]){"/other"}}},
	            .n_access_log = 1}}, "not handed over");
	access_log_file(log, 1, file.path, open(file.path, O_WRONLY | O_APPEND | O_CLOEXEC), NULL);
	must_prepare(log, 1, &config);
	access_log_record(log, &ended);                               /* not yet in force */
	access_log_commit(log, 1);
	access_log_record(log, &begun);
	access_log_record(log, &ended);
	access_log_last(log);
	const char *text = read_file(&file);
	assert_non_null(strstr(text, "event=start"));
	assert_null(strstr(text, "\"event\":\"start\""));
	assert_non_null(strstr(text, "\"event\":\"end\""));
	const struct log_counts *counts;
	assert_int_equal(access_log_counts(log, &counts), 1);
	assert_string_equal(counts[0].to, file.path);
	assert_int_equal(counts[0].written, 3);
	access_log_free(log);
	unlink(file.path);
}

static void refusal_changes_nothing(void **state)
{
	(void)state;
	struct file file;
	int fd = make_file(&file);
	struct config_log good[] = {{.to = file.path}}, bad[] = {{.to = file.path}, {.to = (char[]){"/nowhere"}}};
	struct config first = with_logs(good, 1), second = with_logs(bad, 2);
	struct access_log *log = access_log_new(base, -1);
	access_log_file(log, 1, file.path, fd, NULL);
	must_prepare(log, 1, &first);
	access_log_commit(log, 1);
	access_log_file(log, 2, "/nowhere", -1, "Permission denied");
	must_refuse(log, 2, &second, "access_log /nowhere: Permission denied");
	must_prepare(log, 3, &first);                                 /* prepared, then aborted */
	access_log_abort(log, 3);
	access_log_record(log, &ended);
	access_log_last(log);
	assert_non_null(strstr(read_file(&file), "id=2"));
	access_log_free(log);
	unlink(file.path);
}

static void new_file_of_the_same_name_is_used(void **state)
{
	(void)state;
	struct file file, moved;
	int fd = make_file(&file), other = make_file(&moved);
	struct config_log logs[] = {{.to = file.path}};
	struct config config = with_logs(logs, 1);
	struct access_log *log = access_log_new(base, -1);
	access_log_file(log, 1, file.path, fd, NULL);
	must_prepare(log, 1, &config);
	access_log_commit(log, 1);
	access_log_record(log, &begun);      /* not logged: start is off */
	access_log_file(log, 2, file.path, other, NULL);
	must_prepare(log, 2, &config);
	access_log_commit(log, 2);
	access_log_record(log, &ended);
	access_log_last(log);
	assert_string_equal(read_file(&file), "");
	assert_non_null(strstr(read_file(&moved), "id=2"));
	access_log_file(log, 0, file.path, open(file.path, O_WRONLY | O_APPEND | O_CLOEXEC), NULL);   /* rotated */
	access_log_file(log, 0, file.path, -1, "No such file or directory");                         /* keeps what it has */
	access_log_record(log, &ended);
	access_log_last(log);
	assert_non_null(strstr(read_file(&file), "id=2"));
	access_log_free(log);
	unlink(file.path);
	unlink(moved.path);
}

static void journal_must_be_there(void **state)
{
	(void)state;
	struct config_log logs[] = {{.to = (char[]){"journald"}}};
	struct config config = with_logs(logs, 1);
	struct access_log *log = access_log_new(base, -1);
	must_refuse(log, 1, &config, "journald");
	access_log_free(log);
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	log = access_log_new(base, fds[0]);
	must_prepare(log, 1, &config);
	access_log_commit(log, 1);
	access_log_record(log, &ended);
	char got[4096];
	assert_true(recv(fds[1], got, sizeof(got), MSG_DONTWAIT) > 100);
	access_log_free(log);
	close(fds[0]);
	close(fds[1]);
}

static void files_for_nothing_are_bounded(void **state)
{
	(void)state;
	struct access_log *log = access_log_new(base, -1);
	for (unsigned i = 0; i < 200; i++) {
		char path[32];
		snprintf(path, sizeof(path), "/x%u", i);
		access_log_file(log, 5, path, open("/dev/null", O_WRONLY | O_CLOEXEC), NULL);
	}
	access_log_abort(log, 5);
	access_log_free(log);
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(fd < 32);                /* all were closed */
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_wait_until_the_timer), cmocka_unit_test(much_is_written_at_once),
		cmocka_unit_test(full_disk_drops_and_counts), cmocka_unit_test(slow_pipe_drops_whole_records),
		cmocka_unit_test(gone_reader_is_an_error), cmocka_unit_test(rotation_loses_nothing),
		cmocka_unit_test(journal_gets_one_datagram_each), cmocka_unit_test(entries_share_a_destination),
		cmocka_unit_test(refusal_changes_nothing), cmocka_unit_test(new_file_of_the_same_name_is_used),
		cmocka_unit_test(journal_must_be_there), cmocka_unit_test(files_for_nothing_are_bounded),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, teardown);
}
