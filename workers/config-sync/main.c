/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-config-sync: started by hermesd; the store's folder comes in HERMES_STATE_DIR. */
#include "ipc/log.h"
#include "ipc/worker.h"
#include "workers/config-sync/control.h"
#include "workers/config-sync/sync.h"

#include <stdlib.h>
#include <string.h>

struct main {
	struct sync sync;
	struct control *control;
};

static void on_store(struct main *m, const struct ipc_config_store *store)
{
	if (!store->refused)
		control_storing(m->control, store->generation);
	sync_store(&m->sync, store);
}

static void on_admin(struct main *m, const struct ipc_admin_request *request)
{
	if (request->verb && !strcmp(request->verb, "control status"))
		control_status(m->control, request->id);
	else
		sync_admin(&m->sync, request);
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	struct main *m = arg;

	switch (type) {
	case IPC_MSG_CONFIG_SUBMIT: sync_submit(&m->sync, &message->config_submit, *fd); break;
	case IPC_MSG_CONFIG_STORE: on_store(m, &message->config_store); break;
	case IPC_MSG_ADMIN_REQUEST: on_admin(m, &message->admin_request); break;
	case IPC_MSG_DIALED: control_dialed(m->control, &message->dialed, fd); break;
	case IPC_MSG_CONFIG_OUTCOME: control_outcome(m->control, &message->config_outcome); break;
	case IPC_MSG_ADMIN_REPLY: control_gathered(m->control, &message->admin_reply, *fd); break;
	default: break;
	}
}

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct main *m = arg;

	(void)error, (void)error_size;
	control_prepare(m->control, generation, config);
	return 0;
}

static void on_commit(void *arg, uint64_t generation)
{
	struct main *m = arg;

	control_commit(m->control, generation);
}

static void on_abort(void *arg, uint64_t generation)
{
	struct main *m = arg;

	control_abort(m->control, generation);
}

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct main *m = arg;

	(void)index;
	control_peer(m->control, role, fd);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {.prepare = on_prepare, .commit = on_commit, .abort = on_abort, .peer = on_peer,
	                                                  .message = on_message};
	static struct main m;
	const char *folder = getenv("HERMES_STATE_DIR");

	m.sync.worker = worker_start(IPC_CONFIG_SYNC, argc, argv, 0, &callbacks, &m);
	if (!folder || !*folder)
		fatal("store", "error=%s", log_value("HERMES_STATE_DIR is not set"));
	int error = sync_open(&m.sync, folder);
	if (error)
		fatal("store", "folder=%s error=%s", log_value(folder), log_value(strerror(-error)));
	m.control = control_new(&m.sync);
	if (!m.control)
		fatal("out of memory", "at=%s", "start");
	int status = worker_run(m.sync.worker);
	control_free(m.control);
	sync_close(&m.sync);
	return status;
}
