/* hermes-admin's connection to hermesd: one question at a time. */
#ifndef HERMES_SUPERVISOR_ADMIN_CLIENT_H
#define HERMES_SUPERVISOR_ADMIN_CLIENT_H

#include "ipc/messages.h"

struct admin_client;
struct admin_reply {
	unsigned status;
	char *json, *error;       /* malloc'd or NULL */
};
void admin_reply_clear(struct admin_reply *reply);

/* Connects to the socket; tries again for up to wait_ms (hermesd may be starting). NULL with error for people. */
struct admin_client *admin_connect(const char *path, unsigned wait_ms, char *error, size_t size);
void admin_close(struct admin_client *client);
/* Asks and waits. fd (or -1) stays the caller's. Always fills reply: what goes wrong here is status 1 with an error. */
void admin_ask(struct admin_client *client, const char *verb, const struct ipc_strs *args, int fd, unsigned timeout_ms,
               struct admin_reply *reply);
/* Waits until hermesd ends the connection. False: it did not within timeout_ms. */
bool admin_wait_end(struct admin_client *client, unsigned timeout_ms);

#endif
