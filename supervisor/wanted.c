/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/wanted.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "supervisor/change.h"
#include "supervisor/pool.h"
#include "supervisor/report.h"
#include "supervisor/supervisor.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPEN_MAX 8
#define INLINE_MAX (48u * 1024)

/* One request of a config-sync, which may have ended before its answer. */
struct request {
	struct wanted *wanted;
	pid_t pid;
	uint64_t id;
	struct report *report;      /* NULL: it is a change */
	char *stale;                /* why the file is not in force after it, or NULL */
	LIST_ENTRY(request) link;
};

struct wanted {
	struct supervisor *supervisor;
	LIST_HEAD(, request) requests;
	unsigned open;
};

struct wanted *wanted_new(struct supervisor *s)
{
	struct wanted *w = calloc(1, sizeof(*w));
	if (w)
		w->supervisor = s;
	return w;
}

static void request_free(struct request *r)
{
	LIST_REMOVE(r, link);
	r->wanted->open--;
	report_free(r->report);
	free(r->stale);
	free(r);
}

void wanted_free(struct wanted *w)
{
	if (!w)
		return;
	for (struct request *r; (r = LIST_FIRST(&w->requests));) {
		change_forget(w->supervisor->change, r);
		request_free(r);
	}
	free(w);
}

static struct request *request_new(struct wanted *w, const struct child *child, uint64_t id)
{
	struct request *r = w->open < OPEN_MAX ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return NULL;
	*r = (struct request){.wanted = w, .pid = child->pid, .id = id};
	LIST_INSERT_HEAD(&w->requests, r, link);
	w->open++;
	return r;
}

/* --- changes -------------------------------------------------------------------------------------------------------- */

static void send_outcome(struct child *child, uint64_t id, const struct change_result *result)
{
	struct ipc_config_outcome m = {.id = id, .ok = result->ok, .unchanged = result->unchanged, .generation = result->generation,
	                               .errors = {.v = (const char **)result->errors.v, .n = result->errors.n}};
	/* as many as a message holds */
	for (size_t i = 0, bytes = 0; i < m.errors.n; i++)
		if ((bytes += strlen(m.errors.v[i]) + 8) > INLINE_MAX)
			m.errors.n = i;
	child_send(child, IPC_MSG_CONFIG_OUTCOME, &m, -1);
}

static void on_changed(void *arg, const struct change_result *result)
{
	struct request *r = arg;
	struct child *child = pool_find_pid(r->wanted->supervisor->pool, r->pid);
	if (result->ok && r->stale) {
		free(r->wanted->supervisor->stale);
		r->wanted->supervisor->stale = r->stale;
		r->stale = NULL;
	}
	if (child)
		send_outcome(child, r->id, result);
	request_free(r);
}

/* Without an error: it may be asked for again. */
static void refuse(struct child *child, uint64_t id, const char *why)
{
	struct ipc_config_outcome m = {.id = id};
	log_warn("change not begun", "worker=%s reason=%s", child->slot->name, log_value(why));
	child_send(child, IPC_MSG_CONFIG_OUTCOME, &m, -1);
}

void wanted_change(struct wanted *w, struct child *child, const struct ipc_config_wanted *m)
{
	const char *action = m->action ? m->action : "";
	struct change_request request = {.action = action, .name = "controller", .version = m->version,
	                                 .source = m->source ? m->source : "controller", .author = m->author ? m->author : "controller"};
	bool known = strcmp(action, "controller") == 0 || strcmp(action, "rollback") == 0;
	struct request *r = known && child->slot->child == child ? request_new(w, child, m->id) : NULL;
	if (!r) {
		refuse(child, m->id, !known ? "unknown action" : child->slot->child != child ? "it is being replaced" : "too many");
		return;
	}
	r->stale = m->stale ? strdup(m->stale) : NULL;
	log_info("change asked for", "action=%s version=%llu author=%s", action, (unsigned long long)m->version,
	         log_value(request.author));
	change_submit(w->supervisor->change, &request, -1, on_changed, r);
}

/* --- reports -------------------------------------------------------------------------------------------------------- */

static void reply(struct child *child, uint64_t id, const char *json, const char *error)
{
	struct ipc_admin_reply m = {.id = id, .status = error ? 1 : 0, .json = json, .error = error};
	size_t length = json ? strlen(json) : 0;
	int fd = length > INLINE_MAX ? memfd_sealed("hermes-report", json, length) : -1;
	if (length > INLINE_MAX)
		m.json = "";
	child_send(child, IPC_MSG_ADMIN_REPLY, &m, fd);
	if (fd >= 0)
		close(fd);
}

static void on_reported(void *arg, const char *json)
{
	struct request *r = arg;
	struct child *child = pool_find_pid(r->wanted->supervisor->pool, r->pid);
	if (child)
		reply(child, r->id, json, json ? NULL : "out of memory");
	request_free(r);
}

void wanted_report(struct wanted *w, struct child *child, const struct ipc_admin_request *m)
{
	struct request *r = NULL;
	if (!m->verb || strcmp(m->verb, "report")) {
		reply(child, m->id, NULL, "hermesd answers \"report\" only");
		return;
	}
	r = request_new(w, child, m->id);
	if (r)
		r->report = report_new(w->supervisor, on_reported, r);
	if (r && r->report)
		return;
	if (r)
		request_free(r);
	reply(child, m->id, NULL, "too many reports are asked for");
}
