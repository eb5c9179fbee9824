/* SPDX-License-Identifier: Apache-2.0 */
/* The node's certificate: keeper makes a key and a request, the controller certifies it, keeper takes both into use. Keys never come here. */
#include "workers/config-sync/control_internal.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/json.h"
#include "ipc/log.h"
#include "ipc/memfd.h"
#include "ipc/worker.h"
#include "store/config.h"

#define ANSWER_LIMIT_MS 20000u
#define AGAIN_MS 60000u           /* after a failure, and between two renewals */
#define TEXT_MAX ((size_t)1 << 20)

static void on_ready(void *arg);
static const struct control_link_ops ops = {.dial = control_dial, .ready = on_ready, .away = control_away};

static void set_state(struct control *c, enum renew_state state)
{
	static const char *const names[] = {[RENEW_IDLE] = "idle", [RENEW_REQUEST] = "making a request", [RENEW_ASKING] = "asking",
	                                    [RENEW_INSTALL] = "installing"};

	log_debug("certificate", "state=%s was=%s", log_value(names[state]), log_value(names[c->renew_state]));
	c->renew_state = state;
}

static void ended(struct control *c, const char *error)
{
	if (error)
		log_error("certificate not renewed", "reason=%s", log_value(error));
	set_state(c, RENEW_IDLE);
	control_link_reset(c->renew);
	free(c->renew_text);
	c->renew_text = NULL;
	control_after(c->renew_timer, AGAIN_MS);
}

static void ask_keeper(struct control *c, const char *op, const char *text)
{
	struct ipc_keeper_request m = {.id = ++c->last_id, .op = op, .text = text};

	c->renew_id = m.id;
	if (!c->keeper || ipc_send(c->keeper, IPC_MSG_KEEPER_REQUEST, &m, -1))
		ended(c, "keeper is not there");
}

void control_renew_begin(struct control *c, const char *why)
{
	if (c->renew_state != RENEW_IDLE || event_pending(c->renew_timer, EV_TIMEOUT, NULL))
		return;
	log_info("renewing the certificate", "reason=%s", log_value(why));
	set_state(c, RENEW_REQUEST);
	ask_keeper(c, "csr", NULL);
}

/* The new certificate comes in with a change of configuration: what is being installed goes on. */
void control_renew_stop(struct control *c)
{
	if (c->renew_state == RENEW_ASKING)
		ended(c, "the configuration changed meanwhile");
}

/* --- the controller ---------------------------------------------------------------------------------------------------- */

static void on_answer(void *arg, const struct http_answer *answer)
{
	struct control *c = arg;
	char why[200];
	json_t *root = answer->error ? NULL : json_loadb(answer->body, answer->length, 0, NULL);
	const char *certificate = json_string_value(json_object_get(root, "certificate"));

	if (answer->error || answer->status != 200) {
		ended(c, control_fault(answer, why, sizeof(why)));
	} else if (!certificate) {
		ended(c, "the controller answered without a certificate");
	} else {
		set_state(c, RENEW_INSTALL);
		ask_keeper(c, "install", certificate);
	}
	json_decref(root);
}

static void on_ready(void *arg)
{
	struct control *c = arg;
	struct json j = JSON_INIT;

	if (c->renew_state != RENEW_ASKING || !c->renew_text)
		return;
	json_begin_object(&j, NULL);
	json_str(&j, "request", c->renew_text);
	json_end(&j);
	if (j.failed || control_link_request(c->renew, "POST", "/v1/renew", j.data, ANSWER_LIMIT_MS, on_answer))
		ended(c, "the request could not be sent");
	json_free(&j);
}

/* --- keeper ------------------------------------------------------------------------------------------------------------ */

static void take_reply(struct control *c, const struct ipc_keeper_reply *m, const char *text)
{
	if (m->id != c->renew_id || c->renew_state == RENEW_IDLE || c->renew_state == RENEW_ASKING)
		return;
	if (m->error) {
		ended(c, m->error);
	} else if (c->renew_state == RENEW_INSTALL) {
		log_info("certificate renewed", "%s", "");
		ended(c, NULL);
	} else if (!text || !control_enabled(c)) {
		ended(c, "keeper answered without a request");
	} else {
		free(c->renew_text);
		c->renew_text = strdup(text);
		set_state(c, RENEW_ASKING);
		control_link_open(c->renew);
	}
}

static void on_keeper(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	char *text = NULL;
	size_t length = 0;

	(void)channel;
	if (type != IPC_MSG_KEEPER_REPLY)
		return;
	if (*fd >= 0)
		fd_read_all(*fd, TEXT_MAX, &text, &length);
	take_reply(arg, &m->keeper_reply, *fd >= 0 ? text : m->keeper_reply.text);
	free(text);
}

static void on_keeper_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct control *c = arg;

	if (strcmp(reason, "closed"))
		log_error("keeper lied", "fault=%s", log_value(reason));
	ipc_channel_free(channel);
	c->keeper = NULL;
	if (c->renew_state == RENEW_REQUEST || c->renew_state == RENEW_INSTALL)
		ended(c, "keeper ended");
}

void control_renew_peer(struct control *c, int fd)
{
	if (c->keeper)
		ipc_channel_free(c->keeper);
	c->keeper = ipc_channel_new(c->base, fd, IPC_CONFIG_SYNC, 0, IPC_KEEPER, on_keeper, on_keeper_ended, c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what, (void)arg;          /* it may be asked for again */
}

int control_renew_init(struct control *c)
{
	c->renew = control_link_new(c->base, &ops, c);
	c->renew_timer = evtimer_new(c->base, on_timer, c);
	return c->renew && c->renew_timer ? 0 : -1;
}

void control_renew_free(struct control *c)
{
	control_link_free(c->renew);
	if (c->renew_timer)
		event_free(c->renew_timer);
	if (c->keeper)
		ipc_channel_free(c->keeper);
	free(c->renew_text);
}
