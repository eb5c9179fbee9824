/* SPDX-License-Identifier: Apache-2.0 */
/* A UDP socket that programs send to: who sent a datagram (and, where it was captured, to whom) tells its flow. */
#include "workers/tunnel/udp_listener.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/handover_parcel.h"
#include "workers/tunnel/source_text.h"
#include "workers/tunnel/transparent.h"
#include "workers/tunnel/udp_flows.h"

#define WAKE_BYTES (256u * 1024)  /* received per wake-up: others are served in between */
#define FEW 4                     /* messages: a call that brought fewer has emptied the socket */

struct udp_listener {
	struct tunnel *tunnel;
	struct listener *listener;
	struct udp_socket *socket;
	struct udp_flows *flows;
	struct event *event;
	uint16_t port;                /* own */
	bool captured;                /* accept: transparent: the destination is the target */
	uint64_t complained;          /* µs */
	struct udp_losses losses;
};

struct key {
	struct in6_addr from, to;
	uint32_t scope;
	in_port_t from_port, to_port;
};

static void put_address(const struct sockaddr_storage *address, struct in6_addr *out, in_port_t *port)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
	if (address->ss_family == AF_INET6) {
		*out = v6->sin6_addr;
		*port = v6->sin6_port;
		return;
	}
	out->s6_addr32[2] = htonl(0xffff);
	out->s6_addr32[3] = v4->sin_addr.s_addr;
	*port = v4->sin_port;
}

static void make_key(const struct udp_received *run, struct key *key)
{
	memset(key, 0, sizeof(*key));
	put_address(run->from, &key->from, &key->from_port);
	if (run->to)
		put_address(run->to, &key->to, &key->to_port);
	if (run->from->ss_family == AF_INET6)
		key->scope = ((const struct sockaddr_in6 *)run->from)->sin6_scope_id;
}

/* --- flows -------------------------------------------------------------------------------------------------------- */

static struct udp_flow *begin(struct udp_listener *l, const struct udp_received *run, const struct key *key)
{
	struct udp_begin how = {.key = key, .key_length = sizeof(*key), .target = l->listener->config->target.text,
	                        .carry = "udp", .client = run->from, .local = run->to, .socket = l->socket};
	return udp_flows_begin(l->flows, &how);
}

/* Sent to this socket itself, or so that nobody can tell where to: taken for captured, it would come back for ever. */
static bool not_captured(struct udp_listener *l, const struct udp_received *run, const struct key *key)
{
	if (run->to && key->to_port != 0 && key->to_port != l->port)
		return false;
	uint64_t now = now_us();
	if (now - l->complained > 10000000) {
		char source[64];
		uint16_t port;
		source_text(run->from, source, sizeof(source), &port);
		log_warn("datagram was not captured", "listener=%s source=%s", l->listener->name, source);
		l->complained = now;
	}
	return true;
}

static struct udp_flow *begin_captured(struct udp_listener *l, const struct udp_received *run, const struct key *key)
{
	char target[ADDRESS_PORT_TEXT];
	struct sockaddr_storage client = *run->from;
	if (not_captured(l, run, key)) {
		stats_add(l->listener->stats, STATS_LISTENER_MALFORMED, 1);
		return NULL;
	}
	transparent_unmap(&client);
	address_port_text(run->to, target);
	struct udp_begin how = {.key = key, .key_length = sizeof(*key), .target = target, .carry = "udp", .client = &client};
	struct udp_flow *flow = udp_flows_begin(l->flows, &how);
	if (flow)
		transparent_answer_by(l->tunnel, flow, run->to);
	return flow;
}

/* --- from the predecessor ----------------------------------------------------------------------------------------- */

static const struct sockaddr_storage *address_of(const struct ipc_bytes *bytes, struct sockaddr_storage *out)
{
	if (bytes->length != sizeof(*out))
		return NULL;
	memcpy(out, bytes->data, sizeof(*out));
	return out->ss_family == AF_INET || out->ss_family == AF_INET6 ? out : NULL;
}

/* Whom captured datagrams were for. */
static struct sockaddr_storage captured_for(const struct key *key)
{
	struct sockaddr_storage to = {0};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = key->to, .sin6_port = key->to_port};
	memcpy(&to, &v6, sizeof(v6));
	transparent_unmap(&to);
	return to;
}

struct leg *udp_listener_restore(struct udp_listener *l, const struct parcel *parcel)
{
	const struct ipc_handover_record *r = &parcel->record;
	struct sockaddr_storage client, local;
	struct key key;
	if (r->key.length != sizeof(key) || !address_of(&r->client, &client))
		return NULL;
	memcpy(&key, r->key.data, sizeof(key));
	struct udp_begin how = {.key = &key, .key_length = sizeof(key), .carry = "udp", .client = &client,
	                        .local = address_of(&r->local, &local), .socket = l->captured ? NULL : l->socket};
	struct leg *leg = udp_flows_restore(l->flows, &how, parcel);
	if (leg && l->captured) {
		struct sockaddr_storage to = captured_for(&key);
		transparent_answer_by(l->tunnel, udp_flow_of(leg), &to);
	}
	return leg;
}

static void take_entry(void *arg, const struct datagram_entry *e, const uint8_t *data)
{
	udp_flow_take(arg, data + e->prefix_length, e->length, e->segment);
}

bool udp_listener_begin(struct udp_listener *l, const struct parcel *parcel)
{
	const struct ipc_handover_record *r = &parcel->record;
	struct sockaddr_storage client, local;
	struct key key;
	if (r->key.length != sizeof(key) || !address_of(&r->client, &client))
		return false;
	memcpy(&key, r->key.data, sizeof(key));
	struct sockaddr_storage to = captured_for(&key);
	struct udp_received run = {.from = &client, .to = l->captured ? &to : address_of(&r->local, &local)};
	struct udp_flow *flow = udp_flows_find(l->flows, &key, sizeof(key));
	if (!flow)
		flow = l->captured ? begin_captured(l, &run, &key) : begin(l, &run, &key);
	bool fits = !flow || parcel_each_entry(parcel, PARCEL_IN_QUEUE, take_entry, flow);
	udp_flows_give(l->flows);
	return fits;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static void count_losses(struct udp_listener *l, uint32_t n)
{
	if (n > 0)
		stats_add(l->listener->stats, STATS_LISTENER_DROP_SOCKET_FULL, n);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct udp_listener *l = arg;
	struct udp_received runs[UDP_BATCH];
	size_t bytes = 0;
	int n = FEW;
	(void)what;
	while (bytes < WAKE_BYTES && n >= FEW) {
		n = udp_receive(fd, runs, UDP_BATCH);
		count_losses(l, udp_losses(&l->losses, runs, n));
		for (int i = 0; i < n; i++) {
			struct key key;
			make_key(&runs[i], &key);
			struct udp_flow *flow = udp_flows_find(l->flows, &key, sizeof(key));
			if (!flow)
				flow = l->captured ? begin_captured(l, &runs[i], &key) : begin(l, &runs[i], &key);
			if (flow)
				udp_flow_take(flow, runs[i].data, runs[i].length, runs[i].segment);
			bytes += runs[i].length + 512u;
		}
		udp_flows_give(l->flows);
	}
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static bool is_any(const struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
	return address->ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr) : v4->sin_addr.s_addr == INADDR_ANY;
}

struct udp_listener *udp_listener_new(struct tunnel *tunnel, struct listener *listener, int fd,
                                      void (*held)(void *arg, int change), void *arg)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	struct in6_addr ignored;
	struct udp_listener *l = calloc(1, sizeof(*l));
	if (!l)
		abort();
	bool captured = listener->config->accept == CONFIG_TRANSPARENT;
	*l = (struct udp_listener){.tunnel = tunnel, .listener = listener, .captured = captured};
	getsockname(fd, (struct sockaddr *)&address, &length);
	put_address(&address, &ignored, &l->port);
	unsigned what = captured ? UDP_ORIGINAL : is_any(&address) ? UDP_PKTINFO : 0;
	int error = udp_setup(fd, address.ss_family, what | UDP_FRAGMENTS);
	if (error)
		log_error("cannot set up UDP socket", "listener=%s error=%s", listener->name, log_value(strerror(-error)));
	l->socket = udp_socket_new(tunnel, listener->stats, fd);
	l->flows = udp_flows_new(tunnel, listener, UINT32_MAX, held, arg);
	udp_flows_hand_over_as(l->flows, captured ? "transparent" : "udp");
	l->event = event_new(tunnel->base, fd, EV_READ | EV_PERSIST, on_readable, l);
	if (!l->event)
		abort();
	udp_listener_read(l, !tunnel->awaiting);
	return l;
}

void udp_listener_read(struct udp_listener *l, bool read)
{
	if ((read ? event_add(l->event, NULL) : event_del(l->event)) < 0)
		abort();
}

int udp_listener_fd(const struct udp_listener *l)
{
	return udp_socket_fd(l->socket);
}

void udp_listener_close(struct udp_listener *l)
{
	if (!l)
		return;
	event_free(l->event);
	udp_flows_close(l->flows);
	udp_socket_unref(l->socket);
	free(l);
}
