/* The supervisor in place: its program as it is on disk now takes the process over, with its sockets, devices and workers. The order:
 * the new program, run as a child, says whether it can take the state; all that is under way ends; the state is written; it is
 * executed; it runs; then the workers are replaced one after another. Until it runs the one before is executed again where it fails. */
#ifndef HERMES_SUPERVISOR_RESTART_H
#define HERMES_SUPERVISOR_RESTART_H

#include "supervisor/child.h"

struct restart;
struct state;
struct restart *restart_new(struct supervisor *s);
void restart_free(struct restart *restart);

/* 0, and control_restarted() tells later (from the new image, if all goes well) what became of it; or -1 with the reason. */
int restart_begin(struct restart *restart, char *error, size_t size);
/* hermesd stops instead. */
void restart_cancel(struct restart *restart);
/* SIGCHLD */
void restart_reap(struct restart *restart);

/* In the new image: adopts, before the loop runs. 0, or -1 with the reason; then the process is of no use. */
int restart_adopt(struct restart *restart, const struct state *state, char *error, size_t size);
/* hermesd --accept-state: reads the state that it would take over, and says what is wrong with it on standard error. Exit status. */
int restart_accept(int state);

#endif
