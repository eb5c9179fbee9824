/* Every verb: its level, and who answers it. */
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control_internal.h"
#include "supervisor/explain.h"
#include "supervisor/inquire.h"
#include "supervisor/listeners.h"
#include "supervisor/pool.h"
#include "supervisor/supervisor.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MAX_MS 3600000u
#define CONTROL_LIMIT_MS 1000u    /* config-sync, for `status` */

static struct supervisor *supervisor_of(const struct ask *a)
{
	return a->control->supervisor;
}

static bool has(const struct ipc_strs *args, const char *word)
{
	for (size_t i = 0; i < args->n; i++)
		if (strcmp(args->v[i], word) == 0)
			return true;
	return false;
}

/* --- state ---------------------------------------------------------------------------------------------------------- */

static void put_workers_sum(struct supervisor *s, struct json *j)
{
	unsigned serving = 0, total = 0, restarts = 0;
	struct slot *slot;
	TAILQ_FOREACH(slot, pool_slots(s->pool), link) {
		if (slot->gone)
			continue;
		total++;
		serving += slot->child && slot->child->state == CHILD_SERVING;
		restarts += slot->restarts;
	}
	json_object(j, "workers");
	json_uint(j, "serving", serving);
	json_uint(j, "total", total);
	json_uint(j, "restarts", restarts);
	json_end(j);
}

static void put_configuration(const struct supervisor *s, struct json *j)
{
	json_object(j, "configuration");
	json_str(j, "file", s->options->config);
	json_uint(j, "generation", s->in_force.number);
	json_str(j, "digest", s->in_force.digest);
	json_int(j, "since", s->in_force.since);
	json_bool(j, "stale", s->stale != NULL);
	json_str(j, "stale_reason", s->stale);
	json_end(j);
}

/* control: what config-sync says of the controllers, or NULL. */
static void answer_status(struct ask *a, const char *control)
{
	struct supervisor *s = supervisor_of(a);
	const struct config *c = s->in_force.config;
	bool ready = supervisor_ready(s);
	struct json j = JSON_INIT;
	json_object(&j, NULL);
	json_str(&j, "state", supervisor_state_name(s->state));
	json_bool(&j, "ready", ready);
	json_str(&j, "version", HERMES_VERSION);
	json_uint(&j, "pid", (uint64_t)getpid());
	json_double(&j, "uptime_seconds", (double)(clock_ms() - s->started_ms) / 1000.0);
	json_str(&j, "node", c ? c->node_name : NULL);
	json_str(&j, "domain", c ? c->domain : NULL);
	json_bool(&j, "privileged", s->privileges.root);
	put_configuration(s, &j);
	put_workers_sum(s, &j);
	json_uint(&j, "listeners", c ? c->n_listeners : 0);
	json_raw(&j, "control", control ? control : "null");
	json_end(&j);
	ask_answer_json(a, a->checks_ready && !ready ? 1 : 0, &j);
}

static void on_control_status(void *arg, const char *json, const char *error)
{
	answer_status(arg, error || !*json ? NULL : json);
}

/* --check ready: the exit status says whether every worker serves. */
static void do_status(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct supervisor *s = supervisor_of(a);
	const struct config *c = s->in_force.config;
	(void)fd;
	a->checks_ready = has(args, "ready");
	if (!c || !c->control.n_endpoints || inquire(s->inquiries, pool_find(s->pool, IPC_CONFIG_SYNC, 0), "control status", NULL,
	                                             CONTROL_LIMIT_MS, on_control_status, a))
		answer_status(a, NULL);
}

static void on_wait_limit(int fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ask_answer(arg, 1, NULL, "not ready in time: `hermes-admin status` and `workers list` show what is missing");
}

static void do_wait(struct ask *a, const struct ipc_strs *args, int *fd)
{
	unsigned long seconds = args->n ? strtoul(args->v[0], NULL, 10) : 30;
	unsigned long ms = seconds * 1000 < WAIT_MAX_MS ? seconds * 1000 : WAIT_MAX_MS;
	(void)fd;
	a->waits_ready = true;
	if (supervisor_ready(supervisor_of(a)))
		ask_answer(a, 0, "{\"ready\":true}", NULL);
	else if (ask_limit(a, (unsigned)ms, on_wait_limit))
		ask_answer(a, 1, NULL, "out of memory");
}

static void do_workers(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct json j = JSON_INIT;
	(void)args;
	(void)fd;
	json_object(&j, NULL);
	pool_json(supervisor_of(a)->pool, &j, "workers");
	json_end(&j);
	ask_answer_json(a, 0, &j);
}

static void do_listeners(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct json j = JSON_INIT;
	(void)args;
	(void)fd;
	json_object(&j, NULL);
	listeners_json(supervisor_of(a)->listeners, &j, "listeners");
	json_end(&j);
	ask_answer_json(a, 0, &j);
}

/* --- configuration -------------------------------------------------------------------------------------------------- */

static void put_lines(struct json *j, const char *key, const struct lines *lines)
{
	json_array(j, key);
	for (size_t i = 0; i < lines->n; i++)
		json_str(j, NULL, lines->v[i]);
	json_end(j);
}

static void on_changed(void *arg, const struct change_result *result)
{
	struct json j = JSON_INIT;
	json_object(&j, NULL);
	json_bool(&j, "ok", result->ok);
	json_uint(&j, "generation", result->generation);
	json_bool(&j, "unchanged", result->unchanged);
	put_lines(&j, "errors", &result->errors);
	put_lines(&j, "warnings", &result->warnings);
	json_end(&j);
	ask_answer_json(arg, result->ok ? 0 : 1, &j);
}

/* A pipe or a device would make config-sync wait for whoever writes it. */
static const char *document_fault(int fd)
{
	struct stat st;
	if (fd < 0)
		return "no document was passed: use hermes-admin";
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return "the document must be a regular file";
	return NULL;
}

static void submit_document(struct ask *a, const char *action, const struct ipc_strs *args, int *fd)
{
	struct change_request request = {
		.action = action, .name = args->n ? args->v[0] : "document", .source = "admin", .author = a->client->name,
	};
	const char *fault = document_fault(*fd);
	if (fault) {
		ask_answer(a, 2, NULL, fault);
		return;
	}
	int document = *fd;
	*fd = -1;
	change_submit(supervisor_of(a)->change, &request, document, on_changed, a);
}

static void do_check(struct ask *a, const struct ipc_strs *args, int *fd)
{
	submit_document(a, "check", args, fd);
}

static void do_apply(struct ask *a, const struct ipc_strs *args, int *fd)
{
	submit_document(a, "apply", args, fd);
}

static void do_rollback(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct change_request request = {.action = "rollback", .source = "admin", .author = a->client->name};
	char *end = NULL;
	(void)fd;
	request.version = args->n == 1 ? strtoull(args->v[0], &end, 10) : 0;
	if (!request.version || *end)
		ask_answer(a, 2, NULL, "usage: config rollback VERSION; `hermes-admin config history` shows the versions");
	else
		change_submit(supervisor_of(a)->change, &request, -1, on_changed, a);
}

static void do_reload(struct ask *a, const struct ipc_strs *args, int *fd)
{
	(void)args;
	(void)fd;
	supervisor_reload(supervisor_of(a), a->client->name, on_changed, a);
}

/* --- the rest ------------------------------------------------------------------------------------------------------- */

static void on_explained(void *arg, unsigned status, const char *json, const char *error)
{
	ask_answer(arg, status, json, error);
}

static void do_explain(struct ask *a, const struct ipc_strs *args, int *fd)
{
	(void)fd;
	explain_ask(supervisor_of(a)->explain, args, on_explained, a);
}

static void do_log_level(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct supervisor *s = supervisor_of(a);
	struct json j = JSON_INIT;
	(void)fd;
	if (args->n && a->client->level < LEVEL_OPERATE) {
		ask_answer(a, 1, NULL, "changing the level needs the level operate");
		return;
	}
	if (args->n && log_set_level(args->v[0])) {
		ask_answer(a, 2, NULL, "usage: log level [debug|info|warn|error]");
		return;
	}
	if (args->n)
		pool_send_all(s->pool, IPC_MSG_LOG_LEVEL, &(struct ipc_log_level){.level = args->v[0]}, -1);
	json_object(&j, NULL);
	json_str(&j, "level", log_get_level());
	json_end(&j);
	ask_answer_json(a, 0, &j);
}

/* The client knows that we are gone when its channel ends. */
static void do_stop(struct ask *a, const struct ipc_strs *args, int *fd)
{
	struct supervisor *s = supervisor_of(a);
	(void)args;
	(void)fd;
	ask_answer(a, 0, "{\"stopping\":true}", NULL);
	supervisor_stop(s);
}

static const struct verb verbs[] = {
	{.name = "status", .level = LEVEL_READ, .handler = do_status},
	{.name = "wait ready", .level = LEVEL_READ, .handler = do_wait},
	{.name = "workers list", .level = LEVEL_READ, .handler = do_workers},
	{.name = "workers restart", .level = LEVEL_OPERATE, .handler = control_workers_restart},
	{.name = "restart", .level = LEVEL_ADMINISTER, .handler = control_restart},
	{.name = "listeners list", .level = LEVEL_READ, .handler = do_listeners},
	{.name = "flows list", .level = LEVEL_READ, .route = ROUTE_LIST, .role = IPC_TUNNEL, .key = "flows"},
	{.name = "flows show", .level = LEVEL_READ, .route = ROUTE_ONE, .role = IPC_TUNNEL},
	{.name = "clusters list", .level = LEVEL_READ, .route = ROUTE_LIST, .role = IPC_ROUTER, .key = "clusters"},
	{.name = "clusters drain", .level = LEVEL_OPERATE, .route = ROUTE_ROLE, .role = IPC_ROUTER},
	{.name = "clusters undrain", .level = LEVEL_OPERATE, .route = ROUTE_ROLE, .role = IPC_ROUTER},
	{.name = "tunnels list", .level = LEVEL_READ, .route = ROUTE_MERGED, .role = IPC_TUN_BRIDGE, .also = IPC_TUNNEL,
	 .key = "tunnels"},
	{.name = "probes list", .level = LEVEL_READ, .route = ROUTE_LIST, .role = IPC_TUNNEL, .key = "probes"},
	{.name = "probe", .level = LEVEL_OPERATE, .route = ROUTE_ANY, .role = IPC_TUNNEL},
	{.name = "route explain", .level = LEVEL_READ, .handler = do_explain},
	{.name = "policy explain", .level = LEVEL_READ, .handler = do_explain},
	{.name = "config check", .level = LEVEL_READ, .handler = do_check},
	{.name = "config apply", .level = LEVEL_ADMINISTER, .handler = do_apply},
	{.name = "config rollback", .level = LEVEL_ADMINISTER, .handler = do_rollback},
	{.name = "config show", .level = LEVEL_READ, .route = ROUTE_ROLE, .role = IPC_CONFIG_SYNC},
	{.name = "config diff", .level = LEVEL_ADMINISTER, .route = ROUTE_ROLE, .role = IPC_CONFIG_SYNC},
	{.name = "config history", .level = LEVEL_READ, .route = ROUTE_LIST, .role = IPC_CONFIG_SYNC, .key = "versions"},
	{.name = "stats", .level = LEVEL_READ, .route = ROUTE_LIST, .role = IPC_TELEMETRY, .key = "metrics"},
	{.name = "log level", .level = LEVEL_READ, .handler = do_log_level},
	{.name = "reload", .level = LEVEL_OPERATE, .handler = do_reload},
	{.name = "stop", .level = LEVEL_ADMINISTER, .handler = do_stop},
};

enum level verb_level(const struct verb *verb, const struct ipc_strs *args)
{
	/* documents as they were written hold what config show shows as *** */
	if (verb->role == IPC_CONFIG_SYNC && (has(args, "--origin") || has(args, "--local") || has(args, "--controller")))
		return LEVEL_ADMINISTER;
	return verb->level;
}

const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}
