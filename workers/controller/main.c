/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-controller: shapes a domain of nodes. Its store's folder is HERMES_STATE_DIR/controller, its socket comes bound. */
#include "ipc/log.h"
#include "workers/controller/api.h"
#include "workers/controller/enrolment.h"
#include "workers/controller/keeper_client.h"
#include "workers/controller/nodes.h"
#include "workers/controller/polls.h"
#include "workers/controller/renewal.h"

#include <errno.h>
#include <event2/event.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTENER "controller"
#define LAST_WORDS_MS 200             /* for answers that are on their way when we stop */

struct program {
	struct controller controller;
	struct kv *local;             /* opened before the sandbox closes; NULL where it could not be, or is in use */
	const char *why;              /* it could not */
	struct config *prepared;
	int socket;                   /* the listener's, until the commit; -1: none */
	bool domain_started, listening;
};

static struct program program = {.socket = -1};

/* --- the store ------------------------------------------------------------------------------------------------------- */

/* Loaded for the first time: what stands on it begins. */
static void on_store(void *arg)
{
	struct program *p = arg;
	struct controller *c = &p->controller;
	if (!kv_ready(c->kv) || p->domain_started)
		return;
	p->domain_started = true;
	nodes_start(c->nodes);
	polls_start(c->polls);
	renewal_start(c);
	domain_start(c);
	log_info("controller ready", "nodes=%zu documents=%zu", kv_count(c->kv, "node/"), kv_count(c->kv, "document/"));
}

static void open_local(struct program *p)
{
	const char *state = getenv("HERMES_STATE_DIR");
	char folder[4096];
	if (!state || !*state || (size_t)snprintf(folder, sizeof(folder), "%s/controller", state) >= sizeof(folder)) {
		p->why = "HERMES_STATE_DIR is not set";
		return;
	}
	p->local = kv_local(worker_base(p->controller.worker), folder, on_store, p, &p->why);
	if (!p->local)
		log_error("controller's store not opened", "folder=%s error=%s reason=%s", log_value(folder),
		          log_value(strerror(errno)), log_value(p->why));
}

static bool uses_etcd(const struct config *config)
{
	return config->controller.etcd.n > 0;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && !strcmp(a, b));
}

static bool same_store(const struct config *a, const struct config *b)
{
	bool same = a->controller.etcd.n == b->controller.etcd.n && same_text(a->controller.prefix, b->controller.prefix) &&
	            same_text(a->domain, b->domain) && same_text(a->node_name, b->node_name);
	for (size_t i = 0; same && i < a->controller.etcd.n; i++)
		same = !strcmp(a->controller.etcd.v[i], b->controller.etcd.v[i]);
	return same;
}

static int dial(void *arg, uint64_t id, const char *address)
{
	struct program *p = arg;
	return ipc_send(worker_supervisor(p->controller.worker), IPC_MSG_DIAL, &(struct ipc_dial){.id = id, .address = address}, -1);
}

static void begin(struct program *p)
{
	struct controller *c = &p->controller;
	struct event_base *base = worker_base(c->worker);
	const struct config_controller *config = &c->config->controller;
	if (uses_etcd(c->config))
		c->kv = kv_etcd(base, config->etcd.v, config->etcd.n, config->prefix, dial, on_store, p);
	else
		c->kv = p->local;
	if (!c->kv)
		fatal("controller's store", "error=%s", log_value(p->why ? p->why : "out of memory"));
	if (c->kv == p->local)
		p->local = NULL;
	on_store(p);
}

/* --- configuration --------------------------------------------------------------------------------------------------- */

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct program *p = arg;
	(void)generation;
	if (config->controller.enabled && !uses_etcd(config) && !p->local && !p->controller.kv) {
		snprintf(error, error_size, "controller: %s", p->why ? p->why : "the store cannot be opened");
		config_free(config);
		return -1;
	}
	config_free(p->prepared);
	p->prepared = config;
	return 0;
}

static void listen_on(struct program *p)
{
	if (p->socket < 0)
		return;
	if (p->listening)
		api_unlisten(p->controller.api);
	int error = api_listen(p->controller.api, p->socket);
	p->socket = -1;
	p->listening = !error;
	if (error)
		log_error("controller's socket not opened", "error=%s", log_value(strerror(-error)));
}

/* Another store, domain or name than we began with: a new process begins with them. */
static void on_commit(void *arg, uint64_t generation)
{
	struct program *p = arg;
	struct config *before = p->controller.config;
	(void)generation;
	p->controller.config = p->prepared;
	p->prepared = NULL;
	if (before && !same_store(before, p->controller.config)) {
		log_info("controller begins anew", "reason=%s", log_value("its store or its name has changed"));
		worker_exit(p->controller.worker);
	} else if (!before) {
		begin(p);
	}
	config_free(before);
	listen_on(p);
}

static void on_abort(void *arg, uint64_t generation)
{
	struct program *p = arg;
	(void)generation;
	config_free(p->prepared);
	p->prepared = NULL;
}

/* --- messages -------------------------------------------------------------------------------------------------------- */

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct program *p = arg;
	(void)index;
	if (role == IPC_KEEPER)
		keeper_client_peer(p->controller.keeper, fd);
	else
		close(fd);
}

static void on_listener(struct program *p, const struct ipc_listener *listener, int *fd)
{
	if (!listener->name || strcmp(listener->name, LISTENER)) {
		log_warn("listener not ours", "name=%s", log_value(listener->name));
		return;
	}
	if (p->socket >= 0)
		close(p->socket);
	p->socket = *fd;
	*fd = -1;
	if (!listener->generation && p->controller.config)
		listen_on(p);
}

static void on_dialed(struct program *p, const struct ipc_dialed *dialed, int *fd)
{
	if (!p->controller.kv || !uses_etcd(p->controller.config))
		return;
	kv_etcd_dialed(p->controller.kv, dialed->id, *fd, dialed->error);
	*fd = -1;
}

static void on_message(void *arg, enum ipc_type type, const union ipc_any *message, int *fd)
{
	struct program *p = arg;
	switch (type) {
	case IPC_MSG_LISTENER: on_listener(p, &message->listener, fd); break;
	case IPC_MSG_DIALED: on_dialed(p, &message->dialed, fd); break;
	case IPC_MSG_ADMIN_REQUEST:
		worker_reply(p->controller.worker, message->admin_request.id, 2, NULL, "the controller answers on its socket");
		break;
	default: log_warn("message not expected", "type=%s", ipc_type_name(type));
	}
}

static void on_last_words(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	worker_exit(arg);
}

/* Nodes that wait are answered, and ask again where a controller is. */
static void on_stop(void *arg, unsigned drain_ms)
{
	struct program *p = arg;
	static const struct timeval soon = {.tv_usec = LAST_WORDS_MS * 1000};
	(void)drain_ms;
	api_unlisten(p->controller.api);
	polls_end(p->controller.polls);
	event_base_once(worker_base(p->controller.worker), -1, EV_TIMEOUT, on_last_words, p->controller.worker, &soon);
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

static void set_up(struct program *p)
{
	struct controller *c = &p->controller;
	struct event_base *base = worker_base(c->worker);
	c->api = api_new(c, base);
	c->nodes = nodes_new(c, base);
	c->polls = polls_new(c, base);
	c->enrolment = enrolment_new(c, base);
	c->keeper = keeper_client_new(base);
	if (!c->api || !c->nodes || !c->polls || !c->enrolment || !c->keeper)
		fatal("out of memory", "at=%s", "start");
	api_nodes_add(c->api);
	api_domain_add(c->api);
	open_local(p);
}

/* Whoever waits is answered before those who would answer go. */
static void tear_down(struct program *p)
{
	struct controller *c = &p->controller;
	domain_stop(c->domain);
	keeper_client_free(c->keeper);
	polls_free(c->polls);
	enrolment_free(c->enrolment);
	kv_free(c->kv);
	kv_free(p->local);
	domain_free(c->domain);
	nodes_free(c->nodes);
	api_free(c->api);
	config_free(p->prepared);
	config_free(c->config);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = {
		.prepare = on_prepare, .commit = on_commit, .abort = on_abort, .peer = on_peer, .message = on_message, .stop = on_stop,
	};
	program.controller.worker = worker_start(IPC_CONTROLLER, argc, argv, 0, &callbacks, &program);
	if (sodium_init() < 0)
		fatal("random numbers", "%s", "error=\"there are none\"");
	set_up(&program);
	int status = worker_run(program.controller.worker);
	tear_down(&program);
	return status;
}
