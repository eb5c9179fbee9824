#include "supervisor/files.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "store/config.h"
#include "supervisor/pool.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_MAX (16u << 20)    /* bytes; hosts files can be large */
#define POLL_SECONDS 5          /* for resolv.conf and hosts */

struct entry {
	const char *kind;           /* static text */
	char *path, *full;          /* as written; as opened */
	unsigned roles;             /* who gets it */
	bool system;                /* resolv.conf, hosts: may be missing, looked at every few seconds */
	const char *below;          /* the state folder, where it lies in that; else NULL */
	char *data;                 /* the snapshot; NULL for logs and what is missing */
	size_t length;
	int fd;                     /* logs; else -1 */
	int copy;                   /* the content, for the image that takes over; -1 */
	struct stat seen;
	char error[256];
};

struct set {
	struct entry *v;
	size_t n;
};

struct files {
	struct supervisor *supervisor;
	const char *config_file;
	struct set current, next;
	struct event *poll;
};

static void poll_cb(evutil_socket_t fd, short what, void *arg);

struct files *files_new(struct supervisor *s, const char *config_file)
{
	struct timeval every = {.tv_sec = POLL_SECONDS};
	struct files *f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	*f = (struct files){.supervisor = s, .config_file = config_file};
	f->poll = event_new(s->base, -1, EV_PERSIST, poll_cb, f);
	if (f->poll)
		event_add(f->poll, &every);
	return f;
}

static void entry_drop_content(struct entry *e)
{
	if (e->data)
		explicit_bzero(e->data, e->length);
	free(e->data);
	e->data = NULL;
	e->length = 0;
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

static void set_clear(struct set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		entry_drop_content(&set->v[i]);
		free(set->v[i].path);
		free(set->v[i].full);
	}
	free(set->v);
	*set = (struct set){0};
}

void files_free(struct files *f)
{
	if (!f)
		return;
	if (f->poll)
		event_free(f->poll);
	set_clear(&f->current);
	set_clear(&f->next);
	free(f);
}

char *files_resolve(const char *config_file, const char *path)
{
	const char *slash = strrchr(config_file, '/');
	char *full = NULL;
	if (*path == '/' || !slash)
		return strdup(path);
	return asprintf(&full, "%.*s%s", (int)(slash - config_file + 1), config_file, path) < 0 ? NULL : full;
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

static bool is_log(const struct entry *e)
{
	return strcmp(e->kind, "log") == 0;
}

/* Never waits: a FIFO without a writer opens at once, and is refused. The state folder is the workers': a link that one of them has put
 * there is not followed to what they may not read. */
static int open_content(const struct entry *e)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH};
	if (!e->below)
		return open(e->full, (int)how.flags);
	int folder = open(e->below, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return -1;
	int fd = (int)syscall(SYS_openat2, folder, e->full + strlen(e->below) + 1, &how, sizeof(how)), error = errno;
	close(folder);
	errno = error;
	/* an old kernel, or a filter around us that does not know it */
	return fd < 0 && (error == ENOSYS || error == EPERM) ? open(e->full, (int)how.flags | O_NOFOLLOW) : fd;
}

static int read_content(struct entry *e)
{
	int fd = open_content(e);
	int error = fd < 0 || fstat(fd, &e->seen) ? -errno : 0;
	if (!error && !S_ISREG(e->seen.st_mode))
		error = S_ISDIR(e->seen.st_mode) ? -EISDIR : -EINVAL;
	if (!error)
		error = fd_read_all(fd, FILE_MAX, &e->data, &e->length);
	if (fd >= 0)
		close(fd);
	if (!error && strcmp(e->kind, "key") == 0 && e->seen.st_mode & 077)
		log_warn("key readable by others", "path=%s mode=%04o", log_value(e->full), e->seen.st_mode & 07777u);
	return error;
}

static int open_log(struct entry *e)
{
	e->fd = open(e->full, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
	return e->fd < 0 || fstat(e->fd, &e->seen) ? -errno : 0;
}

static int entry_load(struct entry *e)
{
	entry_drop_content(e);
	e->seen = (struct stat){0};
	int error = is_log(e) ? open_log(e) : read_content(e);
	*e->error = '\0';
	if (error)
		snprintf(e->error, sizeof(e->error), "cannot %s %s: %s", is_log(e) ? "write" : "read", e->full,
		         strerror(-error));
	return error;
}

static int add(struct files *f, struct set *set, const char *kind, const char *path, unsigned roles, bool system)
{
	if (!path)
		return 0;
	for (size_t i = 0; i < set->n; i++)
		if (strcmp(set->v[i].kind, kind) == 0 && strcmp(set->v[i].path, path) == 0) {
			set->v[i].roles |= roles;
			return 0;
		}
	struct entry *v = realloc(set->v, (set->n + 1) * sizeof(*v));
	if (!v)
		return -1;
	set->v = v;
	struct entry *e = &v[set->n];
	*e = (struct entry){.kind = kind, .roles = roles, .system = system, .fd = -1, .copy = -1};
	e->path = strdup(path);
	e->full = files_resolve(f->config_file, path);
	if (!e->path || !e->full) {
		free(e->path);
		free(e->full);
		return -1;
	}
	const char *state = f->supervisor->options->state_dir;
	if (!strncmp(e->full, state, strlen(state)) && e->full[strlen(state)] == '/' && e->full[strlen(state) + 1] != '/')
		e->below = state;
	set->n++;
	return 0;
}

static int add_credentials(struct files *f, const char *certificate, const char *key, const char *crl,
                           const struct config_strs *authorities)
{
	int result = add(f, &f->next, "certificate", certificate, IPC_TUN, false) |
	             add(f, &f->next, "key", key, IPC_TUN, false) | add(f, &f->next, "crl", crl, IPC_TUN, false);
	for (size_t i = 0; i < authorities->n; i++)
		result |= add(f, &f->next, "authority", authorities->v[i], IPC_TUN, false);
	return result;
}

static int add_tls(struct files *f, const struct config_tls *tls)
{
	return tls->enabled ? add_credentials(f, tls->certificate, tls->key, tls->crl, &tls->authorities) : 0;
}

/* "stderr" and "journald" are not files. */
static bool names_file(const char *to)
{
	return to && strcmp(to, "stderr") && strcmp(to, "stdout") && strncmp(to, "journal", 7);
}

static int collect(struct files *f, const struct config *c)
{
	const struct config_identity *id = &c->identity;
	int result = add_credentials(f, id->certificate, id->key, id->crl, &id->authorities);
	for (size_t i = 0; i < c->n_listeners; i++)
		result |= add_tls(f, &c->listeners[i].tls);
	for (size_t i = 0; i < c->n_clusters; i++)
		result |= add_tls(f, &c->clusters[i].tls);
	for (size_t i = 0; i < c->telemetry.n_access_log; i++)
		if (names_file(c->telemetry.access_log[i].to))
			result |= add(f, &f->next, "log", c->telemetry.access_log[i].to, IPC_TELE, false);
	result |= add(f, &f->next, "resolv_conf", "/etc/resolv.conf", IPC_TUN, true);
	result |= add(f, &f->next, "hosts", "/etc/hosts", IPC_TUN, true);
	return result;
}

int files_prepare(struct files *f, const struct config *config, char *error, size_t size)
{
	set_clear(&f->next);
	int result = collect(f, config);
	if (result)
		snprintf(error, size, "out of memory");
	for (size_t i = 0; i < f->next.n && !result; i++) {
		struct entry *e = &f->next.v[i];
		if (!entry_load(e) || e->system)
			continue;
		snprintf(error, size, "%s: %s", e->kind, e->error);
		result = -1;
	}
	if (result)
		set_clear(&f->next);
	return result;
}

void files_commit(struct files *f)
{
	set_clear(&f->current);
	f->current = f->next;
	f->next = (struct set){0};
}

void files_abort(struct files *f)
{
	set_clear(&f->next);
}

/* --- handing over --------------------------------------------------------------------------------------------------- */

/* Every receiver gets a memfd of its own: with a shared one they would read at a shared offset. */
static void send_entry(const struct entry *e, struct child *child, uint64_t generation)
{
	struct ipc_file m = {.generation = generation, .kind = e->kind, .path = e->path};
	int copy = -1;
	if (e->data) {
		copy = memfd_sealed("hermes-file", e->data, e->length);
		if (copy >= 0)
			lseek(copy, 0, SEEK_SET);
		else
			m.error = "no memory for a copy";
	} else if (e->fd < 0) {
		m.error = *e->error ? e->error : "not there";
	}
	child_send(child, IPC_MSG_FILE, &m, copy >= 0 ? copy : e->fd);
	if (copy >= 0)
		close(copy);
}

void files_send(struct files *f, struct child *child, uint64_t generation, bool prepared)
{
	const struct set *set = prepared ? &f->next : &f->current;
	for (size_t i = 0; i < set->n; i++)
		if (set->v[i].roles & IPC_BIT(child->slot->role))
			send_entry(&set->v[i], child, generation);
}

static void send_to_all(struct files *f, const struct entry *e)
{
	struct child *c, *next;
	for (c = TAILQ_FIRST(pool_children(f->supervisor->pool)); c; c = next) {
		next = TAILQ_NEXT(c, link);
		bool told = c->state == CHILD_SERVING || c->state == CHILD_PREPARING || c->state == CHILD_STOPPING;
		if (told && e->roles & IPC_BIT(c->slot->role))
			send_entry(e, c, 0);
	}
}

/* --- what changes on disk ------------------------------------------------------------------------------------------- */

static bool changed(const struct entry *e)
{
	struct stat now;
	if (stat(e->full, &now))
		return e->seen.st_ino != 0;
	return now.st_ino != e->seen.st_ino || now.st_size != e->seen.st_size ||
	       now.st_mtim.tv_sec != e->seen.st_mtim.tv_sec || now.st_mtim.tv_nsec != e->seen.st_mtim.tv_nsec;
}

/* What cannot be read now leaves the snapshot as it is. */
static void reload_entry(struct files *f, struct entry *e)
{
	struct entry fresh = {.kind = e->kind, .path = e->path, .full = e->full, .roles = e->roles, .system = e->system, .below = e->below,
	                      .fd = -1, .copy = -1};
	if (entry_load(&fresh) && !e->system) {
		log_error("file kept as it was", "kind=%s error=%s", e->kind, log_value(fresh.error));
		return;
	}
	entry_drop_content(e);
	*e = fresh;
	log_info("file read again", "kind=%s path=%s", e->kind, log_value(e->full));
	send_to_all(f, e);
}

void files_refresh(struct files *f)
{
	for (size_t i = 0; i < f->current.n; i++) {
		struct entry *e = &f->current.v[i];
		if (is_log(e) || (e->system && changed(e)))
			reload_entry(f, e);
	}
}

bool files_stale(const struct files *f)
{
	for (size_t i = 0; i < f->current.n; i++)
		if (!is_log(&f->current.v[i]) && !f->current.v[i].system && changed(&f->current.v[i]))
			return true;
	return false;
}

static void poll_cb(evutil_socket_t fd, short what, void *arg)
{
	struct files *f = arg;
	(void)fd;
	(void)what;
	for (size_t i = 0; i < f->current.n; i++)
		if (f->current.v[i].system && changed(&f->current.v[i]))
			reload_entry(f, &f->current.v[i]);
}

/* --- from one image to the next ------------------------------------------------------------------------------------- */

static int save_entry(struct entry *e, struct state *state)
{
	struct state_file *x = STATE_ADD(state, files);
	if (!x)
		return -ENOMEM;
	*x = (struct state_file){
		.kind = e->kind, .path = e->path, .error = e->error, .roles = e->roles, .system = e->system, .fd = e->fd,
		.inode = e->seen.st_ino, .size = e->seen.st_size, .seconds = e->seen.st_mtim.tv_sec,
		.nanoseconds = e->seen.st_mtim.tv_nsec,
	};
	if (!e->data)
		return 0;
	e->copy = memfd_sealed("hermes-file", e->data, e->length);
	x->fd = e->copy;
	return e->copy < 0 ? e->copy : 0;
}

int files_save(struct files *f, struct state *state)
{
	int error = 0;
	for (size_t i = 0; i < f->current.n && !error; i++)
		error = save_entry(&f->current.v[i], state);
	return error;
}

void files_saved(struct files *f)
{
	for (size_t i = 0; i < f->current.n; i++) {
		if (f->current.v[i].copy >= 0)
			close(f->current.v[i].copy);
		f->current.v[i].copy = -1;
	}
}

static const char *known_kind(const char *kind)
{
	static const char *const kinds[] = {"certificate", "key", "authority", "crl", "log", "resolv_conf", "hosts"};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strcmp(kinds[i], kind) == 0)
			return kinds[i];
	return NULL;
}

static int adopt_content(struct entry *e, int fd)
{
	const void *data;
	size_t length;
	int error = memfd_map(fd, FILE_MAX, &data, &length);
	if (error)
		return error;
	e->data = malloc(length + 1);
	if (e->data) {
		memcpy(e->data, length ? data : "", length);
		e->data[length] = '\0';
		e->length = length;
	}
	memfd_unmap(data, length);
	return e->data ? 0 : -ENOMEM;
}

/* Content stays the state's, a log's descriptor becomes ours. */
int files_adopt(struct files *f, const struct state *state)
{
	for (size_t i = 0; i < state->n_files; i++) {
		const struct state_file *x = &state->files[i];
		const char *kind = known_kind(x->kind);
		if (!kind)
			continue;
		if (add(f, &f->next, kind, x->path, x->roles, x->system))
			return -ENOMEM;
		struct entry *e = &f->next.v[f->next.n - 1];
		e->seen.st_ino = (ino_t)x->inode;
		e->seen.st_size = (off_t)x->size;
		e->seen.st_mtim = (struct timespec){.tv_sec = (time_t)x->seconds, .tv_nsec = (long)x->nanoseconds};
		snprintf(e->error, sizeof(e->error), "%s", x->error ? x->error : "");
		int error = is_log(e) || x->fd < 0 ? 0 : adopt_content(e, x->fd);
		if (error)
			return error;
		if (is_log(e))
			e->fd = x->fd;
	}
	files_commit(f);
	return 0;
}
