#include "supervisor/spawn.h"
#include "ipc/channel.h"
#include "ipc/log.h"
#include "ipc/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define JOURNAL_FD 4
#define HIGH_FD 16       /* where descriptors wait while 3 and 4 are laid out */
#define ENVIRONMENT_MAX 16

void spawn_find_libexec(struct spawner *s)
{
	const char *given = secure_getenv("HERMES_LIBEXEC_DIR");
	char self[2048];
	if (given && *given) {
		snprintf(s->libexec, sizeof(s->libexec), "%s", given);
		return;
	}
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(self, '/');
	if (slash) {
		*slash = '\0';
		snprintf(s->libexec, sizeof(s->libexec), "%s/../libexec/hermes-tunnel", self);
		if (access(s->libexec, F_OK) == 0) {
			snprintf(s->libexec, sizeof(s->libexec), "%s/../libexec", self);
			return;
		}
	}
	snprintf(s->libexec, sizeof(s->libexec), "/usr/libexec/hermes");
}

/* --- the environment: nothing of ours but what workers read --------------------------------------------------------- */

struct environment {
	char *v[ENVIRONMENT_MAX + 1];
	size_t n;
};

static void put(struct environment *e, const char *name, const char *value)
{
	if (value && e->n < ENVIRONMENT_MAX && asprintf(&e->v[e->n], "%s=%s", name, value) > 0)
		e->n++;
}

static void environment_make(struct environment *e, const struct spawner *s, enum ipc_role role)
{
	char slot[16];
	put(e, "PATH", "/usr/bin:/bin");
	put(e, "LANG", "C.UTF-8");
	put(e, "HERMES_LOG_LEVEL", log_get_level());
	put(e, "HERMES_LOG_FORMAT", getenv("HERMES_LOG_FORMAT"));
	put(e, "HERMES_SANDBOX", secure_getenv("HERMES_SANDBOX"));
	if (s->journal_fd >= 0)
		put(e, "HERMES_JOURNAL_FD", "4");
	snprintf(slot, sizeof(slot), "%u", s->net_slot);
	if (role == IPC_TUN_BRIDGE && s->privileges->root)
		put(e, "HERMES_NET_SLOT", slot);
	if (IPC_BIT(role) & (IPC_SYNC | IPC_CTL | IPC_KEEP))
		put(e, "HERMES_STATE_DIR", s->state_dir);
	if (role == IPC_TUNNEL)
		put(e, "HERMES_RUNTIME_DIR", s->runtime_dir);
	/* sanitizers' settings */
	put(e, "ASAN_OPTIONS", secure_getenv("ASAN_OPTIONS"));
	put(e, "UBSAN_OPTIONS", secure_getenv("UBSAN_OPTIONS"));
	put(e, "LSAN_OPTIONS", secure_getenv("LSAN_OPTIONS"));
}

static void environment_clear(struct environment *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->v[i]);
}

/* --- in the child --------------------------------------------------------------------------------------------------- */

static void __attribute__((noreturn)) child_failed(const char *program, const char *what, int error)
{
	dprintf(STDERR_FILENO, "hermesd: %s: %s: %s\n", program, what, strerror(error));
	_exit(127);
}

static int raised(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
}

/* 0: /dev/null, 1 and 2: ours, 3: the channel, 4: the journal; `program` stays until execve. */
static int lay_out_descriptors(int channel, int journal, int program)
{
	int null = open("/dev/null", O_RDONLY);
	if (null > 0 && dup2(null, STDIN_FILENO) < 0)
		return -errno;
	if (dup2(channel, WORKER_SUPERVISOR_FD) < 0)
		return -errno;
	unsigned first = WORKER_SUPERVISOR_FD + 1;
	if (journal >= 0) {
		if (dup2(journal, JOURNAL_FD) < 0)
			return -errno;
		first = JOURNAL_FD + 1;
	}
	if (syscall(SYS_close_range, first, (unsigned)program - 1, 0) || syscall(SYS_close_range, (unsigned)program + 1, ~0U, 0))
		return -errno;
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Workers are cheaper to replace than anything else that the machine may run out of memory by. */
static void set_oom_score(enum ipc_role role)
{
	const char *score = role == IPC_TUNNEL ? "100" : "0";
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, score, strlen(score)) < 0)
		errno = 0;
	if (fd >= 0)
		close(fd);
}

static void __attribute__((noreturn)) child_main(const struct spawner *s, enum ipc_role role, unsigned index,
                                                 const char *program, int channel, int executable, bool fresh,
                                                 char **environment)
{
	char number[16];
	snprintf(number, sizeof(number), "%u", index);
	char *argv[] = {(char *)program, (char *)"--index", number, NULL};
	reset_signals();
	int error = lay_out_descriptors(raised(channel), raised(s->journal_fd), executable);
	if (error)
		child_failed(program, "descriptors", -error);
	setpgid(0, 0);            /* what the terminal or timeout(1) sends is for the supervisor alone */
	set_oom_score(role);
	error = privileges_drop(s->privileges, role);
	if (error)
		child_failed(program, "changing the user", -error);
	/* A worker without a supervisor would keep ports from the one that is started next. After setuid, which clears it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (fresh)
		execve(program, argv, environment);
	/* The worker's user may not be able to walk there (a build folder): the supervisor could, and opened it. */
	if (!fresh || errno == EACCES)
		syscall(SYS_execveat, executable, "", argv, environment, AT_EMPTY_PATH);
	child_failed(program, "cannot be executed", errno);
}

/* --- in the supervisor ---------------------------------------------------------------------------------------------- */

static void program_path(const struct spawner *s, enum ipc_role role, char *path, size_t size)
{
	snprintf(path, size, "%s/hermes-%s", s->libexec, ipc_role_name(role));
}

int spawn_check(const struct spawner *s, enum ipc_role role, char *error, size_t size)
{
	char program[sizeof(s->libexec) + 64];
	program_path(s, role, program, sizeof(program));
	if (access(program, X_OK) == 0)
		return 0;
	snprintf(error, size, "%s: %s", program, strerror(errno));
	return -1;
}

void spawn_keep(struct spawner *s, enum ipc_role role, int *executable)
{
	if (*executable < 0)
		return;
	if (s->kept[role] >= 0)
		close(s->kept[role]);
	s->kept[role] = *executable;
	*executable = -1;
}

/* The program to execute, above the descriptors that are laid out; fresh: the one on disk, else the one that is kept. */
static int open_program(const struct spawner *s, enum ipc_role role, const char *path, bool fresh)
{
	if (!fresh && s->kept[role] >= 0)
		return raised(s->kept[role]);
	if (access(path, X_OK))
		return -1;
	int fd = open(path, O_PATH | O_CLOEXEC);
	int high = raised(fd), error = errno;
	if (fd >= 0)
		close(fd);
	errno = error;
	return high;
}

pid_t spawn_worker(const struct spawner *s, enum ipc_role role, unsigned index, bool fresh, int *channel, int *executable)
{
	char program[sizeof(s->libexec) + 64];
	int pair[2] = {-1, -1};
	struct environment environment = {{0}, 0};
	sigset_t all, before;
	pid_t pid = -1;
	fresh |= s->kept[role] < 0;
	program_path(s, role, program, sizeof(program));
	int fd = open_program(s, role, program, fresh);
	int error = fd < 0 ? -errno : ipc_pair(pair);
	if (error)
		goto out;
	environment_make(&environment, s, role);
	/* No handler of ours may run in the child: it would write into our event loop. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		child_main(s, role, index, program, pair[1], fd, fresh, environment.v);
	error = pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (pid > 0) {
		*channel = pair[0];
		pair[0] = -1;
	}
	if (pid > 0 && fresh) {
		*executable = fd;
		fd = -1;
	}
out:
	environment_clear(&environment);
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
	return error ? error : pid;
}
