/* Structured logging: one event, one line. Each worker writes by itself: to the journal's native socket where the
 * supervisor handed one down (HERMES_JOURNAL_FD; MESSAGE_ID, PRIORITY and HERMES_* fields), else to standard error, as
 * text (`time level role[pid] event key=value ...`) or JSON (HERMES_LOG_FORMAT=json). Never blocks: what standard error
 * does not take at once is dropped and counted. */
#ifndef HERMES_IPC_LOG_H
#define HERMES_IPC_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG_, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };

/* role: static text that heads every line. Reads the environment above and HERMES_LOG_LEVEL. */
void log_open(const char *role);
/* "debug", "info", "warn", "error"; returns 0 or -EINVAL. */
int log_set_level(const char *level);
const char *log_get_level(void);
bool log_on(enum log_level level);

/* event: a short fixed phrase ("listener opened"). fmt: `key=%s key=%d` pairs; values with blanks are quoted for the
 * reader: write them with log_value(). Secrets never go here. */
void log_event(enum log_level level, const char *event, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Quoted and escaped where it needs to be; one of eight rotating buffers of 512 bytes (longer values are cut with "..."). */
const char *log_value(const char *text);

#define log_debug(...) do { if (log_on(LOG_DEBUG_)) log_event(LOG_DEBUG_, __VA_ARGS__); } while (0)
#define log_info(...) log_event(LOG_INFO_, __VA_ARGS__)
#define log_warn(...) log_event(LOG_WARN_, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR_, __VA_ARGS__)

/* Workers only: logs and exits with status 1. */
void fatal(const char *event, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif
