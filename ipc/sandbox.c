#include "ipc/sandbox.h"
#include "ipc/log.h"
#include "ipc/sandbox_parts.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_LEAK_CHECK 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_LEAK_CHECK 1
#endif

static bool entered;

#ifdef WITH_LEAK_CHECK
#include <sanitizer/lsan_interface.h>

/* The leak check stops the process with clone and ptrace, which the sandbox refuses: a sandboxed worker goes without;
 * with HERMES_SANDBOX=off it is checked. */
int __lsan_is_turned_off(void)
{
	return entered;
}
#endif

int sandbox_capabilities(enum ipc_role role)
{
	/* NET_BIND_SERVICE: sockets that answer from a foreign address, often port 53 */
	const uint32_t keep = role == IPC_TUN_BRIDGE ? 1u << CAP_NET_ADMIN | 1u << CAP_NET_BIND_SERVICE : 0;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	for (int cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1 && !(cap < 32 && keep & 1u << cap))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);     /* EPERM: we could not give any of them anyway */
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && errno != EINVAL)
		return -errno;
	if (syscall(SYS_capget, &header, caps))
		return -errno;
	caps[0].effective = caps[0].permitted &= keep;
	caps[1].effective = caps[1].permitted = 0;
	caps[0].inheritable = caps[1].inheritable = 0;
	return syscall(SYS_capset, &header, caps) ? -errno : 0;
}

/* Landlock and capabilities are a thread's own: later threads inherit them, earlier ones would not. */
static bool single_thread(void)
{
	struct stat st;
	return stat("/proc/self/task", &st) || st.st_nlink <= 3;
}

static int close_doors(enum ipc_role role, bool trace)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	int error = sandbox_landlock(role);
	bool confined = !error;
	if (error == -EOPNOTSUPP)
		log_info("landlock missing", "%s", "effect=\"the seccomp filter alone keeps files closed\"");
	else if (error)
		return error;
	if (!confined && IPC_BIT(role) & (IPC_SYNC | IPC_CTL | IPC_KEEP))
		log_warn("files not confined", "%s", "reason=\"no Landlock: file permissions alone limit it\"");
	error = sandbox_capabilities(role);
	return error ? error : sandbox_filter(role, confined, trace);
}

int sandbox_enter(enum ipc_role role)
{
	const char *mode = getenv("HERMES_SANDBOX");
	if (role >= IPC_ROLE_COUNT || !(IPC_BIT(role) & IPC_WORKERS))
		return -EINVAL;
	if (mode && !strcmp(mode, "off")) {
		log_warn("sandbox off", "%s", "reason=HERMES_SANDBOX");
		return 0;
	}
	if (!single_thread())
		return -EBUSY;
	int error = close_doors(role, mode && !strcmp(mode, "trace"));
	if (!error) {
		entered = true;
		log_debug("sandbox entered", "role=%s", ipc_role_name(role));
	}
	return error;
}
