/* Orderly replacement, one worker at a time: the new one serves before the old one is told to stop, so that nobody notices; where
 * there may only be one (who writes a store), the new one starts when the old one has ended, and the old program again where the
 * new one fails. No change of configuration runs at the same time. A tunnel worker has at most two predecessors that drain: a third
 * replacement waits. */
#ifndef HERMES_SUPERVISOR_REPLACE_H
#define HERMES_SUPERVISOR_REPLACE_H

#include "supervisor/child.h"

struct replace;
/* Called once: the worker serves (error NULL), or the one before goes on, for that reason. */
typedef void replace_done(void *arg, const char *worker, const char *error);

struct replace *replace_new(struct supervisor *s);
void replace_free(struct replace *replace);
/* Queues; the new worker executes the program as it is on disk now. why: for the log. done may be NULL. */
void replace_submit(struct replace *replace, struct slot *slot, const char *why, replace_done *done, void *arg);
/* The requester is gone: done will not be called. */
void replace_forget(struct replace *replace, const void *arg);
/* Everything that waits ends, for that reason. */
void replace_cancel(struct replace *replace, const char *why);
/* A worker is being replaced just now; or is, or waits to be. */
bool replace_busy(const struct replace *replace);
bool replace_pending(const struct replace *replace, const struct slot *slot);

/* From pool.c and change.c: something changed that a replacement may have waited for; a worker of the slot serves; one was lost
 * before it served; one was reaped; none could be started. */
void replace_progress(struct replace *replace);
void replace_served(struct replace *replace, struct child *child);
void replace_lost(struct replace *replace, const struct child *child);
void replace_reaped(struct replace *replace, pid_t pid, const char *how);
void replace_not_started(struct replace *replace, const struct slot *slot, const char *why);

#endif
