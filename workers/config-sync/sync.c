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
#include <time.h>
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
	free(sync->pending.text);
	sync->pending = (struct store_layer){0};
}

size_t sync_layers(const struct store_version *v, struct config_layer *layers, char label[48])
{
	layers[0] = (struct config_layer){.name = v->name, .text = v->text, .length = v->length};
	if (!v->controller.number)
		return 1;
	snprintf(label, 48, "controller %" PRIu64, v->controller.number);
	layers[1] = (struct config_layer){.name = label, .text = v->controller.text, .length = v->controller.length};
	return 2;
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

/* Compiles a version's documents into a->fd. Returns whether it did; a's report says why not. */
static bool compile(struct answer *a, const struct store_version *v)
{
	struct config_layer layers[2];
	char label[48];
	struct config *config = config_parse_layers(layers, sync_layers(v, layers, label), &a->report);
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
	bool ok = v->version && compile(&own, v);

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

/* A compiled version becomes a candidate with a number of its own. */
static bool number(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit, struct store_version *v)
{
	char line[256];

	v->time = 0;
	take(v->source, sizeof(v->source), submit->source);
	take(v->author, sizeof(v->author), submit->author);
	int error = add(sync, v);
	if (error) {
		snprintf(line, sizeof(line), "the store did not take the document: %s; nothing was changed", strerror(-error));
		log_error("store", "error=%s", log_value(strerror(-error)));
		add_error(a, line);
		close(a->fd);
		a->fd = -1;
		return false;
	}
	a->m.generation = v->version;
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

static bool same_layer(const struct store_layer *a, const struct store_layer *b)
{
	return !a->number == !b->number && (!a->number || !strcmp(a->digest, b->digest));
}

/* What a document of the node's own becomes: with the controller's layer of `now`, unless it names no controllers (any more). */
static struct store_version own_version(const struct store_version *now, const char *name, const char *text, size_t length)
{
	struct store_version v = {.text = (char *)(uintptr_t)text, .length = length};

	take(v.name, sizeof(v.name), name);
	digest_of(text, length, v.digest);
	if (now->version && now->controller.number && config_mentions(text, length, "control"))
		v.controller = now->controller;
	return v;
}

static void submit_document(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit, const char *name,
                            const char *text, size_t length)
{
	bool file = !strcmp(submit->action, "file");
	struct store_version now;

	in_force(sync, &now);
	struct store_version v = own_version(&now, name, text, length);   /* its texts stay others' */
	memcpy(a->digest, v.digest, sizeof(a->digest));
	if (!submit->boot && now.version && !strcmp(now.digest, v.digest)) {
		a->m.unchanged = true;
		a->m.generation = now.version;
		if (file)
			store_set_file_digest(sync->store, a->digest);
	} else if (submit->boot && boot_from_store(sync, a, &now)) {
		log_info("configuration in force loaded", "version=%" PRIu64, now.version);
	} else if (compile(a, &v) && number(sync, a, submit, &v) && file) {
		sync->from_file = a->m.generation;
		snprintf(sync->file_digest, sizeof(sync->file_digest), "%s", a->digest);
	}
	if (submit->boot && a->fd < 0 && load(a, &now))
		log_error("configuration file refused", "consequence=%s version=%" PRIu64,
		          log_value("the version in force is loaded"), now.version);
	store_version_clear(&now);
}

/* Would this document be taken? With the controller's layer, as it would be. */
static void submit_check(struct sync *sync, struct answer *a, const char *name, const char *text, size_t length)
{
	struct store_version now;

	in_force(sync, &now);
	struct store_version v = own_version(&now, name, text, length);
	memcpy(a->digest, v.digest, sizeof(a->digest));
	compile(a, &v);
	store_version_clear(&now);
}

static void submit_rollback(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit)
{
	uint64_t wanted = submit->version ? submit->version : store_confirmed(sync->store);
	struct store_version v, now;
	char line[128];
	int error = store_get(sync->store, wanted, &v);

	if (error) {
		snprintf(line, sizeof(line), "version %" PRIu64 " %s", wanted,
		         error == -ENOENT ? "is not in the store" : error == -EUCLEAN ? "is damaged" : strerror(-error));
		add_error(a, line);
		return;
	}
	in_force(sync, &now);
	snprintf(a->digest, sizeof(a->digest), "%s", v.digest);
	if (now.version && !strcmp(now.digest, v.digest) && same_layer(&now.controller, &v.controller)) {
		a->m.unchanged = true;
		a->m.generation = now.version;
	} else if (compile(a, &v)) {
		number(sync, a, submit, &v);
	}
	store_version_clear(&now);
	store_version_clear(&v);
}

/* --- the controller's layer --------------------------------------------------------------------------------------------------- */

int sync_controller_document(struct sync *sync, uint64_t number_, const char *author, const char *reason, const char *text,
                             size_t length)
{
	struct store_layer *p = &sync->pending;

	free(p->text);
	*p = (struct store_layer){0};
	if (!number_ || length > DOCUMENT_MAX)
		return number_ ? -EFBIG : -EINVAL;
	p->text = malloc(length + 1);
	if (!p->text)
		return -ENOMEM;
	memcpy(p->text, text, length);
	p->text[length] = '\0';
	p->length = length;
	p->number = number_;
	p->time = (int64_t)time(NULL);
	take(p->author, sizeof(p->author), author);
	take(p->reason, sizeof(p->reason), reason);
	digest_of(text, length, p->digest);
	return 0;
}

uint64_t sync_controller_number(struct sync *sync, uint64_t version)
{
	struct store_version v;

	return version && !store_peek(sync->store, version, &v) ? v.controller.number : 0;
}

/* The same text under a later number: nothing to prepare, but the number counts. */
static void renumber(struct sync *sync, struct answer *a, const struct store_version *now)
{
	int error = now->controller.number == sync->pending.number ? 0 : store_renumber(sync->store, now->version, &sync->pending);

	if (error)
		add_error(a, "the store did not take the controller's number; nothing was changed");
	a->m.unchanged = !error;
	a->m.generation = error ? 0 : now->version;
}

static void submit_controller(struct sync *sync, struct answer *a, const struct ipc_config_submit *submit)
{
	struct store_layer *pending = &sync->pending;
	struct store_version now, v;

	in_force(sync, &now);
	if (!pending->number || pending->number != submit->version) {
		add_error(a, "there is no such document from the controller");
	} else if (!now.version) {
		add_error(a, "no configuration is in force");
	} else if (!config_mentions(now.text, now.length, "control")) {
		add_error(a, "the node's own document names no controllers (control)");
	} else if (same_layer(&now.controller, pending)) {
		renumber(sync, a, &now);
	} else {
		v = now;                              /* the texts stay now's and pending's */
		v.controller = *pending;
		if (compile(a, &v))
			number(sync, a, submit, &v);
	}
	snprintf(a->digest, sizeof(a->digest), "%s", now.digest);
	store_version_clear(&now);
	free(pending->text);
	*pending = (struct store_layer){0};
}

/* --- submitting ------------------------------------------------------------------------------------------------------------------ */

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
	else if (!strcmp(action, "controller"))
		submit_controller(sync, &a, &known);
	else if (!strcmp(action, "load"))
		submit_load(sync, &a);
	else if (strcmp(action, "file") && strcmp(action, "apply") && strcmp(action, "check"))
		add_error(&a, "unknown action; expected file, apply, check, controller, rollback or load");
	else if (!read_document(&a, name, fd, &text, &length)) {
		in_force(sync, &v);
		if (submit->boot)
			load(&a, &v);
		store_version_clear(&v);
	} else if (!strcmp(action, "check")) {
		submit_check(sync, &a, name, text, length);
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
