#include "supervisor/privileges.h"
#include "ipc/log.h"
#include "ipc/net.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 1048576

void privileges_find(struct privileges *p)
{
	*p = (struct privileges){.root = geteuid() == 0, .uid = geteuid(), .gid = getegid(), .user = ""};
	struct group *group = getgrnam("hermes");
	if (group) {
		p->has_group = true;
		p->group = group->gr_gid;
	}
	if (!p->root) {
		log_warn("unprivileged", "uid=%u effect=%s", (unsigned)p->uid,
		         log_value("workers run as the same user; ports below 1024 and TUN devices are out of reach"));
		return;
	}
	struct passwd *user = getpwnam("hermes");
	p->user = user ? "hermes" : "nobody";
	if (!user)
		user = getpwnam("nobody");
	p->uid = user ? user->pw_uid : 65534;
	p->gid = user ? user->pw_gid : 65534;
	if (strcmp(p->user, "nobody") == 0)
		log_warn("user missing", "user=hermes effect=%s", log_value("workers run as nobody; create the user hermes"));
}

/* -500: after what is expendable, before what the machine cannot do without. */
static void spare_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, "-500", 4) < 0)
		log_debug("oom score", "error=%s", log_value(strerror(errno)));
	close(fd);
}

void privileges_limits(void)
{
	struct rlimit limit;
	umask(077);
	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? DESCRIPTORS_MAX : limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit))
			log_warn("descriptor limit", "error=%s", log_value(strerror(errno)));
	}
	spare_from_oom();
}

static int set_capabilities(uint64_t set, uint64_t inheritable)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)set, .permitted = (uint32_t)set, .inheritable = (uint32_t)inheritable},
		{.effective = (uint32_t)(set >> 32), .permitted = (uint32_t)(set >> 32)},
	};
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static uint64_t permitted_capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	if (syscall(SYS_capget, &header, data))
		return 0;
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

#define CAP_BIT(cap) (UINT64_C(1) << (cap))

void privileges_reduce(const struct privileges *p)
{
	/* SETUID, SETGID, SETPCAP: workers' users; KILL: ending them; NET_BIND_SERVICE: low ports; NET_ADMIN: raised channel
	 * buffers, and what tun-bridge keeps; CHOWN, FOWNER: store and admin socket; DAC: the administrator's files. */
	const uint64_t keep = CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID) | CAP_BIT(CAP_SETPCAP) | CAP_BIT(CAP_KILL) |
	                      CAP_BIT(CAP_NET_BIND_SERVICE) | CAP_BIT(CAP_NET_ADMIN) | CAP_BIT(CAP_CHOWN) |
	                      CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH);
	if (!p->root)
		return;
	for (int cap = 0; cap <= 63; cap++)
		if (!(keep & CAP_BIT(cap)) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	int error = set_capabilities(permitted_capabilities() & keep, 0);
	if (error)
		log_warn("capabilities kept", "error=%s", log_value(strerror(-error)));
}

int privileges_drop(const struct privileges *p, enum ipc_role role)
{
	if (!p->root)
		return 0;
	bool keep = role == IPC_TUN_BRIDGE && permitted_capabilities() & CAP_BIT(CAP_NET_ADMIN);
	if (keep && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
		return -errno;
	if (setgroups(0, NULL) || setresgid(p->gid, p->gid, p->gid) || setresuid(p->uid, p->uid, p->uid))
		return -errno;
	if (!keep)
		return 0;
	const uint64_t kept = permitted_capabilities() & (CAP_BIT(CAP_NET_ADMIN) | CAP_BIT(CAP_NET_BIND_SERVICE));
	int error = set_capabilities(kept, kept);
	for (int cap = 0; cap < 64 && !error; cap++)
		if (kept & CAP_BIT(cap) && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			error = -errno;
	return error;
}

void privileges_own_socket(const struct privileges *p, int fd)
{
	const uint32_t mark = NET_MARK_SELF;
	if (!p->root)
		return;
	/* not by giving it to the workers' user: whoever has that user (nobody) could then join its port */
	if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		log_debug("socket not marked", "error=%s", log_value(strerror(errno)));
}
