/* Who the supervisor and its workers are. */
#ifndef HERMES_SUPERVISOR_PRIVILEGES_H
#define HERMES_SUPERVISOR_PRIVILEGES_H

#include "ipc/messages.h"

#include <sys/types.h>

struct privileges {
	bool root;             /* then workers become uid:gid; else they stay who we are */
	uid_t uid;
	gid_t gid;
	const char *user;      /* static text: "hermes", "nobody", or "" where unprivileged */
	bool has_group;        /* group `hermes` exists: the admin socket belongs to it */
	gid_t group;
};

/* Looks the user `hermes` up (else `nobody`, with a warning); warns once where we are not root. */
void privileges_find(struct privileges *privileges);
/* For the supervisor itself: as many descriptors as allowed, umask 077, spared by the OOM killer where permitted. */
void privileges_limits(void);
/* Gives up the capabilities that the supervisor has no use for (root only). */
void privileges_reduce(const struct privileges *privileges);
/* In a new child, before execve: becomes the worker's user; tun-bridge keeps CAP_NET_ADMIN
 * and CAP_NET_BIND_SERVICE. Returns 0 or -errno. */
int privileges_drop(const struct privileges *privileges, enum ipc_role role);

/* A socket that the supervisor makes for the overlay: what it sends never enters a TUN device of ours and is never captured, as if
 * a worker had made it. */
void privileges_own_socket(const struct privileges *privileges, int fd);

#endif
