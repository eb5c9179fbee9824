/* SPDX-License-Identifier: Apache-2.0 */
/* The far end of an IP tunnel goes over to the worker's successor, or comes from its predecessor: addresses, scope, packets. */
#include <event2/event.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/ip_exit_internal.h"
#include "workers/tunnel/ip_text.h"

static const char *put_prefix(struct parcel *parcel, const struct config_prefix *prefix)
{
	char text[IP_TEXT];
	return parcel_text(parcel, ip_prefix_text(prefix, text));
}

static void put_lists(struct ip_exit *x, struct parcel *parcel)
{
	const char **targets = parcel_alloc(parcel, (x->target_list.n + 1) * sizeof(*targets));
	const char **addresses = parcel_alloc(parcel, IP_ADDRESSES * sizeof(*addresses));
	struct ipc_pair *fields = parcel_alloc(parcel, (x->request->n + 1) * sizeof(*fields));
	struct in6_addr held[IP_ADDRESSES];
	unsigned n = ip_pool_held(&x->holder, held, IP_ADDRESSES);
	for (unsigned i = 0; i < n; i++) {
		struct config_prefix host = ip_host_prefix(&held[i]);
		addresses[i] = put_prefix(parcel, &host);
	}
	for (size_t i = 0; i < x->target_list.n; i++)
		targets[i] = put_prefix(parcel, &x->targets[i]);
	for (unsigned i = 0; i < x->request->n; i++)
		fields[i] = (struct ipc_pair){x->request->fields[i].name, x->request->fields[i].value};
	parcel->record.addresses = (struct ipc_strs){addresses, n};
	parcel->record.targets = (struct ipc_strs){targets, x->target_list.n};
	parcel->record.exit_headers = (struct ipc_pairs){fields, x->request->n};
}

bool ip_exit_hand_over(struct ip_leg *leg, struct parcel *parcel)
{
	struct ip_exit *x = (struct ip_exit *)leg;
	if (!x->scope || evtimer_pending(&x->linger, NULL))
		return false;
	parcel->record.out_kind = "ip";
	parcel->record.device = x->device->name;
	parcel->record.over_udp = leg->udp;
	parcel->record.asked = x->asked;
	put_lists(x, parcel);
	ip_way_hand_over(&x->way, parcel, false);
	x->way.leg = NULL;
	return true;
}

/* Its addresses are those that it had; another client cannot have got them, since none comes before the predecessor has told. */
static void restore_addresses(struct ip_exit *x, const struct ipc_strs *text)
{
	struct config_prefix prefix;
	struct in6_addr got;
	for (size_t i = 0; i < text->n && i < IP_ADDRESSES; i++)
		if (config_prefix_parse(text->v[i], &prefix, NULL) == 0 && prefix.bits == 128 &&
		    !ip_pool_assign(ip_pool_of(x->device), &x->config->pool, &prefix.address, &x->holder, &got))
			log_warn("address not kept", "device=%s address=%s", x->device->name, text->v[i]);
}

struct leg *ip_exit_restore(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow,
                            const struct parcel *parcel)
{
	const struct ipc_handover_record *r = &parcel->record;
	enum flow_error error;
	const char *detail;
	struct leg *leg = ip_exit_new(tunnel, config, flow, &error, &detail);
	if (!leg)
		return NULL;
	struct ip_exit *x = (struct ip_exit *)leg;
	for (size_t i = 0; !x->scope && i < r->targets.n && i < RESOLVE_ADDRESSES; i++)
		if (config_prefix_parse(r->targets.v[i], &x->targets[x->target_list.n], NULL) == 0)
			x->target_list.n++;
	if (!x->scope && (x->target_list.n == 0 || !ip_exit_make_scope(x))) {
		x->leg.leg.flow = NULL;
		leg->ops->close(leg, FLOW_TARGET_REFUSED);
		return NULL;
	}
	x->asked = r->asked;
	restore_addresses(x, &r->addresses);
	ip_way_restore(&x->way, parcel, false);
	return leg;
}
