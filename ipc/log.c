/* One event becomes one line of text, and, where JSON or the journal want fields, is taken apart again at its blanks and
 * equals signs: so callers write each event once, as people read it. */
#include "ipc/log.h"
#include "ipc/log_sink.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {
	[LOG_DEBUG_] = "debug", [LOG_INFO_] = "info", [LOG_WARN_] = "warn", [LOG_ERROR_] = "error",
};
#define LEVELS (sizeof(level_names) / sizeof(*level_names))

static struct {
	const char *role;
	enum log_level level;
	bool json;
	int journal;              /* connected to the journal's socket, or -1 */
} settings = {.role = "hermes", .level = LOG_INFO_, .journal = -1};

void log_open(const char *role)
{
	const char *format = getenv("HERMES_LOG_FORMAT"), *level = getenv("HERMES_LOG_LEVEL");
	const char *journal = getenv("HERMES_JOURNAL_FD");
	settings.role = role;
	settings.json = format && !strcmp(format, "json");
	settings.journal = journal ? log_sink_journal(journal) : -1;
	log_sink_open();
	if (level && log_set_level(level))
		log_warn("log level unknown", "value=%s", log_value(level));
}

int log_set_level(const char *level)
{
	for (unsigned i = 0; i < LEVELS; i++)
		if (level && !strcmp(level, level_names[i])) {
			settings.level = i;
			return 0;
		}
	return -EINVAL;
}

const char *log_get_level(void)
{
	return level_names[settings.level];
}

bool log_on(enum log_level level)
{
	return level >= settings.level;
}

/* --- escaping ------------------------------------------------------------------------------------------------------ */

/* Control characters never reach a terminal or split a line: C0 and DEL, and C1 in its UTF-8 form (U+0080 to U+009F).
 * Returns the bytes that make one, or 0. */
static size_t control_length(const unsigned char *s)
{
	if (*s < 0x20 || *s == 0x7f)
		return 1;
	return *s == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f ? 2 : 0;
}

/* Copies text with its control characters as \xNN, and, inside quotes, quotes and backslashes escaped. What does not fit
 * in size bytes is cut, marked with "...". */
static void copy_escaped(char *out, size_t size, const char *text, bool quoted)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t used = 0, limit = size - sizeof("...\"");
	if (quoted)
		out[used++] = '"';
	for (; *s; s++) {
		char piece[12] = {(char)*s, '\0'};
		size_t control = control_length(s);
		if (control)
			snprintf(piece, sizeof(piece), control == 2 ? "\\x%02x\\x%02x" : "\\x%02x", *s, s[1]);
		else if (quoted && (*s == '"' || *s == '\\'))
			snprintf(piece, sizeof(piece), "\\%c", *s);
		if (used + strlen(piece) > limit)
			break;
		memcpy(out + used, piece, strlen(piece));
		used += strlen(piece);
		s += control == 2;
	}
	snprintf(out + used, size - used, "%s%s", *s ? "..." : "", quoted ? "\"" : "");
}

const char *log_value(const char *text)
{
	static char buffers[8][512];
	static unsigned next;
	char *buffer = buffers[next++ % 8];
	if (!text)
		text = "-";
	bool quoted = !*text;
	for (const unsigned char *s = (const unsigned char *)text; *s && !quoted; s++)
		quoted = control_length(s) || strchr(" \"\\=", *s);
	copy_escaped(buffer, 512, text, quoted);
	return buffer;
}

/* --- fields -------------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Undoes the escapes of a quoted value, from after its opening quote; returns where the text goes on. */
static const char *unquote(const char *s, char *out, size_t size)
{
	size_t used = 0;
	for (; *s && *s != '"'; s++) {
		char c = *s;
		if (c == '\\' && s[1] == 'x' && hex(s[2]) >= 0 && hex(s[3]) >= 0) {
			c = (char)(hex(s[2]) << 4 | hex(s[3]));
			s += 3;
		} else if (c == '\\' && s[1])
			c = *++s;
		if (used + 1 < size)
			out[used++] = c;
	}
	out[used] = '\0';
	return *s ? s + 1 : s;
}

const char *log_next_field(const char *s, struct log_field *field)
{
	while (*s == ' ')
		s++;
	size_t n = strcspn(s, "= ");
	if (!n || s[n] != '=')
		return NULL;
	snprintf(field->key, sizeof(field->key), "%.*s", (int)n, s);
	s += n + 1;
	if (*s == '"')
		return unquote(s + 1, field->value, sizeof(field->value));
	n = strcspn(s, " ");
	snprintf(field->value, sizeof(field->value), "%.*s", (int)n, s);
	return s + n;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void emit(enum log_level level, const char *event, const char *fields)
{
	struct log_line line = {
		.role = settings.role, .level = level_names[level], .event = event, .fields = fields,
		.priority = level == LOG_DEBUG_ ? 7 : level == LOG_INFO_ ? 6 : level == LOG_WARN_ ? 4 : 3,
	};
	clock_gettime(CLOCK_REALTIME, &line.time);
	if (settings.journal >= 0 && !log_sink_to_journal(settings.journal, &line))
		return;
	if (settings.json)
		log_sink_json(&line);
	else
		log_sink_text(&line);
}

__attribute__((format(printf, 3, 0)))
static void event_va(enum log_level level, const char *event, const char *fmt, va_list args)
{
	char raw[LOG_FIELDS], fields[LOG_FIELDS];
	int saved = errno;
	vsnprintf(raw, sizeof(raw), fmt, args);
	copy_escaped(fields, sizeof(fields), raw, false);
	unsigned long lost = log_sink_lost();
	if (lost) {
		char text[48];
		snprintf(text, sizeof(text), "count=%lu", lost);
		emit(LOG_WARN_, "log lines dropped", text);
	}
	emit(level, event, fields);
	errno = saved;
}

void log_event(enum log_level level, const char *event, const char *fmt, ...)
{
	va_list args;
	if (!log_on(level))
		return;
	va_start(args, fmt);
	event_va(level, event, fmt, args);
	va_end(args);
}

void fatal(const char *event, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	event_va(LOG_ERROR_, event, fmt, args);
	va_end(args);
	exit(1);
}
