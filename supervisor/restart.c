#include "supervisor/restart.h"
#include "ipc/log.h"
#include "store/config.h"
#include "supervisor/change.h"
#include "supervisor/clock.h"
#include "supervisor/control.h"
#include "supervisor/dial.h"
#include "supervisor/explain.h"
#include "supervisor/guard.h"
#include "supervisor/pool.h"
#include "supervisor/replace.h"
#include "supervisor/state.h"
#include "supervisor/supervisor.h"
#include "supervisor/takeover.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK_LIMIT_MS 15000      /* for the new program to look at the state */
#define QUIET_LIMIT_MS 60000      /* for what is under way to end: a change takes its time */
#define QUIET_EVERY_MS 20
#define RUNS_AFTER_MS 300         /* of the loop: then the new image has taken over */

enum phase { RESTART_IDLE, RESTART_CHECKING, RESTART_QUIETING, RESTART_TAKING_OVER };

struct restart {
	struct supervisor *supervisor;
	enum phase phase;
	struct event *tick;
	pid_t pid;                /* the new program that looks at the state */
	int said;                 /* the reading end of what it says */
	uint64_t deadline;
	struct state inherited;   /* while taking over */
};

static void tick_cb(evutil_socket_t fd, short what, void *arg);

struct restart *restart_new(struct supervisor *s)
{
	struct restart *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	*r = (struct restart){.supervisor = s, .said = -1};
	state_init(&r->inherited);
	r->tick = evtimer_new(s->base, tick_cb, r);
	if (r->tick)
		return r;
	free(r);
	return NULL;
}

static void end_check(struct restart *r)
{
	if (r->pid > 0) {
		kill(r->pid, SIGKILL);
		waitpid(r->pid, NULL, 0);
	}
	r->pid = 0;
	if (r->said >= 0)
		close(r->said);
	r->said = -1;
}

void restart_free(struct restart *r)
{
	if (!r)
		return;
	end_check(r);
	event_free(r->tick);
	state_clear(&r->inherited);
	free(r);
}

static void again_in(struct restart *r, unsigned ms)
{
	struct timeval later = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
	event_add(r->tick, &later);
}

/* --- it does not come to it ------------------------------------------------------------------------------------------ */

static void fail(struct restart *r, const char *why)
{
	r->phase = RESTART_IDLE;
	event_del(r->tick);
	end_check(r);
	log_error("restart refused", "program=%s reason=%s effect=%s", log_value(r->supervisor->program), log_value(why),
	          log_value("this one goes on"));
	control_restarted(r->supervisor->control, why);
}

static void failf(struct restart *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void failf(struct restart *r, const char *format, ...)
{
	char why[768];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	fail(r, why);
}

void restart_cancel(struct restart *r)
{
	if (r->phase != RESTART_IDLE)
		fail(r, "hermesd is stopping");
}

/* --- the new program looks at the state ------------------------------------------------------------------------------ */

static void inherit(int fd, void *arg)
{
	bool on = *(bool *)arg;
	int flags = fd >= 0 ? fcntl(fd, F_GETFD) : -1;
	if (flags >= 0)
		fcntl(fd, F_SETFD, on ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC);
}

static void inherit_all(const struct state *st, int document, bool on)
{
	state_each_fd(st, inherit, &on);
	inherit(document, &on);
}

static void __attribute__((noreturn)) look(const struct supervisor *s, const struct state *st, int document, int out)
{
	char number[16];
	const char *words[] = {s->program, "--accept-state", number, NULL};
	sigset_t none;
	snprintf(number, sizeof(number), "%d", document);
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
		_exit(127);
	inherit_all(st, document, true);
	execve(s->program, (char **)(uintptr_t)words, environ);
	dprintf(STDERR_FILENO, "%s cannot be executed: %s\n", s->program, strerror(errno));
	_exit(127);
}

static int check(struct restart *r, const struct state *st, int document)
{
	int ends[2];
	sigset_t all, before;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	r->pid = fork();
	if (r->pid == 0)
		look(r->supervisor, st, document, ends[1]);
	int error = r->pid < 0 ? -errno : 0;
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends[1]);
	if (error)
		close(ends[0]);
	else
		r->said = ends[0];
	return error;
}

static int begin_check(struct restart *r)
{
	struct state st;
	int document = takeover_save(r->supervisor, &st);
	int error = document < 0 ? document : check(r, &st, document);
	state_clear(&st);
	takeover_saved(r->supervisor);
	if (document >= 0)
		close(document);
	return error;
}

/* The last line that it said: what a sanitizer or a linker say comes before. */
static void last_words(int fd, char *text, size_t size)
{
	char all[4096];
	ssize_t n = read(fd, all, sizeof(all) - 1);
	all[n > 0 ? n : 0] = '\0';
	for (char *end = all + strlen(all); end > all && end[-1] == '\n';)
		*--end = '\0';
	const char *line = strrchr(all, '\n');
	snprintf(text, size, "%.*s", (int)size - 1, line ? line + 1 : all);
}

void restart_reap(struct restart *r)
{
	char words[512];
	int status;
	if (r->pid <= 0 || waitpid(r->pid, &status, WNOHANG) != r->pid)
		return;
	r->pid = 0;
	last_words(r->said, words, sizeof(words));
	close(r->said);
	r->said = -1;
	if (WIFSIGNALED(status))
		failf(r, "the new hermesd crashed when it looked at the state (signal %d) %s", WTERMSIG(status), words);
	else if (WEXITSTATUS(status))
		failf(r, "the new hermesd cannot take over: %s", *words ? words : "it said nothing");
	else {
		log_info("new program accepts the state", "program=%s says=%s", log_value(r->supervisor->program), log_value(words));
		r->phase = RESTART_QUIETING;
		r->deadline = clock_ms() + QUIET_LIMIT_MS;
		again_in(r, 0);
	}
}

int restart_begin(struct restart *r, char *error, size_t size)
{
	struct supervisor *s = r->supervisor;
	if (s->state != SUPERVISOR_RUNNING || r->phase != RESTART_IDLE || replace_pending(s->replace, NULL)) {
		snprintf(error, size, s->state != SUPERVISOR_RUNNING ? "hermesd is starting or stopping: try again" :
		         "a restart is under way: wait for its end");
		return -1;
	}
	if (access(s->program, X_OK)) {
		snprintf(error, size, "%s: %s", s->program, strerror(errno));
		return -1;
	}
	r->phase = RESTART_CHECKING;
	r->deadline = clock_ms() + CHECK_LIMIT_MS;
	log_info("restart begins", "program=%s", log_value(s->program));
	again_in(r, 0);
	return 0;
}

/* --- it is executed --------------------------------------------------------------------------------------------------- */

/* NULL, or what is still under way. */
static const char *busy(const struct supervisor *s)
{
	if (!change_idle(s->change))
		return "a change of configuration";
	if (replace_pending(s->replace, NULL))
		return "the replacement of a worker";
	if (!pool_quiet(s->pool))
		return "the start of a worker";
	if (!dialer_idle(s->dialer))
		return "a connection being made for a worker";
	if (!explain_idle(s->explain) || !control_idle(s->control))
		return "a request of hermes-admin";
	return NULL;
}

static void go(struct restart *r)
{
	struct supervisor *s = r->supervisor;
	struct state st;
	int document = takeover_save(s, &st);
	if (document < 0) {
		failf(r, "the state cannot be written: %s", strerror(-document));
		state_clear(&st);
		takeover_saved(s);
		return;
	}
	log_info("new program is executed", "program=%s", log_value(s->program));
	fflush(NULL);
	inherit_all(&st, document, true);
	int error = guard_execute(s->options, s->program, -1, document, st.executable, NULL);
	inherit_all(&st, document, false);
	state_clear(&st);
	takeover_saved(s);
	close(document);
	failf(r, "%s cannot be executed: %s", s->program, strerror(-error));
}

/* --- it takes over ---------------------------------------------------------------------------------------------------- */

static void taken_over(struct restart *r)
{
	struct supervisor *s = r->supervisor;
	const struct options *o = s->options;
	char why[512];
	guard_disarm();
	inherit_all(&r->inherited, o->state, false);
	close(o->state);
	close(o->before);
	if (r->inherited.executable >= 0 && r->inherited.executable != o->before)
		close(r->inherited.executable);
	close(r->inherited.config);
	for (size_t i = 0; i < r->inherited.n_files; i++)
		if (r->inherited.files[i].fd >= 0 && strcmp(r->inherited.files[i].kind, "log"))
			close(r->inherited.files[i].fd);
	r->phase = RESTART_IDLE;
	if (!o->failed) {
		log_info("taken over", "version=%s from=%s generation=%llu", HERMES_VERSION, log_value(r->inherited.version),
		         (unsigned long long)s->in_force.number);
		state_clear(&r->inherited);
		supervisor_taken_over(s);
		control_restarted(s->control, NULL);
		return;
	}
	state_clear(&r->inherited);
	supervisor_taken_over(s);
	snprintf(why, sizeof(why), "the new hermesd did not come up (%s): the one before serves on", o->failed);
	log_error("restart failed", "reason=%s effect=%s", log_value(o->failed), log_value("the program before was executed again"));
	control_restarted(s->control, why);
}

int restart_adopt(struct restart *r, const struct state *state, char *error, size_t size)
{
	r->inherited = *state;
	r->phase = RESTART_TAKING_OVER;
	again_in(r, RUNS_AFTER_MS);
	return takeover_adopt(r->supervisor, &r->inherited, error, size);
}

int restart_accept(int document)
{
	struct state st;
	char error[512] = "";
	int result = state_read(document, &st, error, sizeof(error));
	if (!result)
		result = state_check_fds(&st, error, sizeof(error));
	struct config *config = result ? NULL : config_from_memfd(st.config);
	if (!result && !config) {
		snprintf(error, sizeof(error), "the configuration in force cannot be read");
		result = -1;
	}
	if (result)
		fprintf(stderr, "%s\n", error);
	else
		printf("hermesd " HERMES_VERSION " takes over from %s\n", st.version);
	config_free(config);
	if (!result)
		state_clear(&st);
	return result ? 1 : 0;
}

static void tick_cb(evutil_socket_t fd, short what, void *arg)
{
	struct restart *r = arg;
	const char *what_is = r->phase == RESTART_CHECKING || r->phase == RESTART_QUIETING ? busy(r->supervisor) : NULL;
	bool late = clock_ms() >= r->deadline;
	int error = 0;
	(void)fd;
	(void)what;
	if (r->phase == RESTART_TAKING_OVER) {
		taken_over(r);
		return;
	}
	if (r->phase == RESTART_CHECKING && !r->pid && !(error = begin_check(r)))
		r->deadline = clock_ms() + CHECK_LIMIT_MS;
	else if (error)
		failf(r, "the new program cannot be tried: %s", strerror(-error));
	else if (r->phase == RESTART_CHECKING && late)
		fail(r, "the new hermesd did not look at the state in 15 s");
	else if (r->phase == RESTART_QUIETING && late)
		failf(r, "%s is under way, and did not end in 60 s", what_is ? what_is : "something");
	else if (r->phase == RESTART_QUIETING && !what_is)
		go(r);
	if (r->phase == RESTART_CHECKING || r->phase == RESTART_QUIETING)
		again_in(r, QUIET_EVERY_MS);
}
