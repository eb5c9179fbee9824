/* The system calls of each role. What is missing here fails with EPERM; HERMES_SANDBOX=trace tells which. */
#include "ipc/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

struct call {
	int number;
	unsigned n;                       /* arguments checked */
	struct scmp_arg_cmp args[2];
};
#define CALL(name) {.number = SCMP_SYS(name)}
#define CALL_IS(name, arg, value) {.number = SCMP_SYS(name), .n = 1, .args = {{(arg), SCMP_CMP_EQ, (value), 0}}}
#define CALL_MASKED(name, arg, mask, value)                                                                           \
	{.number = SCMP_SYS(name), .n = 1, .args = {{(arg), SCMP_CMP_MASKED_EQ, (mask), (value)}}}
/* SOCK_CLOEXEC and SOCK_NONBLOCK ride on the type */
#define SOCKET(family, type)                                                                                          \
	{.number = SCMP_SYS(socket), .n = 2,                                                                          \
	 .args = {{0, SCMP_CMP_EQ, (family), 0}, {1, SCMP_CMP_MASKED_EQ, 0xf, (type)}}}

/* Memory (never executable), time, signals, locks, and everything on descriptors that are there already. */
static const struct call common[] = {
	CALL(brk), CALL(munmap), CALL(mremap), CALL(madvise), CALL_MASKED(mmap, 2, PROT_EXEC, 0),
	CALL_MASKED(mprotect, 2, PROT_EXEC, 0),
	CALL(clock_gettime), CALL(clock_getres), CALL(clock_nanosleep), CALL(nanosleep), CALL(gettimeofday), CALL(time),
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(sigaltstack), CALL(restart_syscall),
	CALL(futex), CALL(set_robust_list), CALL(rseq), CALL(membarrier), CALL(sched_yield), CALL(sched_getaffinity),
	CALL(getpid), CALL(gettid), CALL(getppid), CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid),
	CALL(getrandom), CALL(getrusage), CALL(sysinfo), CALL(uname), CALL(exit), CALL(exit_group),
	CALL_IS(prctl, 0, PR_SET_NAME), CALL_IS(prlimit64, 2, 0),
	CALL(read), CALL(readv), CALL(pread64), CALL(write), CALL(writev), CALL(pwritev2), CALL(close), CALL(lseek),
	CALL(fstat), CALL_MASKED(newfstatat, 3, AT_EMPTY_PATH, AT_EMPTY_PATH),
	CALL(poll), CALL(ppoll), CALL(select), CALL(pselect6),
	CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait), CALL(epoll_pwait), CALL(epoll_pwait2),
	CALL(eventfd2), CALL(timerfd_create), CALL(timerfd_settime), CALL(timerfd_gettime), CALL(pipe2),
	CALL(memfd_create), CALL(ftruncate),
	CALL_IS(fcntl, 1, F_GETFD), CALL_IS(fcntl, 1, F_SETFD), CALL_IS(fcntl, 1, F_GETFL), CALL_IS(fcntl, 1, F_SETFL),
	CALL_IS(fcntl, 1, F_DUPFD_CLOEXEC), CALL_IS(fcntl, 1, F_GET_SEALS), CALL_IS(fcntl, 1, F_ADD_SEALS),
	CALL_IS(ioctl, 1, FIONREAD), CALL_IS(ioctl, 1, FIONBIO),
	CALL(sendmsg), CALL(recvmsg), CALL(sendto), CALL(recvfrom), CALL(shutdown), CALL(getsockopt),
	CALL(setsockopt), CALL(getsockname), CALL(getpeername),
};

/* The data path, one thread that hashes passwords, Unix sockets of endpoints. */
static const struct call tunnel[] = {
	SOCKET(AF_INET, SOCK_STREAM), SOCKET(AF_INET, SOCK_DGRAM), SOCKET(AF_INET6, SOCK_STREAM),
	SOCKET(AF_INET6, SOCK_DGRAM), SOCKET(AF_UNIX, SOCK_STREAM),
	CALL(bind), CALL(connect), CALL(listen), CALL(accept4), CALL(sendmmsg), CALL(recvmmsg), CALL(splice), CALL(tee),
	CALL_IS(fcntl, 1, F_SETPIPE_SZ), CALL_IS(fcntl, 1, F_GETPIPE_SZ), CALL_IS(ioctl, 1, SIOCOUTQ),
	CALL_MASKED(clone, 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM), CALL(mlock), CALL(munlock),
};

/* Metrics are served on a listener that comes bound; logs are written to descriptors that come open. */
static const struct call telemetry[] = {CALL(listen), CALL(accept4), CALL(fsync), CALL(fdatasync)};

/* A folder that Landlock confines: config-sync's store, keeper's keys, the controller's store. */
static const struct call folder[] = {
	CALL(open), CALL(openat), CALL(stat), CALL(lstat), CALL(newfstatat), CALL(statx), CALL(access), CALL(faccessat),
	CALL(faccessat2), CALL(getdents64), CALL(readlink), CALL(readlinkat), CALL(mkdir), CALL(mkdirat), CALL(unlink),
	CALL(unlinkat), CALL(rename), CALL(renameat), CALL(renameat2), CALL(statfs), CALL(fstatfs), CALL(fchmod),
	CALL(pwrite64), CALL(pwritev), CALL(fsync), CALL(fdatasync), CALL(sync_file_range), CALL(msync), CALL(fallocate),
	CALL(flock), CALL_IS(fcntl, 1, F_GETLK), CALL_IS(fcntl, 1, F_SETLK), CALL_IS(fcntl, 1, F_SETLKW),
};

/* The folder (above), and a socket that comes bound. What it dials, the supervisor dials for it. */
static const struct call controller[] = {CALL(listen), CALL(accept4)};

/* Devices; addresses, routes and packet filter by netlink sockets that are open before; sockets bound to foreign addresses. */
static const struct call tun_bridge[] = {
	SOCKET(AF_INET, SOCK_DGRAM), SOCKET(AF_INET6, SOCK_DGRAM), CALL(bind),
	CALL_IS(ioctl, 1, TUNSETIFF), CALL_IS(ioctl, 1, TUNGETIFF), CALL_IS(ioctl, 1, TUNSETOFFLOAD),
	CALL_IS(ioctl, 1, TUNSETVNETHDRSZ), CALL_IS(ioctl, 1, TUNSETQUEUE), CALL_IS(ioctl, 1, TUNGETFEATURES),
};

/* /dev/net/tun, where Landlock sees to it that it is no other path. (config-sync cannot do without files.) */
static const struct call tun_bridge_confined[] = {CALL(openat)};

static const struct {
	const struct call *calls;
	size_t n;
} roles[IPC_ROLE_COUNT] = {
#define ROLE(id, list) [id] = {list, sizeof(list) / sizeof(*(list))}
	ROLE(IPC_TUNNEL, tunnel), ROLE(IPC_TELEMETRY, telemetry), ROLE(IPC_TUN_BRIDGE, tun_bridge),
	ROLE(IPC_CONTROLLER, controller),     /* policy and router: nothing of their own */
#undef ROLE
};

static int allow_all(scmp_filter_ctx ctx, const struct call *calls, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int error = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, calls[i].number, calls[i].n, calls[i].args);
		if (error && error != -EDOM)      /* a call that this architecture has not */
			return error;
	}
	return 0;
}

static int allow_role(scmp_filter_ctx ctx, enum ipc_role role, bool confined)
{
	/* abort() signals itself, nobody else */
	const struct call own_signals = CALL_IS(tgkill, 0, (scmp_datum_t)getpid());
	int error = allow_all(ctx, common, sizeof(common) / sizeof(*common));
	if (!error)
		error = allow_all(ctx, &own_signals, 1);
	if (!error)
		error = allow_all(ctx, roles[role].calls, roles[role].n);
	if (!error && IPC_BIT(role) & (IPC_SYNC | IPC_CTL | IPC_KEEP))
		error = allow_all(ctx, folder, sizeof(folder) / sizeof(*folder));
	if (!error && role == IPC_TUN_BRIDGE && confined)
		error = allow_all(ctx, tun_bridge_confined, 1);
	/* its flags lie in memory, out of a filter's sight: the C library then takes clone, whose flags do not */
	if (!error)
		error = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return error;
}

/* --- tracing: for whoever looks for a call that the list lacks ----------------------------------------------------- */

static void on_refused(int signal, siginfo_t *info, void *context)
{
	char text[64];
	ucontext_t *uc = context;
	int n = snprintf(text, sizeof(text), "sandbox: system call %d refused\n", info->si_syscall);
	ssize_t ignored = write(STDERR_FILENO, text, (size_t)n);
	(void)ignored;
	(void)signal;
#if defined(__x86_64__)
	uc->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined(__aarch64__)
	uc->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#else
	(void)uc;
#endif
}

static int watch_refusals(void)
{
	struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER};
	return sigaction(SIGSYS, &action, NULL) ? -errno : 0;
}

int sandbox_filter(enum ipc_role role, bool confined, bool trace)
{
	int error = trace ? watch_refusals() : 0;
	scmp_filter_ctx ctx = error ? NULL : seccomp_init(trace ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return error ? error : -ENOMEM;
	error = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!error)
		error = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);   /* binary tree: for the data path */
	if (!error)
		error = allow_role(ctx, role, confined);
	if (!error)
		error = seccomp_load(ctx);
	seccomp_release(ctx);
	return error;
}
