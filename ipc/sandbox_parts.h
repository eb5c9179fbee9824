/* The layers of the sandbox, in the order in which they close. Internal to ipc/. */
#ifndef HERMES_IPC_SANDBOX_PARTS_H
#define HERMES_IPC_SANDBOX_PARTS_H

#include "ipc/messages.h"

/* Denies every path, and TCP to all but tunnel, beyond what the role needs. Returns 0, -EOPNOTSUPP where the kernel has no
 * Landlock, or another -errno. Needs no-new-privileges. */
int sandbox_landlock(enum ipc_role role);

/* Lets go of every capability but those the role keeps, also out of the bounding set where that is allowed. */
int sandbox_capabilities(enum ipc_role role);

/* Allows the role its system calls; every other one fails with EPERM (or, to find out which, is told on standard error
 * first where trace is set). confined: Landlock is on, so that tun-bridge may be let open files. Last: nothing can be
 * added after it. */
int sandbox_filter(enum ipc_role role, bool confined, bool trace);

#endif
