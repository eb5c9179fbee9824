/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/config-sync/control_link.h"

#include <event2/event.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 200u
#define BACKOFF_MAX_MS 10000u
#define DIAL_LIMIT_MS 5000u           /* an answer to DIAL that never comes */
#define ANSWER_MAX (100u << 20)       /* a document of 16 MiB, each byte escaped */

struct control_link {
	struct event_base *base;
	const struct control_link_ops *ops;
	void *arg;
	struct http_client *http;
	uint64_t dialing;                 /* the DIAL's id; 0: none under way */
	struct event *again;              /* back-off, or the dial's limit */
	unsigned delay_ms;                /* the next back-off; 0: none yet */
	bool good;                        /* it served since it was last lost */
};

static void arm(struct control_link *l, unsigned ms)
{
	struct timeval after = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(l->again, &after);
}

static void dial(struct control_link *l)
{
	static uint64_t last;             /* one row of ids over all links */

	l->dialing = ++last;
	arm(l, DIAL_LIMIT_MS);
	int error = l->ops->dial(l->arg, l->dialing);
	if (error)
		control_link_lost(l, strerror(-error));
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct control_link *l = arg;

	(void)fd, (void)what;
	if (l->dialing)
		control_link_lost(l, "not dialled in time");
	else if (l->http && http_client_usable(l->http))
		l->ops->ready(l->arg);
	else
		control_link_open(l);
}

void control_link_open(struct control_link *l)
{
	if (l->dialing || event_pending(l->again, EV_TIMEOUT, NULL))
		return;
	if (l->http && http_client_usable(l->http)) {
		arm(l, 0);
		return;
	}
	http_client_free(l->http);
	l->http = NULL;
	dial(l);
}

void control_link_reset(struct control_link *l)
{
	event_del(l->again);
	http_client_free(l->http);
	l->http = NULL;
	l->dialing = 0;
	l->delay_ms = 0;
	l->good = false;
}

void control_link_lost(struct control_link *l, const char *why)
{
	unsigned delay = 0;

	http_client_free(l->http);
	l->http = NULL;
	l->dialing = 0;
	if (!l->good) {
		delay = l->delay_ms = !l->delay_ms ? BACKOFF_FIRST_MS : l->delay_ms * 2 < BACKOFF_MAX_MS ? l->delay_ms * 2 : BACKOFF_MAX_MS;
		delay = delay / 2 + randombytes_uniform(delay / 2 + 1);
	}
	l->good = false;
	arm(l, delay);
	if (delay)
		l->ops->away(l->arg, why);
}

void control_link_hurry(struct control_link *l)
{
	if (!l->http && !l->dialing && event_pending(l->again, EV_TIMEOUT, NULL))
		arm(l, 0);
}

void control_link_good(struct control_link *l)
{
	l->good = true;
	l->delay_ms = 0;
}

int control_link_request(struct control_link *l, const char *method, const char *path, const char *body, uint32_t timeout_ms,
                         http_answered *done)
{
	if (!l->http)
		return -1;
	return http_client_request(l->http, method, "controller", path, NULL, body, body ? strlen(body) : 0, timeout_ms, NULL, done,
	                           l->arg);
}

bool control_link_dialed(struct control_link *l, uint64_t id, int fd, const char *error)
{
	if (!l->dialing || l->dialing != id)
		return false;
	l->dialing = 0;
	event_del(l->again);
	if (fd >= 0)
		l->http = http_client_new(l->base, fd, ANSWER_MAX);
	if (l->http)
		l->ops->ready(l->arg);
	else
		control_link_lost(l, error ? error : "no connection");
	return true;
}

struct control_link *control_link_new(struct event_base *base, const struct control_link_ops *ops, void *arg)
{
	struct control_link *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	*l = (struct control_link){.base = base, .ops = ops, .arg = arg};
	l->again = evtimer_new(base, on_again, l);
	if (l->again)
		return l;
	free(l);
	return NULL;
}

void control_link_free(struct control_link *l)
{
	if (!l)
		return;
	http_client_free(l->http);
	event_free(l->again);
	free(l);
}
