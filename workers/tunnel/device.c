/* SPDX-License-Identifier: Apache-2.0 */
/* TUN devices: which this worker owns, their queues as the supervisor hands them over, and what a configuration makes of them. */
#include "workers/tunnel/device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/ip_coalesce.h"
#include "workers/tunnel/ip_pool.h"
#include "workers/tunnel/ip_text.h"
#include "workers/tunnel/leg_ip.h"

/* --- one device --------------------------------------------------------------------------------------------------- */

void device_ref(struct device *d)
{
	d->refs++;
}

void device_unref(struct device *d)
{
	assert(d->refs > 0);
	if (--d->refs > 0)
		return;
	device_io_stop(d);
	if (d->flush)
		event_free(d->flush);
	device_routes_free(d->routes);
	ip_pool_free(d->pool);
	generation_unref(d->generation);
	free(d->name);
	free(d);
}

static struct device *device_new(struct devices *ds, const char *name)
{
	struct device *d = calloc(1, sizeof(*d));
	uint8_t random[(DEVICE_CLIENT_ID - 1) / 2];
	if (!d || getrandom(random, sizeof(random), 0) != sizeof(random))
		abort();
	d->all = ds;
	d->name = strdup(name);
	d->routes = device_routes_new();
	d->refs = 1;
	for (unsigned i = 0; i < DEVICE_QUEUES; i++)
		d->queues[i] = (struct device_queue){.device = d, .fd = -1};
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(d->client + 2 * i, 3, "%02x", random[i]);
	return d;
}

struct device *device_find(struct devices *ds, const char *name)
{
	for (struct device *d = ds ? ds->list : NULL; d; d = d->next)
		if (strcmp(d->name, name) == 0)
			return d;
	return NULL;
}

uint32_t device_mtu(const struct device *d)
{
	return d->mtu;
}

bool device_route_add(struct device *d, const struct config_prefix *prefix, struct device_port *port)
{
	port->device = d;
	return device_routes_add(d->routes, prefix, port);
}

void device_route_remove(struct device *d, const struct config_prefix *prefix, struct device_port *port)
{
	device_routes_remove(d->routes, prefix, port);
}

void device_port_remove(struct device *d, struct device_port *port)
{
	device_routes_forget(d->routes, port);
	for (struct device_port **link = &d->waiting; *link; link = &(*link)->next_waiting) {
		if (*link != port)
			continue;
		*link = port->next_waiting;
		break;
	}
	port->waiting = false;
}

/* --- its networks ------------------------------------------------------------------------------------------------- */

static const struct config_network *network_find(const struct config_tunnel *config, const struct config_prefix *prefix)
{
	for (size_t i = 0; config && i < config->n_networks; i++)
		if (memcmp(&config->networks[i].prefix.address, &prefix->address, sizeof(prefix->address)) == 0 &&
		    config->networks[i].prefix.bits == prefix->bits)
			return &config->networks[i];
	return NULL;
}

/* Those that the configuration does not name any more end. */
static void networks_prune(struct device *d, const struct config_tunnel *config)
{
	for (struct device_network **link = &d->networks, *n; (n = *link);) {
		if (network_find(config, &n->prefix)) {
			link = &n->next;
			continue;
		}
		*link = n->next;
		ip_network_free(n->network);
		free(n);
	}
}

static void networks_use(struct device *d)
{
	networks_prune(d, d->config);
	for (size_t i = 0; i < d->config->n_networks; i++) {
		const struct config_network *settings = &d->config->networks[i];
		struct device_network *n = d->networks;
		while (n && (n->prefix.bits != settings->prefix.bits ||
		             memcmp(&n->prefix.address, &settings->prefix.address, sizeof(n->prefix.address)) != 0))
			n = n->next;
		if (n) {
			ip_network_use(n->network, d->config, settings);
			continue;
		}
		n = calloc(1, sizeof(*n));
		if (!n)
			abort();
		*n = (struct device_network){d->networks, settings->prefix, NULL};
		d->networks = n;
		n->network = ip_network_new(d->all->tunnel, d, d->config, settings);
	}
}

/* --- its addresses ------------------------------------------------------------------------------------------------ */

static void take_configured(struct device *d)
{
	struct config_prefix address;
	d->n_own = 0;
	for (size_t i = 0; i < d->config->addresses.n && d->n_own < DEVICE_OWN; i++)
		if (config_device_address_parse(d->config->addresses.v[i], &address, NULL) == 0)
			d->own[d->n_own++] = address.address;
	d->n_configured = d->n_own;
}

static bool listed(char text[][IP_TEXT], unsigned n, const char *one)
{
	for (unsigned i = 0; i < n; i++)
		if (strcmp(text[i], one) == 0)
			return true;
	return false;
}

void device_assigned(struct device *d)
{
	static char text[2 * DEVICE_OWN][IP_TEXT];
	const char *addresses[DEVICE_OWN], *routes[DEVICE_OWN];
	struct config_prefix assigned[DEVICE_OWN];
	unsigned n_text = 0, n_addresses = 0, n_routes = 0;
	if (!d->config || !d->config->assigned || d->all->tunnel->awaiting)
		return;                 /* awaiting: all of them are told at once */
	d->n_own = d->n_configured;
	for (struct device_network *n = d->networks; n; n = n->next) {
		unsigned m = ip_network_assigned(n->network, assigned, DEVICE_OWN);
		for (unsigned i = 0; i < m && n_addresses < DEVICE_OWN && d->n_own < DEVICE_OWN; i++) {
			ip_prefix_text(&assigned[i], text[n_text]);
			if (listed(text, n_text, text[n_text]))
				continue;
			d->own[d->n_own++] = assigned[i].address;
			addresses[n_addresses++] = text[n_text++];
		}
		if (m > 0 && n_routes < DEVICE_OWN)
			routes[n_routes++] = ip_prefix_text(&n->prefix, text[n_text++]);
	}
	if (n_addresses == 0 && !d->told)
		return;                 /* what a worker before us was given stays until we are given some */
	d->told = true;
	struct ipc_tun_addresses message = {.device = d->name, .addresses = {addresses, n_addresses}, .routes = {routes, n_routes}};
	if (d->all->tunnel->worker)
		ipc_send(worker_supervisor(d->all->tunnel->worker), IPC_MSG_TUN_ADDRESSES, &message, -1);
}

/* --- configuration ------------------------------------------------------------------------------------------------ */

static const struct config_tunnel *config_of(const struct tunnel *tunnel, const char *name)
{
	const struct config *config = tunnel->current ? tunnel->current->config : NULL;
	for (size_t i = 0; config && i < config->n_tunnels; i++)
		if (strcmp(config->tunnels[i].name, name) == 0)
			return &config->tunnels[i];
	return NULL;
}

static void take_queue(struct device *d, const struct device_pending *p)
{
	struct device_queue *q = &d->queues[p->queue];
	if (q->fd >= 0)                 /* the same queue again: the device was taken away and made anew */
		device_io_stop(d);
	q->fd = p->fd;
	d->mtu = p->mtu;
	d->offload = p->offload;
}

static void pending_free(struct device_pending *p)
{
	free(p->name);
	free(p);
}

/* Its queues up to the generation in force. */
static bool take_pending(struct device *d, uint64_t generation)
{
	bool any = false;
	for (struct device_pending **link = &d->all->pending, *p; (p = *link);) {
		if (p->generation > generation || strcmp(p->name, d->name) != 0) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		take_queue(d, p);
		pending_free(p);
		any = true;
	}
	return any;
}

static bool has_pending(const struct devices *ds, const char *name, uint64_t generation)
{
	for (const struct device_pending *p = ds->pending; p; p = p->next)
		if (p->generation <= generation && strcmp(p->name, name) == 0)
			return true;
	return false;
}

static void device_use(struct device *d, const struct config_tunnel *config)
{
	struct tunnel *t = d->all->tunnel;
	struct generation *before = d->generation;
	take_pending(d, t->current->number);
	d->generation = generation_ref(t->current);
	d->config = config;
	d->mtu = config->mtu ? config->mtu : d->mtu;
	take_configured(d);
	device_io_start(d);
	networks_use(d);
	ip_exits_use(d);
	device_assigned(d);
	generation_unref(before);
}

static void device_let_go(struct device *d)
{
	log_info("device let go", "device=%s", d->name);
	networks_prune(d, NULL);
	d->config = NULL;
	d->listed = false;
	ip_exits_end(d);
	device_io_stop(d);
	device_unref(d);
}

static void use_all(struct devices *ds)
{
	const struct tunnel *t = ds->tunnel;
	for (size_t i = 0; i < t->current->config->n_tunnels; i++) {
		const struct config_tunnel *config = &t->current->config->tunnels[i];
		struct device *d = device_find(ds, config->name);
		if (!d && !has_pending(ds, config->name, t->current->number))
			continue;       /* another worker's, or its queues are still to come */
		if (!d) {
			d = device_new(ds, config->name);
			d->next = ds->list;
			d->listed = true;
			ds->list = d;
			log_info("device taken", "device=%s mtu=%u", d->name, config->mtu);
		}
		device_use(d, config);
	}
}

void devices_commit(struct devices *ds)
{
	const struct tunnel *t = ds->tunnel;
	if (ds->draining)
		return;
	unsigned workers = t->worker ? worker_tunnels(t->worker) : 1, own = t->worker ? worker_index(t->worker) : 0;
	for (struct device **link = &ds->list, *d; (d = *link);) {
		if (config_of(t, d->name) && device_owner(d->name, workers) == own) {
			link = &d->next;
			continue;
		}
		*link = d->next;
		device_let_go(d);
	}
	use_all(ds);
}

/* --- what the supervisor hands over ------------------------------------------------------------------------------- */

void devices_add_queue(struct devices *ds, const struct ipc_tun_queue *message, int fd)
{
	struct tunnel *t = ds->tunnel;
	if (fd < 0 || !message->device || message->queue >= DEVICE_QUEUES || ds->draining) {
		if (fd >= 0)
			close(fd);
		return;
	}
	struct device_pending *p = calloc(1, sizeof(*p));
	if (!p)
		abort();
	*p = (struct device_pending){ds->pending, message->generation, strdup(message->device), message->queue, message->mtu,
	                             message->offload, fd};
	ds->pending = p;
	if (t->current && message->generation <= t->current->number && config_of(t, message->device))
		use_all(ds);
}

void devices_abort(struct devices *ds, uint64_t generation)
{
	for (struct device_pending **link = &ds->pending, *p; (p = *link);) {
		if (p->generation != generation) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		close(p->fd);
		pending_free(p);
	}
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

struct devices *devices_new(struct tunnel *tunnel)
{
	struct devices *ds = calloc(1, sizeof(*ds));
	if (!ds)
		abort();
	ds->tunnel = tunnel;
	ds->gathered = ip_coalesce_new();
	ds->segments = malloc(SEGMENT_SCRATCH);
	ds->packet = malloc(DEVICE_PACKET);
	ds->read = malloc(VNET_HEADER + DEVICE_PACKET);
	if (!ds->segments || !ds->packet || !ds->read)
		abort();
	return ds;
}

void devices_pause(struct devices *ds)
{
	ds->draining = true;
	for (struct device *d = ds->list; d; d = d->next)
		for (unsigned i = 0; i < DEVICE_QUEUES; i++)
			if (d->queues[i].readable)
				event_del(d->queues[i].readable);
}

void devices_start(struct devices *ds)
{
	for (struct device *d = ds->list; d; d = d->next) {
		device_assigned(d);
		device_io_start(d);
		for (struct device_network *n = d->networks; n; n = n->next)
			ip_network_start(n->network);
	}
}

struct ip_network *devices_network(struct devices *ds, const char *device, const char *prefix)
{
	const struct device *d = device && prefix ? device_find(ds, device) : NULL;
	char text[IP_TEXT];
	for (struct device_network *n = d ? d->networks : NULL; n; n = n->next)
		if (strcmp(ip_prefix_text(&n->prefix, text), prefix) == 0)
			return n->network;
	return NULL;
}

void devices_drain(struct devices *ds)
{
	bool handed = ds->tunnel->handed;
	ds->draining = true;
	for (struct device *d = ds->list; d; d = d->next) {
		networks_prune(d, NULL);
		if (handed)
			ip_exits_leave(d);
		if (!d->exits)          /* who comes after us reads on; what far ends still have to say is written */
			for (unsigned i = 0; i < DEVICE_QUEUES; i++)
				if (d->queues[i].readable)
					event_del(d->queues[i].readable);
	}
}

void devices_free(struct devices *ds)
{
	if (!ds)
		return;
	for (struct device *d; (d = ds->list);) {
		ds->list = d->next;
		device_let_go(d);
	}
	for (struct device_pending *p; (p = ds->pending);) {
		ds->pending = p->next;
		close(p->fd);
		pending_free(p);
	}
	free(ds->gathered), free(ds->segments), free(ds->packet), free(ds->read);
	free(ds);
}
