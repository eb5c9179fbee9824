/* Landlock by its system calls: Debian 12's headers know ABI 2, kernels go on. */
#include "ipc/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What the header may not have yet (linux/landlock.h of 6.12). */
#define FS_ABI1 ((UINT64_C(1) << 13) - 1)
#define FS_REFER (UINT64_C(1) << 13)          /* ABI 2 */
#define FS_TRUNCATE (UINT64_C(1) << 14)       /* ABI 3 */
#define FS_IOCTL_DEV (UINT64_C(1) << 15)      /* ABI 5 */
#define NET_TCP (UINT64_C(3))                 /* ABI 4: bind and connect */
#define SCOPED (UINT64_C(3))                  /* ABI 6: abstract Unix sockets and signals of others */

struct ruleset {
	uint64_t handled_fs, handled_net, scoped;
};

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define CHANGE                                                                                                        \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |                  \
	 LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_TRUNCATE)
#define FILE_RIGHTS                                                                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE |    \
	 FS_IOCTL_DEV)

static struct ruleset ruleset_for(enum ipc_role role, long abi)
{
	struct ruleset r = {.handled_fs = FS_ABI1};
	if (abi >= 2)
		r.handled_fs |= FS_REFER;
	if (abi >= 3)
		r.handled_fs |= FS_TRUNCATE;
	if (abi >= 4 && role != IPC_TUNNEL)
		r.handled_net = NET_TCP;
	if (abi >= 5)
		r.handled_fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		r.scoped = SCOPED;
	return r;
}

/* A path that is not there needs no rule. */
static int allow(int ruleset, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr rule = {.allowed_access = rights};
	struct stat st;
	int error = 0;
	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(rule.parent_fd, &st))
		error = -errno;
	if (!error && !S_ISDIR(st.st_mode))
		rule.allowed_access &= FILE_RIGHTS;
	if (!error && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		error = -errno;
	close(rule.parent_fd);
	return error;
}

/* What a role has of the state folder. config-sync opens its store before the sandbox, and can do without: the keys lie beside it. */
static const char *state_part(enum ipc_role role)
{
	return role == IPC_CONTROLLER ? "controller" : role == IPC_KEEPER ? "keys" : NULL;
}

static int allow_role(int fd, enum ipc_role role, uint64_t handled)
{
	const char *state = getenv("HERMES_STATE_DIR"), *part = state_part(role);
	char path[4096];
	int error = 0;
	if (role == IPC_TUN_BRIDGE)
		return allow(fd, "/dev/net/tun",
		             handled & (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_IOCTL_DEV));
	if (part && snprintf(path, sizeof(path), "%s/%s", state ? state : "", part) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	if (part && state && *state)
		error = allow(fd, path, handled & (READ | CHANGE));
	/* time windows are compiled with their zones (store/config.h) */
	bool zones = role == IPC_CONFIG_SYNC || role == IPC_CONTROLLER;
	return error || !zones ? error : allow(fd, "/usr/share/zoneinfo", READ);
}

int sandbox_landlock(enum ipc_role role)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi < 1)
		return -EOPNOTSUPP;
	struct ruleset ruleset = ruleset_for(role, abi);
	int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
	if (fd < 0)
		return -errno;
	int error = allow_role(fd, role, ruleset.handled_fs);
	if (!error && syscall(SYS_landlock_restrict_self, fd, 0))
		error = -errno;
	close(fd);
	return error;
}
