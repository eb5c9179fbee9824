/* A SOCK_SEQPACKET channel between two processes: one message, one datagram, at most one descriptor beside it. */
#ifndef HERMES_IPC_CHANNEL_H
#define HERMES_IPC_CHANNEL_H

#include "ipc/codec.h"

struct event_base;
struct ipc_channel;

/* Called for each message that is allowed from the peer's role to ours. `fd` is -1 or ours to keep or close: the handler
 * takes it by setting *fd to -1; what it leaves is closed. The handler may free the channel. */
typedef void ipc_handler(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd,
                         void *arg);
/* The channel ended: peer gone (reason "closed") or it lied (reason names the message and the fault). The callback frees
 * the channel (or keeps it, silent, until later). */
typedef void ipc_ended(struct ipc_channel *channel, const char *reason, void *arg);

/* A connected pair with raised buffers (4 MiB), close-on-exec, non-blocking. Returns 0 or -errno. */
int ipc_pair(int fds[2]);

/* Takes over fd. Sends HELLO at once; the peer's HELLO must be its first message, and name `peer`. */
struct ipc_channel *ipc_channel_new(struct event_base *base, int fd, enum ipc_role self, unsigned self_index,
                                    enum ipc_role peer, ipc_handler *handler, ipc_ended *ended, void *arg);
/* A channel that another image of this process made, and whose peer said its hello then. The descriptor is left as it is towards
 * exec. */
struct ipc_adopted {
	enum ipc_role role;
	unsigned index, pid;
	const char *version;
};
struct ipc_channel *ipc_channel_adopt(struct event_base *base, int fd, enum ipc_role self, const struct ipc_adopted *peer,
                                      ipc_handler *handler, ipc_ended *ended, void *arg);
int ipc_channel_fd(const struct ipc_channel *channel);
void ipc_channel_free(struct ipc_channel *channel);

/* Queues and sends. `fd` (or -1) is duplicated by the kernel; the caller keeps its own. Sends at once where the socket
 * takes it, else keeps up to 4,096 messages or 16 MiB and sends them as it drains. Returns 0, -EMSGSIZE, or -ENOBUFS when
 * the peer does not read (the caller decides what that means). */
int ipc_send(struct ipc_channel *channel, enum ipc_type type, const void *message, int fd);

/* Who is at the other end (as in its HELLO; index 0 and pid 0 before it came). */
unsigned ipc_peer_index(const struct ipc_channel *channel);
enum ipc_role ipc_peer_role(const struct ipc_channel *channel);
unsigned ipc_peer_pid(const struct ipc_channel *channel);
const char *ipc_peer_version(const struct ipc_channel *channel);   /* "" before; at most 31 bytes */
/* Bytes waiting to be sent: a sender with much to say pauses above a mark of its own. */
size_t ipc_backlog(const struct ipc_channel *channel);
/* Reads nothing more until told otherwise. */
void ipc_pause(struct ipc_channel *channel, bool pause);

#endif
