/* Lines as people, programs and the journal get them; nothing that comes from outside can forge one. */
#include "ipc/log.h"
#include "ipc/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int saved_stderr, reader;
static char text[65536];

/* Standard error becomes the writing end of fds; what log_* write is read from the other. */
static void redirect(int fds[2])
{
	saved_stderr = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	close(fds[1]);
	reader = fds[0];
	fcntl(reader, F_SETFL, O_NONBLOCK);
}

static void restore(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(reader);
}

static int set_up(void **state)
{
	(void)state;
	int fds[2];
	if (pipe(fds))
		return -1;
	redirect(fds);
	unsetenv("HERMES_LOG_FORMAT");
	unsetenv("HERMES_JOURNAL_FD");
	setenv("HERMES_LOG_LEVEL", "info", 1);
	log_open("tester");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	restore();
	return 0;
}

static const char *written(void)
{
	ssize_t n = read(reader, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void expect(const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" lacks \"%s\"", text, part);
}

static void a_line(void **state)
{
	(void)state;
	char head[64];
	log_info("listener opened", "name=%s port=%d", log_value("apps"), 12000);
	snprintf(head, sizeof(head), "Z info tester[%d] listener opened name=apps port=12000\n", (int)getpid());
	written();
	assert_int_equal(strlen(text), strlen("2026-11-21T12:00:00.000") + strlen(head));
	expect(head);
	log_info("nothing more", "%s", "");
	written();
	expect(" nothing more\n");
}

static void levels(void **state)
{
	(void)state;
	assert_int_equal(log_set_level("warn"), 0);
	log_info("quiet", "%s", "");
	log_debug("quiet", "%s", "");
	assert_string_equal(written(), "");
	log_warn("loud", "%s", "");
	written();
	expect(" warn ");
	assert_int_equal(log_set_level("nonsense"), -EINVAL);
	assert_int_equal(log_set_level(NULL), -EINVAL);
	assert_string_equal(log_get_level(), "warn");
	assert_int_equal(log_set_level("debug"), 0);
	assert_true(log_on(LOG_DEBUG_));
	setenv("HERMES_LOG_LEVEL", "error", 1);
	log_open("tester");
	assert_false(log_on(LOG_WARN_));
}

static void values(void **state)
{
	(void)state;
	assert_string_equal(log_value("plain/1.2:3"), "plain/1.2:3");
	assert_string_equal(log_value(""), "\"\"");
	assert_string_equal(log_value(NULL), "-");
	assert_string_equal(log_value("two words"), "\"two words\"");
	assert_string_equal(log_value("a=b"), "\"a=b\"");
	assert_string_equal(log_value("say \"x\\y\""), "\"say \\\"x\\\\y\\\"\"");
	assert_string_equal(log_value("a\nb\x1b[31m\x7f"), "\"a\\x0ab\\x1b[31m\\x7f\"");
	assert_string_equal(log_value("\xc2\x9b" "31m"), "\"\\xc2\\x9b31m\"");     /* CSI as one character */
	assert_string_equal(log_value("gr\xc3\xbcn"), "gr\xc3\xbcn");
}

static void values_rotate_and_are_cut(void **state)
{
	(void)state;
	char big[2000];
	const char *first = log_value("first");
	for (int i = 0; i < 7; i++)
		log_value("other");
	assert_string_equal(first, "first");
	memset(big, 'x', sizeof(big));
	big[1999] = '\0';
	assert_int_equal(strlen(log_value(big)), 507 + 3);
	assert_string_equal(log_value(big) + 505, "xx...");
	memset(big, '"', sizeof(big) - 1);
	const char *cut = log_value(big);
	assert_true(strlen(cut) < 512);
	assert_string_equal(cut + strlen(cut) - 4, "...\"");
}

/* A caller that forgets log_value() still cannot be made to write a second line. */
static void lines_cannot_be_forged(void **state)
{
	(void)state;
	log_info("request", "path=%s", "/\n2026-01-01T00:00:00.000Z error tester[1] all is lost\r\x1b[2J");
	written();
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
	assert_null(strchr(text, '\r'));
	assert_null(strchr(text, '\x1b'));
	expect("\\x0a2026");
}

static void long_lines_are_cut(void **state)
{
	(void)state;
	static char big[20000];
	memset(big, 'y', sizeof(big) - 1);
	log_info("big", "a=%s", big);
	written();
	assert_true(strlen(text) <= 4096);
	assert_int_equal(text[strlen(text) - 1], '\n');
}

static void json_lines(void **state)
{
	(void)state;
	setenv("HERMES_LOG_FORMAT", "json", 1);
	log_open("tester");
	log_error("no way", "name=%s text=%s n=%d empty=%s", "x", log_value("two\n\"words\"\xff"), 5, log_value(""));
	json_t *line = json_loads(written(), 0, NULL);
	assert_non_null(line);
	assert_string_equal(json_string_value(json_object_get(line, "level")), "error");
	assert_string_equal(json_string_value(json_object_get(line, "role")), "tester");
	assert_string_equal(json_string_value(json_object_get(line, "event")), "no way");
	assert_string_equal(json_string_value(json_object_get(line, "text")), "two\n\"words\"\xef\xbf\xbd");
	assert_string_equal(json_string_value(json_object_get(line, "n")), "5");
	assert_string_equal(json_string_value(json_object_get(line, "empty")), "");
	assert_int_equal(json_integer_value(json_object_get(line, "pid")), getpid());
	json_decref(line);
}

/* Nobody reads: lines are dropped, none blocks; when there is room again, their number is told. */
static void never_blocks(void **state)
{
	(void)state;
	alarm(20);
	for (int i = 0; i < 3000; i++)
		log_info("filling the pipe with lines that nobody reads", "i=%d", i);
	alarm(0);
	while (*written())
		;
	log_info("after", "%s", "");
	written();
	expect(" warn ");
	expect(" log lines dropped count=");
	expect(" after\n");
	log_info("again", "%s", "");
	assert_null(strstr(written(), "dropped"));
}

static void socket_never_blocks(void **state)
{
	(void)state;
	int fds[2];
	restore();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	redirect(fds);
	log_open("tester");
	alarm(20);
	for (int i = 0; i < 10000; i++)
		log_info("filling the socket with lines that nobody reads", "i=%d", i);
	alarm(0);
	while (*written())
		;
	log_info("after", "%s", "");
	written();
	expect("dropped count=");
	expect(" after\n");
}

static void closed_stderr_does_no_harm(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	close(reader);
	for (int i = 0; i < 3; i++)
		log_info("nobody", "%s", "");
	reader = dup(saved_stderr);
}

/* --- the journal --------------------------------------------------------------------------------------------------- */

static int open_journal(void)
{
	int fds[2];
	char number[12];
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds), 0);
	snprintf(number, sizeof(number), "%d", fds[1]);
	setenv("HERMES_JOURNAL_FD", number, 1);
	log_open("tester");
	return fds[0];
}

/* The value of a field of the record in text (n bytes), in either form; NULL where it is missing. */
static char *field(const char *key, size_t n)
{
	for (char *s = text, *end = text + n; s < end;) {
		char *stop = memchr(s, '\n', (size_t)(end - s)), *equal = memchr(s, '=', (size_t)(stop - s));
		char *value = equal ? equal + 1 : stop + 9;
		size_t length = equal ? (size_t)(stop - value) : 0, key_length = (size_t)((equal ? equal : stop) - s);
		for (int i = 7; !equal && i >= 0; i--)
			length = length << 8 | (unsigned char)stop[1 + i];
		assert_true(length < (size_t)(end - value));
		assert_int_equal(value[length], '\n');
		if (key_length == strlen(key) && !memcmp(s, key, key_length))
			return strndup(value, length);
		s = value + length + 1;
	}
	return NULL;
}

static void expect_field(const char *key, const char *value, size_t n)
{
	char *found = field(key, n);
	assert_non_null(found);
	assert_string_equal(found, value);
	free(found);
}

static void journal_fields(void **state)
{
	(void)state;
	char id[33];
	int fd = open_journal();
	log_warn("listener opened", "name=%s odd-key=%s", "apps", log_value("one\nPRIORITY=0\n"));
	ssize_t n = recv(fd, text, sizeof(text), 0);
	assert_true(n > 0);
	expect_field("MESSAGE", "listener opened name=apps odd-key=\"one\\x0aPRIORITY=0\\x0a\"", (size_t)n);
	expect_field("PRIORITY", "4", (size_t)n);
	expect_field("SYSLOG_IDENTIFIER", "hermes-tester", (size_t)n);
	expect_field("HERMES_EVENT", "listener opened", (size_t)n);
	expect_field("HERMES_NAME", "apps", (size_t)n);
	expect_field("HERMES_ODD_KEY", "one\nPRIORITY=0\n", (size_t)n);
	log_message_id("listener opened", id);
	expect_field("MESSAGE_ID", id, (size_t)n);
	assert_string_equal(written(), "");       /* not on standard error too */
	close(fd);
	close(atoi(getenv("HERMES_JOURNAL_FD")));
}

static void message_ids_are_fnv1a(void **state)
{
	(void)state;
	char id[33];
	log_message_id("", id);
	assert_string_equal(id, "6c62272e07bb014262b821756295c58d");
	log_message_id("a", id);
	assert_string_equal(id, "d228cb696f1a8caf78912b704e4a8964");
}

static void full_journal_falls_back(void **state)
{
	(void)state;
	int fd = open_journal();
	for (int i = 0; i < 2000 && !*written(); i++)
		log_info("filling the journal", "i=%d", i);
	expect("filling the journal");
	close(fd);
	log_info("journal gone", "%s", "");
	written();
	expect("journal gone");
	close(atoi(getenv("HERMES_JOURNAL_FD")));
}

static void no_journal(void **state)
{
	(void)state;
	assert_int_equal(log_sink_journal("x"), -1);
	assert_int_equal(log_sink_journal(""), -1);
	assert_int_equal(log_sink_journal("-1"), -1);
	assert_int_equal(log_sink_journal("99999999999"), -1);
	assert_int_equal(log_sink_journal("0"), -1);
}

static void fatal_ends(void **state)
{
	(void)state;
	int status = 0;
	pid_t child = fork();
	if (!child) {
		signal(SIGALRM, SIG_DFL);
		fatal("cannot go on", "error=%s", log_value("no luck"));
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	written();
	expect(" error tester[");
	expect("cannot go on error=\"no luck\"\n");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(a_line), T(levels), T(values), T(values_rotate_and_are_cut), T(lines_cannot_be_forged),
		T(long_lines_are_cut), T(json_lines), T(never_blocks), T(socket_never_blocks),
		T(closed_stderr_does_no_harm), T(journal_fields), T(message_ids_are_fnv1a), T(full_journal_falls_back),
		T(no_journal), T(fatal_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
