/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/kv_etcd_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE64 sodium_base64_VARIANT_ORIGINAL

static json_t *base64(const void *data, size_t length)
{
	size_t size = sodium_base64_encoded_len(length, BASE64);
	char *text = malloc(size);
	json_t *json = text ? json_string(sodium_bin2base64(text, size, data, length, BASE64)) : NULL;
	free(text);
	return json;
}

/* malloc'd, NUL-terminated. */
static char *from_base64(const char *text, size_t *length)
{
	size_t size = strlen(text) / 4 * 3 + 4;
	char *out = malloc(size + 1);
	*length = 0;
	if (!out || sodium_base642bin((uint8_t *)out, size, text, strlen(text), NULL, length, NULL, BASE64)) {
		free(out);
		return NULL;
	}
	out[*length] = '\0';
	return out;
}

/* more: 0, or 1 to take the NUL along: the next key after this one. */
static json_t *key_of(const char *prefix, const char *key, size_t more)
{
	char all[KV_KEY_MAX + 300];
	int n = snprintf(all, sizeof(all), "%s%s", prefix, key);
	return n < 0 || (size_t)n >= sizeof(all) ? NULL : base64(all, (size_t)n + more);
}

/* The first key that does not begin with the prefix. */
static json_t *end_of(const char *prefix)
{
	char all[300];
	size_t n = strlen(prefix);
	if (n >= sizeof(all))
		return NULL;
	memcpy(all, prefix, n);
	while (n && (unsigned char)all[n - 1] == 0xff)
		n--;
	if (!n)
		return base64("", 1);         /* "\0": all there are */
	all[n - 1]++;
	return base64(all, n);
}

static json_t *number(uint64_t value)
{
	char text[24];
	snprintf(text, sizeof(text), "%" PRIu64, value);
	return json_string(text);
}

static char *dump(json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	return text;
}

/* --- requests --------------------------------------------------------------------------------------------------------- */

char *wire_range(const char *prefix, const char *after, uint64_t revision, unsigned limit)
{
	json_t *json = json_pack("{s:o, s:o, s:i}", "key", key_of(prefix, after ? after : "", after != NULL), "range_end",
	                         end_of(prefix), "limit", (int)limit);
	if (json && revision)
		json_object_set_new(json, "revision", number(revision));
	return dump(json);
}

static json_t *value_of(const json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
	json_t *out = text ? base64(text, strlen(text)) : NULL;
	free(text);
	return out;
}

static json_t *operation(const char *prefix, const struct kv_op *op, uint64_t lease)
{
	if (!op->json)
		return json_pack("{s:{s:o}}", "request_delete_range", "key", key_of(prefix, op->key, 0));
	json_t *put = json_pack("{s:o, s:o}", "key", key_of(prefix, op->key, 0), "value", value_of(op->json));
	if (put && op->temporary)
		json_object_set_new(put, "lease", number(lease));
	return json_pack("{s:o}", "request_put", put);
}

char *wire_txn(const char *prefix, const struct kv_txn *txn, uint64_t lease, bool again)
{
	json_t *compare = json_array(), *success = json_array(), *failure = json_array();
	for (size_t i = 0; i < txn->n_conditions; i++)
		json_array_append_new(compare, json_pack("{s:o, s:s, s:s, s:o}", "key", key_of(prefix, txn->conditions[i].key, 0),
		                                         "target", "MOD", "result", "EQUAL", "mod_revision",
		                                         number(txn->conditions[i].revision)));
	for (size_t i = 0; i < txn->n_ops; i++) {
		json_array_append_new(success, operation(prefix, &txn->ops[i], lease));
		if (again)
			json_array_append_new(failure, json_pack("{s:{s:o}}", "request_range", "key",
			                                         key_of(prefix, txn->ops[i].key, 0)));
	}
	bool whole = json_array_size(compare) == txn->n_conditions && json_array_size(success) == txn->n_ops;
	json_t *json = json_pack("{s:o, s:o, s:o}", "compare", compare, "success", success, "failure", failure);
	if (whole)
		return dump(json);
	json_decref(json);            /* out of memory on the way: rather nothing than half */
	return NULL;
}

char *wire_watch(const char *prefix, uint64_t from)
{
	return dump(json_pack("{s:{s:o, s:o, s:o, s:b}}", "create_request", "key", key_of(prefix, "", 0), "range_end", end_of(prefix),
	                      "start_revision", number(from), "progress_notify", true));
}

char *wire_grant(unsigned seconds)
{
	return dump(json_pack("{s:i}", "TTL", (int)seconds));
}

char *wire_keepalive(uint64_t lease)
{
	return dump(json_pack("{s:o}", "ID", number(lease)));
}

/* --- answers ---------------------------------------------------------------------------------------------------------- */

uint64_t wire_number(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);
	if (json_is_string(value))
		return strtoull(json_string_value(value), NULL, 10);
	return json_is_integer(value) && json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value) : 0;
}

uint64_t wire_revision(const json_t *answer)
{
	return wire_number(json_object_get(answer, "header"), "revision");
}

bool wire_key(const json_t *kv, const char *prefix, char out[KV_KEY_MAX + 1])
{
	const char *text = json_string_value(json_object_get(kv, "key"));
	size_t length = 0, skip = strlen(prefix);
	char *key = text ? from_base64(text, &length) : NULL;
	bool ours = key && strlen(key) == length && length > skip && length - skip <= KV_KEY_MAX && !memcmp(key, prefix, skip);
	if (ours)
		strcpy(out, key + skip);
	free(key);
	return ours;
}

json_t *wire_value(const json_t *kv)
{
	const char *text = json_string_value(json_object_get(kv, "value"));
	size_t length = 0;
	char *value = text ? from_base64(text, &length) : NULL;
	json_t *json = value ? json_loadb(value, length, JSON_DECODE_ANY, NULL) : NULL;
	free(value);
	return json;
}

bool wire_changed(const json_t *answer)
{
	const json_t *responses = json_object_get(answer, "responses"), *one;
	size_t i;
	json_array_foreach(responses, i, one)
		if (json_object_get(one, "response_put") || wire_number(json_object_get(one, "response_delete_range"), "deleted"))
			return true;
	return false;
}

bool wire_is_done(const json_t *answer, const char *prefix, const struct kv_txn *txn)
{
	const json_t *responses = json_object_get(answer, "responses");
	char key[KV_KEY_MAX + 1];
	bool same = json_array_size(responses) == txn->n_ops;
	for (size_t i = 0; same && i < txn->n_ops; i++) {
		const json_t *kvs = json_object_get(json_object_get(json_array_get(responses, i), "response_range"), "kvs");
		const json_t *kv = json_array_get(kvs, 0);
		json_t *value = kv ? wire_value(kv) : NULL;
		same = txn->ops[i].json ? value && wire_key(kv, prefix, key) && !strcmp(key, txn->ops[i].key) &&
		                          json_equal(value, txn->ops[i].json) : !kv;
		json_decref(value);
	}
	return same;
}

int wire_error(const char *body, size_t length)
{
	json_t *json = json_loadb(body, length, 0, NULL);
	const char *text = json_string_value(json_object_get(json, "message"));
	int error = -EIO;
	if (!text)
		text = json_string_value(json_object_get(json, "error"));
	if (!text)
		text = "";
	if (strstr(text, "too large") || strstr(text, "larger than max") || strstr(text, "too many operations"))
		error = -E2BIG;
	else if (strstr(text, "space exceeded"))
		error = -ENOSPC;
	else if (strstr(text, "lease not found"))
		error = -ESTALE;
	else if (strstr(text, "no leader") || strstr(text, "timed out") || strstr(text, "leader changed") || strstr(text, "stopped"))
		error = -ETIMEDOUT;
	json_decref(json);
	return error;
}
