/* Address spaces: the same name or prefix leads different users to different places. */
#ifndef HERMES_ROUTER_SPACE_H
#define HERMES_ROUTER_SPACE_H

#include "store/match.h"
#include "store/trace.h"

struct space_index;

/* config must outlive the index. NULL: out of memory. */
struct space_index *space_index_new(const struct config *config);
void space_index_free(struct space_index *index);

/* The entry of the user's space that names the target: by the host's name, else, where the host is an address, by the
 * longest prefix that holds it. Ports do not count. A user belongs to the first space that lists it, and one that none
 * lists (an unknown one too) to the first that lists "*". NULL: the target is left to the routes. */
const struct config_space_entry *space_find(const struct space_index *index, const char *user, const char *authority,
                                            const struct config_space **space, struct trace *trace);

#endif
