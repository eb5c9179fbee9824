/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-keeper: keeps private keys, and makes requests, certificates and signatures with them. */
#include "ipc/worker.h"
#include "store/config.h"
#include "workers/keeper/keeper.h"

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	(void)arg, (void)generation, (void)error, (void)error_size;
	config_free(config);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {.prepare = on_prepare};
	struct worker *worker = worker_start(IPC_KEEPER, argc, argv, 0, &callbacks, NULL);
	return worker_run(worker);
}
