/* Writing, and what both ways share. Reading: state_read.c. */
#include "supervisor/state.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

void state_init(struct state *s)
{
	*s = (struct state){
		.executable = -1, .admin = -1, .net_slot_fd = -1, .config = -1, .version = "", .program = "",
		.libexec = "", .log_level = "info", .digest = "",
	};
	for (unsigned i = 0; i < IPC_ROLE_COUNT; i++)
		s->kept[i] = -1;
}

void state_clear(struct state *s)
{
	for (size_t i = 0; i < s->n_places; i++)
		free(s->places[i].fds);
	for (size_t i = 0; s->root && i < s->n_devices; i++) {
		free(s->devices[i].addresses.v);
		free(s->devices[i].routes.v);
	}
#define L(type, list) free(s->list);
	STATE_LISTS(L)
#undef L
	json_decref(s->root);
	state_init(s);
}

void *state_add(void *list, size_t *n, size_t size)
{
	void **v = list;
	char *grown = realloc(*v, (*n + 1) * size);
	if (!grown)
		return NULL;
	*v = grown;
	return memset(grown + (*n)++ * size, 0, size);
}

void state_each_fd(const struct state *s, void (*visit)(int fd, void *arg), void *arg)
{
	const int single[] = {s->executable, s->admin, s->net_slot_fd, s->config};
	for (size_t i = 0; i < sizeof(single) / sizeof(*single); i++)
		visit(single[i], arg);
	for (unsigned i = 0; i < IPC_ROLE_COUNT; i++)
		visit(s->kept[i], arg);
	for (size_t i = 0; i < s->n_children; i++)
		visit(s->children[i].channel, arg);
	for (size_t i = 0; i < s->n_places; i++)
		for (size_t k = 0; k < s->places[i].n_fds; k++)
			visit(s->places[i].fds[k], arg);
	for (size_t i = 0; i < s->n_devices; i++)
		for (size_t k = 0; k < STATE_QUEUES; k++)
			visit(s->devices[i].fds[k], arg);
	for (size_t i = 0; i < s->n_files; i++)
		visit(s->files[i].fd, arg);
	for (size_t i = 0; i < s->n_clients; i++)
		visit(s->clients[i].fd, arg);
}

/* --- lists ---------------------------------------------------------------------------------------------------------- */

/* Reasons may quote anything. */
static json_t *write_reason(const char *text)
{
	json_t *v = text ? json_string(text) : NULL;
	return v ? v : json_null();
}

static json_t *write_slot(const struct state_slot *x)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:i, s:b, s:o}", "role", x->role, "index", x->index, "failures", x->failures,
	                 "restarts", x->restarts, "incarnations", x->incarnations, "gone", x->gone, "last_end", write_reason(x->last_end));
}

static json_t *write_child(const struct state_child *x)
{
	return json_pack("{s:i, s:i, s:i, s:I, s:I, s:i, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "role", x->role, "index",
	                 x->index, "seat", x->seat, "pid", (json_int_t)x->pid, "peer_pid", (json_int_t)x->peer_pid, "channel",
	                 x->channel, "state", x->state, "version", x->version, "current", x->current, "generation",
	                 (json_int_t)x->generation, "prepared", (json_int_t)x->prepared, "started", (json_int_t)x->started,
	                 "deadline", (json_int_t)x->deadline, "stop_at", (json_int_t)x->stop_at, "ping", (json_int_t)x->ping);
}

static json_t *write_fds(const int *fds, size_t n)
{
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_integer(fds[i]));
	return list;
}

static json_t *write_hex(const void *data, size_t length)
{
	static const char digits[] = "0123456789abcdef";
	char text[2 * sizeof(struct sockaddr_storage) + 1];
	for (size_t i = 0; i < length; i++) {
		text[2 * i] = digits[((const unsigned char *)data)[i] >> 4];
		text[2 * i + 1] = digits[((const unsigned char *)data)[i] & 15];
	}
	text[2 * length] = '\0';
	return json_string(text);
}

static json_t *write_place(const struct state_place *x)
{
	const struct bind_address *a = &x->address;
	return json_pack("{s:o, s:b, s:b, s:b, s:b, s:i, s:I, s:I, s:o}", "address", write_hex(&a->address, a->length), "any", a->any,
	                 "datagrams", a->datagrams, "transparent", a->transparent, "made", a->made, "mode", (int)a->mode, "uid",
	                 (json_int_t)a->uid, "gid", (json_int_t)a->gid, "fds", write_fds(x->fds, x->n_fds));
}

static json_t *write_strs(const struct ipc_strs *strs)
{
	json_t *list = json_array();
	for (size_t i = 0; i < strs->n; i++)
		json_array_append_new(list, json_string(strs->v[i]));
	return list;
}

static json_t *write_device(const struct state_device *x)
{
	return json_pack("{s:s, s:i, s:I, s:i, s:o, s:b, s:o, s:o}", "name", x->name, "mtu", x->mtu, "offload", (json_int_t)x->offload,
	                 "owner", x->owner, "fds", write_fds(x->fds, STATE_QUEUES), "given", x->given, "addresses",
	                 write_strs(&x->addresses), "routes", write_strs(&x->routes));
}

static json_t *write_file(const struct state_file *x)
{
	return json_pack("{s:s, s:s, s:o, s:I, s:b, s:i, s:I, s:I, s:I, s:I}", "kind", x->kind, "path", x->path, "error", write_reason(x->error),
	                 "roles", (json_int_t)x->roles, "system", x->system, "fd", x->fd, "inode", (json_int_t)x->inode, "size",
	                 (json_int_t)x->size, "seconds", (json_int_t)x->seconds, "nanoseconds", (json_int_t)x->nanoseconds);
}

static json_t *write_client(const struct state_client *x)
{
	return json_pack("{s:i, s:I, s:I}", "fd", x->fd, "uid", (json_int_t)x->uid, "asked", (json_int_t)x->asked);
}

static json_t *write_drain(const struct state_drain *x)
{
	return json_pack("{s:s, s:s}", "cluster", x->cluster, "endpoint", x->endpoint);
}

#define L(type, list)                                                                                                 \
	static json_t *write_##list(const struct state *s)                                                            \
	{                                                                                                             \
		json_t *all = json_array();                                                                           \
		for (size_t i = 0; i < s->n_##list; i++)                                                              \
			if (json_array_append_new(all, write_##type(&s->list[i]))) {                                  \
				json_decref(all);                                                                     \
				return NULL;                                                                          \
			}                                                                                             \
		return all;                                                                                           \
	}
STATE_LISTS(L)
#undef L

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static json_t *write_kept(const struct state *s)
{
	json_t *kept = json_object();
	for (unsigned i = 0; i < IPC_ROLE_COUNT; i++)
		if (s->kept[i] >= 0)
			json_object_set_new(kept, ipc_role_name(i), json_integer(s->kept[i]));
	return kept;
}

int state_write(const struct state *s)
{
	json_t *root = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:o, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:s, s:i, s:o}",
	                         "hermes", "supervisor", "format", STATE_FORMAT, "version", s->version, "program", s->program,
	                         "libexec", s->libexec, "log_level", s->log_level, "stale", write_reason(s->stale), "executable", s->executable,
	                         "admin", s->admin, "net_slot", (int)s->net_slot, "net_slot_fd",
	                         s->net_slot_fd, "started_ms", (json_int_t)s->started_ms, "number", (json_int_t)s->number, "since",
	                         (json_int_t)s->since, "digest", s->digest, "config", s->config, "kept", write_kept(s));
	bool failed = !root;
#define L(type, list) failed = failed || json_object_set_new(root, #list, write_##list(s));
	STATE_LISTS(L)
#undef L
	char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
	int fd = text ? memfd_sealed("hermes-state", text, strlen(text)) : -ENOMEM;
	free(text);
	json_decref(root);
	return fd;
}
