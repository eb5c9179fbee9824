/* All modules' parts of the state that one image of the supervisor hands to the next. */
#ifndef HERMES_SUPERVISOR_TAKEOVER_H
#define HERMES_SUPERVISOR_TAKEOVER_H

#include <stddef.h>

struct state;
struct supervisor;

/* Fills *state, whose strings are the modules', and writes it: the document's descriptor or -errno. state_clear() in any case, and
 * takeover_saved() when nobody needs the descriptors any more that were made for it. */
int takeover_save(struct supervisor *s, struct state *state);
void takeover_saved(struct supervisor *s);
/* In the new image, whose modules are made and empty. 0, or -1 with the reason. */
int takeover_adopt(struct supervisor *s, const struct state *state, char *error, size_t size);

#endif
