/* Sealed memfds: how what is larger than a message travels. */
#ifndef HERMES_IPC_MEMFD_H
#define HERMES_IPC_MEMFD_H

#include <stddef.h>
#include <stdint.h>

/* A memfd holding data, sealed against every change. Returns the descriptor or -errno. */
int memfd_sealed(const char *name, const void *data, size_t length);

/* Maps a received memfd read-only after checking that it is one, is sealed (write, shrink, grow) and is at most max
 * bytes. Returns 0 and *data (munmap with *length; NULL when empty), or -errno (-EPERM: not sealed, -EFBIG). Does not close fd. */
int memfd_map(int fd, size_t max, const void **data, size_t *length);
void memfd_unmap(const void *data, size_t length);

/* Reads all of any descriptor (file, pipe, memfd) into malloc'd, NUL-terminated memory. -EFBIG above max. */
int fd_read_all(int fd, size_t max, char **data, size_t *length);

#endif
