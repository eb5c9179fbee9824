/* The words of `route explain` to a question. */
#ifndef HERMES_SUPERVISOR_EXPLAIN_ARGS_H
#define HERMES_SUPERVISOR_EXPLAIN_ARGS_H

#include "ipc/messages.h"

struct config;

#define EXPLAIN_HEADERS_MAX 64

/* question points into the rest, into the words it was made from, and into the configuration. */
struct explain_args {
	struct ipc_question question;
	struct ipc_pair headers[EXPLAIN_HEADERS_MAX];
	char *owned[EXPLAIN_HEADERS_MAX + 4];
	size_t n_owned;
	char network[52];             /* the prefix, where it is a device's network that is asked about */
};

/* Adds what the listener or the TUN device would add (headers, the user that they name) and takes away what it would remove.
 * config may be NULL. Returns 0, or -1 with error for people. */
int explain_parse(const struct ipc_strs *args, const struct config *config, struct explain_args *out, char *error,
                  size_t size);
void explain_args_clear(struct explain_args *args);

#endif
