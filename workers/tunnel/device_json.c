/* SPDX-License-Identifier: Apache-2.0 */
/* `tunnels list`: this worker's devices. */
#include "ipc/json.h"
#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/ip_text.h"
#include "workers/tunnel/leg_ip.h"

static void drops(const struct device *d, struct json *j)
{
	static const char *const names[] = {
#define D(ID, reason, metric) [DEVICE_DROP_##ID] = reason,
		DEVICE_DROPS(D)
#undef D
	};
	json_object(j, "drops");
	for (unsigned i = 0; i < DEVICE_DROP_COUNT; i++)
		if (d->drops[i])
			json_uint(j, names[i], d->drops[i]);
	json_end(j);
}

static void describe(const struct device *d, struct json *j)
{
	char text[IP_TEXT];
	unsigned queues = 0;
	for (unsigned i = 0; i < DEVICE_QUEUES; i++)
		queues += d->queues[i].fd >= 0;
	json_object(j, NULL);
	json_str(j, "name", d->name);
	json_uint(j, "worker", d->all->tunnel->worker ? worker_index(d->all->tunnel->worker) : 0);
	json_uint(j, "mtu", d->mtu);
	json_uint(j, "queues", queues);
	json_bool(j, "offload", d->offload != 0);
	json_array(j, "addresses");
	for (unsigned i = 0; i < d->n_own; i++)
		json_str(j, NULL, ip_text(&d->own[i], text));
	json_end(j);
	json_array(j, "networks");
	for (const struct device_network *n = d->networks; n; n = n->next)
		ip_network_json(n->network, j);
	json_end(j);
	json_array(j, "clients");
	ip_exits_json(d, j);
	json_end(j);
	json_uint(j, "packets_read", d->read_packets);
	json_uint(j, "bytes_read", d->read_bytes);
	json_uint(j, "packets_written", d->written_packets);
	json_uint(j, "bytes_written", d->written_bytes);
	drops(d, j);
	json_end(j);
}

void devices_json(struct devices *devices, struct json *json)
{
	for (const struct device *d = devices->list; d; d = d->next)
		describe(d, json);
}
