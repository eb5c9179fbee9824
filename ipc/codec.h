/* Messages to bytes and back, driven by the tables of messages.h. */
#ifndef HERMES_IPC_CODEC_H
#define HERMES_IPC_CODEC_H

#include "ipc/messages.h"

/* Where a decoded message's strings and lists live; fixed size, reset by every decode. */
struct ipc_arena;
struct ipc_arena *ipc_arena_new(void);
void ipc_arena_free(struct ipc_arena *arena);

/* Encodes struct ipc_NAME `message` of `type` into out (at most `size` bytes; IPC_MESSAGE_MAX is what a channel takes).
 * Returns the length, or -EMSGSIZE. */
int ipc_encode(enum ipc_type type, const void *message, uint8_t *out, size_t size);

/* Decodes one message. `out` must have room for the largest message struct (union ipc_any). Pointers in it live until
 * the next decode into the same arena. Returns the type, or -EBADMSG with *why naming what did not fit (static text). */
int ipc_decode(const uint8_t *data, size_t length, struct ipc_arena *arena, void *out, const char **why);

union ipc_any {
#define M(ID, name, from, to, fd) struct ipc_##name name;
	IPC_MESSAGES(M)
#undef M
};

/* Whether `from` may send `type` to `to`, and its rule for descriptors. */
bool ipc_allowed(enum ipc_type type, enum ipc_role from, enum ipc_role to);
enum ipc_fd_rule ipc_fd_rule(enum ipc_type type);

#endif
