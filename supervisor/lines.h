/* A growing list of owned strings: errors and warnings on their way to a person. */
#ifndef HERMES_SUPERVISOR_LINES_H
#define HERMES_SUPERVISOR_LINES_H

#include "ipc/messages.h"

struct lines {
	char **v;
	size_t n;
};

/* Copies; at most 64 are kept, further ones (and those that memory fails for) are dropped. */
void lines_add(struct lines *lines, const char *text);
void lines_addf(struct lines *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lines_add_all(struct lines *lines, const struct ipc_strs *from);
void lines_clear(struct lines *lines);
/* The first, or "" */
const char *lines_first(const struct lines *lines);

#endif
