/* SPDX-License-Identifier: Apache-2.0 */
/* A node is told to make itself a new key and certificate, with its next report: a key may have been seen, or an authority changes. */
#include "workers/controller/renewal.h"
#include "ipc/log.h"
#include "workers/controller/nodes.h"

#include <stdio.h>
#include <string.h>

static void on_asked(void *arg, int error)
{
	if (error)
		api_store_error(arg, error);
	else
		api_reply(arg, 200, json_pack("{s:b}", "renews", true));
}

static void ask(struct api_call *call)
{
	char key[NODES_NAME_MAX + 8];
	struct kv *kv = call->controller->kv;
	struct kv_value node = {0};
	if (snprintf(key, sizeof(key), "node/%.*s", (int)strcspn(call->rest, "/"), call->rest) < (int)sizeof(key))
		node = kv_get(kv, key);
	if (!node.revision || json_is_true(json_object_get(node.json, "revoked"))) {
		api_error(call->request, 404, "not-found", "there is no enrolled node of that name");
		return;
	}
	json_t *json = json_copy(node.json);
	json_object_set_new(json, "certified", json_integer(0));      /* so long ago that it is due */
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, key, node.revision);
	kv_txn_put(txn, key, json, false);
	log_info("certificate to be renewed", "node=%s author=%s", log_value(key + strlen("node/")), log_value(call->author));
	kv_commit(txn, on_asked, call->request);
}

/* A controller's certificate also says controller.DOMAIN, and is to say so again: that it is one, another controller could not know where
 * it heard of this node first. */
static void on_own(void *arg, const struct kv_value *value)
{
	const struct controller *c = arg;
	struct kv *kv = c->kv;
	if (strcmp(value->key + strlen("node/"), c->config->node_name) || !value->revision || json_is_true(json_object_get(value->json, "controller")))
		return;
	json_t *json = json_copy(value->json);
	json_object_set_new(json, "controller", json_true());
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, value->key, value->revision);
	kv_txn_put(txn, value->key, json, false);
	kv_commit(txn, NULL, NULL);
}

void renewal_start(struct controller *controller)
{
	char key[NODES_NAME_MAX + 8];
	snprintf(key, sizeof(key), "node/%s", controller->config->node_name);
	kv_watch(controller->kv, key, on_own, controller);
	const struct kv_value own = kv_get(controller->kv, key);
	if (own.revision)
		on_own(controller, &own);
}

void renewal_add(struct api *api)
{
	static const struct api_route routes[] = {{"/v1/nodes/", "POST", API_OPERATOR, ask, "renew"}};
	api_add(api, routes, 1);
}
