/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/config-sync/sync.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "store/digest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DOCUMENT_MAX ((size_t)16 * 1024 * 1024)
#define KEEP 100                  /* versions in the store */
#define KEEP_WHEN_FULL 5
#define LINES_MAX ((size_t)40 * 1024)     /* of errors in one message */

/* --- the store ------------------------------------------------------------------------------------------------------------ */

int sync_open(struct sync *sync, const char *folder)
{
	const char *why = "";
	char moved[4300];
	int error = store_open(folder, 0, &sync->store, &why);

	if (error != -EUCLEAN && error != -EPROTONOSUPPORT)
		return error;
	log_error("store damaged", "folder=%s reason=%s", log_value(folder), log_value(why));
	error = store_set_aside(folder, moved, sizeof(moved));
	if (error)
		return error;
	log_error("store moved aside", "to=%s consequence=%s", log_value(moved),
	          log_value("the history is lost, the configuration file holds"));
	return store_open(folder, 0, &sync->store, &why);
}

void sync_close(struct sync *sync)
{
	store_close(sync->store);
	sync->store = NULL;
}

/* The version in force with its text, or version 0. */
static void in_force(struct sync *sync, struct store_version *v)
{
	unsigned skipped = 0;
	int error = store_in_force(sync->store, v, &skipped);

	if (error)
		log_error("store not readable", "error=%s", log_value(strerror(-error)));
	if (error)
		memset(v, 0, sizeof(*v));
	if (skipped)
		log_error("store records damaged", "skipped=%u version=%" PRIu64, skipped, v->version);
}

/* A full store forgets its oldest versions and tries once more. */
static int add(struct sync *sync, struct store_version *v)
{
	int error = store_add(sync->store, v);

	if (error != -ENOSPC)
		return error;
	log_warn("store full", "keep=%d", KEEP_WHEN_FULL);
	store_prune(sync->store, KEEP_WHEN_FULL);
	return store_add(sync->store, v);
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

struct answer {
	struct ipc_config_compiled m;
	struct config_report report;
	char digest[65];
	int fd;
};

static void add_error(struct answer *a, const char *text)
{
	char **grown = realloc(a->report.errors, (a->report.n_errors + 1) * sizeof(*grown));
	char *copy = strdup(text);

	if (grown)
		a->report.errors = grown;
	if (grown && copy)
		grown[a->report.n_errors++] = copy;
	else
		free(copy);
}

/* As many lines as fit into a message. */
static struct ipc_strs lines(char **v, size_t n)
{
	size_t fit = 0, bytes = 0;

	while (fit < n && (bytes += strlen(v[fit]) + 8) < LINES_MAX / 2)
		fit++;
	return (struct ipc_strs){.v = (const char **)v, .n = fit};
}

static void send_answer(struct sync *sync, struct answer *a)
{
	a->m.digest = *a->digest ? a->digest : NULL;
	a->m.errors = lines(a->report.errors, a->report.n_errors);
	a->m.warnings = lines(a->report.warnings, a->report.n_warnings);
	int error = ipc_send(worker_supervisor(sync->worker), IPC_MSG_CONFIG_COMPILED, &a->m, a->fd);
	if (error)
		log_error("answer lost", "error=%s", log_value(strerror(-error)));
	if (a->fd >= 0)
		close(a->fd);
	config_report_free(&a->report);
}

/* Compiles a document into a->fd. Returns whether it did; a's report says why not. */
static bool compile(struct answer *a, const char *name, const char *text, size_t length)
{
	struct config *config = config_parse(name, text, length, &a->report);
	uint8_t *data = NULL;
	size_t size = 0;

	if (!config)
		return false;
	if (!config_pack(config, &data, &size))
		a->fd = memfd_sealed("hermes-config", data, size);
	free(data);
	config_free(config);
	if (a->fd < 0)
		add_error(a, "the compiled configuration could not be passed on: out of memory");
	return a->fd >= 0;
}

/* The version in force, compiled; its own errors replace nothing in a's report. */
static bool load(struct answer *a, const struct store_version *v)
{
	struct answer own = {.fd = -1};
	bool ok = v->version && compile(&own, v->name, v->text, v->length);

	if (ok) {
		a->fd = own.fd;
		a->m.generation = v->version;
		snprintf(a->digest, sizeof(a->digest), "%s", v->digest);
	}
	for (size_t i = 0; v->version && !ok && i < own.report.n_errors; i++)
		add_error(a, own.report.errors[i]);
	config_report_free(&own.report);
	return ok;
}

/* --- documents -------------------------------------------------------------------------------------------------------------- */

static bool read_document(struct answer *a, const char *name, int fd, char **text, size_t *length)
{
	struct stat st;
	char line[512];
	int error = fd < 0 || fstat(fd, &st) ? -EBADF : 0;

	*text = NULL;
	if (!error && S_ISREG(st.st_mode) && (uintmax_t)st.st_size > DOCUMENT_MAX)
		error = -EFBIG;                       /* not a byte of it is read */
	if (!error)
		error = fd_read_all(fd, DOCUMENT_MAX, text, length);
	if (!error)
		return true;
	snprintf(line, sizeof(line), "%s:1:1: %s", name,
	         error == -EFBIG ? "the document is too large; expected at most 16 MiB" : strerror(-error));
	add_error(a, line);
	return false;
}

static void take(char *out, size_t size, const char *text)
{
	snprintf(out, size, "%s", text ? text : "");
}

/* A compiled document becomes a candidate with a number of its own. */
static bool number(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit, const char *name,
                   const char *text, size_t length)
{
	struct store_version v = {.text = (char *)(uintptr_t)text, .length = length};
	char line[256];

	take(v.source, sizeof(v.source), submit->source);
	take(v.author, sizeof(v.author), submit->author);
	take(v.name, sizeof(v.name), name);
	int error = add(sync, &v);
	if (error) {
		snprintf(line, sizeof(line), "the store did not take the document: %s; nothing was changed", strerror(-error));
		log_error("store", "error=%s", log_value(strerror(-error)));
		add_error(a, line);
		close(a->fd);
		a->fd = -1;
		return false;
	}
	a->m.generation = v.version;
	return true;
}

static void digest_of(const char *text, size_t length, char out[65])
{
	uint8_t sum[32];

	digest_sha256(text, length, sum);
	digest_hex(sum, out);
}

/* At start: the file, where it changed since it was last taken; else, and where it is broken, what is in force. */
static bool boot_from_store(struct sync *sync, struct answer *a, const struct store_version *v)
{
	char last[65] = "";

	if (!v->version)
		return false;
	store_file_digest(sync->store, last);
	if (strcmp(last, a->digest) && strcmp(v->digest, a->digest))
		return false;
	if (strcmp(last, a->digest))
		store_set_file_digest(sync->store, a->digest);
	return load(a, v);
}

static void submit_document(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit, const char *name,
                            const char *text, size_t length)
{
	bool file = !strcmp(submit->action, "file");
	struct store_version v;

	in_force(sync, &v);
	digest_of(text, length, a->digest);
	if (!submit->boot && v.version && !strcmp(v.digest, a->digest)) {
		a->m.unchanged = true;
		a->m.generation = v.version;
		if (file)
			store_set_file_digest(sync->store, a->digest);
	} else if (submit->boot && boot_from_store(sync, a, &v)) {
		log_info("configuration in force loaded", "version=%" PRIu64, v.version);
	} else if (compile(a, name, text, length) && number(sync, a, submit, name, text, length) && file) {
		sync->from_file = a->m.generation;
		snprintf(sync->file_digest, sizeof(sync->file_digest), "%s", a->digest);
	}
	if (submit->boot && a->fd < 0 && load(a, &v))
		log_error("configuration file refused", "consequence=%s version=%" PRIu64,
		          log_value("the version in force is loaded"), v.version);
	store_version_clear(&v);
}

static void submit_rollback(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit)
{
	struct store_version v, now;
	char line[128];
	int error = store_get(sync->store, submit->version, &v);

	if (error) {
		snprintf(line, sizeof(line), "version %" PRIu64 " %s", submit->version,
		         error == -ENOENT ? "is not in the store" : error == -EUCLEAN ? "is damaged" : strerror(-error));
		add_error(a, line);
		return;
	}
	in_force(sync, &now);
	snprintf(a->digest, sizeof(a->digest), "%s", v.digest);
	if (now.version && !strcmp(now.digest, v.digest)) {
		a->m.unchanged = true;
		a->m.generation = now.version;
	} else if (compile(a, v.name, v.text, v.length)) {
		number(sync, a, submit, v.name, v.text, v.length);
	}
	store_version_clear(&now);
	store_version_clear(&v);
}

static void submit_load(struct sync *sync, struct answer *a)
{
	struct store_version v;

	in_force(sync, &v);
	if (!v.version)
		add_error(a, "no configuration is in force");
	else
		load(a, &v);
	store_version_clear(&v);
}

void sync_submit(struct sync *sync, const struct ipc_config_submit *submit, int fd)
{
	struct answer a = {.m = {.id = submit->id}, .fd = -1};
	const char *action = submit->action ? submit->action : "", *name = submit->name ? submit->name : "document";
	struct ipc_config_submit known = *submit;
	struct store_version v;
	char *text = NULL;
	size_t length = 0;

	known.action = action;
	if (!strcmp(action, "rollback"))
		submit_rollback(sync, &a, &known);
	else if (!strcmp(action, "load"))
		submit_load(sync, &a);
	else if (strcmp(action, "file") && strcmp(action, "apply") && strcmp(action, "check"))
		add_error(&a, "unknown action; expected file, apply, check, rollback or load");
	else if (!read_document(&a, name, fd, &text, &length)) {
		in_force(sync, &v);
		if (submit->boot)
			load(&a, &v);
		store_version_clear(&v);
	} else if (!strcmp(action, "check")) {
		digest_of(text, length, a.digest);
		compile(&a, name, text, length);
	} else {
		submit_document(sync, &a, &known, name, text, length);
	}
	free(text);
	send_answer(sync, &a);
}

void sync_store(struct sync *sync, const struct ipc_config_store *store)
{
	struct ipc_config_stored answer = {.id = store->id, .generation = store->generation};
	int error = store->refused ? store_refuse(sync->store, store->generation, store->refused)
	                           : store_set_in_force(sync->store, store->generation);

	if (!error && !store->refused && sync->from_file == store->generation)
		error = store_set_file_digest(sync->store, sync->file_digest);
	if (sync->from_file == store->generation)
		sync->from_file = 0;
	if (error) {
		answer.error = strerror(-error);
		log_error("store", "generation=%" PRIu64 " error=%s", store->generation, log_value(answer.error));
	} else if (!store->refused) {
		store_prune(sync->store, KEEP);
	}
	ipc_send(worker_supervisor(sync->worker), IPC_MSG_CONFIG_STORED, &answer, -1);
}
