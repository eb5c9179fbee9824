/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/worker_link.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "ipc/log.h"
#include "ipc/owner.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/h2.h"
#include "workers/tunnel/h2_internal.h"
#include "workers/tunnel/masque.h"

#define WORKERS_MAX 64u
#define ASK_MS 500                    /* the supervisor is asked again for a link that does not come */
#define WAIT_US 5000000u              /* for a stream */
#define STREAMS (1u << 20)

/* Fields of requests on links. Nobody else looks at them: on all other connections they mean nothing. */
#define INNER_CLUSTER "hermes-inner-cluster"
#define INNER_USER "hermes-inner-user"
#define INNER_PEER "hermes-inner-peer"
#define INNER_SOURCE "hermes-inner-source"
#define INNER_LISTENER "hermes-inner-listener"

struct worker_link_wait {
	TAILQ_ENTRY(worker_link_wait) link;
	struct link *on;
	const char *cluster;
	struct flow *flow;
	void (*opened)(void *arg, struct leg *leg);
	void (*failed)(void *arg, enum flow_error error, const char *detail);
	void *arg;
	uint64_t until;
};
TAILQ_HEAD(waits, worker_link_wait);

/* Towards one other worker. */
struct link {
	struct worker_links *links;
	unsigned index;
	struct client *client;        /* the connection that takes streams; NULL: none */
	struct waits waits;
	struct event *event;          /* serves who waits; asks again */
	uint64_t asked;               /* µs */
};
struct client { struct link *link; struct h2 *h2; };
struct server { LIST_ENTRY(server) link; struct h2 *h2; struct origin origin; struct sockaddr_storage source; };

struct worker_links {
	struct tunnel *tunnel;
	struct link to[WORKERS_MAX];
	LIST_HEAD(, server) servers;
	struct stats *stats;          /* counts nothing that anybody sees: the outer flow counts */
	struct listener listener;
	struct config_listener config;
	struct stats_set *cluster;
};

/* --- the client's side ---------------------------------------------------------------------------------------------------- */

static struct leg_ops client_ops;

/* The request as it leaves on a link, with who asks and what was decided. */
static void client_head(struct leg *leg, const struct head *head, bool end)
{
	const struct flow *flow = leg->flow;
	const struct origin *origin = flow->origin;
	struct head *request = head_clone(head);
	head_remove(request, INNER_USER);
	head_remove(request, INNER_PEER);
	head_set(request, INNER_CLUSTER, way_decision(flow)->cluster);
	head_set(request, INNER_SOURCE, origin->source_text);
	head_set(request, INNER_LISTENER, origin->listener->name);
	if (flow->user)
		head_add(request, INNER_USER, flow->user);
	if (origin->peer)
		head_add(request, INNER_PEER, origin->peer);
	h2_client_ops.head(leg, request, end);
	head_free(request);
}

static void serve_later(struct link *link, unsigned ms)
{
	struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
	event_add(link->event, &delay);
}

static void ask_for(struct link *link)
{
	struct ipc_link_wanted wanted = {.index = link->index};
	struct ipc_channel *supervisor = worker_supervisor(link->links->tunnel->worker);
	link->asked = now_us();
	if (supervisor)
		ipc_send(supervisor, IPC_MSG_LINK_WANTED, &wanted, -1);
}

static void wait_end(struct worker_link_wait *wait)
{
	TAILQ_REMOVE(&wait->on->waits, wait, link);
	free(wait);
}

static void wait_failed(struct worker_link_wait *wait)
{
	struct worker_link_wait copy = *wait;
	wait_end(wait);
	copy.failed(copy.arg, FLOW_CONNECT_TIMEOUT, "the node's other tunnel worker does not answer");
}

/* The first of those who wait that can be served or have waited too long; false: none. */
static bool serve_one(struct link *link)
{
	struct worker_link_wait *wait = TAILQ_FIRST(&link->waits);
	if (!wait)
		return false;
	if (link->client && h2_room(link->client->h2) > 0) {
		struct worker_link_wait copy = *wait;
		struct leg *leg = h2_open(link->client->h2, wait->flow);
		leg->ops = &client_ops;
		wait_end(wait);
		copy.opened(copy.arg, leg);
		return true;
	}
	if (now_us() < wait->until)
		return false;
	wait_failed(wait);
	return true;
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct link *link = arg;
	(void)fd, (void)what;
	while (serve_one(link))
		;
	if (TAILQ_EMPTY(&link->waits))
		return;
	if (!link->client && now_us() - link->asked >= ASK_MS * 1000u)
		ask_for(link);
	serve_later(link, ASK_MS);
}

static void on_ready(void *arg)
{
	struct client *client = arg;
	if (client->link->client == client)
		serve_later(client->link, 0);
}

static void on_closing(void *arg)
{
	struct client *client = arg;
	if (client->link->client != client)
		return;
	client->link->client = NULL;
	serve_later(client->link, 0);
}

static void on_client_gone(void *arg, enum flow_error error, const char *detail)
{
	struct client *client = arg;
	(void)error;
	log_debug("worker link gone", "worker=%u reason=%s", client->link->index, log_value(detail));
	on_closing(client);
	free(client);
}

static const struct h2_pool_callbacks client_callbacks = {
	.ready = on_ready, .room = on_ready, .closing = on_closing, .gone = on_client_gone};

static void client_new(struct link *link, int fd)
{
	struct tunnel *tunnel = link->links->tunnel;
	struct client *client = calloc(1, sizeof(*client));
	if (!client)
		abort();
	client->link = link;
	struct transport *transport = transport_new(tunnel->base, fd, NULL, TRANSPORT_CONNECTING, NULL, NULL);
	client->h2 = h2_client_new(tunnel, transport, 0, &client_callbacks, client);
	if (link->client)
		h2_drain(link->client->h2, false);
	link->client = client;
}

struct worker_link_wait *worker_link_open(struct worker_links *links, unsigned index, const char *cluster, struct flow *flow,
                                          void (*opened)(void *arg, struct leg *leg),
                                          void (*failed)(void *arg, enum flow_error error, const char *detail), void *arg)
{
	struct link *link = &links->to[index % WORKERS_MAX];
	struct worker_link_wait *wait = malloc(sizeof(*wait));
	if (!wait)
		abort();
	*wait = (struct worker_link_wait){.on = link, .cluster = cluster, .flow = flow, .opened = opened, .failed = failed,
	                                  .arg = arg, .until = now_us() + WAIT_US};
	TAILQ_INSERT_TAIL(&link->waits, wait, link);
	serve_later(link, 0);
	return wait;
}

void worker_link_cancel(struct worker_link_wait *wait)
{
	wait_end(wait);
}

bool worker_link_owner(const struct flow *flow, const struct config_cluster *cluster, unsigned *index)
{
	const struct worker *worker = flow->tunnel->worker;
	const struct head *request = flow_request(flow);
	struct tunnel_header asked;
	bool stream = request && flow->connect && !request->protocol;
	if (!worker || !request || flow->origin->inner || (!stream && !masque_is(request)))
		return false;              /* what came by a link goes on no further */
	unsigned own = worker_index(worker), workers = worker_tunnels(worker);
	if (cluster->carry == CONFIG_CARRY_IP && cluster->device) {
		*index = device_owner(cluster->device, workers);
		return *index != own && *index < WORKERS_MAX;
	}
	if (cluster->carry != (stream ? CONFIG_CARRY_TCP : CONFIG_CARRY_UDP))
		return false;
	tunnel_header_get(request, &asked);
	*index = asked.id[0];
	return asked.has_id && asked.stream == stream && *index != own && *index < workers && *index < WORKERS_MAX;
}

/* --- the owner's side ------------------------------------------------------------------------------------------------------ */

static void on_server_gone(void *arg)
{
	struct server *server = arg;
	LIST_REMOVE(server, link);
	free(server);
}

static void server_new(struct worker_links *links, int fd)
{
	struct server *server = calloc(1, sizeof(*server));
	if (!server)
		abort();
	server->origin = (struct origin){.listener = &links->listener, .source = &server->source, .source_text = "worker",
	                                 .carry = "h2", .inner = true};
	LIST_INSERT_HEAD(&links->servers, server, link);
	struct transport *transport = transport_new(links->tunnel->base, fd, NULL, TRANSPORT_ACCEPTED, NULL, NULL);
	server->h2 = h2_server_new(links->tunnel, transport, &server->origin, NULL, on_server_gone, server);
}

struct decision *worker_link_decision(struct worker_links *links, const struct origin *link, struct head *request,
                                      struct own_origin **origin, char **user)
{
	const char *cluster = head_get(request, INNER_CLUSTER), *asker = head_get(request, INNER_USER);
	const char *source = head_get(request, INNER_SOURCE), *listener = head_get(request, INNER_LISTENER);
	if (!cluster || !source || !listener)
		return NULL;
	struct decision *decision = calloc(1, sizeof(*decision));
	if (!decision)
		abort();
	*decision = (struct decision){.refs = 1, .cluster = strdup(cluster), .retry = {.attempts = 1},
	                              .cluster_stats = links->cluster};
	*origin = own_origin_inner(link, listener, source, head_get(request, INNER_PEER));
	*user = asker ? strdup(asker) : NULL;
	static const char *const fields[] = {INNER_CLUSTER, INNER_USER, INNER_PEER, INNER_SOURCE, INNER_LISTENER};
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		head_remove(request, fields[i]);
	return decision;
}

struct own_origin *worker_link_origin(struct worker_links *links, const char *listener, const char *source, const char *peer)
{
	const struct origin link = {.listener = &links->listener, .source_text = "worker", .carry = "h2", .inner = true};
	return own_origin_inner(&link, listener, source, peer);
}

struct stats_set *worker_link_stats(struct worker_links *links)
{
	return links->cluster;
}

/* --- all of them ----------------------------------------------------------------------------------------------------------- */

void worker_links_take(struct worker_links *links, unsigned index, bool client, int fd)
{
	if (fd < 0 || index >= WORKERS_MAX) {
		if (fd >= 0)
			close(fd);
		return;
	}
	log_debug("worker link", "worker=%u client=%d", index, client);
	if (client)
		client_new(&links->to[index], fd);
	else
		server_new(links, fd);
}

void worker_links_drain(struct worker_links *links)
{
	struct server *server, *next;
	for (server = LIST_FIRST(&links->servers); server; server = next) {
		next = LIST_NEXT(server, link);
		h2_drain(server->h2, false);
	}
}

struct worker_links *worker_links_new(struct tunnel *tunnel)
{
	struct worker_links *links = calloc(1, sizeof(*links));
	if (!links || !(links->stats = stats_new(4)))
		abort();
	links->tunnel = tunnel;
	client_ops = h2_client_ops;
	client_ops.head = client_head;
	links->config = (struct config_listener){.name = (char *)"worker", .accept = CONFIG_OVERLAY, .trust_headers = true};
	links->config.limits = (struct config_limits){.streams = STREAMS, .header_bytes = 1u << 20};
	links->listener = (struct listener){.name = "worker", .config = &links->config,
	                                    .stats = stats_set(links->stats, STATS_LISTENER, "worker")};
	links->cluster = stats_set(links->stats, STATS_CLUSTER, "worker");
	for (unsigned i = 0; i < WORKERS_MAX; i++) {
		struct link *link = &links->to[i];
		link->links = links;
		link->index = i;
		TAILQ_INIT(&link->waits);
		link->event = event_new(tunnel->base, -1, 0, on_event, link);
		if (!link->event)
			abort();
	}
	return links;
}
