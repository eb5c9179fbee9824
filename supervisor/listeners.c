#include "supervisor/listeners.h"
#include "ipc/json.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/bind.h"
#include "supervisor/fdstore.h"
#include "supervisor/pool.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096              /* connections that nobody took yet, per socket */

/* The sockets of one address. */
struct place {
	struct bind_address address;
	char bound[128];              /* as the kernel says it */
	int fds[POOL_TUNNELS_MAX];
	unsigned count;
	unsigned fresh;               /* of them, how many the change being prepared opened */
	char stored[128];             /* under that listener's name, systemd has a copy of ... */
	unsigned n_stored;            /* ... so many of them */
	TAILQ_ENTRY(place) link;
};
TAILQ_HEAD(places, place);

/* What a configuration makes of a place. */
struct binding {
	const char *name, *accept, *text;
	enum ipc_role role;
	struct place *place;
};
struct bindings {
	struct binding *v;
	size_t n;
	unsigned tunnels;
};

struct listeners {
	const struct supervisor *supervisor;
	struct places places;
	struct bindings current, next;
};

struct listeners *listeners_new(const struct supervisor *s)
{
	struct listeners *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->supervisor = s;
	TAILQ_INIT(&l->places);
	return l;
}

static const char *kind(const struct place *p)
{
	return p->address.address.ss_family == AF_UNIX ? "unix" :
	       p->address.transparent ? p->address.datagrams ? "transparent-udp" : "transparent-tcp" :
	       p->address.datagrams ? "udp" : "tcp";
}

static void forget_stored(const struct listeners *l, struct place *p, unsigned count)
{
	char name[256];
	for (; p->n_stored > count; p->n_stored--) {
		fdstore_name(name, sizeof(name), kind(p), p->stored, p->n_stored - 1);
		fdstore_remove(l->supervisor->fdstore, name);
	}
}

static void store(const struct listeners *l, struct place *p, const char *listener)
{
	char name[256];
	if (strncmp(p->stored, listener, sizeof(p->stored) - 1))
		forget_stored(l, p, 0);
	snprintf(p->stored, sizeof(p->stored), "%s", listener);
	for (; p->n_stored < p->count; p->n_stored++) {
		fdstore_name(name, sizeof(name), kind(p), p->stored, p->n_stored);
		fdstore_put(l->supervisor->fdstore, name, p->fds[p->n_stored]);
	}
}

static void place_shrink(const struct listeners *l, struct place *p, unsigned count)
{
	forget_stored(l, p, count);
	while (p->count > count)
		close(p->fds[--p->count]);
}

static void place_free(struct listeners *l, struct place *p)
{
	TAILQ_REMOVE(&l->places, p, link);
	place_shrink(l, p, 0);
	bind_forget(&p->address);
	free(p);
}

void listeners_free(struct listeners *l)
{
	if (!l)
		return;
	for (struct place *p; (p = TAILQ_FIRST(&l->places));) {
		/* what systemd keeps for the next start keeps its name */
		if (fdstore_kept(l->supervisor->fdstore)) {
			p->n_stored = 0;
			p->address.made = false;
		}
		place_free(l, p);
	}
	free(l->current.v);
	free(l->next.v);
	free(l);
}

/* --- preparing ------------------------------------------------------------------------------------------------------ */

static bool used(const struct bindings *b, const struct place *p)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->v[i].place == p)
			return true;
	return false;
}

static struct place *find_place(struct listeners *l, const struct bind_address *address)
{
	struct place *p;
	TAILQ_FOREACH(p, &l->places, link)
		if (bind_same(&p->address, address))
			return p;
	return NULL;
}

/* A port that we hold already under another address: the probe for strangers would find ourselves. */
static bool own_port(struct listeners *l, const struct bind_address *address)
{
	struct place *p;
	TAILQ_FOREACH(p, &l->places, link)
		if (p->count && bind_same_port(&p->address, address))
			return true;
	return false;
}

static bool fits(const void *place, int fd)
{
	return bind_fits(&((const struct place *)place)->address, fd);
}

bool listeners_want(const void *listeners, int fd)
{
	const struct place *p;
	TAILQ_FOREACH(p, &((const struct listeners *)listeners)->places, link)
		if (fits(p, fd))
			return true;
	return false;
}

/* What systemd kept from another life: by its address, since a listener may have another name today. */
static void take_stored(struct listeners *l, struct place *p, const char *listener, unsigned count)
{
	char name[256], short_name[sizeof(p->stored)];
	bool shared = p->address.address.ss_family == AF_UNIX;       /* one for all */
	snprintf(short_name, sizeof(short_name), "%s", listener);
	while (p->count < (shared ? 1 : count)) {
		fdstore_name(name, sizeof(name), kind(p), short_name, p->count);
		int fd = fdstore_take_fitting(l->supervisor->fdstore, name, fits, p);
		if (fd < 0)
			return;
		log_info("socket taken over", "listener=%s name=%s", log_value(listener), log_value(name));
		p->address.made = shared;
		p->fds[p->count++] = fd;
		p->fresh++;
	}
}

static int place_grow(struct listeners *l, struct place *p, const char *listener, unsigned count, char *error, size_t size)
{
	take_stored(l, p, listener, count);
	if (!p->count && !own_port(l, &p->address) && bind_probe(&p->address, error, size))
		return -1;
	while (p->count < count) {
		int fd = bind_open(&p->address, p->count ? p->fds[0] : -1, error, size);
		if (fd < 0)
			return -1;
		p->fds[p->count++] = fd;
		p->fresh++;
	}
	bind_describe(p->fds[0], p->bound, sizeof(p->bound));
	return 0;
}

/* What a binding's socket is for, beyond its address. */
enum { DATAGRAMS = 1, TRANSPARENT = 2 };

/* The node's own sockets lie in the runtime folder, under fixed names. The way to the controllers is for the supervisor alone, which
 * dials it for config-sync; the controller's is for the tunnel workers and for operators. */
static int own_socket(const struct listeners *l, struct binding *b, struct bind_address *where, char *why, size_t size)
{
	const struct privileges *p = &l->supervisor->privileges;
	struct sockaddr_un *un = (struct sockaddr_un *)&where->address;
	char name[sizeof(un->sun_path)];
	bool controller = b->role == IPC_CONTROLLER;
	if (where->address.ss_family != AF_UNIX || *un->sun_path == '/' || (!controller && strcmp(b->name, CONFIG_CONTROL)))
		return 0;
	snprintf(name, sizeof(name), "%s", un->sun_path);
	if (snprintf(un->sun_path, sizeof(un->sun_path), "%s/%s", l->supervisor->options->runtime_dir, name) >= (int)sizeof(un->sun_path)) {
		snprintf(why, size, "the runtime folder's path is too long");
		return -1;
	}
	where->mode = controller ? 0660 : 0600;
	if (p->root) {
		where->uid = p->uid;
		where->gid = controller && p->has_group ? p->group : p->gid;
	}
	return 0;
}

static int add_binding(struct listeners *l, struct binding binding, const struct config_address *address, unsigned what,
                       unsigned count, char *error, size_t size)
{
	struct bind_address where;
	char why[256];
	binding.text = address->text;
	if (bind_resolve(address, &where, why, sizeof(why)) || own_socket(l, &binding, &where, why, sizeof(why)))
		goto refused;
	where.datagrams = what & DATAGRAMS;
	where.transparent = what & TRANSPARENT;
	if (what && where.address.ss_family == AF_UNIX) {
		snprintf(why, sizeof(why), "accept: %s needs an IP address and a port", binding.accept);
		goto refused;
	}
	binding.place = find_place(l, &where);
	if (binding.place && used(&l->next, binding.place)) {
		snprintf(why, sizeof(why), "another listener has the same address");
		goto refused;
	}
	if (!binding.place) {
		binding.place = calloc(1, sizeof(*binding.place));
		if (!binding.place) {
			snprintf(why, sizeof(why), "out of memory");
			goto refused;
		}
		binding.place->address = where;
		TAILQ_INSERT_TAIL(&l->places, binding.place, link);
	}
	l->next.v[l->next.n++] = binding;
	if (place_grow(l, binding.place, binding.name, count, why, sizeof(why)) == 0)
		return 0;
refused:
	snprintf(error, size, "listener %s: cannot listen on %s: %s", binding.name, address->text ? address->text : "?", why);
	return -1;
}

static const char *const accept_names[] = {
	[CONFIG_HTTP] = "http", [CONFIG_TCP] = "tcp", [CONFIG_SOCKS5] = "socks5",
	[CONFIG_OVERLAY] = "overlay", [CONFIG_UDP] = "udp", [CONFIG_TRANSPARENT] = "transparent",
};

/* A transparent listener has a socket for each protocol that it captures. */
static int add_listener(struct listeners *l, const struct config_listener *c, unsigned tunnels, char *error, size_t size)
{
	struct binding b = {.name = c->name, .accept = accept_names[c->accept], .role = IPC_TUNNEL};
	if (c->accept != CONFIG_TRANSPARENT)
		return add_binding(l, b, &c->address, c->accept == CONFIG_UDP ? DATAGRAMS : 0, tunnels, error, size);
	if (c->capture.tcp && add_binding(l, b, &c->address, TRANSPARENT, tunnels, error, size))
		return -1;
	return c->capture.udp ? add_binding(l, b, &c->address, TRANSPARENT | DATAGRAMS, tunnels, error, size) : 0;
}

/* Where the controller serves its tunnel workers and operators. */
static int add_controller(struct listeners *l, const struct config *config, char *error, size_t size)
{
	static char path[] = "controller.sock", text[] = "unix:controller.sock";
	static const struct config_address address = {.text = text, .unix_path = path};
	struct binding b = {.name = "controller", .accept = "controller", .role = IPC_CONTROLLER};
	return config->controller.enabled ? add_binding(l, b, &address, 0, 1, error, size) : 0;
}

static int add_all(struct listeners *l, const struct config *config, unsigned tunnels, char *error, size_t size)
{
	for (size_t i = 0; i < config->n_listeners; i++)
		if (add_listener(l, &config->listeners[i], tunnels, error, size))
			return -1;
	if (add_controller(l, config, error, size))
		return -1;
	const struct config_address *metrics = &config->telemetry.metrics;
	if (!metrics->text || config->telemetry_off)
		return 0;
	struct binding b = {.name = "metrics", .accept = "metrics", .role = IPC_TELEMETRY};
	return add_binding(l, b, metrics, 0, 1, error, size);
}

static int begin(struct listeners *l, const struct config *config, unsigned tunnels)
{
	tunnels = tunnels < POOL_TUNNELS_MAX ? tunnels : POOL_TUNNELS_MAX;
	l->next = (struct bindings){.v = calloc(2 * config->n_listeners + 2, sizeof(*l->next.v)), .tunnels = tunnels};
	return l->next.v ? 0 : -1;
}

int listeners_prepare(struct listeners *l, const struct config *config, unsigned tunnels, char *error, size_t size)
{
	listeners_abort(l);
	if (begin(l, config, tunnels)) {
		snprintf(error, size, "out of memory");
		return -1;
	}
	if (add_all(l, config, l->next.tunnels, error, size) == 0)
		return 0;
	listeners_abort(l);
	return -1;
}

static void drop_unused(struct listeners *l)
{
	struct place *p, *next;
	for (p = TAILQ_FIRST(&l->places); p; p = next) {
		next = TAILQ_NEXT(p, link);
		p->fresh = 0;
		if (!used(&l->current, p))
			place_free(l, p);
	}
}

/* Here, not only in the workers: who is told that the change is in force may connect at once, and waits in the queue. */
static void place_listen(const struct place *p)
{
	for (unsigned i = 0; i < p->count && !p->address.datagrams; i++)
		if (listen(p->fds[i], BACKLOG) < 0)
			log_warn("cannot listen", "address=%s error=%s", p->bound, log_value(strerror(errno)));
}

void listeners_commit(struct listeners *l)
{
	free(l->current.v);
	l->current = l->next;
	l->next = (struct bindings){0};
	drop_unused(l);
	for (size_t i = 0; i < l->current.n; i++) {
		struct binding *b = &l->current.v[i];
		place_shrink(l, b->place, b->role == IPC_TUNNEL ? l->current.tunnels : 1);
		place_listen(b->place);
		store(l, b->place, b->name);
	}
}

void listeners_abort(struct listeners *l)
{
	struct place *p;
	free(l->next.v);
	l->next = (struct bindings){0};
	TAILQ_FOREACH(p, &l->places, link)
		place_shrink(l, p, p->count - p->fresh);
	drop_unused(l);
}

/* --- from one image to the next -------------------------------------------------------------------------------------- */

int listeners_save(const struct listeners *l, struct state *state)
{
	struct place *p;
	TAILQ_FOREACH(p, &l->places, link) {
		struct state_place *x = STATE_ADD(state, places);
		if (!x)
			return -ENOMEM;
		x->address = p->address;
		x->fds = calloc(p->count, sizeof(*x->fds));
		if (!x->fds)
			return -ENOMEM;
		memcpy(x->fds, p->fds, p->count * sizeof(*x->fds));
		x->n_fds = p->count;
	}
	return 0;
}

int listeners_adopt(struct listeners *l, const struct state *state, const struct config *config, char *error, size_t size)
{
	for (size_t i = 0; i < state->n_places; i++) {
		const struct state_place *x = &state->places[i];
		struct place *p = calloc(1, sizeof(*p));
		if (!p || x->n_fds > POOL_TUNNELS_MAX) {
			free(p);
			snprintf(error, size, "more sockets than there can be");
			return -1;
		}
		p->address = x->address;
		memcpy(p->fds, x->fds, x->n_fds * sizeof(*p->fds));
		p->count = (unsigned)x->n_fds;
		TAILQ_INSERT_TAIL(&l->places, p, link);
	}
	/* where it fails, nothing may be closed: another image goes on with it */
	if (begin(l, config, pool_tunnel_count(config)) || add_all(l, config, l->next.tunnels, error, size))
		return -1;
	listeners_commit(l);
	return 0;
}

/* --- handing over --------------------------------------------------------------------------------------------------- */

void listeners_send(struct listeners *l, struct child *child, uint64_t generation, bool prepared)
{
	const struct bindings *b = prepared ? &l->next : &l->current;
	for (size_t i = 0; i < b->n; i++) {
		const struct binding *x = &b->v[i];
		unsigned index = x->role == IPC_TUNNEL ? child->slot->index : 0;
		if (x->role != child->slot->role || index >= x->place->count)
			continue;
		struct ipc_listener m = {.generation = generation, .name = x->name, .address = x->place->bound};
		privileges_own_socket(&child->supervisor->privileges, x->place->fds[index]);
		child_send(child, IPC_MSG_LISTENER, &m, x->place->fds[index]);
	}
}

void listeners_json(const struct listeners *l, struct json *json, const char *key)
{
	json_array(json, key);
	for (size_t i = 0; i < l->current.n; i++) {
		const struct binding *b = &l->current.v[i];
		json_object(json, NULL);
		json_str(json, "name", b->name);
		json_str(json, "accept", b->accept);
		json_str(json, "address", b->text);
		json_str(json, "protocol", b->place->address.address.ss_family == AF_UNIX ? "unix" :
		                           b->place->address.datagrams ? "udp" : "tcp");
		json_str(json, "bound", b->place->bound);
		json_uint(json, "sockets", b->place->count);
		json_end(json);
	}
	json_end(json);
}
