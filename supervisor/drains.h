/* The endpoints that an operator drains: router keeps them in memory, and a new router is told again. */
#ifndef HERMES_SUPERVISOR_DRAINS_H
#define HERMES_SUPERVISOR_DRAINS_H

#include "supervisor/child.h"

struct state;
struct drains;
struct drains *drains_new(void);
void drains_free(struct drains *drains);
/* Router took it: `clusters drain` or, drained false, `clusters undrain`. */
void drains_note(struct drains *drains, const char *cluster, const char *endpoint, bool drained);
/* To a router that serves. */
void drains_send(const struct drains *drains, struct child *router);
/* 0 or -ENOMEM; the strings are ours. */
int drains_save(const struct drains *drains, struct state *state);
void drains_adopt(struct drains *drains, const struct state *state);

#endif
