/* Whether a store's file can be used at all. Internal to store/. */
#ifndef HERMES_STORE_STORE_CHECK_H
#define HERMES_STORE_STORE_CHECK_H

#include <stddef.h>

/* Walks through the whole file in a child process: LMDB trusts its pages, and a damaged or truncated one can crash whoever
 * reads it. 0, or -EUCLEAN, or -errno where the file cannot be opened or no child be made. */
int store_check(const char *path, size_t map_size);

#endif
