#include "workers/telemetry/log_output.h"
#include "ipc/log.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define COMPLAIN_EVERY 10     /* s between two complaints about one log */

enum kind { KIND_FILE, KIND_SOCKET, KIND_PIPE, KIND_JOURNAL };

struct log_output {
	char *to;
	int fd;
	bool owned;               /* fd closes with us */
	enum kind kind;
	struct text buffer;       /* whole records that wait */
	bool torn;                /* the front of the buffer is the rest of a record that is written in part */
	struct event *timer;
	struct log_counts counts;
	time_t complained;        /* CLOCK_MONOTONIC */
	uint64_t complained_at;   /* drops at that time */
	int error;                /* the last one, for the complaint */
};

/* Pipes and terminals (KIND_PIPE) may be shared with others and stay blocking: they are polled, and get at most PIPE_BUF. */
static enum kind kind_of(int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		return KIND_PIPE;
	return S_ISREG(st.st_mode) ? KIND_FILE : S_ISSOCK(st.st_mode) ? KIND_SOCKET : KIND_PIPE;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	log_output_flush(arg);
}

struct log_output *log_output_new(struct event_base *base, const char *to, int fd, int journal)
{
	struct log_output *output = calloc(1, sizeof(*output));
	if (output) {
		*output = (struct log_output){.fd = fd, .owned = fd >= 0, .complained = -COMPLAIN_EVERY};
		output->to = strdup(to);
		output->timer = evtimer_new(base, on_timer, output);
	}
	if (!output || !output->to || !output->timer) {
		if (fd >= 0)
			close(fd);
		if (output) {
			output->owned = false;
			log_output_free(output);
		}
		return NULL;
	}
	output->counts.to = output->to;
	if (fd < 0)
		output->fd = journal >= 0 ? journal : STDERR_FILENO;
	output->kind = journal >= 0 ? KIND_JOURNAL : kind_of(output->fd);
	return output;
}

void log_output_free(struct log_output *output)
{
	if (!output)
		return;
	if (output->buffer.length)
		log_output_last(output);
	if (output->timer)
		event_free(output->timer);
	if (output->owned)
		close(output->fd);
	text_free(&output->buffer);
	free(output->to);
	free(output);
}

const char *log_output_to(const struct log_output *output)
{
	return output->to;
}

bool log_output_is_journal(const struct log_output *output)
{
	return output->kind == KIND_JOURNAL;
}

const struct log_counts *log_output_counts(const struct log_output *output)
{
	return &output->counts;
}

/* Says, but not too often, that records are lost. */
static void complain(struct log_output *output)
{
	struct timespec ts;
	uint64_t dropped = output->counts.dropped_full + output->counts.dropped_error;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	if (dropped == output->complained_at || ts.tv_sec - output->complained < COMPLAIN_EVERY)
		return;
	log_error("access log loses records", "to=%s dropped=%" PRIu64 " error=%s", log_value(output->to),
	          dropped - output->complained_at, log_value(output->error ? strerror(output->error) : "buffer full"));
	output->complained = ts.tv_sec;
	output->complained_at = dropped;
}

static ssize_t write_some(const struct log_output *output, const char *data, size_t length)
{
	struct pollfd p = {.fd = output->fd, .events = POLLOUT};
	if (output->kind == KIND_FILE)
		return write(output->fd, data, length);
	if (output->kind == KIND_SOCKET)
		return send(output->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT)) {
		errno = p.revents & (POLLERR | POLLHUP | POLLNVAL) ? EPIPE : EAGAIN;
		return -1;
	}
	return write(output->fd, data, length < PIPE_BUF ? length : PIPE_BUF);
}

static uint64_t count_records(const char *data, size_t length)
{
	uint64_t n = 0;
	for (const char *end = data + length; (data = memchr(data, '\n', (size_t)(end - data))); data++)
		n++;
	return n;
}

/* A broken destination loses what waits from `done` on; of a record that is there in part the rest stays, so that the next
 * one begins on a line of its own. */
static void drop_waiting(struct log_output *output, size_t done)
{
	struct text *buffer = &output->buffer;
	size_t keep = done;
	if (output->torn)
		keep = (size_t)((char *)memchr(buffer->data + done, '\n', buffer->length - done) + 1 - buffer->data);
	output->counts.dropped_error += count_records(buffer->data + keep, buffer->length - keep);
	buffer->length = keep;
}

/* Writes what is taken now. */
static void write_waiting(struct log_output *output)
{
	struct text *buffer = &output->buffer;
	size_t done = 0;
	while (done < buffer->length) {
		ssize_t n = write_some(output, buffer->data + done, buffer->length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			output->error = n ? errno : ENOSPC;
			if (output->error != EAGAIN)
				drop_waiting(output, done);
			break;
		}
		output->counts.written += count_records(buffer->data + done, (size_t)n);
		done += (size_t)n;
		output->torn = buffer->data[done - 1] != '\n';
		output->error = 0;
	}
	complain(output);
	if (!buffer->length)
		return;
	memmove(buffer->data, buffer->data + done, buffer->length - done);
	buffer->length -= done;
}

void log_output_flush(struct log_output *output)
{
	static const struct timeval later = {.tv_usec = LOG_FLUSH_MS * 1000};
	write_waiting(output);
	if (output->buffer.length)
		evtimer_add(output->timer, &later);
}

void log_output_last(struct log_output *output)
{
	write_waiting(output);
	if (!output->buffer.length)
		return;
	output->counts.dropped_full += count_records(output->buffer.data, output->buffer.length);
	text_clear(&output->buffer);
	output->complained -= COMPLAIN_EVERY;
	complain(output);
}

static void send_to_journal(struct log_output *output, const char *entry, size_t length)
{
	if (send(output->fd, entry, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
		output->counts.written++;
		return;
	}
	output->error = errno;
	if (errno == EAGAIN)
		output->counts.dropped_full++;
	else
		output->counts.dropped_error++;
	complain(output);
}

void log_output_lost(struct log_output *output)
{
	output->counts.dropped_error++;
	output->error = ENOMEM;
	complain(output);
}

void log_output_write(struct log_output *output, const char *record, size_t length)
{
	static const struct timeval soon = {.tv_usec = LOG_FLUSH_MS * 1000};
	if (output->kind == KIND_JOURNAL) {
		send_to_journal(output, record, length);
		return;
	}
	if (output->buffer.length + length > LOG_BUFFER_MAX)
		log_output_flush(output);
	if (output->buffer.length + length > LOG_BUFFER_MAX) {
		output->counts.dropped_full++;
		complain(output);
		return;
	}
	size_t before = output->buffer.length;
	text_put(&output->buffer, record, length);
	if (output->buffer.failed) {
		output->buffer.failed = false;
		log_output_lost(output);
	}
	/* a flush that could not write all tries again by its timer, not at every record */
	if (before < LOG_FLUSH_BYTES && output->buffer.length >= LOG_FLUSH_BYTES)
		log_output_flush(output);
	else if (!evtimer_pending(output->timer, NULL))
		evtimer_add(output->timer, &soon);
}

void log_output_reopen(struct log_output *output, int fd)
{
	log_output_flush(output);
	if (output->owned)
		close(output->fd);
	output->fd = fd;
	output->owned = true;
	output->kind = kind_of(fd);
	if (output->torn) {         /* its rest would be a fragment in the new file */
		struct text *buffer = &output->buffer;
		size_t rest = (size_t)((char *)memchr(buffer->data, '\n', buffer->length) + 1 - buffer->data);
		memmove(buffer->data, buffer->data + rest, buffer->length - rest);
		buffer->length -= rest;
		output->counts.dropped_error++;
		output->torn = false;
	}
}
