#include "supervisor/fdstore.h"
#include "ipc/log.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

struct passed {
	int fd;                   /* -1: taken */
	char *name;
};

struct fdstore {
	struct passed *v;
	int n;
	bool kept;
};

static void passed_take_over(struct fdstore *f, int *first_other)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);
	f->v = n > 0 ? calloc((size_t)n, sizeof(*f->v)) : NULL;
	for (int i = 0; i < n; i++) {
		if (f->v)
			f->v[f->n++] = (struct passed){.fd = SD_LISTEN_FDS_START + i, .name = names[i]};
		else
			free(names[i]);
	}
	free(names);
	if (f->n)
		*first_other = SD_LISTEN_FDS_START + f->n;
}

struct fdstore *fdstore_new(bool inherited, int *first_other)
{
	const char *socket = getenv("NOTIFY_SOCKET");
	struct fdstore *f = calloc(1, sizeof(*f));
	*first_other = SD_LISTEN_FDS_START;
	if (!f)
		return NULL;
	f->kept = socket && *socket;
	if (inherited)
		passed_take_over(f, first_other);
	return f;
}

void fdstore_free(struct fdstore *f)
{
	if (!f)
		return;
	for (int i = 0; i < f->n; i++) {
		if (f->v[i].fd >= 0)
			close(f->v[i].fd);
		free(f->v[i].name);
	}
	free(f->v);
	free(f);
}

bool fdstore_kept(const struct fdstore *f)
{
	return f->kept;
}

void fdstore_put(struct fdstore *f, const char *name, int fd)
{
	char text[320];
	if (!f->kept)
		return;
	snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	int result = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
	if (result < 0)
		log_warn("descriptor not stored", "name=%s error=%s", log_value(name), log_value(strerror(-result)));
}

void fdstore_remove(struct fdstore *f, const char *name)
{
	if (f->kept)
		sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

int fdstore_take(struct fdstore *f, const char *name)
{
	for (int i = 0; i < f->n; i++) {
		struct passed *p = &f->v[i];
		if (p->fd < 0 || strcmp(p->name, name))
			continue;
		int fd = p->fd;
		p->fd = -1;
		return fd;
	}
	return -1;
}

int fdstore_take_fitting(struct fdstore *f, const char *name, fdstore_fits fits, const void *arg)
{
	struct passed *found = NULL;
	for (int i = 0; i < f->n; i++) {
		struct passed *p = &f->v[i];
		bool same = strcmp(p->name, name) == 0;
		if (p->fd >= 0 && (same || !found) && fits(arg, p->fd))
			found = p;
		if (found == p && same)
			break;
	}
	if (!found)
		return -1;
	if (strcmp(found->name, name))
		fdstore_remove(f, found->name);
	int fd = found->fd;
	found->fd = -1;
	return fd;
}

const char *fdstore_find(const struct fdstore *f, const char *prefix)
{
	for (int i = 0; i < f->n; i++)
		if (f->v[i].fd >= 0 && strncmp(f->v[i].name, prefix, strlen(prefix)) == 0)
			return f->v[i].name;
	return NULL;
}

static void remove_unix_name(int fd)
{
	struct sockaddr_un address = {0};
	socklen_t length = sizeof(address) - 1;
	struct stat st;
	if (getsockname(fd, (struct sockaddr *)&address, &length) || address.sun_family != AF_UNIX || *address.sun_path != '/')
		return;
	if (lstat(address.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(address.sun_path);
}

void fdstore_drop_rest(struct fdstore *f, fdstore_fits wanted, const void *arg)
{
	for (int i = 0; i < f->n; i++) {
		struct passed *p = &f->v[i];
		if (p->fd < 0)
			continue;
		log_info("stored descriptor dropped", "name=%s", log_value(p->name));
		fdstore_remove(f, p->name);
		if (!wanted(arg, p->fd))
			remove_unix_name(p->fd);
		close(p->fd);
		p->fd = -1;
	}
}

void fdstore_name(char *out, unsigned size, const char *kind, const char *name, unsigned index)
{
	char clean[200];
	size_t n = 0;
	for (; name[n] && n < sizeof(clean) - 1; n++)
		clean[n] = (char)(isalnum((unsigned char)name[n]) || strchr("-_.", name[n]) ? name[n] : '_');
	clean[n] = '\0';
	snprintf(out, size, "%s/%s/%u", kind, clean, index);
}
