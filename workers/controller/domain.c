/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/domain.h"
#include "ipc/log.h"
#include "workers/controller/compose.h"
#include "workers/controller/nodes.h"
#include "workers/controller/objectives.h"
#include "workers/controller/proposal.h"
#include "workers/controller/rollout.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GRACE_MS 10000                /* for connections to be made */

int64_t domain_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool domain_present(void *arg, const char *node)
{
	struct domain *d = arg;

	return d->controller->nodes && nodes_status(d->controller->nodes, node) == NODE_ONLINE;
}

bool domain_is_fresh(const struct domain *d)
{
	return domain_now() - d->leads_since < d->grace;
}

/* --- what configurations follow from ------------------------------------------------------------------------------ */

static void on_override(void *arg, const struct kv_value *value)
{
	struct domain *d = arg;
	char reason[128];

	snprintf(reason, sizeof(reason), "maintenance of %s", value->key + strlen("override/"));
	publish_all(d->publish, reason);
}

static bool remember_revoked(void *arg, const struct kv_value *value)
{
	struct domain *d = arg;
	char entry[96];

	if (compose_revoked(value, entry, sizeof(entry)))
		json_object_set_new(d->revoked, value->key + strlen("node/"), json_string(entry));
	return true;
}

static void on_node(void *arg, const struct kv_value *value)
{
	struct domain *d = arg;
	const char *name = value->key + strlen("node/");
	const char *before = json_string_value(json_object_get(d->revoked, name));
	char reason[128], entry[96] = "";
	bool listed = compose_revoked(value, entry, sizeof(entry)), revoked = listed && !strchr(entry, '@');

	if (!strcmp(before ? before : "", entry))
		return;
	if (listed)
		json_object_set_new(d->revoked, name, json_string(entry));
	else
		json_object_del(d->revoked, name);
	snprintf(reason, sizeof(reason), "%s is %s", name, revoked ? "revoked" : listed ? "enrolled anew" : "no longer revoked");
	publish_all(d->publish, reason);
}

static void on_rollout(void *arg, const struct kv_value *value)
{
	struct domain *d = arg;
	char reason[64];

	snprintf(reason, sizeof(reason), "version %lld", (long long)json_integer_value(json_object_get(value->json, "version")));
	publish_all(d->publish, reason);
}

/* --- life --------------------------------------------------------------------------------------------------------- */

/* Whoever begins to lead looks at everything: the one before may have ended in the middle of it. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct domain *d = arg;
	bool leads = kv_ready(d->controller->kv) && kv_leads(d->controller->kv);
	(void)fd, (void)what;

	if (leads && !d->leads) {
		d->leads_since = domain_now();
		log_info("leads the domain", "document=%llu", (unsigned long long)versions_head(d->controller->kv, NULL));
		publish_all(d->publish, "a controller began to lead");
	}
	d->leads = leads;
}

void domain_stop(struct domain *d)
{
	if (!d)
		return;
	d->stopped = true;
	event_del(d->tick);
	publish_stop(d->publish);
}

void domain_free(struct domain *d)
{
	if (!d)
		return;
	if (d->tick)
		event_free(d->tick);
	proposals_end(d);
	objectives_free(d->objectives);
	rollout_free(d->rollout);
	publish_free(d->publish);
	versions_free(d->versions);
	json_decref(d->revoked);
	free(d);
}

void domain_start(struct controller *c)
{
	struct domain *d = c->domain ? NULL : calloc(1, sizeof(*d));

	if (!d)
		return;
	d->controller = c;
	d->grace = (int64_t)NODES_AWAY * nodes_report_ms(c->nodes) + GRACE_MS;
	d->revoked = json_object();
	kv_each(c->kv, "node/", remember_revoked, d);
	d->versions = versions_new(c->kv);
	d->publish = d->versions ? publish_new(c, d->versions) : NULL;
	d->rollout = d->publish ? rollout_new(d) : NULL;
	d->objectives = d->rollout ? objectives_new(d) : NULL;
	d->tick = event_new(worker_base(c->worker), -1, EV_PERSIST, on_tick, d);
	if (!d->objectives || !d->tick) {
		log_error("out of memory", "what=domain");
		domain_free(d);
		return;
	}
	c->domain = d;
	kv_watch(c->kv, "override/", on_override, d);
	kv_watch(c->kv, "node/", on_node, d);
	kv_watch(c->kv, "rollout", on_rollout, d);
	event_add(d->tick, &(struct timeval){.tv_sec = 1});
	on_tick(-1, 0, d);
}
