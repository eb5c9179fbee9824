#include "ipc/log_sink.h"
#include "ipc/json.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- standard error ------------------------------------------------------------------------------------------------ */

enum sink { SINK_OTHER, SINK_FILE, SINK_SOCKET };     /* other: pipe or terminal */
static enum sink sink;
static unsigned long dropped;
static bool torn;             /* a line was taken in part: the next one starts anew */

void log_sink_open(void)
{
	struct stat st;
	sink = SINK_OTHER;
	dropped = 0;
	torn = false;
	tzset();          /* reads /etc/localtime, which the C library otherwise looks for at the first line */
	if (fstat(STDERR_FILENO, &st))
		return;
	sink = S_ISREG(st.st_mode) ? SINK_FILE : S_ISSOCK(st.st_mode) ? SINK_SOCKET : SINK_OTHER;
}

static bool writable(void)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

/* Standard error is shared with whoever started us, so it cannot be made non-blocking; each kind has its own way. A pipe
 * that polls writable has room for PIPE_BUF bytes, which only another writer at the same instant could take, and
 * RWF_NOWAIT, where the kernel has it for pipes, closes that gap too. */
static ssize_t write_now(const char *data, size_t length)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
	if (sink == SINK_FILE)
		return write(STDERR_FILENO, data, length);
	if (sink == SINK_SOCKET)
		return send(STDERR_FILENO, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	ssize_t n = pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT);
	if (n >= 0 || errno == EAGAIN)
		return n;
	if (!writable()) {
		errno = EAGAIN;
		return -1;
	}
	return write(STDERR_FILENO, data, length);
}

static void write_line(const char *data, size_t length)
{
	if (torn && write_now("\n", 1) != 1) {
		dropped++;
		return;
	}
	torn = false;
	ssize_t n = write_now(data, length);
	if (n < 0)
		dropped++;
	else
		torn = (size_t)n < length;
}

unsigned long log_sink_lost(void)
{
	unsigned long n = dropped;
	if (!n || (sink != SINK_FILE && !writable()))
		return 0;
	dropped = 0;
	return n;
}

/* RFC 3339, UTC, milliseconds */
static void format_time(const struct timespec *time, char out[32])
{
	struct tm tm;
	gmtime_r(&time->tv_sec, &tm);
	size_t n = strftime(out, 24, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, 32 - n, ".%03ldZ", time->tv_nsec / 1000000);
}

void log_sink_text(const struct log_line *line)
{
	char text[PIPE_BUF], when[32];
	format_time(&line->time, when);
	int n = snprintf(text, sizeof(text), "%s %s %s[%d] %s%s%s\n", when, line->level, line->role, (int)getpid(),
	                 line->event, *line->fields ? " " : "", line->fields);
	if (n > 0 && (size_t)n < sizeof(text))
		write_line(text, (size_t)n);
	else
		dropped++;
}

void log_sink_json(const struct log_line *line)
{
	struct json j = JSON_INIT;
	struct log_field field;
	char when[32];
	format_time(&line->time, when);
	json_object(&j, NULL);
	json_str(&j, "time", when);
	json_str(&j, "level", line->level);
	json_str(&j, "role", line->role);
	json_int(&j, "pid", getpid());
	json_str(&j, "event", line->event);
	for (const char *s = line->fields; (s = log_next_field(s, &field));)
		json_str(&j, field.key, field.value);
	json_end(&j);
	if (j.failed)
		dropped++;
	else {
		j.data[j.length] = '\n';      /* in place of the NUL */
		write_line(j.data, j.length + 1);
	}
	json_free(&j);
}

/* --- the journal (systemd's documented native protocol: KEY=VALUE lines; a value with newlines as KEY, newline, its
 *     length as 64 bits little-endian, the value, newline) ------------------------------------------------------------ */

int log_sink_journal(const char *number)
{
	char *end;
	int domain = 0, type = 0;
	socklen_t size = sizeof(int);
	long fd = strtol(number, &end, 10);
	if (*end || end == number || fd < 0 || fd > INT_MAX)
		return -1;
	if (getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) || domain != AF_UNIX)
		return -1;
	size = sizeof(int);
	if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_DGRAM)
		return -1;
	return (int)fd;
}

void log_message_id(const char *event, char out[33])
{
	const unsigned __int128 prime = (unsigned __int128)1 << 88 | 0x13b;
	unsigned __int128 h = (unsigned __int128)0x6c62272e07bb0142 << 64 | 0x62b821756295c58d;
	for (; *event; event++)
		h = (h ^ (unsigned char)*event) * prime;
	snprintf(out, 33, "%016llx%016llx", (unsigned long long)(h >> 64), (unsigned long long)h);
}

struct record {
	char data[2 * LOG_FIELDS + 1024];
	size_t length;
	bool full;
};

static void put(struct record *r, const void *data, size_t length)
{
	if (length > sizeof(r->data) - r->length) {
		r->full = true;
		return;
	}
	memcpy(r->data + r->length, data, length);
	r->length += length;
}

static void put_field(struct record *r, const char *key, const char *value)
{
	size_t length = strlen(value);
	put(r, key, strlen(key));
	if (memchr(value, '\n', length)) {
		uint8_t le[8];
		for (int i = 0; i < 8; i++)
			le[i] = (uint8_t)((uint64_t)length >> (8 * i));
		put(r, "\n", 1);
		put(r, le, sizeof(le));
	} else {
		put(r, "=", 1);
	}
	put(r, value, length);
	put(r, "\n", 1);
}

/* Field names of the journal: upper case, digits, underscore, at most 64. */
static void put_own_field(struct record *r, const struct log_field *field)
{
	char key[64] = "HERMES_";
	size_t n = strlen(key);
	for (const char *s = field->key; *s && n + 1 < sizeof(key); s++)
		key[n++] = isalnum((unsigned char)*s) ? (char)toupper((unsigned char)*s) : '_';
	key[n] = '\0';
	put_field(r, key, field->value);
}

int log_sink_to_journal(int fd, const struct log_line *line)
{
	struct record r = {.length = 0};
	struct log_field field;
	char text[LOG_FIELDS + 256], id[33], number[16];
	snprintf(text, sizeof(text), "%s%s%s", line->event, *line->fields ? " " : "", line->fields);
	put_field(&r, "MESSAGE", text);
	snprintf(number, sizeof(number), "%d", line->priority);
	put_field(&r, "PRIORITY", number);
	log_message_id(line->event, id);
	put_field(&r, "MESSAGE_ID", id);
	snprintf(text, sizeof(text), "hermes-%s", line->role);
	put_field(&r, "SYSLOG_IDENTIFIER", text);
	put_field(&r, "HERMES_ROLE", line->role);
	put_field(&r, "HERMES_EVENT", line->event);
	for (const char *s = line->fields; (s = log_next_field(s, &field));)
		put_own_field(&r, &field);
	if (r.full)
		return -EMSGSIZE;
	return send(fd, r.data, r.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}
