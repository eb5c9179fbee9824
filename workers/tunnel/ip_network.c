/* SPDX-License-Identifier: Apache-2.0 */
/* The client end of an IP tunnel: one entry of a device's `networks`. It begins a flow and keeps it: one that ends is begun again;
 * one whose headers the configuration changed is replaced, the new one open before the old one closes. Its packets and those
 * that wait are the network's, whichever flow carries them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "ipc/log.h"
#include "workers/tunnel/fields.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/ip_network_internal.h"
#include "workers/tunnel/ip_pool.h"
#include "workers/tunnel/masque.h"

#define BACKOFF_FIRST 100000u         /* µs; doubles */
#define BACKOFF_MAX 10000000u
#define STEADY 5000000u               /* open for so long: the next back-off begins anew */

static const char *state_name(enum network_state state)
{
	static const char *const names[] = {
#define S(ID) [NETWORK_##ID] = #ID,
		NETWORK_STATES(S)
#undef S
	};
	return names[state];
}

static void set_state(struct ip_network *n, enum network_state state)
{
	if (n->state != state)
		log_debug("network", "device=%s prefix=%s from=%s to=%s", n->device->name, n->text, state_name(n->state),
		          state_name(state));
	n->state = state;
	n->since = now_us();
}

static struct network_leg *leg_of(struct ip_leg *leg)
{
	return (struct network_leg *)leg;
}

/* --- packets ------------------------------------------------------------------------------------------------------ */

static void from_device(struct device_port *port, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                        const struct ip_packet *ip)
{
	struct ip_network *n = (struct ip_network *)((char *)port - offsetof(struct ip_network, way.port));
	if (ip_network_advertised(n, ip))
		return ip_way_out(&n->way, header, packet, length, ip);
	ip_way_drop(&n->way, DEVICE_DROP_NO_ROUTE);
	device_reject(n->device, IP_NO_ROUTE, 0, packet, length, ip);
}

/* What says that it comes from elsewhere does not (BCP 38); routers on the way may send ICMP errors. */
static void from_tunnel(struct ip_leg *leg, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned k,
                        size_t length)
{
	struct ip_network *n = leg_of(leg)->network;
	struct ip_packet ip;
	uint8_t *packet = ip_way_packet(&n->way, header, pieces, k, length, &ip);
	if (!packet)
		return;
	if (!ip_is_icmp_error(&ip) && !config_prefix_contains(&n->prefix, &ip.source))
		return ip_way_drop(&n->way, DEVICE_DROP_SPOOFED);
	ip_way_in(&n->way, leg, header, packet, length, &ip);
}

static void on_ready(struct ip_leg *leg)
{
	struct ip_network *n = leg_of(leg)->network;
	if (n->way.leg == leg)
		ip_way_drain(&n->way);
}

static void resume(struct ip_way *way)
{
	struct ip_network *n = (struct ip_network *)((char *)way - offsetof(struct ip_network, way));
	for (struct network_leg *l = n->legs, *next; l; l = next) {
		next = l->next;
		ip_leg_resume(&l->leg);
	}
}

void ip_network_complain(struct ip_network *n, const char *what, const char *detail)
{
	if (strcmp(n->error, detail) != 0)
		log_warn(what, "device=%s prefix=%s reason=%s", n->device->name, n->text, log_value(detail));
	snprintf(n->error, sizeof(n->error), "%s", detail);
}

static void on_received(struct ip_leg *leg)
{
	(void)leg;
}

/* --- the flow ----------------------------------------------------------------------------------------------------- */

static void network_release(struct ip_network *n)
{
	if (!n->freed || n->legs)
		return;
	ip_way_clear(&n->way);
	device_unref(n->device);
	generation_unref(n->generation);
	ip_network_forget_routes(n);
	free(n);
}

static void retry_later(struct ip_network *n)
{
	uint64_t wait = (uint64_t)BACKOFF_FIRST << (n->failures < 10 ? n->failures : 10);
	wait = wait < BACKOFF_MAX ? wait : BACKOFF_MAX;
	wait -= (now_us() * 2654435761u >> 7) % (wait / 4);
	struct timeval delay = {.tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000)};
	n->failures++;
	if (!n->current)
		set_state(n, NETWORK_BACKING_OFF);
	evtimer_add(&n->retry, &delay);
}

static void on_head(struct ip_leg *leg, const struct head *head, bool end)
{
	struct ip_network *n = leg_of(leg)->network;
	const char *why = head_get(head, "proxy-status");
	char text[160];
	(void)end;
	if (head->status < 300)
		return;
	leg_of(leg)->refused = true;
	snprintf(text, sizeof(text), "status %u%s%s", head->status, why ? ": " : "", why ? why : "");
	ip_network_complain(n, "tunnel refused", text);
}

static void on_joined(struct ip_leg *leg, const struct join *join)
{
	struct ip_network *n = leg_of(leg)->network;
	struct network_leg *l = leg_of(leg), *former = n->current;
	if (n->freed)
		return ip_leg_end(leg);
	if (l == n->next) {
		n->next = NULL;
		n->current = l;
		n->stale = false;
		n->way.leg = leg;
		n->error[0] = '\0';
		set_state(n, NETWORK_OPEN);
		log_info("tunnel open", "device=%s prefix=%s segments=%s", n->device->name, n->text, join->segments ? "yes" : "no");
		if (former)
			ip_leg_end(&former->leg);
	}
	if (l != n->current || !join->fresh)
		return;
	ip_network_forget_routes(n);
	if (!leg->udp)
		ip_network_request(n, leg);
}

static void on_finished(struct ip_leg *leg)
{
	ip_leg_end(leg);
}

static void on_closed(struct ip_leg *leg, enum flow_error error)
{
	struct ip_network *n = leg_of(leg)->network;
	struct network_leg **link = &n->legs, *l = leg_of(leg);
	while (*link != l)
		link = &(*link)->next;
	*link = l->next;
	bool was_current = l == n->current, wanted = was_current || l == n->next;
	if (was_current) {
		n->current = NULL;
		n->way.leg = NULL;
		if (now_us() - n->since >= STEADY)
			n->failures = 0;
		if (!n->error[0] && !n->freed && !n->handed)
			ip_network_complain(n, "tunnel ended", error == FLOW_NONE ? "the far end closed it" : "the tunnel broke");
	}
	if (l == n->next) {
		n->next = NULL;
		if (!l->refused && !n->freed)
			ip_network_complain(n, "tunnel not opened", "the flow ended before it was open");
	}
	if (wanted && !n->freed && !n->next && !n->handed)
		retry_later(n);
}

static void on_release(struct ip_leg *leg)
{
	struct ip_network *n = leg_of(leg)->network;
	ip_leg_dispose(leg);
	free(leg);
	network_release(n);
}

static const struct ip_leg_callbacks callbacks = {
	.head = on_head, .joined = on_joined, .packet = from_tunnel, .control = ip_network_control, .received = on_received,
	.ready = on_ready, .finished = on_finished, .closed = on_closed, .release = on_release,
	.hand_over = ip_network_hand_over,
};

static const char *user_of(const struct ip_network *n)
{
	const struct config_pairs *headers = &n->settings->add_headers;
	for (size_t i = 0; i < headers->n; i++)
		if (strcmp(headers->v[i].name, "user") == 0)
			return headers->v[i].value;
	return NULL;
}

void ip_network_police(struct ip_network *n, const struct head *request)
{
	struct head *whole = head_clone(request);
	fields_apply(whole, &n->settings->add_headers, NULL);
	ip_way_police(&n->way, &n->origin, user_of(n), whole);
	head_free(whole);
}

struct head *ip_network_head(const struct ip_network *n)
{
	const char *over = n->settings->over_udp.text;
	struct head *request = over ? masque_udp_request(over) : masque_ip_request(n->text, -1);
	if (request)
		head_set(request, IP_CLIENT_HEADER, n->device->client);
	return request;
}

struct network_leg *ip_network_leg(struct ip_network *n)
{
	struct network_leg *l = calloc(1, sizeof(*l));
	if (!l)
		abort();
	l->network = n;
	ip_leg_init(&l->leg, n->device, true, &callbacks, n->settings->over_udp.text != NULL);
	l->next = n->legs;
	n->legs = n->next = l;
	if (!n->current)
		set_state(n, NETWORK_OPENING);
	return l;
}

static void begin(struct ip_network *n)
{
	struct head *request = ip_network_head(n);
	if (!request)
		return ip_network_complain(n, "network not usable", "over_udp is no target");
	struct network_leg *l = ip_network_leg(n);
	ip_network_police(n, request);
	flow_new(n->tunnel, &n->origin, &l->leg.leg, request, false);   /* may have closed the leg already */
}

void ip_network_start(struct ip_network *n)
{
	if (!n->freed && !n->handed && !n->next && (!n->current || n->stale))
		begin(n);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct ip_network *n = arg;
	(void)fd, (void)what;
	ip_network_start(n);
}

/* --- settings ----------------------------------------------------------------------------------------------------- */

static void take_settings(struct ip_network *n, const struct config_tunnel *config, const struct config_network *settings)
{
	struct generation *before = n->generation;
	n->generation = generation_ref(n->tunnel->current);
	n->config = config;
	n->settings = settings;
	n->listener_config = (struct config_listener){.name = n->device->name, .accept = CONFIG_TCP,
	                                              .add_headers = settings->add_headers, .require_user = config->require_user};
	n->origin.source_text[0] = '\0';
	if (n->device->n_own > 0) {
		char text[IP_TEXT];
		snprintf(n->origin.source_text, sizeof(n->origin.source_text), "%s", ip_text(&n->device->own[0], text));
		*(struct sockaddr_in6 *)&n->source = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = n->device->own[0]};
	}
	generation_unref(before);
}

static bool same_headers(const struct config_pairs *a, const struct config_pairs *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i].name, b->v[i].name) != 0 || strcmp(a->v[i].value, b->v[i].value) != 0)
			return false;
	return true;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_addresses(const struct config_tunnel *a, const struct config_tunnel *b)
{
	if (a->addresses.n != b->addresses.n || a->assigned != b->assigned)
		return false;
	for (size_t i = 0; i < a->addresses.n; i++)
		if (strcmp(a->addresses.v[i], b->addresses.v[i]) != 0)
			return false;
	return true;
}

void ip_network_use(struct ip_network *n, const struct config_tunnel *config, const struct config_network *settings)
{
	bool changed = !same_headers(&n->settings->add_headers, &settings->add_headers) ||
	               !same_text(n->settings->over_udp.text, settings->over_udp.text) ||
	               n->config->require_user != config->require_user;
	bool addresses = !same_addresses(n->config, config);
	take_settings(n, config, settings);
	if (addresses && n->current && !n->current->leg.udp)
		ip_network_request(n, &n->current->leg);
	if (!changed && n->state != NETWORK_BACKING_OFF)
		return;
	/* Another flow with the new headers; one that is being opened with the old ones is of no use any more. */
	n->stale = true;
	n->failures = 0;
	if (n->next) {
		n->next->refused = true;
		n->next->leg.abort = "the network's settings changed";
		ip_leg_wake(&n->next->leg);
		n->next = NULL;
	}
	begin(n);
}

struct ip_network *ip_network_new(struct tunnel *tunnel, struct device *device, const struct config_tunnel *config,
                                  const struct config_network *settings)
{
	struct ip_network *n = calloc(1, sizeof(*n));
	if (!n)
		abort();
	device_ref(device);
	n->tunnel = tunnel;
	n->device = device;
	n->prefix = settings->prefix;
	ip_prefix_text(&n->prefix, n->text);
	n->listener = (struct listener){.name = device->name, .config = &n->listener_config,
	                                .stats = stats_set(tunnel->stats, STATS_LISTENER, device->name)};
	n->origin = (struct origin){.listener = &n->listener, .source = &n->source, .carry = "tun"};
	evtimer_assign(&n->retry, tunnel->base, on_retry, n);
	take_settings(n, config, settings);
	ip_way_init(&n->way, device, resume);
	n->way.port.packet = from_device;
	if (!device_route_add(device, &n->prefix, &n->way.port))
		log_warn("network not used", "device=%s prefix=%s reason=%s", device->name, n->text,
		         log_value("the prefix is an address given to a client"));
	if (!tunnel->awaiting)          /* the predecessor's flow may come yet */
		begin(n);
	return n;
}

void ip_network_free(struct ip_network *n)
{
	n->freed = true;
	evtimer_del(&n->retry);
	device_route_remove(n->device, &n->prefix, &n->way.port);
	set_state(n, NETWORK_CLOSING);
	for (struct network_leg *l = n->legs; l; l = l->next) {
		if (l->leg.joined) {
			ip_leg_end(&l->leg);
			continue;
		}
		l->leg.abort = "the network is no longer configured";
		ip_leg_wake(&l->leg);
	}
	network_release(n);
}

/* --- for others --------------------------------------------------------------------------------------------------- */

unsigned ip_network_assigned(const struct ip_network *n, struct config_prefix *out, unsigned max)
{
	unsigned k = n->n_assigned < max ? n->n_assigned : max;
	memcpy(out, n->assigned, k * sizeof(*out));
	return k;
}

void ip_network_json(const struct ip_network *n, struct json *j)
{
	char text[IP_TEXT];
	json_object(j, NULL);
	json_str(j, "prefix", n->text);
	json_str(j, "state", state_name(n->state));
	json_str(j, "user", user_of(n));
	json_str(j, "protocol", n->settings->over_udp.text ? "connect-udp" : "connect-ip");
	json_str(j, "error", n->error[0] ? n->error : NULL);
	json_bool(j, "segments", n->current && n->current->leg.segments);
	json_array(j, "assigned");
	for (unsigned i = 0; i < n->n_assigned; i++)
		json_str(j, NULL, ip_prefix_text(&n->assigned[i], text));
	json_end(j);
	json_uint(j, "routes", n->n_routes);
	json_uint(j, "packets_out", n->way.out_packets);
	json_uint(j, "bytes_out", n->way.out_bytes);
	json_uint(j, "packets_in", n->way.in_packets);
	json_uint(j, "bytes_in", n->way.in_bytes);
	json_uint(j, "waiting_bytes", n->way.queue.bytes);
	json_uint(j, "dropped", n->way.dropped);
	json_end(j);
}
