/* What a worker gives up for good before it touches anybody's data. */
#ifndef HERMES_IPC_SANDBOX_H
#define HERMES_IPC_SANDBOX_H

#include "ipc/messages.h"

/* no-new-privileges, empty capability sets (but CAP_NET_ADMIN and CAP_NET_BIND_SERVICE for tun-bridge), Landlock (no path at
 * all; config-sync: its state folder, HERMES_STATE_DIR, and zoneinfo to read; tun-bridge: /dev/net/tun), and the role's
 * seccomp filter (default: errno EPERM; execve, fork, ptrace, executable memory, open of files and the socket families that
 * the role has no use for are refused). Landlock is probed: a kernel without it is logged once, seccomp then still refuses to open files, but
 * for config-sync, which file permissions then limit.
 *
 * Call it while the process has one thread (-EBUSY), and after whatever reads files: OpenSSL's configuration, time
 * zones. The user was changed by the supervisor before execve. HERMES_SANDBOX=off skips it all, loudly (debuggers, leak
 * checks); HERMES_SANDBOX=trace names every refused system call on standard error. Returns 0 or -errno. */
int sandbox_enter(enum ipc_role role);

#endif
