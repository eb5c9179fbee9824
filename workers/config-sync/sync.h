/* The only writer of the store: takes documents, checks and numbers them, keeps which one is in force. */
#ifndef HERMES_CONFIG_SYNC_SYNC_H
#define HERMES_CONFIG_SYNC_SYNC_H

#include "ipc/codec.h"
#include "store/store.h"

struct worker;

struct sync {
	struct worker *worker;
	struct store *store;
	uint64_t from_file;           /* the version whose document came from the file and waits for CONFIG_STORE; 0: none */
	char file_digest[65];         /* that document's */
};

/* Opens the store in folder; one that is damaged as a whole is moved aside, loudly. 0 or -errno. */
int sync_open(struct sync *sync, const char *folder);
void sync_close(struct sync *sync);

/* fd: the document, or -1; stays the caller's. Answers with CONFIG_COMPILED. */
void sync_submit(struct sync *sync, const struct ipc_config_submit *submit, int fd);
/* Answers with CONFIG_STORED. */
void sync_store(struct sync *sync, const struct ipc_config_store *store);
/* config show, history, diff (query.c). */
void sync_admin(struct sync *sync, const struct ipc_admin_request *request);

#endif
