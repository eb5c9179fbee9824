/* The admin socket: who may ask what, and who answers. */
#ifndef HERMES_SUPERVISOR_CONTROL_H
#define HERMES_SUPERVISOR_CONTROL_H

#include "supervisor/child.h"

struct control;
/* Listens on admin.sock in the runtime folder, or on `inherited`, which does so already (-1: none). NULL with errno and a logged
 * reason when that is not possible. */
struct control *control_new(struct supervisor *s, int inherited);
/* What systemd kept of it from another life, or -1. */
int control_stored(const struct supervisor *s);
/* Removes the socket, and ends all clients (which tells `stop` that we are gone). */
void control_free(struct control *control);
/* A generation is in force: names under admin: are looked up again. */
void control_committed(struct control *control);
/* A worker serves: `wait ready` may be answered. */
void control_progress(struct control *control);
/* `restart` has come to its end; error NULL: the new image serves, and the workers follow. */
void control_restarted(struct control *control, const char *error);
/* For a restart in place: no request is open but `restart`; the clients; and back, once a configuration is in force. */
struct state;
bool control_idle(const struct control *control);
int control_save(const struct control *control, struct state *state);
int control_adopt(struct control *control, const struct state *state);
void control_worker_replied(struct control *control, struct child *child, const struct ipc_admin_reply *m, int fd);

#endif
