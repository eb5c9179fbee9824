/* Where log lines go: text or JSON on standard error, or the journal. Internal to ipc/. */
#ifndef HERMES_IPC_LOG_SINK_H
#define HERMES_IPC_LOG_SINK_H

#include <stddef.h>
#include <time.h>

#define LOG_FIELDS 3072   /* a whole line stays below PIPE_BUF, so that a pipe takes it whole or not at all */

struct log_line {
	struct timespec time;
	const char *role, *level, *event;
	const char *fields;       /* `key=value key="value"`, free of control characters */
	int priority;             /* of syslog(3) */
};

struct log_field {
	char key[64], value[LOG_FIELDS];
};
/* The next field of a line's text, its value unquoted; returns where to go on, NULL at the end. */
const char *log_next_field(const char *text, struct log_field *field);

/* Looks once, before the sandbox, at what standard error is. */
void log_sink_open(void);
/* A descriptor's number as text; returns it where it is a connected Unix datagram socket, else -1. */
int log_sink_journal(const char *number);
void log_sink_text(const struct log_line *line);
void log_sink_json(const struct log_line *line);
/* 0, or -errno: too long or the journal does not take it; standard error then gets it. */
int log_sink_to_journal(int fd, const struct log_line *line);
/* Lines dropped since last asked, where standard error takes lines again; else 0. */
unsigned long log_sink_lost(void);
/* The MESSAGE_ID of an event: FNV-1a over its phrase, 128 bits (offset basis 0x6c62272e07bb014262b821756295c58d, prime
 * 2^88 + 0x13b), as 32 hex digits; the same in every release that keeps the phrase. */
void log_message_id(const char *event, char out[33]);

#endif
