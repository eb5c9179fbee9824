/* The descriptors made from the lists of messages.h: what the codec walks. Internal to ipc/. */
#ifndef HERMES_IPC_TABLES_H
#define HERMES_IPC_TABLES_H

#include "ipc/messages.h"

enum ipc_field_type { IPC_U32, IPC_U64, IPC_I64, IPC_BOOL, IPC_STR, IPC_BYTES, IPC_STRS, IPC_PAIRS };

struct ipc_field {
	enum ipc_field_type type;
	size_t offset;            /* of the member in struct ipc_NAME */
	const char *name;
};

struct ipc_description {
	const char *name;         /* lower case, as in messages.h */
	uint32_t from, to;        /* sets of roles */
	enum ipc_fd_rule fd;
	size_t size;              /* of struct ipc_NAME */
	const struct ipc_field *fields;
	unsigned n_fields;
};

/* Static; NULL for numbers out of range. */
const struct ipc_description *ipc_describe(unsigned type);

/* The number that a datagram claims as its type, to name what did not decode; IPC_MSG_COUNT where it has none. */
unsigned ipc_peek_type(const uint8_t *data, size_t length);

#endif
