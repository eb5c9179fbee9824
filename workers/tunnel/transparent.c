/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/transparent.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "ipc/log.h"
#include "ipc/worker.h"

#define SOCKETS_MAX 1024u         /* kept beyond those that flows hold */
#define ASK_AGAIN_US 2000000u     /* tun-bridge may have been replaced meanwhile */

struct wait {
	STAILQ_ENTRY(wait) link;
	struct udp_flow *flow;        /* a reference */
};

/* A socket bound to a foreign address, or the wish for one. */
struct foreign {
	TAILQ_ENTRY(foreign) link;    /* the one used last comes first */
	char address[ADDRESS_PORT_TEXT];
	struct udp_socket *socket;    /* NULL: asked for */
	uint64_t id, asked;
	STAILQ_HEAD(, wait) waiting;
};

static TAILQ_HEAD(foreign_list, foreign) all = TAILQ_HEAD_INITIALIZER(all);
static unsigned n_all;
static uint64_t last_id;

/* --- addresses ---------------------------------------------------------------------------------------------------- */

void transparent_unmap(struct sockaddr_storage *address)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
	if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		return;
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = v6->sin6_port};
	memcpy(&v4.sin_addr, &v6->sin6_addr.s6_addr[12], sizeof(v4.sin_addr));
	memset(address, 0, sizeof(*address));
	memcpy(address, &v4, sizeof(v4));
}

bool transparent_target(int fd, uint16_t port, char target[ADDRESS_PORT_TEXT])
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	char host[64];
	uint16_t own = 0;
	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		return false;
	source_text(&address, host, sizeof(host), &own);
	address_port_text(&address, target);
	return own != port;
}

/* --- sockets for answers ------------------------------------------------------------------------------------------ */

static void tell_waiting(struct foreign *f)
{
	struct wait *w;
	while ((w = STAILQ_FIRST(&f->waiting))) {
		STAILQ_REMOVE_HEAD(&f->waiting, link);
		udp_flow_set_socket(w->flow, f->socket);
		udp_flow_unref(w->flow);
		free(w);
	}
}

static void foreign_free(struct foreign *f)
{
	TAILQ_REMOVE(&all, f, link);
	n_all--;
	tell_waiting(f);
	udp_socket_unref(f->socket);
	free(f);
}

static struct foreign *find(const char *address)
{
	struct foreign *f;
	TAILQ_FOREACH(f, &all, link)
		if (strcmp(f->address, address) == 0)
			return f;
	return NULL;
}

static void ask(struct tunnel *tunnel, struct foreign *f)
{
	f->id = ++last_id;
	f->asked = now_us();
	struct ipc_socket_wanted wanted = {.tunnel = worker_index(tunnel->worker), .id = f->id, .address = f->address};
	ipc_send(worker_supervisor(tunnel->worker), IPC_MSG_SOCKET_WANTED, &wanted, -1);
}

static struct foreign *foreign_new(const char *address)
{
	struct foreign *f = calloc(1, sizeof(*f));
	if (!f)
		abort();
	memcpy(f->address, address, sizeof(f->address));
	STAILQ_INIT(&f->waiting);
	TAILQ_INSERT_HEAD(&all, f, link);
	if (++n_all > SOCKETS_MAX)
		foreign_free(TAILQ_LAST(&all, foreign_list));
	return f;
}

void transparent_answer_by(struct tunnel *tunnel, struct udp_flow *flow, const struct sockaddr_storage *address)
{
	char text[ADDRESS_PORT_TEXT];
	address_port_text(address, text);
	struct foreign *f = find(text);
	if (f) {
		TAILQ_REMOVE(&all, f, link);
		TAILQ_INSERT_HEAD(&all, f, link);
	} else {
		f = foreign_new(text);
	}
	if (f->socket)
		return udp_flow_set_socket(flow, f->socket);
	struct wait *w = malloc(sizeof(*w));
	if (!w)
		abort();
	w->flow = udp_flow_ref(flow);
	STAILQ_INSERT_TAIL(&f->waiting, w, link);
	if (!f->asked || now_us() - f->asked > ASK_AGAIN_US)
		ask(tunnel, f);
}

static struct foreign *asked_for(uint64_t id)
{
	struct foreign *f;
	TAILQ_FOREACH(f, &all, link)
		if (f->id == id && !f->socket)
			return f;
	return NULL;
}

void transparent_socket_made(struct tunnel *tunnel, const struct ipc_socket_made *made, int fd)
{
	struct foreign *f = asked_for(made->id);
	if (!f) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (fd < 0) {
		log_warn("no socket for answers", "address=%s error=%s", f->address, log_value(made->error));
		return foreign_free(f);
	}
	int error = udp_setup(fd, strchr(f->address, '[') ? AF_INET6 : AF_INET, UDP_FRAGMENTS);
	if (error)
		log_warn("cannot set up UDP socket", "address=%s error=%s", f->address, log_value(strerror(-error)));
	f->socket = udp_socket_new(tunnel, NULL, fd);
	tell_waiting(f);
}

void transparent_forget(void)
{
	while (!TAILQ_EMPTY(&all))
		foreign_free(TAILQ_FIRST(&all));
}
