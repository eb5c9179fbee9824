#include "supervisor/guard.h"
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WORDS 16
#define STACK_BYTES 65536

/* The words of a supervisor's command line. */
struct line {
	const char *v[WORDS];
	char state[16], executable[16];
};

static void make_line(struct line *l, const struct options *o, const char *program, int state, int executable, const char *failed)
{
	unsigned n = 0;
	snprintf(l->state, sizeof(l->state), "%d", state);
	snprintf(l->executable, sizeof(l->executable), "%d", executable);
	const char *const words[] = {
		program, "-c", o->config, "--state-dir", o->state_dir, "--runtime-dir", o->runtime_dir, "--take-over", l->state, "--before",
		l->executable, failed ? "--failed" : NULL, failed,
	};
	for (; n < sizeof(words) / sizeof(*words); n++)
		l->v[n] = words[n];
	l->v[n] = NULL;
}

int guard_execute(const struct options *o, const char *program, int executable, int state, int before, const char *failed)
{
	struct line l;
	make_line(&l, o, program, state, before, failed);
	if (executable < 0)
		execve(program, (char **)(uintptr_t)l.v, environ);
	else
		syscall(SYS_execveat, executable, "", l.v, environ, AT_EMPTY_PATH);
	return -errno;
}

/* --- armed ---------------------------------------------------------------------------------------------------------- */

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
static struct line before;             /* made while all is well: a handler may only execute */
static int before_executable = -1;
static char stack[STACK_BYTES];        /* a stack that overflowed is no place for a handler */

static void execute_before(const char *reason)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	before.v[11] = "--failed";
	before.v[12] = reason;
	before.v[13] = NULL;
	alarm(0);
	syscall(SYS_execveat, before_executable, "", before.v, environ, AT_EMPTY_PATH);
}

static void on_fatal(int number)
{
	execute_before(number == SIGALRM ? "it hung" : number == SIGABRT ? "it aborted" : number == SIGSEGV ? "it crashed (signal 11)" :
	               "it crashed");
	_exit(1);
}

#define FATAL (sizeof(fatal_signals) / sizeof(*fatal_signals))
static struct sigaction usual[FATAL];  /* a sanitizer has handlers of its own */

static void handle(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
	for (size_t i = 0; i < FATAL; i++)
		sigaction(fatal_signals[i], &action, &usual[i]);
}

void guard_arm(const struct options *o, const char *program)
{
	const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof(stack)};
	if (o->state < 0 || o->before < 0 || o->failed)
		return;
	make_line(&before, o, program, o->state, o->before, NULL);
	before_executable = o->before;
	sigaltstack(&alternative, NULL);
	handle(on_fatal);
	alarm(GUARD_LIMIT_S);
}

void guard_disarm(void)
{
	if (before_executable < 0)
		return;
	alarm(0);
	for (size_t i = 0; i < FATAL; i++)
		sigaction(fatal_signals[i], &usual[i], NULL);
	before_executable = -1;
}

void guard_fail(const char *reason)
{
	if (before_executable >= 0)
		execute_before(reason);
}
