/* Changes of configuration, one at a time, in two phases: compiled by config-sync, prepared by every worker and by
 * ourselves, stored, committed; or refused, and nothing has changed. */
#ifndef HERMES_SUPERVISOR_CHANGE_H
#define HERMES_SUPERVISOR_CHANGE_H

#include "supervisor/child.h"
#include "supervisor/lines.h"

struct change_result {
	bool ok, unchanged;
	uint64_t generation;      /* in force, refused, or 0 */
	struct lines errors, warnings;
};
/* Called once, when the change is in force or refused; result lives only as long as the call. */
typedef void change_done(void *arg, const struct change_result *result);

/* The fields of CONFIG_SUBMIT; strings are copied. One action more, "renew": what is in force is prepared and committed once
 * more under its own number, because files that it names have changed. */
struct change_request {
	const char *action, *name, *source, *author;
	uint64_t version;
	bool boot;
};

struct change;
struct change *change_new(struct supervisor *s);
void change_free(struct change *change);
/* Queues. Takes over fd (or -1). done is called at once when the queue is full. */
void change_submit(struct change *change, const struct change_request *request, int fd, change_done *done, void *arg);
/* The requester is gone: done will not be called. */
void change_forget(struct change *change, const void *arg);
/* Whether workers are preparing a new generation: no time to hand them the old one. */
bool change_preparing(const struct change *change);

/* None is under way, and none waits. While a worker is being replaced none is begun: then change_resume() goes on. */
bool change_idle(const struct change *change);
void change_resume(struct change *change);

/* From child.c and pool.c */
void change_compiled(struct change *change, struct child *child, const struct ipc_config_compiled *m, int *fd);
void change_prepared(struct change *change, struct child *child, uint64_t generation, const char *error);
void change_stored(struct change *change, struct child *child, const struct ipc_config_stored *m);
void change_child_lost(struct change *change, const struct child *child);
/* Something changed that a change may have waited for. */
void change_progress(struct change *change);

#endif
