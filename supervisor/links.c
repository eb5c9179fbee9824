/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/links.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/log.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#define BUFFER (1 << 20)              /* bytes; a turn's worth of what moves between two workers */

/* Beyond wmem_max where CAP_NET_ADMIN allows it, else as far as that. */
static void raise_buffers(int fd)
{
	int size = BUFFER;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void links_wanted(struct child *child, const struct ipc_link_wanted *m)
{
	struct child *other = pool_find(child->supervisor->pool, IPC_TUNNEL, m->index);
	int pair[2];
	if (child->slot->role != IPC_TUNNEL || !other || other == child || other->state != CHILD_SERVING)
		return;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
		log_error("worker link failed", "worker=%s peer=%s error=%s", child->slot->name, other->slot->name,
		          log_value(strerror(errno)));
		return;
	}
	raise_buffers(pair[0]);
	raise_buffers(pair[1]);
	child_send(other, IPC_MSG_WORKER_LINK, &(struct ipc_worker_link){.index = child->slot->index}, pair[1]);
	child_send(child, IPC_MSG_WORKER_LINK, &(struct ipc_worker_link){.index = m->index, .client = true}, pair[0]);
	close(pair[0]);
	close(pair[1]);
}
