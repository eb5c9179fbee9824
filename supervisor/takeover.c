#include "supervisor/takeover.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/control.h"
#include "supervisor/drains.h"
#include "supervisor/files.h"
#include "supervisor/listeners.h"
#include "supervisor/pool.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"
#include "supervisor/tun_queues.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int takeover_save(struct supervisor *s, struct state *st)
{
	state_init(st);
	st->version = HERMES_VERSION;
	st->program = s->program;
	st->libexec = s->spawner.libexec;
	st->log_level = log_get_level();
	st->stale = s->stale;
	st->executable = s->executable;
	st->started_ms = s->started_ms;
	st->number = s->in_force.number;
	st->since = s->in_force.since;
	st->digest = s->in_force.digest;
	st->config = s->in_force.memfd;
	memcpy(st->kept, s->spawner.kept, sizeof(st->kept));
	int error = pool_save(s->pool, st);
	if (!error)
		error = listeners_save(s->listeners, st);
	if (!error)
		error = tun_queues_save(s->tun_queues, st);
	if (!error)
		error = files_save(s->files, st);
	if (!error)
		error = control_save(s->control, st);
	if (!error)
		error = drains_save(s->drains, st);
	return error ? error : state_write(st);
}

void takeover_saved(struct supervisor *s)
{
	files_saved(s->files);
}

/* The descriptor stays the state's until all is well: the one before may need it again. */
static int adopt_generation(struct generation *g, const struct state *st)
{
	g->number = st->number;
	g->since = st->since;
	snprintf(g->digest, sizeof(g->digest), "%s", st->digest);
	g->config = config_from_memfd(st->config);
	g->memfd = fcntl(st->config, F_DUPFD_CLOEXEC, 0);
	return g->config && g->memfd >= 0 ? 0 : -1;
}

int takeover_adopt(struct supervisor *s, const struct state *st, char *error, size_t size)
{
	log_set_level(st->log_level);
	s->started_ms = st->started_ms;
	s->stale = st->stale ? strdup(st->stale) : NULL;
	memcpy(s->spawner.kept, st->kept, sizeof(st->kept));
	s->state = SUPERVISOR_RUNNING;
	if (adopt_generation(&s->in_force, st)) {
		snprintf(error, size, "the configuration in force cannot be read");
		return -1;
	}
	if (listeners_adopt(s->listeners, st, s->in_force.config, error, size))
		return -1;
	int result = tun_queues_adopt(s->tun_queues, st);
	if (!result)
		result = files_adopt(s->files, st);
	if (!result)
		result = pool_adopt(s->pool, st);
	if (!result)
		result = control_adopt(s->control, st);
	drains_adopt(s->drains, st);
	if (result)
		snprintf(error, size, "%s", strerror(-result));
	return result;
}
