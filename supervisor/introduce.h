/* Who talks to whom: socket pairs between workers. */
#ifndef HERMES_SUPERVISOR_INTRODUCE_H
#define HERMES_SUPERVISOR_INTRODUCE_H

#include "supervisor/child.h"

/* Hands the new worker and each live worker that it talks to the two ends of a pair. Both take it for one that replaces
 * what they had with that role and number. */
void introduce(struct child *child);
bool introduce_talk(enum ipc_role a, enum ipc_role b);

#endif
