/* SPDX-License-Identifier: Apache-2.0 */
/* What etcd, or who sits in its place, answers: keys, values, transactions, errors. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/controller/kv_etcd_wire.h"

#define PREFIX "hermes/example.net/"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void key_and_value(const json_t *kv)
{
	char key[KV_KEY_MAX + 1];
	if (wire_key(kv, PREFIX, key) && (!*key || strlen(key) > KV_KEY_MAX))
		abort();
	wire_number(kv, "mod_revision");
	json_decref(wire_value(kv));
}

static void keys_and_values(const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *one = json_array_get(list, i), *event = json_object_get(one, "kv");
		key_and_value(event ? event : one);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct kv_txn *txn;
	if (!txn) {
		txn = kv_txn_new(NULL);
		kv_txn_put(txn, "node/a", json_pack("{s:i}", "x", 1), false);
		kv_txn_delete(txn, "node/b");
	}
	json_t *json = json_loadb((const char *)data, size, 0, NULL);
	int error = wire_error((const char *)data, size);
	if (error >= 0)
		abort();
	wire_revision(json);
	wire_changed(json);
	wire_is_done(json, PREFIX, txn);
	wire_number(json, "ID");
	keys_and_values(json_object_get(json, "kvs"));
	keys_and_values(json_object_get(json_object_get(json, "result"), "events"));
	json_decref(json);
	return 0;
}
