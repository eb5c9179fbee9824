/* Every verb of hermes-admin: how it is called, and how its answer looks to people. */
#ifndef HERMES_SUPERVISOR_ADMIN_VERBS_H
#define HERMES_SUPERVISOR_ADMIN_VERBS_H

#include "supervisor/admin_client.h"
#include "supervisor/admin_table.h"

struct admin_call {
	const char *socket;
	bool json;
	const struct admin_verb *verb;
	int argc;                 /* words after the verb */
	char **argv;
};

struct admin_verb {
	const char *noun, *verb;  /* "flows", "list"; verb NULL: the noun alone */
	int min, max;             /* words that follow */
	const char *usage, *help;
	const char *rows;         /* member of the answer that is a list: a table; NULL: the answer itself, in pairs */
	const struct admin_column *columns;
	int (*run)(const struct admin_call *call);   /* NULL: ask and print */
	void (*print)(const json_t *document);       /* NULL: by rows and columns */
	bool file;                /* the first word is a document's name, or "-" */
};

/* matched: how many words of argv it took. NULL: no such verb. */
const struct admin_verb *admin_verb_find(int argc, char **argv, int *matched);
/* For help: all, or those of a noun. Returns how many were shown. */
int admin_verbs_usage(FILE *out, const char *noun);

/* Asks, prints, returns the exit status (the default of `run`). */
int admin_run(const struct admin_call *call);
/* Prints one answer: to standard output, or its error to standard error. */
int admin_print(const struct admin_call *call, const struct admin_reply *reply);
int admin_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* admin_trace.c */
int admin_ping(const struct admin_call *call);
int admin_traceroute(const struct admin_call *call);

/* admin_special.c */
int admin_wait(const struct admin_call *call);
int admin_watch(const struct admin_call *call);
int admin_stop(const struct admin_call *call);
int admin_bugreport(const struct admin_call *call);
int admin_restart(const struct admin_call *call);   /* admin_restart.c */
void admin_print_decision(const json_t *document);
void admin_print_change(const json_t *document);
void admin_print_document(const json_t *document);
void admin_print_stats(const json_t *document);
void admin_print_tunnels(const json_t *document);   /* admin_tunnels.c */

#endif
