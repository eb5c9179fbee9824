#include "supervisor/state.h"
#include "ipc/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DOCUMENT_MAX (16u << 20)
#define FD_MAX (1 << 20)
#define LIST_MAX 65536

/* The first fault, for whoever reads the log. */
struct reader {
	char *error;
	size_t size;
	bool bad;
};

static void fail(struct reader *r, const char *where, const char *what)
{
	if (!r->bad)
		snprintf(r->error, r->size, "the state's %s: %s", where, what);
	r->bad = true;
}

/* --- values ---------------------------------------------------------------------------------------------------------- */

static const char *text(struct reader *r, const json_t *o, const char *key, bool needed)
{
	const json_t *v = json_object_get(o, key);
	if (json_is_string(v))
		return json_string_value(v);
	if (needed || (v && !json_is_null(v)))
		fail(r, key, "no text");
	return NULL;
}

static int64_t number(struct reader *r, const json_t *o, const char *key, int64_t min, int64_t max, int64_t otherwise)
{
	const json_t *v = json_object_get(o, key);
	if (!v)
		return otherwise;
	if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max)
		return json_integer_value(v);
	fail(r, key, "no number in its range");
	return otherwise;
}

static uint64_t count(struct reader *r, const json_t *o, const char *key)
{
	return (uint64_t)number(r, o, key, 0, INT64_MAX, 0);
}

static unsigned small(struct reader *r, const json_t *o, const char *key)
{
	return (unsigned)number(r, o, key, 0, INT32_MAX, 0);
}

static int descriptor(struct reader *r, const json_t *o, const char *key)
{
	return (int)number(r, o, key, -1, FD_MAX, -1);
}

static bool boolean(struct reader *r, const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);
	if (v && !json_is_boolean(v))
		fail(r, key, "neither true nor false");
	return json_is_true(v);
}

static unsigned role(struct reader *r, const json_t *o)
{
	unsigned v = (unsigned)number(r, o, "role", 0, IPC_ROLE_COUNT - 1, 0);
	if (!(IPC_BIT(v) & IPC_WORKERS))
		fail(r, "role", "no worker's");
	return v;
}

static void strs(struct reader *r, const json_t *o, const char *key, struct ipc_strs *out)
{
	const json_t *list = json_object_get(o, key);
	size_t n = json_array_size(list);
	out->v = calloc(n + 1, sizeof(*out->v));
	if (!out->v || n > LIST_MAX)
		fail(r, key, "too long");
	for (size_t i = 0; !r->bad && i < n; i++) {
		const char *v = json_string_value(json_array_get(list, i));
		if (v)
			out->v[out->n++] = v;
		else
			fail(r, key, "no text in it");
	}
}

/* Returns how many; those beyond max are a fault. */
static size_t descriptors(struct reader *r, const json_t *o, const char *key, int *fds, size_t max)
{
	const json_t *list = json_object_get(o, key);
	size_t n = json_array_size(list);
	for (size_t i = 0; i < n && i < max; i++) {
		const json_t *v = json_array_get(list, i);
		if (!json_is_integer(v) || json_integer_value(v) < -1 || json_integer_value(v) > FD_MAX)
			fail(r, key, "no descriptors");
		fds[i] = (int)json_integer_value(v);
	}
	if (n > max)
		fail(r, key, "too many descriptors");
	return n < max ? n : max;
}

/* --- lists ---------------------------------------------------------------------------------------------------------- */

static void read_slot(struct reader *r, const json_t *o, struct state_slot *x)
{
	*x = (struct state_slot){
		.role = role(r, o), .index = (unsigned)number(r, o, "index", 0, 63, 0), .failures = small(r, o, "failures"),
		.restarts = small(r, o, "restarts"), .incarnations = small(r, o, "incarnations"), .gone = boolean(r, o, "gone"),
		.last_end = text(r, o, "last_end", false),
	};
}

static void read_child(struct reader *r, const json_t *o, struct state_child *x)
{
	*x = (struct state_child){
		.role = role(r, o), .index = (unsigned)number(r, o, "index", 0, 63, 0),
		.seat = (unsigned)number(r, o, "seat", 0, 1023, 0), .pid = number(r, o, "pid", 2, INT32_MAX, 0),
		.peer_pid = number(r, o, "peer_pid", 0, INT32_MAX, 0), .channel = descriptor(r, o, "channel"),
		.state = text(r, o, "state", true), .version = text(r, o, "version", true), .current = boolean(r, o, "current"),
		.generation = count(r, o, "generation"), .prepared = count(r, o, "prepared"), .started = count(r, o, "started"),
		.deadline = count(r, o, "deadline"), .stop_at = count(r, o, "stop_at"), .ping = count(r, o, "ping"),
	};
	if (!x->pid)
		fail(r, "children", "one without a process");
}

static unsigned nibble(struct reader *r, char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	fail(r, "address", "no hexadecimal digits");
	return 0;
}

static void read_address(struct reader *r, const json_t *o, struct bind_address *a)
{
	const char *hex = text(r, o, "address", true);
	size_t n = hex ? strlen(hex) / 2 : 0;
	unsigned char *to = (unsigned char *)&a->address;
	if (n < sizeof(sa_family_t) || n > sizeof(a->address) || strlen(hex) % 2)
		return fail(r, "address", "of no length that an address has");
	for (size_t i = 0; i < n; i++)
		to[i] = (unsigned char)(nibble(r, hex[2 * i]) << 4 | nibble(r, hex[2 * i + 1]));
	a->length = (socklen_t)n;
	int family = a->address.ss_family;
	size_t whole = family == AF_INET ? sizeof(struct sockaddr_in) : family == AF_INET6 ? sizeof(struct sockaddr_in6)
	                                                                                   : sizeof(struct sockaddr_un);
	if ((family != AF_INET && family != AF_INET6 && family != AF_UNIX) || n != whole || (family == AF_UNIX && to[n - 1]))
		fail(r, "address", "of no family that listeners have");
}

static void read_place(struct reader *r, const json_t *o, struct state_place *x)
{
	struct bind_address *a = &x->address;
	size_t n = json_array_size(json_object_get(o, "fds"));
	read_address(r, o, a);
	a->any = boolean(r, o, "any");
	a->datagrams = boolean(r, o, "datagrams");
	a->transparent = boolean(r, o, "transparent");
	a->made = boolean(r, o, "made");
	a->mode = (mode_t)number(r, o, "mode", 0, 0777, 0);
	a->uid = (uid_t)number(r, o, "uid", 0, UINT32_MAX, UINT32_MAX);
	a->gid = (gid_t)number(r, o, "gid", 0, UINT32_MAX, UINT32_MAX);
	x->fds = n && n <= LIST_MAX ? calloc(n, sizeof(*x->fds)) : NULL;
	if (!x->fds)
		return fail(r, "places", "one without sockets");
	x->n_fds = descriptors(r, o, "fds", x->fds, n);
	for (size_t i = 0; i < x->n_fds; i++)
		if (x->fds[i] < 0)
			fail(r, "places", "one without a socket");
}

static void read_device(struct reader *r, const json_t *o, struct state_device *x)
{
	*x = (struct state_device){
		.name = text(r, o, "name", true), .mtu = small(r, o, "mtu"),
		.offload = (unsigned)number(r, o, "offload", 0, UINT32_MAX, 0),
		.owner = (unsigned)number(r, o, "owner", 0, UINT32_MAX, 0), .given = boolean(r, o, "given"),
	};
	for (size_t i = 0; i < STATE_QUEUES; i++)
		x->fds[i] = -1;
	descriptors(r, o, "fds", x->fds, STATE_QUEUES);
	strs(r, o, "addresses", &x->addresses);
	strs(r, o, "routes", &x->routes);
	if (!x->name || !*x->name || strlen(x->name) > 15)
		fail(r, "devices", "one without a name");
}

static void read_file(struct reader *r, const json_t *o, struct state_file *x)
{
	*x = (struct state_file){
		.kind = text(r, o, "kind", true), .path = text(r, o, "path", true), .error = text(r, o, "error", false),
		.roles = (unsigned)number(r, o, "roles", 0, UINT32_MAX, 0), .system = boolean(r, o, "system"),
		.fd = descriptor(r, o, "fd"), .inode = (uint64_t)number(r, o, "inode", INT64_MIN, INT64_MAX, 0),
		.size = number(r, o, "size", 0, INT64_MAX, 0), .seconds = number(r, o, "seconds", INT64_MIN, INT64_MAX, 0),
		.nanoseconds = number(r, o, "nanoseconds", 0, 999999999, 0),
	};
}

static void read_client(struct reader *r, const json_t *o, struct state_client *x)
{
	*x = (struct state_client){
		.fd = descriptor(r, o, "fd"), .uid = (uint32_t)number(r, o, "uid", 0, UINT32_MAX, UINT32_MAX), .asked = count(r, o, "asked"),
	};
	if (x->fd < 0)
		fail(r, "clients", "one without a connection");
}

static void read_drain(struct reader *r, const json_t *o, struct state_drain *x)
{
	*x = (struct state_drain){.cluster = text(r, o, "cluster", true), .endpoint = text(r, o, "endpoint", true)};
}

#define L(type, list)                                                                                                 \
	static void read_##list(struct reader *r, const json_t *root, struct state *s)                                \
	{                                                                                                             \
		const json_t *all = json_object_get(root, #list);                                                     \
		for (size_t i = 0; !r->bad && i < json_array_size(all); i++) {                                        \
			struct state_##type *x = i < LIST_MAX ? STATE_ADD(s, list) : NULL;                            \
			const json_t *o = json_array_get(all, i);                                                     \
			if (x && json_is_object(o))                                                                   \
				read_##type(r, o, x);                                                                 \
			else                                                                                          \
				fail(r, #list, "too many, or no objects");                                            \
		}                                                                                                     \
	}
STATE_LISTS(L)
#undef L

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static void read_kept(struct reader *r, const json_t *root, struct state *s)
{
	const json_t *kept = json_object_get(root, "kept");
	for (unsigned i = 0; i < IPC_ROLE_COUNT; i++)
		s->kept[i] = descriptor(r, kept, ipc_role_name(i));
}

static void read_root(struct reader *r, const json_t *root, struct state *s)
{
	const char *kind = json_string_value(json_object_get(root, "hermes"));
	const char *level = text(r, root, "log_level", false);
	if (!kind || strcmp(kind, "supervisor") || number(r, root, "format", 1, STATE_FORMAT, 0) != STATE_FORMAT)
		fail(r, "format", "another than this release reads");
	s->version = text(r, root, "version", true);
	s->program = text(r, root, "program", true);
	s->libexec = text(r, root, "libexec", true);
	s->log_level = level ? level : "info";
	s->stale = text(r, root, "stale", false);
	s->digest = text(r, root, "digest", true);
	s->executable = descriptor(r, root, "executable");
	s->admin = descriptor(r, root, "admin");
	s->net_slot_fd = descriptor(r, root, "net_slot_fd");
	s->net_slot = small(r, root, "net_slot");
	s->started_ms = count(r, root, "started_ms");
	s->number = count(r, root, "number");
	s->since = number(r, root, "since", INT64_MIN, INT64_MAX, 0);
	s->config = descriptor(r, root, "config");
	read_kept(r, root, s);
#define L(type, list) read_##list(r, root, s);
	STATE_LISTS(L)
#undef L
	if (!s->number || s->config < 0 || s->admin < 0)
		fail(r, "configuration", "nothing is in force");
}

int state_parse(const char *data, size_t length, struct state *s, char *error, size_t size)
{
	struct reader r = {.error = error, .size = size};
	json_error_t why;
	state_init(s);
	json_t *root = json_loadb(data, length, JSON_REJECT_DUPLICATES, &why);
	if (!root) {
		snprintf(error, size, "the state is no JSON: %s", why.text);
		return -1;
	}
	s->root = root;
	read_root(&r, root, s);
	if (!r.bad)
		return 0;
	state_clear(s);
	return -1;
}

int state_read(int fd, struct state *s, char *error, size_t size)
{
	const void *data = NULL;
	size_t length = 0;
	state_init(s);
	int result = memfd_map(fd, DOCUMENT_MAX, &data, &length);
	if (result) {
		snprintf(error, size, "the state cannot be read: %s", strerror(-result));
		return -1;
	}
	result = state_parse(data, length, s, error, size);
	memfd_unmap(data, length);
	return result;
}

/* --- descriptors ---------------------------------------------------------------------------------------------------- */

static void count_missing(int fd, void *arg)
{
	if (fd >= 0 && fcntl(fd, F_GETFD) < 0)
		++*(unsigned *)arg;
}

static bool is_socket(int fd, int wanted)
{
	int type = 0;
	socklen_t size = sizeof(type);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == wanted;
}

int state_check_fds(const struct state *s, char *error, size_t size)
{
	unsigned missing = 0;
	state_each_fd(s, count_missing, &missing);
	for (size_t i = 0; i < s->n_children; i++)
		missing += s->children[i].channel >= 0 && !is_socket(s->children[i].channel, SOCK_SEQPACKET);
	for (size_t i = 0; i < s->n_places; i++)
		for (size_t k = 0; k < s->places[i].n_fds; k++)
			missing += !is_socket(s->places[i].fds[k], s->places[i].address.datagrams ? SOCK_DGRAM : SOCK_STREAM);
	missing += !is_socket(s->admin, SOCK_SEQPACKET);
	if (!missing)
		return 0;
	snprintf(error, size, "%u descriptors that the state names are not there, or of another kind", missing);
	return -1;
}
