/* SPDX-License-Identifier: Apache-2.0 */
/* Versions from the controllers: asked for with a request that waits, verified, put to the supervisor. */
#include "workers/config-sync/control_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ipc/log.h"
#include "ipc/worker.h"
#include "store/config.h"
#include "workers/config-sync/control_verify.h"

#define WAIT_S 25
#define ANSWER_LIMIT_MS 40000u
#define OFFER_LIMIT_MS 60000u     /* an outcome that never comes */
#define BAD_FIRST_MS 1000u        /* what is not believed is asked for again, not too often */
#define BAD_MAX_MS 30000u
#define SOON_MS 500u

static void on_ready(void *arg);
static const struct control_link_ops ops = {.dial = control_dial, .ready = on_ready, .away = control_away};

static bool held(const struct control *c)
{
	return !control_enabled(c) || c->offer.id || event_pending(c->bad_wait, EV_TIMEOUT, NULL);
}

void control_poll_start(struct control *c)
{
	if (!held(c))
		control_link_open(c->poll);
}

void control_poll_stop(struct control *c)
{
	control_link_reset(c->poll);
}

/* --- offers ---------------------------------------------------------------------------------------------------------- */

static void on_offer_limit(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd, (void)what;
	log_error("no outcome", "number=%" PRIu64 " consequence=%s", c->offer.number, log_value("it is asked for again"));
	c->offer.id = 0;
	control_report_now(c);
	control_poll_start(c);
}

static void take_refusal(struct control *c, const struct ipc_strs *errors)
{
	const char *first = errors->n ? errors->v[0] : "refused";

	json_decref(c->errors);
	c->errors = json_array();
	for (size_t i = 0; i < errors->n; i++)
		json_array_append_new(c->errors, json_string(errors->v[i]));
	log_error("controller's configuration refused", "number=%" PRIu64 " error=%s", c->offer.number, log_value(first));
	control_memory_refuse(c->sync->store, &c->memory, c->offer.number, "rejected", first);
}

static void take_acceptance(struct control *c, const struct ipc_config_outcome *m)
{
	log_info("controller's configuration in force", "number=%" PRIu64 " generation=%" PRIu64 " unchanged=%s", c->offer.number,
	         m->generation, m->unchanged ? "yes" : "no");
	control_memory_know(c->sync->store, &c->memory, c->offer.number, c->offer.version, c->offer.digest);
	control_memory_last(c->sync->store, &c->memory, c->offer.number);
	if (c->memory.refused)
		control_memory_refuse(c->sync->store, &c->memory, 0, NULL, NULL);
	json_decref(c->errors);
	c->errors = NULL;
}

/* It was not even begun; or it compiled, and a worker did not prepare it, which may have ended for other reasons. */
static bool may_be_tried_again(const struct control *c, const struct ipc_config_outcome *m)
{
	return !m->errors.n || (m->generation && c->tried != c->offer.number);
}

void control_poll_outcome(struct control *c, const struct ipc_config_outcome *m)
{
	event_del(c->offer_limit);
	if (m->ok) {
		take_acceptance(c, m);
	} else if (may_be_tried_again(c, m)) {
		log_warn("controller's configuration not taken", "number=%" PRIu64 " error=%s consequence=%s", c->offer.number,
		         log_value(m->errors.n ? m->errors.v[0] : "not begun"), log_value("it is tried once more"));
		c->tried = m->errors.n ? c->offer.number : c->tried;
		control_after(c->bad_wait, BAD_FIRST_MS);
	} else {
		take_refusal(c, &m->errors);
	}
	c->offer.id = 0;
	control_report_now(c);
	control_poll_start(c);
}

/* False: it could not be put to the supervisor. */
static bool offer(struct control *c, const struct control_version *v)
{
	control_confirmed(c);                     /* what is in force led to a controller that speaks the truth */
	struct ipc_config_wanted m = {.id = ++c->last_id, .action = "controller", .version = v->number, .source = "controller",
	                              .author = v->author ? v->author : "controller"};
	int error = sync_controller_document(c->sync, v->number, v->author ? v->author : "", v->reason ? v->reason : "", v->text,
	                                     v->length);

	if (!error)
		error = ipc_send(worker_supervisor(c->sync->worker), IPC_MSG_CONFIG_WANTED, &m, -1);
	if (error) {
		log_error("controller's configuration not kept", "number=%" PRIu64 " error=%s", v->number, log_value(strerror(-error)));
		return false;
	}
	c->offer = (struct control_offer){.id = m.id, .number = v->number, .version = v->version};
	snprintf(c->offer.digest, sizeof(c->offer.digest), "%s", v->digest);
	control_after(c->offer_limit, OFFER_LIMIT_MS);
	return true;
}

/* --- answers --------------------------------------------------------------------------------------------------------- */

/* Loudly, reported, and asked for again: the next controller, or the same one later, may tell the truth. */
static void disbelieve(struct control *c, uint64_t number, const char *why)
{
	bool news = c->bad_number != number || strcmp(c->bad_why, why);

	c->bad_delay_ms = news ? BAD_FIRST_MS : c->bad_delay_ms * 2 < BAD_MAX_MS ? c->bad_delay_ms * 2 : BAD_MAX_MS;
	if (news)
		log_error("controller's configuration not believed", "number=%" PRIu64 " reason=%s", number, log_value(why));
	c->bad_number = number;
	snprintf(c->bad_why, sizeof(c->bad_why), "%s", why);
	control_after(c->bad_wait, c->bad_delay_ms);
	control_report_now(c);
}

static void take_version(struct control *c, const struct http_answer *answer)
{
	const struct control_trust trust = {.domain = c->config->domain ? c->config->domain : "", .node = c->config->node_name,
	                                    .key = c->config->control.key, .last = c->memory.last};
	struct control_version v;
	char why[sizeof(c->bad_why)];

	if (control_verify(answer->body, answer->length, &trust, &v, why, sizeof(why))) {
		disbelieve(c, v.number, why);
	} else {
		c->bad_number = 0;
		c->bad_why[0] = '\0';
		c->bad_delay_ms = 0;
		if (!offer(c, &v))
			control_after(c->bad_wait, BAD_FIRST_MS);
	}
	control_version_clear(&v);
}

static void on_answer(void *arg, const struct http_answer *answer)
{
	struct control *c = arg;
	char why[200];

	if (answer->error || (answer->status != 200 && answer->status != 204)) {
		control_link_lost(c->poll, control_fault(answer, why, sizeof(why)));
		return;
	}
	control_link_good(c->poll);
	control_reached(c);
	if (answer->status == 200)
		take_version(c, answer);
	else if (control_now_ms() - c->asked < SOON_MS)    /* it does not wait */
		control_after(c->bad_wait, BAD_FIRST_MS);
	control_poll_start(c);
}

static void on_ready(void *arg)
{
	struct control *c = arg;
	char path[80];

	if (held(c))
		return;
	snprintf(path, sizeof(path), "/v1/config?have=%" PRIu64 "&wait=%d", c->memory.last, WAIT_S);
	c->asked = control_now_ms();
	if (control_link_request(c->poll, "GET", path, NULL, ANSWER_LIMIT_MS, on_answer))
		control_link_lost(c->poll, "the request could not be sent");
}

static void on_bad_wait(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	control_poll_start(arg);
}

int control_poll_init(struct control *c)
{
	c->poll = control_link_new(c->base, &ops, c);
	c->offer_limit = evtimer_new(c->base, on_offer_limit, c);
	c->bad_wait = evtimer_new(c->base, on_bad_wait, c);
	return c->poll && c->offer_limit && c->bad_wait ? 0 : -1;
}

void control_poll_free(struct control *c)
{
	control_link_free(c->poll);
	if (c->offer_limit)
		event_free(c->offer_limit);
	if (c->bad_wait)
		event_free(c->bad_wait);
}
