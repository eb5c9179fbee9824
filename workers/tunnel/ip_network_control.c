/* SPDX-License-Identifier: Apache-2.0 */
/* What the client end of an IP tunnel and its far end tell each other: addresses and routes (RFC 9484 4.7). */
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/ip_network_internal.h"

static struct network_leg *leg_of(struct ip_leg *leg)
{
	return (struct network_leg *)leg;
}

/* --- routes ------------------------------------------------------------------------------------------------------- */

bool ip_network_advertised(struct ip_network *n, const struct ip_packet *ip)
{
	if (!n->routes)
		return true;
	if (n->last_route < n->n_routes && ip_route_has(&n->routes[n->last_route], ip->protocol, &ip->destination))
		return true;
	for (unsigned i = 0; i < n->n_routes; i++) {
		if (!ip_route_has(&n->routes[i], ip->protocol, &ip->destination))
			continue;
		n->last_route = i;
		return true;
	}
	return false;
}

void ip_network_forget_routes(struct ip_network *n)
{
	free(n->routes);
	n->routes = NULL;
	n->n_routes = 0;
}

/* --- addresses and routes ----------------------------------------------------------------------------------------- */

void ip_network_request(struct ip_network *n, struct ip_leg *leg)
{
	static uint8_t value[DEVICE_OWN * 34 + 16];
	struct ip_assigned list[DEVICE_OWN];
	bool v4 = ip_prefix_is_v4(&n->prefix);
	unsigned k = 0;
	n->first_request = n->requests + 1;
	for (unsigned i = 0; i < n->device->n_configured && k < DEVICE_OWN && !n->config->assigned; i++)
		if (ip_is_v4(&n->device->own[i]) == v4)
			list[k++] = (struct ip_assigned){++n->requests, ip_host_prefix(&n->device->own[i])};
	for (unsigned i = 0; i < n->n_assigned && n->config->assigned; i++)
		list[k++] = (struct ip_assigned){++n->requests, n->assigned[i]};
	if (k == 0 && n->config->assigned) {
		struct in6_addr any = {.s6_addr = {[10] = v4 ? 0xff : 0, [11] = v4 ? 0xff : 0}};
		list[k++] = (struct ip_assigned){++n->requests, ip_host_prefix(&any)};
	}
	if (k > 0)
		ip_leg_put_capsule(leg, CAPSULE_ADDRESS_REQUEST, value, ip_addresses_put(value, list, k));
}

static bool all_zero(const struct config_prefix *p)
{
	return ip_prefix_is_v4(p) ? memcmp(p->address.s6_addr + 12, "\0\0\0\0", 4) == 0 : IN6_IS_ADDR_UNSPECIFIED(&p->address);
}

/* The full list of what is ours now (RFC 9484 4.7.1). */
static void take_assigned(struct ip_network *n, struct ip_leg *leg, const struct ip_assigned *list, unsigned k)
{
	bool refused = false, had = n->n_assigned > 0;
	n->n_assigned = 0;
	for (unsigned i = 0; i < k; i++) {
		if (all_zero(&list[i].prefix))
			refused |= list[i].request >= n->first_request;
		else if (n->n_assigned < DEVICE_OWN)
			n->assigned[n->n_assigned++] = list[i].prefix;
	}
	if (refused)
		ip_network_complain(n, "address refused", n->config->assigned ? "the far end has no address for us" :
		                               "the far end refuses an address of the device");
	/* What it gave before is another's now: any will do. */
	if (refused && n->config->assigned && had && n->n_assigned == 0)
		ip_network_request(n, leg);
	device_assigned(n->device);
}

static const char *take_routes(struct ip_network *n, const uint8_t *value, size_t length)
{
	static struct ip_route list[IP_CAPSULE_ENTRIES];
	unsigned k;
	const char *why = ip_routes_get(value, length, list, IP_CAPSULE_ENTRIES, &k);
	if (why)
		return why;
	free(n->routes);
	n->routes = malloc((k + 1) * sizeof(*list));
	if (!n->routes)
		abort();
	memcpy(n->routes, list, k * sizeof(*list));
	n->n_routes = k;
	n->last_route = 0;
	return NULL;
}

/* We have none to give (RFC 9484 4.7.2). */
static void refuse_all(struct ip_leg *leg, struct ip_assigned *list, unsigned k)
{
	static uint8_t value[IP_CAPSULE_ENTRIES * 34 + 16];
	for (unsigned i = 0; i < k; i++) {
		bool v4 = ip_prefix_is_v4(&list[i].prefix);
		list[i].prefix = (struct config_prefix){{.s6_addr = {[10] = v4 ? 0xff : 0, [11] = v4 ? 0xff : 0}}, 128};
	}
	ip_leg_put_capsule(leg, CAPSULE_ADDRESS_ASSIGN, value, ip_addresses_put(value, list, k));
}

const char *ip_network_control(struct ip_leg *leg, uint64_t type, const uint8_t *value, size_t length)
{
	static struct ip_assigned list[IP_CAPSULE_ENTRIES];
	struct ip_network *n = leg_of(leg)->network;
	unsigned k;
	if (type == CAPSULE_ROUTE_ADVERTISEMENT && leg_of(leg) == n->current)
		return take_routes(n, value, length);
	if (type == CAPSULE_ROUTE_ADVERTISEMENT)
		return NULL;            /* of the former far end */
	const char *why = ip_addresses_get(value, length, type == CAPSULE_ADDRESS_REQUEST, list, IP_CAPSULE_ENTRIES, &k);
	if (!why && type == CAPSULE_ADDRESS_REQUEST)
		refuse_all(leg, list, k);
	else if (!why && leg_of(leg) == n->current)
		take_assigned(n, leg, list, k);
	return why;
}
