/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-config-sync: started by hermesd; the store's folder comes in HERMES_STATE_DIR. */
#include "ipc/log.h"
#include "ipc/worker.h"
#include "workers/config-sync/sync.h"

#include <stdlib.h>
#include <string.h>

static void on_message(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	struct sync *sync = arg;

	if (type == IPC_MSG_CONFIG_SUBMIT)
		sync_submit(sync, &m->config_submit, *fd);
	else if (type == IPC_MSG_CONFIG_STORE)
		sync_store(sync, &m->config_store);
	else if (type == IPC_MSG_ADMIN_REQUEST)
		sync_admin(sync, &m->admin_request);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {.message = on_message};
	struct sync sync = {0};
	const char *folder = getenv("HERMES_STATE_DIR");

	sync.worker = worker_start(IPC_CONFIG_SYNC, argc, argv, 0, &callbacks, &sync);
	if (!folder || !*folder)
		fatal("store", "error=%s", log_value("HERMES_STATE_DIR is not set"));
	int error = sync_open(&sync, folder);
	if (error)
		fatal("store", "folder=%s error=%s", log_value(folder), log_value(strerror(-error)));
	int status = worker_run(sync.worker);
	sync_close(&sync);
	return status;
}
