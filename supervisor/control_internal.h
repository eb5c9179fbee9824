/* What the admin socket's modules share: clients, and requests on their way to an answer. */
#ifndef HERMES_SUPERVISOR_CONTROL_INTERNAL_H
#define HERMES_SUPERVISOR_CONTROL_INTERNAL_H

#include "ipc/json.h"
#include "supervisor/control.h"
#include "supervisor/lines.h"

struct event;
struct change_result;

enum level { LEVEL_NONE, LEVEL_READ, LEVEL_OPERATE, LEVEL_ADMINISTER };
const char *level_name(enum level level);

struct client {
	struct control *control;
	struct ipc_channel *channel;
	uid_t uid;
	char name[64];               /* "alice", or "uid 1000" */
	enum level level;
	uint64_t last;               /* clock_ms() of its last message */
	unsigned open;               /* requests not answered */
	LIST_ENTRY(client) link;
};

/* One request. It is freed by its answer, or with its client. */
struct ask {
	struct control *control;
	struct client *client;
	uint64_t id;                 /* the client's */
	uint64_t own;                /* ours, towards workers */
	const struct verb *verb;
	struct slot *waiting[65];    /* every tunnel worker, and one more: workers that have not answered */
	unsigned n_waiting, answered;
	unsigned status;             /* what a worker that refused said */
	char *pieces;                /* what workers said so far, joined by commas */
	size_t length;
	struct lines errors;
	struct event *limit;
	bool waits_ready;            /* `wait ready` */
	bool restarts;               /* `restart`: goes on in the next image */
	char *words[2];              /* `clusters drain`, `undrain`: what is noted when router took it */
	bool checks_ready;           /* `status --check ready` */
	LIST_ENTRY(ask) link;
};

/* A request of the client; it is freed by its answer. NULL: out of memory. */
struct ask *control_ask(struct client *client, uint64_t id, const struct verb *verb);

struct control {
	struct supervisor *supervisor;
	int fd;
	char path[108];
	struct event *accept, *sweep;
	LIST_HEAD(, client) clients;
	LIST_HEAD(, ask) asks;
	unsigned n_clients;
	uint64_t last_own;
	struct access *access;
};

/* Where a verb's answer comes from. */
enum route {
	ROUTE_SELF,     /* handler */
	ROUTE_ROLE,     /* the worker of `role`: its document as it is */
	ROUTE_LIST,     /* all workers of `role`: {"key": [all their objects]} */
	ROUTE_ONE,      /* all workers of `role`: whichever knows it */
	ROUTE_ANY,      /* one worker of `role`, whichever is there: its document as it is */
	ROUTE_MERGED,   /* as ROUTE_LIST, also those of `also`; what they say of the same name becomes one object,
	                 * where what `role` says comes first */
};
struct verb {
	const char *name;
	enum level level;
	enum route route;
	enum ipc_role role, also;
	const char *key;
	void (*handler)(struct ask *ask, const struct ipc_strs *args, int *fd);
};
/* NULL: no such verb. */
const struct verb *verb_find(const char *name);
enum level verb_level(const struct verb *verb, const struct ipc_strs *args);

/* A JSON array of objects: those with the same `name` become one, where the first who gives a member has it. malloc'd; NULL: no such
 * array. */
char *merge_by_name(const char *list);

/* Answers and frees. json: one document or NULL; error: for people or NULL. */
void ask_answer(struct ask *ask, unsigned status, const char *json, const char *error);
void ask_answer_json(struct ask *ask, unsigned status, struct json *json);
/* `workers restart`, `restart` (control_restart.c). */
void control_restart(struct ask *ask, const struct ipc_strs *args, int *fd);
void control_workers_restart(struct ask *ask, const struct ipc_strs *args, int *fd);
/* Puts the question to workers (ROUTE_ROLE, ROUTE_LIST, ROUTE_ONE). */
void ask_workers(struct ask *ask, const struct ipc_strs *args);
void control_ask_free(struct ask *ask);
/* Arms the limit: on_limit runs unless the ask is answered before. */
int ask_limit(struct ask *ask, unsigned ms, void (*on_limit)(int fd, short what, void *ask));

/* Who may do what (control_access.c). */
struct config;
struct access *access_new(const struct config *config);
void access_free(struct access *access);
enum level access_level(const struct access *access, int fd, uid_t uid, gid_t gid);
void access_name(uid_t uid, char *name, size_t size);

#endif
