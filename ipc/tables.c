/* The tables that the lists of messages.h become. */
#include "ipc/tables.h"
#include "ipc/codec.h"

/* A field's list does not name its message, so each table is built where a typedef does. */
#define F(TYPE, field) {IPC_##TYPE, offsetof(self, field), #field},
#define M(ID, label, senders, receivers, rule)                                                                        \
	static const struct ipc_description *describe_##label(void)                                                   \
	{                                                                                                             \
		typedef struct ipc_##label self;                                                                      \
		static const struct ipc_field fields[] = {IPC_FIELDS_##label(F)};                                     \
		static const struct ipc_description description = {                                                   \
			.name = #label, .from = (senders), .to = (receivers), .fd = (rule), .size = sizeof(self),     \
			.fields = fields, .n_fields = sizeof(fields) / sizeof(*fields),                               \
		};                                                                                                    \
		return &description;                                                                                  \
	}
IPC_MESSAGES(M)
#undef M
#undef F

static const struct ipc_description *(*const describe[IPC_MSG_COUNT])(void) = {
#define M(ID, label, senders, receivers, rule) [IPC_MSG_##ID] = describe_##label,
	IPC_MESSAGES(M)
#undef M
};

static const char *const role_names[IPC_ROLE_COUNT] = {
#define R(id, label) [IPC_##id] = label,
	IPC_ROLES(R)
#undef R
};

const struct ipc_description *ipc_describe(unsigned type)
{
	return type < IPC_MSG_COUNT ? describe[type]() : NULL;
}

const char *ipc_role_name(unsigned role)
{
	return role < IPC_ROLE_COUNT ? role_names[role] : "?";
}

const char *ipc_type_name(unsigned type)
{
	return type < IPC_MSG_COUNT ? describe[type]()->name : "?";
}

bool ipc_allowed(enum ipc_type type, enum ipc_role from, enum ipc_role to)
{
	const struct ipc_description *d = ipc_describe(type);
	return d && from < IPC_ROLE_COUNT && to < IPC_ROLE_COUNT && (d->from & IPC_BIT(from)) && (d->to & IPC_BIT(to));
}

enum ipc_fd_rule ipc_fd_rule(enum ipc_type type)
{
	const struct ipc_description *d = ipc_describe(type);
	return d ? d->fd : IPC_FD_NONE;
}
