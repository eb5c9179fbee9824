/* SPDX-License-Identifier: Apache-2.0 */
/* The client end of an IP tunnel goes over to the worker's successor, or comes from its predecessor: its flow, its packets, and
 * what its far end said about addresses and routes. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/ip_network_internal.h"

static struct network_leg *leg_of(struct ip_leg *leg)
{
	return (struct network_leg *)leg;
}

static void put_addresses(const struct ip_network *n, struct parcel *parcel)
{
	const char **text = parcel_alloc(parcel, (n->n_assigned + 1) * sizeof(*text));
	char one[IP_TEXT];
	for (unsigned i = 0; i < n->n_assigned; i++)
		text[i] = parcel_text(parcel, ip_prefix_text(&n->assigned[i], one));
	parcel->record.addresses = (struct ipc_strs){text, n->n_assigned};
}

static void put_routes(const struct ip_network *n, struct parcel *parcel)
{
	if (!n->routes)
		return;
	uint8_t *value = parcel_alloc(parcel, n->n_routes * 34 + 16);
	parcel->record.routes = (struct ipc_bytes){value, ip_routes_put(value, n->routes, n->n_routes)};
}

bool ip_network_hand_over(struct ip_leg *leg, struct parcel *parcel)
{
	struct ip_network *n = leg_of(leg)->network;
	struct ipc_handover_record *r = &parcel->record;
	if (leg_of(leg) != n->current || n->freed)
		return false;
	n->handed = true;
	evtimer_del(&n->retry);
	r->in_kind = "tun";
	r->device = n->device->name;
	r->network = n->text;
	r->client_id = n->device->client;
	r->over_udp = leg->udp;
	r->requests = n->requests;
	r->first_request = n->first_request;
	r->stale = n->stale;
	put_addresses(n, parcel);
	put_routes(n, parcel);
	ip_way_hand_over(&n->way, parcel, true);
	n->way.leg = NULL;
	return true;
}

static void get_addresses(struct ip_network *n, const struct ipc_strs *text)
{
	for (size_t i = 0; i < text->n && n->n_assigned < DEVICE_OWN; i++)
		if (config_prefix_parse(text->v[i], &n->assigned[n->n_assigned], NULL) == 0)
			n->n_assigned++;
}

static bool get_routes(struct ip_network *n, const struct ipc_bytes *value)
{
	static struct ip_route list[IP_CAPSULE_ENTRIES];
	unsigned k;
	if (!value->data)
		return true;
	if (ip_routes_get(value->data, value->length, list, IP_CAPSULE_ENTRIES, &k))
		return false;
	n->routes = malloc((k + 1) * sizeof(*list));
	if (!n->routes)
		abort();
	memcpy(n->routes, list, k * sizeof(*list));
	n->n_routes = k;
	return true;
}

struct leg *ip_network_restore(struct ip_network *n, const struct parcel *parcel)
{
	const struct ipc_handover_record *r = &parcel->record;
	if (n->freed || n->current || n->next || n->routes || !r->client_id || strlen(r->client_id) != DEVICE_CLIENT_ID - 1 ||
	    r->over_udp != (n->settings->over_udp.text != NULL) || !get_routes(n, &r->routes))
		return NULL;
	strcpy(n->device->client, r->client_id);
	get_addresses(n, &r->addresses);
	n->requests = r->requests;
	n->first_request = r->first_request;
	struct head *request = ip_network_head(n);
	if (request)
		ip_network_police(n, request);
	head_free(request);
	ip_way_restore(&n->way, parcel, true);
	struct network_leg *l = ip_network_leg(n);
	return &l->leg.leg;
}

const struct origin *ip_network_origin(const struct leg *leg)
{
	return &((const struct network_leg *)leg)->network->origin;
}
