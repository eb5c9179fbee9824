/* Each role, in a process of its own: what it must be refused, and what it must still be able to do. */
#include "ipc/channel.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/sandbox.h"
#include "ipc/stats.h"

#include <ares.h>
#include <arpa/inet.h>
#include <crypt.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <lmdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PASSED 42             /* so that a program executed by mistake does not look like success */

static char state_dir[] = "/tmp/hermes-sandbox-XXXXXX";
static int listener, inherited_tcp;   /* made before the sandbox */
static char forbidden[64];            /* a file that any user may read, outside every set */

static bool have_landlock;            /* asked before the sandbox, which refuses the question */

/* --- in the child -------------------------------------------------------------------------------------------------- */

/* Says on standard error what went wrong; the parent sees the status. */
static void check(bool ok, const char *what)
{
	if (ok)
		return;
	dprintf(STDERR_FILENO, "sandbox check failed: %s (%s)\n", what, strerror(errno));
	_exit(1);
}

static void refused(long result, const char *what)
{
	check(result == -1 && (errno == EPERM || errno == EACCES), what);
}

static void refused_by_filter(long result, const char *what)
{
	check(result == -1 && errno == EPERM, what);
}

static void no_programs(void)
{
	char *const argv[] = {(char *)"true", NULL};
	refused_by_filter(execve("/bin/true", argv, NULL), "execve");
	refused_by_filter(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, NULL, 0), "execveat");
	long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		_exit(0);
	refused_by_filter(child, "fork");
	check(syscall(SYS_clone3, NULL, 0) == -1 && errno == ENOSYS, "clone3");
	refused_by_filter((long)(intptr_t)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
	                  "executable memory");
}

static void no_other_processes(void)
{
	char byte;
	struct iovec iov = {&byte, 1};
	refused_by_filter(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
	refused_by_filter(kill(getppid(), 0), "kill");
	refused_by_filter(syscall(SYS_process_vm_readv, getpid(), &iov, 1, &iov, 1, 0), "process_vm_readv");
	refused_by_filter(syscall(SYS_pidfd_open, getppid(), 0), "pidfd_open");
}

static void no_kernel_doors(void)
{
	refused_by_filter(syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL), "mount");
	refused_by_filter(syscall(SYS_unshare, CLONE_NEWUSER), "unshare");
	refused_by_filter(syscall(SYS_bpf, 0, NULL, 0), "bpf");
	refused_by_filter(syscall(SYS_keyctl, 0, -3, 0), "keyctl");
	refused_by_filter(syscall(SYS_add_key, "user", "x", "y", 1, -3), "add_key");
	refused_by_filter(syscall(SYS_io_uring_setup, 1, NULL), "io_uring");
	refused_by_filter(syscall(SYS_userfaultfd, 0), "userfaultfd");
	refused_by_filter(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0), "perf_event_open");
	refused_by_filter(syscall(SYS_setuid, 0), "setuid");
	refused_by_filter(syscall(SYS_chroot, "/"), "chroot");
	refused_by_filter(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl");
	refused_by_filter(syscall(SYS_personality, 0xffffffff), "personality");
}

static void no_files(enum ipc_role role)
{
	bool folders = role == IPC_CONFIG_SYNC || role == IPC_CONTROLLER || role == IPC_KEEPER;
	if (folders && !have_landlock) {
		dprintf(STDERR_FILENO, "note: no Landlock; %s opens what its user may\n", ipc_role_name(role));
		return;
	}
	refused(open("/etc/passwd", O_RDONLY), "open /etc/passwd");
	refused(open(forbidden, O_RDONLY), "open a file of ours outside the set");
	refused(open("/proc/self/mem", O_RDWR), "open /proc/self/mem");
	refused(open("/tmp/hermes-sandbox-new", O_RDWR | O_CREAT, 0600), "create a file");
	refused(unlink(forbidden), "unlink");
	refused(rename(forbidden, "/tmp/hermes-sandbox-moved"), "rename");
	refused(open("/", O_RDONLY | O_DIRECTORY), "open a folder");
}

static void only_sockets(const int allowed[][2], size_t n)
{
	static const int all[][2] = {
		{AF_INET, SOCK_STREAM}, {AF_INET, SOCK_DGRAM}, {AF_INET, SOCK_RAW}, {AF_INET6, SOCK_STREAM},
		{AF_INET6, SOCK_DGRAM}, {AF_UNIX, SOCK_STREAM}, {AF_UNIX, SOCK_DGRAM}, {AF_UNIX, SOCK_SEQPACKET},
		{AF_NETLINK, SOCK_RAW}, {AF_NETLINK, SOCK_DGRAM}, {AF_PACKET, SOCK_RAW}, {AF_ALG, SOCK_SEQPACKET},
		{AF_VSOCK, SOCK_STREAM}, {AF_KEY, SOCK_RAW}, {AF_BLUETOOTH, SOCK_RAW},
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		char what[64];
		bool wanted = false;
		for (size_t k = 0; k < n; k++)
			wanted = wanted || (all[i][0] == allowed[k][0] && all[i][1] == allowed[k][1]);
		snprintf(what, sizeof(what), "socket family %d type %d", all[i][0], all[i][1]);
		int fd = socket(all[i][0], all[i][1] | SOCK_CLOEXEC, 0);
		if (wanted)
			check(fd >= 0 || errno == EAFNOSUPPORT, what);
		else
			refused_by_filter(fd, what);
		if (fd >= 0)
			close(fd);
	}
}

static void no_connections(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	refused_by_filter(connect(inherited_tcp, (struct sockaddr *)&to, sizeof(to)), "connect");
	refused_by_filter(socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){0, 0}), "socketpair");
}

/* --- what every worker lives from ---------------------------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	++*(int *)arg;
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)channel;
	(void)m;
	const void *data;
	size_t length;
	check(type == IPC_MSG_CONFIG_PREPARE && *fd >= 0, "descriptor received");
	check(!memfd_map(*fd, 100, &data, &length) && length == 3, "memfd mapped");
	memfd_unmap(data, length);
	++*(int *)arg;
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	(void)channel;
	(void)arg;
	check(false, reason);
}

/* Both ends of the pair are made before the sandbox, as the supervisor would. */
static void life(int fds[2])
{
	int timers = 0, messages = 0;
	struct event_base *base = event_base_new();
	check(base, "event base");
	struct event *timer = evtimer_new(base, on_timer, &timers);
	const struct timeval soon = {.tv_usec = 1000};
	evtimer_add(timer, &soon);
	struct ipc_channel *a = ipc_channel_new(base, fds[0], IPC_SUPERVISOR, 0, IPC_TUNNEL, on_message, on_ended,
	                                        &messages);
	struct ipc_channel *b = ipc_channel_new(base, fds[1], IPC_TUNNEL, 0, IPC_SUPERVISOR, on_message, on_ended,
	                                        &messages);
	check(a && b, "channels");
	int fd = memfd_sealed("x", "abc", 3);
	check(fd >= 0, "memfd");
	ipc_send(a, IPC_MSG_CONFIG_PREPARE, &(struct ipc_config_prepare){.generation = 1, .tunnels = 1}, fd);
	while (!timers || !messages)
		check(event_base_loop(base, EVLOOP_ONCE) == 0, "event loop");
	close(fd);
	ipc_channel_free(a);
	ipc_channel_free(b);
	event_free(timer);
	event_base_free(base);
}

static void memory(void)
{
	for (size_t size = 16; size < (64u << 20); size *= 4) {
		char *p = malloc(size);
		check(p, "malloc");
		memset(p, 1, size);
		p = realloc(p, size * 2);
		check(p, "realloc");
		free(p);
	}
	struct stats *stats = stats_new(10);
	check(stats, "counters");
	stats_free(stats);
	unsigned char random[16];
	check(syscall(SYS_getrandom, random, sizeof(random), 0) == sizeof(random), "getrandom");
}

/* --- what single roles do ------------------------------------------------------------------------------------------ */

/* As the tunnel worker hashes passwords. */
static void *thread(void *arg)
{
	static struct crypt_data data;
	const char *hash = crypt_r("secret", "$y$j9T$abcdefgh", &data);
	*(int *)arg = hash && !strncmp(hash, "$y$", 3);
	return NULL;
}

/* OpenSSL initialises itself late here, without its configuration file, and c-ares without resolv.conf. */
static void libraries(void)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_method());
	check(tls && SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION), "SSL_CTX_new");
	SSL *ssl = SSL_new(tls);
	check(ssl, "SSL_new");
	SSL_free(ssl);
	SSL_CTX_free(tls);
	ares_channel channel = NULL;
	check(!ares_library_init(ARES_LIB_INIT_ALL) && !ares_init(&channel), "c-ares");
	check(!ares_set_servers_ports_csv(channel, "127.0.0.1:5353"), "c-ares servers");
	ares_destroy(channel);
	ares_library_cleanup();
}

static void tunnel_works(void)
{
	static const int families[][2] = {
		{AF_INET, SOCK_STREAM}, {AF_INET, SOCK_DGRAM}, {AF_INET6, SOCK_STREAM}, {AF_INET6, SOCK_DGRAM},
		{AF_UNIX, SOCK_STREAM},
	};
	int ran = 0;
	pthread_t id;
	struct sockaddr_in to;
	socklen_t size = sizeof(to);
	only_sockets(families, 5);
	libraries();
	check(!pthread_create(&id, NULL, thread, &ran) && !pthread_join(id, NULL) && ran, "a thread");
	check(!getsockname(listener, (struct sockaddr *)&to, &size), "getsockname");
	int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	check(!connect(client, (struct sockaddr *)&to, size), "connect");
	check(accept4(listener, NULL, NULL, SOCK_CLOEXEC) >= 0 || errno == EAGAIN, "accept");
}

static void telemetry_works(void)
{
	only_sockets(NULL, 0);
	no_connections();
	check(!listen(listener, 5), "listen");
	check(accept4(listener, NULL, NULL, SOCK_CLOEXEC) >= 0 || errno == EAGAIN, "accept");
}

static void decider_works(void)
{
	only_sockets(NULL, 0);
	no_connections();
	refused_by_filter(accept4(listener, NULL, NULL, 0), "accept");
	refused_by_filter(listen(listener, 1), "listen");
}

static MDB_env *env;                  /* config-sync's is open before the sandbox */

static void open_store(const char *folder)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", state_dir, folder);
	check(!mkdir(path, 0700) || errno == EEXIST, "mkdir in the folder");
	check(!mdb_env_create(&env) && !mdb_env_open(env, path, 0, 0600), "LMDB opens");
}

static void store_works(void)
{
	MDB_txn *txn;
	MDB_dbi dbi = 0;
	MDB_val key = {1, (void *)(uintptr_t)"k"}, value = {5, (void *)(uintptr_t)"value"};
	check(!mdb_txn_begin(env, NULL, 0, &txn) && !mdb_dbi_open(txn, NULL, 0, &dbi), "LMDB transaction");
	check(!mdb_put(txn, dbi, &key, &value, 0) && !mdb_txn_commit(txn), "LMDB commits");
	mdb_env_close(env);
}

/* One's own folder, and none beside it: neither the store nor the keys. */
static void only_own_folder(const char *own)
{
	static const char *const all[] = {".", "store", "controller", "keys"};
	for (size_t i = 0; i < sizeof(all) / sizeof(*all) && have_landlock; i++) {
		char path[128], there[128];
		snprintf(path, sizeof(path), "%s/%s/file.new", state_dir, all[i]);
		snprintf(there, sizeof(there), "%s/%s/file", state_dir, all[i]);
		int fd = open(path, O_WRONLY | O_CREAT, 0600);
		if (strcmp(all[i], own)) {
			refused(fd, path);
			continue;
		}
		check(fd >= 0 && write(fd, "x", 1) == 1 && !fsync(fd) && !rename(path, there) && !unlink(there), path);
	}
}

static void config_sync_works(void)
{
	only_sockets(NULL, 0);
	no_connections();
	store_works();
	only_own_folder("");
	if (!access("/usr/share/zoneinfo/UTC", F_OK))
		check(open("/usr/share/zoneinfo/UTC", O_RDONLY) >= 0, "zoneinfo");
	if (have_landlock)
		refused(open("/usr/share/zoneinfo/new", O_WRONLY | O_CREAT, 0600), "write zoneinfo");
}

static void controller_works(void)
{
	only_sockets(NULL, 0);
	no_connections();
	open_store("controller");
	store_works();
	only_own_folder("controller");
	check(listen(listener, 5) == 0, "listen");
	check(accept4(listener, NULL, NULL, SOCK_CLOEXEC) < 0 && errno == EAGAIN, "accept4");
}

static void keeper_works(void)
{
	only_sockets(NULL, 0);
	no_connections();
	only_own_folder("keys");
	refused_by_filter(listen(listener, 5), "listen");
	libraries();
}

static void tun_bridge_works(void)
{
	static const int families[][2] = {{AF_INET, SOCK_DGRAM}, {AF_INET6, SOCK_DGRAM}};
	only_sockets(families, 2);
	no_connections();
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (have_landlock)
		check(fd >= 0 || errno == ENOENT || errno == ENODEV || (errno == EACCES && geteuid()), "/dev/net/tun");
	else
		refused_by_filter(fd, "/dev/net/tun without Landlock");
}

static void work(enum ipc_role role)
{
	switch (role) {
	case IPC_TUNNEL: tunnel_works(); break;
	case IPC_TELEMETRY: telemetry_works(); break;
	case IPC_CONFIG_SYNC: config_sync_works(); break;
	case IPC_TUN_BRIDGE: tun_bridge_works(); break;
	case IPC_CONTROLLER: controller_works(); break;
	case IPC_KEEPER: keeper_works(); break;
	default: decider_works();
	}
}

/* --- in the parent ------------------------------------------------------------------------------------------------- */

static pid_t start(enum ipc_role role, void (*body)(enum ipc_role, int), int argument)
{
	pid_t child = fork();
	if (child)
		return child;
	alarm(60);
	if (role == IPC_CONFIG_SYNC)
		open_store("store");
	int error = sandbox_enter(role);
	errno = -error;
	check(!error, "sandbox_enter");
	body(role, argument);
	_exit(PASSED);
}

static int status_of(pid_t child)
{
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void refusals(enum ipc_role role, int unused)
{
	(void)unused;
	no_programs();
	no_other_processes();
	no_kernel_doors();
	no_files(role);
}

static void working(enum ipc_role role, int unused)
{
	(void)unused;
	work(role);
}

static void living(enum ipc_role role, int fds)
{
	(void)role;
	log_open("tester");
	log_debug("inside", "%s", "");
	memory();
	life((int[2]){fds, fds + 1});
}

static const enum ipc_role workers[] = {
	IPC_TUN_BRIDGE, IPC_TUNNEL, IPC_ROUTER, IPC_POLICY, IPC_TELEMETRY, IPC_CONFIG_SYNC, IPC_CONTROLLER, IPC_KEEPER,
};
#define EACH_WORKER(i) for (size_t i = 0; i < sizeof(workers) / sizeof(*workers); i++)

static void every_role_is_refused(void **state)
{
	(void)state;
	EACH_WORKER(i)
		if (status_of(start(workers[i], refusals, 0)) != PASSED)
			fail_msg("%s", ipc_role_name(workers[i]));
}

static void every_role_does_its_work(void **state)
{
	(void)state;
	EACH_WORKER(i)
		if (status_of(start(workers[i], working, 0)) != PASSED)
			fail_msg("%s", ipc_role_name(workers[i]));
}

static void every_role_lives(void **state)
{
	(void)state;
	EACH_WORKER(i) {
		int fds[2];
		assert_int_equal(ipc_pair(fds), 0);
		assert_int_equal(fds[1], fds[0] + 1);
		if (status_of(start(workers[i], living, fds[0])) != PASSED)
			fail_msg("%s", ipc_role_name(workers[i]));
		close(fds[0]);
		close(fds[1]);
	}
}

/* As a kernel without Landlock answers. */
static void take_landlock_away(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	check(ctx && !seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(landlock_create_ruleset), 0), "filter");
	check(!seccomp_load(ctx), "filter");
	seccomp_release(ctx);
	have_landlock = false;
}

static void filter_alone_closes_files(void **state)
{
	(void)state;
	EACH_WORKER(i) {
		pid_t child = fork();
		if (!child) {
			alarm(60);
			setenv("HERMES_LOG_LEVEL", "error", 1);
			log_open("tester");
			take_landlock_away();
			if (workers[i] == IPC_CONFIG_SYNC)
				open_store("store");
			errno = -sandbox_enter(workers[i]);
			check(!errno, "sandbox_enter");
			refusals(workers[i], 0);
			work(workers[i]);
			_exit(PASSED);
		}
		if (status_of(child) != PASSED)
			fail_msg("%s", ipc_role_name(workers[i]));
	}
}

static void waiting(enum ipc_role role, int fd)
{
	char byte = 'r';
	(void)role;
	check(write(fd, &byte, 1) == 1 && read(fd, &byte, 1) == 0, "wait for the parent");
}

static uint64_t status_field(const char *text, const char *name, int base)
{
	const char *s = strstr(text, name);
	assert_non_null(s);
	return strtoull(s + strlen(name), NULL, base);
}

/* What the kernel says of the process: no new privileges, filter on, no capability left. */
static void kernel_confirms(void **state)
{
	(void)state;
	EACH_WORKER(i) {
		char path[64], byte, text[8192];
		int fds[2];
		/* CAP_NET_ADMIN and CAP_NET_BIND_SERVICE */
		uint64_t may = workers[i] == IPC_TUN_BRIDGE ? UINT64_C(1) << 12 | UINT64_C(1) << 10 : 0;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		pid_t child = start(workers[i], waiting, fds[1]);
		assert_int_equal(read(fds[0], &byte, 1), 1);
		snprintf(path, sizeof(path), "/proc/%d/status", (int)child);
		int fd = open(path, O_RDONLY);
		ssize_t n = read(fd, text, sizeof(text) - 1);
		close(fd);
		assert_true(n > 0);
		text[n] = '\0';
		assert_int_equal(status_field(text, "NoNewPrivs:", 10), 1);
		assert_int_equal(status_field(text, "Seccomp:", 10), 2);
		assert_int_equal(status_field(text, "CapEff:", 16) & ~may, 0);
		assert_int_equal(status_field(text, "CapPrm:", 16) & ~may, 0);
		assert_int_equal(status_field(text, "CapInh:", 16), 0);
		assert_int_equal(status_field(text, "CapAmb:", 16), 0);
		if (geteuid() == 0)
			assert_int_equal(status_field(text, "CapBnd:", 16) & ~may, 0);
		shutdown(fds[0], SHUT_WR);
		assert_int_equal(status_of(child), PASSED);
		close(fds[0]);
		close(fds[1]);
	}
}

static void open_passwd(enum ipc_role role, int unused)
{
	(void)role;
	(void)unused;
	check(open("/etc/passwd", O_RDONLY) >= 0, "open /etc/passwd");
	check(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "ptrace");
}

/* The same checks find the doors open where there is no sandbox: they can fail. */
static void off_means_off(void **state)
{
	(void)state;
	setenv("HERMES_SANDBOX", "off", 1);
	assert_int_equal(status_of(start(IPC_ROUTER, open_passwd, 0)), PASSED);
	int saved = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
	dup2(null, STDERR_FILENO);
	assert_int_not_equal(status_of(start(IPC_ROUTER, refusals, 0)), PASSED);
	assert_int_not_equal(status_of(start(IPC_ROUTER, working, 0)), PASSED);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(null);
	unsetenv("HERMES_SANDBOX");
}

static void trace_tells(void **state)
{
	(void)state;
	char text[4096] = "", number[64];
	int fds[2], saved = dup(STDERR_FILENO);
	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], STDERR_FILENO);
	setenv("HERMES_SANDBOX", "trace", 1);
	int status = status_of(start(IPC_ROUTER, refusals, 0));
	unsetenv("HERMES_SANDBOX");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(fds[1]);
	assert_int_equal(status, PASSED);
	assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
	snprintf(number, sizeof(number), "sandbox: system call %d refused\n", SYS_ptrace);
	assert_non_null(strstr(text, number));
	close(fds[0]);
}

static void *sleeper(void *arg)
{
	char byte;
	check(read(*(int *)arg, &byte, 1) >= 0, "read");
	return NULL;
}

static void threads_and_outsiders_are_refused(void **state)
{
	(void)state;
	int fds[2];
	pthread_t id;
	assert_int_equal(sandbox_enter(IPC_SUPERVISOR), -EINVAL);
	assert_int_equal(sandbox_enter(IPC_ADMIN), -EINVAL);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pthread_create(&id, NULL, sleeper, &fds[0]), 0);
	assert_int_equal(sandbox_enter(IPC_ROUTER), -EBUSY);
	close(fds[1]);
	pthread_join(id, NULL);
	close(fds[0]);
}

static int set_up(void **state)
{
	(void)state;
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(any);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	inherited_tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&any, size) || listen(listener, 5))
		return -1;
	if (!mkdtemp(state_dir))
		return -1;
	static const char *const folders[] = {"store", "controller", "keys"};
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/%s", state_dir, folders[i]);
		if (mkdir(path, 0700))
			return -1;
	}
	snprintf(forbidden, sizeof(forbidden), "%s.txt", state_dir);
	close(open(forbidden, O_CREAT | O_WRONLY, 0644));
	setenv("HERMES_STATE_DIR", state_dir, 1);
	setenv("HERMES_LOG_LEVEL", "warn", 1);
	unsetenv("HERMES_SANDBOX");
	have_landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
	if (!have_landlock)
		print_message("note: this kernel has no Landlock; files are closed by seccomp alone\n");
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	static const char *const left[] = {"store/data.mdb", "store/lock.mdb", "controller/data.mdb", "controller/lock.mdb"};
	static const char *const folders[] = {"store", "controller", "keys"};
	char path[128];
	int gone = unlink(forbidden);         /* still there: no role could remove it */
	for (size_t i = 0; i < sizeof(left) / sizeof(*left); i++) {
		snprintf(path, sizeof(path), "%s/%s", state_dir, left[i]);
		unlink(path);
	}
	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", state_dir, folders[i]);
		rmdir(path);
	}
	rmdir(state_dir);
	return gone;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_role_is_refused), cmocka_unit_test(every_role_does_its_work),
		cmocka_unit_test(every_role_lives), cmocka_unit_test(filter_alone_closes_files),
		cmocka_unit_test(kernel_confirms), cmocka_unit_test(off_means_off),
		cmocka_unit_test(trace_tells), cmocka_unit_test(threads_and_outsiders_are_refused),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
