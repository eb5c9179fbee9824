/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/tun_queues.h"
#include "ipc/log.h"
#include "ipc/net.h"
#include "ipc/owner.h"
#include "store/config.h"
#include "supervisor/fdstore.h"
#include "supervisor/pool.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define QUEUES_MAX STATE_QUEUES
#define DEVICES_MAX 256
#define STORED "tun/"
#define STORED_MAX 64

struct held {
	char name[IFNAMSIZ];
	uint32_t mtu, offload;
	int fds[QUEUES_MAX];           /* in force; -1: none */
	int fresh[QUEUES_MAX];         /* opened for the generation that is being prepared */
	unsigned owner;                /* index of the tunnel worker that has them */
	char stored[QUEUES_MAX][STORED_MAX];   /* the name under which systemd has a copy; "": it has none */
	struct ipc_tun_addresses given;   /* what the far end gave; device NULL: nothing; strings are ours */
	LIST_ENTRY(held) link;
};

struct tun_queues {
	struct supervisor *supervisor;
	LIST_HEAD(, held) held;
	unsigned count;
	int slot;                      /* the socket that claims ours; -1: none */
	bool ending;
};

/* Abstract names are a network namespace's own, and go with whoever bound them. */
static int claim_slot(unsigned *slot)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (*slot = 0; fd >= 0 && *slot < NET_SLOTS; (*slot)++) {
		int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "hermes-net-%u", *slot);
		socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
		if (bind(fd, (struct sockaddr *)&address, length) == 0)
			return fd;
	}
	log_warn("no slot", "slots=%u effect=%s", NET_SLOTS, log_value("no TUN devices, source NAT and transparent capture"));
	*slot = NET_SLOTS;
	if (fd >= 0)
		close(fd);
	return -1;
}

struct tun_queues *tun_queues_new(struct supervisor *s)
{
	struct tun_queues *q = calloc(1, sizeof(*q));
	if (!q)
		return NULL;
	q->supervisor = s;
	s->spawner.net_slot = NET_SLOTS;
	q->slot = s->privileges.root && s->options->state < 0 ? claim_slot(&s->spawner.net_slot) : -1;
	return q;
}

static void strs_free(struct ipc_strs *strs)
{
	for (size_t i = 0; i < strs->n; i++)
		free((char *)(uintptr_t)strs->v[i]);
	free(strs->v);
	*strs = (struct ipc_strs){0};
}

/* "tun/DEVICE/QUEUE/MTU/OFFLOAD": what its next owner has to know of it. */
static void stored_name(char *out, size_t size, const struct held *h, unsigned queue)
{
	snprintf(out, size, STORED "%s/%u/%u/%x", h->name, queue, h->mtu, h->offload);
}

static void close_all(int *fds)
{
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static void forget_stored(struct tun_queues *q, struct held *h)
{
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		if (*h->stored[i] && !q->ending)
			fdstore_remove(q->supervisor->fdstore, h->stored[i]);
		*h->stored[i] = '\0';
	}
}

static void store(struct tun_queues *q, struct held *h)
{
	char name[STORED_MAX];
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		stored_name(name, sizeof(name), h, i);
		if (h->fds[i] < 0 || strcmp(name, h->stored[i]) == 0)
			continue;
		if (*h->stored[i])
			fdstore_remove(q->supervisor->fdstore, h->stored[i]);
		fdstore_put(q->supervisor->fdstore, name, h->fds[i]);
		snprintf(h->stored[i], sizeof(h->stored[i]), "%s", name);
	}
}

static void held_free(struct tun_queues *q, struct held *h)
{
	LIST_REMOVE(h, link);
	q->count--;
	forget_stored(q, h);
	close_all(h->fds);
	close_all(h->fresh);
	strs_free(&h->given.addresses);
	strs_free(&h->given.routes);
	free(h);
}

void tun_queues_free(struct tun_queues *q)
{
	if (!q)
		return;
	q->ending = true;                 /* what systemd keeps is for the next start */
	for (struct held *h; (h = LIST_FIRST(&q->held));)
		held_free(q, h);
	if (q->slot >= 0)
		close(q->slot);
	free(q);
}

static struct held *find(const struct tun_queues *q, const char *name)
{
	struct held *h;
	LIST_FOREACH(h, &q->held, link)
		if (name && strcmp(h->name, name) == 0)
			return h;
	return NULL;
}

static struct held *add(struct tun_queues *q, const char *name)
{
	struct held *h = q->count < DEVICES_MAX ? calloc(1, sizeof(*h)) : NULL;
	if (!h)
		return NULL;
	snprintf(h->name, sizeof(h->name), "%s", name);
	for (unsigned i = 0; i < QUEUES_MAX; i++)
		h->fds[i] = h->fresh[i] = -1;
	LIST_INSERT_HEAD(&q->held, h, link);
	q->count++;
	return h;
}

/* --- queues ---------------------------------------------------------------------------------------------------------- */

void tun_queues_take(struct tun_queues *q, struct child *child, const struct ipc_tun_queue *m, int *fd)
{
	bool sound = child->slot->role == IPC_TUN_BRIDGE && child->state != CHILD_STOPPING && m->device && *m->device &&
	             strlen(m->device) < IFNAMSIZ && m->queue < QUEUES_MAX && *fd >= 0;
	struct held *h = sound ? find(q, m->device) : NULL;
	if (sound && !h)
		h = add(q, m->device);
	if (!h) {
		log_warn("queue refused", "worker=%s device=%s", child->slot->name, log_value(m->device));
		return;
	}
	h->mtu = m->mtu;
	h->offload = m->offload;
	if (h->fresh[m->queue] >= 0)
		close(h->fresh[m->queue]);
	h->fresh[m->queue] = *fd;
	*fd = -1;
}

static unsigned count_queues(const struct held *h)
{
	unsigned n = 0;
	for (unsigned i = 0; i < QUEUES_MAX; i++)
		n += h->fds[i] >= 0;
	return n;
}

static void send_queue(const struct held *h, unsigned queue, struct child *child, uint64_t generation)
{
	const struct ipc_tun_queue m = {
		.generation = generation, .device = h->name, .queue = queue, .queues = count_queues(h), .mtu = h->mtu,
		.offload = h->offload,
	};
	child_send(child, IPC_MSG_TUN_QUEUE, &m, h->fds[queue]);
}

/* tun-bridge gets one queue, which is enough to ask the device and to set it. */
static void send_held(const struct held *h, struct child *child, uint64_t generation)
{
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		if (h->fds[i] < 0)
			continue;
		send_queue(h, i, child, generation);
		if (child->slot->role == IPC_TUN_BRIDGE)
			break;
	}
	if (child->slot->role == IPC_TUN_BRIDGE && h->given.device)
		child_send(child, IPC_MSG_TUN_ADDRESSES, &h->given, -1);
}

void tun_queues_send(struct tun_queues *q, struct child *child, uint64_t generation)
{
	enum ipc_role role = child->slot->role;
	const struct held *h;
	LIST_FOREACH(h, &q->held, link)
		if (role == IPC_TUN_BRIDGE || (role == IPC_TUNNEL && h->owner == child->slot->index))
			send_held(h, child, generation);
}

/* --- changes --------------------------------------------------------------------------------------------------------- */

static const struct config_tunnel *configured(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_tunnels; i++)
		if (strcmp(config->tunnels[i].name, name) == 0)
			return &config->tunnels[i];
	return NULL;
}

/* Those beyond what is configured sleep: nothing is put into them, and everybody keeps the descriptor for when more are wanted
 * again. (EINVAL: it is as it should be.) */
static void attach_queues(struct held *h, unsigned queues)
{
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		struct ifreq request = {.ifr_flags = i < queues ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};
		if (h->fds[i] >= 0 && ioctl(h->fds[i], TUNSETQUEUE, &request) && errno != EINVAL)
			log_warn("queue not switched", "device=%s queue=%u error=%s", h->name, i, log_value(strerror(errno)));
	}
}

/* What the owner does not have yet. A worker that comes later gets all of it then. */
static void settle(struct tun_queues *q, struct held *h, unsigned owner, uint64_t generation)
{
	struct child *child = pool_find(q->supervisor->pool, IPC_TUNNEL, owner);
	bool all = owner != h->owner, fresh[QUEUES_MAX];
	if (h->fresh[0] >= 0) {          /* the device is a new one: what there was led to the one before */
		forget_stored(q, h);
		close_all(h->fds);
	}
	for (unsigned i = 0; i < QUEUES_MAX; i++) {
		fresh[i] = h->fresh[i] >= 0;
		if (!fresh[i])
			continue;
		if (h->fds[i] >= 0)
			close(h->fds[i]);
		h->fds[i] = h->fresh[i];
		h->fresh[i] = -1;
	}
	h->owner = owner;
	if (!child || child->prepared != generation)
		return;
	for (unsigned i = 0; i < QUEUES_MAX; i++)
		if (h->fds[i] >= 0 && (fresh[i] || all))
			send_queue(h, i, child, generation);
}

void tun_queues_commit(struct tun_queues *q, const struct config *config, uint64_t generation)
{
	unsigned workers = pool_tunnel_count(config);
	struct held *h, *next;
	for (h = LIST_FIRST(&q->held); h; h = next) {
		next = LIST_NEXT(h, link);
		const struct config_tunnel *c = configured(config, h->name);
		if (!c) {
			held_free(q, h);
			continue;
		}
		h->mtu = c->mtu;
		settle(q, h, device_owner(h->name, workers), generation);
		attach_queues(h, c->queues);
		store(q, h);
	}
}

void tun_queues_abort(struct tun_queues *q)
{
	struct held *h, *next;
	for (h = LIST_FIRST(&q->held); h; h = next) {
		next = LIST_NEXT(h, link);
		close_all(h->fresh);
		if (!count_queues(h))
			held_free(q, h);
	}
}

/* --- from one life to the next ----------------------------------------------------------------------------------------- */

static void take_stored(struct tun_queues *q, const char *name, int fd)
{
	char device[IFNAMSIZ] = "";
	unsigned queue = QUEUES_MAX, mtu = 0, offload = 0;
	struct ifreq now = {0};
	bool sound = sscanf(name, STORED "%15[^/]/%u/%u/%x", device, &queue, &mtu, &offload) == 4 && queue < QUEUES_MAX &&
	             ioctl(fd, TUNGETIFF, &now) == 0 && strcmp(now.ifr_name, device) == 0;
	struct held *h = sound ? find(q, device) : NULL;
	if (sound && !h)
		h = add(q, device);
	if (!h || h->fds[queue] >= 0) {
		log_warn("stored queue dropped", "name=%s", log_value(name));
		fdstore_remove(q->supervisor->fdstore, name);
		close(fd);
		return;
	}
	h->fds[queue] = fd;
	h->mtu = mtu;
	h->offload = offload;
	h->owner = UINT_MAX;             /* nobody's yet */
	snprintf(h->stored[queue], sizeof(h->stored[queue]), "%s", name);
	log_info("queue taken over", "device=%s queue=%u", device, queue);
}

void tun_queues_stored(struct tun_queues *q)
{
	char name[STORED_MAX];
	for (const char *found; (found = fdstore_find(q->supervisor->fdstore, STORED));) {
		snprintf(name, sizeof(name), "%s", found);
		int fd = fdstore_take(q->supervisor->fdstore, found);
		take_stored(q, name, fd);
	}
}

/* --- from one image to the next --------------------------------------------------------------------------------------- */

int tun_queues_save(const struct tun_queues *q, struct state *state)
{
	const struct held *h;
	state->net_slot = q->supervisor->spawner.net_slot;
	state->net_slot_fd = q->slot;
	LIST_FOREACH(h, &q->held, link) {
		struct state_device *x = STATE_ADD(state, devices);
		if (!x)
			return -ENOMEM;
		*x = (struct state_device){
			.name = h->name, .mtu = h->mtu, .offload = h->offload, .owner = h->owner, .given = h->given.device != NULL,
			.addresses = h->given.addresses, .routes = h->given.routes,
		};
		memcpy(x->fds, h->fds, sizeof(x->fds));
	}
	return 0;
}

static bool strs_copy(struct ipc_strs *to, const struct ipc_strs *from);

int tun_queues_adopt(struct tun_queues *q, const struct state *state)
{
	q->slot = state->net_slot_fd;
	q->supervisor->spawner.net_slot = state->net_slot;
	for (size_t i = 0; i < state->n_devices; i++) {
		const struct state_device *x = &state->devices[i];
		struct held *h = add(q, x->name);
		if (!h || !strs_copy(&h->given.addresses, &x->addresses) || !strs_copy(&h->given.routes, &x->routes))
			return -ENOMEM;
		h->mtu = x->mtu;
		h->offload = x->offload;
		h->owner = x->owner;
		h->given.device = x->given ? h->name : NULL;
		memcpy(h->fds, x->fds, sizeof(h->fds));
	}
	return 0;
}

/* --- what tunnel workers ask of tun-bridge ---------------------------------------------------------------------------- */

static bool strs_copy(struct ipc_strs *to, const struct ipc_strs *from)
{
	strs_free(to);
	to->v = calloc(from->n + 1, sizeof(*to->v));
	for (size_t i = 0; to->v && i < from->n; i++) {
		to->v[i] = strdup(from->v[i]);
		if (!to->v[i])
			return false;
		to->n++;
	}
	return to->v != NULL;
}

void tun_queues_addresses(struct tun_queues *q, struct child *child, const struct ipc_tun_addresses *m)
{
	struct held *h = find(q, m->device);
	struct child *bridge = pool_find(q->supervisor->pool, IPC_TUN_BRIDGE, 0);
	if (child->state == CHILD_STOPPING)
		return;                  /* its successor says what holds */
	if (child->slot->role != IPC_TUNNEL || !h || h->owner != child->slot->index) {
		log_warn("addresses refused", "worker=%s device=%s", child->slot->name, log_value(m->device));
		return;
	}
	h->given.device = h->name;
	if (!strs_copy(&h->given.addresses, &m->addresses) || !strs_copy(&h->given.routes, &m->routes))
		log_error("out of memory", "at=addresses device=%s", h->name);
	if (bridge)
		child_send(bridge, IPC_MSG_TUN_ADDRESSES, &h->given, -1);
}

static bool captures(const struct config *config)
{
	for (size_t i = 0; config && i < config->n_listeners; i++)
		if (config->listeners[i].accept == CONFIG_TRANSPARENT)
			return true;
	return false;
}

void tun_queues_socket_wanted(struct tun_queues *q, struct child *child, const struct ipc_socket_wanted *m)
{
	struct ipc_socket_wanted passed = {.tunnel = child->seat, .id = m->id, .address = m->address};
	struct child *bridge = pool_find(q->supervisor->pool, IPC_TUN_BRIDGE, 0);
	const char *error = !captures(q->supervisor->in_force.config) ? "no listener is transparent" :
	                    !bridge ? "tun-bridge is not there" : NULL;
	if (!error && child_send(bridge, IPC_MSG_SOCKET_WANTED, &passed, -1))
		return;
	child_send(child, IPC_MSG_SOCKET_MADE,
	           &(struct ipc_socket_made){.tunnel = child->slot->index, .id = m->id, .error = error ? error : "not asked"}, -1);
}

void tun_queues_socket_made(struct tun_queues *q, struct child *child, const struct ipc_socket_made *m, int fd)
{
	struct child *tunnel = pool_find_seat(q->supervisor->pool, m->tunnel);
	struct ipc_socket_made passed = {.tunnel = tunnel ? tunnel->slot->index : 0, .id = m->id, .error = m->error};
	if (child->slot->role == IPC_TUN_BRIDGE && tunnel)
		child_send(tunnel, IPC_MSG_SOCKET_MADE, &passed, fd);
}
