/* What `route explain` and `policy explain` tell: sentences for people, gathered while deciding. Bounded, so that a
 * decision with its trace always fits one message. */
#ifndef HERMES_STORE_TRACE_H
#define HERMES_STORE_TRACE_H

#include <stdbool.h>
#include <stddef.h>

#define TRACE_MAX 200
#define TRACE_BYTES (36u * 1024)

struct trace {
	const char *v[TRACE_MAX];
	size_t n, used;
	bool full;
	char text[TRACE_BYTES];
};

/* Appends one sentence (at most 255 bytes). trace NULL: nobody wants to know. What does not fit is left out, and the
 * last sentence then says so. */
void trace_add(struct trace *trace, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void trace_reset(struct trace *trace);

#endif
