/* Systemd's store of descriptors (sd_pid_notify_with_fds(3)): sockets and TUN queues outlive a plain restart of the service, and
 * connections wait in them meanwhile. Does nothing where hermesd was not started by systemd. */
#ifndef HERMES_SUPERVISOR_FDSTORE_H
#define HERMES_SUPERVISOR_FDSTORE_H

#include <stdbool.h>

struct fdstore;
/* Takes what systemd passed (LISTEN_FDS); nothing where inherited is false. *first_other: the first number that is none of them. */
struct fdstore *fdstore_new(bool inherited, int *first_other);
void fdstore_free(struct fdstore *store);
/* Whether what is put there may be kept: names of Unix sockets then outlive us, too. */
bool fdstore_kept(const struct fdstore *store);

/* Names hold no colon, and at most 255 bytes. Systemd knows a descriptor that it has under the name already. */
void fdstore_put(struct fdstore *store, const char *name, int fd);
void fdstore_remove(struct fdstore *store, const char *name);

/* The descriptor that was passed under the name, from now on the caller's; -1: none. */
int fdstore_take(struct fdstore *store, const char *name);
/* The same of one that fits: the one of that name, else any, which systemd then no longer has (its name may be another's now). */
typedef bool (*fdstore_fits)(const void *arg, int fd);
int fdstore_take_fitting(struct fdstore *store, const char *name, fdstore_fits fits, const void *arg);
/* The first that nobody took and whose name begins so (its name lives until it is taken), or NULL. */
const char *fdstore_find(const struct fdstore *store, const char *prefix);
/* What nobody took leads nowhere any more: closed here and there. The name of a Unix socket goes, too, unless its address is wanted:
 * then it is another socket's. */
void fdstore_drop_rest(struct fdstore *store, fdstore_fits wanted, const void *arg);

/* "KIND/NAME/INDEX", colons and the like replaced. */
void fdstore_name(char *out, unsigned size, const char *kind, const char *name, unsigned index);

#endif
