/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes ask for, and what operators ask about them. */
#include "workers/controller/enrolment.h"
#include "workers/controller/metrics.h"
#include "workers/controller/nodes.h"
#include "workers/controller/polls.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RENEW_AFTER 2 / 3         /* of a certificate's life */
#define DAYS 30

/* Whether the node is to ask for a new certificate: long before the old one ends. */
static bool must_renew(const struct controller *c, const char *node)
{
	char key[NODES_NAME_MAX + 8];
	const struct config *config = c->config;
	int64_t days = config && config->controller.certificate_days ? config->controller.certificate_days : DAYS;
	snprintf(key, sizeof(key), "node/%s", node);
	struct kv_value value = kv_get(c->kv, key);
	const json_t *certified = value.revision ? json_object_get(value.json, "certified") : NULL;
	return json_is_integer(certified) && json_integer_value(certified) + days * 86400 * RENEW_AFTER < (json_int_t)time(NULL);
}

static void report(struct api_call *call)
{
	struct nodes *nodes = call->controller->nodes;
	if (!call->node) {
		api_error(call->request, 403, "forbidden", "only a node reports, and only of itself");
		return;
	}
	const char *error = nodes_report(nodes, call->node, call->body);
	if (error)
		api_error(call->request, 400, "bad-report", "%s", error);
	else
		api_reply(call->request, 200, json_pack("{s:b, s:i}", "renew", must_renew(call->controller, call->node), "report_ms",
		                                        (int)nodes_report_ms(nodes)));
}

/* "" all of them, NAME one. */
static void show(struct api_call *call)
{
	if (!*call->rest) {
		api_reply(call->request, 200, json_pack("{s:o}", "nodes", nodes_list(call->controller->nodes)));
		return;
	}
	json_t *node = nodes_json(call->controller->nodes, call->rest, true);
	if (node)
		api_reply(call->request, 200, node);
	else
		api_error(call->request, 404, "not-found", "there is no node of that name");
}

static void metrics(struct api_call *call)
{
	char *text = metrics_text(call->controller);
	if (text)
		api_reply_text(call->request, 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", text);
	else
		api_error(call->request, 503, "memory", "out of memory");
	free(text);
}

void api_nodes_add(struct api *api)
{
	static const struct api_route routes[] = {
		{"/v1/config", "GET", API_NODE, polls_config, NULL},
		{"/v1/report", "POST", API_NODE, report, NULL},
		{"/v1/nodes", "GET", API_OPERATOR, show, NULL},
		{"/metrics", "GET", API_OPERATOR, metrics, NULL},
	};
	api_add(api, routes, sizeof(routes) / sizeof(*routes));
	enrolment_add(api);
}
