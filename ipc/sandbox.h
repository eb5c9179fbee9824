/* What a worker gives up for good before it touches anybody's data. */
#ifndef HERMES_IPC_SANDBOX_H
#define HERMES_IPC_SANDBOX_H

#include "ipc/messages.h"

/* no-new-privileges, empty capability sets (but CAP_NET_ADMIN for tun-bridge), Landlock (no path at all; config-sync: its
 * state folder, HERMES_STATE_DIR), and the role's seccomp filter (default: errno EPERM, logged once at debug; execve,
 * ptrace, open of files and the socket families that the role has no use for are refused). Landlock is probed: an older
 * kernel or one without it logs once and goes on, seccomp then still refuses. HERMES_SANDBOX=off skips it, loudly
 * (debuggers). The user was changed by the supervisor before execve. Returns 0 or -errno. */
int sandbox_enter(enum ipc_role role);

#endif
