/* SPDX-License-Identifier: Apache-2.0 */
/* Options behind a verb: --name VALUE and --flag, anywhere among the other words. */
#ifndef HERMES_SUPERVISOR_ADMIN_OPTIONS_H
#define HERMES_SUPERVISOR_ADMIN_OPTIONS_H

#include <stdbool.h>

struct admin_option {
	const char *name;         /* "--node" */
	const char **value;       /* takes the next word; NULL: a flag */
	bool *flag;
};

/* Takes the options out of argv, which stays in order; ends at a name NULL. Returns how many words are left (in argv's beginning), or
 * -1 after saying what is wrong. */
int admin_options(int argc, char **argv, const struct admin_option *options);
/* "30", "30s", "10m", "1h", "2d" as seconds; -1: neither. */
double admin_seconds(const char *text);

#endif
