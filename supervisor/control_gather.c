/* Questions to workers, and their answers made one. */
#include "ipc/memfd.h"
#include "supervisor/control_internal.h"
#include "supervisor/drains.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_LIMIT_MS 5000
#define PIECES_MAX (64u << 20)   /* bytes of all workers' answers together */

static void conclude(struct ask *a)
{
	const struct verb *verb = a->verb;
	const char *error = a->errors.n ? a->errors.v[0] : NULL;
	const char *pieces = a->pieces ? a->pieces : "";
	if (!error && a->words[0])
		drains_note(a->control->supervisor->drains, a->words[0], a->words[1], strcmp(verb->name, "clusters drain") == 0);
	struct json j = JSON_INIT;
	/* what one worker knows, the others need not */
	if (a->length && verb->route == ROUTE_ONE)
		error = NULL;
	if (verb->route != ROUTE_LIST && verb->route != ROUTE_MERGED) {
		bool nothing = !error && !a->length;
		if (nothing && verb->route == ROUTE_ONE)
			error = "no such thing: it may have ended";
		unsigned refused = verb->route == ROUTE_ANY && a->status ? a->status : 1;
		ask_answer(a, error ? refused : 0, error ? NULL : nothing ? "{}" : pieces, error);
		return;
	}
	char *list = NULL;
	if (asprintf(&list, *pieces == '[' ? "%s" : "[%s]", pieces) < 0)
		list = NULL;
	if (verb->route == ROUTE_MERGED && list) {
		char *merged = merge_by_name(list);
		if (!merged)
			lines_add(&a->errors, error = "a worker's answer is no list");
		free(list);
		list = merged;
	}
	json_object(&j, NULL);
	json_raw(&j, verb->key, list ? list : "[]");
	if (a->errors.n) {
		json_array(&j, "errors");
		for (size_t i = 0; i < a->errors.n; i++)
			json_str(&j, NULL, a->errors.v[i]);
		json_end(&j);
	}
	json_end(&j);
	free(list);
	/* a partial list is worth having, and says so */
	bool failed = j.failed || (error && !a->answered);
	ask_answer(a, error ? 1 : 0, failed ? NULL : j.data, j.failed ? "out of memory" : error);
	json_free(&j);
}

static void on_limit(int fd, short what, void *arg)
{
	struct ask *a = arg;
	(void)fd;
	(void)what;
	for (unsigned i = 0; i < a->n_waiting; i++)
		lines_addf(&a->errors, "%s did not answer within 5 s", a->waiting[i]->name);
	a->n_waiting = 0;
	conclude(a);
}

/* What an operator drains is to outlive the router that was told. */
static void remember(struct ask *a, const struct ipc_strs *args)
{
	bool drains = strcmp(a->verb->name, "clusters drain") == 0 || strcmp(a->verb->name, "clusters undrain") == 0;
	for (size_t i = 0; drains && args->n == 2 && i < 2; i++)
		a->words[i] = strdup(args->v[i]);
	if (!a->words[1]) {
		free(a->words[0]);
		a->words[0] = NULL;
	}
}

void ask_workers(struct ask *a, const struct ipc_strs *args)
{
	struct ipc_admin_request m = {.id = a->own, .verb = a->verb->name, .args = *args};
	struct slot *slot;
	remember(a, args);
	TAILQ_FOREACH(slot, pool_slots(a->control->supervisor->pool), link) {
		struct child *c = slot->child;
		bool asked = slot->role == a->verb->role || (a->verb->route == ROUTE_MERGED && slot->role == a->verb->also);
		if (!asked || slot->gone || a->n_waiting == sizeof(a->waiting) / sizeof(*a->waiting))
			continue;
		if (c && c->state != CHILD_STARTING && child_send(c, IPC_MSG_ADMIN_REQUEST, &m, -1))
			a->waiting[a->n_waiting++] = slot;
		else if (a->verb->route != ROUTE_ANY)
			lines_addf(&a->errors, "%s is not there just now", slot->name);
		if (a->n_waiting && a->verb->route == ROUTE_ANY)
			break;
	}
	if (!a->n_waiting)
		lines_addf(&a->errors, a->control->supervisor->state == SUPERVISOR_BOOTING ? "nobody is there to answer: hermesd is still starting" :
		           "nobody is there to answer: %s does not run under this configuration", ipc_role_name(a->verb->role));
	if (!a->n_waiting || ask_limit(a, ANSWER_LIMIT_MS, on_limit))
		conclude(a);
}

/* front: it goes before what others said. */
static void add_piece(struct ask *a, const char *text, size_t length, bool front)
{
	bool comma = a->length && length;
	if (!length || (a->length && a->verb->route == ROUTE_ONE))
		return;
	char *grown = a->length + length < PIECES_MAX ? realloc(a->pieces, a->length + length + 2) : NULL;
	if (!grown) {
		lines_add(&a->errors, "the answer is too large");
		return;
	}
	a->pieces = grown;
	if (comma && front) {
		memmove(a->pieces + length + 1, a->pieces, a->length);
		a->pieces[length] = ',';
	} else if (comma) {
		a->pieces[a->length] = ',';
	}
	memcpy(a->pieces + (front ? 0 : a->length + comma), text, length);
	a->length += length + comma;
	a->pieces[a->length] = '\0';
}

static void take_reply(struct ask *a, enum ipc_role role, const struct ipc_admin_reply *m, int fd)
{
	bool front = a->verb->route == ROUTE_MERGED && role == a->verb->role;
	const void *data = NULL;
	size_t length = 0;
	if (m->status || m->error)
		lines_add(&a->errors, m->error ? m->error : "the worker refused");
	else
		a->answered++;
	if (m->status)
		a->status = m->status;
	if (fd < 0) {
		if (m->json)
			add_piece(a, m->json, strlen(m->json), front);
		return;
	}
	if (memfd_map(fd, PIECES_MAX, &data, &length))
		lines_add(&a->errors, "the worker's answer could not be read");
	else if (length && !memchr(data, '\0', length))
		add_piece(a, data, length, front);
	memfd_unmap(data, length);
}

/* Whether the slot's answer was waited for; then it is not any more. */
static bool tick_off(struct ask *a, const struct slot *slot)
{
	for (unsigned i = 0; i < a->n_waiting; i++)
		if (a->waiting[i] == slot) {
			a->waiting[i] = a->waiting[--a->n_waiting];
			return true;
		}
	return false;
}

void control_worker_replied(struct control *control, struct child *child, const struct ipc_admin_reply *m, int fd)
{
	struct ask *a;
	LIST_FOREACH(a, &control->asks, link)
		if (a->own == m->id)
			break;
	if (!a || !tick_off(a, child->slot))
		return;
	take_reply(a, child->slot->role, m, fd);
	if (m->more)
		a->waiting[a->n_waiting++] = child->slot;
	else if (!a->n_waiting)
		conclude(a);
}
