#include "workers/tun-bridge/tun_bridge.h"

int main(int argc, char **argv)
{
	struct tun_bridge *bridge = tun_bridge_new();
	struct worker *worker = worker_start(IPC_TUN_BRIDGE, argc, argv, 0, &tun_bridge_callbacks, bridge);
	tun_bridge_use(bridge, worker);
	int status = worker_run(worker);
	tun_bridge_free(bridge);
	return status;
}
