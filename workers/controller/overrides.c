/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/overrides.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

bool overrides_role_ok(const char *role)
{
	return !strcmp(role, "tun_bridge") || !strcmp(role, "telemetry");
}

static void set(json_t *map, const char *key, json_t *value)
{
	if (value)
		json_object_set_new(map, key, value);
	else
		json_object_del(map, key);
}

void overrides_set(struct kv *kv, const char *node, const char *key, const char *role, json_t *value, kv_done *done, void *arg)
{
	char path[80];
	json_t *roles;
	struct kv_txn *txn = kv_txn_new(kv);

	snprintf(path, sizeof(path), "override/%s", node);
	struct kv_value before = kv_get(kv, path);
	json_t *after = before.revision ? json_deep_copy(before.json) : json_object();
	if (!txn || !after) {
		json_decref(after);
		json_decref(value);
		done(arg, -ENOMEM);
		return;
	}
	if (role) {
		roles = json_object_get(after, key);
		if (!roles)
			json_object_set_new(after, key, roles = json_object());
		set(roles, role, value);
	} else {
		set(after, key, value);
	}
	kv_txn_if(txn, path, before.revision);
	if (json_object_size(after))
		kv_txn_put(txn, path, after, false);
	else {
		kv_txn_delete(txn, path);
		json_decref(after);
	}
	kv_commit(txn, done, arg);
}
