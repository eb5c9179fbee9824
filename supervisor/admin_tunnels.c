/* SPDX-License-Identifier: Apache-2.0 */
/* `tunnels list` for people: the devices, and below them what enters and leaves the overlay through each. */
#include "supervisor/admin_verbs.h"

static const struct admin_column device_columns[] = {
	{"NAME", "name", ADMIN_TEXT},       {"STATE", "state", ADMIN_TEXT},     {"ADDRESSES", "addresses", ADMIN_TEXT},
	{"MTU", "mtu", ADMIN_COUNT},        {"QUEUES", "queues", ADMIN_COUNT},  {"OFFLOAD", "offload", ADMIN_TEXT},
	{"WORKER", "worker", ADMIN_TEXT},   {"ROUTES", "routes", ADMIN_TEXT},   {"READ", "bytes_read", ADMIN_BYTES},
	{"PACKETS", "packets_read", ADMIN_COUNT}, {"WRITTEN", "bytes_written", ADMIN_BYTES},
	{"PACKETS", "packets_written", ADMIN_COUNT}, {"DROPPED", "dropped", ADMIN_COUNT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column network_columns[] = {
	{"DEVICE", "device", ADMIN_TEXT},   {"NETWORK", "prefix", ADMIN_TEXT},  {"USER", "user", ADMIN_TEXT},
	{"STATE", "state", ADMIN_TEXT},     {"PROTOCOL", "protocol", ADMIN_TEXT}, {"ASSIGNED", "assigned", ADMIN_TEXT},
	{"IN", "bytes_in", ADMIN_BYTES},    {"OUT", "bytes_out", ADMIN_BYTES},  {"DROPPED", "dropped", ADMIN_COUNT},
	{"ERROR", "error", ADMIN_TEXT},     {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column client_columns[] = {
	{"DEVICE", "device", ADMIN_TEXT},   {"CLUSTER", "cluster", ADMIN_TEXT}, {"USER", "user", ADMIN_TEXT},
	{"SOURCE", "source", ADMIN_TEXT},   {"TARGET", "target", ADMIN_TEXT},   {"PROTOCOL", "protocol", ADMIN_TEXT},
	{"ASSIGNED", "assigned", ADMIN_TEXT}, {"IN", "bytes_in", ADMIN_BYTES},  {"OUT", "bytes_out", ADMIN_BYTES},
	{"DROPPED", "dropped", ADMIN_COUNT}, {NULL, NULL, ADMIN_TEXT},
};

/* One table of what every device lists under key; nothing where nobody lists anything. */
static void print_lists(const json_t *devices, const char *key, const struct admin_column *columns)
{
	json_t *rows = json_array(), *device, *one;
	size_t i, k;
	json_array_foreach((json_t *)devices, i, device)
		json_array_foreach(json_object_get(device, key), k, one) {
			json_object_set(one, "device", json_object_get(device, "name"));
			json_array_append(rows, one);
		}
	if (json_array_size(rows)) {
		putchar('\n');
		admin_table(stdout, rows, columns);
	}
	json_decref(rows);
}

void admin_print_tunnels(const json_t *document)
{
	const json_t *devices = json_object_get(document, "tunnels");
	admin_table(stdout, devices, device_columns);
	print_lists(devices, "networks", network_columns);
	print_lists(devices, "clients", client_columns);
}
