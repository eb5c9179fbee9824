#include "ipc/sandbox.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/prctl.h>

int sandbox_enter(enum ipc_role role)
{
	(void)role;
	static const int refused[] = {SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(mount)};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int error = ctx ? 0 : -ENOMEM;
	for (unsigned i = 0; !error && i < sizeof(refused) / sizeof(*refused); i++)
		error = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	if (!error)
		error = seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}
