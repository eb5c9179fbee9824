/* SPDX-License-Identifier: Apache-2.0 */
/* The controller's client: which versions are believed, what is remembered, what a report says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "store/digest.h"
#include "workers/config-sync/control_internal.h"
#include "workers/config-sync/control_verify.h"

static uint8_t public_key[crypto_sign_PUBLICKEYBYTES], secret_key[crypto_sign_SECRETKEYBYTES];
static char key[64];
static char folder[] = "/tmp/hermes-control-XXXXXX";

/* --- versions ---------------------------------------------------------------------------------------------------------- */

static json_t *version(const char *domain, const char *node, uint64_t number, const char *text)
{
	uint8_t sum[32], signature[crypto_sign_BYTES];
	char hex[65], signed_text[1024], base64[128];

	digest_sha256(text, strlen(text), sum);
	digest_hex(sum, hex);
	int n = snprintf(signed_text, sizeof(signed_text), "hermes-config-1\n%s\n%s\n%llu\n%s\n", domain, node,
	                 (unsigned long long)number, hex);
	crypto_sign_detached(signature, NULL, (const unsigned char *)signed_text, (unsigned long long)n, secret_key);
	sodium_bin2base64(base64, sizeof(base64), signature, sizeof(signature), sodium_base64_VARIANT_ORIGINAL);
	return json_pack("{s:I s:I s:s s:s s:s s:s s:s s:s s:s}", "number", (json_int_t)number, "version", (json_int_t)3, "node", node,
	                 "domain", domain, "author", "root", "reason", "test", "text", text, "digest", hex, "signature", base64);
}

static char why[300];

static int verify(json_t *json, const char *set, json_t *value)
{
	const struct control_trust trust = {.domain = "example.net", .node = "alice", .key = key, .last = 7};
	struct control_version v;

	if (value)
		json_object_set_new(json, set, value);
	else if (set)
		json_object_del(json, set);
	char *text = json_dumps(json, 0);
	int result = control_verify(text, strlen(text), &trust, &v, why, sizeof(why));
	if (!result) {
		assert_int_equal(v.number, 8);
		assert_int_equal(v.version, 3);
		assert_int_equal(v.length, strlen(v.text));
		assert_string_equal(v.author, "root");
	}
	control_version_clear(&v);
	free(text);
	json_decref(json);
	return result;
}

static void refused(json_t *json, const char *set, json_t *value, const char *word)
{
	if (!verify(json, set, value))
		fail_msg("believed: %s", word);
	if (!strstr(why, word))
		fail_msg("said %s, not %s", why, word);
}

static json_t *good(void)
{
	return version("example.net", "alice", 8, "log: {level: info}\n");
}

static void a_good_version_is_believed(void **state)
{
	(void)state;
	assert_int_equal(verify(good(), NULL, NULL), 0);
	assert_int_equal(verify(version("example.net", "alice", 8, ""), NULL, NULL), 0);
}

static void bad_versions_are_not(void **state)
{
	static const char *const wanted[] = {"number", "domain", "node", "text", "digest"};
	char other[64];

	(void)state;
	refused(version("example.net", "alice", 7, "x"), NULL, NULL, "replayed");
	refused(version("example.net", "alice", 1, "x"), NULL, NULL, "older");
	refused(version("example.org", "alice", 8, "x"), NULL, NULL, "foreign");
	refused(version("example.net", "bob", 8, "x"), NULL, NULL, "foreign");
	/* what is signed cannot be changed afterwards */
	refused(version("example.org", "alice", 8, "x"), "domain", json_string("example.net"), "signed");
	refused(version("example.net", "bob", 8, "x"), "node", json_string("alice"), "signed");
	refused(version("example.net", "alice", 7, "x"), "number", json_integer(8), "signed");
	refused(good(), "text", json_string("log: {level: debug}\n"), "altered");
	refused(good(), "digest", json_string("00"), "altered");
	/* signatures that are none */
	refused(good(), "signature", NULL, "signed");
	refused(good(), "signature", json_string(""), "signed");
	refused(good(), "signature", json_string("AAAA"), "signed");
	refused(good(), "signature", json_string("not base64"), "signed");
	refused(good(), "signature", json_integer(1), "signed");
	json_t *swapped = version("example.net", "alice", 8, "y");
	refused(good(), "signature", json_string(json_string_value(json_object_get(swapped, "signature"))), "signed");
	json_decref(swapped);
	/* parts that are missing or of another kind */
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		refused(good(), wanted[i], NULL, "malformed");
		refused(good(), wanted[i], json_array(), "malformed");
	}
	refused(good(), "number", json_integer(-8), "malformed");
	refused(json_array(), NULL, NULL, "malformed");
	/* another domain's key */
	strcpy(other, key);
	key[3] = key[3] == 'A' ? 'B' : 'A';
	refused(good(), NULL, NULL, "signed");
	strcpy(key, "short");
	refused(good(), NULL, NULL, "signed");
	strcpy(key, other);
	assert_int_equal(verify(good(), NULL, NULL), 0);
}

static void nonsense_is_not_json(void **state)
{
	static const char *const texts[] = {"", "{", "[]", "null", "{\"number\":1,\"number\":2}", "\xff"};
	const struct control_trust trust = {.domain = "d", .node = "n", .key = key};
	struct control_version v;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		assert_int_equal(control_verify(texts[i], strlen(texts[i]), &trust, &v, why, sizeof(why)), -1);
		control_version_clear(&v);
	}
}

/* --- memory ------------------------------------------------------------------------------------------------------------ */

static struct store *store;

static int open_store(void **state)
{
	const char *fault = "";

	(void)state;
	strcpy(folder, "/tmp/hermes-control-XXXXXX");
	assert_non_null(mkdtemp(folder));
	return store_open(folder, 0, &store, &fault);
}

static int close_store(void **state)
{
	char command[128];

	(void)state;
	store_close(store);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static void memory_outlives_us(void **state)
{
	struct control_memory m, again;
	char digest[65];

	(void)state;
	memset(digest, 'a', 64);
	digest[64] = '\0';
	control_memory_load(store, &m);
	assert_true(!m.last && !m.armed && !m.refused && !control_memory_find(&m, 0) && !control_memory_find(&m, 5));
	assert_int_equal(control_memory_last(store, &m, 5), 0);
	assert_int_equal(control_memory_last(store, &m, 3), 0);
	assert_int_equal(control_memory_arm(store, &m, 12), 0);
	assert_int_equal(control_memory_know(store, &m, 5, 2, digest), 0);
	for (uint64_t i = 0; i < 3; i++) {
		digest[0] = (char)('0' + i);
		assert_int_equal(control_memory_know(store, &m, 100 + i, 30 + i, digest), 0);
	}
	assert_int_equal(control_memory_refuse(store, &m, 103, "rolled back", "no controller:  was reached"), 0);
	control_memory_load(store, &again);
	assert_int_equal(again.last, 103);
	assert_int_equal(again.armed, 12);
	assert_int_equal(again.refused, 103);
	assert_string_equal(again.refused_state, "rolled back");
	assert_string_equal(again.refused_error, "no controller:  was reached");
	assert_null(control_memory_find(&again, 5));
	assert_int_equal(control_memory_find(&again, 101)->version, 31);
	assert_string_equal(control_memory_find(&again, 102)->digest, digest);
	assert_int_equal(control_memory_refuse(store, &m, 104, "rejected", ""), 0);
	control_memory_load(store, &again);
	assert_string_equal(again.refused_state, "rejected");
	/* killed between the two notes: what was refused is not taken again */
	assert_int_equal(store_set_note(store, "control-refused", "110 rejected x"), 0);
	control_memory_load(store, &again);
	assert_int_equal(again.last, 110);
	assert_int_equal(control_memory_refuse(store, &m, 0, NULL, NULL), 0);
	control_memory_load(store, &again);
	assert_true(!again.refused && again.last == 104);
	store_set_note(store, "control-last", "garbage");
	store_set_note(store, "control-refused", "1 2 3 4");
	store_set_note(store, "control-known", "x");
	control_memory_load(store, &again);
	assert_true(!again.last || again.last == again.refused);
}

/* --- reports ----------------------------------------------------------------------------------------------------------- */

static json_t *report(const struct control *c, const char *gathered)
{
	char *text = control_report_write(c, gathered);
	json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(root);
	free(text);
	return root;
}

static const char *text_at(json_t *root, const char *name)
{
	return json_string_value(json_object_get(root, name));
}

static uint64_t put_version(uint64_t number)
{
	struct store_version v = {.source = "controller", .text = strdup("a: 1\n"), .length = 5};

	if (number)
		v.controller = (struct store_layer){.number = number, .text = strdup("b: 1\n"), .length = 5};
	assert_int_equal(store_add(store, &v), 0);
	assert_int_equal(store_set_in_force(store, v.version), 0);
	uint64_t made = v.version;
	store_version_clear(&v);
	return made;
}

static void reports_say_what_became_of_versions(void **state)
{
	struct sync sync = {.store = store};
	struct control c = {.sync = &sync};
	char digest[65];

	(void)state;
	memset(digest, 'b', 64);
	digest[64] = '\0';
	json_t *r = report(&c, NULL);
	assert_int_equal(json_integer_value(json_object_get(r, "number")), 0);
	assert_string_equal(text_at(r, "state"), "accepted");
	assert_true(json_is_null(json_object_get(r, "refused")));
	json_decref(r);

	c.generation = put_version(9);
	control_memory_know(store, &c.memory, 9, 4, digest);
	r = report(&c, "{\"ready\":true,\"workers\":[{\"name\":\"router\"}],\"uptime_seconds\":1.5}");
	assert_int_equal(json_integer_value(json_object_get(r, "number")), 9);
	assert_int_equal(json_integer_value(json_object_get(r, "version")), 4);
	assert_string_equal(text_at(r, "digest"), digest);
	assert_true(json_is_true(json_object_get(r, "ready")) && json_is_true(json_object_get(r, "confirmed")));
	assert_string_equal(text_at(json_array_get(json_object_get(r, "workers"), 0), "name"), "router");
	json_decref(r);

	/* what a controller would not take is left out */
	char *many = malloc(600 << 10);
	sprintf(many, "{\"ready\":true,\"clusters\":[\"%0*d\"]}", 500 << 10, 1);
	r = report(&c, many);
	assert_int_equal(json_array_size(json_object_get(r, "clusters")), 1);
	json_decref(r);
	sprintf(many, "{\"ready\":true,\"clusters\":[\"%0*d\"]}", 520 << 10, 1);
	r = report(&c, many);
	assert_true(json_is_true(json_object_get(r, "ready")));
	assert_int_equal(json_array_size(json_object_get(r, "clusters")), 0);
	json_decref(r);
	free(many);

	control_memory_refuse(store, &c.memory, 10, "rejected", "first");
	c.errors = json_pack("[s,s]", "a:1:1: x: unknown", "second \"quoted\"");
	r = report(&c, "no json");
	assert_string_equal(text_at(r, "state"), "rejected");
	json_t *refused_ = json_object_get(r, "refused");
	assert_int_equal(json_integer_value(json_object_get(refused_, "number")), 10);
	assert_string_equal(json_string_value(json_array_get(json_object_get(refused_, "errors"), 1)), "second \"quoted\"");
	json_decref(r);
	json_decref(c.errors);
	c.errors = NULL;

	control_memory_refuse(store, &c.memory, 11, "rolled back", "no controller");
	c.pending = true;
	r = report(&c, NULL);
	assert_string_equal(text_at(r, "state"), "rolled back");
	assert_true(json_is_false(json_object_get(r, "confirmed")));
	assert_int_equal(json_integer_value(json_object_get(r, "number")), 9);
	json_decref(r);

	c.bad_number = 12;
	strcpy(c.bad_why, "altered: no");
	r = report(&c, NULL);
	assert_string_equal(text_at(r, "state"), "rejected");
	assert_string_equal(json_string_value(json_array_get(json_object_get(json_object_get(r, "refused"), "errors"), 0)),
	                    "altered: no");
	json_decref(r);

	c.bad_why[0] = '\0';
	c.generation = put_version(13);              /* a newer one is in force: what was before matters no more */
	r = report(&c, NULL);
	assert_string_equal(text_at(r, "state"), "accepted");
	json_decref(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_version_is_believed), cmocka_unit_test(bad_versions_are_not), cmocka_unit_test(nonsense_is_not_json),
		cmocka_unit_test_setup_teardown(memory_outlives_us, open_store, close_store),
		cmocka_unit_test_setup_teardown(reports_say_what_became_of_versions, open_store, close_store),
	};

	if (sodium_init() < 0)
		return 1;
	crypto_sign_keypair(public_key, secret_key);
	sodium_bin2base64(key, sizeof(key), public_key, sizeof(public_key), sodium_base64_VARIANT_ORIGINAL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
