/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-controller: shapes a domain of nodes. */
#include "workers/controller/controller.h"

static struct controller controller;

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct controller *c = arg;
	(void)generation, (void)error, (void)error_size;
	config_free(c->config);
	c->config = config;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {.prepare = on_prepare};
	controller.worker = worker_start(IPC_CONTROLLER, argc, argv, 0, &callbacks, &controller);
	return worker_run(controller.worker);
}
