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
	struct store_layer pending;   /* from the controller, until it is asked for; number 0: none */
};

/* Opens the store in folder; one that is damaged as a whole is moved aside, loudly. 0 or -errno. */
int sync_open(struct sync *sync, const char *folder);
void sync_close(struct sync *sync);

/* A version's documents, one or two, the one that wins first; label holds the second's name. Returns how many. */
struct config_layer;
size_t sync_layers(const struct store_version *v, struct config_layer *layers, char label[48]);

/* fd: the document, or -1; stays the caller's. Answers with CONFIG_COMPILED. */
void sync_submit(struct sync *sync, const struct ipc_config_submit *submit, int fd);
/* Answers with CONFIG_STORED. */
void sync_store(struct sync *sync, const struct ipc_config_store *store);
/* For control.c: keeps a document that the controller signed (number: the controller's) as the layer "controller" that a following
 * CONFIG_SUBMIT of action "controller" and this number compiles. Until then nothing in force changes. 0 or -errno. */
int sync_controller_document(struct sync *sync, uint64_t number, const char *author, const char *reason, const char *text,
                             size_t length);
/* The controller's number of the layer "controller" that this version of the store holds; 0: it has none. */
uint64_t sync_controller_number(struct sync *sync, uint64_t version);
/* config show, history, diff (query.c). */
void sync_admin(struct sync *sync, const struct ipc_admin_request *request);

#endif
