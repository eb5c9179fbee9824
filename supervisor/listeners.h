/* Listening sockets: the supervisor opens them, keeps them over the workers' lives and over generations, and hands every
 * tunnel worker one of its own per listener (SO_REUSEPORT; a Unix socket is shared). The worker that replaces another gets the
 * very same socket: a UDP client stays with its worker as long as their number does. */
#ifndef HERMES_SUPERVISOR_LISTENERS_H
#define HERMES_SUPERVISOR_LISTENERS_H

#include "supervisor/child.h"

#include <stdbool.h>

struct config;
struct json;
struct listeners;
struct supervisor;

struct listeners *listeners_new(const struct supervisor *s);
void listeners_free(struct listeners *listeners);

/* Opens what `config` needs and is not open yet: bound, not listening. Returns 0, or -1 with error naming the listener;
 * nothing changed then. config must live until commit or abort, and after commit until the next commit. */
int listeners_prepare(struct listeners *listeners, const struct config *config, unsigned tunnels, char *error,
                      size_t size);
/* What was prepared is in force: sockets that it does not use are closed. Or it is not, and goes. */
void listeners_commit(struct listeners *listeners);
void listeners_abort(struct listeners *listeners);

/* For a restart in place: the sockets; and back, with what `config`, which is in force, makes of them. 0, or -errno resp. -1. */
struct state;
int listeners_save(const struct listeners *listeners, struct state *state);
int listeners_adopt(struct listeners *listeners, const struct state *state, const struct config *config, char *error, size_t size);

/* LISTENER messages with the worker's own sockets; prepared: of what is being prepared, else of what is in force. */
void listeners_send(struct listeners *listeners, struct child *child, uint64_t generation, bool prepared);
/* Whether fd is a socket of an address that is listened at (listeners: a struct listeners *). */
bool listeners_want(const void *listeners, int fd);
void listeners_json(const struct listeners *listeners, struct json *json, const char *key);

#endif
