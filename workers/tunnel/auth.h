/* Proof of users' passwords, off the event loop: crypt(3) takes its time. */
#ifndef HERMES_TUNNEL_AUTH_H
#define HERMES_TUNNEL_AUTH_H

#include "workers/tunnel/tunnel.h"

struct auth;
struct auth_query;

struct auth *auth_new(struct event_base *base);
void auth_free(struct auth *auth);
/* The users of the generation in force. */
void auth_set_users(struct auth *auth, const struct config *config);

/* Checks name and password. Known good pairs (kept as salted digests, at most 1,024, for 5 minutes) are answered at once:
 * returns NULL with *now true. Otherwise one thread hashes, at most 64 waiting; done(arg, ok) comes later, never inside the call. */
struct auth_query *auth_check(struct auth *auth, const char *name, const char *password, bool *now,
                              void (*done)(void *arg, bool ok), void *arg);
void auth_cancel(struct auth_query *query);
/* "Basic ..." into name and password (RFC 7617). 0 or -EINVAL. */
int auth_basic(const char *value, char *name, size_t name_size, char *password, size_t password_size);

#endif
