#include "supervisor/folders.h"
#include "ipc/log.h"
#include "store/store.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_folder(const char *path, mode_t mode)
{
	char part[4096];
	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) == 0 && chmod(part, 0755))
			return -errno;
		*p = '/';
	}
	if (mkdir(part, mode) == 0)
		return chmod(part, mode) ? -errno : 0;
	return errno == EEXIST ? 0 : -errno;
}

/* The store's folder belongs to the workers' user: config-sync is the only one who opens it. */
static int give_state_folder(const struct supervisor *s)
{
	int fd = open(s->options->state_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int error = fchmod(fd, 0700) && errno != EPERM ? -errno : 0;
	if (!error && s->privileges.root && fchown(fd, s->privileges.uid, s->privileges.gid))
		error = -errno;
	close(fd);
	return error;
}

/* Files that an earlier run left under another user (before the user `hermes` was made) follow the folder. */
static void give_state_files(const struct supervisor *s)
{
	static const char *const names[] = {STORE_FILE, STORE_FILE "-lock"};
	int folder = open(s->options->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && s->privileges.root && folder >= 0; i++) {
		int fd = openat(folder, names[i], O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0 && fchown(fd, s->privileges.uid, s->privileges.gid))
			log_warn("store file not handed over", "file=%s error=%s", names[i], log_value(strerror(errno)));
		if (fd >= 0)
			close(fd);
	}
	if (folder >= 0)
		close(folder);
}

int folders_make(const struct supervisor *s)
{
	int error = make_folder(s->options->state_dir, 0700);
	if (!error)
		error = give_state_folder(s);
	if (error) {
		fprintf(stderr, "hermesd: state folder %s: %s (--state-dir names another)\n", s->options->state_dir, strerror(-error));
		return -1;
	}
	give_state_files(s);
	error = make_folder(s->options->runtime_dir, s->privileges.root ? 0755 : 0700);
	if (error)
		fprintf(stderr, "hermesd: runtime folder %s: %s (--runtime-dir names another)\n", s->options->runtime_dir,
		        strerror(-error));
	return error ? -1 : 0;
}

/* --- a role's own ---------------------------------------------------------------------------------------------------- */

static int give_folder(const struct privileges *p, int parent, const char *name)
{
	/* the parent belongs to the workers' user: a link in the folder's place is not followed */
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int error = fchmod(fd, 0700) && errno != EPERM ? -errno : 0;
	if (!error && p->root && fchown(fd, p->uid, p->gid))
		error = -errno;
	close(fd);
	return error;
}

int folders_make_role(const struct supervisor *s, enum ipc_role role)
{
	const char *name = role == IPC_KEEPER ? "keys" : role == IPC_CONTROLLER ? "controller" : NULL;
	int parent = name ? open(s->options->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, error = 0;
	if (!name)
		return 0;
	if (parent < 0 || (mkdirat(parent, name, 0700) && errno != EEXIST))
		error = -errno;
	if (!error)
		error = give_folder(&s->privileges, parent, name);
	if (parent >= 0)
		close(parent);
	return error;
}
