/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/admin_bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ipc/memfd.h"
#include "store/config.h"
#include "supervisor/admin_verbs.h"
#include "workers/keeper/keeper.h"
#include "workers/keeper/keys.h"

#define CONFIG_MAX (16u << 20)

/* What is being written, for undoing. */
struct work {
	const struct bootstrap *b;
	char *keys, *new_keys, *old_keys, *new_config, *old_config;
	char *existing;                   /* the configuration that is there; NULL: none */
	mode_t mode;
	char *text;
};

static void format(char **out, const char *f, ...) __attribute__((format(printf, 2, 3)));
static void format(char **out, const char *f, ...)
{
	va_list args;
	va_start(args, f);
	if (vasprintf(out, f, args) < 0)
		abort();
	va_end(args);
}

void bootstrap_add(struct bootstrap *b, const char *name, const char *text)
{
	if (b->n_files == BOOTSTRAP_FILES_MAX)
		abort();
	b->files[b->n_files].name = name;
	b->files[b->n_files++].text = text;
}

char *bootstrap_keys(const char *state)
{
	char *path, *cwd = *state == '/' ? NULL : realpath(".", NULL);
	format(&path, "%s%s%s/" KEEPER_FOLDER, cwd ? cwd : "", cwd ? "/" : "", state);
	free(cwd);
	return path;
}

/* --- the configuration ----------------------------------------------------------------------------------------------- */

/* YAML's single quotes: only they are doubled. */
static void quoted(FILE *out, const char *text)
{
	fputc('\'', out);
	for (; *text; text++) {
		if (*text == '\'')
			fputc('\'', out);
		fputc(*text, out);
	}
	fputc('\'', out);
}

static void list(FILE *out, const char *key, const char *const *v, size_t n)
{
	fprintf(out, "  %s: [", key);
	for (size_t i = 0; i < n; i++) {
		fputs(i ? ", " : "", out);
		quoted(out, v[i]);
	}
	fputs("]\n", out);
}

static void key_file(FILE *out, const char *before, const char *keys, const char *name, const char *after)
{
	char *path;
	format(&path, "%s/%s", keys, name);
	fputs(before, out);
	quoted(out, path);
	fputs(after, out);
	free(path);
}

static char *own_text(const struct work *w)
{
	const struct bootstrap *b = w->b;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	if (!out)
		abort();
	fprintf(out, "node:\n  name: ");
	quoted(out, b->node);
	fprintf(out, "\n  domain: ");
	quoted(out, b->domain);
	key_file(out, "\nidentity:\n  certificate: ", w->keys, "node.crt", "\n");
	key_file(out, "  key: ", w->keys, "node.key", "\n");
	key_file(out, "  authorities: [", w->keys, "authorities.crt", "]\n");
	if (b->listen) {
		fprintf(out, "controller:\n  address: ");
		quoted(out, b->listen);
		fputc('\n', out);
		if (b->n_etcd)
			list(out, "etcd", b->etcd, b->n_etcd);
	}
	fputs("control:\n", out);
	list(out, "endpoints", b->controllers, b->n_controllers);
	fprintf(out, "  key: ");
	quoted(out, b->key);
	fputc('\n', out);
	fclose(out);
	return text;
}

static void print_report(const struct config_report *report)
{
	for (size_t i = 0; i < report->n_errors; i++)
		fprintf(stderr, "%s\n", report->errors[i]);
}

/* What the file says besides stays, under what a node must say. */
static char *merged_text(const struct work *w, const char *own)
{
	const struct config_layer layers[] = {{"the bootstrap", own, strlen(own)},
	                                      {w->b->config, w->existing, strlen(w->existing)}};
	struct config_report report = {0};
	char *text = config_merged(layers, 2, false, &report);
	if (!text)
		print_report(&report);
	config_report_free(&report);
	return text;
}

/* Whether the document has that key at its top. */
static bool has_key(const char *text, const char *key)
{
	for (const char *at = text; at; at = strchr(at, '\n'), at += at != NULL)
		if (!strncmp(at, key, strlen(key)) && at[strlen(key)] == ':')
			return true;
	return false;
}

static int make_text(struct work *w)
{
	static const char head[] = "# Written by hermes-admin when this machine became a node of its domain. What stands here wins over what\n"
	                           "# the controller sends: hermes-controller(7).\n";
	struct config_report report = {0};
	char *own = own_text(w), *body = w->existing && !w->b->force ? merged_text(w, own) : strdup(own);
	int result = 1;
	if (body) {
		format(&w->text, "%s%s", head, body);
		struct config *config = config_parse(w->b->config, w->text, strlen(w->text), &report);
		result = config ? 0 : 1;
		if (!config)
			print_report(&report);
		config_free(config);
	}
	config_report_free(&report);
	free(own);
	free(body);
	return result ? admin_error("%s: the configuration would not be valid", w->b->config) : 0;
}

static int read_existing(struct work *w)
{
	static const char *const ours[] = {"identity", "control", "controller"};
	struct stat st;
	size_t length;
	int fd = open(w->b->config, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	w->mode = 0644;
	if (fd < 0)
		return errno == ENOENT ? 0 : admin_error("%s: %s", w->b->config, strerror(errno));
	int error = fstat(fd, &st) ? -errno : fd_read_all(fd, CONFIG_MAX, &w->existing, &length);
	close(fd);
	if (error)
		return admin_error("%s: %s", w->b->config, strerror(-error));
	w->mode = st.st_mode & 0666;
	for (size_t i = 0; i < 3 && !w->b->force; i++)
		if (has_key(w->existing, ours[i]))
			return admin_error("%s has `%s:` already: this machine is a node. --force replaces the file (and keeps it beside)",
			                   w->b->config, ours[i]);
	return 0;
}

/* --- files ----------------------------------------------------------------------------------------------------------- */

static int make_folders(const char *path, mode_t mode)
{
	char part[PATH_MAX];
	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return -ENAMETOOLONG;
	for (char *p = part + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(part, mode) && errno != EEXIST ? -errno : 0;
}

/* The workers' user, as hermesd finds it: keeper reads the keys. */
static void find_owner(struct keys *keys)
{
	const struct passwd *user = geteuid() ? NULL : getpwnam("hermes");
	if (!user && !geteuid())
		user = getpwnam("nobody");
	if (user) {
		keys->uid = user->pw_uid;
		keys->gid = user->pw_gid;
	}
}

static int write_keys(const struct work *w)
{
	struct keys keys;
	int error = keys_open(&keys, w->new_keys);
	find_owner(&keys);
	if (!error && keys.uid != (uid_t)-1 && fchown(keys.folder, keys.uid, keys.gid))
		error = -errno;
	for (size_t i = 0; i < w->b->n_files && !error; i++)
		error = keys_write(&keys, w->b->files[i].name, w->b->files[i].text);
	keys_close(&keys);
	return error ? admin_error("%s: %s", w->new_keys, strerror(-error)) : 0;
}

static int write_config(const struct work *w)
{
	int fd = open(w->new_config, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), error = fd < 0 ? -errno : 0;
	for (const char *at = w->text; !error && *at;) {
		ssize_t n = write(fd, at, strlen(at));
		if (n > 0)
			at += n;
		else if (errno != EINTR)
			error = -errno;
	}
	if (!error && (fchmod(fd, w->mode) || fsync(fd)))
		error = -errno;
	if (fd >= 0)
		close(fd);
	return error ? admin_error("%s: %s", w->new_config, strerror(-error)) : 0;
}

static void drop_new(const struct work *w)
{
	char path[PATH_MAX];
	for (size_t i = 0; i < w->b->n_files; i++)
		if (snprintf(path, sizeof(path), "%s/%s", w->new_keys, w->b->files[i].name) < (int)sizeof(path))
			unlink(path);
	rmdir(w->new_keys);
	unlink(w->new_config);
}

/* Keys first: a configuration that names them never lacks them. */
static int take_names(const struct work *w)
{
	bool moved = w->b->force && rename(w->keys, w->old_keys) == 0;
	if (rename(w->new_keys, w->keys)) {
		admin_error("%s: %s", w->keys, strerror(errno));
		if (moved)
			rename(w->old_keys, w->keys);
		return 1;
	}
	if (w->existing && link(w->b->config, w->old_config) && errno != EEXIST)
		admin_error("%s is not kept as %s: %s", w->b->config, w->old_config, strerror(errno));
	if (rename(w->new_config, w->b->config) == 0)
		return 0;
	admin_error("%s: %s", w->b->config, strerror(errno));
	rename(w->keys, w->new_keys);
	if (moved)
		rename(w->old_keys, w->keys);
	return 1;
}

/* --- the whole ------------------------------------------------------------------------------------------------------- */

static void work_begin(struct work *w, const struct bootstrap *b)
{
	long long now = (long long)time(NULL);
	*w = (struct work){.b = b, .keys = bootstrap_keys(b->state)};
	format(&w->new_keys, "%s.new-%d", w->keys, (int)getpid());
	format(&w->old_keys, "%s.before-%lld", w->keys, now);
	while (access(w->old_keys, F_OK) == 0) {          /* twice in a second */
		free(w->old_keys);
		format(&w->old_keys, "%s.before-%lld", w->keys, ++now);
	}
	format(&w->new_config, "%s.new-%d", b->config, (int)getpid());
	format(&w->old_config, "%s.before-%lld", b->config, now);
}

static void work_end(struct work *w)
{
	free(w->keys), free(w->new_keys), free(w->old_keys), free(w->new_config), free(w->old_config);
	free(w->existing), free(w->text);
}

/* Room for what is to be written, and nothing there that would be lost. */
static int prepare(struct work *w)
{
	char path[PATH_MAX], *folder = strdup(w->b->config), *slash = folder ? strrchr(folder, '/') : NULL;
	int error = make_folders(w->b->state, 0700), result = 0;
	if (error)
		result = admin_error("%s: %s", w->b->state, strerror(-error));
	if (slash)
		*slash = '\0';
	if (!result && slash && *folder && (error = make_folders(folder, 0755)))
		result = admin_error("%s: %s", folder, strerror(-error));
	if (!result && access(slash && *folder ? folder : slash ? "/" : ".", W_OK))
		result = admin_error("%s: %s", folder, strerror(errno));
	snprintf(path, sizeof(path), "%s/node.key", w->keys);
	if (!result && !w->b->force && access(path, F_OK) == 0)
		result = admin_error("%s is there already: this machine is a node. --force makes it another (and keeps %s beside)", path,
		                     w->keys);
	free(folder);
	return result ? result : read_existing(w);
}

int bootstrap_check(const struct bootstrap *b)
{
	struct work w;
	work_begin(&w, b);
	int result = prepare(&w);
	work_end(&w);
	return result;
}

int bootstrap_write(const struct bootstrap *b)
{
	struct work w;
	work_begin(&w, b);
	int result = prepare(&w);
	if (!result)
		result = make_text(&w);
	if (!result)
		result = write_keys(&w);
	if (!result)
		result = write_config(&w);
	if (!result)
		result = take_names(&w);
	if (result)
		drop_new(&w);
	work_end(&w);
	return result;
}
