/* Starts worker programs: fork, then execute. */
#ifndef HERMES_SUPERVISOR_SPAWN_H
#define HERMES_SUPERVISOR_SPAWN_H

#include "supervisor/privileges.h"

struct spawner {
	const struct privileges *privileges;
	const char *state_dir;     /* told to those who have a part of it: config-sync, controller, keeper */
	const char *runtime_dir;   /* told to tunnel: where implied clusters find their sockets */
	char libexec[4096];        /* folder of hermes-ROLE */
	unsigned net_slot;         /* told to tun-bridge only: ipc/net.h; NET_SLOTS: none */
	int journal_fd;            /* passed on as descriptor 4; -1: none */
	int kept[IPC_ROLE_COUNT];  /* O_PATH: the program of each role that served last; -1: none did */
};

/* Finds the workers' folder: HERMES_LIBEXEC_DIR (never under set-user-id or file capabilities), ../libexec beside our own
 * program, else /usr/libexec/hermes. */
void spawn_find_libexec(struct spawner *spawner);

/* Starts hermes-ROLE --index N. Its descriptor 3 is one end of a channel; *channel becomes the other. It inherits nothing
 * else but standard output and error. fresh: the program as it is on disk, which comes in *executable (O_PATH); else, where one is
 * kept, that. Returns its process id, or -errno. */
pid_t spawn_worker(const struct spawner *spawner, enum ipc_role role, unsigned index, bool fresh, int *channel, int *executable);
/* Whether there is a program that could be executed: 0, or -1 with the reason. */
int spawn_check(const struct spawner *spawner, enum ipc_role role, char *error, size_t size);
/* The program served: from now on it is the one that is started again where a worker falls. Takes *executable, where >= 0. */
void spawn_keep(struct spawner *spawner, enum ipc_role role, int *executable);

#endif
