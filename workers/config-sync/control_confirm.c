/* SPDX-License-Identifier: Apache-2.0 */
/* Confirmed commit: after a change a controller must be reached over new connections; one that cuts us off is taken back.
 *
 * Taken back is what a controller sent (always), and what a file or an operator brought, if a controller was within reach before: who was
 * away already does not judge. What is pending is known from the store (in force, and not the confirmed version), what is to be taken back
 * from a note that is written before the version is in force: neither our end nor hermesd's loses it. */
#include "workers/config-sync/control_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ipc/log.h"
#include "ipc/worker.h"
#include "store/config.h"

#define SETTLE_MS 1000u           /* routes, devices and connections of before have had their time */
#define AGAIN_MS 5000u
#define SELF "config-sync"        /* as a source */

static bool is_from(const struct control *c, uint64_t generation, const char *source)
{
	struct store_version v = {0};
	bool is = !store_peek(c->sync->store, generation, &v) && !strcmp(v.source, source);

	store_version_clear(&v);
	return is;
}

static bool is_controllers(const struct control *c, uint64_t generation)
{
	return is_from(c, generation, "controller");
}

void control_storing(struct control *c, uint64_t generation)
{
	bool has_control = c->prepared && c->prepared_generation == generation && c->prepared->control.n_endpoints;
	bool wanted = is_controllers(c, generation) || (c->connected && has_control);

	if (!wanted || c->rolling_back || !store_confirmed(c->sync->store))
		return;
	int error = control_memory_arm(c->sync->store, &c->memory, generation);
	if (error)
		log_error("store", "error=%s consequence=%s", log_value(strerror(-error)),
		          log_value("this change would not be taken back after a crash"));
}

void control_confirm_begin(struct control *c)
{
	uint64_t confirmed = store_confirmed(c->sync->store);
	bool theirs = is_controllers(c, c->generation);

	event_del(c->settle);
	event_del(c->confirm);
	c->settled = false;
	c->pending = confirmed != c->generation && (control_enabled(c) || theirs);
	c->armed = c->pending && confirmed && (c->memory.armed == c->generation || theirs);
	if (!c->pending)
		return;
	uint32_t limit = c->config->control.confirm ? c->config->control.confirm : 60000;
	control_after(c->settle, limit / 4 < SETTLE_MS ? limit / 4 : SETTLE_MS);
	control_after(c->confirm, limit);
	c->deadline = control_now_ms() + limit;
	log_info("waiting for a controller's confirmation", "generation=%" PRIu64 " limit_ms=%u rolls_back=%s", c->generation, limit,
	         c->armed ? "yes" : "no");
}

/* Connections of the first moment may have gone by old ways. */
static void on_settled(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;

	(void)fd, (void)what;
	c->settled = true;
	if (!control_enabled(c))
		return;
	control_report_stop(c);
	control_report_now(c);
}

void control_confirmed(struct control *c)
{
	if (!c->pending)
		return;
	int error = store_confirm(c->sync->store, c->generation);
	if (error) {
		log_error("store", "error=%s consequence=%s", log_value(strerror(-error)), log_value("not confirmed yet"));
		return;
	}
	c->pending = c->armed = false;
	event_del(c->confirm);
	log_info("configuration confirmed", "generation=%" PRIu64 " number=%" PRIu64, c->generation, control_number(c));
}

/* The number is not taken again from here on, even if we end before it is done. */
static void roll_back(struct control *c, uint64_t to)
{
	struct ipc_config_wanted m = {.id = ++c->last_id, .action = "rollback", .version = to, .source = SELF,
	                              .author = "confirmed commit"};
	uint64_t number = control_number(c);

	if (is_from(c, c->generation, "file"))
		m.stale = "rolled back: with it no controller was reached";

	log_error("no controller after a change", "generation=%" PRIu64 " number=%" PRIu64 " limit_ms=%u reason=%s consequence=%s to=%" PRIu64,
	          c->generation, number, c->config->control.confirm, log_value(c->why), log_value("the change is rolled back"), to);
	if (number && is_controllers(c, c->generation))
		control_memory_refuse(c->sync->store, &c->memory, number, "rolled back", "no controller was reached after it was in force");
	c->rolling_back = m.id;
	control_after(c->confirm, 12 * AGAIN_MS);
	if (ipc_send(worker_supervisor(c->sync->worker), IPC_MSG_CONFIG_WANTED, &m, -1)) {
		c->rolling_back = 0;
		control_after(c->confirm, AGAIN_MS);
	}
}

static void on_confirm_limit(evutil_socket_t fd, short what, void *arg)
{
	struct control *c = arg;
	uint64_t confirmed = store_confirmed(c->sync->store);

	(void)fd, (void)what;
	c->rolling_back = 0;                       /* an outcome that never came */
	if (!c->pending)
		return;
	if (c->armed && confirmed && confirmed != c->generation) {
		roll_back(c, confirmed);
		return;
	}
	log_warn("no controller yet", "generation=%" PRIu64 " reason=%s consequence=%s", c->generation, log_value(c->why),
	         log_value(confirmed ? "kept: it was out of reach before this change" : "kept: no version was ever confirmed"));
	control_after(c->confirm, c->config->control.confirm ? c->config->control.confirm : 60000);
}

void control_confirm_outcome(struct control *c, const struct ipc_config_outcome *m)
{
	c->rolling_back = 0;
	if (m->ok) {
		log_warn("rolled back", "generation=%" PRIu64 " number=%" PRIu64, c->generation, control_number(c));
		control_report_now(c);
		return;
	}
	log_error("rollback refused", "error=%s", log_value(m->errors.n ? m->errors.v[0] : "?"));
	control_after(c->confirm, AGAIN_MS);
}

int control_confirm_init(struct control *c)
{
	c->settle = evtimer_new(c->base, on_settled, c);
	c->confirm = evtimer_new(c->base, on_confirm_limit, c);
	return c->settle && c->confirm ? 0 : -1;
}

void control_confirm_free(struct control *c)
{
	if (c->settle)
		event_free(c->settle);
	if (c->confirm)
		event_free(c->confirm);
}
