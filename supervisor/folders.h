/* The state and the runtime folder: made, and handed to who works there. */
#ifndef HERMES_SUPERVISOR_FOLDERS_H
#define HERMES_SUPERVISOR_FOLDERS_H

#include "ipc/messages.h"

struct supervisor;

/* Both, and what lies in the state folder from an earlier run. Returns 0, or -1 with the reason on standard error. */
int folders_make(const struct supervisor *s);
/* The folder below the state folder that is a role's own (keeper: keys, controller: controller), where it has one: mode 0700, the
 * workers' user. Returns 0 or -errno. */
int folders_make_role(const struct supervisor *s, enum ipc_role role);

#endif
