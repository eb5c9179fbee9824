/* While a new image takes over: whatever goes wrong, an error, a crash or a hang, executes the one before again, with the same
 * state. */
#ifndef HERMES_SUPERVISOR_GUARD_H
#define HERMES_SUPERVISOR_GUARD_H

struct options;

#define GUARD_LIMIT_S 20

/* options->state and ->executable: descriptors, of the document and of the program before. Does nothing in an image that was itself
 * executed again for that reason (options->failed). */
void guard_arm(const struct options *options, const char *program);
/* The image has taken over: from here on it is on its own. */
void guard_disarm(void);
/* Executes the image before where one is guarded; returns otherwise. reason: for people. */
void guard_fail(const char *reason);

/* Executes a supervisor that takes the state over: by path, or where executable >= 0 that descriptor. Returns -errno. failed: why the
 * one that was tried did not, or NULL. */
int guard_execute(const struct options *options, const char *program, int executable, int state, int before, const char *failed);

#endif
