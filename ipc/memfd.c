#include "ipc/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U   /* Linux 6.3 */
#endif

static int write_all(int fd, const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(fd, data, length);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			length -= (size_t)n;
		}
	}
	return 0;
}

int memfd_sealed(const char *name, const void *data, size_t length)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	int error = write_all(fd, data, length);
	if (!error && fcntl(fd, F_ADD_SEALS, seals))
		error = -errno;
	if (!error)
		return fd;
	close(fd);
	return error;
}

int memfd_map(int fd, size_t max, const void **data, size_t *length)
{
	const int needed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	struct stat st;
	*data = NULL;
	*length = 0;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0)
		return errno == EBADF ? -EBADF : -EPERM;
	if ((seals & needed) != needed)
		return -EPERM;
	if (fstat(fd, &st))
		return -errno;
	if ((uintmax_t)st.st_size > max)
		return -EFBIG;
	if (!st.st_size)
		return 0;
	/* Private: a shared mapping of a write-sealed file is refused before Linux 6.7. */
	void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*data = map;
	*length = (size_t)st.st_size;
	return 0;
}

void memfd_unmap(const void *data, size_t length)
{
	if (data)
		munmap((void *)(uintptr_t)data, length);
}

/* Makes room for more bytes and a NUL. One byte above max is enough to see that it is exceeded. */
static int grow(char **data, size_t *size, size_t max)
{
	size_t next = *size ? *size * 2 : 4096;
	if (next > max + 2)
		next = max + 2;
	char *p = realloc(*data, next);
	if (!p)
		return -ENOMEM;
	*data = p;
	*size = next;
	return 0;
}

int fd_read_all(int fd, size_t max, char **data, size_t *length)
{
	struct stat st;
	size_t size = 0, used = 0;
	char *buffer = NULL;
	int error = fstat(fd, &st) ? -errno : grow(&buffer, &size, max);
	/* A file's offset is shared with whoever else holds the descriptor: never rely on it. */
	bool seekable = !error && S_ISREG(st.st_mode);
	while (!error) {
		ssize_t n = seekable ? pread(fd, buffer + used, size - used - 1, (off_t)used)
		                     : read(fd, buffer + used, size - used - 1);
		if (n == 0)
			break;
		if (n < 0) {
			error = errno == EINTR ? 0 : -errno;
			continue;
		}
		used += (size_t)n;
		if (used > max)
			error = -EFBIG;
		else if (used + 1 == size)
			error = grow(&buffer, &size, max);
	}
	if (error) {
		free(buffer);
		buffer = NULL;
		used = 0;
	} else {
		buffer[used] = '\0';
	}
	*data = buffer;
	*length = used;
	return error;
}
