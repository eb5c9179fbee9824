#include "supervisor/watch.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/clock.h"
#include "supervisor/pool.h"
#include "supervisor/replace.h"
#include "supervisor/supervisor.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SIZE_EVERY 8               /* ticks between looks at a worker's size */
#define RETIRED_STOP_MS 1000       /* for one whose successor serves already */
#define SIZE_PAUSE_MS 30000        /* at least, between two replacements for size */

struct watch {
	struct supervisor *supervisor;
	struct event *tick;
	unsigned ticks;
	uint64_t last;             /* when the last tick ran */
};

const char *watch_verdict(uint64_t silent, uint64_t cpu)
{
	if (silent >= WATCH_HANG_MS)
		return "it did not answer for 10 s";
	if (silent >= WATCH_LOOP_MS && cpu >= WATCH_LOOP_CPU_MS)
		return "it loops: no answer for 1 s, and busy all the time";
	return NULL;
}

/* CPU time of the process, ms. */
static uint64_t cpu_ms(pid_t pid)
{
	clockid_t clock;
	struct timespec t;
	if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t))
		return 0;
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Resident bytes of the process; 0: not known. */
static uint64_t resident(pid_t pid)
{
	char path[64];
	unsigned long pages = 0;
	snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	FILE *f = fopen(path, "re");
	if (!f)
		return 0;
	if (fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void watch_pong(struct child *c, uint64_t sequence)
{
	if (sequence > c->ping) {
		child_kill(c, "it answered a ping that was never sent");
		return;
	}
	if (sequence && sequence < c->ping)
		return;              /* an old one: it is behind, but alive; the newest counts */
	c->pong_at = clock_ms();
	c->cpu_at_pong = cpu_ms(c->pid);
}

static void check_size(struct watch *w, struct child *c, uint64_t now)
{
	const struct config *config = w->supervisor->in_force.config;
	uint64_t limit = config ? (uint64_t)config->worker_rss << 20 : 0;
	c->rss = resident(c->pid);
	if (!limit || c->rss <= limit || c->state != CHILD_SERVING || now - c->slot->replaced < SIZE_PAUSE_MS)
		return;
	log_warn("worker too large", "worker=%s rss_bytes=%llu limit_bytes=%llu", c->slot->name,
	         (unsigned long long)c->rss, (unsigned long long)limit);
	c->slot->replaced = now;
	if (!replace_pending(w->supervisor->replace, c->slot))
		replace_submit(w->supervisor->replace, c->slot, "it grew above worker_rss", NULL, NULL);
}

static void check_child(struct child *c, void *arg)
{
	struct watch *w = arg;
	uint64_t now = clock_ms();
	if (c->state == CHILD_DEAD)
		return;
	if (c->stop_at && now >= c->stop_at)
		/* one that is replaced leaves devices and rules to its successor: tun-bridge's own stop takes them away */
		child_stop(c, c->slot->role == IPC_TUN_BRIDGE ? 0 : RETIRED_STOP_MS);
	if (c->deadline && now >= c->deadline) {
		child_kill(c, c->state == CHILD_STARTING   ? "it did not become ready in 10 s"
		              : c->state == CHILD_STOPPING ? "it did not stop in time"
		                                           : "it did not prepare the configuration in 10 s");
		return;
	}
	if (c->state == CHILD_STARTING || c->state == CHILD_STOPPING)
		return;
	const char *verdict = c->ping ? watch_verdict(now - c->pong_at, cpu_ms(c->pid) - c->cpu_at_pong) : NULL;
	if (verdict) {
		child_kill(c, verdict);
		return;
	}
	if (w->ticks % SIZE_EVERY == 0 || !c->rss)
		check_size(w, c, now);
	if ((c->slot->child == c || c->slot->successor == c) && now - c->pong_at < WATCH_HANG_MS / 2)
		child_send(c, IPC_MSG_PING, &(struct ipc_ping){.sequence = ++c->ping}, -1);
}

/* We did not run ourselves (suspended, or starved): the workers' silence proves nothing. */
static void forgive(struct child *c, void *arg)
{
	(void)arg;
	c->pong_at = clock_ms();
	c->cpu_at_pong = cpu_ms(c->pid);
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	struct pool *pool = w->supervisor->pool;
	uint64_t now = clock_ms();
	(void)fd;
	(void)what;
	if (now - w->last > 2 * WATCH_PERIOD_MS)
		pool_each_child(pool, forgive, NULL);
	w->last = now;
	w->ticks++;
	pool_each_child(pool, check_child, w);
}

struct watch *watch_new(struct supervisor *s)
{
	struct timeval period = {.tv_usec = WATCH_PERIOD_MS * 1000};
	struct watch *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	*w = (struct watch){.supervisor = s, .last = clock_ms()};
	w->tick = event_new(s->base, -1, EV_PERSIST, tick, w);
	if (!w->tick || event_add(w->tick, &period)) {
		watch_free(w);
		return NULL;
	}
	return w;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	if (w->tick)
		event_free(w->tick);
	free(w);
}
