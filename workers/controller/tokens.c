/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/tokens.h"
#include "ipc/log.h"
#include "store/digest.h"
#include "workers/controller/enrolment.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOKENS_MAX 10000
#define LIFETIME_S 86400
#define LIFETIME_MAX_S (365 * 86400)
#define TRIES 10
#define WRONG "the token is not valid: it was used, has run out, was deleted, or is mistyped; " \
	"`hermes-admin controller token create` on a controller makes another"
#define BASE64 sodium_base64_VARIANT_URLSAFE_NO_PADDING

/* The random part is long: a plain digest cannot be searched. */
static void hash(const char *secret, char out[65])
{
	uint8_t digest[32];
	digest_sha256(secret, strlen(secret), digest);
	digest_hex(digest, out);
}

/* --- use -------------------------------------------------------------------------------------------------------------- */

static void count_failure(struct kv *kv, const char *key, const struct kv_value *token)
{
	json_int_t failed = json_integer_value(json_object_get(token->json, "failed")) + 1;
	json_t *json = json_copy(token->json);
	json_object_set_new(json, "failed", json_integer(failed));
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, key, token->revision);
	if (failed < TRIES) {
		kv_txn_put(txn, key, json, false);
	} else {
		log_warn("token withdrawn", "id=%s reason=\"too many wrong secrets\"", log_value(key + strlen("token/")));
		kv_txn_delete(txn, key);
		json_decref(json);
	}
	kv_commit(txn, NULL, NULL);
}

static bool right_secret(const json_t *json, const char *secret)
{
	const char *kept = json_string_value(json_object_get(json, "hash"));
	char hashed[65];
	hash(secret, hashed);
	return kept && strlen(kept) == 64 && !sodium_memcmp(kept, hashed, 64);
}

/* What a token that is not known, is over, or comes with a wrong secret is told does not differ. */
static const char *check(struct kv *kv, const char *id, const char *secret, struct token *found)
{
	if (strlen(id) > 40 || (size_t)snprintf(found->key, sizeof(found->key), "token/%s", id) >= sizeof(found->key))
		return WRONG;
	struct kv_value value = kv_get(kv, found->key);
	if (!value.revision)
		return WRONG;
	if (!right_secret(value.json, secret)) {
		count_failure(kv, found->key, &value);
		return WRONG;
	}
	if (json_integer_value(json_object_get(value.json, "expires")) <= (json_int_t)time(NULL))
		return WRONG;
	const char *node = json_string_value(json_object_get(value.json, "node"));
	const char *author = json_string_value(json_object_get(value.json, "author"));
	found->revision = value.revision;
	snprintf(found->node, sizeof(found->node), "%s", node ? node : "");
	snprintf(found->author, sizeof(found->author), "%.60s", author ? author : "");
	found->controller = json_is_true(json_object_get(value.json, "controller"));
	return NULL;
}

const char *tokens_check(struct kv *kv, const char *text, struct token *found)
{
	char copy[TOKEN_TEXT_MAX + 1], *rest = copy;
	*found = (struct token){0};
	if (strlen(text) >= sizeof(copy))
		return WRONG;
	strcpy(copy, text);
	const char *kind = strsep(&rest, "."), *id = strsep(&rest, "."), *secret = strsep(&rest, ".");
	if (strcmp(kind, "hermes1") || !id || !secret || !*id || !*secret)
		return WRONG;
	return check(kv, id, secret, found);
}

/* --- making ----------------------------------------------------------------------------------------------------------- */

struct making {
	struct api_request *request;
	struct kv *kv;
	json_t *json;                 /* the token's record */
	char id[32], secret[64], fingerprint[44];
};

static void making_free(struct making *m)
{
	json_decref(m->json);
	sodium_memzero(m->secret, sizeof(m->secret));
	free(m);
}

static void on_made(void *arg, int error)
{
	struct making *m = arg;
	char text[TOKEN_TEXT_MAX];
	if (error) {
		api_store_error(m->request, error);
	} else {
		snprintf(text, sizeof(text), "hermes1.%s.%s.%s", m->id, m->secret, m->fingerprint);
		json_t *out = json_copy(m->json);
		json_object_del(out, "hash");
		json_object_set_new(out, "token", json_string(text));
		api_reply(m->request, 201, out);
		sodium_memzero(text, sizeof(text));
	}
	making_free(m);
}

static void on_authorities(void *arg, const char *text, const char *error)
{
	struct making *m = arg;
	char key[64];
	if (!error && !enrolment_fingerprint(text, m->fingerprint))
		error = "the domain's authority cannot be read";
	if (error) {
		api_error(m->request, 503, "keeper", "%s", error);
		making_free(m);
		return;
	}
	snprintf(key, sizeof(key), "token/%s", m->id);
	struct kv_txn *txn = kv_txn_new(m->kv);
	kv_txn_if(txn, key, 0);
	kv_txn_put(txn, key, json_incref(m->json), false);
	kv_commit(txn, on_made, m);
}

static void random_text(char *out, size_t size, size_t n)
{
	uint8_t bytes[64];
	randombytes_buf(bytes, n);
	sodium_bin2base64(out, size, bytes, n, BASE64);
	sodium_memzero(bytes, sizeof(bytes));
}

/* What names of nodes are made of, and the pattern's "*?". */
static bool pattern_ok(const char *text)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_.*?");
	return length && !text[length] && length < sizeof(((struct token *)NULL)->node);
}

/* Seconds; 0: none that may be. */
static int64_t lifetime(const struct api_call *call)
{
	const struct config *config = call->controller->config;
	const json_t *wanted = json_object_get(call->body, "lifetime");
	int64_t usual = config && config->controller.token_lifetime ? config->controller.token_lifetime / 1000 : LIFETIME_S;
	int64_t seconds = wanted ? json_integer_value(wanted) : usual ? usual : 1;
	return seconds > 0 && seconds <= LIFETIME_MAX_S ? seconds : 0;
}

static bool is_over(const json_t *json, int64_t now)
{
	return json_integer_value(json_object_get(json, "expires")) <= (json_int_t)now;
}

/* Those that are over are forgotten where they would be seen. */
static bool drop_over(void *arg, const struct kv_value *value)
{
	struct kv *kv = arg;
	if (is_over(value->json, time(NULL))) {
		struct kv_txn *txn = kv_txn_new(kv);
		kv_txn_if(txn, value->key, value->revision);
		kv_txn_delete(txn, value->key);
		kv_commit(txn, NULL, NULL);
	}
	return true;
}

static void make(struct api_call *call)
{
	const json_t *wanted = json_object_get(call->body, "node");
	const char *node = wanted ? json_string_value(wanted) : "*";
	int64_t seconds = lifetime(call);
	struct kv *kv = call->controller->kv;
	if ((call->body && !json_is_object(call->body)) || !node || !pattern_ok(node) || !seconds) {
		api_error(call->request, 400, "bad-request",
		          "node: a name in lower case letters, digits, - and _, or a pattern with * and ?; lifetime: seconds, at most a year; controller: true or false");
		return;
	}
	kv_each(kv, "token/", drop_over, kv);
	if (kv_count(kv, "token/") >= TOKENS_MAX) {
		api_error(call->request, 409, "too-many", "there are %d tokens already", TOKENS_MAX);
		return;
	}
	struct making *m = calloc(1, sizeof(*m));
	if (!m) {
		api_error(call->request, 503, "memory", "out of memory");
		return;
	}
	char hashed[65];
	*m = (struct making){.request = call->request, .kv = kv};
	random_text(m->id, sizeof(m->id), TOKEN_ID);
	random_text(m->secret, sizeof(m->secret), TOKEN_SECRET);
	hash(m->secret, hashed);
	m->json = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:s}", "id", m->id, "hash", hashed, "node", node, "controller",
	                    json_is_true(json_object_get(call->body, "controller")), "expires", (json_int_t)(time(NULL) + seconds),
	                    "made", (json_int_t)time(NULL), "author", call->author);
	log_info("token made", "id=%s node=%s seconds=%" PRId64 " author=%s", m->id, log_value(node), seconds, log_value(call->author));
	keeper_ask(call->controller->keeper, "authorities", NULL, 0, NULL, 0, on_authorities, m);
}

/* --- list, delete ----------------------------------------------------------------------------------------------------- */

static bool list_one(void *arg, const struct kv_value *value)
{
	if (is_over(value->json, time(NULL)))
		return true;
	json_t *token = json_copy(value->json);
	json_object_del(token, "hash");
	json_array_append_new(arg, token);
	return true;
}

static void list(struct api_call *call)
{
	json_t *tokens = json_array();
	kv_each(call->controller->kv, "token/", list_one, tokens);
	api_reply(call->request, 200, json_pack("{s:o}", "tokens", tokens));
}

static void on_deleted(void *arg, int error)
{
	if (error)
		api_store_error(arg, error);
	else
		api_reply(arg, 204, NULL);
}

static void delete_one(struct api_call *call)
{
	char key[64] = "token/";
	struct kv *kv = call->controller->kv;
	if (strlen(call->rest) < sizeof(key) - strlen(key))
		strcat(key, call->rest);
	struct kv_value value = kv_get(kv, key);
	if (!value.revision) {
		api_error(call->request, 404, "not-found", "there is no such token");
		return;
	}
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, key, value.revision);
	kv_txn_delete(txn, key);
	kv_commit(txn, on_deleted, call->request);
}

void tokens_add(struct api *api)
{
	static const struct api_route routes[] = {
		{"/v1/tokens", "GET", API_OPERATOR, list, NULL},
		{"/v1/tokens", "POST", API_OPERATOR, make, NULL},
		{"/v1/tokens/", "DELETE", API_OPERATOR, delete_one, NULL},
	};
	api_add(api, routes, sizeof(routes) / sizeof(*routes));
}
