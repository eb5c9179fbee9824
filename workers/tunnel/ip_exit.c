/* SPDX-License-Identifier: Apache-2.0 */
/* The far end of an IP tunnel: a cluster that carries ip. Gives addresses, says what lies behind, and lets through what comes from
 * those addresses and goes there. */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "workers/tunnel/device_internal.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/ip_exit_internal.h"
#include "workers/tunnel/ip_text.h"
#include "workers/tunnel/masque.h"

#define ANSWERS (IP_CAPSULE_ENTRIES - IP_ADDRESSES)   /* in one capsule, beside the addresses held */


static struct ip_exit *exit_of(struct ip_leg *leg)
{
	return (struct ip_exit *)leg;
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

/* Those held, and answers to requests; a refused one is all-zero (RFC 9484 4.7.2). */
static void tell_addresses(struct ip_exit *x, const struct ip_assigned *answers, unsigned n)
{
	static struct ip_assigned list[IP_CAPSULE_ENTRIES];
	static uint8_t value[IP_CAPSULE_ENTRIES * 34 + 16];
	struct in6_addr held[IP_ADDRESSES];
	unsigned total = 0, n_held = ip_pool_held(&x->holder, held, IP_ADDRESSES);
	for (unsigned i = 0; i < n; i++)
		list[total++] = answers[i];
	for (unsigned i = 0; i < n_held; i++) {
		bool told = false;
		for (unsigned k = 0; k < n && !told; k++)
			told = IN6_ARE_ADDR_EQUAL(&answers[k].prefix.address, &held[i]);
		if (!told)
			list[total++] = (struct ip_assigned){0, ip_host_prefix(&held[i])};
	}
	ip_leg_put_capsule(&x->leg, CAPSULE_ADDRESS_ASSIGN, value, ip_addresses_put(value, list, total));
}

static void answer(struct ip_exit *x, const struct ip_assigned *request)
{
	struct ip_assigned out = {request->request, ip_host_prefix(&request->prefix.address)};
	bool v4 = ip_prefix_is_v4(&request->prefix);
	struct in6_addr zero = {.s6_addr = {[10] = v4 ? 0xff : 0, [11] = v4 ? 0xff : 0}};
	bool wish = !IN6_ARE_ADDR_EQUAL(&request->prefix.address, &zero);
	bool ok = x->holder.n < IP_ADDRESSES || (wish && ip_pool_holds(&x->holder, &request->prefix.address));
	/* Single addresses only; who asks for any of a shorter prefix gets one. */
	ok = ok && (!wish || request->prefix.bits == 128);
	if (!ok || !ip_pool_assign(ip_pool_of(x->device), &x->config->pool, &request->prefix.address, &x->holder,
	                           &out.prefix.address))
		out.prefix.address = zero;
	if (x->n_answers == x->room) {
		x->room = x->room ? 2 * x->room : 16;
		x->answers = realloc(x->answers, x->room * sizeof(*x->answers));
		if (!x->answers)
			abort();
	}
	x->answers[x->n_answers++] = out;
}

static const char *on_control(struct ip_leg *leg, uint64_t type, const uint8_t *value, size_t length)
{
	static struct ip_assigned list[IP_CAPSULE_ENTRIES];
	static struct ip_route routes[IP_CAPSULE_ENTRIES];
	struct ip_exit *x = exit_of(leg);
	const char *why;
	unsigned n;
	x->asked |= type == CAPSULE_ADDRESS_REQUEST;
	if (type == CAPSULE_ROUTE_ADVERTISEMENT)     /* a client's networks are not ours to route to; but it must be well-formed */
		return ip_routes_get(value, length, routes, IP_CAPSULE_ENTRIES, &n);
	why = ip_addresses_get(value, length, type == CAPSULE_ADDRESS_REQUEST, list, IP_CAPSULE_ENTRIES, &n);
	for (unsigned i = 0; !why && type == CAPSULE_ADDRESS_REQUEST && i < n; i++)
		answer(x, &list[i]);
	return why;
}

/* One ADDRESS_ASSIGN for all requests that came together, as far as they fit into one. */
static void on_received(struct ip_leg *leg)
{
	struct ip_exit *x = exit_of(leg);
	for (unsigned at = 0; at < x->n_answers && !leg->abort; at += ANSWERS)
		tell_addresses(x, x->answers + at, x->n_answers - at < ANSWERS ? x->n_answers - at : ANSWERS);
	x->n_answers = 0;
	if (x->room > ANSWERS) {
		free(x->answers);
		x->answers = NULL;
		x->room = 0;
	}
}

static void tell_routes(struct ip_exit *x)
{
	size_t length;
	uint8_t *value = ip_scope_routes(x->scope, &length);
	ip_leg_put_capsule(&x->leg, CAPSULE_ROUTE_ADVERTISEMENT, value, length);
	free(value);
}

static void on_joined(struct ip_leg *leg, const struct join *join)
{
	struct ip_exit *x = exit_of(leg);
	evtimer_del(&x->linger);
	x->way.leg = leg;
	if (leg->udp || !join->fresh)
		return;
	tell_routes(x);
	if (x->holder.n > 0)
		tell_addresses(x, NULL, 0);
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

/* BCP 38. Where no address was asked for the first packet from one is the request for it: over CONNECT-UDP always; else of
 * clients that are configured with it (RFC 9484 4.7.1), and of those that come from another far end with packets under way. */
static bool may_send_from(struct ip_exit *x, const struct in6_addr *source)
{
	struct in6_addr got;
	if (ip_pool_holds(&x->holder, source))
		return true;
	return !x->asked && x->holder.n < IP_ADDRESSES &&
	       ip_pool_assign(ip_pool_of(x->device), &x->config->pool, source, &x->holder, &got);
}

static bool multicast_or_loopback(const struct in6_addr *a)
{
	return ip_is_v4(a) ? a->s6_addr[12] >= 224 || a->s6_addr[12] == 127 || a->s6_addr[12] == 0
	                   : a->s6_addr[0] == 0xff || IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a);
}

static void on_packet(struct ip_leg *leg, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n,
                      size_t length)
{
	struct ip_exit *x = exit_of(leg);
	struct ip_packet ip;
	uint8_t *packet = ip_way_packet(&x->way, header, pieces, n, length, &ip);
	if (!packet || !x->scope)
		return;
	if (!may_send_from(x, &ip.source))
		return ip_way_drop(&x->way, DEVICE_DROP_SPOOFED);   /* no reply: it would go to whom it was not */
	if (multicast_or_loopback(&ip.destination) || !ip_scope_allows(x->scope, &ip.destination, ip.protocol)) {
		ip_way_drop(&x->way, DEVICE_DROP_PROHIBITED);
		return ip_way_reject(&x->way, leg, IP_PROHIBITED, 0, packet, length, &ip);
	}
	ip_way_in(&x->way, leg, header, packet, length, &ip);
}

/* From the device, to one of its addresses. */
static void on_answer(struct ip_holder *holder, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                      const struct ip_packet *ip)
{
	struct ip_exit *x = (struct ip_exit *)((char *)holder - offsetof(struct ip_exit, holder));
	/* Routers on the way may send errors. */
	if (!ip_is_icmp_error(ip) && !(x->scope && ip_scope_allows(x->scope, &ip->source, ip->protocol))) {
		ip_way_drop(&x->way, DEVICE_DROP_PROHIBITED);
		return device_reject(x->device, IP_PROHIBITED, 0, packet, length, ip);
	}
	x->last = now_us();
	ip_way_out(&x->way, header, packet, length, ip);
}

static void on_ready(struct ip_leg *leg)
{
	ip_way_drain(&exit_of(leg)->way);
}

static void resume(struct ip_way *way)
{
	struct ip_exit *x = (struct ip_exit *)((char *)way - offsetof(struct ip_exit, way));
	ip_leg_resume(&x->leg);
}

/* --- the beginning ------------------------------------------------------------------------------------------------ */

bool ip_exit_make_scope(struct ip_exit *x)
{
	bool all = !x->target;
	ip_scope_free(x->scope);
	x->scope = ip_scope_new(&x->config->advertise, &x->config->pool, all ? NULL : &x->target_list, x->protocol);
	x->holder.scope = x->scope ? ip_scope_prefixes(x->scope) : NULL;
	return x->scope;
}

static void respond(struct ip_exit *x)
{
	flow_head(x->leg.leg.flow, &x->leg.leg, masque_response(), false);
}

static void fail(struct ip_exit *x, enum flow_error error, const char *detail)
{
	struct flow *flow = x->leg.leg.flow;
	x->leg.leg.flow = NULL;
	flow_broken(flow, &x->leg.leg, error, detail);
	x->leg.leg.ops->close(&x->leg.leg, error);
}

static void take_addresses(struct ip_exit *x, const struct resolved *resolved)
{
	for (unsigned i = 0; i < resolved->n; i++) {
		struct in6_addr a = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
		if (resolved->v[i].sa.sa_family == AF_INET)
			memcpy(a.s6_addr + 12, &resolved->v[i].v4.sin_addr, 4);
		else
			a = resolved->v[i].v6.sin6_addr;
		x->targets[x->target_list.n++] = ip_host_prefix(&a);
	}
}

static void on_resolved(void *arg, const struct resolved *resolved, enum flow_error error)
{
	struct ip_exit *x = arg;
	x->query = NULL;
	if (!resolved)
		return fail(x, error, resolve_reason(x->tunnel->resolver));
	take_addresses(x, resolved);
	if (!ip_exit_make_scope(x))
		return fail(x, FLOW_TARGET_REFUSED, "the target lies outside what is advertised here");
	respond(x);
}

/* The request: a target that is a name is resolved before it is answered (RFC 9484 4.1). */
static void on_head(struct ip_leg *leg, const struct head *head, bool end)
{
	struct ip_exit *x = exit_of(leg);
	struct resolved now;
	(void)head, (void)end;
	if (x->scope)
		return respond(x);
	x->query = resolve(x->tunnel->resolver, x->target, x->config->ttl_min, x->config->ttl_max, &now, on_resolved, x);
	if (x->query)
		return;
	take_addresses(x, &now);
	if (ip_exit_make_scope(x))
		respond(x);
	else
		fail(x, FLOW_TARGET_REFUSED, "the target lies outside what is advertised here");
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static void arm_linger(struct ip_exit *x)
{
	uint64_t now = now_us(), until = x->last + IP_LINGER_MS * 1000, wait = until > now ? until - now : 0;
	struct timeval delay = {.tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000)};
	evtimer_add(&x->linger, &delay);
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	struct ip_exit *x = arg;
	(void)fd, (void)what;
	if (now_us() < x->last + IP_LINGER_MS * 1000)
		return arm_linger(x);
	ip_leg_end(&x->leg);
}

static void on_finished(struct ip_leg *leg)
{
	struct ip_exit *x = exit_of(leg);
	x->last = now_us();
	arm_linger(x);
}

static void on_closed(struct ip_leg *leg, enum flow_error error)
{
	struct ip_exit *x = exit_of(leg);
	(void)error;
	evtimer_del(&x->linger);
	if (x->query)
		resolve_cancel(x->query);
	x->query = NULL;
	x->way.leg = NULL;
	ip_way_clear(&x->way);
	ip_pool_release(&x->holder);
	if (x->prev)
		x->prev->next = x->next;
	else
		x->device->exits = x->next;
	if (x->next)
		x->next->prev = x->prev;
}

static void on_release(struct ip_leg *leg)
{
	struct ip_exit *x = exit_of(leg);
	ip_leg_dispose(leg);
	ip_scope_free(x->scope);
	own_origin_free(x->origin);
	generation_unref(x->generation);
	head_free(x->request);
	free(x->user), free(x->client), free(x->cluster), free(x->source), free(x->target);
	free(x->answers);
	free(x);
}

static const struct ip_leg_callbacks callbacks = {
	.head = on_head, .joined = on_joined, .packet = on_packet, .control = on_control, .received = on_received, .ready = on_ready,
	.finished = on_finished, .closed = on_closed, .release = on_release, .hand_over = ip_exit_hand_over,
};

/* --- set-up ------------------------------------------------------------------------------------------------------- */

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

/* The request's target and protocol; a name stays for later. Returns NULL, or why it is refused. */
static const char *take_request(struct ip_exit *x, const struct head *request)
{
	x->protocol = x->leg.udp ? -1 : masque_ip_protocol(request);
	switch (x->protocol) {
	case IPPROTO_HOPOPTS: case IPPROTO_ROUTING: case IPPROTO_FRAGMENT: case IPPROTO_DSTOPTS: case IPPROTO_NONE:
		return "the protocol is an extension header's";   /* RFC 9484 4.6 */
	default:
		break;
	}
	if (!x->leg.udp && request->authority && strcmp(request->authority, "*") != 0)
		x->target = strdup(request->authority);
	x->target_list.v = x->targets;
	if (x->target && config_prefix_parse(x->target, &x->targets[0], NULL) == 0)
		x->target_list.n = 1;
	if (x->target && x->target_list.n == 0)
		return NULL;
	return ip_exit_make_scope(x) ? NULL : "the target lies outside what is advertised here";
}

static void link_exit(struct ip_exit *x)
{
	x->next = x->device->exits;
	if (x->next)
		x->next->prev = x;
	x->device->exits = x;
}

struct leg *ip_exit_new(struct tunnel *tunnel, const struct config_cluster *config, struct flow *flow, enum flow_error *error,
                        const char **detail)
{
	const struct head *request = flow_request(flow);
	struct device *device = config->device ? device_find(tunnel->devices, config->device) : NULL;
	*error = FLOW_NO_ENDPOINT;
	*detail = "the cluster's device is not there";
	if (!device)
		return NULL;
	struct ip_exit *x = calloc(1, sizeof(*x));
	if (!x)
		abort();
	x->tunnel = tunnel;
	x->device = device;
	x->generation = generation_ref(tunnel->current);
	x->config = config_cluster(tunnel->current->config, config->name);
	ip_leg_init(&x->leg, device, false, &callbacks, masque_is_udp(request));
	x->leg.leg.flow = flow;
	x->user = copy(head_get(request, "user"));
	x->client = copy(head_get(request, IP_CLIENT_HEADER));
	x->cluster = copy(config->name);
	x->source = copy(flow->origin->source_text);
	x->request = head_clone(request);
	evtimer_assign(&x->linger, tunnel->base, on_linger, x);
	*error = FLOW_TARGET_REFUSED;
	*detail = x->config ? take_request(x, request) : "the configuration has no such cluster";
	if (*detail) {
		on_release(&x->leg);
		return NULL;
	}
	x->holder.packet = on_answer;
	x->holder.user = x->user;
	x->holder.client = x->client;
	x->origin = own_origin_new(flow->origin);
	ip_way_init(&x->way, device, resume);
	ip_way_police(&x->way, x->origin ? own_origin_get(x->origin) : flow->origin, x->user, request);
	link_exit(x);
	return &x->leg.leg;
}

/* --- all of a device ---------------------------------------------------------------------------------------------- */

/* What the cluster advertises now holds for tunnels that are open. */
static void use(struct ip_exit *x)
{
	const struct config_cluster *config = config_cluster(x->tunnel->current->config, x->cluster);
	if (!config || !config->device || strcmp(config->device, x->device->name) != 0)
		return;                 /* the flow is decided anew */
	bool resolving = !x->scope;
	generation_unref(x->generation);
	x->generation = generation_ref(x->tunnel->current);
	x->config = config;
	if (resolving)
		return;
	if (!ip_exit_make_scope(x)) {
		x->leg.abort = "what the tunnel is for is advertised no more";
		ip_leg_wake(&x->leg);
	} else if (!x->leg.udp && x->leg.joined) {
		tell_routes(x);
	}
}

void ip_exits_use(struct device *device)
{
	for (struct ip_exit *x = device->exits; x; x = x->next)
		use(x);
}

static void abort_all(struct device *device, const char *why)
{
	for (struct ip_exit *x = device->exits, *next; x; x = next) {
		next = x->next;
		x->leg.abort = why;
		ip_leg_wake(&x->leg);
	}
}

void ip_exits_end(struct device *device)
{
	abort_all(device, "the device is gone");
}

void ip_exits_leave(struct device *device)
{
	abort_all(device, "another worker has the device");
}

void ip_exits_json(const struct device *device, struct json *j)
{
	char text[IP_TEXT];
	struct in6_addr held[IP_ADDRESSES];
	for (const struct ip_exit *x = device->exits; x; x = x->next) {
		unsigned n = ip_pool_held(&x->holder, held, IP_ADDRESSES);
		json_object(j, NULL);
		json_str(j, "cluster", x->cluster);
		json_str(j, "user", x->user);
		json_str(j, "source", x->source);
		json_str(j, "target", x->target ? x->target : "*");
		json_str(j, "protocol", x->leg.udp ? "connect-udp" : "connect-ip");
		json_bool(j, "segments", x->leg.segments);
		json_array(j, "assigned");
		for (unsigned i = 0; i < n; i++)
			json_str(j, NULL, ip_text(&held[i], text));
		json_end(j);
		json_uint(j, "packets_in", x->way.in_packets);
		json_uint(j, "bytes_in", x->way.in_bytes);
		json_uint(j, "packets_out", x->way.out_packets);
		json_uint(j, "bytes_out", x->way.out_bytes);
		json_uint(j, "dropped", x->way.dropped);
		json_end(j);
	}
}
