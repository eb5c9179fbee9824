/* Talks to systemd (sd_notify(3)); does nothing where hermesd was not started by it. */
#ifndef HERMES_SUPERVISOR_NOTIFY_H
#define HERMES_SUPERVISOR_NOTIFY_H

struct event_base;
struct notify;

/* Starts the watchdog's pings where systemd wants them. */
struct notify *notify_new(struct event_base *base);
void notify_free(struct notify *notify);
void notify_ready(const char *status);
void notify_status(const char *status);
void notify_reloading(void);
void notify_stopping(void);
/* Under journald: a socket connected to it, for ourselves and the workers. Else -1. */
int notify_journal(void);

#endif
