/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/config-sync/control_verify.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "store/digest.h"

void control_version_clear(struct control_version *v)
{
	json_decref(v->root);
	memset(v, 0, sizeof(*v));
}

static int refuse(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return -1;
}

static const char *text_of(const struct control_version *v, const char *key)
{
	return json_string_value(json_object_get(v->root, key));
}

static uint64_t number_of(const struct control_version *v, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(v->root, key));

	return n > 0 ? (uint64_t)n : 0;
}

static bool decode(const char *text, uint8_t *out, size_t size)
{
	size_t n = 0;

	return text && !sodium_base642bin(out, size, text, strlen(text), NULL, &n, NULL, sodium_base64_VARIANT_ORIGINAL) && n == size;
}

/* The node signs nothing: what is signed says for whom, in which row, and what. */
static bool is_signed(const struct control_version *v, const struct control_trust *trust)
{
	uint8_t key[crypto_sign_PUBLICKEYBYTES], signature[crypto_sign_BYTES];
	char text[1024];
	int n = snprintf(text, sizeof(text), "hermes-config-1\n%s\n%s\n%" PRIu64 "\n%s\n", trust->domain, trust->node, v->number,
	                 v->digest);

	return n > 0 && (size_t)n < sizeof(text) && decode(trust->key, key, sizeof(key)) &&
	       decode(text_of(v, "signature"), signature, sizeof(signature)) &&
	       !crypto_sign_verify_detached(signature, (const unsigned char *)text, (unsigned long long)n, key);
}

static bool same_digest(const struct control_version *v)
{
	uint8_t sum[32];
	char hex[65];

	digest_sha256(v->text, v->length, sum);
	digest_hex(sum, hex);
	return !strcmp(hex, v->digest);
}

static int check(const struct control_version *v, const struct control_trust *trust, char *why, size_t size)
{
	const char *domain = text_of(v, "domain"), *node = text_of(v, "node");

	if (!v->number || !domain || !node || !v->text || !v->digest)
		return refuse(why, size, "malformed: number, domain, node, text or digest is missing");
	if (strcmp(domain, trust->domain))
		return refuse(why, size, "foreign: it is of the domain \"%.80s\", this node is of %s", domain, trust->domain);
	if (strcmp(node, trust->node))
		return refuse(why, size, "foreign: it is for the node \"%.80s\", this is %s", node, trust->node);
	if (!same_digest(v))
		return refuse(why, size, "altered: the text is not the one that its digest is of");
	if (!is_signed(v, trust))
		return refuse(why, size, "altered or foreign: the domain's key has not signed it");
	if (v->number <= trust->last)
		return refuse(why, size, "older or replayed: number %" PRIu64 ", and %" PRIu64 " was dealt with already", v->number,
		              trust->last);
	return 0;
}

int control_verify(const char *body, size_t length, const struct control_trust *trust, struct control_version *v, char *why,
                   size_t size)
{
	json_error_t error;
	json_t *text;

	memset(v, 0, sizeof(*v));
	v->root = json_loadb(body, length, JSON_REJECT_DUPLICATES, &error);
	if (!json_is_object(v->root))
		return refuse(why, size, "malformed: not a JSON object");
	text = json_object_get(v->root, "text");
	v->number = number_of(v, "number");
	v->version = number_of(v, "version");
	v->author = text_of(v, "author");
	v->reason = text_of(v, "reason");
	v->digest = text_of(v, "digest");
	v->text = json_string_value(text);
	v->length = json_string_length(text);
	return check(v, trust, why, size);
}
