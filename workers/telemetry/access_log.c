#include "workers/telemetry/access_log.h"
#include "ipc/log.h"
#include "store/config.h"
#include "workers/telemetry/log_output.h"
#include "workers/telemetry/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOGS_MAX 32u          /* destinations in one configuration */

/* A file that came and waits for its configuration. */
struct waiting {
	uint64_t generation;
	char *path, *error;
	int fd;
};

/* One entry of `access_log:`; several may share a destination. */
struct sink {
	struct log_output *output;
	bool json, start;
};

struct plan {
	struct sink sinks[LOGS_MAX];
	size_t n_sinks;
	struct log_output *outputs[LOGS_MAX];
	size_t n_outputs;
};

struct access_log {
	struct event_base *base;
	int journal;
	struct plan in_force, prepared;   /* prepared shares outputs with in_force where the destination stays */
	struct waiting waiting[2 * LOGS_MAX];
	size_t n_waiting;
	struct log_counts counts[LOGS_MAX];
	struct text line;
};

struct access_log *access_log_new(struct event_base *base, int journal)
{
	struct access_log *log = calloc(1, sizeof(*log));
	if (log) {
		log->base = base;
		log->journal = journal;
	}
	return log;
}

/* --- files that wait ----------------------------------------------------------------------------------------------- */

static void clear_waiting(struct waiting *w)
{
	if (w->fd >= 0)
		close(w->fd);
	free(w->path);
	free(w->error);
}

/* generation 0: all */
static void forget_waiting(struct access_log *log, uint64_t generation)
{
	size_t kept = 0;
	for (size_t i = 0; i < log->n_waiting; i++)
		if (generation && log->waiting[i].generation != generation)
			log->waiting[kept++] = log->waiting[i];
		else
			clear_waiting(&log->waiting[i]);
	log->n_waiting = kept;
}

static struct waiting *find_waiting(struct access_log *log, uint64_t generation, const char *path)
{
	for (size_t i = 0; i < log->n_waiting; i++)
		if (log->waiting[i].generation == generation && !strcmp(log->waiting[i].path, path))
			return &log->waiting[i];
	return NULL;
}

static void keep_waiting(struct access_log *log, uint64_t generation, const char *path, int fd, const char *error)
{
	struct waiting *w = find_waiting(log, generation, path);
	if (w) {
		clear_waiting(w);
	} else if (log->n_waiting < sizeof(log->waiting) / sizeof(*log->waiting)) {
		w = &log->waiting[log->n_waiting++];
	} else {
		log_warn("log file not taken", "path=%s reason=\"too many\"", log_value(path));
		if (fd >= 0)
			close(fd);
		return;
	}
	*w = (struct waiting){.generation = generation, .path = strdup(path), .error = error ? strdup(error) : NULL, .fd = fd};
	if (!w->path)
		fatal("out of memory", "at=%s", "log file");
}

/* --- destinations -------------------------------------------------------------------------------------------------- */

static struct log_output *find_output(const struct plan *plan, const char *to)
{
	for (size_t i = 0; i < plan->n_outputs; i++)
		if (!strcmp(log_output_to(plan->outputs[i]), to))
			return plan->outputs[i];
	return NULL;
}

static bool shares(const struct plan *plan, const struct log_output *output)
{
	for (size_t i = 0; i < plan->n_outputs; i++)
		if (plan->outputs[i] == output)
			return true;
	return false;
}

/* Empties the plan; destinations that `other` has too live on. */
static void discard(struct plan *plan, const struct plan *other)
{
	for (size_t i = 0; i < plan->n_outputs; i++)
		if (!shares(other, plan->outputs[i]))
			log_output_free(plan->outputs[i]);
	*plan = (struct plan){0};
}

void access_log_free(struct access_log *log)
{
	if (!log)
		return;
	discard(&log->prepared, &log->in_force);
	discard(&log->in_force, &log->prepared);
	forget_waiting(log, 0);
	text_free(&log->line);
	free(log);
}

void access_log_file(struct access_log *log, uint64_t generation, const char *path, int fd, const char *error)
{
	if (generation) {
		keep_waiting(log, generation, path, fd, error);
		return;
	}
	struct log_output *output = find_output(&log->in_force, path);
	if (fd < 0)
		log_error("access log not opened again", "path=%s error=%s", log_value(path), log_value(error));
	else if (output)
		log_output_reopen(output, fd);
	else
		close(fd);
}

static struct log_output *make_output(struct access_log *log, uint64_t generation, const char *to, char *error, size_t size)
{
	struct waiting *w = find_waiting(log, generation, to);
	struct log_output *output = NULL;
	bool journal = !strcmp(to, "journald");
	snprintf(error, size, "access_log %s: out of memory", to);
	if (journal && log->journal < 0)
		snprintf(error, size, "access_log journald: the journal is not there (hermesd does not run under systemd)");
	else if (journal || !strcmp(to, "stderr"))
		output = log_output_new(log->base, to, -1, journal ? log->journal : -1);
	else if (!w || w->fd < 0)
		snprintf(error, size, "access_log %s: %s", to, w && w->error ? w->error : "the file was not handed over");
	else {
		output = log_output_new(log->base, to, w->fd, -1);
		w->fd = -1;
	}
	return output;
}

/* The destination `to`: of this plan, of the one in force, or new. NULL: error says why. */
static struct log_output *obtain(struct access_log *log, uint64_t generation, const char *to, char *error, size_t size)
{
	struct log_output *output = find_output(&log->prepared, to);
	if (output)
		return output;
	output = find_output(&log->in_force, to);
	if (!output)
		output = make_output(log, generation, to, error, size);
	if (output)
		log->prepared.outputs[log->prepared.n_outputs++] = output;
	return output;
}

int access_log_prepare(struct access_log *log, uint64_t generation, const struct config *config, char *error, size_t size)
{
	discard(&log->prepared, &log->in_force);
	const struct config_telemetry *telemetry = &config->telemetry;
	if (telemetry->n_access_log > LOGS_MAX) {
		snprintf(error, size, "access_log: at most %u entries", LOGS_MAX);
		return -1;
	}
	for (size_t i = 0; i < telemetry->n_access_log; i++) {
		const struct config_log *entry = &telemetry->access_log[i];
		struct log_output *output = obtain(log, generation, entry->to, error, size);
		if (!output) {
			access_log_abort(log, generation);
			return -1;
		}
		log->prepared.sinks[log->prepared.n_sinks++] =
			(struct sink){.output = output, .json = entry->json, .start = entry->start};
	}
	return 0;
}

/* A destination that stays may have been opened anew all the same: its file may be another by now. */
static void use_new_files(struct access_log *log, uint64_t generation)
{
	for (size_t i = 0; i < log->n_waiting; i++) {
		struct waiting *w = &log->waiting[i];
		struct log_output *output = find_output(&log->in_force, w->path);
		if (w->generation != generation || w->fd < 0 || !output)
			continue;
		log_output_reopen(output, w->fd);
		w->fd = -1;
	}
}

void access_log_commit(struct access_log *log, uint64_t generation)
{
	discard(&log->in_force, &log->prepared);
	log->in_force = log->prepared;
	log->prepared = (struct plan){0};
	use_new_files(log, generation);
	forget_waiting(log, 0);
}

void access_log_abort(struct access_log *log, uint64_t generation)
{
	discard(&log->prepared, &log->in_force);
	forget_waiting(log, generation);
}

/* --- records ------------------------------------------------------------------------------------------------------- */

static void write_record(struct access_log *log, const struct sink *sink, const struct ipc_flow_record *record)
{
	struct text *line = &log->line;
	if (log_output_is_journal(sink->output))
		record_journal(record, sink->json, line);
	else if (sink->json)
		record_json(record, line);
	else
		record_text(record, line);
	if (line->failed)
		log_output_lost(sink->output);
	else
		log_output_write(sink->output, line->data, line->length);
}

void access_log_record(struct access_log *log, const struct ipc_flow_record *record)
{
	bool start = record->event && !strcmp(record->event, "start");
	for (size_t i = 0; i < log->in_force.n_sinks; i++)
		if (!start || log->in_force.sinks[i].start)
			write_record(log, &log->in_force.sinks[i], record);
}

void access_log_last(struct access_log *log)
{
	for (size_t i = 0; i < log->in_force.n_outputs; i++)
		if (!log_output_is_journal(log->in_force.outputs[i]))
			log_output_last(log->in_force.outputs[i]);
}

size_t access_log_counts(struct access_log *log, const struct log_counts **counts)
{
	for (size_t i = 0; i < log->in_force.n_outputs; i++)
		log->counts[i] = *log_output_counts(log->in_force.outputs[i]);
	*counts = log->counts;
	return log->in_force.n_outputs;
}
