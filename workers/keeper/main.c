/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-keeper: keeps private keys, and makes requests, certificates and signatures with them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "workers/keeper/keeper.h"
#include "workers/keeper/ops.h"

#define TEXT_MAX (16u << 20)
#define TEXT_IN_MESSAGE (32u << 10)

struct asker {
	enum ipc_role role;
	struct ipc_channel *channel;
};

struct keeper {
	struct worker *worker;
	struct config *next, *current;
	uint64_t next_number;
	struct ops ops;
	struct asker askers[2];
};

/* --- configuration --------------------------------------------------------------------------------------------------- */

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct keeper *k = arg;
	(void)error, (void)error_size;
	config_free(k->next);
	k->next = config;
	k->next_number = generation;
	return 0;
}

static void on_commit(void *arg, uint64_t generation)
{
	struct keeper *k = arg;
	if (!k->next || k->next_number != generation)
		return;
	config_free(k->current);
	k->current = k->next;
	k->next = NULL;
	ops_set_identity(&k->ops, k->current->domain, k->current->node_name);
}

static void on_abort(void *arg, uint64_t generation)
{
	struct keeper *k = arg;
	if (!k->next || k->next_number != generation)
		return;
	config_free(k->next);
	k->next = NULL;
}

/* --- who asks -------------------------------------------------------------------------------------------------------- */

static void reply(struct ipc_channel *channel, uint64_t id, const char *text, const char *error)
{
	struct ipc_keeper_reply m = {.id = id, .text = text, .error = error};
	int fd = -1;
	if (text && strlen(text) > TEXT_IN_MESSAGE) {
		fd = memfd_sealed("hermes-keeper", text, strlen(text));
		m.text = NULL;
		if (fd < 0)
			m.error = "no memory for the answer";
	}
	ipc_send(channel, IPC_MSG_KEEPER_REPLY, &m, fd);
	if (fd >= 0)
		close(fd);
}

/* What is done for every version, or for whoever asks without a name, tells nothing and would fill the log. */
static bool is_told(const char *op)
{
	return strcmp(op, "sign") && strcmp(op, "authorities") && strcmp(op, "public");
}

static void answer(struct keeper *k, struct ipc_channel *channel, const struct ipc_keeper_request *m, const char *text,
                   size_t length)
{
	static const struct ipc_keys_changed changed = {.why = "the node's certificate was renewed"};
	char *result = NULL, why[PKI_WHY] = "";
	enum ipc_role role = ipc_peer_role(channel);
	int error = ops_run(&k->ops, role, m->op, &m->args, text, length, &result, why);
	if (error)
		log_warn("refused", "op=%s asker=%s reason=%s", log_value(m->op ? m->op : ""), ipc_role_name(role), log_value(why));
	else if (is_told(m->op))
		log_info("done", "op=%s asker=%s subject=%s", m->op, ipc_role_name(role),
		         log_value(m->args.n ? m->args.v[0] : k->ops.node ? k->ops.node : "-"));
	reply(channel, m->id, error ? NULL : result, error ? why : NULL);
	pki_wipe(result);
	if (k->ops.changed) {
		k->ops.changed = false;
		ipc_send(worker_supervisor(k->worker), IPC_MSG_KEYS_CHANGED, &changed, -1);
	}
}

static void on_request(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *message, int *fd, void *arg)
{
	const struct ipc_keeper_request *m = &message->keeper_request;
	const void *data = NULL;
	char *copy = NULL;
	size_t length = 0;
	if (type != IPC_MSG_KEEPER_REQUEST)
		return;
	if (*fd < 0) {
		answer(arg, channel, m, m->text ? m->text : "", m->text ? strlen(m->text) : 0);
		return;
	}
	if (memfd_map(*fd, TEXT_MAX, &data, &length) || !(copy = calloc(1, length + 1))) {
		reply(channel, m->id, NULL, "the text could not be read");
	} else {
		memcpy(copy, data, length);
		answer(arg, channel, m, copy, length);
	}
	if (data)
		memfd_unmap(data, length);
	free(copy);
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct keeper *k = arg;
	log_info("peer gone", "peer=%s reason=%s", ipc_role_name(ipc_peer_role(channel)), log_value(reason));
	for (size_t i = 0; i < 2; i++)
		if (k->askers[i].channel == channel)
			k->askers[i].channel = NULL;
	ipc_channel_free(channel);
}

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct keeper *k = arg;
	(void)index;
	for (size_t i = 0; i < 2; i++) {
		struct asker *a = &k->askers[i];
		if (a->role != role)
			continue;
		if (a->channel)
			ipc_channel_free(a->channel);
		a->channel = ipc_channel_new(worker_base(k->worker), fd, IPC_KEEPER, worker_index(k->worker), role, on_request,
		                             on_ended, k);
		return;
	}
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {
		.prepare = on_prepare, .commit = on_commit, .abort = on_abort, .peer = on_peer};
	static struct keeper keeper = {.ops.keys.folder = -1, .askers = {{IPC_CONFIG_SYNC, NULL}, {IPC_CONTROLLER, NULL}}};
	const char *state = getenv("HERMES_STATE_DIR");
	char folder[4096];
	keeper.worker = worker_start(IPC_KEEPER, argc, argv, 0, &callbacks, &keeper);
	if (!state || !*state || snprintf(folder, sizeof(folder), "%s/%s", state, KEEPER_FOLDER) >= (int)sizeof(folder))
		fatal("keys", "error=%s", log_value("HERMES_STATE_DIR is not set"));
	int error = keys_open(&keeper.ops.keys, folder);
	if (error)
		fatal("keys", "folder=%s error=%s", log_value(folder), log_value(strerror(-error)));
	pki_init();
	keys_mend(&keeper.ops.keys);
	int status = worker_run(keeper.worker);
	config_free(keeper.next);
	config_free(keeper.current);
	ops_close(&keeper.ops);
	return status;
}
