/* Watches the workers: those that hang, loop, grow too large or do not do what they were asked in time are replaced. */
#ifndef HERMES_SUPERVISOR_WATCH_H
#define HERMES_SUPERVISOR_WATCH_H

#include "supervisor/child.h"

#define WATCH_PERIOD_MS 250
#define WATCH_LOOP_MS 1000     /* silent for so long ... */
#define WATCH_LOOP_CPU_MS 700  /* ... and burning so much CPU time: it loops */
#define WATCH_HANG_MS 10000    /* silent for so long: it hangs */

struct watch;
struct watch *watch_new(struct supervisor *s);
void watch_free(struct watch *watch);
/* The child answered (sequence 0: it said READY). */
void watch_pong(struct child *child, uint64_t sequence);

/* What silence means: NULL, or why the worker is to be killed. Times in ms. */
const char *watch_verdict(uint64_t silent, uint64_t cpu);

#endif
