/* SPDX-License-Identifier: Apache-2.0 */
/* Reports: what the supervisor gathers of the node, and what became of the controller's versions; every control.report, and at once when
 * there is news. One that is answered over a connection of after a change confirms the change. */
#include "workers/config-sync/control_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/json.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"

#define ANSWER_LIMIT_MS 10000u
#define GATHER_LIMIT_MS 3000u
#define GATHERED_MAX ((size_t)4 << 20)
#define REPORT_BYTES_MAX ((size_t)512 << 10)
#define REPORT_MIN_MS 100u
#define REPORT_MAX_MS 3600000u

static void on_ready(void *arg);
static const struct control_link_ops ops = {.dial = control_dial, .ready = on_ready, .away = control_away};

/* --- what it says ---------------------------------------------------------------------------------------------------- */

static void put_refused(const struct control *c, struct json *j, uint64_t number)
{
	bool bad = c->bad_why[0], old = !c->memory.refused || c->memory.refused < number;
	char *all = !bad && c->errors ? json_dumps(c->errors, JSON_COMPACT) : NULL;

	json_str(j, "state", bad ? "rejected" : old ? "accepted" : c->memory.refused_state);
	if (!bad && old) {
		json_raw(j, "refused", "null");
		free(all);
		return;
	}
	json_begin_object(j, "refused");
	json_uint(j, "number", bad ? c->bad_number : c->memory.refused);
	if (all) {
		json_raw(j, "errors", all);
	} else {
		json_begin_array(j, "errors");
		json_str(j, NULL, bad ? c->bad_why : c->memory.refused_error);
		json_end(j);
	}
	json_end(j);
	free(all);
}

/* The members of the supervisor's object, as they are; of very many next hops nothing, since a controller takes no report of any size. */
static void put_gathered(struct json *j, const char *gathered)
{
	json_t *root = gathered ? json_loads(gathered, JSON_REJECT_DUPLICATES, NULL) : NULL, *value;
	const char *key;

	if (gathered && strlen(gathered) > REPORT_BYTES_MAX)
		json_object_set_new(root, "clusters", json_array());
	json_object_foreach(root, key, value) {
		char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
		json_raw(j, key, text ? text : "null");
		free(text);
	}
	json_decref(root);
}

char *control_report_write(const struct control *c, const char *gathered)
{
	uint64_t number = control_number(c);
	const struct control_known *known = control_memory_find(&c->memory, number);
	struct json j = JSON_INIT;

	json_begin_object(&j, NULL);
	json_uint(&j, "number", number);
	json_uint(&j, "version", known ? known->version : 0);
	json_str(&j, "digest", known ? known->digest : "");
	put_refused(c, &j, number);
	json_bool(&j, "confirmed", !c->pending);
	put_gathered(&j, gathered);
	json_end(&j);
	if (!j.failed)
		return j.data;
	json_free(&j);
	return NULL;
}

/* --- when ------------------------------------------------------------------------------------------------------------ */

/* Not all nodes at the same moment. */
static void schedule(struct control *c)
{
	uint32_t ms = c->report_ms ? c->report_ms : c->config->control.report ? c->config->control.report : 5000;

	control_after(c->report_timer, ms - ms / 10 + randombytes_uniform(ms / 5 + 1));
}

void control_report_stop(struct control *c)
{
	control_link_reset(c->reports);
	event_del(c->report_timer);
	event_del(c->gather_limit);
	c->gathering = 0;
	c->reporting = c->report_again = false;
	free(c->body);
	c->body = NULL;
}

/* The report as it is now; the connection may have to come first. */
static void send_report(struct control *c, const char *gathered)
{
	free(c->body);
	c->body = control_report_write(c, gathered);
	c->report_settled = c->settled;
	if (c->body)
		control_link_open(c->reports);
	else
		c->reporting = false;
}

static void on_gather_limit(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd, (void)what;
	c->gathering = 0;
	send_report(c, NULL);
}

void control_report_now(struct control *c)
{
	struct ipc_admin_request m = {.id = ++c->last_id, .verb = "report"};

	if (!control_enabled(c))
		return;
	event_del(c->report_timer);
	if (c->reporting) {
		c->report_again = true;
		return;
	}
	c->reporting = true;
	c->report_again = false;
	c->gathering = m.id;
	control_after(c->gather_limit, GATHER_LIMIT_MS);
	if (ipc_send(worker_supervisor(c->sync->worker), IPC_MSG_ADMIN_REQUEST, &m, -1))
		control_after(c->gather_limit, 0);
}

void control_gathered(struct control *c, const struct ipc_admin_reply *m, int fd)
{
	const void *data = NULL;
	size_t length = 0;
	char *text = NULL;

	if (!c->gathering || m->id != c->gathering)
		return;
	c->gathering = 0;
	event_del(c->gather_limit);
	if (fd >= 0 && !memfd_map(fd, GATHERED_MAX, &data, &length))
		text = strndup(data, length);
	memfd_unmap(data, length);
	send_report(c, fd >= 0 ? text : m->json);
	free(text);
}

/* --- the answer ------------------------------------------------------------------------------------------------------ */

static void take_wishes(struct control *c, const struct http_answer *answer)
{
	json_t *root = json_loadb(answer->body, answer->length, 0, NULL);
	json_int_t ms = json_integer_value(json_object_get(root, "report_ms"));

	c->report_ms = ms < REPORT_MIN_MS ? 0 : ms > REPORT_MAX_MS ? REPORT_MAX_MS : (uint32_t)ms;
	if (json_is_true(json_object_get(root, "renew")))
		control_renew_begin(c, "the controller asks for it");
	json_decref(root);
}

static void on_answer(void *arg, const struct http_answer *answer)
{
	struct control *c = arg;
	char why[200];

	if (answer->error || answer->status != 200) {
		control_link_lost(c->reports, control_fault(answer, why, sizeof(why)));
		return;                               /* the body waits for the next connection */
	}
	free(c->body);
	c->body = NULL;
	c->reporting = false;
	control_link_good(c->reports);
	control_reached(c);
	if (c->report_settled)
		control_confirmed(c);
	take_wishes(c, answer);
	if (c->report_again || (c->pending && c->settled && !c->report_settled))
		control_report_now(c);
	else
		schedule(c);
}

/* What waited too long for its connection is old: another is made. */
static void on_ready(void *arg)
{
	struct control *c = arg;

	if (!c->body)
		return;
	if (c->report_again) {
		c->reporting = false;
		control_report_now(c);
		return;
	}
	c->report_again = false;
	if (control_link_request(c->reports, "POST", "/v1/report", c->body, ANSWER_LIMIT_MS, on_answer))
		control_link_lost(c->reports, "the request could not be sent");
}

static void on_report_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	control_report_now(arg);
}

int control_report_init(struct control *c)
{
	c->reports = control_link_new(c->base, &ops, c);
	c->report_timer = evtimer_new(c->base, on_report_timer, c);
	c->gather_limit = evtimer_new(c->base, on_gather_limit, c);
	return c->reports && c->report_timer && c->gather_limit ? 0 : -1;
}

void control_report_free(struct control *c)
{
	control_link_free(c->reports);
	if (c->report_timer)
		event_free(c->report_timer);
	if (c->gather_limit)
		event_free(c->gather_limit);
	free(c->body);
	json_decref(c->errors);
}
