/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/keeper/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/memfd.h"
#include "workers/keeper/pki.h"

#define KEY_FILE "node.key"
#define CERTIFICATE_FILE "node.crt"
#define NEXT_KEY ".node.key.next"
#define NEXT_CERTIFICATE ".node.crt.next"

int keys_open(struct keys *keys, const char *path)
{
	*keys = (struct keys){.folder = -1, .uid = (uid_t)-1, .gid = (gid_t)-1};
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	keys->folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return keys->folder < 0 ? -errno : 0;
}

void keys_close(struct keys *keys)
{
	if (keys->folder >= 0)
		close(keys->folder);
	keys->folder = -1;
}

int keys_read(const struct keys *keys, const char *name, char **text)
{
	size_t length = 0;
	*text = NULL;
	int fd = openat(keys->folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int error = fd_read_all(fd, KEYS_FILE_MAX, text, &length);
	close(fd);
	if (!error && strlen(*text) != length) {
		free(*text);
		*text = NULL;
		error = -EINVAL;
	}
	return error;
}

static int write_all(int fd, const char *text)
{
	for (size_t left = strlen(text); left > 0;) {
		ssize_t n = write(fd, text, left);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			text += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

/* Whole and on disk, or not there. */
static int write_file(const struct keys *keys, const char *name, const char *text)
{
	unlinkat(keys->folder, name, 0);
	int fd = openat(keys->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int error = write_all(fd, text);
	if (!error && keys->uid != (uid_t)-1 && fchown(fd, keys->uid, keys->gid))
		error = -errno;
	if (!error && fsync(fd))
		error = -errno;
	if (close(fd) && !error)
		error = -errno;
	if (error)
		unlinkat(keys->folder, name, 0);
	return error;
}

static int take_name(const struct keys *keys, const char *from, const char *to)
{
	return renameat(keys->folder, from, keys->folder, to) ? -errno : 0;
}

static int sync_folder(const struct keys *keys)
{
	return fsync(keys->folder) ? -errno : 0;
}

int keys_write(const struct keys *keys, const char *name, const char *text)
{
	char next[64];
	snprintf(next, sizeof(next), ".%s.next", name);
	int error = write_file(keys, next, text);
	if (!error)
		error = take_name(keys, next, name);
	return error ? error : sync_folder(keys);
}

int keys_install(const struct keys *keys, const char *key, const char *certificate)
{
	int error = write_file(keys, NEXT_KEY, key);
	if (!error)
		error = write_file(keys, NEXT_CERTIFICATE, certificate);
	if (!error)
		error = sync_folder(keys);
	if (!error)
		error = take_name(keys, NEXT_KEY, KEY_FILE);
	if (error) {
		unlinkat(keys->folder, NEXT_KEY, 0);
		unlinkat(keys->folder, NEXT_CERTIFICATE, 0);
		return error;
	}
	error = take_name(keys, NEXT_CERTIFICATE, CERTIFICATE_FILE);
	return error ? error : sync_folder(keys);
}

void keys_mend(const struct keys *keys)
{
	char *key = NULL, *certificate = NULL;
	if (!keys_read(keys, KEY_FILE, &key) && !keys_read(keys, NEXT_CERTIFICATE, &certificate) && pki_matches(key, certificate) &&
	    !take_name(keys, NEXT_CERTIFICATE, CERTIFICATE_FILE))
		sync_folder(keys);
	unlinkat(keys->folder, NEXT_KEY, 0);
	unlinkat(keys->folder, NEXT_CERTIFICATE, 0);
	pki_wipe(key);
	free(certificate);
}
