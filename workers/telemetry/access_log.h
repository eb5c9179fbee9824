/* The access logs of the configuration in force: each flow's record goes to all of them. */
#ifndef HERMES_TELEMETRY_ACCESS_LOG_H
#define HERMES_TELEMETRY_ACCESS_LOG_H

#include "ipc/messages.h"
#include "workers/telemetry/metrics.h"

struct access_log;
struct config;
struct event_base;

/* journal: the journal's connected socket (stays the caller's), or -1. NULL: no memory. */
struct access_log *access_log_new(struct event_base *base, int journal);
void access_log_free(struct access_log *log);

/* A log file from the supervisor, with `path` as the configuration writes it. generation 0: opened anew after rotation,
 * takes effect at once; else it waits for that generation. Takes over fd; -1: it could not be opened, error says why. */
void access_log_file(struct access_log *log, uint64_t generation, const char *path, int fd, const char *error);

/* Everything that the configuration logs to must be there: returns -1 and a reason for people where it is not. */
int access_log_prepare(struct access_log *log, uint64_t generation, const struct config *config, char *error, size_t size);
void access_log_commit(struct access_log *log, uint64_t generation);
void access_log_abort(struct access_log *log, uint64_t generation);

void access_log_record(struct access_log *log, const struct ipc_flow_record *record);
/* At the end, when no loop runs any more. */
void access_log_last(struct access_log *log);

/* Per destination; lives until the next commit. Returns how many. */
size_t access_log_counts(struct access_log *log, const struct log_counts **counts);

#endif
