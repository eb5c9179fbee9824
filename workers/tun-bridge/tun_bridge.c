/* SPDX-License-Identifier: Apache-2.0 */
/* The two phases of a configuration, and what the supervisor says. */
#include "workers/tun-bridge/tun_bridge.h"
#include "ipc/log.h"
#include "ipc/net.h"
#include "ipc/owner.h"
#include "store/config.h"
#include "workers/tun-bridge/firewall.h"
#include "workers/tun-bridge/list.h"
#include "workers/tun-bridge/nat.h"
#include "workers/tun-bridge/plan.h"
#include "workers/tun-bridge/sockets.h"
#include "workers/tun-bridge/watch.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOT "HERMES_NET_SLOT"

struct tun_bridge {
	struct worker *worker;
	struct config *in_force, *prepared;      /* NULL: none */
	struct netlink *netlink;                 /* NULL: the kernel has none; then there are no devices */
	struct firewall *firewall;               /* NULL: the kernel has none */
	struct plan plan;
	struct tun_devices devices;
	struct watch *watch;
};

/* --- start and end --------------------------------------------------------------------------------------------------- */

static unsigned own_slot(void)
{
	const char *text = getenv(SLOT);
	unsigned long slot = text ? strtoul(text, NULL, 10) : NET_SLOTS;
	return slot < NET_SLOTS ? (unsigned)slot : NET_SLOTS;
}

struct tun_bridge *tun_bridge_new(void)
{
	struct tun_bridge *bridge = calloc(1, sizeof(*bridge));
	struct net_link lo;
	if (!bridge)
		fatal("out of memory", "%s", "at=start");
	LIST_INIT(&bridge->devices);
	bridge->plan = (struct plan){.slot = own_slot(), .uid = getuid(), .loopback = 1};
	bridge->netlink = netlink_new();
	if (bridge->netlink && netlink_link(bridge->netlink, "lo", &lo) == 0)
		bridge->plan.loopback = lo.index;
	bridge->firewall = firewall_new(bridge->plan.slot);
	return bridge;
}

static void on_changed(void *arg);

void tun_bridge_use(struct tun_bridge *bridge, struct worker *worker)
{
	bridge->worker = worker;
	bridge->watch = watch_new(worker_base(worker), on_changed, bridge);
}

static void drop(struct config **config)
{
	if (*config)
		config_free(*config);
	*config = NULL;
}

void tun_bridge_free(struct tun_bridge *bridge)
{
	for (struct tun_device *d; (d = LIST_FIRST(&bridge->devices));)
		tun_device_free(d);
	watch_free(bridge->watch);
	netlink_free(bridge->netlink);
	firewall_free(bridge->firewall);
	drop(&bridge->in_force);
	drop(&bridge->prepared);
	free(bridge);
}

/* --- preparing: devices are made, and stay down ------------------------------------------------------------------------ */

static int refuse(char *error, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(char *error, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(error, size, format, args);
	va_end(args);
	return -1;
}

static void hand_over(struct tun_bridge *b, uint64_t generation, const struct config_tunnel *c, const struct tun_device *d,
                      unsigned queue, int fd)
{
	const struct ipc_tun_queue m = {
		.generation = generation, .device = d->name, .queue = queue, .queues = c->queues, .mtu = c->mtu, .offload = d->offload,
	};
	ipc_send(worker_supervisor(b->worker), IPC_MSG_TUN_QUEUE, &m, fd);
}

/* MTU and addresses already now: the kernel takes them while the device is down, and says so where it does not. */
static int set_up(struct tun_bridge *b, const struct config_tunnel *c, struct tun_device *d, char *error, size_t size)
{
	struct net_link link;
	int result = netlink_link(b->netlink, d->name, &link);
	if (result)
		return refuse(error, size, "the device that was just made is not there: %s", strerror(-result));
	d->index = link.index;
	result = netlink_link_quiet(b->netlink, d->index);
	if (!result)
		result = netlink_link_mtu(b->netlink, d->index, c->mtu);
	if (result)
		return refuse(error, size, "mtu %u: %s", c->mtu, strerror(-result));
	d->mtu = c->mtu;
	for (size_t i = 0; i < c->addresses.n && !c->assigned; i++) {
		struct net_item item;
		if (!plan_address(c->addresses.v[i], d->index, &item))
			return refuse(error, size, "%s is no address that a device can have", c->addresses.v[i]);
		result = netlink_add(b->netlink, &item);
		if (result)
			return refuse(error, size, "address %s: %s", c->addresses.v[i], item.family == AF_INET6 && result == -EACCES
			              ? "IPv6 is switched off here (net.ipv6.conf.default.disable_ipv6)" : strerror(-result));
	}
	return 0;
}

static int make(struct tun_bridge *b, uint64_t generation, const struct config_tunnel *c, char *error, size_t size)
{
	int fd = tun_device_open_queue(c->name, true, error, size);
	struct tun_device *d = fd >= 0 ? tun_device_new(&b->devices, c->name, fd) : NULL;
	if (!d)
		return fd < 0 ? -1 : refuse(error, size, "out of memory");
	d->fresh = true;
	d->queues = 1;
	tun_device_set_offload(d, c->offload);
	if (set_up(b, c, d, error, size))
		return -1;
	hand_over(b, generation, c, d, 0, d->fd);
	return 0;
}

static int add_queues(struct tun_bridge *b, uint64_t generation, const struct config_tunnel *c, struct tun_device *d,
                      char *error, size_t size)
{
	while (d->queues < c->queues) {
		int fd = tun_device_open_queue(c->name, false, error, size);
		if (fd < 0)
			return -1;
		hand_over(b, generation, c, d, d->queues, fd);
		close(fd);
		d->queues++;
		d->fresh_queues++;
	}
	return 0;
}

/* A device that somebody took away from under us is made again. */
static int prepare_device(struct tun_bridge *b, uint64_t generation, const struct config_tunnel *c, char *error, size_t size)
{
	struct tun_device *d = tun_device_find(&b->devices, c->name);
	if (d && !tun_device_alive(d)) {
		log_warn("device is gone", "device=%s effect=%s", d->name, log_value("it is made again"));
		tun_device_free(d);
		d = NULL;
	}
	if (!d && make(b, generation, c, error, size))
		return -1;
	d = tun_device_find(&b->devices, c->name);
	return add_queues(b, generation, c, d, error, size);
}

static void undo(struct tun_bridge *b)
{
	struct tun_device *d, *next;
	for (d = LIST_FIRST(&b->devices); d; d = next) {
		next = LIST_NEXT(d, link);
		d->queues -= d->fresh_queues;
		d->fresh_queues = 0;
		if (d->fresh)
			tun_device_free(d);
	}
	drop(&b->prepared);
}

static int check_filter(struct tun_bridge *b, const struct config *config, char *error, size_t size)
{
	char *chains = firewall_chains(&b->plan, config);
	if (!chains)
		return refuse(error, size, "out of memory");
	int result = firewall_check(b->firewall, chains, error, size);
	free(chains);
	return result;
}

static int prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t size)
{
	struct tun_bridge *b = arg;
	char why[384] = "";
	undo(b);
	b->prepared = config;
	if ((b->plan.slot == NET_SLOTS || !b->netlink) && (config->n_tunnels || plan_captures(config))) {
		undo(b);
		return refuse(error, size, "TUN devices and transparent capture are out of reach: %s",
		              !b->netlink ? "the kernel has no rtnetlink" :
		              getenv(SLOT) ? "too many hermesd have some in this network namespace" : "start hermesd as root");
	}
	for (size_t i = 0; i < config->n_tunnels; i++) {
		if (prepare_device(b, generation, &config->tunnels[i], why, sizeof(why)) == 0)
			continue;
		refuse(error, size, "tunnel %s: %s", config->tunnels[i].name, why);
		undo(b);
		return -1;
	}
	if (check_filter(b, config, error, size) == 0)
		return 0;
	undo(b);
	return -1;
}

/* --- in force ------------------------------------------------------------------------------------------------------------ */

static void settle(struct tun_bridge *b)
{
	struct net_items wanted = {0};
	if (!b->netlink || b->plan.slot == NET_SLOTS)
		return;
	plan_make(&b->plan, b->in_force, &b->devices, &wanted);
	if (wanted.failed)
		log_error("out of memory", "%s", "at=routes");
	else
		plan_apply(&b->plan, b->netlink, &b->devices, &wanted);
	net_items_clear(&wanted);
	char *chains = firewall_chains(&b->plan, b->in_force);
	if (chains)
		firewall_apply(b->firewall, chains);
	free(chains);
}

/* Down, or gone: nothing can lead there now; we hear of it when it is up again. */
static bool all_up(const struct tun_bridge *b)
{
	const struct tun_device *d;
	LIST_FOREACH(d, &b->devices, link) {
		struct net_link link;
		if (!d->fresh && (netlink_link(b->netlink, d->name, &link) || link.index != d->index || !link.up))
			return false;
	}
	return true;
}

/* Others (a reload of the machine's firewall, a network manager) may take away what is ours. */
static void on_changed(void *arg)
{
	struct tun_bridge *b = arg;
	if (!b->in_force || !b->netlink || !all_up(b))
		return;
	if (firewall_lost(b->firewall))
		log_warn("packet filter was taken away", "effect=%s", log_value("it is put back"));
	settle(b);
}

static void warn_forwarding(const struct tun_bridge *b)
{
	static const int families[] = {AF_INET, AF_INET6};
	static const char *const names[] = {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"};
	for (size_t i = 0; i < 2; i++)
		if (nat_wanted(b->in_force, families[i]) && !netlink_forwards(b->netlink, families[i]))
			log_warn("forwarding is off", "setting=%s effect=%s", names[i],
			         log_value("packets of clusters with nat reach this machine only: set it to 1"));
}

static const struct config_tunnel *configured(const struct config *config, const char *name)
{
	for (size_t i = 0; config && i < config->n_tunnels; i++)
		if (strcmp(config->tunnels[i].name, name) == 0)
			return &config->tunnels[i];
	return NULL;
}

static void bring_up(struct tun_bridge *b, const struct config_tunnel *c, struct tun_device *d)
{
	int error = 0;
	d->fresh = false;
	d->fresh_queues = 0;
	if (c->offload != (d->offload != 0))
		tun_device_set_offload(d, c->offload);
	if (d->mtu != c->mtu)
		error = netlink_link_mtu(b->netlink, d->index, c->mtu);
	if (error)
		log_error("mtu not set", "device=%s mtu=%u error=%s", d->name, c->mtu, log_value(strerror(-error)));
	else
		d->mtu = c->mtu;
	error = netlink_link_up(b->netlink, d->index);
	if (error)
		log_error("device not brought up", "device=%s error=%s", d->name, log_value(strerror(-error)));
}

static void commit(void *arg, uint64_t generation)
{
	struct tun_bridge *b = arg;
	struct tun_device *d, *next;
	drop(&b->in_force);
	b->in_force = b->prepared;
	b->prepared = NULL;
	for (d = LIST_FIRST(&b->devices); d; d = next) {
		const struct config_tunnel *c = configured(b->in_force, d->name);
		next = LIST_NEXT(d, link);
		if (c)
			bring_up(b, c, d);
		else
			tun_device_free(d);      /* it goes with the last descriptor: the supervisor's and the tunnel worker's */
	}
	settle(b);
	if (b->netlink)
		warn_forwarding(b);
	log_debug("configuration in force", "generation=%llu", (unsigned long long)generation);
}

static void abort_prepared(void *arg, uint64_t generation)
{
	(void)generation;
	undo(arg);
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */

/* A device that the supervisor holds: made by the tun-bridge before us. */
static void adopt(struct tun_bridge *b, const struct ipc_tun_queue *m, int *fd)
{
	struct net_link link;
	int error = b->netlink && m->device ? netlink_link(b->netlink, m->device, &link) : -ENODEV;
	if (error || *fd < 0 || tun_device_find(&b->devices, m->device)) {
		log_warn("device not taken over", "device=%s error=%s", log_value(m->device), log_value(strerror(-error)));
		return;
	}
	struct tun_device *d = tun_device_new(&b->devices, m->device, *fd);
	*fd = -1;
	if (!d)
		return;
	d->index = link.index;
	d->mtu = link.mtu;
	d->queues = m->queues;
	d->offload = m->offload;
	log_debug("device taken over", "device=%s queues=%u", d->name, d->queues);
}

static void assign(struct tun_bridge *b, const struct ipc_tun_addresses *m)
{
	struct tun_device *d = m->device ? tun_device_find(&b->devices, m->device) : NULL;
	if (!d)
		return;
	if (!tun_device_assign(d, &m->addresses, &m->routes))
		log_error("out of memory", "at=addresses device=%s", d->name);
	if (b->in_force)
		settle(b);
}

static void make_socket(struct tun_bridge *b, const struct ipc_socket_wanted *m)
{
	struct ipc_socket_made made = {.tunnel = m->tunnel, .id = m->id};
	int fd = plan_captures(b->in_force) ? socket_foreign(m->address, &made.error) : -1;
	if (fd >= 0)
		made.error = NULL;
	else if (!made.error)
		made.error = "no listener is transparent";
	ipc_send(worker_supervisor(b->worker), IPC_MSG_SOCKET_MADE, &made, fd);
	if (fd >= 0)
		close(fd);
}

/* Nobody talks to tun-bridge but the supervisor. */
static void refuse_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	(void)arg;
	log_debug("peer not needed", "role=%s index=%u", ipc_role_name(role), index);
	close(fd);
}

/* A list is a sequence of objects without brackets: of none, it is empty. */
static void list(struct tun_bridge *b, uint64_t id)
{
	struct json json = JSON_INIT;
	for (size_t i = 0; b->in_force && i < b->in_force->n_tunnels; i++) {
		const struct config_tunnel *c = &b->in_force->tunnels[i];
		const struct tun_device *d = tun_device_find(&b->devices, c->name);
		if (d)
			list_device(&b->plan, b->netlink, c, d, device_owner(c->name, worker_tunnels(b->worker)), &json);
	}
	worker_reply(b->worker, id, json.failed, json.data ? json.data : "", json.failed ? "out of memory" : NULL);
	json_free(&json);
}

static void answer(struct tun_bridge *b, const struct ipc_admin_request *request)
{
	if (request->verb && !strcmp(request->verb, "tunnels list"))
		list(b, request->id);
	else
		worker_reply(b->worker, request->id, 2, NULL, "tun-bridge does not know this verb");
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	struct tun_bridge *b = arg;
	switch (type) {
	case IPC_MSG_TUN_QUEUE: adopt(b, &message->tun_queue, fd); break;
	case IPC_MSG_TUN_ADDRESSES: assign(b, &message->tun_addresses); break;
	case IPC_MSG_SOCKET_WANTED: make_socket(b, &message->socket_wanted); break;
	case IPC_MSG_ADMIN_REQUEST: answer(b, &message->admin_request); break;
	default: break;
	}
}

/* The end of hermesd: nothing is left behind. (One that is only replaced is stopped without time to drain, and leaves all.) */
static void stop(void *arg, unsigned drain_ms)
{
	struct tun_bridge *b = arg;
	(void)drain_ms;
	drop(&b->in_force);
	undo(b);
	settle(b);
	worker_exit(b->worker);
}

const struct worker_callbacks tun_bridge_callbacks = {
	.prepare = prepare, .commit = commit, .abort = abort_prepared, .peer = refuse_peer, .message = on_message, .stop = stop,
};
