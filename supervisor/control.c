#include "supervisor/control.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "store/config.h"
#include "supervisor/bind.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control_internal.h"
#include "supervisor/explain.h"
#include "supervisor/fdstore.h"
#include "supervisor/inquire.h"
#include "supervisor/replace.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 32
#define OPEN_MAX 16             /* requests of one client that wait for an answer */
#define GREETING_LIMIT_MS 5000
#define IDLE_LIMIT_MS 600000
#define SWEEP_S 5
#define STORED "admin"          /* its name in systemd's store */
#define REPLY_INLINE (48u * 1024)

/* --- requests ------------------------------------------------------------------------------------------------------- */

void control_ask_free(struct ask *a)
{
	LIST_REMOVE(a, link);
	a->client->open--;
	change_forget(a->control->supervisor->change, a);
	explain_forget(a->control->supervisor->explain, a);
	inquire_forget(a->control->supervisor->inquiries, a);
	replace_forget(a->control->supervisor->replace, a);
	if (a->limit)
		event_free(a->limit);
	lines_clear(&a->errors);
	free(a->pieces);
	free(a->words[0]);
	free(a->words[1]);
	free(a);
}

struct ask *control_ask(struct client *c, uint64_t id, const struct verb *verb)
{
	struct ask *a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	*a = (struct ask){.control = c->control, .client = c, .id = id, .verb = verb, .own = ++c->control->last_own};
	LIST_INSERT_HEAD(&c->control->asks, a, link);
	c->open++;
	return a;
}

static void client_free(struct client *c)
{
	struct ask *a, *next;
	for (a = LIST_FIRST(&c->control->asks); a; a = next) {
		next = LIST_NEXT(a, link);
		if (a->client == c)
			control_ask_free(a);
	}
	LIST_REMOVE(c, link);
	c->control->n_clients--;
	if (c->channel)
		ipc_channel_free(c->channel);
	free(c);
}

static void send_reply(struct client *c, uint64_t id, unsigned status, const char *json, const char *error)
{
	struct ipc_admin_reply m = {.id = id, .status = status, .json = json, .error = error};
	size_t length = json ? strlen(json) : 0;
	int fd = -1;
	if (length > REPLY_INLINE) {
		fd = memfd_sealed("hermes-reply", json, length);
		m.json = "";
		if (fd < 0)
			m = (struct ipc_admin_reply){.id = id, .status = 1, .error = "the answer is too large to be passed on"};
	}
	int result = ipc_send(c->channel, IPC_MSG_ADMIN_REPLY, &m, fd);
	if (fd >= 0)
		close(fd);
	if (!result)
		return;
	log_warn("admin client dropped", "user=%s reason=%s", log_value(c->name), log_value(strerror(-result)));
	c->level = LEVEL_NONE;
	c->last = 0;                 /* the sweep takes it: its requests may be in our callers' hands */
}

void ask_answer(struct ask *a, unsigned status, const char *json, const char *error)
{
	send_reply(a->client, a->id, status, json, error);
	control_ask_free(a);
}

void ask_answer_json(struct ask *a, unsigned status, struct json *json)
{
	if (json->failed)
		ask_answer(a, 1, NULL, "out of memory");
	else
		ask_answer(a, status, json->data, NULL);
	json_free(json);
}

int ask_limit(struct ask *a, unsigned ms, void (*on_limit)(int fd, short what, void *ask))
{
	struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
	a->limit = evtimer_new(a->control->supervisor->base, on_limit, a);
	return a->limit ? event_add(a->limit, &limit) : -1;
}

/* --- clients -------------------------------------------------------------------------------------------------------- */

static void refuse(struct client *c, uint64_t id, unsigned status, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static void refuse(struct client *c, uint64_t id, unsigned status, const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	send_reply(c, id, status, NULL, text);
}

static void run(struct client *c, const struct verb *verb, const struct ipc_admin_request *m, int *fd)
{
	struct ask *a = control_ask(c, m->id, verb);
	if (!a) {
		refuse(c, m->id, 1, "out of memory");
		return;
	}
	if (verb->route == ROUTE_SELF)
		verb->handler(a, &m->args, fd);
	else
		ask_workers(a, &m->args);
}

static void on_request(struct client *c, const struct ipc_admin_request *m, int *fd)
{
	const struct verb *verb = m->verb ? verb_find(m->verb) : NULL;
	c->last = clock_ms();
	if (!verb)
		refuse(c, m->id, 2, "%.100s: unknown verb; `hermes-admin --help` shows what there is", m->verb ? m->verb : "");
	else if (c->open >= OPEN_MAX)
		refuse(c, m->id, 1, "too many requests at once: wait for answers first");
	else if (c->level < verb_level(verb, &m->args))
		refuse(c, m->id, 1, "%s needs the level %s, and %s has %s: an administrator can grant it under `admin:`",
		       verb->name, level_name(verb_level(verb, &m->args)), c->name, level_name(c->level));
	else {
		if (verb->level > LEVEL_READ && verb->route != ROUTE_ANY)   /* probes change nothing, and are many */
			log_info("admin request", "verb=%s user=%s", log_value(verb->name), log_value(c->name));
		run(c, verb, m, fd);
	}
}

static void on_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	(void)channel;
	if (type == IPC_MSG_ADMIN_REQUEST)
		on_request(arg, &m->admin_request, fd);
}

static void on_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct client *c = arg;
	(void)channel;
	if (strcmp(reason, "closed"))
		log_warn("admin client lied", "user=%s fault=%s", log_value(c->name), log_value(reason));
	client_free(c);
}

static enum level find_level(struct control *control, int fd, const struct ucred *peer)
{
	const struct privileges *p = &control->supervisor->privileges;
	if (peer->uid == 0 || peer->uid == geteuid())
		return LEVEL_ADMINISTER;
	if (p->root && peer->uid == p->uid)
		return LEVEL_NONE;       /* a worker that was taken over must not steer us */
	enum level level = access_level(control->access, fd, peer->uid, peer->gid);
	return level;
}

/* adopted: it said its hello to another image of ours. */
static struct client *add_client(struct control *control, int fd, bool adopted)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct client *c = control->n_clients < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (!c || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		log_warn("admin client refused", "reason=\"too many clients\" open=%u", control->n_clients);
		free(c);
		close(fd);
		return NULL;
	}
	const struct ipc_adopted before = {.role = IPC_ADMIN, .pid = (unsigned)peer.pid};
	*c = (struct client){.control = control, .uid = peer.uid, .last = clock_ms()};
	access_name(peer.uid, c->name, sizeof(c->name));
	c->level = find_level(control, fd, &peer);
	LIST_INSERT_HEAD(&control->clients, c, link);
	control->n_clients++;
	struct event_base *base = control->supervisor->base;
	c->channel = adopted ? ipc_channel_adopt(base, fd, IPC_SUPERVISOR, &before, on_message, on_ended, c)
	                     : ipc_channel_new(base, fd, IPC_SUPERVISOR, 0, IPC_ADMIN, on_message, on_ended, c);
	if (c->channel)
		return c;
	client_free(c);
	return NULL;
}

static void on_accept(evutil_socket_t listening, short what, void *arg)
{
	(void)what;
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		add_client(arg, fd, false);
}

/* Those that never said hello, and those that nobody uses any more. */
static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
	struct control *control = arg;
	struct client *c, *next;
	uint64_t now = clock_ms();
	(void)fd;
	(void)what;
	for (c = LIST_FIRST(&control->clients); c; c = next) {
		next = LIST_NEXT(c, link);
		bool silent = !ipc_peer_pid(c->channel) && now - c->last > GREETING_LIMIT_MS;
		if (!c->last || silent || (!c->open && now - c->last > IDLE_LIMIT_MS))
			client_free(c);
	}
}

void control_committed(struct control *control)
{
	access_free(control->access);
	control->access = access_new(control->supervisor->in_force.config);
	control_progress(control);
}

void control_progress(struct control *control)
{
	struct ask *a, *next;
	if (!supervisor_ready(control->supervisor))
		return;
	for (a = LIST_FIRST(&control->asks); a; a = next) {
		next = LIST_NEXT(a, link);
		if (a->waits_ready)
			ask_answer(a, 0, "{\"ready\":true}", NULL);
	}
}

/* --- the socket ----------------------------------------------------------------------------------------------------- */

/* Another hermesd with the same runtime folder would be left without its socket. */
static bool somebody_answers(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool answers = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN);
	if (fd >= 0)
		close(fd);
	return answers;
}

static int open_socket(struct control *control)
{
	const struct privileges *p = &control->supervisor->privileges;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", control->path);
	if (somebody_answers(&address)) {
		errno = EADDRINUSE;
		return -1;
	}
	unlink(control->path);
	control->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0 || bind(control->fd, (struct sockaddr *)&address, sizeof(address)))
		return -1;
	if (p->root && p->has_group && chown(control->path, (uid_t)-1, p->group))
		return -1;
	return chmod(control->path, 0660) || listen(control->fd, 16) ? -1 : 0;
}

int control_stored(const struct supervisor *s)
{
	struct config_address address = {.unix_path = NULL};
	struct bind_address where;
	char path[sizeof(((struct control *)0)->path)], error[128];
	int fd = fdstore_take(s->fdstore, STORED);
	if (fd < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/admin.sock", s->options->runtime_dir);
	address.unix_path = path;
	if (bind_resolve(&address, &where, error, sizeof(error)) == 0) {
		where.type = SOCK_SEQPACKET;
		if (bind_fits(&where, fd))
			return fd;
	}
	fdstore_remove(s->fdstore, STORED);
	close(fd);
	return -1;
}

struct control *control_new(struct supervisor *s, int inherited)
{
	struct timeval sweep = {.tv_sec = SWEEP_S};
	struct control *control = calloc(1, sizeof(*control));
	if (!control)
		return NULL;
	/* numbers that no worker was asked under by an image before us */
	*control = (struct control){.supervisor = s, .fd = inherited, .last_own = clock_ms() << 20};
	int n = snprintf(control->path, sizeof(control->path), "%s/admin.sock", s->options->runtime_dir);
	errno = ENAMETOOLONG;
	if (n >= (int)sizeof(control->path) || (inherited < 0 && open_socket(control))) {
		fprintf(stderr, "hermesd: admin socket %s/admin.sock: %s%s\n", s->options->runtime_dir, strerror(errno),
		        errno == EADDRINUSE ? "; another hermesd runs there (--runtime-dir names another folder)" : "");
		if (errno == EADDRINUSE)
			*control->path = '\0';
		control_free(control);
		return NULL;
	}
	fdstore_put(s->fdstore, STORED, control->fd);
	control->accept = event_new(s->base, control->fd, EV_READ | EV_PERSIST, on_accept, control);
	control->sweep = event_new(s->base, -1, EV_PERSIST, on_sweep, control);
	if (!control->accept || !control->sweep || event_add(control->accept, NULL) || event_add(control->sweep, &sweep)) {
		control_free(control);
		return NULL;
	}
	return control;
}

/* --- from one image to the next -------------------------------------------------------------------------------------- */

bool control_idle(const struct control *control)
{
	const struct ask *a;
	const struct client *c;
	LIST_FOREACH(a, &control->asks, link)
		if (!a->restarts)
			return false;
	LIST_FOREACH(c, &control->clients, link)
		if (!ipc_peer_pid(c->channel) || ipc_backlog(c->channel))
			return false;
	return true;
}

int control_save(const struct control *control, struct state *state)
{
	const struct client *c;
	const struct ask *a;
	state->admin = control->fd;
	LIST_FOREACH(c, &control->clients, link) {
		struct state_client *x = STATE_ADD(state, clients);
		if (!x)
			return -ENOMEM;
		*x = (struct state_client){.fd = ipc_channel_fd(c->channel), .uid = c->uid};
		LIST_FOREACH(a, &control->asks, link)
			if (a->client == c && a->restarts)
				x->asked = a->id;
	}
	return 0;
}

int control_adopt(struct control *control, const struct state *state)
{
	access_free(control->access);
	control->access = access_new(control->supervisor->in_force.config);
	for (size_t i = 0; i < state->n_clients; i++) {
		const struct state_client *x = &state->clients[i];
		struct client *c = add_client(control, x->fd, true);
		struct ask *a = c && x->asked ? control_ask(c, x->asked, verb_find("restart")) : NULL;
		if (a)
			a->restarts = true;
	}
	return 0;
}

void control_free(struct control *control)
{
	if (!control)
		return;
	for (struct client *c; (c = LIST_FIRST(&control->clients));)
		client_free(c);
	if (control->accept)
		event_free(control->accept);
	if (control->sweep)
		event_free(control->sweep);
	if (control->fd >= 0) {
		close(control->fd);
		if (!fdstore_kept(control->supervisor->fdstore))
			unlink(control->path);
	}
	access_free(control->access);
	free(control);
}
