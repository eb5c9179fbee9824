#include "workers/tun-bridge/tun_bridge.h"
#include "ipc/log.h"
#include "store/config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tun_bridge {
	struct worker *worker;
	struct config *in_force, *prepared;      /* NULL: none */
};

struct tun_bridge *tun_bridge_new(void)
{
	struct tun_bridge *bridge = calloc(1, sizeof(*bridge));
	if (!bridge)
		fatal("out of memory", "%s", "at=start");
	return bridge;
}

void tun_bridge_use(struct tun_bridge *bridge, struct worker *worker)
{
	bridge->worker = worker;
}

static void drop(struct config **config)
{
	if (*config)
		config_free(*config);
	*config = NULL;
}

void tun_bridge_free(struct tun_bridge *bridge)
{
	drop(&bridge->in_force);
	drop(&bridge->prepared);
	free(bridge);
}

static int prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct tun_bridge *bridge = arg;
	(void)generation;
	(void)error;
	(void)error_size;
	drop(&bridge->prepared);
	bridge->prepared = config;
	return 0;
}

static void commit(void *arg, uint64_t generation)
{
	struct tun_bridge *bridge = arg;
	drop(&bridge->in_force);
	bridge->in_force = bridge->prepared;
	bridge->prepared = NULL;
	log_debug("configuration in force", "generation=%llu", (unsigned long long)generation);
}

static void abort_prepared(void *arg, uint64_t generation)
{
	struct tun_bridge *bridge = arg;
	(void)generation;
	drop(&bridge->prepared);
}

/* Nobody talks to tun-bridge but the supervisor, yet. */
static void refuse_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	(void)arg;
	log_debug("peer not needed", "role=%s index=%u", ipc_role_name(role), index);
	close(fd);
}

/* A list is a sequence of objects without brackets: of none, it is empty. */
static void answer(struct tun_bridge *bridge, const struct ipc_admin_request *request)
{
	if (request->verb && !strcmp(request->verb, "tunnels list"))
		worker_reply(bridge->worker, request->id, 0, "", NULL);
	else
		worker_reply(bridge->worker, request->id, 2, NULL, "tun-bridge does not know this verb");
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	(void)fd;
	if (type == IPC_MSG_ADMIN_REQUEST)
		answer(arg, &message->admin_request);
}

const struct worker_callbacks tun_bridge_callbacks = {
	.prepare = prepare, .commit = commit, .abort = abort_prepared, .peer = refuse_peer, .message = on_message,
};
