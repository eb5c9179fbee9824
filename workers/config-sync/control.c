/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/config-sync/control_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ipc/json.h"
#include "ipc/log.h"
#include "ipc/worker.h"
#include "store/config.h"

bool control_enabled(const struct control *c)
{
	return c->config && c->config->control.n_endpoints;
}

uint64_t control_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void control_after(struct event *timer, unsigned ms)
{
	struct timeval after = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	event_add(timer, &after);
}

uint64_t control_number(const struct control *c)
{
	return c->generation ? sync_controller_number(c->sync, c->generation) : 0;
}

/* --- within reach or not ------------------------------------------------------------------------------------------- */

void control_reached(struct control *c)
{
	if (c->connected)
		return;
	c->connected = true;
	c->since = (int64_t)time(NULL);
	control_link_hurry(c->poll);
	control_link_hurry(c->reports);
	log_info("controller reached", "generation=%" PRIu64 " number=%" PRIu64, c->generation, control_number(c));
}

void control_away(void *arg, const char *why)
{
	struct control *c = arg;
	bool news = c->connected || !c->since;

	snprintf(c->why, sizeof(c->why), "%s", why);
	if (!news)
		return;
	c->connected = false;
	c->since = (int64_t)time(NULL);
	log_warn("controller away", "reason=%s consequence=%s", log_value(c->why),
	         log_value("the configuration in force holds; it is tried again and again"));
}

int control_dial(void *arg, uint64_t id)
{
	struct control *c = arg;
	struct ipc_dial m = {.id = id, .address = "control"};

	return ipc_send(worker_supervisor(c->sync->worker), IPC_MSG_DIAL, &m, -1);
}

void control_dialed(struct control *c, const struct ipc_dialed *m, int *fd)
{
	int taken = *fd;

	if (control_link_dialed(c->poll, m->id, taken, m->error) || control_link_dialed(c->reports, m->id, taken, m->error) ||
	    control_link_dialed(c->renew, m->id, taken, m->error))
		*fd = -1;
}

/* {"error": {"code", "message"}} of the controller, or what our own tunnel worker says instead of it. */
const char *control_fault(const struct http_answer *answer, char *text, size_t size)
{
	json_t *root = answer->error ? NULL : json_loadb(answer->body, answer->length, 0, NULL);
	const char *message = json_string_value(json_object_get(json_object_get(root, "error"), "message"));

	if (answer->error)
		snprintf(text, size, "%s", answer->reason ? answer->reason : strerror(-answer->error));
	else if (message)
		snprintf(text, size, "answered with status %u: %s", answer->status, message);
	else
		snprintf(text, size, "answered with status %u: `hermes-admin traceroute --listener hermes-control http://controller/` says why",
		         answer->status);
	json_decref(root);
	return text;
}

/* --- configuration ---------------------------------------------------------------------------------------------------- */

void control_prepare(struct control *c, uint64_t generation, struct config *config)
{
	config_free(c->prepared);
	c->prepared = config;
	c->prepared_generation = generation;
}

void control_abort(struct control *c, uint64_t generation)
{
	if (c->prepared_generation != generation)
		return;
	config_free(c->prepared);
	c->prepared = NULL;
	c->prepared_generation = 0;
}

/* Connections of before would prove nothing of what is in force now. */
void control_commit(struct control *c, uint64_t generation)
{
	if (!c->prepared || c->prepared_generation != generation)
		return;
	config_free(c->config);
	c->config = c->prepared;
	c->generation = generation;
	c->prepared = NULL;
	c->prepared_generation = 0;
	control_poll_stop(c);
	control_report_stop(c);
	control_renew_stop(c);
	control_confirm_begin(c);
	if (!control_enabled(c)) {
		c->connected = false;
		c->since = 0;
		return;
	}
	control_poll_start(c);
	if (!c->offer.id)                     /* the outcome will tell more */
		control_report_now(c);
}

void control_outcome(struct control *c, const struct ipc_config_outcome *m)
{
	if (c->offer.id && m->id == c->offer.id)
		control_poll_outcome(c, m);
	else if (c->rolling_back && m->id == c->rolling_back)
		control_confirm_outcome(c, m);
}

void control_peer(struct control *c, enum ipc_role role, int fd)
{
	if (role == IPC_KEEPER)
		control_renew_peer(c, fd);
	else
		close(fd);
}

/* --- status ----------------------------------------------------------------------------------------------------------- */

static void put_pending(const struct control *c, struct json *j)
{
	uint64_t now = control_now_ms();

	if (!c->pending) {
		json_raw(j, "pending", "null");
		return;
	}
	json_begin_object(j, "pending");
	json_uint(j, "version", c->generation);
	json_uint(j, "confirmed", store_confirmed(c->sync->store));
	json_bool(j, "rolls_back", c->armed);
	if (c->armed)
		json_double(j, "seconds_left", c->deadline > now ? (double)(c->deadline - now) / 1000.0 : 0);
	json_end(j);
}

static void put_refused(const struct control *c, struct json *j)
{
	bool bad = c->bad_number || c->bad_why[0];

	if (!bad && !c->memory.refused) {
		json_raw(j, "refused", "null");
		return;
	}
	json_begin_object(j, "refused");
	json_uint(j, "number", bad ? c->bad_number : c->memory.refused);
	json_str(j, "state", bad ? "not believed" : c->memory.refused_state);
	json_str(j, "reason", bad ? c->bad_why : c->memory.refused_error);
	json_end(j);
}

void control_status(struct control *c, uint64_t id)
{
	struct json j = JSON_INIT;

	json_begin_object(&j, NULL);
	json_bool(&j, "configured", control_enabled(c));
	json_bool(&j, "connected", c->connected);
	json_int(&j, "since", c->since);
	json_str(&j, "reason", c->connected || !c->why[0] ? NULL : c->why);
	json_uint(&j, "number", control_number(c));
	json_uint(&j, "last", c->memory.last);
	json_uint(&j, "confirmed", store_confirmed(c->sync->store));
	put_pending(c, &j);
	put_refused(c, &j);
	json_end(&j);
	worker_reply(c->sync->worker, id, j.failed ? 1 : 0, j.failed ? NULL : j.data, j.failed ? "out of memory" : NULL);
	json_free(&j);
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

struct control *control_new(struct sync *sync)
{
	struct control *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->sync = sync;
	c->base = worker_base(sync->worker);
	control_memory_load(sync->store, &c->memory);
	if (sodium_init() >= 0 && !control_poll_init(c) && !control_confirm_init(c) && !control_report_init(c) && !control_renew_init(c))
		return c;
	control_free(c);
	return NULL;
}

void control_free(struct control *c)
{
	if (!c)
		return;
	control_poll_free(c);
	control_confirm_free(c);
	control_report_free(c);
	control_renew_free(c);
	config_free(c->prepared);
	config_free(c->config);
	free(c);
}
