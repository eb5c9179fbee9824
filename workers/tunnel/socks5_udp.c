/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/socks5_udp.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workers/tunnel/socks5.h"
#include "workers/tunnel/transparent.h"
#include "workers/tunnel/udp_flows.h"

#define HEADER_MAX 262u           /* a name of 255 bytes */
#define WAKE_BYTES (256u * 1024)  /* received per wake-up */
#define FEW 4                     /* messages: a call that brought fewer has emptied the socket */

struct socks5_udp {
	struct tunnel *tunnel;
	const struct origin *origin;
	struct sockaddr_storage client;   /* its address; the port is told by its datagrams */
	struct udp_socket *socket;
	struct udp_flows *flows;
	struct event *event;
};

/* A target is told from others by the header itself, a client's socket by its port. */
struct key {
	in_port_t port;
	uint8_t header[HEADER_MAX];
};

static in_port_t port_of(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
	                                      : ((const struct sockaddr_in *)address)->sin_port;
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a, *b6 = (const struct sockaddr_in6 *)b;
	const struct sockaddr_in *a4 = (const struct sockaddr_in *)a, *b4 = (const struct sockaddr_in *)b;
	if (a->ss_family != b->ss_family)
		return false;
	return a->ss_family == AF_INET ? a4->sin_addr.s_addr == b4->sin_addr.s_addr
	                               : memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0;
}

/* --- datagrams ---------------------------------------------------------------------------------------------------- */

static struct udp_flow *begin(struct socks5_udp *r, const struct sockaddr_storage *from, const struct key *key,
                              size_t header)
{
	char target[SOCKS5_AUTHORITY];
	if (!socks5_datagram_target(key->header, header, target))
		return NULL;
	struct udp_begin how = {.key = key, .key_length = sizeof(key->port) + header, .target = target, .carry = "socks5",
	                        .user = r->origin->proven_user, .client = from, .socket = r->socket, .header = key->header,
	                        .header_length = header};
	return udp_flows_begin(r->flows, &how);
}

static void take(struct socks5_udp *r, const struct sockaddr_storage *from, const uint8_t *data, size_t length)
{
	struct key key;
	size_t header = socks5_datagram_header(data, length);
	if (header == 0) {
		stats_add(r->origin->listener->stats, STATS_LISTENER_MALFORMED, 1);
		return;
	}
	key.port = port_of(from);
	memcpy(key.header, data, header);
	struct udp_flow *flow = udp_flows_find(r->flows, &key, sizeof(key.port) + header);
	if (!flow)
		flow = begin(r, from, &key, header);
	if (flow)
		udp_flow_take(flow, data + header, length - header, 0);
}

/* Every datagram of a run has a header of its own. */
static void take_run(struct socks5_udp *r, const struct udp_received *run)
{
	size_t segment = run->segment > 0 ? run->segment : 1, at = 0;
	if (!run->from || !same_host(run->from, &r->client))
		return;                         /* a stranger's (RFC 1928 7) */
	do {
		take(r, run->from, run->data + at, run->length - at < segment ? run->length - at : segment);
		at += segment;
	} while (at < run->length);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct socks5_udp *r = arg;
	struct udp_received runs[UDP_BATCH];
	size_t bytes = 0;
	int n = FEW;
	(void)what;
	while (bytes < WAKE_BYTES && n >= FEW) {
		n = udp_receive(fd, runs, UDP_BATCH);
		for (int i = 0; i < n; i++) {
			take_run(r, &runs[i]);
			bytes += runs[i].length + 512u;
		}
		udp_flows_give(r->flows);
	}
}

/* --- life --------------------------------------------------------------------------------------------------------- */

static socklen_t without_port(struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = 0;
	else
		((struct sockaddr_in *)address)->sin_port = 0;
	return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* -1: none, *why says so. */
static int bind_beside(int tcp, struct sockaddr_storage *bound, const char **why)
{
	socklen_t length = sizeof(*bound);
	*bound = (struct sockaddr_storage){0};
	if (getsockname(tcp, (struct sockaddr *)bound, &length) < 0 || bound->ss_family == AF_UNIX) {
		*why = "UDP ASSOCIATE at a Unix socket";
		return -1;
	}
	transparent_unmap(bound);
	length = without_port(bound);
	int fd = socket(bound->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)bound, length) == 0 &&
	    udp_setup(fd, bound->ss_family, UDP_FRAGMENTS) == 0 && getsockname(fd, (struct sockaddr *)bound, &length) == 0)
		return fd;
	*why = "no UDP socket could be made";
	if (fd >= 0)
		close(fd);
	return -1;
}

struct socks5_udp *socks5_udp_new(struct tunnel *tunnel, const struct origin *origin, int tcp,
                                  struct sockaddr_storage *bound, const char **why)
{
	int fd = bind_beside(tcp, bound, why);
	if (fd < 0)
		return NULL;
	struct socks5_udp *r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	*r = (struct socks5_udp){.tunnel = tunnel, .origin = origin, .client = *origin->source};
	transparent_unmap(&r->client);
	r->socket = udp_socket_new(tunnel, origin->listener->stats, fd);
	r->flows = udp_flows_new(tunnel, origin->listener, SOCKS5_TARGETS_MAX, NULL, NULL);
	r->event = event_new(tunnel->base, fd, EV_READ | EV_PERSIST, on_readable, r);
	if (!r->event || event_add(r->event, NULL) < 0)
		abort();
	return r;
}

void socks5_udp_free(struct socks5_udp *r)
{
	if (!r)
		return;
	event_free(r->event);
	udp_flows_free(r->flows);
	udp_socket_unref(r->socket);
	free(r);
}
