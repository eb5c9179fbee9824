#include "supervisor/supervisor.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control.h"
#include "supervisor/dial.h"
#include "supervisor/drains.h"
#include "supervisor/explain.h"
#include "supervisor/fdstore.h"
#include "supervisor/inquire.h"
#include "supervisor/files.h"
#include "supervisor/folders.h"
#include "supervisor/guard.h"
#include "supervisor/listeners.h"
#include "supervisor/notify.h"
#include "supervisor/pool.h"
#include "supervisor/replace.h"
#include "supervisor/restart.h"
#include "supervisor/state.h"
#include "supervisor/tun_queues.h"
#include "supervisor/wanted.h"
#include "supervisor/watch.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define DRAIN_MAX_MS 60000u     /* systemd kills after 90 s */
#define BOOT_LIMIT_S 45

static const char *const state_names[] = {
	[SUPERVISOR_BOOTING] = "starting", [SUPERVISOR_RUNNING] = "running", [SUPERVISOR_STOPPING] = "stopping",
};

const char *supervisor_state_name(enum supervisor_state state)
{
	return state_names[state];
}

bool supervisor_ready(const struct supervisor *s)
{
	return s->state == SUPERVISOR_RUNNING && pool_all(s->pool, CHILD_SERVING);
}

/* --- start ---------------------------------------------------------------------------------------------------------- */

static void give_up(struct supervisor *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void give_up(struct supervisor *s, const char *format, ...)
{
	va_list args;
	if (s->state != SUPERVISOR_BOOTING)
		return;
	fputs("hermesd: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	s->exit_status = 1;
	s->state = SUPERVISOR_STOPPING;
	pool_stop(s->pool, 0);
}

void supervisor_worker_hopeless(struct supervisor *s, const char *name, const char *why)
{
	if (s->state == SUPERVISOR_BOOTING)
		give_up(s, "worker %s cannot be brought up: %s", name, why);
}

static void print_lines(const struct lines *lines)
{
	for (size_t i = 0; i < lines->n; i++)
		fprintf(stderr, "hermesd: %s\n", lines->v[i]);
}

static void boot_stored_done(void *arg, const struct change_result *result)
{
	struct supervisor *s = arg;
	if (result->ok)
		return;
	print_lines(&result->errors);
	give_up(s, "there is no configuration to run with: correct %s, and start again", s->options->config);
}

/* The file is no good: what was in force before is better than nothing. */
static void boot_stored(struct supervisor *s)
{
	const struct change_request request = {.action = "load", .source = "file", .author = "boot", .boot = true};
	change_submit(s->change, &request, -1, boot_stored_done, s);
}

static void remember_stale(struct supervisor *s, const char *why)
{
	free(s->stale);
	s->stale = why ? strdup(why) : NULL;
}

static void log_lines(const char *event, const struct lines *lines, bool error)
{
	for (size_t i = 0; i < lines->n; i++)
		log_event(error ? LOG_ERROR_ : LOG_WARN_, event, "text=%s", log_value(lines->v[i]));
}

static void boot_file_done(void *arg, const struct change_result *result)
{
	struct supervisor *s = arg;
	log_lines("configuration warning", &result->warnings, false);
	if (result->ok) {
		if (result->errors.n)
			remember_stale(s, lines_first(&result->errors));
		log_lines("configuration file refused, serving the stored one", &result->errors, true);
		return;
	}
	if (s->state != SUPERVISOR_BOOTING)
		return;
	print_lines(&result->errors);
	log_lines("configuration file refused", &result->errors, true);
	remember_stale(s, lines_first(&result->errors));
	boot_stored(s);
}

static void boot(struct supervisor *s)
{
	struct change_request request = {
		.action = "file", .name = s->options->config, .source = "file", .author = "boot", .boot = true,
	};
	pool_start_role(s->pool, IPC_CONFIG_SYNC);
	int fd = open(s->options->config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0) {
		change_submit(s->change, &request, fd, boot_file_done, s);
		return;
	}
	fprintf(stderr, "hermesd: cannot read %s: %s\n", s->options->config, strerror(errno));
	remember_stale(s, "the configuration file cannot be read");
	boot_stored(s);
}

void supervisor_committed(struct supervisor *s)
{
	char status[160];
	bool first = s->state == SUPERVISOR_BOOTING;
	snprintf(status, sizeof(status), "Serving configuration %llu%s", (unsigned long long)s->in_force.number,
	         s->stale ? " (the file is refused: see hermes-admin status)" : "");
	if (first) {
		s->state = SUPERVISOR_RUNNING;
		fdstore_drop_rest(s->fdstore, listeners_want, s->listeners);
		log_info("ready", "generation=%llu start_ms=%llu", (unsigned long long)s->in_force.number,
		         (unsigned long long)(clock_ms() - s->started_ms));
		if (s->stale)
			log_error("serving the stored configuration", "generation=%llu why=%s",
			          (unsigned long long)s->in_force.number, log_value(s->stale));
		notify_ready(status);
	} else {
		notify_status(status);
	}
	control_committed(s->control);
}

/* --- reload --------------------------------------------------------------------------------------------------------- */

struct reload {
	struct supervisor *supervisor;
	change_done *done;
	void *arg;
};

static void reload_done(void *arg, const struct change_result *result)
{
	static const struct change_request renew = {.action = "renew", .source = "file", .author = "reload"};
	struct reload *r = arg;
	struct supervisor *s = r->supervisor;
	log_lines("configuration warning", &result->warnings, false);
	log_lines("configuration refused", &result->errors, true);
	remember_stale(s, result->ok ? NULL : lines_first(&result->errors));
	files_refresh(s->files);
	if (result->ok && result->unchanged && files_stale(s->files)) {
		change_submit(s->change, &renew, -1, reload_done, r);
		return;
	}
	notify_ready(result->ok ? "Configuration reloaded" : "Reload refused: the configuration before is still in force");
	if (r->done)
		r->done(r->arg, result);
	free(r);
}

void supervisor_reload(struct supervisor *s, const char *author, change_done *done, void *arg)
{
	const struct change_request request = {
		.action = "file", .name = s->options->config, .source = "file", .author = author,
	};
	struct reload *r = calloc(1, sizeof(*r));
	if (!r)
		return;
	*r = (struct reload){.supervisor = s, .done = done, .arg = arg};
	notify_reloading();
	int fd = open(s->options->config, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0) {
		change_submit(s->change, &request, fd, reload_done, r);
		return;
	}
	struct change_result result = {0};
	lines_addf(&result.errors, "%s: cannot be read: %s", s->options->config, strerror(errno));
	reload_done(r, &result);
	lines_clear(&result.errors);
}

static void keys_renewed(void *arg, const struct change_result *result)
{
	(void)arg;
	log_lines("keys not taken over", &result->errors, true);
}

void supervisor_keys_changed(struct supervisor *s, const char *why)
{
	static const struct change_request renew = {.action = "renew", .source = "keeper", .author = "keeper"};
	log_info("keys changed", "why=%s", log_value(why));
	if (s->state == SUPERVISOR_RUNNING && files_stale(s->files))
		change_submit(s->change, &renew, -1, keys_renewed, s);
}

/* --- stop ----------------------------------------------------------------------------------------------------------- */

void supervisor_stop(struct supervisor *s)
{
	unsigned drain = s->in_force.config ? s->in_force.config->drain_timeout : 0;
	log_info("stopping", "%s", s->state == SUPERVISOR_STOPPING ? "how=\"at once\"" : "how=orderly");
	s->state = SUPERVISOR_STOPPING;
	restart_cancel(s->restart);
	replace_cancel(s->replace, "hermesd is stopping");
	notify_stopping();
	pool_stop(s->pool, drain < DRAIN_MAX_MS ? drain : DRAIN_MAX_MS);
}

void supervisor_workers_gone(struct supervisor *s)
{
	event_base_loopexit(s->base, NULL);
}

/* --- signals -------------------------------------------------------------------------------------------------------- */

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct supervisor *s = arg;
	(void)what;
	switch (number) {
	case SIGCHLD:
		restart_reap(s->restart);
		pool_reap(s->pool);
		break;
	case SIGHUP:
		if (s->state == SUPERVISOR_RUNNING)
			supervisor_reload(s, "signal", NULL, NULL);
		break;
	case SIGUSR1: files_refresh(s->files); break;
	default: supervisor_stop(s); break;
	}
}

static void on_boot_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	give_up(arg, "not ready after %d s", BOOT_LIMIT_S);
}

#define SIGNALS 5
struct signals {
	struct event *events[SIGNALS], *boot_limit;
};

static int signals_start(struct supervisor *s, struct signals *signals)
{
	static const int numbers[SIGNALS] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT, SIGUSR1};
	struct timeval limit = {.tv_sec = BOOT_LIMIT_S};
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < SIGNALS; i++) {
		signals->events[i] = evsignal_new(s->base, numbers[i], on_signal, s);
		if (!signals->events[i] || event_add(signals->events[i], NULL))
			return -1;
	}
	signals->boot_limit = evtimer_new(s->base, on_boot_limit, s);
	return signals->boot_limit ? event_add(signals->boot_limit, &limit) : -1;
}

static void signals_end(struct signals *signals)
{
	for (int i = 0; i < SIGNALS; i++)
		if (signals->events[i])
			event_free(signals->events[i]);
	if (signals->boot_limit)
		event_free(signals->boot_limit);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */

static int make_modules(struct supervisor *s, int admin)
{
	s->base = event_base_new();
	if (!s->base)
		return -1;
	s->pool = pool_new(s);
	s->listeners = listeners_new(s);
	s->tun_queues = tun_queues_new(s);
	s->files = files_new(s, s->options->config);
	s->change = change_new(s);
	s->replace = replace_new(s);
	s->restart = restart_new(s);
	s->drains = drains_new();
	s->explain = explain_new(s);
	s->inquiries = inquiries_new(s);
	s->wanted = wanted_new(s);
	s->dialer = dialer_new(s);
	s->watch = watch_new(s);
	s->notify = notify_new(s->base);
	if (!s->pool || !s->listeners || !s->tun_queues || !s->files || !s->change || !s->replace || !s->restart || !s->drains || !s->explain || !s->dialer || !s->watch ||
	    !s->notify || !s->inquiries || !s->wanted)
		return -1;
	s->control = control_new(s, admin);
	return s->control ? 0 : -1;
}

static void free_modules(struct supervisor *s)
{
	pool_free(s->pool);
	dialer_free(s->dialer);
	files_free(s->files);
	listeners_free(s->listeners);
	tun_queues_free(s->tun_queues);
	watch_free(s->watch);
	notify_free(s->notify);
	/* by now every address is free: a client that waits for our end may start the next hermesd */
	control_free(s->control);
	wanted_free(s->wanted);
	inquiries_free(s->inquiries);
	change_free(s->change);
	replace_free(s->replace);
	restart_free(s->restart);
	drains_free(s->drains);
	fdstore_free(s->fdstore);
	explain_free(s->explain);
	config_free(s->in_force.config);
	if (s->in_force.memfd >= 0)
		close(s->in_force.memfd);
	free(s->stale);
	if (s->base)
		event_base_free(s->base);
}

/* Descriptors 3 and 4 are where workers find theirs; and nothing that we were started with is anybody's business. */
static void own_descriptors(struct supervisor *s)
{
	bool first = s->options->state < 0;
	int other;
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			abort();
	s->fdstore = fdstore_new(first, &other);
	if (!s->fdstore)
		abort();
	if (first)
		close_range((unsigned)other, ~0U, 0);
}

static void find_program(struct supervisor *s)
{
	static const char gone[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", s->program, sizeof(s->program) - 1);
	s->program[n > 0 ? n : 0] = '\0';
	size_t length = strlen(s->program), tail = sizeof(gone) - 1;
	if (length > tail && strcmp(s->program + length - tail, gone) == 0)
		s->program[length - tail] = '\0';
	s->executable = open("/proc/self/exe", O_PATH | O_CLOEXEC);
}

static void open_log(struct supervisor *s)
{
	char journal[16];
	s->spawner.journal_fd = notify_journal();
	snprintf(journal, sizeof(journal), "%d", s->spawner.journal_fd);
	if (s->spawner.journal_fd >= 0)
		setenv("HERMES_JOURNAL_FD", journal, 1);
	else
		unsetenv("HERMES_JOURNAL_FD");
	log_open("supervisor");
}

/* What another image left. Where this one cannot go on with it, that one is executed again. */
static void take_over(struct supervisor *s)
{
	struct state state;
	char error[512] = "";
	if (state_read(s->options->state, &state, error, sizeof(error)) || state_check_fds(&state, error, sizeof(error)))
		goto failed;
	snprintf(s->program, sizeof(s->program), "%s", state.program);
	snprintf(s->spawner.libexec, sizeof(s->spawner.libexec), "%s", state.libexec);
	if (make_modules(s, state.admin) == 0 && restart_adopt(s->restart, &state, error, sizeof(error)) == 0)
		return;
failed:
	guard_fail(*error ? error : "it could not be set up");
	fprintf(stderr, "hermesd: the state of the one before cannot be taken over: %s\n", error);
	s->exit_status = 1;
}

void supervisor_taken_over(struct supervisor *s)
{
	char status[160];
	snprintf(status, sizeof(status), "Serving configuration %llu", (unsigned long long)s->in_force.number);
	notify_ready(status);
	pool_reap(s->pool);
}

static void run(struct supervisor *s)
{
	struct signals signals = {0};
	bool first = s->options->state < 0;
	if (!first)
		take_over(s);
	else if (folders_make(s) || make_modules(s, control_stored(s)))
		s->exit_status = 1;
	if (!s->exit_status && signals_start(s, &signals))
		s->exit_status = 1;
	if (!s->exit_status) {
		privileges_reduce(&s->privileges);
		log_info(first ? "started" : "takes over", "version=%s config=%s libexec=%s", HERMES_VERSION,
		         log_value(s->options->config), log_value(s->spawner.libexec));
		if (first) {
			tun_queues_stored(s->tun_queues);
			boot(s);
		}
		event_base_dispatch(s->base);
		log_info("stopped", "status=%d", s->exit_status);
	}
	guard_fail("its event loop ended");
	signals_end(&signals);
}

int supervisor_run(const struct options *options)
{
	struct supervisor s = {
		.options = options, .exit_status = 0, .started_ms = clock_ms(), .in_force = {.memfd = -1}, .executable = -1,
		.spawner = {.state_dir = options->state_dir, .runtime_dir = options->runtime_dir, .privileges = &s.privileges},
	};
	for (unsigned role = 0; role < IPC_ROLE_COUNT; role++)
		s.spawner.kept[role] = -1;
	prctl(PR_SET_NAME, "hermesd", 0, 0, 0);      /* one that was executed by its descriptor is called by that number */
	own_descriptors(&s);
	find_program(&s);
	guard_arm(options, s.program);
	open_log(&s);
	privileges_find(&s.privileges);
	privileges_limits();
	spawn_find_libexec(&s.spawner);
	run(&s);
	free_modules(&s);
	return s.exit_status;
}
