/* `route explain` and `policy explain`: the question that a tunnel worker would ask, asked by us, and its answer. */
#ifndef HERMES_SUPERVISOR_EXPLAIN_H
#define HERMES_SUPERVISOR_EXPLAIN_H

#include "ipc/messages.h"

struct supervisor;
struct explain;

/* status: the exit status for the caller; json or error. */
typedef void explain_done(void *arg, unsigned status, const char *json, const char *error);

struct explain *explain_new(struct supervisor *s);
void explain_free(struct explain *explain);
/* args: --listener L, --user U, --peer P, --method M, --protocol P, --scheme S, --authority A, --path P, --source ADDRESS,
 * --header NAME=VALUE, --time UNIX-SECONDS, --ip-protocol P, --ip-source A, --ip-destination A, --ip-port N, and a URL. Calls
 * done at once (wrong usage: status 2) or when the answer is there, or after 5 s. */
void explain_ask(struct explain *explain, const struct ipc_strs *args, explain_done *done, void *arg);
void explain_forget(struct explain *explain, const void *arg);
bool explain_idle(const struct explain *explain);   /* no question is open */
void explain_decided(struct explain *explain, const struct ipc_decision *m);

#endif
