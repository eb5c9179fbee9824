/* What a supervisor hands to the image that takes its place: one JSON document in a memfd, naming descriptors that are inherited
 * under their numbers. Neighbouring releases read each other's: members are only ever appended, unknown ones skipped, missing ones
 * are as written below. */
#ifndef HERMES_SUPERVISOR_STATE_H
#define HERMES_SUPERVISOR_STATE_H

#include "ipc/messages.h"
#include "supervisor/bind.h"

#define STATE_FORMAT 1
#define STATE_QUEUES 8

struct state_slot {
	unsigned role, index, failures, restarts, incarnations;
	bool gone;
	const char *last_end;
};
/* channel -1: it is dead, and waits to be reaped. state: enum child_state's name. current: it fills its slot. */
struct state_child {
	unsigned role, index, seat;
	int64_t pid, peer_pid;
	int channel;
	const char *state, *version;
	bool current;
	uint64_t generation, prepared, started, deadline, stop_at, ping;
};
/* The sockets of one address. */
struct state_place {
	struct bind_address address;
	int *fds;
	size_t n_fds;
};
struct state_device {
	const char *name;
	unsigned mtu, offload, owner;
	int fds[STATE_QUEUES];
	bool given;                   /* the far end gave it these: */
	struct ipc_strs addresses, routes;
};
/* fd: the content (a memfd), the open log, or -1 where it was not there. */
struct state_file {
	const char *kind, *path, *error;
	unsigned roles;
	bool system;
	int fd;
	uint64_t inode;
	int64_t size, seconds, nanoseconds;
};
/* A client of the admin socket. asked: the id of its request to restart, 0: none. */
struct state_client {
	int fd;
	uint32_t uid;
	uint64_t asked;
};
struct state_drain {
	const char *cluster, *endpoint;
};

#define STATE_LISTS(L)                                                                                                \
	L(slot, slots) L(child, children) L(place, places) L(device, devices) L(file, files) L(client, clients)       \
	L(drain, drains)

struct state {
	const char *version;          /* of who wrote it */
	const char *program;          /* where the supervisor's program lies on disk */
	const char *libexec, *log_level, *stale;
	int executable;               /* O_PATH: the program that wrote it */
	int admin, net_slot_fd;       /* -1: none */
	unsigned net_slot;
	uint64_t started_ms, number;
	int64_t since;
	const char *digest;
	int config;                   /* a memfd: the compiled configuration in force */
	int kept[IPC_ROLE_COUNT];
#define L(type, list)                                                                                                 \
	struct state_##type *list;                                                                                    \
	size_t n_##list;
	STATE_LISTS(L)
#undef L
	void *root;                   /* read: the document, which the strings live in */
};

void state_init(struct state *state);
/* Frees the lists, and what was read; closes nothing. */
void state_clear(struct state *state);
/* One more element, zeroed; NULL: out of memory. v and n: of a list above. */
void *state_add(void *v, size_t *n, size_t size);
#define STATE_ADD(state, list) state_add(&(state)->list, &(state)->n_##list, sizeof(*(state)->list))

/* A sealed memfd, or -errno. */
int state_write(const struct state *state);
/* 0, or -1 with the reason. Every number is checked; that the descriptors are there and of their kind, state_check_fds() says. */
int state_read(int fd, struct state *state, char *error, size_t size);
int state_parse(const char *text, size_t length, struct state *state, char *error, size_t size);
int state_check_fds(const struct state *state, char *error, size_t size);
/* Every descriptor that is inherited, the document's own excepted. */
void state_each_fd(const struct state *state, void (*visit)(int fd, void *arg), void *arg);

#endif
