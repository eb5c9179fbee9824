/* Connects for workers that may not: policy to authorizers, config-sync to the controllers' way in, the controller to etcd. */
#ifndef HERMES_SUPERVISOR_DIAL_H
#define HERMES_SUPERVISOR_DIAL_H

#include "supervisor/child.h"

struct dialer;
struct dialer *dialer_new(struct supervisor *s);
void dialer_free(struct dialer *dialer);
/* No connection is being made. */
bool dialer_idle(const struct dialer *dialer);
/* Answers with DIALED within a second: a connected stream socket, or the reason. Only addresses that the configuration in
 * force names for the role are dialled; config-sync's is called "control". */
void dial(struct dialer *dialer, struct child *child, const struct ipc_dial *m);

#endif
