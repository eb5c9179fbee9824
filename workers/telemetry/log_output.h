/* Where an access log's lines go: a file, standard error or the journal. Buffers, never blocks, drops whole records where
 * nobody takes them, and says so. */
#ifndef HERMES_TELEMETRY_LOG_OUTPUT_H
#define HERMES_TELEMETRY_LOG_OUTPUT_H

#include "workers/telemetry/metrics.h"

struct event_base;
struct log_output;

#define LOG_FLUSH_BYTES (64u * 1024)
#define LOG_FLUSH_MS 100
#define LOG_BUFFER_MAX (1024u * 1024)   /* waiting bytes above which records are dropped */

/* to: as the configuration writes it. fd is taken over; standard error and the journal's socket are not ours: -1, and
 * journal is that socket where to is "journald". NULL: no memory. */
struct log_output *log_output_new(struct event_base *base, const char *to, int fd, int journal);
/* Writes what the file takes at once, and closes. */
void log_output_free(struct log_output *output);
/* After rotation: what waits goes to the old file, what comes to this one. Takes over fd. */
void log_output_reopen(struct log_output *output, int fd);

const char *log_output_to(const struct log_output *output);
bool log_output_is_journal(const struct log_output *output);
/* One record with its newline; or, for the journal, one entry in its native form. */
void log_output_write(struct log_output *output, const char *record, size_t length);
void log_output_flush(struct log_output *output);
/* Before the end, when no loop runs any more: what is not taken now is lost, and counted. */
void log_output_last(struct log_output *output);
/* A record that could not even be made. */
void log_output_lost(struct log_output *output);
const struct log_counts *log_output_counts(const struct log_output *output);

#endif
