/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of keys: small text files, each written as a whole or not at all, mode 0600. Functions return 0 or -errno. */
#ifndef HERMES_KEEPER_KEYS_H
#define HERMES_KEEPER_KEYS_H

#include <sys/types.h>

#define KEYS_FILE_MAX (1u << 20)

struct keys {
	int folder;                   /* -1: not open */
	uid_t uid;                    /* who files are given to; (uid_t)-1: nobody else than us */
	gid_t gid;
};

/* Opens the folder, and makes it (0700) where it is missing. */
int keys_open(struct keys *keys, const char *path);
void keys_close(struct keys *keys);
/* malloc'd text; pki_wipe() it where it is secret. */
int keys_read(const struct keys *keys, const char *name, char **text);
/* On disk (fsync) before it has its name. */
int keys_write(const struct keys *keys, const char *name, const char *text);
/* Key and certificate of a node. Ended between the two, keys_mend() finishes it. */
int keys_install(const struct keys *keys, const char *key, const char *certificate);
void keys_mend(const struct keys *keys);

#endif
