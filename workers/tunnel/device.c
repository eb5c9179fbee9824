#include "workers/tunnel/device.h"

#include <unistd.h>

struct devices *devices_new(struct tunnel *tunnel) { (void)tunnel; return NULL; }
void devices_free(struct devices *devices) { (void)devices; }
void devices_add_queue(struct devices *devices, const struct ipc_tun_queue *message, int fd) { (void)devices, (void)message; close(fd); }
void devices_commit(struct devices *devices) { (void)devices; }
void devices_abort(struct devices *devices, uint64_t generation) { (void)devices, (void)generation; }
void devices_drain(struct devices *devices) { (void)devices; }
void devices_json(struct devices *devices, struct json *json) { (void)devices, (void)json; }
