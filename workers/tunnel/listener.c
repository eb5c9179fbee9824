#include "workers/tunnel/listener.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/tunnel/connection.h"
#include "workers/tunnel/generation.h"
#include "workers/tunnel/listener_internal.h"
#include "workers/tunnel/source_text.h"
#include "workers/tunnel/transparent.h"

#define BACKLOG 4096
#define ACCEPTS 64                /* per wake-up, so that accepting does not starve what was accepted */
#define PAUSE_US 100000           /* when out of descriptors */

/* A socket that came for a generation which is not in force yet. */
struct pending {
	struct pending *next;
	uint64_t generation;
	char *name;
	int fd;
	bool datagrams;
};

struct listeners {
	struct tunnel *tunnel;
	struct bound *bound;
	struct pending *pending;
	bool draining;
};

/* --- one listener ---------------------------------------------------------------------------------------------------- */

static void bound_release(struct bound *b)
{
	if (b->refs > 0 || b->listed)
		return;
	generation_unref(b->generation);
	free((char *)b->base.name);
	free(b);
}

uint16_t bound_port(const struct bound *b)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	char host[64];
	uint16_t port = 0;
	if (b->fd >= 0 && getsockname(b->fd, (struct sockaddr *)&address, &length) == 0)
		source_text(&address, host, sizeof(host), &port);
	return port;
}

void bound_unref(struct bound *b)
{
	b->refs--;
	bound_release(b);
}

void bound_hold(struct listener *listener, int change)
{
	struct bound *b = (struct bound *)listener;
	if (change > 0)
		b->refs++;
	else
		bound_unref(b);
}

static void close_fd(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	close((int)(intptr_t)arg);
}

/* The supervisor holds the socket too: closed before libevent's change list has reached the kernel, it would stay in the
 * epoll set for good. So it is closed in the next turn. */
static void stream_close(struct bound *b)
{
	static const struct timeval now = {0};
	if (b->event)
		event_free(b->event);
	b->event = NULL;
	if (b->fd >= 0)
		event_base_once(b->tunnel->base, -1, EV_TIMEOUT, close_fd, (void *)(intptr_t)b->fd, &now);
	b->fd = -1;
}

static void datagrams_close(struct bound *b)
{
	udp_listener_close(b->udp);
	b->udp = NULL;
}

static void bound_close(struct bound *b)
{
	stream_close(b);
	datagrams_close(b);
}

static void pause_accepting(struct bound *b)
{
	struct timeval delay = {.tv_usec = PAUSE_US};
	log_warn("cannot accept", "listener=%s error=%s", b->base.name, log_value(strerror(errno)));
	event_del(b->event);
	event_base_once(event_get_base(b->event), -1, EV_TIMEOUT, bound_resume, b, &delay);
	b->refs++;   /* the timer's */
}

void bound_resume(evutil_socket_t fd, short what, void *arg)
{
	struct bound *b = arg;
	(void)fd, (void)what;
	if (b->event)
		event_add(b->event, NULL);
	bound_unref(b);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
	struct bound *b = arg;
	(void)what;
	for (int i = 0; i < ACCEPTS && b->event; i++) {
		struct sockaddr_storage source;
		socklen_t length = sizeof(source);
		memset(&source, 0, sizeof(source));
		int client = accept4(fd, (struct sockaddr *)&source, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (client >= 0) {
			connection_accept(b, client, &source);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			pause_accepting(b);
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static struct bound *find(struct listeners *ls, const char *name)
{
	for (struct bound *b = ls->bound; b; b = b->next)
		if (strcmp(b->base.name, name) == 0)
			return b;
	return NULL;
}

static struct bound *bound_new(struct listeners *ls, const char *name)
{
	struct bound *b = calloc(1, sizeof(*b));
	if (!b)
		abort();
	*b = (struct bound){.tunnel = ls->tunnel, .fd = -1, .next = ls->bound, .listed = true};
	b->base.name = strdup(name);
	b->base.stats = stats_set(ls->tunnel->stats, STATS_LISTENER, name);
	ls->bound = b;
	return b;
}

static bool takes_streams(const struct config_listener *l)
{
	return l->accept != CONFIG_UDP && (l->accept != CONFIG_TRANSPARENT || l->capture.tcp);
}

static bool takes_datagrams(const struct config_listener *l)
{
	return l->accept == CONFIG_UDP || (l->accept == CONFIG_TRANSPARENT && l->capture.udp);
}

static void use_stream(struct bound *b, int fd)
{
	stream_close(b);
	b->fd = fd;
	if (listen(fd, BACKLOG) < 0) {
		log_error("cannot listen", "listener=%s error=%s", b->base.name, log_value(strerror(errno)));
		return;
	}
	b->event = event_new(b->tunnel->base, fd, EV_READ | EV_PERSIST, on_accept, b);
	if (!b->event || event_add(b->event, NULL) < 0)
		abort();
	log_debug("listening", "listener=%s address=%s", b->base.name, b->base.config->address.text);
}

static void on_held(void *arg, int change)
{
	struct bound *b = arg;
	b->refs += (unsigned)change;
	bound_release(b);
}

/* The very socket that is in use already comes with every generation: its flows know nothing of a change. */
static bool same_socket(int a, int b)
{
	struct stat first, second;
	return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static void use_datagrams(struct bound *b, int fd)
{
	if (b->udp && same_socket(udp_listener_fd(b->udp), fd)) {
		close(fd);
		return;
	}
	datagrams_close(b);
	b->udp = udp_listener_new(b->tunnel, &b->base, fd, on_held, b);
	log_debug("receiving", "listener=%s address=%s", b->base.name, b->base.config->address.text);
}

/* The listener takes the settings of the generation in force, and the sockets (-1: none) where new ones came. */
static void bound_use(struct bound *b, const struct config_listener *config, int stream, int datagrams)
{
	bool captured = b->base.config && b->base.config->accept == CONFIG_TRANSPARENT;
	generation_unref(b->generation);
	b->generation = generation_ref(b->tunnel->current);
	b->base.config = config;
	if (!takes_streams(config))
		stream_close(b);
	if (!takes_datagrams(config) || captured != (config->accept == CONFIG_TRANSPARENT))
		datagrams_close(b);
	if (stream >= 0)
		use_stream(b, stream);
	if (datagrams >= 0)
		use_datagrams(b, datagrams);
}

/* --- all of them ----------------------------------------------------------------------------------------------------- */

struct listeners *listeners_new(struct tunnel *tunnel)
{
	struct listeners *ls = calloc(1, sizeof(*ls));
	if (!ls)
		abort();
	ls->tunnel = tunnel;
	return ls;
}

void listeners_add(struct listeners *ls, uint64_t generation, const char *name, int fd)
{
	struct pending *p = calloc(1, sizeof(*p));
	int type = SOCK_STREAM;
	socklen_t length = sizeof(type);
	if (!p)
		abort();
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
	*p = (struct pending){.next = ls->pending, .generation = generation, .name = strdup(name), .fd = fd,
	                      .datagrams = type == SOCK_DGRAM};
	ls->pending = p;
}

static struct pending *pending_find(struct listeners *ls, uint64_t generation, const char *name, bool datagrams)
{
	for (struct pending *p = ls->pending; p; p = p->next)
		if (p->generation == generation && p->fd >= 0 && p->datagrams == datagrams && strcmp(p->name, name) == 0)
			return p;
	return NULL;
}

/* Takes the descriptor; -1: none came. */
static int pending_take(struct listeners *ls, uint64_t generation, const char *name, bool datagrams)
{
	struct pending *p = pending_find(ls, generation, name, datagrams);
	int fd = p ? p->fd : -1;
	if (p)
		p->fd = -1;
	return fd;
}

/* Closes what came for generations up to this one and was not used. */
static void pending_drop(struct listeners *ls, uint64_t generation)
{
	for (struct pending **link = &ls->pending, *p; (p = *link);) {
		if (p->generation > generation) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		if (p->fd >= 0)
			close(p->fd);
		free(p->name);
		free(p);
	}
}

int listeners_prepare(struct listeners *ls, const struct config *config, uint64_t generation, char *error, size_t size)
{
	for (size_t i = 0; i < config->n_listeners; i++) {
		const struct config_listener *l = &config->listeners[i];
		struct bound *b = find(ls, l->name);
		bool stream = pending_find(ls, generation, l->name, false) || (b && b->fd >= 0);
		bool datagrams = pending_find(ls, generation, l->name, true) || (b && b->udp);
		if ((stream || !takes_streams(l)) && (datagrams || !takes_datagrams(l)))
			continue;
		snprintf(error, size, "listener %s: no socket was handed over", l->name);
		return -1;
	}
	return 0;
}

static bool captures(const struct config *config)
{
	for (size_t i = 0; i < config->n_listeners; i++)
		if (config->listeners[i].accept == CONFIG_TRANSPARENT)
			return true;
	return false;
}

void listeners_commit(struct listeners *ls, uint64_t generation)
{
	const struct config *config = ls->tunnel->current->config;
	if (ls->draining)               /* another worker takes what comes */
		return pending_drop(ls, generation);
	for (struct bound **link = &ls->bound, *b; (b = *link);) {
		const struct config_listener *l = config_listener(config, b->base.name);
		if (l) {
			link = &b->next;
			continue;
		}
		*link = b->next;
		b->listed = false;
		b->refs++;
		bound_close(b);
		bound_unref(b);
	}
	for (size_t i = 0; i < config->n_listeners; i++) {
		const struct config_listener *l = &config->listeners[i];
		struct bound *b = find(ls, l->name);
		int stream = pending_take(ls, generation, l->name, false);
		bound_use(b ? b : bound_new(ls, l->name), l, stream, pending_take(ls, generation, l->name, true));
	}
	pending_drop(ls, generation);
	if (!captures(config))
		transparent_forget();
	connections_commit();
}

void listeners_abort(struct listeners *ls, uint64_t generation)
{
	pending_drop(ls, generation);
}

void listeners_pause(struct listeners *ls)
{
	ls->draining = true;
	for (struct bound *b = ls->bound; b; b = b->next) {
		stream_close(b);
		if (b->udp)
			udp_listener_read(b->udp, false);
	}
	connections_drain();
}

void listeners_drain(struct listeners *ls)
{
	bool told = ls->draining;
	ls->draining = true;
	for (struct bound *b = ls->bound; b; b = b->next)
		bound_close(b);
	if (!told)
		connections_drain();
}

void listeners_start(struct listeners *ls)
{
	for (struct bound *b = ls->bound; b; b = b->next)
		if (b->udp)
			udp_listener_read(b->udp, true);
}

struct bound *listeners_find(struct listeners *ls, const char *name)
{
	return name ? find(ls, name) : NULL;
}

struct udp_listener *listeners_udp(struct listeners *ls, const char *name)
{
	struct bound *b = listeners_find(ls, name);
	return b ? b->udp : NULL;
}
