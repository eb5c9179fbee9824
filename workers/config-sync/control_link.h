/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP connection to the controllers, by way of our own tunnel worker: dialled by the supervisor, dialled again when it is lost
 * (at once the first time, then backing off from 0.2 s to 10 s), one request at a time. */
#ifndef HERMES_CONFIG_SYNC_CONTROL_LINK_H
#define HERMES_CONFIG_SYNC_CONTROL_LINK_H

#include "ipc/http_client.h"

struct control_link;

struct control_link_ops {
	/* Asks the supervisor for a connection; the answer comes by control_link_dialed() with the same id. 0 or -errno. */
	int (*dial)(void *arg, uint64_t id);
	/* Connected, nothing under way: the time for control_link_request(). */
	void (*ready)(void *arg);
	/* It backs off: this is more than one lost connection. */
	void (*away)(void *arg, const char *why);
};

struct control_link *control_link_new(struct event_base *base, const struct control_link_ops *ops, void *arg);
void control_link_free(struct control_link *link);
/* ready() will come: now, after a dial, or when the back-off is over. */
void control_link_open(struct control_link *link);
/* Drops the connection and forgets what is under way and the back-off. */
void control_link_reset(struct control_link *link);
/* Drops the connection; opens it again, in time. */
void control_link_lost(struct control_link *link, const char *why);
/* Another link got through: no more waiting. */
void control_link_hurry(struct control_link *link);
/* The last answer was a good one. */
void control_link_good(struct control_link *link);
/* From ready(), or after an answer while usable. body NULL: none. 0 or -errno. */
int control_link_request(struct control_link *link, const char *method, const char *path, const char *body, uint32_t timeout_ms,
                         http_answered *done);
/* Takes fd over (-1: it failed, error says why). False: the id is not this link's; fd is untouched. */
bool control_link_dialed(struct control_link *link, uint64_t id, int fd, const char *error);

#endif
