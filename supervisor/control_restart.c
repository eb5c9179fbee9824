/* Verbs that replace what runs by what is on disk. */
#include "supervisor/control_internal.h"
#include "supervisor/pool.h"
#include "supervisor/replace.h"
#include "supervisor/restart.h"
#include "supervisor/supervisor.h"

#include <string.h>

/* --- workers restart ------------------------------------------------------------------------------------------------- */

/* n_waiting counts what is not replaced yet, pieces the names of who is. */
static void conclude(struct ask *a)
{
	struct json j = JSON_INIT;
	json_object(&j, NULL);
	json_bool(&j, "restarted", a->errors.n == 0);
	json_array(&j, "errors");
	for (size_t i = 0; i < a->errors.n; i++)
		json_str(&j, NULL, a->errors.v[i]);
	json_end(&j);
	json_end(&j);
	ask_answer(a, a->errors.n ? 1 : 0, j.failed ? NULL : j.data, a->errors.n ? a->errors.v[0] : NULL);
	json_free(&j);
}

static void on_replaced(void *arg, const char *worker, const char *error)
{
	struct ask *a = arg;
	if (error)
		lines_addf(&a->errors, "%s: %s", worker, error);
	if (--a->n_waiting == 0)
		conclude(a);
}

/* Those that write the store first, the data path last: what fails early costs least. */
static const enum ipc_role order[] = {
	IPC_CONFIG_SYNC, IPC_KEEPER, IPC_CONTROLLER, IPC_TELEMETRY, IPC_TUN_BRIDGE, IPC_ROUTER, IPC_POLICY, IPC_TUNNEL,
};

static void restart_all(struct ask *a, const char *why)
{
	struct supervisor *s = a->control->supervisor;
	struct slot *slot;
	a->n_waiting = 1;                /* until all are submitted */
	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++)
		TAILQ_FOREACH(slot, pool_slots(s->pool), link)
			if (slot->role == order[i] && !slot->gone) {
				a->n_waiting++;
				replace_submit(s->replace, slot, why, on_replaced, a);
			}
	if (--a->n_waiting == 0)
		conclude(a);
}

void control_workers_restart(struct ask *a, const struct ipc_strs *args, int *fd)
{
	static const char why[] = "an operator asked for it";
	struct supervisor *s = a->control->supervisor;
	const char *name = args->n ? args->v[0] : "all";
	struct slot *slot = pool_find_name(s->pool, name);
	(void)fd;
	if (args->n > 1)
		ask_answer(a, 2, NULL, "usage: workers restart [NAME|all]");
	else if (s->state != SUPERVISOR_RUNNING)
		ask_answer(a, 1, NULL, "hermesd is starting or stopping: try again");
	else if (strcmp(name, "all") == 0)
		restart_all(a, why);
	else if (!slot)
		ask_answer(a, 1, NULL, "no such worker: `hermes-admin workers list` shows them");
	else {
		a->n_waiting = 1;
		replace_submit(s->replace, slot, why, on_replaced, a);
	}
}

/* --- restart --------------------------------------------------------------------------------------------------------- */

/* Nobody asked any more: the workers follow all the same. */
static void replace_all(struct supervisor *s)
{
	struct slot *slot;
	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++)
		TAILQ_FOREACH(slot, pool_slots(s->pool), link)
			if (slot->role == order[i] && !slot->gone)
				replace_submit(s->replace, slot, "hermesd was replaced", NULL, NULL);
}

/* Who asked is answered when all workers are replaced, too. */
void control_restarted(struct control *control, const char *error)
{
	struct ask *a, *next, *first = NULL;
	for (a = LIST_FIRST(&control->asks); a; a = next) {
		next = LIST_NEXT(a, link);
		if (!a->restarts)
			continue;
		if (error || first)
			ask_answer(a, error ? 1 : 0, NULL, error);
		else
			first = a;
	}
	if (first)
		restart_all(first, "hermesd was replaced");
	else if (!error)
		replace_all(control->supervisor);
}

void control_restart(struct ask *a, const struct ipc_strs *args, int *fd)
{
	char error[4352] = "";
	(void)args;
	(void)fd;
	if (restart_begin(a->control->supervisor->restart, error, sizeof(error)))
		ask_answer(a, 1, NULL, error);
	else
		a->restarts = true;
}
